#!/bin/sh
# Prints one line for each path below /volume, sorted by path:
# type and mode (hex), owner, group, size, modification time, hard-link group,
# SHA-256 or link target, path. Runs in the helper image.
set -eu
export LC_ALL=C
cd /volume

# Prints path, a tab, what stat says, a tab, contents. Not by xargs: busybox's
# mixes up its arguments when there are many.
# shellcheck disable=SC2016 # for the inner shell to expand
find . -exec sh -c '
  one_line() { tr "\n\t" "\001\002" | sed -e "s/\\\\/\\\\\\\\/g" -e "s/$(printf "\001")/\\\\n/g" -e "s/$(printf "\002")/\\\\t/g"; }
  stat -c "%f %u %g %s %Y %h %i" "$@" >/tmp/stat
  for path; do
    read -r stat <&3
    if [ -L "$path" ]; then
      contents="-> $(readlink -n "$path" | one_line)"
    elif [ -f "$path" ]; then
      contents=$(sha256sum <"$path")
      contents=${contents%% *}
    else
      contents=-
    fi
    case $path in
      *[[:cntrl:]\\]*) path=$(printf "%s" "$path" | one_line) ;;
    esac
    printf "%s\t%s\t%s\n" "$path" "$stat" "$contents"
  done 3</tmp/stat' sh {} + >/tmp/paths

# Size and number of links of a directory differ from one file system to the
# next; of an inode number only counts which paths share it.
sort /tmp/paths | awk -F '\t' '{
  split($2, stat, " ")
  directory = substr(stat[1], 1, 1) == "4"
  group = "-"
  if (!directory && stat[6] > 1) {
    if (!(stat[7] in first)) first[stat[7]] = ++groups
    group = "link" first[stat[7]] "of" stat[6]
  }
  print stat[1], stat[2], stat[3], directory ? "-" : stat[4], stat[5], group, $3, $1
}'
