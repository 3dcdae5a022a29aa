#!/usr/bin/env bash
# Runs the cells of tests/matrix that CELL names: all of them without it.
set -euo pipefail
. "${BASH_SOURCE[0]%/*}/lib.sh"
cd -- "$root"
unset N8N_DIR FILE YES DRY_RUN

export N8N_BACKUP_TEST_PROGRAM=$root/bin/n8n-backup
scripts/make/engine.sh
# shellcheck disable=SC2086 # a list of cells
tests/matrix/run.sh ${CELL:-all}
if [[ -z ${CELL:-} ]]; then
  # Also makes the bare Debian that a user without a compiler has.
  tests/packaging.sh
  scripts/make/dist.sh
  tests/matrix/with.sh docker-20 15 7 tests/matrix/new-user.sh
fi
