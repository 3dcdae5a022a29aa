# shellcheck shell=bash
# shellcheck disable=SC2154 # n8n_dir sets dir
# What cron.sh and timer.sh share; sourced when `dir` is known. Sets `owner`, whose run it will be, and `of`, by which
# crontab takes that user's table; `script` and `log` as words of a crontab; `unit`, the name of the units of `dir`;
# `units`, where they belong, and `unit_dirs`, wherever there may be some.

# Whoever owns the directory can replace what is run there, so root leaves it to them.
owner=$(id -un)
of=()
home=${HOME:-}
config=${XDG_CONFIG_HOME:-$home/.config}
if [[ $EUID -eq 0 && $(stat -c %u -- "$dir") -ne 0 ]]; then
  owner=$(stat -c %U -- "$dir")
  of=(-u "$owner")
  home=$(getent passwd "$owner" | cut -d : -f 6) || home=
  config=$home/.config
fi

case $dir in
  *[!A-Za-z0-9_./@%+:,-]*) script=\'${dir//\'/\'\\\'\'}/scripts/backup-all.sh\' log=\'${dir//\'/\'\\\'\'}/logs/backup.log\' ;;
  *) script=$dir/scripts/backup-all.sh log=$dir/logs/backup.log ;;
esac
# cron takes a bare percent sign for a newline.
script=${script//%/\\%} log=${log//%/\\%}

# Unique for each stack: the path, shortened and made safe, and a checksum of it.
unit=n8n-backup${dir//[^A-Za-z0-9]/-}
unit=${unit:0:60}-$(printf '%s' "$dir" | cksum | cut -d ' ' -f 1)
unit_dirs=(/etc/systemd/system "$config/systemd/user")
units=${unit_dirs[0]}
[[ $EUID -eq 0 ]] || units=${unit_dirs[1]}
if [[ -n ${UNIT_DIR:-} ]]; then
  units=$UNIT_DIR unit_dirs=("$UNIT_DIR")
fi

# runs LINE: whether a crontab line runs our backup-all.sh, at whatever time. As a whole word: the path of another stack
# may end with ours.
runs() {
  local edge="[[:space:]\"'=;&|()<>{}\`]"
  [[ ! $1 =~ ^[[:space:]]*# && $1 =~ (^|$edge)"$script"($edge|$) ]]
}

# table_runs [-u USER]: whether a line of that crontab does.
table_runs() {
  local present
  while IFS= read -r present; do
    ! runs "$present" || return 0
  done < <(crontab "$@" -l 2>/dev/null)
  return 1
}

# taken: when nightly backups of other directories begin, by the owner's crontab and by units: H:MM, one a line.
taken() {
  local text place timer
  while IFS= read -r text; do
    if ! runs "$text" && [[ $text =~ ^[[:space:]]*([0-9]+)[[:space:]]+([0-9]+)[[:space:]].*backup-all ]]; then
      printf '%d:%02d\n' "$((10#${BASH_REMATCH[2]}))" "$((10#${BASH_REMATCH[1]}))"
    fi
  done < <(crontab "${of[@]}" -l 2>/dev/null)
  for place in "${unit_dirs[@]}"; do
    for timer in "$place"/n8n-backup-*.timer; do
      [[ -f $timer && $timer != */"$unit.timer" ]] || continue
      if [[ $(<"$timer") =~ OnCalendar=[^$'\n']*([0-9][0-9]):([0-9][0-9]):[0-9] ]]; then
        printf '%d:%s\n' "$((10#${BASH_REMATCH[1]}))" "${BASH_REMATCH[2]}"
      fi
    done
  done
}

# free_time: sets `hour` and `minute` to two o'clock, or to the next 20 minutes later at which none of those begins: all
# of a user's runs take the same lock file, and the second is refused.
free_time() {
  local at others
  others=$(taken)
  for ((at = 120; at < 120 + 1440; at += 20)); do
    hour=$((at / 60 % 24)) minute=$((at % 60))
    [[ $'\n'$others$'\n' == *$'\n'"$hour:$(printf %02d "$minute")"$'\n'* ]] || return 0
  done
}

# warn_of cron|timer: says what will keep the new run from its work: what else runs it, and an engine that lets in root,
# who asks here, and not the owner.
warn_of() {
  local place twice='runs it, too, and the second run fails where they begin together'
  if [[ $1 != cron ]] && table_runs "${of[@]}"; then
    say "Warning: the crontab of $owner $twice; make uninstall-cron removes that line"
  fi
  if ((${#of[@]} > 0)) && table_runs; then
    say "Warning: root's crontab $twice; remove that line (crontab -e)"
  fi
  for place in "${unit_dirs[@]}"; do
    [[ -e $place/$unit.timer && ($1 != timer || $place != "$units") ]] || continue
    say "Warning: $place/$unit.timer $twice; make uninstall-timer removes it"
  done
  # Where nothing becomes that user, who may have no name, or the engine hangs, it is not known.
  if ((${#of[@]} > 0)) && [[ $owner != UNKNOWN ]] && command -v runuser >/dev/null &&
    timeout 20 docker version >/dev/null 2>&1 &&
    ! timeout 20 runuser -u "$owner" -- env HOME="$home" docker version >/dev/null 2>&1; then
    say "Warning: $owner may not use docker, so the run will fail: add that user to the group docker"
  fi
}
