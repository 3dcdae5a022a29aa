# shellcheck shell=bash disable=SC2034,SC2154 # tests/stack/images.sh shares the variables
# Images of servers and trees of engines, from several releases of Debian: what tests/stack/images.sh builds of the
# host's own release. Sourced by run.sh, which sets STACK_DIR, MATRIX_DIR, KEY and the functions say and unable.

# shellcheck source-path=SCRIPTDIR source=../stack/images.sh
. "$STACK_DIR/images.sh"

CACHE_TOP=$CACHE_DIR/matrix

# Which release has which server.
declare -A SUITE_OF=([postgres:15]=bookworm [postgres:17]=trixie [postgres:18]=sid
  [redis:7]=bookworm [redis:8]=trixie [valkey:8]=trixie)

# The mirror that this host takes Debian's packages from.
mirror() {
  local found=${MATRIX_MIRROR:-}
  [ -n "$found" ] || found=$(apt-cache policy 2>/dev/null | sed -n 's#^ *[0-9-]* \(https\{0,1\}://[^ ]*/debian\)/\{0,1\} [a-z]*/main .*#\1#p' | head -n 1)
  [ -n "$found" ] || unable "this host has no source of Debian's packages: set MATRIX_MIRROR to one"
  printf '%s' "$found"
}

# use_suite SUITE: packages come from this release from now on.
use_suite() {
  SUITE=$1
  CACHE_DIR=$CACHE_TOP/$SUITE
  APT_READY=
}

eval "$(declare -f prepare_apt | sed '1s/prepare_apt/prepare_host_apt/')"
prepare_apt() {
  local state=$CACHE_DIR/apt keyring=/usr/share/keyrings/debian-archive-keyring.gpg was=${APT_READY:-}
  [ -r "$keyring" ] || unable "$keyring is missing: install debian-archive-keyring"
  mkdir -p -- "$state"
  local from
  from=$(mirror)
  printf 'deb [signed-by=%s] %s %s main\n' "$keyring" "$from" "$SUITE" >"$state/sources.list"
  APT_READY=1
  prepare_host_apt
  APT+=(-o "Dir::Etc::SourceList=$state/sources.list" -o Dir::Etc::SourceParts=/dev/null -o Dir::Etc::PreferencesParts=/dev/null)
  APT_READY=$was
  [ -z "$was" ] || return 0
  mkdir -p -- "$state/lists/partial" "$state/archives/partial"
  : >"$state/status"
  printf '#clear APT::Update::Pre-Invoke;\n#clear APT::Update::Post-Invoke;\n#clear APT::Update::Post-Invoke-Success;\n' >"$state/apt.conf"
  say "reading the package lists of $SUITE"
  "${APT[@]}" -qq update >&2 || unable "the package lists of $SUITE cannot be read"
  APT_READY=1
}

# The releases, not a registry, say what is in an image.
have_base() {
  false
}

debian_postgres_version() {
  printf '%s\n' "$VERSION"
}

image_name() {
  printf 'n8n-backup-test/%s:%s' "$SERVER" "$VERSION"
}

recipe_of() {
  {
    printf '%s\n' "$SUITE" "$SERVER" "$VERSION" "$KEY"
    cd "$STACK_DIR" && cat -- images.sh "$1-entrypoint.sh" postgres-build.sh seed.sql seed-n8n.sql
  } | digest
}

eval "$(declare -f debian_root | sed '1s/debian_root/stack_debian_root/')"
debian_root() {
  if [ "$SERVER" != valkey ]; then
    stack_debian_root "$@"
    return
  fi
  # shellcheck disable=SC2086 # a list of words
  stack_debian_root "$1" valkey-server valkey-tools $BASE_PACKAGES
  # As in Valkey's own image.
  local program
  for program in server cli check-rdb check-aof; do
    ln -s "valkey-$program" "$BUILD_DIR/$1/usr/bin/redis-$program"
  done
}

# make_server postgres|redis|valkey VERSION: builds its image in the host's engine, unless it is there.
make_server() {
  SERVER=$1 VERSION=$2
  local recipe=postgres
  [ "$SERVER" = postgres ] || recipe=redis
  use_suite "${SUITE_OF[$1:$2]}"
  ! is_current "$recipe" || return 0
  say "building $(image_name)"
  "build_$recipe"
}

# make_engines SUITE: unpacks the engines of a release as a tree to run them in; sets TREE.
make_engines() {
  use_suite "$1"
  SERVER=
  TREE=$CACHE_DIR/engines
  [ ! -e "$TREE/complete" ] || return 0
  local UNUSED_PACKAGES=${UNUSED_PACKAGES//|mount|/|} packages=(mount docker.io containerd runc podman conmon crun netavark aardvark-dns ca-certificates iptables fuse-overlayfs)
  [ "$SUITE" = bookworm ] || packages+=(docker-cli)
  say "unpacking the engines of $SUITE"
  # shellcheck disable=SC2086 # a list of words
  debian_root engines "${packages[@]}" $BASE_PACKAGES
  rm -rf -- "$TREE"
  mv -- "$BUILD_DIR/engines" "$TREE"
  mkdir -p -- "$TREE/proc" "$TREE/sys" "$TREE/dev" "$TREE/mnt" "$TREE/etc/containers" "$TREE/var/lib/containers"
  printf '{"default":[{"type":"insecureAcceptAnything"}]}\n' >"$TREE/etc/containers/policy.json"
  # Limits as low as an engine may set them that is itself confined.
  printf '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]\n[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n' \
    >"$TREE/etc/containers/containers.conf"
  : >"$TREE/complete"
}

# make_all SERVER:VERSION...: the images, the engines, and the plain image that stands for n8n.
make_all() {
  docker version >/dev/null 2>&1 || unable "docker engine does not answer"
  "$STACK_DIR/stack.sh" images
  mkdir -p -- "$CACHE_TOP"
  exec 9>"$CACHE_TOP/lock"
  flock 9
  BUILD_DIR=$(mktemp -d "${TMPDIR:-/tmp}/n8n-backup-matrix.XXXXXX")
  BUILD_CONTAINER=n8nbt-build-$$-$RANDOM
  trap clean_build EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
  local each
  for each; do
    make_server "${each%:*}" "${each#*:}"
  done
  make_engines bookworm
  make_engines trixie
  clean_build
  trap - EXIT
  exec 9>&-
}
