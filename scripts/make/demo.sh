#!/usr/bin/env bash
# Backs up a scratch n8n stack, destroys it with all its volumes, restores it with one
# command, and compares. For each part there is a function count_PART and a fingerprint, made
# by tests/stack.
set -euo pipefail
. "${BASH_SOURCE[0]%/*}/lib.sh"
. "${BASH_SOURCE[0]%/*}/scratch.sh"

parts=(postgres redis volume)

bold='' dim='' green='' red='' plain=''
if [[ -t 1 && ${TERM:-dumb} != dumb && -z ${NO_COLOR:-} ]]; then
  bold=$'\e[1m' dim=$'\e[2m' green=$'\e[32m' red=$'\e[31m' plain=$'\e[0m'
fi

step() {
  printf '\n%s== %s%s\n' "$bold" "$*" "$plain"
}

# shown COMMAND...: runs it in the n8n directory and indents its output.
shown() {
  printf '   $ %s\n%s' "$*" "$dim"
  local status=0
  (cd -- "$dir" && "$@") </dev/null 2>&1 | sed -u 's/^/     /' || status=1
  printf '%s' "$plain"
  ((status == 0)) || die "failed: $*"
}

# now: milliseconds; seconds FROM: seconds since then, such as 1.3.
now() {
  date +%s%3N
}
seconds() {
  local passed=$(($(now) - $1))
  printf '%d.%d' $((passed / 1000)) $((passed % 1000 / 100))
}

# fingerprint PART WHEN: the contents of the part, one line for each item. Properties of the
# database itself are left out: they are not in a dump, and here the database is lost.
fingerprint() {
  "$stack" "fingerprint-$1" "$prefix" >"$work/$1.all"
  sed '/^database|/d' "$work/$1.all" >"$work/$1.$2"
}

count_postgres() {
  awk -F '|' '$1 == "rows" { tables++; rows += $(NF - 1) } END { printf "%d tables, %d rows", tables, rows }' "$work/postgres.$1"
}

count_redis() {
  awk '!/^function\|/ { keys++ } END { printf "%d keys", keys }' "$work/redis.$1"
}

count_volume() {
  awk 'END { printf "%d paths", NR }' "$work/volume.$1"
}

step 'A scratch n8n stack'
scratch demo --seed
"$stack" seed-volume "$prefix"
"$stack" seed-redis "$prefix"
for part in "${parts[@]}"; do
  fingerprint "$part" before
  say "   $part: $(count_"$part" before)"
done

step 'Backup, as cron runs it'
start=$(now)
shown scripts/backup-all.sh
backup_seconds=$(seconds "$start")

step 'Recovery test: can the backup be restored?'
shown scripts/test-recovery.sh --full

step 'Disaster: all containers, volumes and .env are lost; a new stack starts empty'
"$stack" down "$prefix"
"$stack" up "$prefix"
rm -- "$dir/.env"
for part in "${parts[@]}"; do
  fingerprint "$part" disaster
  ! cmp -s "$work/$part.before" "$work/$part.disaster" || die "the disaster changed nothing in $part"
  say "   $part: $(count_"$part" disaster) left"
done

step 'Restore'
start=$(now)
export BACKUP_LOCK_FILE=$work/lock
shown scripts/restore-all.sh --create-roles latest
restore_seconds=$(seconds "$start")

step 'Result'
differs=0
for part in "${parts[@]}"; do
  fingerprint "$part" after
  if cmp -s "$work/$part.before" "$work/$part.after"; then
    verdict="${green}identical to before$plain"
  else
    verdict="${red}differs from before$plain"
    differs=1
    diff -- "$work/$part.before" "$work/$part.after" | head -n 10 >&2 || true
  fi
  printf '   %-10s %s: %s\n' "$part" "$(count_"$part" after)" "$verdict"
done
(cd -- "$dir" && find backups -type f ! -name '.*' -printf '   %-52p %8s bytes\n' | sort)
printf '   backup took %s seconds, restore took %s seconds\n' "$backup_seconds" "$restore_seconds"
((differs == 0))
