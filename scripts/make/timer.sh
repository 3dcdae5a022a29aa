#!/usr/bin/env bash
# timer.sh add|remove: installs a systemd timer for a nightly backup of N8N_DIR, or removes it.
# Root gets system units that run as the owner of the directory, other users get user units.
# With UNIT_DIR, units are written there and systemd is not told.
set -euo pipefail
. "${BASH_SOURCE[0]%/*}/lib.sh"

n8n_dir
case $dir in
  *[[:cntrl:]]*) die 'a systemd unit cannot contain a path with a control character' ;;
esac
[[ $dir != "$root" || ${1:-} == remove || -x $dir/bin/n8n-backup ]] || die 'bin/n8n-backup is missing: run make build'

. "${BASH_SOURCE[0]%/*}/schedule.sh"
manager=(systemctl)
[[ $EUID -eq 0 ]] || manager+=(--user)

# tell ARGUMENT...: runs systemctl, unless UNIT_DIR is set.
tell() {
  [[ -z ${UNIT_DIR:-} ]] || return 0
  command -v systemctl >/dev/null || die "systemctl is not installed; the units are in $units"
  "${manager[@]}" "$@"
}

case ${1:-} in
  add)
    [[ -x $dir/scripts/backup-all.sh ]] ||
      die "$dir/scripts/backup-all.sh is missing: run make install N8N_DIR=... first"
    # In a unit, % starts a specifier, and backslash and quote have to be escaped.
    path=${dir//\\/\\\\}
    path=${path//\"/\\\"}
    path=${path//%/%%}
    user=
    if [[ $EUID -eq 0 ]]; then
      user="User=$(stat -c %u -- "$dir")"$'\n'
    fi
    free_time
    there=
    [[ ! -e $units/$unit.timer ]] || there=yes
    mkdir -p -- "$units"
    cat >"$units/$unit.service" <<END
[Unit]
Description=Backup of n8n in $path
Documentation=man:n8n-backup(1)
After=docker.service

[Service]
Type=oneshot
${user}ExecStart=:/bin/bash "$path/scripts/backup-all.sh"
Nice=10
CPUWeight=20
IOSchedulingClass=idle
END
    cat >"$units/$unit.timer" <<END
[Unit]
Description=Nightly backup of n8n in $path

[Timer]
OnCalendar=*-*-* $(printf %02d:%02d "$hour" "$minute"):00
Persistent=true

[Install]
WantedBy=timers.target
END
    if ! { tell daemon-reload && tell enable --now "$unit.timer"; }; then
      # A unit that was there before may be enabled.
      [[ -n $there ]] || rm -f -- "$units/$unit.timer" "$units/$unit.service" "$units/timers.target.wants/$unit.timer"
      die "${manager[*]} does not take the timer; no new one was installed"
    fi
    say "Installed $units/$unit.timer: runs backup-all.sh nightly at $(printf %02d:%02d "$hour" "$minute")," \
      'or as soon as possible after a missed run'
    warn_of timer
    if [[ $EUID -ne 0 ]]; then
      say "Note: without 'loginctl enable-linger $(id -un)' the timer runs only while you are logged in"
    fi
    ;;
  remove)
    if [[ ! -e $units/$unit.timer && ! -e $units/$unit.service ]]; then
      say "Not installed: $units/$unit.timer"
      for place in "${unit_dirs[@]}"; do
        [[ ! -e $place/$unit.timer ]] || die "$place/$unit.timer still runs it: remove it as who installed it, with sudo or without"
      done
      exit 0
    fi
    tell disable --now "$unit.timer" || true
    # systemd would otherwise remember when the timer last ran and whether the run failed.
    tell clean --what=state "$unit.timer" 2>/dev/null || true
    rm -f -- "$units/$unit.timer" "$units/$unit.service"
    tell daemon-reload
    tell reset-failed "$unit.timer" "$unit.service" 2>/dev/null || true
    say "Removed $units/$unit.timer"
    ;;
  *) die 'usage: timer.sh add|remove' ;;
esac
