#!/usr/bin/env bash
# Runs every case of the fault suite on the real engine and counts those that held. Settings:
#   FAULT_ROUNDS      number of rounds (1)
#   FAULT_COMPRESSOR  compress with this program (BACKUP_COMPRESSOR)
#   FAULT_PASSPHRASE  encrypt with this passphrase (BACKUP_GPG_PASSPHRASE)
#   FAULT_THREADS     tests at a time (1: none slows another down)
set -euo pipefail
. "${BASH_SOURCE[0]%/*}/lib.sh"
cd -- "$root"
unset N8N_DIR FILE YES DRY_RUN
rounds=${FAULT_ROUNDS:-1}
[[ $rounds =~ ^[1-9][0-9]*$ ]] || die "FAULT_ROUNDS must be a number, not '$rounds'"
threads=${FAULT_THREADS:-1}
[[ $threads =~ ^[1-9][0-9]?$ ]] || die "FAULT_THREADS must be a number, not '$threads'"
[[ -z ${FAULT_COMPRESSOR:-} ]] || export TEST_COMPRESSOR=$FAULT_COMPRESSOR
[[ -z ${FAULT_PASSPHRASE:-} ]] || export TEST_PASSPHRASE=$FAULT_PASSPHRASE

# Test the binary that is installed.
export N8N_BACKUP_TEST_PROGRAM=$root/bin/n8n-backup
scripts/make/engine.sh
scripts/make/optional.sh >/dev/null
tests/stack/stack.sh images
cargo test --no-run --test integration
# SQLite's faults take n8n's image, for its Node.js.
sqlite=1
tests/stack/n8n-image.sh >/dev/null || sqlite=
[[ -z $sqlite ]] || cargo test --no-run --test n8n

work=$(mktemp -d "${TMPDIR:-/tmp}/n8n-backup-faults.XXXXXX")
trap 'rm -rf -- "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
export FAULTS=all FAULTS_REPORT=$work/report N8N_BACKUP_SKIPPED=$work/skipped
: >"$N8N_BACKUP_SKIPPED"
[[ -n $sqlite ]] || echo "faults of SQLite: there is no image of n8n" >>"$N8N_BACKUP_SKIPPED"

# The kinds of fault whose tests stand elsewhere.
# shellcheck disable=SC2016 # code in Markdown
mapfile -t kinds < <(sed -n '/^| kind | tests |/,/^$/p' docs/reliability.md | grep -o '`[a-z0-9_:]*`' | tr -d '`' | sort -u)

failed=0
for ((round = 1; round <= rounds; round++)); do
  : >"$FAULTS_REPORT"
  cargo test --test integration -- faults:: --test-threads="$threads" || failed=1
  # A test of these is one case.
  cargo test --test integration -- "${kinds[@]}" --skip faults:: --test-threads="$threads" 2>&1 | tee "$work/kinds" || failed=1
  sed -n 's/^test \(.*\) \.\.\. \(ok\|FAILED\)$/begin \1/p' "$work/kinds" >>"$FAULTS_REPORT"
  sed -n 's/^test \(.*\) \.\.\. ok$/held \1/p' "$work/kinds" >>"$FAULTS_REPORT"
  [[ -z $sqlite ]] || cargo test --test n8n -- faults:: --test-threads="$threads" || failed=1
  begun=$(grep -c '^begin ' "$FAULTS_REPORT" || true)
  held=$(grep -c '^held ' "$FAULTS_REPORT" || true)
  say "Round $round of $rounds${FAULT_COMPRESSOR:+, compressed with $FAULT_COMPRESSOR}${FAULT_PASSPHRASE:+, encrypted}: $held of $begun faults held."
  [[ $held == "$begun" && $begun != 0 ]] || failed=1
done
if [[ -s $N8N_BACKUP_SKIPPED ]]; then
  say 'Faults that could not be produced here:'
  sort -u -- "$N8N_BACKUP_SKIPPED" | sed 's/^/  /'
fi
((failed == 0)) || die 'Not every fault held.'
