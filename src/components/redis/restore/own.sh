# shellcheck shell=sh
# Takes the directory, what is staged for it, the user of the container, and the names that are exchanged. Redis may
# run as another user than the owner of the directory, so what is staged gets the owner and mode of what is live.
# Where that is missing, or root's as an earlier restore left it, the owner is the container's user; where that is
# root, who becomes another one, it is the directory's.
set -eu
dir=$1 new=$2 user=$3 owner=0:0
shift 3
for name; do
  case $owner in 0:*) owner=$(stat -L -c %u:%g "$dir/$name" 2>/dev/null || echo 0:0) ;; esac
done
case $user in
  *:*) ;;
  *) user=${user:-0}:$(id -g "${user:-0}" 2>/dev/null || echo 0) ;;
esac
case $owner in 0:*) owner=$user ;; esac
case $owner in 0:*|root:*) owner=$(stat -c %u:%g "$dir/.") ;; esac
for name; do
  [ -e "$new/$name" ] || continue
  chown -hR "$owner" "$new/$name"
  mode=$(stat -L -c %a "$dir/$name" 2>/dev/null) || continue
  chmod "$mode" "$new/$name"
done
