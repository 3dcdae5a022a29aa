#!/usr/bin/env bash
# Runs the tests with a real n8n, one after another: each starts servers of several hundred megabytes.
set -euo pipefail
. "${BASH_SOURCE[0]%/*}/lib.sh"
cd -- "$root"
unset N8N_DIR FILE YES DRY_RUN

export N8N_BACKUP_TEST_PROGRAM=$root/bin/n8n-backup
scripts/make/engine.sh
tests/stack/stack.sh images
tests/stack/n8n-image.sh >/dev/null
cargo test --test n8n -- --test-threads 1
say 'All tests with a real n8n passed.'
