#!/bin/sh
# Entry point of the PostgreSQL test image: takes what the official image takes,
# but starts from a cluster that the image carries. SEED=1 fills the database.
set -eu

case ${1-} in
  '' | -*) set -- postgres "$@" ;;
esac

if [ "$1" != postgres ]; then
  exec "$@"
fi

if [ "$(id -u)" = 0 ]; then
  mkdir -p "$PGDATA" /run/postgresql
  chown postgres:postgres "$PGDATA" /run/postgresql
  chmod 700 "$PGDATA"
  chmod 3775 /run/postgresql
  if command -v su-exec >/dev/null 2>&1; then
    exec su-exec postgres "$0" "$@"
  elif command -v gosu >/dev/null 2>&1; then
    exec gosu postgres "$0" "$@"
  fi
  exec setpriv --reuid=postgres --regid=postgres --clear-groups "$0" "$@"
fi

identifier() {
  printf '"%s"' "$(printf '%s' "$1" | sed 's/"/""/g')"
}

literal() {
  printf "'%s'" "$(printf '%s' "$1" | sed "s/'/''/g")"
}

if [ ! -s "$PGDATA/PG_VERSION" ]; then
  user=${POSTGRES_USER:-n8n}
  db=${POSTGRES_DB:-$user}
  # The seed is renamed, not copied: each file that is made costs more than what is in it.
  cluster=plain
  [ "${SEED-}" != 1 ] || [ "$db" = postgres ] || cluster=seeded
  tar -C "$PGDATA" -xf "/usr/local/share/n8n-backup/$cluster.tar"
  name=$(identifier "$db")
  # Statements end with an empty line, so that a name may hold a newline.
  {
    # The role in session cannot be renamed by ALTER ROLE.
    printf 'UPDATE pg_catalog.pg_authid SET rolname = %s WHERE oid = 10;\n\n' "$(literal "$user")"
    if [ -n "${POSTGRES_PASSWORD-}" ]; then
      printf 'ALTER ROLE %s PASSWORD %s;\n\n' "$(identifier "$user")" "$(literal "$POSTGRES_PASSWORD")"
    fi
    if [ "$db" != postgres ]; then
      if [ "$cluster" = seeded ]; then
        printf 'ALTER DATABASE n8n_seed RENAME TO %s;\n\n' "$name"
        printf "COMMENT ON DATABASE %s IS 'n8n test data';\n\n" "$name"
        printf "ALTER DATABASE %s SET lock_timeout = '10min';\n\n" "$name"
        printf "ALTER ROLE n8n_reader IN DATABASE %s SET statement_timeout = '1h';\n\n" "$name"
        printf 'GRANT CONNECT, TEMPORARY ON DATABASE %s TO n8n_reader;\n\n' "$name"
      else
        printf 'CREATE DATABASE %s;\n\n' "$name"
      fi
    fi
  } | postgres --single -j -D "$PGDATA" -c fsync=off -c log_checkpoints=off -c log_min_messages=warning postgres >/dev/null
  {
    printf 'local all all trust\nhost all all 127.0.0.1/32 trust\nhost all all ::1/128 trust\n'
    if [ -n "${POSTGRES_PASSWORD-}" ]; then
      printf 'host all all all scram-sha-256\n'
    else
      printf 'host all all all trust\n'
    fi
  } >"$PGDATA/pg_hba.conf"
fi

exec "$@"
