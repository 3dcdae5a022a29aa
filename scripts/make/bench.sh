#!/usr/bin/env bash
# Measures backups and restores of a scratch stack, alternating between n8n-backup and the
# shell pipelines that it replaces; prints Markdown. Settings:
#   BENCH_MB      megabytes of the plain dump (1000); the volume gets three quarters of it
#   BENCH_DATA    contents of the executions: text (names, orders) or ids (identifiers and
#                 hexadecimal digits); binary: text, and half as much of files in the database,
#                 as n8n keeps them in queue mode, which a dump writes in hexadecimal
#   BENCH_ROUNDS  rounds (3); the report shows medians
#   BENCH_GROWTH  1: also measure growth from 100 MB to 4 GB
#   BENCH_SQLITE  1: also a database in SQLite of a real n8n, as large as the dump
#   BENCH_WRITE   1: also write the result and a plot to docs/performance.md
set -euo pipefail
. "${BASH_SOURCE[0]%/*}/lib.sh"
mb=${BENCH_MB:-1000}
rounds=${BENCH_ROUNDS:-3}
data=${BENCH_DATA:-text}
[[ $mb =~ ^[1-9][0-9]{1,4}$ ]] || die "BENCH_MB must be a number from 10 to 99999, not '$mb'"
[[ $rounds =~ ^[1-9][0-9]?$ ]] || die "BENCH_ROUNDS must be a number from 1 to 99, not '$rounds'"
[[ $data =~ ^(text|ids|binary)$ ]] || die "BENCH_DATA must be text, ids or binary, not '$data'"
growth=${BENCH_GROWTH:-} write=${BENCH_WRITE:-} sqlite=${BENCH_SQLITE:-}
. "${BASH_SOURCE[0]%/*}/scratch.sh"
. "${BASH_SOURCE[0]%/*}/bench-sqlite.sh"

note() {
  printf 'bench: %s\n' "$*" >&2
}

# now: microseconds.
now() {
  printf '%s' "${EPOCHREALTIME/[.,]/}"
}

# busy: hundredths of seconds that all cores have worked since the machine started.
busy() {
  awk '/^cpu / { print $2 + $3 + $4 + $7 + $8 }' /proc/stat
}

declare -A wall=() work_done=() bytes=()

# measure NAME COMMAND...: runs it and keeps seconds by the clock and of all cores.
measure() {
  local name=$1 start used end
  shift
  docker exec "$prefix-postgres" psql -XqU n8n -d postgres -c CHECKPOINT
  sync -f "$work"
  used=$(busy)
  start=$(now)
  "$@" >"$work/output" 2>&1 || {
    cat "$work/output" >&2
    die "failed: $name"
  }
  end=$(now)
  wall[$name]+=" $(awk -v us=$((end - start)) 'BEGIN { printf "%.2f", us / 1e6 }')"
  work_done[$name]+=" $(awk -v n=$(($(busy) - used)) 'BEGIN { printf "%.2f", n / 100 }')"
  note "$name: ${wall[$name]##* } s, ${work_done[$name]##* } s of all cores"
}

# median NUMBER...
median() {
  printf '%s\n' "$@" | sort -n | awk '{ n[NR] = $1 } END { printf "%.2f", NR % 2 ? n[(NR + 1) / 2] : (n[NR / 2] + n[NR / 2 + 1]) / 2 }'
}

# seconds NAME: the median by the clock.
seconds() {
  # shellcheck disable=SC2086 # a list of numbers
  median ${wall[$1]}
}

cores_of() {
  # shellcheck disable=SC2086 # a list of numbers
  median ${work_done[$1]}
}

# ratio A B: how many times A is B.
ratio() {
  awk -v a="$1" -v b="$2" 'BEGIN { printf "%.2f", a / b }'
}

in_mb() {
  awk -v n="$1" 'BEGIN { printf "%.1f", n / 1e6 }'
}

# --- what the shell scripts did ---------------------------------------------------------

scripts_dump() {
  docker exec "$prefix-postgres" pg_dump -U n8n -d n8n | gzip >"$work/scripts.sql.gz"
}

scripts_redis() {
  local cli=(docker exec "$prefix-redis" redis-cli -p 6386) before turn
  before=$("${cli[@]}" LASTSAVE)
  "${cli[@]}" BGSAVE
  for ((turn = 0; turn < 60; turn++)); do
    sleep 1
    [[ $("${cli[@]}" LASTSAVE) == "$before" ]] || break
  done
  docker cp "$prefix-redis:/data/dump.rdb" "$work/scripts.rdb"
}

scripts_volume() {
  mkdir -p "$work/scripts"
  docker run --rm -v "${prefix}_n8n_data:/data:ro" -v "$work/scripts:/backup" n8n-backup-test/busybox:1 \
    tar czf /backup/scripts.tar.gz -C /data .
}

scripts_all() {
  scripts_dump
  scripts_redis
  scripts_volume
  cp "$dir/.env" "$work/scripts.env"
}

scripts_restore() {
  docker exec "$prefix-postgres" psql -XqU n8n -d postgres -c 'DROP DATABASE n8n WITH (FORCE)' -c 'CREATE DATABASE n8n OWNER n8n'
  gunzip -c "$work/dump.sql.gz" | docker exec -i "$prefix-postgres" psql -XqU n8n -d n8n
}

# --- ours and the others ----------------------------------------------------------------

# ours COMPRESSOR COMMAND [ARGUMENT...]: 'gzip only' is a host without other compressors.
ours() {
  local compressor=$1 path=$PATH
  shift
  rm -rf "$dir"/backups/*/n8n_* "$dir"/backups/*/dump_* "$dir"/backups/*/env_* "$dir/backups/sets"
  if [[ $compressor == 'gzip only' ]]; then
    path=$work/bin
    compressor=auto
  fi
  PATH=$path BACKUP_COMPRESSOR=$compressor "$dir/bin/n8n-backup" --project-dir "$dir" "$@"
}

# A directory of all programs but the compressors that not every host has.
make_bare_path() {
  local place file
  mkdir -p "$work/bin"
  for place in /usr/sbin /usr/bin /usr/local/bin; do
    for file in "$place"/*; do
      case ${file##*/} in
        igzip | pigz | libdeflate-gzip) ;;
        *) ln -sf "$file" "$work/bin/${file##*/}" ;;
      esac
    done
  done
  # It may be the client of another engine.
  ln -sf "$(command -v docker)" "$work/bin/docker"
}

floor() {
  docker exec "$prefix-postgres" pg_dump -U n8n -d n8n >/dev/null
}

restic_dump() {
  docker exec "$prefix-postgres" pg_dump -U n8n -d n8n | restic -r "$work/restic" backup --stdin --stdin-filename n8n.sql
}

borg_dump() {
  docker exec "$prefix-postgres" pg_dump -U n8n -d n8n | borg create --compression lz4 "$work/borg::n8n" -
}

# peak COMMAND...: the largest resident size in KB of each program of its process tree,
# sampled ten times a second.
peak() {
  "$@" >"$work/output" 2>&1 &
  local pid=$!
  : >"$work/sizes"
  while kill -0 "$pid" 2>/dev/null; do
    ps -e -o pid=,ppid=,rss=,comm= | awk -v root="$pid" '
      { parent[$1] = $2; size[$1] = $3; name[$1] = $4 }
      END { for (p in parent) { q = p; while (q && q != root) q = parent[q]; if (q == root) print name[p], size[p] } }
    ' >>"$work/sizes"
    sleep 0.1
  done
  wait "$pid"
  awk '{ if ($2 > most[$1]) most[$1] = $2 } END { for (n in most) print n, most[n] }' "$work/sizes" |
    grep -v -e '^bench.sh ' -e '^bash ' | sort
}

newest() {
  local file
  for file in "$dir/backups/$1/"*".$2"; do :; done
  printf '%s' "$file"
}

size_of() {
  stat -c %s -- "$1"
}

# --- the tables -------------------------------------------------------------------------

machine() {
  local model
  model=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)
  printf -- '- %s cores (%s), %s of memory, Linux %s\n' "$(nproc)" "${model:-$(uname -m)}" \
    "$(awk '/^MemTotal/ { printf "%.0f GB", $2 / 1e6 }' /proc/meminfo)" "$(uname -r | cut -d- -f1)"
  printf -- '- Docker engine %s, client %s; %s\n' "$(docker version --format '{{.Server.Version}}')" \
    "$(docker version --format '{{.Client.Version}}')" "$(docker exec "$prefix-postgres" postgres --version)"
  printf -- '- executions of %s: a plain dump of %s MB, a volume of %s MB; medians of %s round(s), all by turns; %s\n' \
    "$data" "$(in_mb "${bytes[dump]}")" "$(in_mb "${bytes[volume]}")" "$rounds" "$(date +%F)"
  printf -- '- load average when it began: %s\n' "$load"
}

# row TITLE NAME BASE [FILE...]: seconds, cores, BASE's seconds as a multiple, size.
row() {
  local title=$1 name=$2 base=$3 size=${4:-}
  printf '| %s | %s | %s | %s | %s |\n' "$title" "$(seconds "$name")" "$(cores_of "$name")" \
    "$(ratio "$(seconds "$base")" "$(seconds "$name")")" "$size"
}

sizes_beside_scripts() {
  local dump=$1 volume=$2
  printf '%s + %s MB (%+.1f %%, %+.1f %%)' "$(in_mb "$dump")" "$(in_mb "$volume")" \
    "$(percent "$dump" "${bytes[scripts dump]}")" "$(percent "$volume" "${bytes[scripts volume]}")"
}

# version_of PROGRAM: its name and version; restic knows no --version.
version_of() {
  { "$1" --version 2>/dev/null || "$1" version; } | head -n 1 | cut -d' ' -f1,2
}

percent() {
  awk -v a="$1" -v b="$2" 'BEGIN { printf "%.2f", (a / b - 1) * 100 }'
}

report() {
  local variant other
  machine
  printf '\nSeconds by the clock, and of all cores together (containers and engine included).\n\n'
  printf '| work | seconds | of all cores | times as fast | size, beside the scripts'"'"' |\n|---|---|---|---|---|\n'
  row 'backup-all, the scripts'"'"' pipelines' scripts-all scripts-all \
    "$(in_mb "${bytes[scripts dump]}") + $(in_mb "${bytes[scripts volume]}") MB"
  for variant in "${variants[@]}"; do
    row "backup-all, ours, $variant" "all $variant" scripts-all \
      "$(sizes_beside_scripts "${bytes[dump $variant]}" "${bytes[volume $variant]}")"
  done
  row 'restore-postgres, drop and load' scripts-restore scripts-restore
  row 'restore-postgres, ours: staged, verified, swapped' restore scripts-restore
  printf '\n| the dump alone | seconds | of all cores | times as fast as the scripts | MB |\n|---|---|---|---|---|\n'
  row "\`docker exec pg_dump >/dev/null\`, the floor" floor scripts-dump
  row "\`docker exec pg_dump \\| gzip\`" scripts-dump scripts-dump "$(in_mb "${bytes[scripts dump]}")"
  for variant in "${variants[@]}"; do
    row "backup-postgres, $variant" "dump $variant" scripts-dump "$(in_mb "${bytes[dump $variant]}")"
  done
  for other in restic borg; do
    [[ -z ${wall[$other]:-} ]] || row "\`docker exec pg_dump\` into $(version_of "$other")" "$other" scripts-dump "$(in_mb "${bytes[$other]}")"
  done
  printf '\nA small stack (the seed of the tests): backup-all takes %s s, the scripts'"'"' pipelines %s s (%s times).\n' \
    "$(seconds small)" "$(seconds small-scripts)" "$(ratio "$(seconds small-scripts)" "$(seconds small)")"
  printf '\nPeak memory of the processes of one run, in MB:\n\n| run | %s |\n|---|---|\n' 'each program'
  for variant in "${!memory[@]}"; do
    printf '| %s | %s |\n' "$variant" "${memory[$variant]}"
  done | sort
  printf '\nWhat the cores are worth here: gzip -6 of the sample takes %s s, and %s s with as many at once as there are cores.\n' "$alone" "$together"
  printf '\nPrograms that pack, on the first %s MB of each, one process:\n\n' "$((sample / 1000000))"
  printf '| program | dump: seconds | size beside gzip -6 | volume: seconds | size beside gzip -6 |\n|---|---|---|---|---|\n%s\n' "$packers"
  ! is_yes "$sqlite" || report_sqlite
  if [[ -n $grown ]]; then
    printf '\nAs data grow (auto):\n\n| dump, MB | volume, MB | backup-all, s | s a GB | restore-postgres, s | s a GB of dump | our peak memory, MB |\n|---|---|---|---|---|---|---|\n%s\n' "$grown"
  fi
}

# plot: bars of the times, as SVG.
plot() {
  local names=(scripts-all) titles=('backup-all: scripts') variant
  for variant in "${variants[@]}"; do
    names+=("all $variant")
    titles+=("backup-all: $variant")
  done
  names+=(scripts-restore restore floor scripts-dump 'dump auto')
  titles+=('restore: scripts' 'restore: ours' 'dump: floor, to /dev/null' 'dump: scripts' 'dump: auto')
  for variant in restic borg; do
    [[ -z ${wall[$variant]:-} ]] || { names+=("$variant") && titles+=("dump: $variant"); }
  done
  local i
  for i in "${!names[@]}"; do
    printf '%s\t%s\n' "${titles[i]}" "$(seconds "${names[i]}")"
  done | awk -F '\t' '
    { title[NR] = $1; value[NR] = $2; if ($2 > most) most = $2 }
    END {
      printf "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"720\" height=\"%d\" font-family=\"sans-serif\" font-size=\"13\">\n", NR * 26 + 34
      print "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n<text x=\"10\" y=\"18\">Seconds, less is better</text>"
      for (n = 1; n <= NR; n++) {
        y = n * 26 + 4
        fill = title[n] ~ /scripts/ ? "#b0b0b0" : title[n] ~ /floor|restic|borg/ ? "#d8c48a" : "#3b7dd8"
        printf "<text x=\"10\" y=\"%d\">%s</text><rect x=\"220\" y=\"%d\" width=\"%.1f\" height=\"18\" fill=\"%s\"/><text x=\"%.1f\" y=\"%d\">%s</text>\n", y + 13, title[n], y, value[n] / most * 430, fill, 226 + value[n] / most * 430, y + 13, value[n]
      }
      print "</svg>"
    }'
}

# load MB: fills the stack.
load_data() {
  if [[ $data != binary ]]; then
    "$stack" big "$prefix" "$1" "$data"
    return
  fi
  "$stack" big "$prefix" "$(($1 * 2 / 3))" text
  # Two digits for a byte: so many MB of noise are a third of the dump.
  docker exec -i "$prefix-postgres" psql -XqU n8n -d n8n -v ON_ERROR_STOP=1 -v "mb=$(($1 / 6))" <<'SQL'
CREATE EXTENSION IF NOT EXISTS pgcrypto;
DROP TABLE IF EXISTS binary_data;
CREATE TABLE binary_data ("fileId" uuid PRIMARY KEY, data bytea NOT NULL);
INSERT INTO binary_data SELECT gen_random_uuid(), (SELECT string_agg(gen_random_bytes(1024), NULL) FROM generate_series(1, 1024 + n * 0))
  FROM generate_series(1, :mb) n;
CHECKPOINT;
SQL
}

# --- the run ----------------------------------------------------------------------------

load=$(cut -d' ' -f1 /proc/loadavg)
scratch bench --seed
"$stack" seed-volume "$prefix"
make_bare_path
sample=$((mb < 200 ? mb * 500000 : 100000000))
variants=(auto)
! command -v igzip >/dev/null || variants+=(igzip)
variants+=('gzip only')

# What the servers do right after they were filled, and cold caches, say nothing of either side.
docker exec "$prefix-postgres" psql -XqU n8n -d n8n -c 'VACUUM (ANALYZE)'
scripts_all >/dev/null 2>&1
ours auto backup-all >/dev/null
for ((round = 0; round < rounds; round++)); do
  measure small-scripts scripts_all
  measure small ours auto backup-all
done

note "loading $mb MB"
load_data "$mb"
floor
helper=$(docker create -v "${prefix}_n8n_data:/v:ro" n8n-backup-test/busybox:1 true)
bytes[dump]=$(docker exec "$prefix-postgres" pg_dump -U n8n -d n8n | tee >(head -c "$sample" >"$work/dump.sample"; cat >/dev/null) | wc -c)
bytes[volume]=$(docker cp "$helper:/v/." - | tee >(head -c "$sample" >"$work/volume.sample"; cat >/dev/null) | wc -c)
docker rm -v "$helper" >/dev/null

for ((round = 0; round < rounds; round++)); do
  measure floor floor
  measure scripts-all scripts_all
  measure scripts-dump scripts_dump
  bytes[scripts dump]=$(size_of "$work/scripts.sql.gz")
  bytes[scripts volume]=$(size_of "$work/scripts/scripts.tar.gz")
  mv "$work/scripts.sql.gz" "$work/dump.sql.gz"
  for variant in "${variants[@]}"; do
    measure "dump $variant" ours "$variant" backup-postgres
    measure "all $variant" ours "$variant" backup-all
    bytes[dump $variant]=$(size_of "$(newest postgres sql.gz)")
    bytes[volume $variant]=$(size_of "$(newest n8n tar.gz)")
  done
  if command -v restic >/dev/null; then
    rm -rf "$work/restic"
    export RESTIC_PASSWORD=bench RESTIC_CACHE_DIR=$work/restic-cache
    restic -r "$work/restic" init >/dev/null
    measure restic restic_dump
    bytes[restic]=$(du -sb "$work/restic" | cut -f1)
  fi
  if command -v borg >/dev/null; then
    rm -rf "$work/borg"
    export BORG_BASE_DIR=$work/borg-base BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK=yes
    borg init -e none "$work/borg"
    measure borg borg_dump
    bytes[borg]=$(du -sb "$work/borg" | cut -f1)
  fi
  measure restore ours auto restore-postgres --yes --trust-dump "$work/dump.sql.gz"
  measure scripts-restore scripts_restore
done

declare -A memory=()
for variant in "${variants[@]}"; do
  memory["backup-all, $variant"]=$(peak ours "$variant" backup-all |
    awk '{ printf "%s%s %.0f", n++ ? ", " : "", $1, $2 / 1000 }')
done
memory[restore-postgres]=$(peak ours auto restore-postgres --yes --trust-dump "$work/dump.sql.gz" |
  awk '{ printf "%s%s %.0f", n++ ? ", " : "", $1, $2 / 1000 }')

packers=
for packer in 'gzip -6' 'gzip -1' 'gzip -4' 'gzip -5' 'igzip -0' 'igzip -1' 'igzip -2' 'igzip -3' 'pigz -6 -p 1' 'libdeflate-gzip -1' \
  'libdeflate-gzip -3' 'libdeflate-gzip -4' 'libdeflate-gzip -5' 'libdeflate-gzip -6'; do
  command -v "${packer%% *}" >/dev/null || continue
  packers+="${packers:+$'\n'}| \`$packer\` |"
  for name in dump volume; do
    start=$(now)
    # shellcheck disable=SC2086 # a command and its arguments
    size=$($packer -c <"$work/$name.sample" | wc -c)
    took=$(($(now) - start))
    [[ $packer != 'gzip -6' ]] || bytes[$name by gzip]=$size
    packers+=$(awk -v us=$took -v p="$(percent "$size" "${bytes[$name by gzip]}")" 'BEGIN { printf " %.2f | %+.1f %% |", us / 1e6, p }')
  done
done

# Virtual cores may share one real one: then packing side by side gains less than it seems.
gzip_side_by_side() {
  local n start
  start=$(now)
  for ((n = 0; n < $1; n++)); do
    gzip -6 -c <"$work/dump.sample" >/dev/null &
  done
  wait
  awk -v us=$(($(now) - start)) 'BEGIN { printf "%.2f", us / 1e6 }'
}
alone=$(gzip_side_by_side 1)
together=$(gzip_side_by_side "$(nproc)")

! is_yes "$sqlite" || measure_sqlite "$mb"
grown=
if is_yes "$growth"; then
  for mb in 100 500 1000 4000; do
    note "loading $mb MB"
    load_data "$mb"
    wall[grown]='' work_done[grown]='' wall[grown restore]='' work_done[grown restore]=''
    for ((round = 0; round < rounds; round++)); do
      measure grown ours auto backup-all
    done
    cp "$(newest postgres sql.gz)" "$work/grown.sql.gz"
    measure 'grown restore' ours auto restore-postgres --yes --trust-dump "$work/grown.sql.gz"
    ours_peak=$(peak ours auto backup-all | awk '$1 == "n8n-backup" { printf "%.0f", $2 / 1000 }')
    grown+=${grown:+$'\n'}$(awk -v m="$mb" -v b="$(seconds grown)" -v r="$(seconds 'grown restore')" -v p="$ours_peak" \
      'BEGIN { printf "| %d | %d | %.2f | %.1f | %.2f | %.1f | %s |", m, m * 0.77, b, b / (m * 1.77 / 1000), r, r / (m / 1000), p }')
  done
fi

report >"$work/report.md"
cat "$work/report.md"
if is_yes "$write"; then
  plot >"$root/docs/performance-$data.svg"
  printf '\n![The times as bars](performance-%s.svg)\n' "$data" >>"$work/report.md"
  awk -v report="$work/report.md" -v begin="<!-- bench $data: begin -->" -v end="<!-- bench $data: end -->" '
    $0 == begin { print; print ""; while ((getline line < report) > 0) print line; print ""; skip = 1 }
    $0 == end { skip = 0 }
    !skip && $0 != begin' "$root/docs/performance.md" >"$work/performance.md"
  cat "$work/performance.md" >"$root/docs/performance.md"
  note 'wrote docs/performance.md and its plot'
fi
