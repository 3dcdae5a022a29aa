# shellcheck shell=sh
# Runs the program for a database: takes that, a verb, the database, how long to wait for a lock, and what else the
# verb takes; for `copy` the name of the directory of the copy, and what the database is mounted with. Everything ends
# when standard input closes. Prints an empty line now and then, while something is done, then a line of JSON. Of a copy
# a line tells where it is; then it is proven, and another line tells what is in it. It is there until a line comes on
# standard input, and removed whatever happens.
set -u
umask 077
export NODE_NO_WARNINGS=1
unset NODE_OPTIONS
program=$1 verb=$2 file=$3 wait=$4 name=''
shift 4
command -v node >/dev/null || { echo 'the image has no Node.js' >&2; exit 127; }
exec 3<&0 </dev/null
# Where a copy may be.
first=${TMPDIR:-/tmp} second=$(dirname -- "$file")
if [ "$verb" = copy ]; then
  name=$1
  set -- "$name" "$2" "$first"
fi
child='' alive=''
clean() {
  [ -z "$name" ] || rm -rf -- "${first:?}/$name" "${second:?}/$name"
}
end() {
  trap '' TERM HUP INT
  for process in $child $alive; do kill -KILL "$process" 2>/dev/null; done
  [ -z "$child" ] || wait "$child" 2>/dev/null
  clean
}
trap 'end; exit 143' TERM HUP INT
(read -r _ || kill -TERM $$) <&3 >/dev/null 2>&1 &
leash=$!
# What a run that was killed has left.
clean
# moves PROCESS: prints an empty line when it has read or written something. The processor time counts only where
# nobody may ask for that: a thread of a program that hangs may still wake.
moves() {
  last=''
  while sleep 5 >/dev/null 2>&1; do
    now=$(cat "/proc/$1/io" 2>/dev/null || cut -d ' ' -f 14,15 "/proc/$1/stat" 2>/dev/null)
    [ "$now" = "$last" ] || echo
    last=$now
  done
}
run() {
  node -e "$program" -- "$@" 3<&- &
  child=$!
  moves "$child" 3<&- &
  alive=$!
  wait "$child"
  status=$?
  child=''
  kill "$alive" 2>/dev/null
  wait "$alive" 2>/dev/null
  alive=''
}
run "$verb" "$file" "$wait" "$@"
if [ "$verb" = copy ] && [ "$status" -eq 0 ]; then
  for dir in "$first/$name" "$second/$name"; do
    [ -e "$dir/header" ] || continue
    cat -- "$dir/header"
    run prove "$dir/copy" "$wait"
    [ "$status" -eq 0 ] || break
    cat -- "$dir/contents"
    wait "$leash"
    break
  done
fi
kill "$leash" 2>/dev/null
end
exit "$status"
