#!/usr/bin/env bash
# Runs the tests with a real n8n, two at a time where there is room: each starts servers of several hundred megabytes.
set -euo pipefail
. "${BASH_SOURCE[0]%/*}/lib.sh"
cd -- "$root"
unset N8N_DIR FILE YES DRY_RUN

export N8N_BACKUP_TEST_PROGRAM=$root/bin/n8n-backup
scripts/make/engine.sh
tests/stack/stack.sh images
tests/stack/n8n-image.sh >/dev/null
threads=1
if (($(nproc) >= 2 && $(awk '/^MemAvailable/ { print int($2 / 1e6) }' /proc/meminfo) >= 8)); then
  threads=2
fi
cargo test --test n8n -- --test-threads "$threads" --skip secrets::
# It looks for secrets in all of the host, those of no other test.
cargo test --test n8n -- secrets::
say 'All tests with a real n8n passed.'
