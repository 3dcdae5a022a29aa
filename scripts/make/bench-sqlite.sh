# shellcheck shell=bash
# The rows of SQLite in the bench: a real n8n whose database is as large as the dump; sourced by bench.sh.

# What runs in n8n's container, by Node.js: fills the database, copies it by SQLite's backup interface, as the program sqlite3 does by
# .backup, and calls n8n's webhook ten times a second.
sqlite_fill='const { DatabaseSync } = require("node:sqlite"), fs = require("fs");
const db = new DatabaseSync("/home/node/.n8n/database.sqlite");
db.exec("CREATE TABLE IF NOT EXISTS bench (id integer PRIMARY KEY, data text); BEGIN");
const words = Array.from({ length: 4000 }, () => Math.random().toString(36).slice(2, 3 + Math.random() * 9));
const item = () => JSON.stringify({ id: Math.floor(Math.random() * 1e9), name: Array.from({ length: 60 }, () => words[Math.floor(Math.random() * 4000)]).join(" ") });
const add = db.prepare("INSERT INTO bench (data) VALUES (?)");
for (let bytes = 0; bytes < Number(process.argv[1]) * 1e6; ) { const text = Array.from({ length: 8 }, item).join(","); add.run(text); bytes += text.length; }
db.exec("COMMIT"); db.close();'
sqlite_copy='const { DatabaseSync, backup } = require("node:sqlite");
backup(new DatabaseSync("/home/node/.n8n/database.sqlite", { readOnly: true }), "/tmp/copy", { rate: -1 });'
sqlite_calls='let n = 0, bad = 0, slowest = 0; const fs = require("fs");
const tick = setInterval(() => {
  if (fs.existsSync("/tmp/stop")) { clearInterval(tick); setTimeout(() => { console.log(n, bad, slowest); process.exit(0); }, 5000); return; }
  n++; const begun = Date.now(), done = (good) => { slowest = Math.max(slowest, Date.now() - begun); if (!good) bad++; };
  fetch("http://127.0.0.1:5678/webhook/bench").then((r) => done(r.status === 200), () => done(false)); }, 100);'
sqlite_workflow='[{"id":"benchHook0000001","name":"Bench","active":true,"settings":{},"connections":{},"nodes":[{"id":"a","name":"Webhook",
"type":"n8n-nodes-base.webhook","typeVersion":2,"position":[0,0],"webhookId":"bench","parameters":{"path":"bench","responseMode":"onReceived","options":{}}}]}]'

in_sqlite() {
  docker exec "${prefix:?}-sqlite" "$@"
}

# sqlite_start MB: n8n with a database of that size, which answers.
sqlite_start() {
  local image labels=(--label "n8n-backup.test=$prefix" --label "n8n-backup.test.created=$(date +%s)")
  image=$("${root:?}/tests/stack/n8n-image.sh")
  docker volume create "${labels[@]}" "${prefix}_sqlite" >/dev/null
  docker run --rm "${labels[@]}" --network none -v "${prefix}_sqlite:/home/node/.n8n" --entrypoint sh "$image" -ec '
    printf %s "$1" >/tmp/w
    n8n import:workflow --input=/tmp/w
    n8n update:workflow --id=benchHook0000001 --active=true
    node -e "$2" "$3"' sh "$sqlite_workflow" "$sqlite_fill" "$1" >"${work:?}/output" 2>&1 || die "$(tail -n 5 "$work/output")"
  docker run -d --name "$prefix-sqlite" "${labels[@]}" --network none -v "${prefix}_sqlite:/home/node/.n8n" \
    -e N8N_DIAGNOSTICS_ENABLED=false -e N8N_VERSION_NOTIFICATIONS_ENABLED=false "$image" >/dev/null
  until in_sqlite node -e 'fetch("http://127.0.0.1:5678/webhook/bench").then((r) => process.exit(r.status === 200 ? 0 : 1), () => process.exit(1))'; do
    sleep 1
  done
}

# sqlite_ours COMPRESSOR
sqlite_ours() {
  rm -rf "$work/sqlite/backups/sqlite"/*.gz "$work/sqlite/backups/sets"
  BACKUP_COMPRESSOR=$1 "${dir:?}/bin/n8n-backup" --project-dir "$work/sqlite" backup-sqlite
}

# sqlite_theirs COMPRESSOR: SQLite's own copy, then the compressor on it.
sqlite_theirs() {
  in_sqlite rm -f /tmp/copy
  in_sqlite node -e "$sqlite_copy"
  in_sqlite cat /tmp/copy | "$1" -c >"$work/copy.gz"
  in_sqlite rm -f /tmp/copy
}

# measure_sqlite MB: times both by turns; then n8n's answers during a backup.
measure_sqlite() {
  local round packer=gzip
  note "loading $1 MB into SQLite"
  sqlite_start "$1"
  mkdir -p "$work/sqlite/backups" "$work/sqlite/logs"
  printf 'BACKUP_N8N_CONTAINERS=%s-sqlite\nBACKUP_LOCK_FILE=%s/sqlite-lock\n' "$prefix" "$work" >"$work/sqlite/.env"
  ! command -v igzip >/dev/null || packer=igzip
  for ((round = 0; round < ${rounds:?}; round++)); do
    measure 'sqlite ours' sqlite_ours "$packer"
    measure 'sqlite theirs' sqlite_theirs "$packer"
  done
  sqlite_bytes=$(in_sqlite stat -c %s /home/node/.n8n/database.sqlite)
  in_sqlite node -e "$sqlite_calls" >"$work/calls" &
  local calls=$!
  sleep 2
  # As cron has it: in a session of its own, without a terminal.
  export -f sqlite_ours
  work=$work dir=$dir setsid -w bash -c 'sqlite_ours auto' >"$work/output"
  in_sqlite touch /tmp/stop
  wait "$calls"
  read -r sqlite_made sqlite_failed sqlite_slowest <"$work/calls"
  sqlite_packer=$packer
  docker rm -fv "$prefix-sqlite" >/dev/null
  docker volume rm "${prefix}_sqlite" >/dev/null
}

report_sqlite() {
  printf '\nSQLite: a database of %s MB of a real n8n.\n\n| work | seconds | of all cores | times as fast |\n|---|---|---|---|\n' "$(in_mb "$sqlite_bytes")"
  printf '| the backup interface of SQLite (as sqlite3 has it by .backup), then %s | %s | %s | 1.00 |\n' "$sqlite_packer" "$(seconds 'sqlite theirs')" "$(cores_of 'sqlite theirs')"
  printf '| backup-sqlite, ours, %s | %s | %s | %s |\n' "$sqlite_packer" "$(seconds 'sqlite ours')" "$(cores_of 'sqlite ours')" "$(ratio "$(seconds 'sqlite theirs')" "$(seconds 'sqlite ours')")"
  printf '\nMeanwhile n8n was called %s times, ten times a second: %s failed, and the slowest answer took %s ms.\n' "$sqlite_made" "$sqlite_failed" "$sqlite_slowest"
}
