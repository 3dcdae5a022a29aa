# shellcheck shell=bash
# A scratch stack and an n8n project directory for it; sourced after lib.sh. Both are removed
# when the script ends, however it ends.

# Settings of the caller's stack must not reach this one.
unset N8N_DIR FILE YES DRY_RUN POSTGRES_USER POSTGRES_DB POSTGRES_PASSWORD REDIS_PORT REDIS_PASSWORD "${!BACKUP_@}"

stack=${root:?}/tests/stack/stack.sh
prefix=
work=

# scratch NAME [OPTION...]: starts the stack (options of stack.sh up) and installs into
# a new directory. Sets `prefix`, `work` (a temporary directory) and `dir` (the n8n
# directory in it, with a space in its name).
scratch() {
  local name=$1
  shift
  "$root/scripts/make/engine.sh"
  prefix=n8nbt-$name-$$-$RANDOM$RANDOM
  trap remove_scratch EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
  work=$(mktemp -d "${TMPDIR:-/tmp}/n8n-backup-$name.XXXXXX")
  dir="$work/my n8n"
  mkdir -p "$dir"
  # Left behind by a run that was killed hours ago.
  "$stack" sweep
  "$stack" up "$prefix" "$@"
  cat >"$dir/.env" <<END
# Settings of a scratch stack
POSTGRES_USER=n8n
POSTGRES_DB=n8n
POSTGRES_PASSWORD='not a secret'
REDIS_PORT=6386
BACKUP_POSTGRES_CONTAINER=$prefix-postgres
BACKUP_REDIS_CONTAINER=$prefix-redis
BACKUP_N8N_CONTAINERS="$prefix-n8n-main $prefix-n8n-worker"
BACKUP_N8N_VOLUME=${prefix}_n8n_data
BACKUP_LOCK_FILE=$work/lock
END
  N8N_DIR=$dir "$root/scripts/make/install.sh"
}

remove_scratch() {
  trap '' INT TERM HUP
  local helpers
  # The helper container of an interrupted backup would hold the volume.
  helpers=$(docker ps -aq --filter "volume=${prefix}_n8n_data" 2>/dev/null) || true
  # shellcheck disable=SC2086 # a list of ids
  [[ -z $helpers ]] || docker rm -fv $helpers >/dev/null 2>&1 || true
  "$stack" down "$prefix" || true
  [[ -z $work ]] || rm -rf -- "$work"
}
