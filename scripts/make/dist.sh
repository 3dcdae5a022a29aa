#!/usr/bin/env bash
# Builds what people without a compiler install, for this architecture, in target/dist: the
# Debian package, an archive of one folder, and SHA256SUMS. The binary must run on the oldest
# Debian that is supported: where this host's C library is newer and links to what that one
# lacks, build in a container of it (rust:1-bookworm, as the release workflow does).
set -euo pipefail
. "${BASH_SOURCE[0]%/*}/lib.sh"
cd -- "$root"
umask 022

# bookworm.
oldest=2.36
needed=$(grep -aoE 'GLIBC_2\.[0-9]+' bin/n8n-backup | sort -uV | tail -n 1)
needed=${needed#GLIBC_}
[[ $(printf '%s\n' "$oldest" "${needed:-2.0}" | sort -V | tail -n 1) == "$oldest" ]] ||
  die "bin/n8n-backup needs glibc $needed, and the oldest supported Debian has $oldest: build in a container of it (rust:1-bookworm)"

version=$(bin/n8n-backup --version)
version=${version##* }
case $(uname -m) in
  x86_64) architecture=amd64 ;;
  aarch64) architecture=arm64 ;;
  *) architecture=$(uname -m) ;;
esac
scripts/make/deb.sh
package=target/dist/n8n-backup_${version}_$architecture.deb
[[ -f $package ]] || die "no package of this architecture: $package"

name=n8n-backup-$version-linux-$architecture
work=$(mktemp -d "${TMPDIR:-/tmp}/n8n-backup-dist.XXXXXX")
trap 'rm -rf -- "$work"' EXIT
mkdir -p -- "$work/$name/docs"
install -m 755 bin/n8n-backup "$work/$name/"
install -m 755 scripts/make/tarball.sh "$work/$name/install.sh"
install -m 644 README.md CHANGELOG.md LICENSE "$work/$name/"
cp -R -- docs/. "$work/$name/docs/"
# Whatever umask the sources were checked out by.
chmod -R u=rwX,go=rX -- "$work/$name/docs/"
bin/n8n-backup man >"$work/$name/n8n-backup.1"
# The same input gives the same archive.
tar -C "$work" --sort=name --mtime="@${SOURCE_DATE_EPOCH:-0}" --owner=0 --group=0 --numeric-owner -cf - "$name" |
  gzip -9n >"$work/archive"
mv -- "$work/archive" "target/dist/$name.tar.gz"
say "Built target/dist/$name.tar.gz (needs glibc ${needed:-of any version}; Debian bookworm has $oldest)"
cd target/dist
sha256sum -- "${package##*/}" "$name.tar.gz" >"$work/sums"
mv -- "$work/sums" SHA256SUMS
say "Wrote target/dist/SHA256SUMS"
