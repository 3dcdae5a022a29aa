#!/usr/bin/env bash
# Installs the optional programs that some tests use, where it may (root, apt); prints the
# ones that stay missing.
set -euo pipefail
. "${BASH_SOURCE[0]%/*}/lib.sh"

# program:Debian package
wanted=(igzip:isal pigz:pigz libdeflate-gzip:libdeflate-tools gpg:gpg openssl:openssl rclone:rclone script:bsdutils podman:podman
  curl:curl rootlesskit:rootlesskit newuidmap:uidmap fish:fish zsh:zsh)
# Like the above, of packages that start a service when they are installed.
unpacked=(promtool:prometheus)

missing() {
  local entry
  absent=()
  for entry in "$@"; do
    command -v "${entry%%:*}" >/dev/null || absent+=("$entry")
  done
}

# unpack PROGRAM PACKAGE: only the program, into `tools`.
unpack() (
  set -e
  download=$(mktemp -d "${TMPDIR:-/tmp}/n8n-backup-tool.XXXXXX")
  trap 'rm -rf -- "$download"' EXIT
  # apt downloads as a user of its own.
  chmod 755 "$download"
  cd -- "$download"
  apt-get -q download "$2" >/dev/null 2>&1 || {
    apt-get -q update
    apt-get -q download "$2"
  } >/dev/null 2>&1
  dpkg-deb --extract ./*.deb .
  mkdir -p -- "$tools"
  install -m 755 "usr/bin/$1" "$tools/"
)

missing "${wanted[@]}"
if ((${#absent[@]})) && may_install_packages; then
  install_packages "${absent[@]#*:}" ||
    # One that this release does not have must not keep the others out.
    for entry in "${absent[@]}"; do
      install_packages "${entry#*:}" 2>/dev/null || true
    done
  hash -r
fi
missing "${unpacked[@]}"
if ((${#absent[@]})) && may_install_packages; then
  for entry in "${absent[@]}"; do
    unpack "${entry%%:*}" "${entry#*:}" &
    # Waited for, since the shell takes no notice of what fails to the left of a `||`.
    wait "$!" || true
  done
  hash -r
fi
missing "${wanted[@]}" "${unpacked[@]}"
((${#absent[@]} == 0)) || say "Optional programs that are missing here: ${absent[*]%%:*}"
