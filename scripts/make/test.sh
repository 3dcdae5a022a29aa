#!/usr/bin/env bash
# The tests: packaging, unit and integration tests, the last on scratch stacks. At the
# end, the tests that did not run and why: each test that has to pass over something
# appends a line "name: reason" to the file that N8N_BACKUP_SKIPPED names.
#
# test.sh      what a user needs to trust this machine's build, in a few minutes
# test.sh all  every test
set -euo pipefail
. "${BASH_SOURCE[0]%/*}/lib.sh"
cd -- "$root"
# Tests choose their own directories; the caller's must not reach them.
unset N8N_DIR FILE YES DRY_RUN

# What is tested is what is installed.
export N8N_BACKUP_TEST_PROGRAM=$root/bin/n8n-backup
scripts/make/engine.sh
optional=$(scripts/make/optional.sh)
tests/stack/stack.sh images

N8N_BACKUP_SKIPPED=$(mktemp "${TMPDIR:-/tmp}/n8n-backup-skipped.XXXXXX")
export N8N_BACKUP_SKIPPED
trap 'rm -f -- "$N8N_BACKUP_SKIPPED"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# Many tests wait for servers about as long as they work.
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
  say 'Tests that did not run here:'
  sort -u -- "$N8N_BACKUP_SKIPPED" | sed 's/^/  /'
else
  say 'No test was passed over.'
fi
[[ -z $optional ]] || say "$optional"
[[ ${1:-} == all ]] || say 'make test-all runs the rest: encryption, off-site, drills, every fault, engines.'
((${#failed[@]} == 0)) || die "failed: ${failed[*]}"
say 'All tests passed.'
