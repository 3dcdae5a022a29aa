# shellcheck shell=bash
# Shared by the scripts behind the make targets; sourced, never run. Sets `root`, the checkout,
# and `tools`, the directory of programs that only tests need, last on PATH. Settings (N8N_DIR,
# FILE, YES, DRY_RUN) come from the environment, because make would mangle a path with spaces,
# quotes or dollar signs.

root=$(cd -- "${BASH_SOURCE[0]%/*}/../.." && pwd -P && printf x)
root=${root%$'\nx'}
export root
tools=$root/target/tools
PATH=$PATH:$tools

# say TEXT...: one line on standard output.
say() {
  printf '%s\n' "$*"
}

# die TEXT...: one line on standard error, exit status 1.
die() {
  printf 'Error: %s\n' "$*" >&2
  exit 1
}

# is_shim FILE: whether FILE is ours: a shim or their shared part, of any version.
is_shim() {
  [[ -f $1 ]] && sed -n 2p -- "$1" | grep -q '^# n8n-backup shim: '
}

# n8n_dir: sets `dir` to the absolute path of the n8n project directory: N8N_DIR, or else the
# checkout. Not every shell expands a tilde in N8N_DIR=~/n8n, so that is done here.
n8n_dir() {
  local given=${N8N_DIR:-$root}
  # shellcheck disable=SC2088 # a literal tilde is meant
  case $given in
    '~') given=${HOME:?} ;;
    '~/'*) given=${HOME:?}/${given#??} ;;
  esac
  [[ $given == /* ]] || given=$PWD/$given
  [[ -e $given ]] || die "N8N_DIR does not exist: $given"
  [[ -d $given ]] || die "N8N_DIR is not a directory: $given"
  dir=$(cd -- "$given" && printf '%sx' "$PWD") || die "cannot enter N8N_DIR: $given"
  dir=${dir%x}
}

# is_private DIR: whether nobody but us and root can put anything into a directory.
is_private() {
  [[ -n $(find -L "$1" -maxdepth 0 \( -uid "$EUID" -o -uid 0 \) ! -perm -002 \( ! -perm -020 -o -gid 0 -o -gid "$(id -g)" \)) ]]
}

# as_owner SCRIPT FILE...: where root works on a directory of another user, runs scripts/make/SCRIPT as that user, from a copy
# of these files of the checkout, and exits: what has been planted there leads nowhere that its owner could not go.
as_owner() {
  local script=$1 copy status=0
  shift
  [[ $EUID -eq 0 && $(stat -c %u -- "$dir") -ne 0 ]] || return 0
  command -v setpriv >/dev/null || die "setpriv is missing: run this as the owner of $dir"
  copy=$(mktemp -d)
  tar -C "$root" -cf - -- scripts/make/lib.sh "scripts/make/$script" "$@" | tar -C "$copy" --no-same-owner -xf - &&
    chmod -R a+rX,go-w -- "$copy" || status=$?
  if ((status == 0)); then
    (cd / && setpriv --reuid "$(stat -c %u -- "$dir")" --regid "$(stat -c %g -- "$dir")" --clear-groups \
      env N8N_DIR="$dir" bash "$copy/scripts/make/$script") || status=$?
  fi
  rm -rf -- "$copy"
  exit "$status"
}

# is_yes VALUE: whether a switch such as YES=1 is on.
is_yes() {
  case ${1,,} in
    1 | y | yes | true | on) return 0 ;;
    *) return 1 ;;
  esac
}

# is_no VALUE: whether a switch is off; what is neither is up to the caller.
is_no() {
  case ${1,,} in
    '' | 0 | n | no | false | off) return 0 ;;
    *) return 1 ;;
  esac
}

# may_install_packages: whether this is root on a machine with apt.
may_install_packages() {
  [[ $EUID -eq 0 ]] && command -v apt-get >/dev/null
}

# install_packages NAME...: installs Debian packages without recommendations; prints apt's
# output only when it fails.
install_packages() {
  local output
  if output=$(apt_install "$@" 2>&1); then
    return 0
  fi
  # The usual reason: package lists that are missing or out of date.
  if output=$(apt-get -q update 2>&1 && apt_install "$@" 2>&1); then
    return 0
  fi
  printf '%s\n' "$output" | tail -n 5 >&2
  return 1
}

apt_install() {
  DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends \
    -o DPkg::Lock::Timeout=60 install "$@" </dev/null
}
