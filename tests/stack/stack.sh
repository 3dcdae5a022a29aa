#!/usr/bin/env bash
# A real PostgreSQL, Redis and n8n volume in containers, for tests, the demo and
# the benchmark. See README.md beside this file.
set -euo pipefail

STACK_DIR=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
# n8n's encryption key: written to the volume, and what the credentials of the
# seed are encrypted with.
KEY=tEst+K3y/n8n-backup-0123456789ab
LABEL='n8n-backup.test'
CREATED_LABEL='n8n-backup.test.created'
READY_SECONDS=30
SWEEP_SECONDS=7200
REDIS_INNER_PORT=6386

say() {
  printf 'stack: %s\n' "$*" >&2
}

die() {
  say "$@"
  exit 1
}

# What a test needs cannot be had on this machine.
unable() {
  say "$@"
  exit 2
}

# shellcheck source-path=SCRIPTDIR source=images.sh
. "$STACK_DIR/images.sh"

usage() {
  cat >&2 <<'TEXT'
usage: stack.sh images
       stack.sh key
       stack.sh up PREFIX [--no-postgres] [--no-redis] [--no-n8n] [--seed] [--network]
                          [--pg-memory] [--redis-arg ARG]... [--pg-arg ARG]...
       stack.sh seed-volume PREFIX
       stack.sh seed-redis PREFIX
       stack.sh fingerprint-postgres PREFIX [DB]
       stack.sh fingerprint-redis PREFIX
       stack.sh fingerprint-volume PREFIX|VOLUME
       stack.sh big PREFIX MB [text|ids]
       stack.sh down PREFIX
       stack.sh sweep
TEXT
  exit 1
}

check_prefix() {
  [[ ${1:-} =~ ^[A-Za-z0-9][A-Za-z0-9_.-]*$ ]] || die "not a usable prefix: '${1:-}'"
}

make_volume() {
  docker volume create --label "$LABEL=$1" --label "$CREATED_LABEL=$(date +%s)" "$2" >/dev/null
}

up() {
  check_prefix "${1:-}"
  local prefix=$1 postgres=1 redis=1 n8n=1 seed=0 network=none memory=0
  local redis_args=() pg_args=()
  shift
  while [ $# -gt 0 ]; do
    case $1 in
      --no-postgres) postgres=0 ;;
      --no-redis) redis=0 ;;
      --no-n8n) n8n=0 ;;
      --seed) seed=1 ;;
      --network) network=$prefix-net ;;
      --pg-memory) memory=1 ;;
      --redis-arg | --pg-arg)
        [ $# -ge 2 ] || usage
        if [ "$1" = --pg-arg ]; then pg_args+=("$2"); else redis_args+=("$2"); fi
        shift
        ;;
      *) usage ;;
    esac
    shift
  done
  make_images
  [ "$network" = none ] ||
    docker network create --internal --label "$LABEL=$prefix" --label "$CREATED_LABEL=$(date +%s)" "$network" >/dev/null

  local jobs=() job failed=0
  if [ $postgres = 1 ]; then
    up_postgres "$prefix" "$network" "$seed" "$memory" ${pg_args[@]+"${pg_args[@]}"} &
    jobs+=($!)
  fi
  if [ $redis = 1 ]; then
    up_redis "$prefix" "$network" ${redis_args[@]+"${redis_args[@]}"} &
    jobs+=($!)
  fi
  if [ $n8n = 1 ]; then
    up_n8n "$prefix" "$network" &
    jobs+=($!)
  fi
  for job in ${jobs[@]+"${jobs[@]}"}; do
    wait "$job" || failed=1
  done
  [ $failed = 0 ] || die "stack $prefix is not up"
}

# Starts a container of stack $1 named $1-$2 in network $3; the rest goes to
# docker run.
run_container() {
  local prefix=$1 name=$2 network=$3
  shift 3
  [ "$network" = none ] || set -- --network-alias "$name" "$@"
  docker run -d --name "$prefix-$name" --label "$LABEL=$prefix" --label "$CREATED_LABEL=$(date +%s)" \
    --network "$network" --stop-timeout 5 "$@" >/dev/null
}

up_postgres() {
  local prefix=$1 network=$2 seed=$3 memory=$4 data=(-v "$1_postgres_data:/var/lib/postgresql/data")
  shift 4
  if [ "$memory" = 1 ]; then
    # A file system that many files were deleted from lately is slow to make new ones.
    data=(--tmpfs /var/lib/postgresql/data)
  else
    make_volume "$prefix" "${prefix}_postgres_data"
  fi
  POSTGRES_USER=$(postgres_user) POSTGRES_DB=$(postgres_db) SEED=$seed \
    run_container "$prefix" postgres "$network" --stop-signal SIGINT --shm-size 256m -e POSTGRES_USER -e POSTGRES_DB -e POSTGRES_PASSWORD -e SEED \
    "${data[@]}" "$(image_name postgres)" "$@"
  await "$prefix-postgres" says "$prefix-postgres" 'ready to accept connections'
  await "$prefix-postgres" postgres_answers "$prefix"
}

postgres_user() {
  printf '%s' "${POSTGRES_USER:-n8n}"
}

postgres_db() {
  printf '%s' "${POSTGRES_DB:-n8n}"
}

# Runs a client program in the PostgreSQL container of stack $1 with database
# $2. The names go by environment: as an argument, a name with '=' would be
# taken for a connection string.
pg_client() {
  local prefix=$1 db=$2
  shift 2
  PGUSER=$(postgres_user) PGDATABASE=$db docker exec -i -e PGUSER -e PGDATABASE "$prefix-postgres" "$@"
}

postgres_answers() {
  [ "$(pg_client "$1" "$(postgres_db)" sh -c "pg_isready -q && psql -XAtqc 'SELECT 1'" 2>/dev/null </dev/null)" = 1 ]
}

up_redis() {
  local prefix=$1 network=$2
  shift 2
  [ -z "${REDIS_PASSWORD:-}" ] || set -- --requirepass "$REDIS_PASSWORD" "$@"
  make_volume "$prefix" "${prefix}_redis_data"
  run_container "$prefix" redis "$network" -v "${prefix}_redis_data:/data" "$(image_name redis)" \
    redis-server --port "$REDIS_INNER_PORT" "$@"
  await "$prefix-redis" redis_answers "$prefix"
}

# Whether container $1 has said $2: a cheaper question than one that a program in
# it answers.
says() {
  # grep -q would leave before the client has written all.
  docker logs --tail 20 "$1" 2>&1 | grep "$2" >/dev/null
}

redis_client() {
  local prefix=$1
  shift
  REDISCLI_AUTH=${REDIS_PASSWORD:-} docker exec -i ${REDIS_PASSWORD:+-e REDISCLI_AUTH} "$prefix-redis" \
    redis-cli -p "$REDIS_INNER_PORT" "$@"
}

redis_answers() {
  [ "$(redis_client "$1" ping 2>/dev/null </dev/null)" = PONG ]
}

up_n8n() {
  local prefix=$1 network=$2 name jobs=() job
  make_volume "$prefix" "${prefix}_n8n_data"
  for name in n8n-main n8n-worker; do
    run_container "$prefix" "$name" "$network" -v "${prefix}_n8n_data:/home/node/.n8n" "$(image_name busybox)" \
      sh -c 'trap "exit 0" TERM INT; sleep 1000000 & wait' &
    jobs+=($!)
  done
  for job in "${jobs[@]}"; do
    wait "$job"
  done
}

# Waits until the command $2... succeeds, while container $1 runs.
await() {
  local container=$1 end=$((SECONDS + READY_SECONDS)) asked=0
  shift
  until "$@"; do
    asked=$((asked + 1))
    if [ $((asked % 5)) = 0 ] && [ "$(docker inspect --format '{{.State.Running}}' "$container" 2>/dev/null)" != true ]; then
      docker logs --tail 40 "$container" >&2 || true
      die "$container ended"
    fi
    if [ $SECONDS -ge $end ]; then
      docker logs --tail 40 "$container" >&2 || true
      die "$container gave no answer in $READY_SECONDS seconds"
    fi
    sleep 0.1
  done
}

# Runs the shell script $2 with the arguments $3... in a helper container, with
# volume $1 at /volume.
in_volume() {
  local volume=$1 script=$2 prefix
  shift 2
  prefix=${volume%_*_data}
  docker run --rm -i --name "n8nbt-helper-$$-$RANDOM" --label "$LABEL=$prefix" --label "$CREATED_LABEL=$(date +%s)" \
    --network none -v "$volume:/volume" "$(image_name busybox)" sh -s -- "$@" <"$STACK_DIR/$script"
}

seed_volume() {
  check_prefix "${1:-}"
  make_images
  make_volume "$1" "${1}_n8n_data"
  in_volume "${1}_n8n_data" volume-seed.sh "$KEY"
}

# Runs the shell script $2 with the arguments $3... in the Redis container of stack $1, where
# the function cli is redis-cli: one exec, since each costs more than what it does.
in_redis() {
  local prefix=$1 script=$2
  shift 2
  REDISCLI_AUTH=${REDIS_PASSWORD:-} docker exec ${REDIS_PASSWORD:+-e REDISCLI_AUTH} "$prefix-redis" \
    sh -euc "cli() { redis-cli -p $REDIS_INNER_PORT -e \"\$@\"; }; $script" sh "$@" </dev/null
}

seed_redis() {
  check_prefix "${1:-}"
  # shellcheck disable=SC2016 # for the shell in the container
  in_redis "$1" 'for db in 0 1; do cli -n $db EVAL "$1" 0 $db; done; cli FUNCTION LOAD REPLACE "$2"' \
    "$(<"$STACK_DIR/redis-seed.lua")" "$(<"$STACK_DIR/redis-function.lua")" >/dev/null
}

fingerprint_postgres() {
  check_prefix "${1:-}"
  local db=${2-}
  [ $# -ge 2 ] || db=$(postgres_db)
  pg_client "$1" "$db" psql -X -q -f - <"$STACK_DIR/fingerprint.sql"
  # Newer versions put a random word into each dump.
  pg_client "$1" "$db" pg_dump --schema-only </dev/null | sed -e '/^\\\(un\)\{0,1\}restrict [A-Za-z0-9]\{32,\}$/d' -e 's/^/definition|/'
}

fingerprint_redis() {
  check_prefix "${1:-}"
  # A variable first: a pipe would hide that redis-cli failed.
  # shellcheck disable=SC2016 # for the shell in the container
  in_redis "$1" 'info=$(cli INFO keyspace)
    for db in $(echo "$info" | sed -n "s/^db\([0-9]*\):.*/\1/p" | sort -n); do cli -n "$db" EVAL "$1" 0 "$db"; done
    functions=$(cli FUNCTION LIST WITHCODE)
    printf "%s\n" "$functions" | sed "s/^/function|/"' "$(<"$STACK_DIR/redis-fingerprint.lua")"
}

fingerprint_volume() {
  check_prefix "${1:-}"
  local volume=$1
  make_images
  docker volume inspect "$volume" >/dev/null 2>&1 || volume=${1}_n8n_data
  docker volume inspect "$volume" >/dev/null 2>&1 || die "no volume $1 or $volume"
  in_volume "$volume" volume-fingerprint.sh
}

big() {
  check_prefix "${1:-}"
  [[ ${2:-} =~ ^[1-9][0-9]*$ && ${3:-text} =~ ^(text|ids)$ ]] || usage
  make_images
  local prefix=$1 mb=$2 kind=${3:-text} half jobs=() job failed=0
  pg_client "$prefix" "$(postgres_db)" psql -X -q -v ON_ERROR_STOP=1 -v part=-1 -v "mb=$mb" -v "kind=$kind" -f - <"$STACK_DIR/big.sql"
  for half in 0 1; do
    pg_client "$prefix" "$(postgres_db)" psql -X -q -v ON_ERROR_STOP=1 -v part=$half -v "mb=$mb" -v "kind=$kind" -f - <"$STACK_DIR/big.sql" &
    jobs+=($!)
  done
  for job in "${jobs[@]}"; do
    wait "$job" || failed=1
  done
  [ $failed = 0 ] || die "the executions cannot be loaded"
  # A measurement that follows is not to share the machine with what is still
  # to be written.
  pg_client "$prefix" "$(postgres_db)" psql -X -q -v ON_ERROR_STOP=1 -c 'SET client_min_messages = warning' \
    -c 'DROP SCHEMA n8n_backup_big CASCADE' -c 'VACUUM ANALYZE execution_entity, execution_data' -c CHECKPOINT </dev/null

  # Two pools of 16 MB, cut into files at ever other places: what repeats does
  # so far outside a compressor's window.
  local pool volume=${prefix}_n8n_data
  make_volume "$prefix" "$volume"
  for pool in noise text; do
    docker exec "$prefix-postgres" cat "/tmp/n8n-backup-$pool" |
      docker run --rm -i --name "n8nbt-helper-$$-$RANDOM" --label "$LABEL=$prefix" --label "$CREATED_LABEL=$(date +%s)" \
        --network none -v "$volume:/volume" "$(image_name busybox)" sh -c "cat >/volume/.$pool"
    docker exec "$prefix-postgres" rm -f "/tmp/n8n-backup-$pool"
  done
  in_volume "$volume" big-volume.sh "$((mb * 770))"
}

down() {
  check_prefix "${1:-}"
  local prefix=$1 id status mounts volume ids=() paused=()
  local volumes=("${prefix}_n8n_data")
  found() {
    while IFS=$'\t' read -r id status mounts; do
      [ -z "$id" ] || ids+=("$id")
      [[ $status != *[Pp]aused* ]] || paused+=("$id")
      # Without a name, a volume is known by its container alone.
      while read -r volume; do
        [[ ! $volume =~ ^[0-9a-f]{64}$ ]] || volumes+=("$volume")
      done <<<"${mounts//,/$'\n'}"
    done < <(docker ps -a --no-trunc --format '{{.ID}}\t{{.Status}}\t{{.Mounts}}' "$@")
  }
  found --filter "label=$LABEL=$prefix"
  found --filter "name=^/$prefix-postgres\$" --filter "name=^/$prefix-redis\$" \
    --filter "name=^/$prefix-n8n-main\$" --filter "name=^/$prefix-n8n-worker\$"
  # What holds a volume as well is the helper container of a run that was killed.
  # shellcheck disable=SC2046 # a list of words
  found $(printf -- '--filter volume=%s ' "${volumes[@]}")
  # An engine with frozen cgroups cannot kill what is paused, and waits for ever.
  remove 'docker unpause' ${paused[@]+"${paused[@]}"}
  remove 'docker rm -fv' ${ids[@]+"${ids[@]}"}
  # shellcheck disable=SC2046 # a list of words
  remove 'docker network rm' $(docker network ls -q --filter "label=$LABEL=$prefix")
  # shellcheck disable=SC2046 # a list of words
  remove 'docker volume rm -f' $(docker volume ls -q --filter "label=$LABEL=$prefix") \
    "${prefix}_n8n_data" "${prefix}_postgres_data" "${prefix}_redis_data"
}

# Runs $1 with the other arguments if there are any. Another run that removes
# the same at the same time is no failure.
remove() {
  local command=$1
  shift
  [ $# -gt 0 ] || return 0
  # shellcheck disable=SC2086 # a list of words
  $command "$@" >/dev/null 2>&1 || true
}

# Removes what a killed run left behind: everything with the label that is
# older than SWEEP_SECONDS.
sweep() {
  local kind list name id created prefix now rows
  now=$(date +%s)
  for kind in container network volume; do
    case $kind in
      container) list='docker ps -a' name=.ID ;;
      network) list='docker network ls' name=.ID ;;
      volume) list='docker volume ls' name=.Name ;;
    esac
    # Lists only: inspect waits for as long as something holds the container, a pause say.
    rows=$($list --filter "label=$LABEL" --format "{{$name}} {{.Label \"$CREATED_LABEL\"}} {{.Label \"$LABEL\"}}")
    while read -r id created prefix; do
      [[ $created =~ ^[0-9]+$ ]] || continue
      [ $((now - created)) -gt $SWEEP_SECONDS ] || continue
      say "removing the $kind $id of $prefix, $(((now - created) / 60)) minutes old"
      case $kind in
        container) remove 'docker rm -fv' "$id" ;;
        network) remove 'docker network rm' "$id" ;;
        volume) remove 'docker volume rm -f' "$id" ;;
      esac
    done <<<"$rows"
  done
  # Images that a newer recipe has replaced.
  docker image prune -f --filter "label=$RECIPE_LABEL" >/dev/null
}

command=${1:-}
[ $# -eq 0 ] || shift
case $command in
  images) make_images ;;
  key) printf '%s\n' "$KEY" ;;
  up) up "$@" ;;
  seed-volume) seed_volume "$@" ;;
  seed-redis) seed_redis "$@" ;;
  fingerprint-postgres) fingerprint_postgres "$@" ;;
  fingerprint-redis) fingerprint_redis "$@" ;;
  fingerprint-volume) fingerprint_volume "$@" ;;
  big) big "$@" ;;
  down) down "$@" ;;
  sweep) sweep ;;
  *) usage ;;
esac
