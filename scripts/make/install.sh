#!/usr/bin/env bash
# Installs bin/n8n-backup, the shims and the missing directories into the n8n project
# directory N8N_DIR. A script that a shim replaces is kept as scripts/NAME.sh.orig.
set -euo pipefail
. "${BASH_SOURCE[0]%/*}/lib.sh"

n8n_dir
[[ -x $root/bin/n8n-backup ]] || die 'bin/n8n-backup is missing: run make build'
if [[ $dir -ef $root ]]; then
  say "N8N_DIR is this checkout: bin/n8n-backup is built, nothing else to install"
  exit 0
fi
cd -- "$root"
as_owner install.sh bin/n8n-backup scripts/*.sh scripts/lib/shim.sh backups/*/.gitkeep logs/.gitkeep
for part in bin scripts scripts/lib; do
  if [[ $dir/$part -ef $root/$part ]]; then
    die "$dir/$part is a directory of this checkout: N8N_DIR must have one of its own"
  fi
  [[ -d $dir/$part || ! -e $dir/$part && ! -L $dir/$part ]] || die "not a directory: $dir/$part"
done
for part in . bin scripts scripts/lib; do
  [[ ! -d $dir/$part || -w $dir/$part ]] || die "not writable for $(id -un): $dir/$part"
  # Root follows no link that somebody else may put there meanwhile.
  [[ $EUID -ne 0 || ! -d $dir/$part ]] || is_private "$dir/$part" ||
    die "others may write to $dir/$part: chmod go-w, or run make install as its owner"
done

# Everything is checked before anything is changed.
shims=("$root"/scripts/*.sh)
for script in "$root/scripts/lib/shim.sh" "${shims[@]}"; do
  script=$dir${script#"$root"}
  [[ ! -d $script ]] || die "a directory is in the way: $script"
  if [[ -e $script.orig && -e $script ]] && ! is_shim "$script" && ! cmp -s -- "$script" "$script.orig"; then
    die "$script and $script.orig are two different scripts of yours: move one away and install again"
  fi
done

staged=()
trap '((${#staged[@]} == 0)) || rm -rf -- "${staged[@]}"' EXIT
# place MODE DIRECTORY SOURCE...: copies each file and renames it into place.
place() {
  local mode=$1 target=$2 new
  shift 2
  new=$(mktemp -d -- "$target/.n8n-backup-new.XXXXXX")
  staged+=("$new")
  install -m "$mode" -- "$@" "$new"
  mv -f -- "$new"/* "$target"
  rmdir -- "$new"
}

for part in bin scripts scripts/lib; do
  [[ -d $dir/$part ]] || mkdir -- "$dir/$part"
done
# What is in these is for their owner alone.
for part in logs backups backups/{postgres,sqlite,redis,n8n,env,sets}; do
  [[ -d $dir/$part ]] || mkdir -m 700 -- "$dir/$part"
done
# add FILE: makes an empty file for its owner alone, unless there is something of its name, or others may write beside it.
add() {
  [[ -e $1 || -L $1 || ! -w ${1%/*} ]] || ! is_private "${1%/*}" || (umask 077 && set -C && : >"$1")
}
for part in "$root"/backups/*/.gitkeep "$root/logs/.gitkeep"; do
  add "$dir${part#"$root"}"
done

place 755 "$dir/bin" "$root/bin/n8n-backup"
kept=0
for script in "$root/scripts/lib/shim.sh" "${shims[@]}"; do
  script=$dir${script#"$root"}
  if [[ -e $script || -L $script ]] && ! is_shim "$script"; then
    # Linked, not moved, so that the path in the crontab always exists.
    [[ -e $script.orig || -L $script.orig ]] ||
      ln -P -- "$script" "$script.orig" 2>/dev/null || cp -a -- "$script" "$script.orig"
    kept=$((kept + 1))
  fi
done
# The shims need it, so it comes first.
place 644 "$dir/scripts/lib" "$root/scripts/lib/shim.sh"
place 755 "$dir/scripts" "${shims[@]}"

say "Installed $("$dir/bin/n8n-backup" --version) and ${#shims[@]} scripts in $dir"
((kept == 0)) || say "Kept $kept existing scripts as scripts/NAME.sh.orig (make uninstall restores them)"
say "Next: $dir/bin/n8n-backup setup shows what was found of the stack, and proves that it can be backed up"
