#!/usr/bin/env bash
# Syntax, style and lints of everything in the checkout. All findings are shown; any of
# them makes the exit status 1.
set -euo pipefail
. "${BASH_SOURCE[0]%/*}/lib.sh"
cd -- "$root"

failed=0
# finding TEXT...: one thing that is wrong.
finding() {
  printf 'check: %s\n' "$*" >&2
  failed=1
}
# run NAME COMMAND...: a check that is a program of its own.
run() {
  local name=$1
  shift
  say "check: $name"
  "$@" || finding "$name failed"
}

in_git=
if git rev-parse --is-inside-work-tree >/dev/null 2>&1; then
  in_git=yes
  # New files count before they are added; deleted ones no longer do.
  mapfile -d '' -t files < <(git ls-files -z --cached --others --exclude-standard | sort -zu)
else
  mapfile -d '' -t files < <(find . \( -path ./target -o -path ./bin -o -path ./.git \) -prune -o -type f -printf '%P\0')
fi

say 'check: text files (ASCII, LF, run bits)'
declare -A index_mode=()
if [[ -n $in_git ]]; then
  while IFS=$'\t' read -r -d '' entry name; do
    index_mode[$name]=${entry%% *}
  done < <(git ls-files -z --stage)
fi
scripts=()
for file in "${files[@]}"; do
  [[ -f $file && ! -L $file && -s $file ]] || continue
  # Test data is about every character there is.
  unwanted='[^\t\n\x20-\x7e]'
  [[ $file != *.sql ]] || unwanted='\r'
  # Byte for byte: neither a locale nor a binary file's rules decide.
  if line=$(LC_ALL=C grep -anP -m1 "$unwanted" -- "$file"); then
    finding "$file: not plain ASCII with LF line ends: line ${line%%:*}"
  fi
  [[ -z $(tail -c 1 -- "$file" | tr -d '\n') ]] || finding "$file: the last line has no end"
  first=
  IFS= read -r first <"$file" || true
  mode=644
  if [[ $first =~ ^#!\ ?/ ]]; then
    mode=755
    [[ ! $first =~ sh$ ]] || scripts+=("$file")
  elif [[ $file == *.sh ]]; then
    scripts+=("$file")
  fi
  if [[ $mode == 755 && ! -x $file ]]; then
    finding "$file: has an interpreter line but no run bit"
  elif [[ $mode == 644 && -x $file ]]; then
    finding "$file: has a run bit but no interpreter line"
  fi
  if [[ -n ${index_mode[$file]:-} && ${index_mode[$file]} != 100$mode ]]; then
    finding "$file: mode ${index_mode[$file]} in git's index, wanted 100$mode"
  fi
done

say 'check: shell scripts'
for script in "${scripts[@]}"; do
  bash -n -- "$script" || finding "$script: bash -n failed"
done
for shim in scripts/*.sh; do
  cmp -s -- scripts/backup-all.sh "$shim" || finding "$shim: differs from the other shims"
done
if ! command -v shellcheck >/dev/null && may_install_packages; then
  say 'check: installing shellcheck'
  install_packages shellcheck || true
fi
not_run=
if command -v shellcheck >/dev/null; then
  shellcheck -x -P SCRIPTDIR -- "${scripts[@]}" || finding 'shellcheck failed'
else
  not_run='shellcheck (not installed)'
fi

command -v cargo >/dev/null || die 'cargo is not installed: install Rust 1.89 or newer (https://rustup.rs)'
run 'cargo fmt' cargo fmt --check
run 'cargo clippy' cargo clippy --quiet --all-targets -- -D warnings

say 'check: dependencies'
# The project's own line comes first, then what it asks for directly, of every kind.
dependencies=$(cargo tree --locked --quiet --depth 1 --edges normal,build,dev --prefix none --format '{lib}' |
  tail -n +2 | grep -v '^$' | sort -u | tr '\n' ' ')
[[ $dependencies == 'anyhow chrono env_logger log ' ]] ||
  finding "direct dependencies are '$dependencies', wanted anyhow chrono env_logger log"
! grep -nE '^\[(.*\.)?(dev|build)-dependencies' Cargo.toml ||
  finding 'Cargo.toml: dev-dependencies and build-dependencies are not wanted'

say 'check: panics and unsafe code'
# Cargo.toml has the lints; nothing may switch them off.
for lint in unsafe_code unwrap_used expect_used; do
  grep -q "^$lint = " Cargo.toml || finding "Cargo.toml: lint $lint is missing"
done
! grep -rnE '#!?\[(allow|expect)\([^)]*(unsafe_code|unwrap_used|expect_used|warnings|clippy::all)' src ||
  finding 'src: a lint is switched off'

[[ -z $not_run ]] || say "check: did not run: $not_run"
((failed == 0)) || exit 1
say 'check: all good'
