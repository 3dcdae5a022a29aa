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

# Unique for each stack: the path, shortened and made safe, and a checksum of it.
name=n8n-backup${dir//[^A-Za-z0-9]/-}
name=${name:0:60}-$(printf '%s' "$dir" | cksum | cut -d ' ' -f 1)
manager=(systemctl)
if [[ $EUID -ne 0 ]]; then
  manager+=(--user)
  units=${XDG_CONFIG_HOME:-$HOME/.config}/systemd/user
else
  units=/etc/systemd/system
fi
units=${UNIT_DIR:-$units}

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
    mkdir -p -- "$units"
    cat >"$units/$name.service" <<END
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
    cat >"$units/$name.timer" <<END
[Unit]
Description=Nightly backup of n8n in $path

[Timer]
OnCalendar=*-*-* 02:00:00
Persistent=true

[Install]
WantedBy=timers.target
END
    tell daemon-reload
    tell enable --now "$name.timer"
    say "Installed $units/$name.timer: runs backup-all.sh nightly at 02:00, or as soon as possible after a missed run"
    if crontab -l 2>/dev/null | grep -v '^[[:space:]]*#' | grep -qF -- "$dir/scripts/backup-all.sh"; then
      say 'Note: your crontab runs it too; make uninstall-cron removes that line'
    fi
    if [[ $EUID -ne 0 ]]; then
      say "Note: without 'loginctl enable-linger $(id -un)' the timer runs only while you are logged in"
    fi
    ;;
  remove)
    if [[ ! -e $units/$name.timer && ! -e $units/$name.service ]]; then
      say "Not installed: $units/$name.timer"
      exit 0
    fi
    tell disable --now "$name.timer" || true
    # systemd would otherwise remember when the timer last ran and whether the run failed.
    tell clean --what=state "$name.timer" 2>/dev/null || true
    rm -f -- "$units/$name.timer" "$units/$name.service"
    tell daemon-reload
    tell reset-failed "$name.timer" "$name.service" 2>/dev/null || true
    say "Removed $units/$name.timer"
    ;;
  *) die 'usage: timer.sh add|remove' ;;
esac
