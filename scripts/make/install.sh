#!/usr/bin/env bash
# Installs bin/n8n-backup, the shims and the missing directories into the n8n project
# directory N8N_DIR: `n8n-backup install` does it, for those who have the program alone too.
set -euo pipefail
. "${BASH_SOURCE[0]%/*}/lib.sh"

n8n_dir
[[ -x $root/bin/n8n-backup ]] || die 'bin/n8n-backup is missing: run make build'
if [[ $dir -ef $root ]]; then
  say "N8N_DIR is this checkout: bin/n8n-backup is built, nothing else to install"
  exit 0
fi
for part in bin scripts scripts/lib; do
  [[ ! $dir/$part -ef $root/$part ]] || die "$dir/$part is a directory of this checkout: N8N_DIR must have one of its own"
done
exec "$root/bin/n8n-backup" install -- "$dir"
