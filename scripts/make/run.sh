#!/usr/bin/env bash
# run.sh COMMAND: runs a command of the checkout's binary on N8N_DIR. Settings from the
# environment: DRY_RUN for cleanup, FILE and YES for restore (the file name tells which
# component), SET and YES for restore-all.
set -euo pipefail
. "${BASH_SOURCE[0]%/*}/lib.sh"

n8n_dir
arguments=("$1")
case $1 in
  cleanup-backups)
    # Anything but a clear no deletes nothing.
    is_no "${DRY_RUN:-}" || arguments+=(--dry-run)
    ;;
  restore-all | verify)
    [[ -z ${SET:-} ]] || arguments+=("$SET")
    [[ $1 == verify ]] || ! is_yes "${YES:-}" || arguments+=(--yes)
    ;;
  restore)
    file=${FILE:-}
    [[ -n $file ]] || die 'FILE is missing: make restore FILE=backups/postgres/n8n_YYYYMMDD_HHMMSS.sql.gz [YES=1]'
    # A relative path may be relative to the n8n directory.
    if [[ $file != /* && ! -e $file && -e $dir/$file ]]; then
      file=$dir/$file
    fi
    case ${file%.gpg} in
      */deployment_*.tar.gz | deployment_*.tar.gz) arguments=(restore-env) ;;
      *.sql.gz) arguments=(restore-postgres) ;;
      *.sqlite.gz) arguments=(restore-sqlite) ;;
      *.rdb) arguments=(restore-redis) ;;
      *.tar.gz) arguments=(restore-n8n) ;;
      *.backup) arguments=(restore-env) ;;
      *) die "not the name of a backup (.sql.gz, .sqlite.gz, .rdb, .tar.gz or .backup, with or without .gpg): $file" ;;
    esac
    [[ $file == /* ]] || file=./$file
    arguments+=("$file")
    ! is_yes "${YES:-}" || arguments+=(--yes)
    ;;
esac
exec "$root/bin/n8n-backup" --project-dir "$dir" "${arguments[@]}"
