#!/bin/sh
# Installs n8n-backup into an n8n project directory, or a newer version over an older one:
#   ./install.sh /path/to/n8n
# The directory is the one of docker-compose.yml and .env. /path/to/n8n/bin/n8n-backup
# uninstall /path/to/n8n undoes it.
set -eu
if [ $# -ne 1 ] || [ "$1" = --help ]; then
  printf 'Usage: %s /path/to/n8n (the directory of docker-compose.yml and .env)\n' "$0" >&2
  exit 1
fi
exec "$(dirname -- "$0")/n8n-backup" install -- "$1"
