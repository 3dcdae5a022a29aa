#!/usr/bin/env bash
# Runs the crontab line on a scratch stack as cron does, and checks the files and the log.
set -euo pipefail
. "${BASH_SOURCE[0]%/*}/lib.sh"
. "${BASH_SOURCE[0]%/*}/scratch.sh"

failed=0
finding() {
  printf 'smoke: %s\n' "$*" >&2
  failed=1
}

scratch smoke --seed
"$stack" seed-volume "$prefix"
log=$dir/logs/backup.log
started=$(date +%s)

# cron's environment is this and no more; PATH lacks /usr/local/bin. A crontab would set
# DOCKER_HOST for an engine at another address.
status=0
line="'$dir/scripts/backup-all.sh' >> '$dir/logs/backup.log' 2>&1"
timeout 300 env -i HOME="$HOME" LOGNAME="$(id -un)" PATH=/usr/bin:/bin SHELL=/bin/sh \
  ${DOCKER_HOST:+DOCKER_HOST="$DOCKER_HOST"} /bin/sh -c "$line" </dev/null || status=$?
((status == 0)) || finding "exit status $status of: $line"
say "smoke: $line: $(($(date +%s) - started)) seconds"

# one_file DIRECTORY PATTERN: sets `file` to the only file there; its name must match.
one_file() {
  local found
  mapfile -d '' -t found < <(find "$dir/backups/$1" -mindepth 1 ! -name .gitkeep ! -name .lock -print0)
  file=${found[0]:-}
  if ((${#found[@]} != 1)) || [[ ! ${file##*/} =~ ^$2$ ]]; then
    finding "backups/$1: expected one file named like $2, found: ${found[*]##*/}"
    file=
    return 1
  fi
  [[ $(stat -c %a -- "$file") == 600 ]] || finding "$file: mode $(stat -c %a -- "$file"), expected 600"
}

stamp='[0-9]{8}_[0-9]{6}'
if one_file postgres "n8n_$stamp\.sql\.gz"; then
  gunzip -t <"$file" || finding "$file: not a complete gzip file"
  # The data contain this line too, so it must be the last one.
  end=$(gunzip -c <"$file" | grep -av -e '^--$' -e '^$' -e '^\\unrestrict ' | tail -n 1)
  [[ $end == '-- PostgreSQL database dump complete' ]] || finding "$file: the dump is cut off"
fi
if one_file redis "dump_$stamp\.rdb"; then
  [[ $(head -c 5 -- "$file") == REDIS ]] || finding "$file: not an RDB file"
fi
if one_file n8n "n8n_data_$stamp\.tar\.gz"; then
  gunzip -t <"$file" || finding "$file: not a complete gzip file"
  others=$(tar -tzf "$file" | grep -cv '^\./') || true
  [[ $others == 0 ]] || finding "$file: members that do not start with ./"
fi
if one_file env "env_$stamp\.backup"; then
  cmp -- "$file" "$dir/.env" || finding "$file: differs from .env"
fi

# in_log COUNT PATTERN: the whole message is in the log COUNT times, whatever the command.
# Messages that occur once must occur, for each command, in the order of the calls.
declare -A last=()
in_log() {
  local lines number command
  mapfile -t lines < <(grep -nE "^\[(INFO|SUCCESS)\] [0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2} \[[a-z0-9-]+\] $2\$" "$log")
  if ((${#lines[@]} != $1)); then
    finding "log: ${#lines[@]} times, expected $1: $2"
  elif (($1 == 1)); then
    number=${lines[0]%%:*}
    command=${lines[0]#*] * [}
    command=${command%%]*}
    ((number > ${last[$command]:-0})) || finding "log: out of order: $2"
    last[$command]=$number
  fi
}

size='[0-9.]+[KMGT]?'
in_log 3 '={42}'
in_log 1 'Starting full backup process'
in_log 1 'Disk space check passed: [0-9.]+[KMGTP]i available'
in_log 1 'Running: cleanup-backups\.sh'
in_log 1 'Starting backup cleanup \(retention: 7 days\)'
in_log 1 'Cleanup completed: 0 files deleted, 0B freed'
in_log 1 'Running: backup-postgres\.sh'
in_log 1 'Starting PostgreSQL backup'
in_log 1 'Dumping database n8n to .*\.sql\.gz'
in_log 1 "Backup completed: .*\.sql\.gz \($size\)"
in_log 1 'Running: backup-redis\.sh'
in_log 1 'Starting Redis backup'
in_log 1 'Current LASTSAVE: [0-9]+'
in_log 1 'Triggering BGSAVE'
in_log 1 'Waiting for BGSAVE to complete\.\.\.'
in_log 1 'BGSAVE completed\. New LASTSAVE: [0-9]+'
in_log 1 'Copying RDB file to .*\.rdb'
in_log 1 "Backup completed: .*\.rdb \($size\)"
in_log 1 'Running: backup-n8n\.sh'
in_log 1 'Starting n8n data backup'
in_log 1 'Creating archive .*\.tar\.gz'
in_log 1 "Backup completed: .*\.tar\.gz \($size\)"
in_log 1 'Running: env file backup'
in_log 1 'Backing up environment file'
in_log 1 "Environment backup completed: .*\.backup \($size\)"
in_log 1 'All backups completed successfully \(([0-9]+)/\2\)'
! grep -qE '^\[(WARN|ERROR)\]' "$log" || finding 'log: warnings or errors'
! grep -qvE '^\[[A-Z]+\] [0-9-]{10} [0-9:]{8} \[[a-z0-9-]+\] ' "$log" || finding 'log: malformed lines'

if ((failed)); then
  sed 's/^/  /' "$log" >&2
  exit 1
fi
say "smoke: four files and $(wc -l <"$log") log lines are as expected"
