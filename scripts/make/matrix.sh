#!/usr/bin/env bash
# Runs the cells of tests/matrix that CELL names: all of them without it.
set -euo pipefail
. "${BASH_SOURCE[0]%/*}/lib.sh"
cd -- "$root"
unset N8N_DIR FILE YES DRY_RUN

export N8N_BACKUP_TEST_PROGRAM=$root/bin/n8n-backup
scripts/make/engine.sh
# shellcheck disable=SC2086 # a list of cells
exec tests/matrix/run.sh ${CELL:-all}
