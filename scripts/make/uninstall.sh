#!/usr/bin/env bash
# Removes n8n-backup from the n8n project directory N8N_DIR and puts back the originals that
# were kept, as `n8n-backup uninstall` does. Backups, logs and .env stay.
set -euo pipefail
. "${BASH_SOURCE[0]%/*}/lib.sh"

n8n_dir
for part in . scripts scripts/lib; do
  [[ ! $dir/$part -ef $root/$part ]] ||
    die 'N8N_DIR is this checkout: give the n8n directory, as in make uninstall N8N_DIR=/path/to/n8n'
done
exec "$root/bin/n8n-backup" uninstall -- "$dir"
