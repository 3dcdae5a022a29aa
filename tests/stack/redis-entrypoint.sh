#!/bin/sh
# Entry point of the Redis test image: takes what the official image takes.
set -eu

case ${1-} in
  -* | *.conf) set -- redis-server "$@" ;;
esac

if [ "${1-}" = redis-server ] && [ "$(id -u)" = 0 ]; then
  chown -R 999:999 .
  if command -v su-exec >/dev/null 2>&1; then
    exec su-exec 999:999 "$@"
  elif command -v gosu >/dev/null 2>&1; then
    exec gosu 999:999 "$@"
  fi
  exec setpriv --reuid=999 --regid=999 --clear-groups "$@"
fi
exec "$@"
