#!/usr/bin/env bash
# run.sh COMMAND: runs one command of the checkout's binary on N8N_DIR, with the settings
# that make passes in the environment: DRY_RUN for cleanup, FILE and YES for restore, which
# is the restore of the component whose name the file bears, SET and YES for restore-all.
set -euo pipefail
. "${BASH_SOURCE[0]%/*}/lib.sh"

n8n_dir
arguments=("$1")
case $1 in
  cleanup-backups)
    # What is not a clear no deletes nothing.
    is_no "${DRY_RUN:-}" || arguments+=(--dry-run)
    ;;
  restore-all | verify)
    [[ -z ${SET:-} ]] || arguments+=("$SET")
    [[ $1 == verify ]] || ! is_yes "${YES:-}" || arguments+=(--yes)
    ;;
  restore)
    file=${FILE:-}
    [[ -n $file ]] || die 'name the backup: make restore FILE=backups/postgres/n8n_YYYYMMDD_HHMMSS.sql.gz [YES=1]'
    # A relative name may be meant from the n8n directory.
    if [[ $file != /* && ! -e $file && -e $dir/$file ]]; then
      file=$dir/$file
    fi
    case ${file%.gpg} in
      *.sql.gz) arguments=(restore-postgres) ;;
      *.rdb) arguments=(restore-redis) ;;
      *.tar.gz) arguments=(restore-n8n) ;;
      *.backup) arguments=(restore-env) ;;
      *) die "not named as a backup (.sql.gz, .rdb, .tar.gz, .backup, each also with .gpg): $file" ;;
    esac
    [[ $file == /* ]] || file=./$file
    arguments+=("$file")
    ! is_yes "${YES:-}" || arguments+=(--yes)
    ;;
esac
exec "$root/bin/n8n-backup" --project-dir "$dir" "${arguments[@]}"
