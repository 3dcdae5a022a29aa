#!/usr/bin/env bash
# Builds the release binary and puts it at bin/n8n-backup of the checkout.
set -euo pipefail
. "${BASH_SOURCE[0]%/*}/lib.sh"

command -v cargo >/dev/null ||
  die 'cargo is not installed: install Rust 1.89 or newer (https://rustup.rs), then run make again'
cd -- "$root"
cargo build --release
mkdir -p bin
# A rename, so that a run that starts meanwhile sees the old or the new file, never half.
trap 'rm -f bin/.n8n-backup.new' EXIT
install -m 755 "${CARGO_TARGET_DIR:-target}/release/n8n-backup" bin/.n8n-backup.new
mv -f bin/.n8n-backup.new bin/n8n-backup
