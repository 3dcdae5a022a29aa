#!/usr/bin/env bash
# Tests of make dist and make install-timer: the package is installed into and removed from a
# directory of its own, and like the archive a bare Debian in a container, where that can be
# had; the units are read by systemd's own verifier. Nothing of this machine is changed.
# Prints one line per test; exit status 1 if any failed.
set -euo pipefail
root=$(cd -- "${BASH_SOURCE[0]%/*}/.." && pwd -P)
unset N8N_DIR FILE YES DRY_RUN MAKEFLAGS MFLAGS MAKELEVEL
export LC_ALL=C

work=$(mktemp -d "${TMPDIR:-/tmp}/n8n-backup-packaging.XXXXXX")
trap 'rm -rf -- "$work"' EXIT
failures=0
failed() {
  printf 'not ok - %s\n' "$*"
  failures=$((failures + 1))
}
skipped() {
  printf 'skipped - %s: %s\n' "$1" "$2"
  [[ -z ${N8N_BACKUP_SKIPPED:-} ]] || printf '%s: %s\n' "$1" "$2" >>"$N8N_BACKUP_SKIPPED"
}

package_installs_and_removes_cleanly() {
  local target=$work/target package
  "$root/scripts/make/deb.sh" >"$work/out" 2>&1 || { cat "$work/out"; return 1; }
  package=$root/$(sed -n 's/^Built //p' "$work/out")
  mkdir -p "$target"/var/lib/dpkg/{info,updates,triggers}
  : >"$target/var/lib/dpkg/status"
  # Only the package's own files are of interest, so what it depends on is left out.
  local options=(--root="$target" --force-depends --force-not-root --force-script-chrootless --log="$work/dpkg.log")
  dpkg "${options[@]}" -i "$package" >"$work/out" 2>&1 || { cat "$work/out"; return 1; }
  [[ $("$target/usr/bin/n8n-backup" --version) == n8n-backup\ * ]] || return 1
  gzip -t "$target/usr/share/man/man1/n8n-backup.1.gz" || return 1
  (cd -- "$target" && md5sum --quiet -c var/lib/dpkg/info/n8n-backup.md5sums) || return 1
  dpkg "${options[@]}" -P n8n-backup >"$work/out" 2>&1 || { cat "$work/out"; return 1; }
  [[ -z $(find "$target" -path "$target/var" -prune -o -type f -print) ]]
}

units_are_what_systemd_takes() {
  local dir="$work/my 50% \$n8n \"q\"" units=$work/units unit
  mkdir -p "$dir/scripts"
  printf '#!/bin/bash\n' >"$dir/scripts/backup-all.sh"
  chmod 755 "$dir/scripts/backup-all.sh"
  N8N_DIR=$dir UNIT_DIR=$units "$root/scripts/make/timer.sh" add >"$work/out" || { cat "$work/out"; return 1; }
  [[ $(find "$units" -type f | wc -l) == 2 ]] || return 1
  if command -v systemd-analyze >/dev/null; then
    for unit in "$units"/*; do
      systemd-analyze verify --man=no "$unit" >"$work/verify" 2>&1 || { cat "$work/verify"; return 1; }
      ! grep -F "$units" "$work/verify" || return 1
    done
  else
    skipped units_are_what_systemd_takes 'systemd-analyze is not installed'
  fi
  N8N_DIR=$dir UNIT_DIR=$units "$root/scripts/make/timer.sh" remove >"$work/out" || return 1
  [[ -z $(find "$units" -type f) ]]
}

# bare_debian: sets `bare` to an image that holds a Debian with dpkg and little else. It is made of
# packages, as the images of the stack are; the version of the recipe is in its name.
bare_debian() {
  bare=n8n-backup-test/bare:1
  docker image inspect "$bare" >/dev/null 2>&1 && return
  (
    say() { :; }
    unable() { printf '%s\n' "$*" >"$work/unable"; exit 1; }
    STACK_DIR=$root/tests/stack
    # shellcheck source=tests/stack/images.sh
    . "$STACK_DIR/images.sh"
    BUILD_DIR=$work/bare
    # shellcheck disable=SC2034 # fetch_debs reads it
    UNUSED_PACKAGES='^$'
    mkdir -p -- "$BUILD_DIR" "$CACHE_DIR"
    # shellcheck disable=SC2086 # a list of words
    debian_root bare $BASE_PACKAGES dpkg libgcc-s1
    # What is unpacked is installed, as far as dependencies go.
    for deb in "$DEBS"/*.deb; do
      dpkg-deb --field "$deb" | sed 's/^Package:.*/&\nStatus: install ok installed/'
      echo
    done >"$BUILD_DIR/bare/var/lib/dpkg/status"
    mkdir -p "$BUILD_DIR/bare/var/lib/dpkg/info" "$BUILD_DIR/bare/var/lib/dpkg/updates"
    tar -C "$BUILD_DIR/bare" --owner=0 --group=0 --numeric-owner -c . | docker import - "$bare" >/dev/null
  )
}

# in_debian FUNCTION: runs a function of this file in a container of it, with what was built in /dist.
in_debian() {
  # Copied in: the engine need not see this machine's files.
  local container status=0
  container=$(docker create --network none "$bare" bash -euc "$(declare -f prepare is_installed is_as_before "$1"); $1") || return 1
  tar -C "$work" -c dist | docker cp - "$container:/" >/dev/null && docker start -a "$container" >"$work/out" 2>&1 || status=1
  docker rm -fv "$container" >/dev/null
  ((status == 0)) || cat "$work/out"
  return "$status"
}

# Sets `project`, an n8n directory of the user 1000 with a script of its own.
prepare() {
  project="/srv/my n8n"
  mkdir -p "$project/scripts"
  printf '#!/bin/sh\necho mine\n' >"$project/scripts/backup-all.sh"
  chmod 750 "$project/scripts/backup-all.sh"
  chown -R 1000:1000 "$project"
}

is_installed() {
  "$project/bin/n8n-backup" --version
  [[ $(find "$project/scripts" -name '*.sh' | wc -l) -gt 10 ]]
  [[ -z $(find "$project" ! -uid 1000) ]]
  [[ $(stat -c %a "$project/backups/env") == 700 ]]
  # It runs, and says what is missing.
  ! "$project/scripts/backup-all.sh" || exit 1
  grep -q 'Starting full backup process' "$project/logs/backup.log"
  chown -R 1000:1000 "$project"
}

is_as_before() {
  [[ $(sh "$project/scripts/backup-all.sh") == mine ]]
  [[ $(stat -c '%a %u' "$project/scripts/backup-all.sh") == '750 1000' ]]
  [[ $(ls "$project/scripts") == backup-all.sh ]]
  [[ ! -e $project/bin ]]
}

package_steps() {
  prepare
  dpkg -i /dist/old.deb
  n8n-backup install "$project"
  is_installed
  # The upgrade keeps what the older one had kept.
  dpkg -i /dist/new.deb
  [[ $(dpkg-query -W -f '${Version}' n8n-backup) != 0.0.1 ]]
  n8n-backup install "$project"
  is_installed
  [[ $(sh "$project/scripts/backup-all.sh.orig") == mine ]]
  dpkg -P n8n-backup
  local left
  left=$(find / -xdev \( -path /proc -o -path /sys -o -path /srv -o -path /dist -o -path /tmp \) -prune -o -name '*n8n-backup*' -print)
  [[ -z $left ]] || { echo "left: $left"; exit 1; }
  # What is in the project goes on, and takes itself out.
  is_installed
  "$project/bin/n8n-backup" uninstall "$project"
  is_as_before
}

archive_steps() {
  prepare
  cd /dist
  sha256sum --quiet -c SHA256SUMS
  tar -xzf n8n-backup-*.tar.gz
  cd n8n-backup-*/
  [[ $(printf '%s ' *) == 'CHANGELOG.md LICENSE README.md docs install.sh n8n-backup n8n-backup.1 ' ]]
  ! ./install.sh || exit 1
  ./install.sh "$project"
  is_installed
  cd /
  sh /dist/n8n-backup-*/install.sh "$project"
  is_installed
  "$project/bin/n8n-backup" uninstall "$project"
  is_as_before
}

package_serves_in_a_bare_debian() {
  in_debian package_steps
}

archive_serves_in_a_bare_debian() {
  in_debian archive_steps
}

# Builds everything into $work/dist, and a package of an older version.
build_dist() {
  # shellcheck disable=SC2031 # images.sh has one of its own, in a subshell
  local root=$root
  "$root/scripts/make/dist.sh" >"$work/out" 2>&1 || { cat "$work/out"; return 1; }
  mkdir -p "$work/dist" && cp -- "$root"/target/dist/{SHA256SUMS,*.tar.gz,*.deb} "$work/dist/" || return 1
  cp -- "$work/dist"/n8n-backup_*.deb "$work/dist/new.deb" || return 1
  dpkg-deb -R "$work/dist/new.deb" "$work/older" && sed -i 's/^Version:.*/Version: 0.0.1/' "$work/older/DEBIAN/control" &&
    dpkg-deb --root-owner-group -b "$work/older" "$work/dist/old.deb" >/dev/null
}

run() {
  if "$1"; then
    printf 'ok - %s\n' "$1"
  else
    failed "$1"
  fi
}

if command -v dpkg-deb >/dev/null; then
  run package_installs_and_removes_cleanly
else
  skipped package_installs_and_removes_cleanly 'dpkg-deb is not installed'
fi
if ! command -v dpkg-deb >/dev/null || ! command -v docker >/dev/null || ! docker version >/dev/null 2>&1; then
  skipped 'package_serves_in_a_bare_debian, archive_serves_in_a_bare_debian' 'they need dpkg-deb and a Docker engine'
elif ! bare_debian; then
  skipped 'package_serves_in_a_bare_debian, archive_serves_in_a_bare_debian' "$(cat "$work/unable")"
else
  run build_dist
  run package_serves_in_a_bare_debian
  run archive_serves_in_a_bare_debian
fi
run units_are_what_systemd_takes
((failures == 0))
