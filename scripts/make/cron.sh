#!/usr/bin/env bash
# cron.sh add|remove: adds a nightly backup of N8N_DIR to the user's crontab, or removes it.
set -euo pipefail
. "${BASH_SOURCE[0]%/*}/lib.sh"

n8n_dir
case $dir in
  *$'\n'*) die 'a crontab line cannot contain a path with a newline' ;;
  *[!A-Za-z0-9_./@%+:,-]*) script=\'${dir//\'/\'\\\'\'}/scripts/backup-all.sh\' log=\'${dir//\'/\'\\\'\'}/logs/backup.log\' ;;
  *) script=$dir/scripts/backup-all.sh log=$dir/logs/backup.log ;;
esac
# cron takes a bare percent sign for a newline.
line="0 2 * * * ${script//%/\\%} >> ${log//%/\\%} 2>&1"

if ! command -v crontab >/dev/null; then
  die "crontab is not installed (Debian: apt-get install cron); the line is: $line"
fi
# Whoever owns the directory can replace what is run there, so root leaves it to them.
user=$(id -un)
of=()
if [[ $EUID -eq 0 && $(stat -c %u -- "$dir") -ne 0 ]]; then
  user=$(stat -c %U -- "$dir")
  [[ $user != UNKNOWN ]] || die "the owner of $dir has no name on this host: run this as another user"
  of=(-u "$user")
fi
if ! table=$(LC_ALL=C crontab "${of[@]}" -l 2>&1 && printf x); then
  # A crontab that exists but cannot be read must not be replaced.
  case $table in
    '' | *'no crontab for'* | *'No such file'*) table=x ;;
    *) die "crontab -l failed, nothing was changed: $table" ;;
  esac
fi
table=${table%x}
[[ -z $table || $table == *$'\n' ]] || table+=$'\n'

# runs LINE: whether a crontab line runs our backup-all.sh, at whatever time.
runs() {
  [[ ! $1 =~ ^[[:space:]]*# ]] && [[ $1 == *"${script//%/\\%}"* ]]
}

case ${1:-} in
  add)
    [[ -x $dir/scripts/backup-all.sh ]] ||
      die "$dir/scripts/backup-all.sh is missing: run make install N8N_DIR=... first"
    while IFS= read -r present; do
      if runs "$present"; then
        say "Already in the crontab of $user: $present"
        exit 0
      fi
    done <<<"$table"
    printf '%s%s\n' "$table" "$line" | crontab "${of[@]}" - || die 'crontab rejected the new table'
    say "Added to the crontab of $user: $line"
    ;;
  remove)
    rest=
    found=
    others=
    while IFS= read -r present; do
      if [[ $present == "$line" ]]; then
        found=yes
        continue
      fi
      ! runs "$present" || others=$present
      rest+=$present$'\n'
    done < <(printf '%s' "$table")
    if [[ -n $found ]]; then
      if [[ -n $rest ]]; then
        printf '%s' "$rest" | crontab "${of[@]}" - || die 'crontab rejected the new table'
      else
        crontab "${of[@]}" -r
      fi
      say "Removed from the crontab of $user: $line"
    else
      say "Not in the crontab of $user: $line"
    fi
    [[ -z $others ]] || say "Not removed: $others"
    ;;
  *) die 'usage: cron.sh add|remove' ;;
esac
