#!/bin/sh
# Runs inside the PostgreSQL image while it is made: makes two clusters, one
# with the database n8n_seed. Takes KEY, n8n's encryption key, from the
# environment.
set -eu

share=/usr/local/share/n8n-backup
export PGDATA=$share/cluster PGUSER=n8n PGHOST=/tmp

if [ "$(id -u)" = 0 ]; then
  mkdir -p "$PGDATA" /var/lib/postgresql/data /run/postgresql
  chown -R postgres:postgres "$share" /var/lib/postgresql /run/postgresql
  if command -v su-exec >/dev/null 2>&1; then
    exec su-exec postgres sh "$0"
  elif command -v gosu >/dev/null 2>&1; then
    exec gosu postgres sh "$0"
  fi
  exec setpriv --reuid=postgres --regid=postgres --clear-groups sh "$0"
fi

initdb -U n8n --encoding=UTF8 --locale=C.UTF-8 --no-sync --auth=trust >/dev/null
sed -i "s/^#*listen_addresses *=.*/listen_addresses = '*'/" "$PGDATA/postgresql.conf"
start() {
  pg_ctl -w -s -l /tmp/server.log -o "-c fsync=off -c full_page_writes=off -c wal_level=logical -c max_wal_senders=0 \
    -c wal_recycle=off -c autovacuum=off -c listen_addresses= -c unix_socket_directories=/tmp -c log_min_messages=warning" start
}
start

createdb n8n_raw
for file in seed-n8n.sql seed.sql; do
  psql -d n8n_raw -X -q -v ON_ERROR_STOP=1 -v "key=$KEY" -f "$share/$file"
done

# Once through a dump: an expression that the parser words anew on reload has
# its final form then, so that definitions can be compared before and after.
createdb n8n_seed
pg_dump -d n8n_raw >/tmp/seed.dump
psql -d n8n_seed -X -q -v ON_ERROR_STOP=1 -f /tmp/seed.dump >/dev/null
dropdb n8n_raw
# One file each: an engine whose layers are slow (fuse-overlayfs) takes long for the 1300 of a cluster.
keep() {
  psql -d postgres -X -q -c 'VACUUM FREEZE' -c CHECKPOINT -c 'SELECT pg_switch_wal()' -c CHECKPOINT >/dev/null
  pg_ctl -w -s -m fast stop
  tar -C "$PGDATA" -cf "$share/$1.tar" .
}
keep seeded
start
dropdb n8n_seed
keep plain
rm -rf /tmp/seed.dump /tmp/server.log "$PGDATA"
