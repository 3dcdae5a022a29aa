#!/usr/bin/env bash
# n8n-backup shim: runs the command that this file is named after, for the n8n project
# directory it stands in (the parent of scripts/). All shims have the same text.
set -uo pipefail
shopt -s execfail

# This file itself, not a link to it. The x keeps a newline at the end of a name.
self=${BASH_SOURCE[0]}
[[ $self == /* ]] || self=$PWD/$self
while [[ -L $self ]]; do
  target=$(readlink -n "$self" && printf x)
  target=${target%x}
  [[ $target == /* ]] || target=${self%/*}/$target
  self=$target
done
dir=$(cd -L "${self%/*}/" && cd -L .. && printf '%sx' "$PWD") || exit 1
dir=${dir%x}
word=${self##*/}
word=${word%.sh}

# A copy to another number is what fails on a closed descriptor; onto itself succeeds.
stdout_is_open() {
  { : 3>&1; } 2>/dev/null
}

# fail MESSAGE: one ERROR line to standard output (to standard error when that is closed)
# and to the log, unless standard output is the log already; then exit status 1.
fail() {
  local line log=$dir/logs/backup.log
  line="[ERROR] $(date '+%Y-%m-%d %H:%M:%S') [$word] $1"
  if stdout_is_open; then
    printf '%s\n' "$line" 2>/dev/null
    [[ /dev/stdout -ef $log ]] && exit 1
  else
    printf '%s\n' "$line" >&2
  fi
  [[ -d ${log%/*} ]] || mkdir "${log%/*}" 2>/dev/null
  { printf '%s\n' "$line" >>"$log"; } 2>/dev/null
  exit 1
}

stdout_is_open || fail 'Standard output is closed, nothing was done'

# An empty file would pass for a shell script that does nothing.
program=$dir/bin/n8n-backup
if [[ -f $program && -s $program && -x $program ]]; then
  exec "$program" --project-dir "$dir" "$word" "$@"
  problem='cannot be started'
else
  problem='is missing or not executable'
fi
LC_ALL=C
printf -v quoted '%q' "$dir"
fail "bin/n8n-backup $problem: run make install N8N_DIR=$quoted"
