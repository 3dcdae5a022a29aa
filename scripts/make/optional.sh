#!/usr/bin/env bash
# Installs the optional programs that some tests use, where it may (root, apt); prints the
# ones that stay missing.
set -euo pipefail
. "${BASH_SOURCE[0]%/*}/lib.sh"

# program:Debian package
wanted=(igzip:isal pigz:pigz libdeflate-gzip:libdeflate-tools gpg:gpg openssl:openssl rclone:rclone script:bsdutils podman:podman
  curl:curl rootlesskit:rootlesskit newuidmap:uidmap)

missing() {
  local entry
  absent=()
  for entry in "${wanted[@]}"; do
    command -v "${entry%%:*}" >/dev/null || absent+=("$entry")
  done
}

missing
if ((${#absent[@]})) && may_install_packages; then
  install_packages "${absent[@]#*:}" ||
    # One that this release does not have must not keep the others out.
    for entry in "${absent[@]}"; do
      install_packages "${entry#*:}" 2>/dev/null || true
    done
  hash -r
  missing
fi
((${#absent[@]} == 0)) || say "Optional programs that are missing here: ${absent[*]%%:*}"
