# shellcheck shell=sh disable=SC2086 # options are words
# shellcheck disable=SC2030,SC2031 # what at() sets is for the command
# The packer of n8n's data: packer.rs tells what it takes and gives.
export LC_ALL=C
command -v tar >/dev/null || { echo 'the image has no tar' >&2; exit 127; }
what=$1
cd -- "$2" || exit 1
shift 2
options=--numeric-owner
case $(tar --version 2>/dev/null) in *GNU*) options="$options --format=gnu" gnu=1 ;; *) gnu= ;; esac
excludes=
if tar --exclude=x -cf - /dev/null >/dev/null 2>&1; then excludes=1; fi
# at SIDE COMMAND DIRECTORY...: runs it with those in the home, or with those in the root directory
at() (
  side=$1 command=$2 ours=$in_home
  shift 2
  if [ "$side" = root ]; then
    ours=$in_root
    cd / || exit 1
  fi
  for dir; do
    shift
    case $dir in ./.n8n-backup-mounts/*) of=root ;; *) of=home ;; esac
    [ "$of" != "$side" ] || set -- "$@" "$dir"
  done
  [ $# -eq 0 ] || "$command" "$@"
)
# pattern NAME: one that matches it alone
pattern() {
  printf '%s\n' "$1" | sed 's/[][*?\\]/\\&/g'
}
# own DIRECTORY...: patterns of what is our own in them, unless a restore has begun to move data there
own() {
  for dir; do
    [ ! -e "$dir/.n8n-backup-restore/begun" ] || continue
    for name in "$dir"/.n8n-backup-*; do
      [ ! -e "$name" ] || printf '%s/.n8n-backup-*\n' "$(pattern "$dir")"
    done
  done | sort -u
}
lines='
'
in_home='' in_root='' staged=0
if [ "$what" = data ]; then
  in_home=$(at home own . "$@" ${DATABASE_DIR:+"$DATABASE_DIR"})
  in_root=$(at root own "$@" ${DATABASE_DIR:+"$DATABASE_DIR"})
  [ -z "$in_home$in_root" ] || staged=1
  in_root=$in_root$lines${ELSEWHERE-}
fi
# list DIRECTORY...: the names, without sockets
list() {
  [ "$side" = root ] || set -- .
  set -f
  IFS=$lines
  for name in $ours; do set -- "$@" -path "$name" -prune -o; done
  find "$@" ! -type s -print0
}
# check DIRECTORY...: what busybox says nothing of
check() {
  [ -z "$gnu" ] || return 0
  [ "$side" = root ] || set -- .
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
# archive DIRECTORY OTHER...: tar, without what is left out and what others there are in it
archive() (
  part=$1
  shift
  set -f
  IFS=$lines
  for other; do
    shift
    case $other in "$part"/*) set -- "$@" "--exclude=$(pattern "$other")" ;; esac
  done
  for name in $ours ${LEFT_OUT-}; do set -- "$@" "--exclude=$name"; done
  unset IFS
  if [ $# -eq 0 ] || [ "$excludes" ]; then exec tar $options "$@" -cf - "$part"; fi
  if [ "$part $ours ${LEFT_OUT-}" != '. ./.n8n-backup-* ' ]; then
    echo 'tar: this one has no --exclude: set BACKUP_HELPER_IMAGE in .env to an image with another (alpine:latest)' >&2
    exit 1
  fi
  set +f --
  for name in * .[!.]* ..?*; do
    case $name in .n8n-backup-*) continue ;; esac
    if [ -e "$name" ] || [ -L "$name" ]; then set -- "$@" "./$name"; fi
  done
  # An archive of the directory alone, before that of the rest.
  tar $options --no-recursion -cf - . || exit
  [ $# -eq 0 ] || exec tar $options -cf - "$@"
)
# pack DIRECTORY...: each by itself, so that no hard link leads from one to another
pack() {
  # Without --exclude, what is mounted in the home is packed with it.
  [ "$excludes" ] || [ "$side" = root ] || set -- .
  status=0
  for dir; do
    said=$(archive "$dir" "$@" 2>&1 >&3)
    ended=$?
    [ -z "$said" ] || printf '%s\n' "$said"
    [ $ended -le $status ] || status=$ended
    # The next one would be taken for the rest of the file.
    case $said in *'tar: short read') return 99 ;; esac
  done
  return $status
}
error() {
  errors=$((errors + 1))
  [ $errors -gt 3 ] || printf 'error %s\n' "$1"
}
sorted() {
  errors=0 changed=0 sockets=0 cut=0 status=1 held=''
  while IFS= read -r line; do
    case $line in
      'tar: '* | 'exit '*) [ -z "$held" ] || error "$held"; held='' ;;
    esac
    [ -z "$held" ] || line="$held\\n$line"
    held=''
    case ${line#tar: } in
      *': '*) ;;
      # busybox prints a name with line feeds as it is: the reason is yet to come.
      ./* | "can't open './"*) held=$line; continue ;;
    esac
    case $line in
      'exit '*) status=${line#exit } ;;
      # busybox ends where a file has become shorter; GNU's fills it up.
      'tar: short read') cut=1 ;;
      # Whatever the file is called.
      *': Read error at byte '*) error "$line" ;;
      *'exit delayed from previous errors'* | *'Exiting with failure status'* | *'emoving leading'*) ;;
      *': socket ignored')
        sockets=$((sockets + 1))
        [ $sockets -gt 2 ] || printf 'socket %s\n' "$line" ;;
      *'file changed as we read it' | *'File removed before we read it' | *': File shrank by '* | *': No such file or directory')
        changed=$((changed + 1))
        [ $changed -gt 2 ] || printf 'changed %s\n' "$line" ;;
      *) error "$line" ;;
    esac
  done
  [ -z "$held" ] || error "$held"
  printf 'exit %s %s %s %s %s %s\n' "$status" "$errors" "$changed" "$sockets" $staged $cut
}
exec 3>&1
{
  at home list . "$@" 2>/dev/null >&3
  at root list "$@" 2>/dev/null >&3
  printf '\0' >&3
  at home check . "$@"
  at root check "$@"
  at home pack . "$@"
  status=$?
  if [ $status -ne 99 ]; then
    at root pack "$@"
    other=$?
    [ $other -le $status ] || status=$other
  fi
  echo "exit $status"
} | sorted >&2
