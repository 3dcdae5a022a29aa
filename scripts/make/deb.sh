#!/usr/bin/env bash
# Builds target/dist/n8n-backup_VERSION_ARCHITECTURE.deb: bin/n8n-backup, its manual page,
# completions and documentation.
set -euo pipefail
. "${BASH_SOURCE[0]%/*}/lib.sh"
cd -- "$root"
umask 022

command -v dpkg-deb >/dev/null || die 'dpkg-deb is not installed: build the package on Debian or a derivative'
version=$(bin/n8n-backup --version)
version=${version##* }
architecture=$(dpkg --print-architecture)
work=$(mktemp -d "${TMPDIR:-/tmp}/n8n-backup-deb.XXXXXX")
trap 'rm -rf -- "$work"' EXIT
tree=$work/tree
doc=$tree/usr/share/doc/n8n-backup

install -D -m 755 bin/n8n-backup "$tree/usr/bin/n8n-backup"
mkdir -p "$tree/usr/share/man/man1" "$tree/usr/share/bash-completion/completions" \
  "$tree/usr/share/zsh/vendor-completions" "$tree/usr/share/fish/vendor_completions.d" "$doc/docs" "$tree/DEBIAN"
bin/n8n-backup man | gzip -9n >"$tree/usr/share/man/man1/n8n-backup.1.gz"
bin/n8n-backup completions bash >"$tree/usr/share/bash-completion/completions/n8n-backup"
bin/n8n-backup completions zsh >"$tree/usr/share/zsh/vendor-completions/_n8n-backup"
bin/n8n-backup completions fish >"$tree/usr/share/fish/vendor_completions.d/n8n-backup.fish"
install -m 644 README.md "$doc/"
install -m 644 LICENSE "$doc/copyright"
gzip -9n <CHANGELOG.md >"$doc/changelog.gz"
cp -R -- docs/. "$doc/docs/"
# Whatever umask the sources were checked out by.
chmod -R u=rwX,go=rX -- "$doc/docs/"

# The version of the C library that the binary needs.
libc=$(grep -aoE 'GLIBC_2\.[0-9]+' bin/n8n-backup | sort -uV | tail -n 1)
size=$(du -sk "$tree/usr" | cut -f 1)
cat >"$tree/DEBIAN/control" <<END
Package: n8n-backup
Version: $version
Architecture: $architecture
Maintainer: n8n-backup maintainers <root@localhost>
Installed-Size: $size
Depends: libc6${libc:+ (>= ${libc#GLIBC_})}, libgcc-s1, coreutils, gzip
Recommends: docker.io | docker-ce-cli | podman, isal | pigz, gpg, curl
Suggests: rclone, openssl
Section: admin
Priority: optional
Description: back up and restore a self-hosted n8n stack in Docker
 Backs up PostgreSQL, Redis, the data volume and the environment file of an n8n
 that runs in Docker, proves the backups, and restores them without losing what
 is there. "n8n-backup install DIR" puts it into an n8n directory.
END
(cd -- "$tree" && find usr -type f -print0 | sort -z | xargs -0 md5sum) >"$tree/DEBIAN/md5sums"
mkdir -p target/dist
package=target/dist/n8n-backup_${version}_$architecture.deb
dpkg-deb --root-owner-group --build "$tree" "$work/package.deb" >/dev/null
mv -- "$work/package.deb" "$package"
say "Built $package"
