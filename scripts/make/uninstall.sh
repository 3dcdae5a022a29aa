#!/usr/bin/env bash
# Takes n8n-backup out of the n8n project directory N8N_DIR: the kept originals come back,
# shims without one go, so does bin/n8n-backup. Backups, logs and .env stay.
set -euo pipefail
. "${BASH_SOURCE[0]%/*}/lib.sh"

n8n_dir
for part in . scripts; do
  if [[ $dir/$part -ef $root/$part ]]; then
    die 'N8N_DIR is this checkout: name the n8n directory, as in make uninstall N8N_DIR=/path/to/n8n'
  fi
  [[ ! -d $dir/$part || -w $dir/$part ]] || die "not writable for $(id -un): $dir/$part"
done

restored=0
removed=0
shopt -s nullglob
# Any shim, also one of a version that had more of them; and an original whose shim is gone.
for script in "$dir"/scripts/*.sh; do
  is_shim "$script" || continue
  if [[ -e $script.orig || -L $script.orig ]]; then
    mv -f -- "$script.orig" "$script"
    restored=$((restored + 1))
  else
    rm -f -- "$script"
    removed=$((removed + 1))
  fi
done
for shim in "$root"/scripts/*.sh; do
  script=$dir/scripts/${shim##*/}
  [[ -e $script.orig || -L $script.orig ]] || continue
  if [[ -e $script || -L $script ]]; then
    say "Left alone: $script is not ours, its .orig stays beside it"
  else
    mv -- "$script.orig" "$script"
    restored=$((restored + 1))
  fi
done
rm -f -- "$dir/bin/n8n-backup"
[[ ! -d $dir/bin ]] || rmdir --ignore-fail-on-non-empty -- "$dir/bin"

say "Uninstalled from $dir: $restored original scripts are back, $removed scripts removed; backups, logs and .env were not touched"
