#!/usr/bin/env bash
# Checks syntax, style and lints of the whole checkout. Reports all findings; exit status 1 if
# there are any.
set -euo pipefail
. "${BASH_SOURCE[0]%/*}/lib.sh"
cd -- "$root"

failed=0
# finding TEXT...: reports a finding.
finding() {
  printf 'check: %s\n' "$*" >&2
  failed=1
}
# run NAME COMMAND...: runs a check.
run() {
  local name=$1
  shift
  say "check: $name"
  "$@" || finding "$name failed"
}

in_git=
if git rev-parse --is-inside-work-tree >/dev/null 2>&1; then
  in_git=yes
  # Includes new files that are not yet added, and no deleted ones.
  mapfile -d '' -t files < <(git ls-files -z --cached --others --exclude-standard | sort -zu)
else
  mapfile -d '' -t files < <(find . \( -path ./target -o -path ./bin -o -path ./.git \) -prune -o -type f -printf '%P\0')
fi

say 'check: text files (ASCII, LF, modes)'
declare -A index_mode=()
if [[ -n $in_git ]]; then
  while IFS=$'\t' read -r -d '' entry name; do
    index_mode[$name]=${entry%% *}
  done < <(git ls-files -z --stage)
fi
scripts=()
for file in "${files[@]}"; do
  [[ -f $file && ! -L $file && -s $file && $file != tests/data/*.@(gz|rdb) ]] || continue
  # Test data uses every character there is.
  unwanted='[^\t\n\x20-\x7e]'
  [[ $file != *.sql ]] || unwanted='\r'
  # Bytes, whatever the locale, and in binary files too.
  if line=$(LC_ALL=C grep -anP -m1 "$unwanted" -- "$file"); then
    finding "$file: not ASCII with LF line endings: line ${line%%:*}"
  fi
  [[ -z $(tail -c 1 -- "$file" | tr -d '\n') ]] || finding "$file: no newline at end of file"
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
    finding "$file: has a #! line but is not executable"
  elif [[ $mode == 644 && -x $file ]]; then
    finding "$file: is executable but has no #! line"
  fi
  if [[ -n ${index_mode[$file]:-} && ${index_mode[$file]} != 100$mode ]]; then
    finding "$file: mode ${index_mode[$file]} in git's index, expected 100$mode"
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
# No part of cargo's "all": cargo test would run it, too.
run 'cargo clippy (tests/n8n)' cargo clippy --quiet --test n8n -- -D warnings

say 'check: docs/settings.md'
page=config::table::tests::the_settings_page_has_the_rows_of_the_table
[[ $(cargo test --quiet --bin n8n-backup -- --exact "$page" 2>&1) == *'1 passed'* ]] ||
  finding 'docs/settings.md: differs from the table: UPDATE_DOCS=1 cargo test --bin n8n-backup settings_page writes it'

say 'check: dependencies'
# The first line is the project itself; direct dependencies of every kind follow.
dependencies=$(cargo tree --locked --quiet --depth 1 --edges normal,build,dev --prefix none --format '{lib}' |
  tail -n +2 | grep -v '^$' | sort -u | tr '\n' ' ')
[[ $dependencies == 'anyhow chrono env_logger log ' ]] ||
  finding "direct dependencies are '$dependencies', expected anyhow chrono env_logger log"
! grep -nE '^\[(.*\.)?(dev|build)-dependencies' Cargo.toml ||
  finding 'Cargo.toml: dev-dependencies and build-dependencies are not allowed'

say 'check: panics and unsafe code'
# Cargo.toml turns the lints on; nothing may turn them off.
for lint in unsafe_code unwrap_used expect_used; do
  grep -q "^$lint = " Cargo.toml || finding "Cargo.toml: lint $lint is missing"
done
! grep -rnE '#!?\[(allow|expect)\([^)]*(unsafe_code|unwrap_used|expect_used|warnings|clippy::all)' src ||
  finding 'src: a lint is turned off'

say 'check: layout of src'
# A command reaches components through their registry.
! grep -rnE 'components::(\{[^}]*)?\b(postgres|sqlite|redis|n8n_data|env_file)\b' src/commands ||
  finding 'src/commands: names a component'
while IFS= read -r file; do
  finding "$file: more than 550 lines"
done < <(find src -name '*.rs' ! -name tests.rs -exec awk 'FNR == 551 { print FILENAME }' {} +)
names=(src/*)
((${#names[@]} <= 14)) || finding "src: ${#names[@]} names at its root, expected at most 14"

say 'check: tests that docs/reliability.md names'
# shellcheck disable=SC2016 # code in Markdown
named=$(grep -o '`[a-z0-9_]*::[a-z0-9_:]*[.*`]' docs/reliability.md | tr -d '`.*' | sort -u)
while IFS= read -r name; do
  last=${name%::}
  # Of a name that is cut short, tests begin with it.
  grep -rqE "(fn|mod) ${last##*::}" tests src || finding "docs/reliability.md: there is no test $name"
done <<<"$named"

say 'check: width of prose'
while IFS= read -r line; do
  finding "$line: wider than 120 columns"
done < <(awk 'FNR == 1 { code = 0 } /^ *```/ { code = !code } !code && !/^\|/ && length > 120 { print FILENAME ":" FNR }' ./*.md docs/*.md docs/*/*.md)

say 'check: words'
# The glossary in docs/architecture.md has others for these; the brackets keep them from finding themselves.
! grep -rniE 'thro[w]-?away|worksho[p]|\b(la[y]|la[y]s|lai[d]) down|mad[e][ _]anew|parte[d] by blanks|i[n] doubt it is|fo[r] want of' \
  src scripts docs tests ./*.md ||
  finding 'retired words'

[[ -z $not_run ]] || say "check: skipped: $not_run"
((failed == 0)) || exit 1
say 'check: all good'
