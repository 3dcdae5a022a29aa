#!/usr/bin/env bash
# Builds the release binary and copies it to bin/n8n-backup.
set -euo pipefail
. "${BASH_SOURCE[0]%/*}/lib.sh"

command -v cargo >/dev/null ||
  die 'cargo is not installed: install Rust 1.89 or newer (https://rustup.rs), then run make again'
cd -- "$root"
cargo build --release
mkdir -p bin
# Renamed into place: a run that starts now sees the old or the new file, never half of one.
trap 'rm -f bin/.n8n-backup.new' EXIT
install -m 755 "${CARGO_TARGET_DIR:-target}/release/n8n-backup" bin/.n8n-backup.new
mv -f bin/.n8n-backup.new bin/n8n-backup
