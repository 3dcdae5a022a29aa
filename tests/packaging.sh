#!/usr/bin/env bash
# Tests of make deb and make install-timer: the package is installed into and removed from a
# directory of its own, the units are read by systemd's own verifier. Nothing of this machine
# is changed. Prints one line per test; exit status 1 if any failed.
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
run units_are_what_systemd_takes
((failures == 0))
