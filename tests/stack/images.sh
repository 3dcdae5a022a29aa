# shellcheck shell=bash
# Builds the three test images. Sourced by stack.sh, which sets STACK_DIR,
# the image names and the functions say, die and unable.

# Where downloaded packages are kept from one build to the next.
CACHE_DIR=${XDG_CACHE_HOME:-$HOME/.cache}/n8n-backup-test

# Label on an image: digest of everything that the image is made of.
RECIPE_LABEL=n8n-backup.recipe

# What an unpacked server needs besides the server: the tools of a plain Debian.
BASE_PACKAGES='base-files bash dash coreutils diffutils findutils grep gzip hostname libc-bin mawk ncurses-base sed tar tzdata util-linux'

# Dependencies that only package installation, documentation or the optional
# just-in-time compiler use.
UNUSED_PACKAGES='^(perl|perl-.*|libperl.*|debconf.*|cdebconf|libllvm.*|libclang.*|libz3.*|ssl-cert|postgresql-common.*|postgresql-client-common|systemd.*|libsystemd-shared|adduser|passwd|login|login\.defs|dpkg|install-info|ucf|readline-common|lsb-base|sysvinit-utils|init-system-helpers|netbase|sensible-utils|libjson-perl|gcc-.*-base|openssl|util-linux-extra|mount|libpam-modules.*|libpam-runtime|libdb5.*|locales.*)$'

# Prints the digest of the recipe of image $1.
recipe_of() {
  local files=(images.sh)
  case $1 in
    postgres) files+=(postgres-entrypoint.sh postgres-build.sh seed.sql seed-n8n.sql) ;;
    redis) files+=(redis-entrypoint.sh) ;;
  esac
  {
    printf '%s\n' "$KEY"
    (cd "$STACK_DIR" && cat -- "${files[@]}")
  } | digest
}

digest() {
  if command -v sha256sum >/dev/null; then sha256sum; else shasum -a 256; fi | cut -c1-64
}

is_current() {
  local label
  label=$(docker image inspect --format "{{index .Config.Labels \"$RECIPE_LABEL\"}}" "$(image_name "$1")" 2>/dev/null) || return 1
  [ "$label" = "$(recipe_of "$1")" ]
}

image_name() {
  printf 'n8n-backup-test/%s:1' "$1"
}

# Builds each image that is missing or was made by another recipe. A caller that
# has seen to that itself says STACK_IMAGES=made.
make_images() {
  local name stale=()
  [ "${STACK_IMAGES:-}" != made ] || return 0
  docker version >/dev/null 2>&1 || unable "docker engine does not answer"
  for name in busybox redis postgres; do
    is_current "$name" || stale+=("$name")
  done
  [ ${#stale[@]} -gt 0 ] || return 0

  mkdir -p -- "$CACHE_DIR"
  exec 9>"$CACHE_DIR/lock"
  ! command -v flock >/dev/null || flock 9
  BUILD_DIR=$(mktemp -d "${TMPDIR:-/tmp}/n8n-backup-test.XXXXXX")
  BUILD_CONTAINER=n8nbt-build-$$-$RANDOM
  trap clean_build EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
  for name in "${stale[@]}"; do
    is_current "$name" && continue
    say "building $(image_name "$name")"
    "build_$name"
  done
  clean_build
  trap - EXIT
  exec 9>&-
}

clean_build() {
  docker rm -fv "$BUILD_CONTAINER" >/dev/null 2>&1 || true
  docker rmi "n8n-backup-test/base:$BUILD_CONTAINER" >/dev/null 2>&1 || true
  if [ -d "$BUILD_DIR" ]; then
    chmod -R u+rwX -- "$BUILD_DIR" 2>/dev/null || true
    rm -rf -- "$BUILD_DIR"
  fi
}

# True when image $1 of a registry is here or can be had. One refusal settles
# it for the whole run.
have_base() {
  docker image inspect "$1" >/dev/null 2>&1 && return 0
  [ "${STACK_PULL:-1}" != 0 ] || return 1
  command -v timeout >/dev/null || return 1
  # The probe asks for the manifest only, so that a slow but working download
  # is not taken for a missing network.
  if ! timeout 8 docker manifest inspect "$1" >/dev/null 2>&1; then
    STACK_PULL=0
    return 1
  fi
  say "pulling $1"
  timeout 300 docker pull -q "$1" >/dev/null 2>&1
}

# Sets BASE to an image with the programs of $1: image $2 of a registry, or one
# made of the Debian packages $3...
base_image() {
  local name=$1 registry=$2
  shift 2
  if have_base "$registry"; then
    BASE=$registry
    return
  fi
  BASE=n8n-backup-test/base:$BUILD_CONTAINER
  docker rmi "$BASE" >/dev/null 2>&1 || true
  debian_root "$name" "$@"
  tar -C "$BUILD_DIR/$name" --owner=0 --group=0 --numeric-owner -c . |
    docker import - "$BASE" >/dev/null
  chmod -R u+rwX -- "$BUILD_DIR/$name"
  rm -rf -- "${BUILD_DIR:?}/$name"
}

# Unpacks the packages $2... and all they need into $BUILD_DIR/$1.
debian_root() {
  local name=$1 root=$BUILD_DIR/$1 deb dir
  shift
  fetch_debs "$name" "$@"
  mkdir -p -- "$root"
  for dir in bin sbin lib lib32 lib64 libx32; do
    mkdir -p -- "$root/usr/$dir"
    ln -s "usr/$dir" "$root/$dir"
  done
  for deb in "$DEBS"/*.deb; do
    dpkg-deb --fsys-tarfile "$deb" |
      tar -x -C "$root" --keep-directory-symlink --no-same-owner \
        --exclude='./usr/share/doc' --exclude='./usr/share/man' --exclude='./usr/share/locale' \
        --exclude='./usr/share/info' --exclude='./usr/share/lintian' --exclude='./usr/share/bug' \
        --exclude='./usr/share/bash-completion' --exclude='./usr/share/zoneinfo/right' \
        --exclude='./usr/share/zoneinfo/posix' --exclude='./usr/lib/x86_64-linux-gnu/gconv' \
        --exclude='./usr/lib/postgresql/*/lib/bitcode' --exclude='./usr/lib/postgresql/*/lib/llvmjit*'
  done
  mkdir -p -- "$root/tmp" "$root/run" "$root/etc" "$root/root" "$root/var" "$root/usr/local/bin"
  chmod 1777 "$root/tmp"
  rm -rf -- "$root/var/run"
  ln -s /run "$root/var/run"
  ln -sf dash "$root/usr/bin/sh"
  [ -e "$root/usr/bin/awk" ] || ln -s mawk "$root/usr/bin/awk"
  printf '%s\n' 'root:x:0:0:root:/root:/bin/sh' 'nobody:x:65534:65534:nobody:/:/usr/sbin/nologin' \
    "$name:x:999:999:$name:/var/lib/$name:/bin/sh" >"$root/etc/passwd"
  printf '%s\n' 'root:x:0:' 'tty:x:5:' 'nogroup:x:65534:' "$name:x:999:" >"$root/etc/group"
}

# Sets DEBS to a directory with the packages $2... and their dependencies.
# Nothing on the host is changed: apt gets a state directory of its own.
fetch_debs() {
  local name=$1 want state
  shift
  want=$(printf '%s\n' "$(dpkg --print-architecture 2>/dev/null)" "$UNUSED_PACKAGES" "$@" | digest)
  DEBS=$CACHE_DIR/debs-$name-${want:0:16}
  [ ! -e "$DEBS/complete" ] || return 0
  if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
    unable "no $name image: the engine cannot pull one, and this host has no apt-get and dpkg-deb to build one"
  fi
  prepare_apt
  mkdir -p -- "$DEBS"
  "${APT[@]}" --print-uris -y --no-install-recommends install "$@" 2>"$BUILD_DIR/apt.log" |
    sed -n "s/^'\\([^']*\\)' \\([^ ]*\\) .*/\\2/p" >"$BUILD_DIR/closure" || true
  local file package=()
  while IFS= read -r file; do
    [[ ${file%%_*} =~ $UNUSED_PACKAGES ]] || package+=("${file%%_*}")
  done <"$BUILD_DIR/closure"
  [ ${#package[@]} -gt 0 ] || unable "no $name image: apt-get finds no $*: $(tail -n 1 "$BUILD_DIR/apt.log")"
  say "fetching ${#package[@]} packages for $name"
  (cd "$DEBS" && rm -f -- *.deb && "${APT[@]}" -qq download "${package[@]}") >&2 2>"$BUILD_DIR/apt.log" ||
    unable "no $name image: packages cannot be fetched: $(tail -n 1 "$BUILD_DIR/apt.log")"
  : >"$DEBS/complete"
}

# Sets APT to an apt-get that knows the host's sources, thinks that nothing is
# installed, and writes below the cache directory only.
prepare_apt() {
  local state=$CACHE_DIR/apt
  # Hooks of the host would clean up its own directories after an update.
  APT=(apt-get -c "$state/apt.conf" -o "Dir::State=$state" -o "Dir::State::status=$state/status" -o "Dir::Cache=$state"
    -o Debug::NoLocking=true -o APT::Sandbox::User= -o APT::Get::AllowUnauthenticated=false
    -o Acquire::Languages=none -o Acquire::http::Timeout=20 -o Acquire::Retries=1)
  [ -z "${APT_READY:-}" ] || return 0
  mkdir -p -- "$state/lists/partial" "$state/archives/partial"
  : >"$state/status"
  printf '#clear APT::Update::Pre-Invoke;\n#clear APT::Update::Post-Invoke;\n#clear APT::Update::Post-Invoke-Success;\n' >"$state/apt.conf"
  say "reading package lists"
  # One unreachable source among several need not matter: what is missing
  # shows when the packages are looked up.
  "${APT[@]}" -qq update >&2 || true
  APT_READY=1
}

# The version of PostgreSQL that the host's sources offer. The answer is kept
# beside the packages, so that a rebuild needs no network.
debian_postgres_version() {
  local kept=$CACHE_DIR/postgres-version
  if [ ! -s "$kept" ]; then
    prepare_apt
    apt-cache "${APT[@]:1}" depends postgresql 2>/dev/null |
      sed -n 's/.*Depends: postgresql-\([0-9]*\)$/\1/p' | head -n 1 >"$kept"
  fi
  cat "$kept"
}

build_busybox() {
  if have_base alpine:latest; then
    docker create --name "$BUILD_CONTAINER" alpine:latest true >/dev/null
  else
    local root=$BUILD_DIR/busybox applet
    fetch_debs busybox busybox-static
    mkdir -p -- "$root" "$BUILD_DIR/unpack"
    dpkg-deb -x "$DEBS"/busybox-static_*.deb "$BUILD_DIR/unpack"
    mkdir -p -- "$root/bin" "$root/etc" "$root/tmp" "$root/root"
    ln -s bin "$root/sbin"
    chmod 1777 "$root/tmp"
    cp -- "$BUILD_DIR/unpack/bin/busybox" "$root/bin/busybox"
    for applet in $("$root/bin/busybox" --list); do
      [ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"
    done
    printf '%s\n' 'root:x:0:0:root:/root:/bin/sh' 'node:x:1000:1000:node:/home/node:/bin/sh' >"$root/etc/passwd"
    printf '%s\n' 'root:x:0:' 'node:x:1000:' >"$root/etc/group"
    BASE=n8n-backup-test/base:$BUILD_CONTAINER
    tar -C "$root" --owner=0 --group=0 --numeric-owner -c . | docker import - "$BASE" >/dev/null
    docker create --name "$BUILD_CONTAINER" "$BASE" /bin/true >/dev/null
  fi
  commit_image busybox -c 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' -c 'CMD ["/bin/sh"]'
}

build_redis() {
  # shellcheck disable=SC2086 # a list of words
  base_image redis redis:7-alpine redis-server redis-tools $BASE_PACKAGES
  docker create --name "$BUILD_CONTAINER" --network none --user 0 --entrypoint /bin/sh "$BASE" -c \
    'mkdir -p /data && chown 999:999 /data && redis-server --version' >/dev/null
  docker cp - "$BUILD_CONTAINER:/usr/local/bin" < <(entrypoint_tar redis)
  docker start -a "$BUILD_CONTAINER" >&2
  commit_image redis -c 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
    -c 'ENV LANG=C.UTF-8' -c 'WORKDIR /data' -c 'VOLUME /data' -c 'EXPOSE 6379' -c 'USER 0' \
    -c 'ENTRYPOINT ["/usr/local/bin/n8n-backup-redis"]' -c 'CMD ["redis-server"]'
}

build_postgres() {
  local version='' bin=/usr/local/bin
  if ! have_base postgres:16-alpine; then
    command -v apt-get >/dev/null || unable "no postgres image: the engine cannot pull one, and this host has no apt-get to build one"
    version=$(debian_postgres_version)
    [ -n "$version" ] || unable "no postgres image: the package sources of this host offer no PostgreSQL"
    bin=/usr/lib/postgresql/$version/bin
  fi
  # shellcheck disable=SC2086 # a list of words
  base_image postgres postgres:16-alpine "postgresql-${version:-16}" "postgresql-client-${version:-16}" $BASE_PACKAGES
  docker create --name "$BUILD_CONTAINER" --network none --user 0 --shm-size 256m -e "PATH=$bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" \
    -e LANG=C.UTF-8 -e "KEY=$KEY" --entrypoint /bin/sh "$BASE" /usr/local/share/n8n-backup/postgres-build.sh >/dev/null
  docker cp - "$BUILD_CONTAINER:/usr/local/bin" < <(entrypoint_tar postgres)
  mkdir -p -- "$BUILD_DIR/share/n8n-backup"
  (cd "$STACK_DIR" && cp -- postgres-build.sh seed.sql seed-n8n.sql "$BUILD_DIR/share/n8n-backup/")
  docker cp - "$BUILD_CONTAINER:/usr/local" < <(tar -C "$BUILD_DIR" --owner=0 --group=0 --numeric-owner -c share)
  docker start -a "$BUILD_CONTAINER" >&2
  commit_image postgres -c "ENV PATH=$bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" \
    -c 'ENV LANG=C.UTF-8' -c 'ENV PGDATA=/var/lib/postgresql/data' -c 'VOLUME /var/lib/postgresql/data' -c 'EXPOSE 5432' \
    -c 'USER 0' -c 'ENTRYPOINT ["/usr/local/bin/n8n-backup-postgres"]' -c 'CMD ["postgres"]'
}

# A tar with the entry point of image $1, runnable and owned by root.
entrypoint_tar() {
  mkdir -p -- "$BUILD_DIR/entrypoint"
  cp -- "$STACK_DIR/$1-entrypoint.sh" "$BUILD_DIR/entrypoint/n8n-backup-$1"
  chmod 755 "$BUILD_DIR/entrypoint/n8n-backup-$1"
  tar -C "$BUILD_DIR/entrypoint" --owner=0 --group=0 --numeric-owner -c "n8n-backup-$1"
}

# Makes the build container into image $1; the rest goes to docker commit.
commit_image() {
  local name=$1 old
  shift
  old=$(docker image inspect --format '{{.Id}}' "$(image_name "$name")" 2>/dev/null) || old=
  docker commit "$@" -c "LABEL $RECIPE_LABEL=$(recipe_of "$name")" "$BUILD_CONTAINER" "$(image_name "$name")" >/dev/null
  docker rm -fv "$BUILD_CONTAINER" >/dev/null
  docker rmi "n8n-backup-test/base:$BUILD_CONTAINER" >/dev/null 2>&1 || true
  # A container of another run may still use the old one; then it stays.
  [ -z "$old" ] || docker rmi "$old" >/dev/null 2>&1 || true
}
