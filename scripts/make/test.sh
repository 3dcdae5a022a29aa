#!/usr/bin/env bash
# Runs the packaging tests, the unit tests, and the integration tests on scratch stacks, then
# lists what was skipped and why: a test that skips something appends a line "name: reason"
# to the file that N8N_BACKUP_SKIPPED names.
#
# test.sh      the main tests, in a few minutes
# test.sh all  every test
set -euo pipefail
. "${BASH_SOURCE[0]%/*}/lib.sh"
cd -- "$root"
# The caller's directories must not reach the tests.
unset N8N_DIR FILE YES DRY_RUN

# Test the binary that is installed.
export N8N_BACKUP_TEST_PROGRAM=$root/bin/n8n-backup
scripts/make/engine.sh
optional=$(scripts/make/optional.sh)
tests/stack/stack.sh images

N8N_BACKUP_SKIPPED=$(mktemp "${TMPDIR:-/tmp}/n8n-backup-skipped.XXXXXX")
export N8N_BACKUP_SKIPPED
trap 'rm -f -- "$N8N_BACKUP_SKIPPED"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# Tests spend about half of their time waiting for servers.
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-$(($(nproc) + 1))}

failed=()
tests/install.sh || failed+=(tests/install.sh)
tests/packaging.sh || failed+=(tests/packaging.sh)
if [[ ${1:-} == all ]]; then
  cargo test --no-fail-fast || failed+=('cargo test')
else
  cargo test --bin n8n-backup || failed+=('unit tests')
  cargo test --test integration -- backup:: bad_input:: cleanup:: redis:: volume:: restore:: points:: faults::kills:: ||
    failed+=('integration tests')
fi

say
if [[ -s $N8N_BACKUP_SKIPPED ]]; then
  say 'Skipped:'
  sort -u -- "$N8N_BACKUP_SKIPPED" | sed 's/^/  /'
else
  say 'No test was skipped.'
fi
[[ -z $optional ]] || say "$optional"
[[ ${1:-} == all ]] || say 'make test-all also tests encryption, off-site copies, drills, all faults and other engines.'
((${#failed[@]} == 0)) || die "failed: ${failed[*]}"
say 'All tests passed.'
