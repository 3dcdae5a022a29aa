#!/usr/bin/env bash
# Makes sure that a Docker engine answers. If none does, root on Debian or a derivative gets
# docker.io installed and started; otherwise one line says what is missing.
set -euo pipefail
. "${BASH_SOURCE[0]%/*}/lib.sh"

# answers: whether the engine answers; sets `reason` to the client's last line.
reason=
answers() {
  reason=$(timeout 20 docker version --format '{{.Server.Version}}' 2>&1 >/dev/null) && return 0
  reason=${reason##*$'\n'}
  return 1
}

# wait_for SECONDS: whether the engine answers within that time.
wait_for() {
  local end=$((SECONDS + $1))
  until answers; do
    ((SECONDS < end)) || return 1
    sleep 0.5
  done
}

if command -v docker >/dev/null; then
  ! answers || exit 0
  case $reason in
    *'permission denied'*)
      die "the Docker engine refuses $(id -un): add this user to the group docker, or use root" ;;
  esac
  [[ -z ${DOCKER_HOST:-} ]] || die "no Docker engine answers at DOCKER_HOST=$DOCKER_HOST: ${reason:-no answer in 20 seconds}"
  may_install_packages || die "the Docker engine does not answer, start it first: ${reason:-no answer in 20 seconds}"
else
  may_install_packages || die 'docker is not installed: install Docker Engine (Debian: apt-get install docker.io)'
fi

# A running daemon belongs to somebody: wait for it, never restart it.
if grep -qsx dockerd /proc/[0-9]*/comm; then
  wait_for 40 || die "dockerd is running but does not answer: ${reason:-no answer in 20 seconds}"
  exit 0
fi

if ! command -v dockerd >/dev/null || ! command -v docker >/dev/null; then
  say 'No Docker engine found: installing docker.io'
  # docker-cli is part of docker.io up to Debian 12, and a package of its own since.
  packages=(docker.io iptables ca-certificates)
  ! apt-cache show docker-cli >/dev/null 2>&1 || packages+=(docker-cli)
  install_packages "${packages[@]}" || die 'docker.io could not be installed'
  hash -r
fi

say 'Starting the Docker engine'
if [[ -d /run/systemd/system ]]; then
  systemctl start docker || true
  wait_for 60 || die "the Docker engine did not start, see: journalctl -u docker"
  exit 0
fi
if [[ -x /etc/init.d/docker ]] && service docker start >/dev/null 2>&1 && wait_for 15; then
  exit 0
fi
service docker stop >/dev/null 2>&1 || true

# Without an init system, as in a container, where overlay mounts may not work.
log=/var/log/n8n-backup-dockerd.log
for driver in '' fuse-overlayfs vfs; do
  if [[ $driver == fuse-overlayfs ]]; then
    [[ -e /dev/fuse ]] || continue
    install_packages fuse-overlayfs 2>/dev/null || continue
  fi
  setsid nohup dockerd ${driver:+--storage-driver="$driver"} >"$log" 2>&1 </dev/null &
  daemon=$!
  # A daemon that cannot start exits by itself, usually within a few seconds.
  for ((turn = 0; turn < 60; turn++)); do
    kill -0 "$daemon" 2>/dev/null || break
    if answers; then
      say "dockerd is running${driver:+ with storage driver $driver}, log: $log"
      exit 0
    fi
    sleep 0.5
  done
  kill "$daemon" 2>/dev/null || true
  wait "$daemon" 2>/dev/null || true
done
die "dockerd did not start: $(tail -n 1 "$log" 2>/dev/null)"
