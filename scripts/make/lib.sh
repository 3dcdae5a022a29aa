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
