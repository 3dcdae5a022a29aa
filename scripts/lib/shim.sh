# shellcheck shell=bash
# n8n-backup shim: the part that all shims in scripts/ share. Runs the command that the shim is named after, for the
# n8n project directory that the shim is in (the parent of scripts/).
set -uo pipefail
shopt -s execfail

# The shim itself, not a link to it; a directory in its path may be a link. The x keeps a newline at the end of a name.
self=${BASH_SOURCE[1]}
[[ $self == /* ]] || self=$PWD/$self
while [[ -L $self ]]; do
  target=$(readlink -n -- "$self" && printf x)
  target=${target%x}
  [[ $target == /* ]] || target=${self%/*}/$target
  self=$target
done
dir=$(cd -L -- "${self%/*}/" && cd -L .. && printf '%sx' "$PWD") || exit 1
dir=${dir%x}
command=${self##*/}
command=${command%.sh}

# Duplicating a closed descriptor to another number fails; duplicating it onto itself would succeed.
stdout_is_open() {
  { : 3>&1; } 2>/dev/null
}

# fail MESSAGE: one ERROR line to standard output (to standard error when that is closed) and to the log, unless
# standard output already is the log; then exit status 1.
fail() {
  local line log=$dir/logs/backup.log
  line="[ERROR] $(date '+%Y-%m-%d %H:%M:%S') [$command] $1"
  if stdout_is_open; then
    printf '%s\n' "$line" 2>/dev/null
    [[ /dev/stdout -ef $log ]] && exit 1
  else
    printf '%s\n' "$line" >&2
  fi
  umask 077
  [[ -d ${log%/*} ]] || mkdir -- "${log%/*}" 2>/dev/null
  # A link may lead to a file that is not for these lines.
  [[ -L $log ]] || { printf '%s\n' "$line" >>"$log"; } 2>/dev/null
  exit 1
}

stdout_is_open || fail 'Standard output is closed, nothing was done'

# bash would run an empty file as a script that does nothing.
program=$dir/bin/n8n-backup
if [[ -f $program && -s $program && -x $program ]]; then
  exec "$program" --project-dir "$dir" "$command" "$@"
  problem='cannot be started'
else
  problem='is missing or not executable'
fi
LC_ALL=C
printf -v quoted '%q' "$dir"
fail "bin/n8n-backup $problem: run make install N8N_DIR=$quoted (or, of a package or archive, n8n-backup install $quoted)"
