#!/usr/bin/env bash
# Removes n8n-backup from the n8n project directory N8N_DIR: restores the originals that were
# kept, deletes the other shims and bin/n8n-backup. Backups, logs and .env stay.
set -euo pipefail
. "${BASH_SOURCE[0]%/*}/lib.sh"

n8n_dir
cd -- "$root"
[[ $dir -ef $root ]] || as_owner uninstall.sh scripts/*.sh scripts/lib/shim.sh
for part in . scripts scripts/lib; do
  if [[ $dir/$part -ef $root/$part ]]; then
    die 'N8N_DIR is this checkout: give the n8n directory, as in make uninstall N8N_DIR=/path/to/n8n'
  fi
  [[ ! -d $dir/$part || -w $dir/$part ]] || die "not writable for $(id -un): $dir/$part"
done

restored=0
removed=0
shopt -s nullglob
# All shims, also of other versions; their shared part last, so that each works until it is
# gone. Then originals whose shim is already gone.
for script in "$dir"/scripts/*.sh "$dir/scripts/lib/shim.sh"; do
  is_shim "$script" || continue
  if [[ -e $script.orig || -L $script.orig ]]; then
    mv -f -- "$script.orig" "$script"
    restored=$((restored + 1))
  else
    rm -f -- "$script"
    removed=$((removed + 1))
  fi
done
for script in "$root"/scripts/*.sh "$root/scripts/lib/shim.sh"; do
  script=$dir${script#"$root"}
  [[ -e $script.orig || -L $script.orig ]] || continue
  if [[ -e $script || -L $script ]]; then
    say "Not restored: $script is not ours, so $script.orig stays"
  else
    mv -- "$script.orig" "$script"
    restored=$((restored + 1))
  fi
done
rm -f -- "$dir/bin/n8n-backup"
for part in scripts/lib bin; do
  [[ ! -d $dir/$part || -L $dir/$part ]] || rmdir --ignore-fail-on-non-empty -- "$dir/$part"
done

say "Uninstalled from $dir: restored $restored originals, deleted $removed files; backups, logs and .env are untouched"
