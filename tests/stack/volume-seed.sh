#!/bin/sh
# Fills /volume the way n8n does, and with what an archive may lose. Runs in the
# helper image. Takes n8n's encryption key.
set -eu
umask 022
cd /volume

printf '{\n\t"encryptionKey": "%s"\n}' "$1" >config
chmod 600 config
printf '' >crash.journal
mkdir -p git nodes/node_modules/n8n-nodes-example/dist ssh storage
printf '{"name":"installed-nodes","private":true,"dependencies":{"n8n-nodes-example":"0.3.1"}}' >nodes/package.json
printf 'module.exports = {};\n' >nodes/node_modules/n8n-nodes-example/dist/index.js
i=0
while [ $i -lt 3000 ]; do
  printf '{"__type":"EventMessageWorkflow","id":"0000-%s","ts":"2025-06-01T00:00:%02d.000+00:00","eventName":"n8n.workflow.success","payload":{"executionId":"%s"}}\n' $i $((i % 60)) $i
  i=$((i + 1))
done >n8nEventLog.log
cp n8nEventLog.log n8nEventLog-1.log

# Binary data of executions: text and noise.
i=1
while [ $i -le 24 ]; do
  dir=binaryData/workflows/wf$((i % 6))/executions/$i/binary_data
  mkdir -p "$dir"
  if [ $((i % 2)) = 0 ]; then
    dd if=/dev/urandom of="$dir/file-$i" bs=16k count=$i 2>/dev/null
  else
    head -c $((i * 9000)) n8nEventLog.log >"$dir/file-$i"
  fi
  printf '{"fileName":"report %s.pdf","mimeType":"application/pdf","fileSize":%s}' $i $((i * 9000)) >"$dir/file-$i.metadata"
  i=$((i + 1))
done

# Names.
mkdir -p odd/names
cd odd/names
newline='
'
for name in 'with blank' ' leading blank' 'trailing blank ' '-dash' '--help' "new${newline}line" 'tab	name' 'quote"double' "quote'single" \
  'back\slash' '*' '?' "\$(id)" "\`id\`" ';' '&' '#hash' '~' '...' '.hidden' e; do
  printf '%s' "$name" >"./$name"
done
printf wide >"$(printf '\303\234bersicht \346\246\202\350\246\201 \360\237\223\246')"
# The same letter composed and decomposed: two files.
printf composed >"$(printf 'caf\303\251')"
printf decomposed >"$(printf 'cafe\314\201')"
# No valid UTF-8.
printf latin1 >"$(printf 'caf\351')"
mkdir "dir with ${newline} newline" empty ./-r
printf x >"./-r/-f"

# Paths of more than 100 and more than 255 characters, and the longest name.
cd ..
part=$(printf '%060d' 0)
mkdir -p "$part/$part/$part/$part/$part"
printf long >"$part/long"
printf longer >"$part/$part/longer"
printf longest >"$part/$part/$part/$part/$part/longest"
printf name >"$(printf '%0255d' 7)"

# Links.
mkdir links
ln -s ../names/e links/relative
ln -s /home/node/.n8n/config links/absolute
ln -s 'not there' links/dangling
ln -s . links/itself
ln -s "$part/$part/$part/$part/$part/$part" links/long-target
ln -s "new${newline}line" links/newline-target
printf linked >links/hard-1
ln links/hard-1 links/hard-2
ln links/hard-1 names/hard-3
: >links/empty-1
ln links/empty-1 links/empty-2

# Contents.
mkdir contents
: >contents/empty
dd if=/dev/zero of=contents/zeros bs=64k count=8 2>/dev/null
truncate -s 16M contents/sparse
printf start | dd of=contents/sparse conv=notrunc 2>/dev/null
printf middle | dd of=contents/sparse bs=1 seek=8388611 conv=notrunc 2>/dev/null
for size in 1 511 512 513 10239 10240 10241; do
  head -c $size /dev/urandom >contents/$size
done

# Owners and modes.
mkdir modes modes/sticky modes/setgid modes/closed modes/read-only
for mode in 0000 0400 0444 0600 0644 0666 0755 0777 2755 4755 6755; do
  printf '%s' $mode >modes/$mode
done
printf x >modes/closed/inside
printf x >modes/read-only/inside
printf x >modes/other-owner
printf x >modes/large-owner

cd /volume
chown -Rh 1000:1000 .
chown 0:0 odd/modes/0600
chown 12345:54321 odd/modes/other-owner
chown 4000000:4000000 odd/modes/large-owner
chown -h 12345:54321 odd/links/dangling
for mode in 0000 0400 0444 0600 0644 0666 0755 0777 2755 4755 6755; do
  chmod $mode odd/modes/$mode
done
chmod 1777 odd/modes/sticky
chmod 2775 odd/modes/setgid
chmod 0000 odd/modes/closed
chmod 0555 odd/modes/read-only

# Times: a past one for all, some special ones.
find . -depth -exec touch -h -d '2024-02-29 12:34:56' {} +
touch -d '1970-01-01 00:00:00' odd/contents/1
touch -d '1999-12-31 23:59:59' odd/modes/sticky
touch -d '2040-01-01 00:00:00' odd/contents/511
