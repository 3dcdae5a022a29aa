# shellcheck shell=sh disable=SC2086 # options are words
# The packer of n8n's data: packer.rs tells what it takes and gives.
export LC_ALL=C
command -v tar >/dev/null || { echo 'the image has no tar' >&2; exit 127; }
what=$1
cd -- "$2" || exit 1
shift 2
options=--numeric-owner
case $(tar --version 2>/dev/null) in *GNU*) options="$options --format=gnu" gnu=1 ;; *) gnu= ;; esac
ours=
for name in .n8n-backup-*; do [ ! -e "$name" ] || ours=1; done
[ "$what" = data ] && [ ! -e .n8n-backup-restore/begun ] || ours=
# at_work: whether a restore has unpacked a database below the directory that we are in
at_work() { [ -n "${WORK-}" ] && [ -e "$WORK" ] && [ ! -e "$WORK/begun" ]; }
staged=$ours
if at_work || (cd / && at_work); then staged=1; fi
# list DIRECTORY...: the names, without sockets
list() {
  if at_work; then set -- "$@" -path "$WORK_PATTERN" -prune -o; fi
  if [ "$ours" ]; then
    find "$@" -path './.n8n-backup-*' -prune -o ! -type s -print0
  else
    find "$@" ! -type s -print0
  fi
}
# check DIRECTORY...: what busybox says nothing of
check() {
  [ -z "$gnu" ] || return 0
  # Where readdir fails, there is not even the directory itself.
  find "$@" -type d -exec sh -c '
    for dir; do
      set -- "$dir"/.*
      [ "$1" = "$dir/." ] || [ ! -d "$dir" ] || echo "tar: $dir: cannot be listed"
    done' sh {} + 2>/dev/null
  # It has no digits for larger ones.
  find "$@" -exec stat -c '%u %g' {} + 2>/dev/null |
    awk '$1 > 16777215 || $2 > 16777215 { n++ }
      END { if (n) print "tar: " n " owner(s) have numbers that busybox cannot store: set BACKUP_HELPER_IMAGE in .env to an image with GNU tar" }'
}
# archive ARGUMENT...: tar, without what is left out
archive() (
  set -f
  IFS='
'
  for name in ${LEFT_OUT-}; do set -- --exclude="$name" "$@"; done
  unset IFS
  if { [ -n "${LEFT_OUT-}" ] || at_work; } && ! tar --exclude=x -cf - /dev/null >/dev/null 2>&1; then
    echo 'tar: this one has no --exclude: set BACKUP_HELPER_IMAGE in .env to an image with another (alpine:latest)' >&2
    exit 1
  fi
  if at_work; then set -- --exclude="$WORK_PATTERN" "$@"; fi
  exec tar $options "$@"
)
pack() {
  if [ -z "$ours" ]; then
    archive -cf - "$@"
    return
  fi
  set --
  for name in * .[!.]* ..?*; do
    case $name in .n8n-backup-*) continue ;; esac
    if [ -e "$name" ] || [ -L "$name" ]; then set -- "$@" "./$name"; fi
  done
  # The header of the directory alone, before the rest.
  archive --no-recursion -cf - . | head -c 512
  if [ $# -gt 0 ]; then archive -cf - "$@"; else head -c 1024 /dev/zero; fi
}
sorted() {
  errors=0 changed=0 sockets=0 status=1
  while IFS= read -r line; do
    case $line in
      'exit '*) status=${line#exit } ;;
      *'exit delayed from previous errors'* | *'Exiting with failure status'* | *'emoving leading'*) ;;
      *': socket ignored')
        sockets=$((sockets + 1))
        [ $sockets -gt 2 ] || printf 'socket %s\n' "$line" ;;
      *'file changed as we read it' | *'File removed before we read it' | *': File shrank by '* | *': No such file or directory')
        changed=$((changed + 1))
        [ $changed -gt 2 ] || printf 'changed %s\n' "$line" ;;
      *)
        errors=$((errors + 1))
        [ $errors -gt 3 ] || printf 'error %s\n' "$line" ;;
    esac
  done
  printf 'exit %s %s %s %s %s\n' "$status" "$errors" "$changed" "$sockets" "${staged:-0}"
}
exec 3>&1
{
  list . 2>/dev/null >&3
  [ $# -eq 0 ] || (ours=; cd / && list "$@" 2>/dev/null >&3)
  printf '\0' >&3
  check .
  [ $# -eq 0 ] || (cd / && check "$@")
  pack . 2>&1 >&3
  status=$?
  if [ $# -gt 0 ]; then
    (ours=; cd / && pack "$@" 2>&1 >&3)
    other=$?
    [ $other -le $status ] || status=$other
  fi
  echo "exit $status"
} | sorted >&2
