#!/usr/bin/env bash
# timer.sh add|remove: a systemd timer for the nightly backup of N8N_DIR, instead of cron.
# Root makes system units that run as the directory's owner; anybody else makes units of
# his own. UNIT_DIR, when set, is where they are laid without systemd being told.
set -euo pipefail
. "${BASH_SOURCE[0]%/*}/lib.sh"

n8n_dir
case $dir in
  *[[:cntrl:]]*) die 'a systemd unit cannot hold a path with a control character' ;;
esac
[[ $dir != "$root" || ${1:-} == remove || -x $dir/bin/n8n-backup ]] || die 'bin/n8n-backup is missing: run make build'

# The name tells stacks apart: the path, with a checksum where it had to be changed.
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

# tell ARGUMENT...: systemctl, unless the units were only laid down.
tell() {
  [[ -z ${UNIT_DIR:-} ]] || return 0
  command -v systemctl >/dev/null || die "systemctl is not here; the units are in $units"
  "${manager[@]}" "$@"
}

case ${1:-} in
  add)
    [[ -x $dir/scripts/backup-all.sh ]] ||
      die "$dir/scripts/backup-all.sh is missing: run make install N8N_DIR=... first"
    # In a unit, % begins a specifier, $ a variable, and backslash and quote escape.
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
    say "Installed $units/$name.timer: backup-all.sh each night at two; a night that was missed is made up for"
    if crontab -l 2>/dev/null | grep -v '^[[:space:]]*#' | grep -qF -- "$dir/scripts/backup-all.sh"; then
      say 'Note: your crontab runs it as well; make uninstall-cron takes that line out'
    fi
    if [[ $EUID -ne 0 ]]; then
      say "Note: without 'loginctl enable-linger $(id -un)' it runs only while you are logged in"
    fi
    ;;
  remove)
    if [[ ! -e $units/$name.timer && ! -e $units/$name.service ]]; then
      say "There is no $units/$name.timer"
      exit 0
    fi
    tell disable --now "$name.timer" || true
    # The time of the last run, and a last run that failed, would be remembered without the units.
    tell clean --what=state "$name.timer" 2>/dev/null || true
    rm -f -- "$units/$name.timer" "$units/$name.service"
    tell daemon-reload
    tell reset-failed "$name.timer" "$name.service" 2>/dev/null || true
    say "Removed $units/$name.timer"
    ;;
  *) die 'usage: timer.sh add|remove' ;;
esac
