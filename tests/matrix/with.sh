#!/usr/bin/env bash
# Runs a command on another engine, with other servers in the test stack: docker is a client of that engine for it.
#
# with.sh ENGINE POSTGRES REDIS COMMAND...   as in `cells`: with.sh docker-26 17 8 make bench
set -euo pipefail

MATRIX_DIR=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
STACK_DIR=$MATRIX_DIR/../stack

say() {
  printf 'matrix: %s\n' "$*" >&2
}

unable() {
  say "NOT RUN: $*"
  exit 2
}

[ "$EUID" = 0 ] || unable 'another engine needs root'
[ $# -ge 4 ] || unable 'with.sh ENGINE POSTGRES REDIS COMMAND...'
KEY=$("$STACK_DIR/stack.sh" key)
# shellcheck source-path=SCRIPTDIR source=images.sh
. "$MATRIX_DIR/images.sh"
# shellcheck source-path=SCRIPTDIR source=engines.sh
. "$MATRIX_DIR/engines.sh"
engine=$1 postgres=$2 redis=$3
shift 3
(make_all "postgres:$postgres" "$(image_of redis "$redis" | sed 's,.*/,,')")

WORK=$(mktemp -d "${TMPDIR:-/tmp}/n8nbt-matrix.XXXXXX")
SHIMS=$WORK/bin
ENGINE_PID=
trap 'stop_engine; rm -rf -- "$WORK"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
exec 9>"$CACHE_TOP/run.lock"
flock 9
start_engine "$engine" "${TMPDIR:-/tmp}" 9>&-
give_image n8n-backup-test/busybox:1
! docker image inspect n8n-backup-test/bare:1 >/dev/null 2>&1 || give_image n8n-backup-test/bare:1
serve postgres "$postgres"
serve redis "$redis"
PATH=$SHIMS:$PATH STACK_IMAGES=made "$@" 9>&-
