# shellcheck shell=bash
# Starts engines of other releases beside the host's: from trees that images.sh unpacks, in mount namespaces and data
# directories of their own. Sourced by run.sh.

# start_engine NAME [DIRECTORY]: starts the engine and puts a client for it, called docker, into $SHIMS; sets ENGINE_PID. It sees the
# directory of the host, which containers can then mount.
start_engine() {
  local name=$1 data=$CACHE_TOP/data-$1 log=$WORK/$1.log run
  case $name in
    *-20 | podman-4) use_suite bookworm ;;
    *) use_suite trixie ;;
  esac
  TREE=$CACHE_DIR/engines
  case $name in
    docker-*) run='exec dockerd --host unix:///run/matrix.sock --iptables=false --ip6tables=false --bridge=none --data-root /var/lib/docker' ;;
    *) run='exec sleep 86400' ;;
  esac
  if [[ $name == *-userns ]]; then
    # What is root in a container is nobody's business on the host.
    run+=' --userns-remap=nobody:nogroup'
    printf 'nobody:100000:5000000\n' >"$TREE/etc/subuid"
    printf 'nobody:100000:5000000\n' >"$TREE/etc/subgid"
  fi
  mkdir -p -- "$data" "$TREE/var/lib/docker" "$TREE/var/lib/matrix" "$SHIMS"
  # shellcheck disable=SC2016 # for that shell
  # A network of its own, too: a dockerd without a bridge would remove the bridge of the host's.
  setsid unshare --mount --net --propagation private sh -ec '
    # In a mere chroot, programs that are started in a container would see the tree of the engine.
    mount --bind "$1" "$1"
    for dir in proc sys dev; do mount --rbind "/$dir" "$1/$dir"; done
    for dir in run tmp; do mount -t tmpfs tmpfs "$1/$dir"; done
    for dir in docker matrix; do mount --bind "$2" "$1/var/lib/$dir"; done
    if [ "$3" ]; then
      mkdir -p "$1/$3"
      mount --bind "$3" "$1/$3"
    fi
    cd "$1"
    pivot_root . mnt
    umount -l /mnt
    '"$run" sh "$TREE" "$data" "${2:-}" >"$log" 2>&1 </dev/null &
  ENGINE_PID=$!
  # What is named here exists in the tree alone: no call may reach an engine of the host. By its path, since this client may be seen there
  # too.
  local client='/usr/bin/docker --host unix:///run/matrix.sock'
  [[ $name == docker-* ]] || client='/usr/bin/podman --root /var/lib/matrix --runroot /run/matrix'
  printf '#!/bin/sh\nexec nsenter -t %s -m %s "$@"\n' "$ENGINE_PID" "$client" >"$SHIMS/docker"
  chmod 755 "$SHIMS/docker"
  local end=$((SECONDS + 60))
  until nsenter -t "$ENGINE_PID" -m test -e /complete 2>/dev/null && engine version >/dev/null 2>&1; do
    if ! kill -0 "$ENGINE_PID" 2>/dev/null || [ $SECONDS -ge $end ]; then
      say "the engine $name does not answer: $(tail -n 1 "$log")"
      return 1
    fi
    sleep 0.2
  done
}

# engine ARGUMENT...: the client of the engine that was started last.
engine() {
  "$SHIMS/docker" "$@"
}

# stop_engine: ends it, with what a broken cell has left in it.
stop_engine() {
  [ -n "${ENGINE_PID:-}" ] || return 0
  local left end=$((SECONDS + 20))
  left=$(engine ps -aq 2>/dev/null) || left=
  # shellcheck disable=SC2086 # a list of words
  [ -z "$left" ] || engine rm -fv $left >/dev/null 2>&1 || true
  engine volume prune -f >/dev/null 2>&1 || true
  kill "$ENGINE_PID" 2>/dev/null || true
  while kill -0 "$ENGINE_PID" 2>/dev/null && [ $SECONDS -lt $end ]; do
    sleep 0.2
  done
  kill -9 "$ENGINE_PID" 2>/dev/null || true
  wait "$ENGINE_PID" 2>/dev/null || true
  ENGINE_PID=
}

# give_image NAME: the host's image, for the engine.
give_image() {
  engine image inspect "$1" >/dev/null 2>&1 || docker save "$1" | engine load >/dev/null
}

# image_of SERVER VERSION: `valkey-8` is a version of Redis here.
image_of() {
  case $2 in
    valkey-*) printf 'n8n-backup-test/valkey:%s' "${2#*-}" ;;
    *) printf 'n8n-backup-test/%s:%s' "$1" "$2" ;;
  esac
}

# serve SERVER VERSION: what the stack script starts from now on.
serve() {
  local image
  image=$(image_of "$1" "$2")
  give_image "$image"
  engine tag "$image" "n8n-backup-test/$1:1"
}
