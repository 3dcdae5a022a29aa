#!/usr/bin/env bash
# What somebody does who has the archive of a release and a docker client, and neither Rust nor make: README's installation,
# in a bare Debian container, on the engine that `docker` leads to (with.sh), up to a backup that was drilled.
set -euo pipefail
ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd)
STACK=$ROOT/tests/stack/stack.sh
DIST=$ROOT/target/dist
BARE=n8n-backup-test/bare:1
prefix=n8nbt-user-$$

trap 'docker rm -fv "$prefix" >/dev/null 2>&1; "$STACK" down "$prefix"' EXIT
"$STACK" up "$prefix" --seed
docker run --rm -i --network none -v "${prefix}_n8n_data:/volume" n8n-backup-test/busybox:1 sh -s -- "$("$STACK" key)" \
  <"$ROOT/tests/stack/volume-seed.sh"
# The engine's socket and client are those of its own tree.
docker run -d --name "$prefix" --network none -v /run/matrix.sock:/var/run/docker.sock -v /usr/bin/docker:/usr/bin/docker:ro \
  "$BARE" sleep 3600 >/dev/null
docker exec "$prefix" mkdir -p /root/n8n
tar -C "$DIST" -c . | docker cp - "$prefix:/root"
printf '%s\n' POSTGRES_USER=n8n REDIS_PORT=6386 "BACKUP_POSTGRES_CONTAINER=$prefix-postgres" "BACKUP_REDIS_CONTAINER=$prefix-redis" \
  "BACKUP_N8N_CONTAINERS='$prefix-n8n-main $prefix-n8n-worker'" "BACKUP_N8N_VOLUME=${prefix}_n8n_data" |
  docker exec -i "$prefix" sh -c 'cat >/root/n8n/.env && chmod 600 /root/n8n/.env'

# The commands are README's; a version stands in the names of the files.
[ "$(grep -c 'n8n-backup-VERSION-linux-amd64' "$ROOT/README.md")" -ge 2 ]
docker exec -i "$prefix" env HOME=/root bash -ex <<'COMMANDS'
cd ~
! command -v cargo make gcc
sha256sum -c --ignore-missing SHA256SUMS
tar -xzf n8n-backup-*-linux-*.tar.gz
n8n-backup-*-linux-*/install.sh ~/n8n
~/n8n/bin/n8n-backup setup
~/n8n/bin/n8n-backup doctor
~/n8n/scripts/backup-all.sh
~/n8n/scripts/test-recovery.sh --full | tee drill
grep -q 'Decrypted 20 of 20 credentials with the backed-up key' drill
grep -q 'Recovery test passed: full' drill
~/n8n/bin/n8n-backup status
COMMANDS
echo 'passed: from the archive to a drilled backup, without a compiler'
