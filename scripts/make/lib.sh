# shellcheck shell=bash
# What the maintenance scripts share; sourced, never run. Sets `root`, the checkout, and
# `tools`, the directory of programs that only tests need, last on PATH.
# Settings arrive in the environment (N8N_DIR, FILE, YES, DRY_RUN), because a path with
# blanks, quotes or dollar signs does not survive make's text.

root=$(cd -- "${BASH_SOURCE[0]%/*}/../.." && pwd -P && printf x)
root=${root%$'\nx'}
export root
tools=$root/target/tools
PATH=$PATH:$tools

# say TEXT...: one line for the person at the terminal.
say() {
  printf '%s\n' "$*"
}

# die TEXT...: one line on standard error, exit status 1.
die() {
  printf 'Error: %s\n' "$*" >&2
  exit 1
}

# is_shim FILE: whether FILE is one of our shims, of this or of another version.
is_shim() {
  [[ -f $1 ]] && sed -n 2p -- "$1" | grep -q '^# n8n-backup shim: '
}

# n8n_dir: sets `dir`, the absolute path of the n8n project directory: N8N_DIR, else the
# checkout. Only some shells expand a tilde after the equals sign, so it is done here.
n8n_dir() {
  local given=${N8N_DIR:-$root}
  # shellcheck disable=SC2088 # a literal tilde is what is looked for
  case $given in
    '~') given=${HOME:?} ;;
    '~/'*) given=${HOME:?}/${given#??} ;;
  esac
  [[ $given == /* ]] || given=$PWD/$given
  [[ -e $given ]] || die "N8N_DIR does not exist: $given"
  [[ -d $given ]] || die "N8N_DIR is not a directory: $given"
  dir=$(cd -- "$given" && printf '%sx' "$PWD") || die "N8N_DIR cannot be entered: $given"
  dir=${dir%x}
}

# is_yes VALUE: whether a switch such as YES=1 is on.
is_yes() {
  case ${1,,} in
    1 | y | yes | true | on) return 0 ;;
    *) return 1 ;;
  esac
}

# is_no VALUE: whether a switch is off; neither yes nor no is left to the caller.
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

# install_packages NAME...: Debian packages, without recommendations; apt's own text is
# shown only when it fails.
install_packages() {
  local output
  if output=$(apt_install "$@" 2>&1); then
    return 0
  fi
  # Package lists that are missing or old are the common reason.
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
