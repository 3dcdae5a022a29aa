#!/usr/bin/env bash
# Installs the optional programs that some tests use, as root and with apt; prints those that
# are still missing.
set -euo pipefail
. "${BASH_SOURCE[0]%/*}/lib.sh"

# program:Debian package
wanted=(igzip:isal pigz:pigz libdeflate-gzip:libdeflate-tools gpg:gpg openssl:openssl rclone:rclone script:bsdutils podman:podman
  mkfs.vfat:dosfstools mkfs.exfat:exfatprogs mount.exfat-fuse:exfat-fuse bindfs:bindfs
  curl:curl rootlesskit:rootlesskit newuidmap:uidmap fish:fish zsh:zsh)
# The same, for packages that would start a service if they were installed.
unpacked=(promtool:prometheus)

missing() {
  local entry
  absent=()
  for entry in "$@"; do
    command -v "${entry%%:*}" >/dev/null || absent+=("$entry")
  done
}

# unpack PROGRAM PACKAGE: extracts only the program, into `tools`.
unpack() (
  set -e
  download=$(mktemp -d "${TMPDIR:-/tmp}/n8n-backup-tool.XXXXXX")
  trap 'rm -rf -- "$download"' EXIT
  # apt downloads as another user.
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
    # A package that this release lacks must not keep out the others.
    for entry in "${absent[@]}"; do
      install_packages "${entry#*:}" 2>/dev/null || true
    done
  hash -r
fi
missing "${unpacked[@]}"
if ((${#absent[@]})) && may_install_packages; then
  for entry in "${absent[@]}"; do
    unpack "${entry%%:*}" "${entry#*:}" &
    # In the background, because set -e is off to the left of `||`.
    wait "$!" || true
  done
  hash -r
fi
missing "${wanted[@]}" "${unpacked[@]}"
((${#absent[@]} == 0)) || say "Optional programs that are missing: ${absent[*]%%:*}"
