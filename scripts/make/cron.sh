#!/usr/bin/env bash
# cron.sh add|remove: adds a nightly backup of N8N_DIR to the user's crontab, or removes it.
set -euo pipefail
. "${BASH_SOURCE[0]%/*}/lib.sh"

n8n_dir
[[ $dir != *$'\n'* ]] || die 'a crontab line cannot contain a path with a newline'
. "${BASH_SOURCE[0]%/*}/schedule.sh"
command="$script >> $log 2>&1"

if ! command -v crontab >/dev/null; then
  die "crontab is not installed (Debian: apt-get install cron); the line is: 0 2 * * * $command"
fi
[[ $owner != UNKNOWN ]] || die "the owner of $dir has no name on this host: run this as another user"
if ! table=$(LC_ALL=C crontab "${of[@]}" -l 2>&1 && printf x); then
  # A crontab that exists but cannot be read must not be replaced.
  case $table in
    '' | *'no crontab for'* | *'No such file'*) table=x ;;
    *) die "crontab -l failed, nothing was changed: $table" ;;
  esac
fi
table=${table%x}
[[ -z $table || $table == *$'\n' ]] || table+=$'\n'

case ${1:-} in
  add)
    [[ -x $dir/scripts/backup-all.sh ]] ||
      die "$dir/scripts/backup-all.sh is missing: run make install N8N_DIR=... first"
    while IFS= read -r present; do
      if runs "$present"; then
        say "Already in the crontab of $owner: $present"
        warn_of cron
        exit 0
      fi
    done <<<"$table"
    free_time
    line="$minute $hour * * * $command"
    printf '%s%s\n' "$table" "$line" | crontab "${of[@]}" - || die 'crontab rejected the new table'
    say "Added to the crontab of $owner: $line"
    warn_of cron
    ;;
  remove)
    rest=
    found=
    others=
    while IFS= read -r present; do
      # At one of the times that add chooses.
      if [[ ${present%%' * * * '*} =~ ^(0|20|40)\ [0-9]+$ && ${present#*' * * * '} == "$command" ]]; then
        found=$present
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
      say "Removed from the crontab of $owner: $found"
    else
      say "Not in the crontab of $owner: $command"
      if ((${#of[@]} > 0)) && table_runs; then
        die "root's crontab still runs it: remove that line (crontab -e)"
      fi
    fi
    [[ -z $others ]] || say "Not removed: $others"
    ;;
  *) die 'usage: cron.sh add|remove' ;;
esac
