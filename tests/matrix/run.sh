#!/usr/bin/env bash
# Backs up, tests, damages and restores a stack in each cell of the file `cells`: on other servers, other engines, and
# without GNU's tools. Needs root, and a host with apt and a Docker engine; what it fetches stays in the cache directory.
#
# run.sh [all|quick|CELL...]   all also writes the table in docs/compatibility.md
set -euo pipefail

MATRIX_DIR=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
STACK_DIR=$MATRIX_DIR/../stack
ROOT=$(cd -- "$MATRIX_DIR/../.." && pwd)
PROGRAM=${N8N_BACKUP_TEST_PROGRAM:-$ROOT/bin/n8n-backup}
DOCS=$ROOT/docs/compatibility.md

say() {
  printf 'matrix: %s\n' "$*" >&2
}

# Nothing of it can be run here.
unable() {
  say "NOT RUN: $*"
  exit 2
}

[ "$EUID" = 0 ] || unable 'the matrix needs root: it mounts the trees of other engines'
KEY=$("$STACK_DIR/stack.sh" key)
# shellcheck source-path=SCRIPTDIR source=images.sh
. "$MATRIX_DIR/images.sh"
# shellcheck source-path=SCRIPTDIR source=engines.sh
. "$MATRIX_DIR/engines.sh"

# fail TEXT: ends a cell.
fail() {
  printf 'FAILED: %s\n' "$*"
  exit 1
}

step() {
  printf -- '--- %s\n' "$*"
  printf '%s' "$*" >"$CELL_DIR/step"
}

stack() {
  PATH=$SHIMS:$PATH STACK_IMAGES=made "$STACK_DIR/stack.sh" "$@"
}

# ours COMMAND...: the program under test, with the tools of the cell.
ours() {
  if [ "$TOOLS" = gnu ]; then
    PATH=$SHIMS:$PATH "$PROGRAM" --project-dir "$PROJECT" "$@"
    return
  fi
  # shellcheck disable=SC2016 # for that shell
  unshare --mount --propagation private sh -ec '
    mount --bind "$1" /usr/sbin
    mount --bind "$2" /usr/local/bin
    mount --bind "$1" /usr/bin
    shift 2
    PATH=/usr/bin exec "$@"' sh "$APPLETS" "$CELL_DIR/none" "$CELL_DIR/n8n-backup" --project-dir "$PROJECT" "$@"
}

# make_applets: a /usr/bin of busybox alone, and the client.
make_applets() {
  local applet
  APPLETS=$CELL_DIR/usr-bin
  mkdir -p -- "$APPLETS" "$CELL_DIR/none"
  docker run --rm --network none n8n-backup-test/busybox:1 cat /bin/busybox >"$APPLETS/busybox"
  chmod 755 "$APPLETS/busybox"
  for applet in $("$APPLETS/busybox" --list); do
    [ "$applet" = busybox ] || ln -s busybox "$APPLETS/$applet"
  done
  # A link would lead to the program that busybox shadows.
  cp -- "$SHIMS/docker" "$APPLETS/docker"
  cp -- "$PROGRAM" "$CELL_DIR/n8n-backup"
}

# contents NAME: what the stack holds, in files.
contents() {
  mkdir -p -- "$CELL_DIR/$1"
  stack fingerprint-postgres "$PREFIX" >"$CELL_DIR/$1/postgres"
  stack fingerprint-redis "$PREFIX" >"$CELL_DIR/$1/redis"
  stack fingerprint-volume "$PREFIX" >"$CELL_DIR/$1/volume"
  local each
  for each in postgres redis volume; do
    [ "$(wc -l <"$CELL_DIR/$1/$each")" -gt 5 ] || fail "too little was seen in $each"
  done
}

# same NAME OTHER PART [PATTERN]: PATTERN names lines that may differ.
same() {
  diff <(grep -av -e "${4:-^$}" "$CELL_DIR/$1/$3") <(grep -av -e "${4:-^$}" "$CELL_DIR/$2/$3") | head -n 20 >"$CELL_DIR/diff" || true
  [ ! -s "$CELL_DIR/diff" ] || {
    cat "$CELL_DIR/diff"
    fail "$3 differs after the restore"
  }
}

psql_in() {
  engine exec -i "$PREFIX-postgres" psql -XqU n8n -v ON_ERROR_STOP=1 "$@"
}

# drill: everything, and the proof of the key.
drill() {
  ours test-recovery --full | tee "$CELL_DIR/drill"
  grep -q 'Decrypted \([1-9][0-9]*\) of \1 credentials with the backed-up key' "$CELL_DIR/drill" || fail 'the key was not proven'
  grep -q '^# drill.key: ' "$PROJECT"/backups/sets/*.sha256 || fail 'the proof of the key is not in the manifest'
}

# The contents of the newer servers, had they read the backups without us.
reference_postgres() {
  mkdir -p -- "$CELL_DIR/reference"
  psql_in -d postgres -c 'CREATE DATABASE reference TEMPLATE template0'
  gzip -dc "$PROJECT"/backups/postgres/n8n_*.sql.gz | psql_in -d reference -f - >/dev/null
  stack fingerprint-postgres "$PREFIX" reference >"$CELL_DIR/reference/postgres"
  psql_in -d postgres -c 'DROP DATABASE reference'
}

reference_redis() {
  local server=$PREFIX-ref-redis
  mkdir -p -- "$CELL_DIR/reference"
  cp -- "$(find "$PROJECT/backups/redis" -name 'dump_*.rdb' | sort | head -n 1)" "$CELL_DIR/reference/dump.rdb"
  engine create --name "$server" --network none n8n-backup-test/redis:1 redis-server --port 6386 >/dev/null
  tar -C "$CELL_DIR/reference" -c dump.rdb | engine cp - "$server:/data"
  engine start "$server" >/dev/null
  until engine exec "$server" redis-cli -p 6386 ping | grep -q PONG; do
    [ "$(engine inspect --format '{{.State.Running}}' "$server")" = true ] || fail 'the newer Redis does not read the snapshot'
    sleep 0.2
  done
  stack fingerprint-redis "$PREFIX-ref" >"$CELL_DIR/reference/redis"
  engine rm -fv "$server" >/dev/null
}

# versions: of what runs now.
versions() {
  engine exec "$PREFIX-postgres" postgres --version | sed 's/^[^0-9]*\([0-9.]*\).*/\1/' >"$CELL_DIR/postgres-$1"
  engine exec "$PREFIX-redis" redis-server --version | sed 's/ server v=/ /; s/^\([A-Za-z]* [0-9.]*\).*/\1/' >"$CELL_DIR/redis-$1"
}

cell() {
  local postgres=$1 redis=$2 name=$3 old_pg new_pg old_redis new_redis
  old_pg=${postgres%>*} new_pg=${postgres#*>} old_redis=${redis%>*} new_redis=${redis#*>}
  PROJECT=$CELL_DIR/n8n
  mkdir -p -- "$PROJECT"

  step 'start the servers'
  give_image n8n-backup-test/busybox:1
  serve postgres "$old_pg"
  serve redis "$old_redis"
  [ "$TOOLS" = gnu ] || make_applets
  stack up "$PREFIX" --seed
  # Not by the stack script, which makes the volume again: podman takes that for an error.
  engine run --rm -i --network none -v "${PREFIX}_n8n_data:/volume" n8n-backup-test/busybox:1 sh -s -- "$KEY" <"$STACK_DIR/volume-seed.sh"
  stack seed-redis "$PREFIX"
  versions old
  engine version --format '{{.Server.Version}}' >"$CELL_DIR/engine"
  printf '%s\n' POSTGRES_USER=n8n POSTGRES_DB=n8n REDIS_PORT=6386 "BACKUP_POSTGRES_CONTAINER=$PREFIX-postgres" \
    "BACKUP_REDIS_CONTAINER=$PREFIX-redis" "BACKUP_N8N_CONTAINERS=\"$PREFIX-n8n-main $PREFIX-n8n-worker\"" \
    "BACKUP_N8N_VOLUME=${PREFIX}_n8n_data" "BACKUP_LOCK_FILE=$CELL_DIR/lock" \
    BACKUP_HELPER_IMAGE=n8n-backup-test/busybox:1 BACKUP_STALL_SECONDS=120 >"$PROJECT/.env"
  chmod 600 "$PROJECT/.env"
  contents before

  step 'back up'
  ours backup-all
  ours verify
  step 'drill on the servers that were backed up'
  drill

  if [ "$postgres$redis" = "$old_pg$old_redis" ]; then
    step 'damage'
    psql_in -d n8n -c 'DROP TABLE workflow_entity, credentials_entity CASCADE'
    engine exec "$PREFIX-redis" redis-cli -p 6386 FLUSHALL >/dev/null
  else
    step 'replace the servers by newer ones'
    engine rm -fv "$PREFIX-postgres" "$PREFIX-redis" >/dev/null
    engine volume rm "${PREFIX}_postgres_data" "${PREFIX}_redis_data" >/dev/null
    serve postgres "$new_pg"
    serve redis "$new_redis"
    stack up "$PREFIX" --no-n8n
  fi
  engine exec "$PREFIX-n8n-main" sh -c 'rm -rf /home/node/.n8n/* && echo x >/home/node/.n8n/stray'
  versions new

  step 'restore'
  ours restore-all --yes --create-roles latest
  contents after
  same before after volume
  if [ "$old_redis" = "$new_redis" ]; then
    same before after redis
  else
    # Versions word scores in ways of their own: those are compared with what a server makes of the snapshot by itself.
    same before after redis '|zset|'
    reference_redis
    same reference after redis
  fi
  if [ "$old_pg" = "$new_pg" ]; then
    same before after postgres
  else
    # Each version words definitions in its own way: those are compared with what psql makes of the dump.
    same before after postgres '^\(definition\|database\|extension\)|'
    reference_postgres
    same reference after postgres '^database|'
  fi
  step 'drill on the servers that were restored into'
  drill
  : >"$CELL_DIR/passed"
  printf 'passed: %s\n' "$name"
}

# arrow NAME: a version, or the old and the new one.
arrow() {
  local old new
  old=$(cat "$CELL_DIR/$1-old" 2>/dev/null || true)
  new=$(cat "$CELL_DIR/$1-new" 2>/dev/null || true)
  if [ -z "$new" ] || [ "$old" = "$new" ]; then
    printf '%s' "${old:-?}"
  else
    printf '%s to %s' "$old" "$new"
  fi
}

# run_cell NAME POSTGRES REDIS ENGINE TOOLS: adds its row to the table.
run_cell() {
  local begun=$SECONDS result=passed tools job engine_version title=${4%%-*}
  CELL_DIR=$WORK/$1 PREFIX=n8nbt-matrix-$$-$1 TOOLS=$5
  mkdir -p -- "$CELL_DIR"
  say "$1: PostgreSQL $2, Redis $3, $4, $5"
  # In the background, because set -e is off to the left of `||`.
  cell "$2" "$3" "$1" >"$CELL_DIR/log" 2>&1 </dev/null &
  job=$!
  wait "$job" || true
  if [ ! -e "$CELL_DIR/passed" ]; then
    result="failed: $(cat "$CELL_DIR/step" 2>/dev/null || echo start)"
    tail -n 40 "$CELL_DIR/log" >&2
    FAILED+=("$1")
  fi
  stack down "$PREFIX" >/dev/null 2>&1 || true
  tools='GNU'
  [ "$5" = gnu ] || tools='busybox alone'
  engine_version=$(cat "$CELL_DIR/engine" 2>/dev/null || true)
  [ "$title" = podman ] || title=Docker
  say "$1: $result, $((SECONDS - begun)) s"
  printf '| %s | %s | %s | %s | %s | %s | %s |\n' "$1" "$(arrow postgres)" "$(arrow redis)" "$title ${engine_version:-${4#*-}}" \
    "$tools" "$result" "$(date +%F)" >>"$WORK/table"
}

write_table() {
  local new=$WORK/docs
  awk -v table="$WORK/table" '
    /^<!-- matrix: begin -->/ { print; print ""
      print "| cell | PostgreSQL | Redis, Valkey | engine | tools of the host | result | date |\n|---|---|---|---|---|---|---|"
      while ((getline line <table) > 0) print line
      print ""; skip = 1 }
    /^<!-- matrix: end -->/ { skip = 0 }
    !skip' "$DOCS" >"$new"
  cat "$new" >"$DOCS"
}

clean_up() {
  stop_engine
  rm -rf -- "$WORK"
}

[ -x "$PROGRAM" ] || unable "$PROGRAM is missing: make build"
asked=("${@:-all}")
names=()
while read -r name postgres redis engine tools quick; do
  case $name in '' | '#'*) continue ;; esac
  case " ${asked[*]} " in
    ' all ' | *" $name "*) ;;
    ' quick ') [ "$quick" = quick ] || continue ;;
    *) continue ;;
  esac
  names+=("$name $postgres $redis $engine $tools")
done <"$MATRIX_DIR/cells"
[ ${#names[@]} -gt 0 ] || unable "there is no such cell: ${asked[*]}"

servers=()
for row in "${names[@]}"; do
  read -r _ postgres redis _ <<<"$row"
  for version in ${postgres//>/ }; do servers+=("postgres:$version"); done
  for version in ${redis//>/ }; do
    case $version in valkey-*) servers+=("valkey:${version#*-}") ;; *) servers+=("redis:$version") ;; esac
  done
done
mapfile -t servers < <(printf '%s\n' "${servers[@]}" | sort -u)
(make_all "${servers[@]}")

exec 9>"$CACHE_TOP/run.lock"
flock 9
WORK=$(mktemp -d "${TMPDIR:-/tmp}/n8nbt-matrix.XXXXXX")
SHIMS=$WORK/bin
ENGINE_PID=
FAILED=()
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

running=
while read -r name postgres redis engine tools; do
  if [ "$engine" != "$running" ]; then
    stop_engine
    running=$engine
    start_engine "$engine" 9>&- || running=
  fi
  if [ -z "$running" ]; then
    FAILED+=("$name")
    printf '| %s | %s | %s | %s | %s | not run: the engine did not start | %s |\n' "$name" "$postgres" "$redis" "$engine" "$tools" "$(date +%F)" >>"$WORK/table"
    continue
  fi
  run_cell "$name" "$postgres" "$redis" "$engine" "$tools" 9>&-
done < <(printf '%s\n' "${names[@]}")

[ "${asked[*]}" != all ] || write_table
cat "$WORK/table"
if [ ${#FAILED[@]} -gt 0 ]; then
  say "failed: ${FAILED[*]}"
  exit 1
fi
say "all ${#names[@]} cells passed"
