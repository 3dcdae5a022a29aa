#!/usr/bin/env bash
# Tests of make install, uninstall, install-cron and of the shims, in temporary
# directories, with a stand-in for the binary where its arguments are looked at. The program
# itself (N8N_BACKUP_TEST_PROGRAM, else bin/n8n-backup) installs.
# Needs neither Docker nor cron. Prints one line per test; exit status 1 if any failed.
set -euo pipefail
root=$(cd -- "${BASH_SOURCE[0]%/*}/.." && pwd -P)
unset N8N_DIR FILE YES DRY_RUN MAKEFLAGS MFLAGS MAKELEVEL
export LC_ALL=C

work=$(mktemp -d "${TMPDIR:-/tmp}/n8n-backup-install.XXXXXX")
trap 'rm -rf -- "$work"' EXIT
failures=0
tests=0
# The words of the commands, one shim each.
words=()
for shim in "$root"/scripts/*.sh; do
  shim=${shim##*/}
  words+=("${shim%.sh}")
done

# A copy of the checkout's packaging, with a stand-in binary that shows what it was given.
checkout=$work/checkout
mkdir -p "$checkout/bin" "$checkout/tools"
cp -R "$root/scripts" "$root/Makefile" "$checkout/"
# Without the backups and logs of a checkout that is in use.
for keep in "$root"/backups/*/.gitkeep "$root/logs/.gitkeep"; do
  mkdir -p "$checkout/$(dirname -- "${keep#"$root/"}")"
  : >"$checkout/${keep#"$root/"}"
done
: >"$checkout/Cargo.toml"
mkdir "$checkout/src"
cat >"$checkout/tools/stand-in" <<'END'
#!/bin/bash
if [[ ${1-} == install || ${1-} == uninstall ]]; then
  exec PROGRAM "$@"
fi
if [[ $* == --version ]]; then
  echo 'n8n-backup 0.0.0'
else
  printf '<%q>' "$PWD" "$@"
  echo
fi
END
# Where any user can reach it.
program=$checkout/tools/program
install -m 755 "${N8N_BACKUP_TEST_PROGRAM:-$root/bin/n8n-backup}" "$program"
sed -i "s|PROGRAM|$(printf '%q' "$program")|" "$checkout/tools/stand-in"
# cargo build puts the stand-in where the release binary would be.
cat >"$checkout/tools/cargo" <<'END'
#!/bin/bash
mkdir -p target/release
cp tools/stand-in target/release/n8n-backup
END
# crontab with one table in a file; real ones exit with 1 when there is none.
cat >"$checkout/tools/crontab" <<'END'
#!/bin/bash
table=${CRONTAB_FILE:?}
if [[ $1 == -u ]]; then
  table=$table.$2
  shift 2
fi
case $1 in
  -l) [[ ! -e $table.broken ]] || { echo 'cannot read the table' >&2; exit 1; }
      [[ -e $table ]] || { echo 'no crontab for tester' >&2; exit 1; }
      cat "$table" ;;
  -r) rm "$table" ;;
  -) cat >"$table" ;;
  *) exit 2 ;;
esac
END
chmod 755 "$checkout"/tools/*
export CRONTAB_FILE=$work/crontab
# Where timers go; systemd is not told.
export UNIT_DIR=$work/units
PATH=$checkout/tools:$PATH
unset CARGO_TARGET_DIR

# in_checkout TARGET [SETTING...]: make there; its output is kept in $work/out. After an
# installation the stand-in takes the place of the program.
in_checkout() {
  make -C "$checkout" "$@" >"$work/out" 2>&1 </dev/null || return
  if [[ $1 == install && ${2-} == N8N_DIR=* ]]; then
    cmp -- "$program" "${2#N8N_DIR=}/bin/n8n-backup" && cp -- "$checkout/tools/stand-in" "${2#N8N_DIR=}/bin/n8n-backup"
  fi
}

# fresh NAME: sets `dir`, a new n8n directory of that name with three scripts of its owner.
fresh() {
  dir=$work/$1
  rm -rf -- "$dir"
  mkdir -p "$dir/scripts" "$dir/backups/postgres"
  printf '#!/bin/sh\necho original all\n' >"$dir/scripts/backup-all.sh"
  printf '#!/bin/sh\r\necho original without end' >"$dir/scripts/backup-redis.sh"
  chmod 700 "$dir/scripts/backup-all.sh"
  chmod 644 "$dir/scripts/backup-redis.sh"
  ln -s ../elsewhere/restore.sh "$dir/scripts/restore-postgres.sh"
  echo 'own tool' >"$dir/scripts/tool.sh"
  echo 'POSTGRES_USER=n8n' >"$dir/.env"
  echo 'kept' >"$dir/backups/postgres/n8n_20250101_020000.sql.gz"
}

# snapshot DIR: names, types, modes, link targets and contents of everything below it.
snapshot() {
  (
    cd -- "$1"
    find . -printf '%P %y %m %l\n' | sort
    find . -type f -print0 | sort -z | xargs -0 sha256sum
  )
}

# expect WHAT WANTED GOT
expect() {
  [[ $2 == "$3" ]] && return 0
  printf '  %s\n    wanted: %q\n    got:    %q\n' "$1" "$2" "$3"
  return 1
}

# has TEXT FILE: whether the file contains the text.
has() {
  grep -qF -- "$1" "$2" && return 0
  printf '  no "%s" in: %s\n' "$1" "$(cat "$2")"
  return 1
}

# log_line WORD MESSAGE FILE: whether the file is this one ERROR line.
log_line() {
  local text
  text=$(cat "$3")
  [[ $(wc -l <"$3") -eq 1 && $text =~ ^\[ERROR\]\ [0-9]{4}-[0-9]{2}-[0-9]{2}\ [0-9]{2}:[0-9]{2}:[0-9]{2}\ \["$1"\]\  && $text == *"$2"* ]] && return 0
  printf '  not the one ERROR line of [%s] "%s": %s\n' "$1" "$2" "$text"
  return 1
}

# check NAME: runs the function of that name in a subshell where any command that fails
# makes the test fail.
check() {
  tests=$((tests + 1))
  set +e
  (
    set -e
    "$1"
  ) >"$work/report" 2>&1
  local status=$?
  set -e
  if ((status == 0)); then
    printf 'test install::%s ... ok\n' "$1"
  else
    printf 'test install::%s ... FAILED\n' "$1"
    sed 's/^/    /' "$work/report" "$work/out"
    failures=$((failures + 1))
  fi
}

hostile=$'a b\'c "d" $HOME $(id) ; # %e\n\nf\n'

installs_and_keeps_originals() {
  fresh "$hostile"
  in_checkout install N8N_DIR="$dir"
  cmp "$dir/bin/n8n-backup" "$checkout/tools/stand-in"
  local word
  for word in "${words[@]}"; do
    cmp "$dir/scripts/$word.sh" "$root/scripts/$word.sh"
    [[ -x $dir/scripts/$word.sh ]]
  done
  cmp "$dir/scripts/lib/shim.sh" "$root/scripts/lib/shim.sh"
  expect 'original' 'echo original all' "$(sed -n 2p "$dir/scripts/backup-all.sh.orig")"
  expect 'link' '../elsewhere/restore.sh' "$(readlink "$dir/scripts/restore-postgres.sh.orig")"
  [[ ! -e $dir/scripts/backup-n8n.sh.orig ]]
  [[ ! -e $dir/scripts/make ]]
  expect 'other script' 'own tool' "$(cat "$dir/scripts/tool.sh")"
  expect '.env' 'POSTGRES_USER=n8n' "$(cat "$dir/.env")"
  expect 'backup' 'kept' "$(cat "$dir/backups/postgres/n8n_20250101_020000.sql.gz")"
  local part
  for part in backups/{postgres,sqlite,redis,n8n,env} logs; do
    [[ -f $dir/$part/.gitkeep ]]
  done
}

installing_twice_changes_nothing() {
  fresh 'twice over'
  in_checkout install N8N_DIR="$dir"
  snapshot "$dir" >"$work/once"
  in_checkout install N8N_DIR="$dir"
  snapshot "$dir" | diff "$work/once" -
}

uninstall_restores_every_byte() {
  fresh "$hostile"
  in_checkout install N8N_DIR="$dir"
  # Directories and .gitkeep may stay, so they are there before the comparison.
  in_checkout uninstall N8N_DIR="$dir"
  snapshot "$dir" >"$work/after"
  cp -a "$dir" "$work/kept"
  fresh "$hostile"
  cp -a "$work/kept/backups" "$work/kept/logs" "$dir/"
  rm -rf "$work/kept"
  snapshot "$dir" | diff - "$work/after"
}

a_lib_directory_of_the_owner_is_kept() {
  fresh 'with lib'
  mkdir "$dir/scripts/lib"
  echo 'own library' >"$dir/scripts/lib/tool.sh"
  echo 'own shim' >"$dir/scripts/lib/shim.sh"
  snapshot "$dir/scripts" >"$work/before"
  in_checkout install N8N_DIR="$dir"
  cmp "$dir/scripts/lib/shim.sh" "$root/scripts/lib/shim.sh"
  expect 'kept' 'own shim' "$(cat "$dir/scripts/lib/shim.sh.orig")"
  expect 'other library' 'own library' "$(cat "$dir/scripts/lib/tool.sh")"
  # Twice, so that ours is not taken for one of the owner's.
  in_checkout install N8N_DIR="$dir"
  expect 'kept' 'own shim' "$(cat "$dir/scripts/lib/shim.sh.orig")"
  echo 'newer library of the owner' >"$dir/scripts/lib/shim.sh"
  snapshot "$dir" >"$work/changed"
  ! in_checkout install N8N_DIR="$dir" || return 1
  has 'two different scripts of yours' "$work/out"
  snapshot "$dir" | diff "$work/changed" -
  mv "$dir/scripts/lib/shim.sh.orig" "$dir/scripts/lib/shim.sh"
  in_checkout install N8N_DIR="$dir"
  in_checkout uninstall N8N_DIR="$dir"
  snapshot "$dir/scripts" | diff "$work/before" -
}

what_stands_for_the_lib_directory_is_not_replaced() {
  local what
  for what in file 'dangling link' "the checkout's"; do
    fresh 'no lib'
    case $what in
      file) echo 'own file' >"$dir/scripts/lib" ;;
      'dangling link') ln -s nowhere "$dir/scripts/lib" ;;
      *) ln -s "$checkout/scripts/lib" "$dir/scripts/lib" ;;
    esac
    snapshot "$dir" >"$work/before"
    ! in_checkout install N8N_DIR="$dir" || return 1
    snapshot "$dir" | diff "$work/before" -
  done
  ! in_checkout uninstall N8N_DIR="$dir" || return 1
  cmp "$checkout/scripts/lib/shim.sh" "$root/scripts/lib/shim.sh"
}

shims_of_an_older_version_are_not_kept_as_originals() {
  fresh 'upgrade'
  in_checkout install N8N_DIR="$dir"
  rm -r "$dir/scripts/lib"
  # These held all of their code themselves.
  local word
  for word in "${words[@]}" retired; do
    printf '#!/usr/bin/env bash\n# n8n-backup shim: runs the command that this file is named after, for the n8n project\nexit 3\n' \
      >"$dir/scripts/$word.sh"
    chmod 755 "$dir/scripts/$word.sh"
  done
  in_checkout install N8N_DIR="$dir"
  expect 'originals' 'backup-all.sh.orig backup-redis.sh.orig restore-postgres.sh.orig' "$(cd "$dir/scripts" && echo *.orig)"
  expect 'original' 'echo original all' "$(sed -n 2p "$dir/scripts/backup-all.sh.orig")"
  cmp "$dir/scripts/cleanup-backups.sh" "$root/scripts/cleanup-backups.sh"
  in_checkout uninstall N8N_DIR="$dir"
  expect 'scripts' 'backup-all.sh backup-redis.sh restore-postgres.sh tool.sh' "$(cd "$dir/scripts" && echo *)"
}

a_changed_original_is_never_overwritten() {
  fresh 'changed'
  in_checkout install N8N_DIR="$dir"
  echo 'newer script of the owner' >"$dir/scripts/backup-all.sh"
  snapshot "$dir" >"$work/before"
  ! in_checkout install N8N_DIR="$dir" || return 1
  has 'two different scripts of yours' "$work/out"
  snapshot "$dir" | diff "$work/before" -
  in_checkout uninstall N8N_DIR="$dir"
  expect 'script' 'newer script of the owner' "$(cat "$dir/scripts/backup-all.sh")"
  expect 'original' 'echo original all' "$(sed -n 2p "$dir/scripts/backup-all.sh.orig")"
}

originals_checked_out_again_are_replaced_again() {
  fresh 'checked out'
  in_checkout install N8N_DIR="$dir"
  cp "$dir/scripts/backup-all.sh.orig" "$dir/scripts/backup-all.sh"
  in_checkout install N8N_DIR="$dir"
  cmp "$dir/scripts/backup-all.sh" "$root/scripts/backup-all.sh"
  expect 'original' 'echo original all' "$(sed -n 2p "$dir/scripts/backup-all.sh.orig")"
}

bad_directories_are_refused() {
  ! in_checkout install N8N_DIR="$work/no such" || return 1
  has 'does not exist' "$work/out"
  : >"$work/plain file"
  ! in_checkout install N8N_DIR="$work/plain file" || return 1
  has 'is not a directory' "$work/out"
  fresh 'linked'
  rm -r "$dir/scripts"
  ln -s "$checkout/scripts" "$dir/scripts"
  snapshot "$checkout/scripts" >"$work/before"
  ! in_checkout install N8N_DIR="$dir" || return 1
  ! in_checkout uninstall N8N_DIR="$dir" || return 1
  snapshot "$checkout/scripts" | diff "$work/before" -
}

the_checkout_itself_is_only_built() {
  in_checkout build
  snapshot "$checkout" >"$work/before"
  in_checkout install
  ! in_checkout uninstall || return 1
  has 'N8N_DIR is this checkout' "$work/out"
  snapshot "$checkout" | diff "$work/before" -
}

root_leaves_the_files_to_their_owner() {
  fresh 'owned'
  chown -R 12345:23456 "$dir"
  in_checkout install N8N_DIR="$dir"
  expect 'foreign files' '' "$(find "$dir" ! -uid 12345 -o ! -gid 23456)"
}

root_follows_no_link_of_the_owner() {
  fresh 'planted'
  local victim=$work/victim part
  rm -rf -- "$victim" && mkdir -- "$victim" && echo keep >"$victim/file"
  chmod 755 "$victim"
  for part in logs backups/redis; do
    ln -s -- "$victim" "$dir/$part"
  done
  mkdir "$dir/backups/n8n"
  ln -s -- "$victim/new" "$dir/backups/n8n/.gitkeep"
  chown -hR 12345:23456 "$dir"
  in_checkout install N8N_DIR="$dir" || true
  expect 'victim' 'file' "$(ls -A -- "$victim")"
  expect 'owner' '0 755' "$(stat -c '%u %a' -- "$victim")"
  rm -- "$dir/logs" "$dir/backups/redis"
  in_checkout install N8N_DIR="$dir"
  expect 'foreign files' '' "$(find "$dir" ! -uid 12345 -o ! -gid 23456)"
  ln -s -- "$victim" "$dir/bin/link"
  in_checkout uninstall N8N_DIR="$dir"
  expect 'victim' 'keep' "$(cat "$victim/file")"
  [[ ! -e $dir/bin/n8n-backup ]]
}

root_refuses_a_directory_that_others_may_write_to() {
  fresh 'shared'
  chmod 777 "$dir/scripts"
  ! in_checkout install N8N_DIR="$dir" || return 1
  has 'others may write to' "$work/out"
}

new_directories_are_for_their_owner_alone() {
  fresh 'private'
  in_checkout install N8N_DIR="$dir"
  expect 'modes' '700 700 700' "$(stat -c %a -- "$dir/logs" "$dir/backups/redis" "$dir/backups/sets" | paste -sd ' ')"
  # Those that are there keep theirs.
  expect 'mode' '755' "$(stat -c %a -- "$dir/backups/postgres")"
  chmod 755 "$dir/logs"
  in_checkout install N8N_DIR="$dir"
  expect 'mode' '755' "$(stat -c %a -- "$dir/logs")"
}

what_another_user_has_made_is_told_before_anything_changes() {
  fresh 'backed up by root'
  mkdir -p "$dir/backups/redis" "$dir/logs"
  chown -R nobody "$dir"
  chown -R root "$dir/backups" "$dir/logs"
  ! in_checkout install N8N_DIR="$dir" || return 1
  has "not writable for user $(id -u nobody): $dir/backups" "$work/out"
  has 'this was tried as the owner' "$work/out"
  [[ ! -e $dir/bin && ! -e $dir/scripts/lib ]]
  chown -R nobody "$dir"
  in_checkout install N8N_DIR="$dir"
}

the_owner_of_the_directory_gets_the_cron_line() {
  fresh 'of another user'
  in_checkout install N8N_DIR="$dir"
  rm -f "$CRONTAB_FILE"
  chown -R nobody "$dir"
  in_checkout install-cron N8N_DIR="$dir"
  has 'crontab of nobody' "$work/out"
  [[ ! -e $CRONTAB_FILE ]]
  has 'backup-all.sh' "$CRONTAB_FILE.nobody"
  in_checkout uninstall-cron N8N_DIR="$dir"
  [[ ! -e $CRONTAB_FILE.nobody ]]
}

what_the_owner_of_the_directory_may_not_do_is_told() {
  fresh 'of another user'
  in_checkout install N8N_DIR="$dir"
  in_checkout install-cron N8N_DIR="$dir"
  chown -R nobody "$dir"
  mkdir -p "$work/docker"
  printf '#!/bin/bash\n((UID == 0))\n' >"$work/docker/docker"
  chmod 755 "$work/docker" "$work/docker/docker"
  local target
  for target in install-timer install-cron; do
    PATH=$work/docker:$PATH in_checkout "$target" N8N_DIR="$dir"
    has 'nobody may not use docker' "$work/out"
    has "root's crontab runs it, too" "$work/out"
    PATH=$work/docker:$PATH in_checkout "un$target" N8N_DIR="$dir"
  done
  # Of an owner without a name, nothing can ask.
  chown -R 4711 "$dir"
  PATH=$work/docker:$PATH in_checkout install-timer N8N_DIR="$dir"
  ! grep 'may not use docker' "$work/out" || return 1
  PATH=$work/docker:$PATH in_checkout uninstall-timer N8N_DIR="$dir"
  chown -R nobody "$dir"
  printf '#!/bin/sh\n' >"$work/docker/docker"
  PATH=$work/docker:$PATH in_checkout install-cron N8N_DIR="$dir"
  ! grep 'may not use docker' "$work/out" || return 1
  rm -- "$CRONTAB_FILE"*
}

a_timer_that_systemd_does_not_take_leaves_no_unit() {
  fresh 'without a bus'
  in_checkout install N8N_DIR="$dir"
  mkdir -p "$work/home" "$work/systemctl"
  chown -R nobody "$dir" "$work/home"
  printf '#!/bin/sh\nexit 1\n' >"$work/systemctl/systemctl"
  chmod 755 "$work/systemctl" "$work/systemctl/systemctl"
  ! setpriv --reuid 65534 --regid 65534 --clear-groups env -u UNIT_DIR -u XDG_CONFIG_HOME HOME="$work/home" \
    PATH="$work/systemctl:$PATH" N8N_DIR="$dir" "$checkout/scripts/make/timer.sh" add >"$work/out" 2>&1 || return 1
  has 'no new one was installed' "$work/out"
  expect 'units' '' "$(find "$work/home" -type f)"
}

an_unwritable_directory_is_refused() {
  fresh 'read only'
  chmod 555 "$dir"
  ! setpriv --reuid 65534 --regid 65534 --clear-groups \
    env N8N_DIR="$dir" "$checkout/scripts/make/install.sh" >"$work/out" 2>&1 || return 1
  has 'not writable' "$work/out"
  [[ ! -e $dir/bin ]]
}

mistyped_settings_stop_make() {
  ! in_checkout cleanup DRYRUN=1 || return 1
  has 'unknown setting DRYRUN' "$work/out"
  in_checkout cleanup DRY_RUN=1
  has '<cleanup-backups><--dry-run>' "$work/out"
  in_checkout cleanup
  has '<cleanup-backups>' "$work/out"
  ! grep -q dry-run "$work/out"
}

make_passes_file_names_whole() {
  fresh "$hostile"
  local file=$'backups/postgres/x y\'$z.sql.gz'
  : >"$dir/$file"
  in_checkout restore N8N_DIR="$dir" FILE="$file" YES=1
  printf '<%q>' --project-dir "$dir" restore-postgres "$dir/$file" --yes >"$work/wanted"
  has "$(cat "$work/wanted")" "$work/out"
  local name command
  for name in a.sql.gz.gpg:restore-postgres a.sqlite.gz:restore-sqlite a.rdb:restore-redis a.tar.gz:restore-n8n a.backup.gpg:restore-env; do
    command=${name#*:} name=${name%:*}
    in_checkout restore N8N_DIR="$dir" FILE="/x/$name"
    printf '<%q>' --project-dir "$dir" "$command" "/x/$name" >"$work/wanted"
    has "$(cat "$work/wanted")" "$work/out"
  done
  in_checkout restore-all N8N_DIR="$dir" SET=latest YES=1
  printf '<%q>' --project-dir "$dir" restore-all latest --yes >"$work/wanted"
  has "$(cat "$work/wanted")" "$work/out"
  ! in_checkout restore N8N_DIR="$dir" FILE=/x/a.zip || return 1
  ! in_checkout restore || return 1
  has 'make restore FILE=' "$work/out"
}

cron_line_is_added_once_and_removed() {
  fresh 'cron'
  in_checkout install N8N_DIR="$dir"
  printf 'MAILTO=me\n# 0 2 * * * %s/scripts/backup-all.sh\n5 5 * * * true' "$dir" >"$CRONTAB_FILE"
  in_checkout install-cron N8N_DIR="$dir"
  in_checkout install-cron N8N_DIR="$dir"
  local line="0 2 * * * $dir/scripts/backup-all.sh >> $dir/logs/backup.log 2>&1"
  expect 'table' "$(printf 'MAILTO=me\n# 0 2 * * * %s/scripts/backup-all.sh\n5 5 * * * true\n%s' "$dir" "$line")" "$(cat "$CRONTAB_FILE")"
  in_checkout uninstall-cron N8N_DIR="$dir"
  expect 'table' "$(printf 'MAILTO=me\n# 0 2 * * * %s/scripts/backup-all.sh\n5 5 * * * true' "$dir")" "$(cat "$CRONTAB_FILE")"
  rm "$CRONTAB_FILE"
  in_checkout install-cron N8N_DIR="$dir"
  expect 'new table' "$line" "$(cat "$CRONTAB_FILE")"
  in_checkout uninstall-cron N8N_DIR="$dir"
  [[ ! -e $CRONTAB_FILE ]]
}

the_line_of_another_stack_is_left_alone() {
  fresh 'cron'
  in_checkout install N8N_DIR="$dir"
  local others
  others=$(printf '5 5 * * * %s/scripts/backup-all.sh%s\n' "/opt$dir" '' "\$HOME$dir" '' "$dir" '.orig')
  echo "$others" >"$CRONTAB_FILE"
  in_checkout install-cron N8N_DIR="$dir"
  has 'Added to the crontab' "$work/out"
  in_checkout uninstall-cron N8N_DIR="$dir"
  ! grep 'Not removed' "$work/out" || return 1
  expect 'table' "$others" "$(cat "$CRONTAB_FILE")"
  # However it is written, ours is found.
  local line
  for line in "\"$dir/scripts/backup-all.sh\"" "true;$dir/scripts/backup-all.sh" "S=$dir/scripts/backup-all.sh; \$S" \
    "echo \`$dir/scripts/backup-all.sh\`" "{$dir/scripts/backup-all.sh}"; do
    echo "5 5 * * * $line" >"$CRONTAB_FILE"
    in_checkout install-cron N8N_DIR="$dir"
    has 'Already in the crontab' "$work/out"
  done
  rm "$CRONTAB_FILE"
}

backups_of_several_directories_begin_apart() {
  rm -rf -- "$CRONTAB_FILE" "$UNIT_DIR"
  local name
  for name in one 'number two' three; do
    fresh "$name"
    in_checkout install N8N_DIR="$dir"
  done
  in_checkout install-timer N8N_DIR="$work/one"
  has 'nightly at 02:00' "$work/out"
  # Again, it keeps its time.
  in_checkout install-timer N8N_DIR="$work/one"
  has 'nightly at 02:00' "$work/out"
  in_checkout install-cron N8N_DIR="$work/number two"
  has "20 2 * * * '$work/number two/scripts/backup-all.sh' >>" "$CRONTAB_FILE"
  in_checkout install-timer N8N_DIR="$work/three"
  has 'nightly at 02:40' "$work/out"
  in_checkout uninstall-cron N8N_DIR="$work/number two"
  [[ ! -e $CRONTAB_FILE ]]
  rm -r -- "$UNIT_DIR"
}

what_runs_it_already_is_named() {
  rm -rf -- "$CRONTAB_FILE" "$UNIT_DIR"
  fresh 'run twice'
  in_checkout install N8N_DIR="$dir"
  in_checkout install-cron N8N_DIR="$dir"
  ! grep Warning "$work/out" || return 1
  in_checkout install-timer N8N_DIR="$dir"
  has 'runs it, too, and the second run fails where they begin together; make uninstall-cron' "$work/out"
  in_checkout install-cron N8N_DIR="$dir"
  has '.timer runs it, too, and the second run fails where they begin together; make uninstall-timer' "$work/out"
  in_checkout uninstall-cron N8N_DIR="$dir"
  in_checkout uninstall-timer N8N_DIR="$dir"
  rmdir -- "$UNIT_DIR"
  rm -- "$dir/scripts/backup-all.sh.orig"
  in_checkout uninstall N8N_DIR="$dir"
  has 'fails from now on' "$work/out"
}

cron_line_runs_in_a_directory_with_spaces() {
  fresh "it's 100% mine"
  in_checkout install N8N_DIR="$dir"
  in_checkout install-cron N8N_DIR="$dir"
  local command
  command=$(cat "$CRONTAB_FILE")
  command=${command#'0 2 * * * '}
  # As cron hands it to the shell: a bare percent sign would end the command.
  command=${command//\\%/$'\001'}
  expect 'bare percent signs' '' "${command//[!%]/}"
  env -i HOME="$work" PATH=/usr/bin:/bin SHELL=/bin/sh /bin/sh -c "${command//$'\001'/%}"
  has '<backup-all>' "$dir/logs/backup.log"
  in_checkout uninstall-cron N8N_DIR="$dir"
}

an_unreadable_crontab_is_not_replaced() {
  fresh 'cron'
  in_checkout install N8N_DIR="$dir"
  echo 'precious' >"$CRONTAB_FILE"
  : >"$CRONTAB_FILE.broken"
  ! in_checkout install-cron N8N_DIR="$dir" || return 1
  rm "$CRONTAB_FILE.broken"
  expect 'table' 'precious' "$(cat "$CRONTAB_FILE")"
  rm "$CRONTAB_FILE"
}

a_missing_crontab_program_is_named() {
  fresh 'cron'
  in_checkout install N8N_DIR="$dir"
  mkdir -p "$work/without"
  local program
  for program in bash env make sed grep id cat dirname stat cksum cut; do
    ln -sf "$(command -v "$program")" "$work/without/$program"
  done
  ! PATH=$work/without N8N_DIR=$dir "$checkout/scripts/make/cron.sh" add >"$work/out" 2>&1 || return 1
  has 'crontab is not installed' "$work/out"
}

a_missing_cargo_is_named() {
  mkdir -p "$work/without"
  ln -sf "$(command -v bash)" "$(command -v env)" "$work/without/"
  ! PATH=$work/without "$checkout/scripts/make/build.sh" >"$work/out" 2>&1 || return 1
  expect 'lines' 1 "$(wc -l <"$work/out")"
  has 'cargo is not installed' "$work/out"
}

shims_pass_directory_word_and_arguments() {
  fresh "$hostile"
  in_checkout install N8N_DIR="$dir"
  local word wanted
  cd /
  for word in "${words[@]}"; do
    wanted=$(printf '<%q>' / --project-dir "$dir" "$word" 'a b' '' $'c\nd' '*')
    expect "$word" "$wanted" "$(env -i PATH=/usr/bin:/bin "$dir/scripts/$word.sh" 'a b' '' $'c\nd' '*')"
  done
  # By a relative path, and with a search path of cd.
  cd "$dir"
  wanted=$(printf '<%q>' "$dir" --project-dir "$dir" backup-all)
  expect 'relative' "$wanted" "$(CDPATH=$checkout bash scripts/backup-all.sh)"
  cd scripts
  wanted=$(printf '<%q>' "$dir/scripts" --project-dir "$dir" backup-all)
  expect 'no slash' "$wanted" "$(bash backup-all.sh)"
}

shims_work_through_links() {
  fresh "$hostile"
  in_checkout install N8N_DIR="$dir"
  # What stands beside a link is not what the shim needs.
  local links=$work/-links$'\n' link wanted
  mkdir -p "$links/lib" "$links/deep"
  echo 'exit 9' >"$links/lib/shim.sh"
  ln -s "$dir/scripts/backup-all.sh" "$links/absolute"
  ln -s "../${dir##*/}/scripts/backup-all.sh" "$links/relative"
  ln -s absolute "$links/chain"
  ln -s ../relative "$links/deep/chain"
  ln -s deep "$links/directory"
  ln -s absolute "$links/-dash"
  cd "$links"
  wanted=$(printf '<%q>' "$PWD" --project-dir "$dir" backup-all -x)
  for link in absolute relative chain deep/chain directory/chain -dash; do
    expect "link $link" "$wanted" "$("$links/$link" -x)"
    expect "link ./$link" "$wanted" "$("./$link" -x)"
    expect "bash $link" "$wanted" "$(bash -- "$link" -x)"
    expect "in cron's environment, $link" "$wanted" "$(env -i HOME=/ LOGNAME=x PATH=/usr/bin:/bin SHELL=/bin/sh "$links/$link" -x)"
  done
  cd ..
  wanted=$(printf '<%q>' "$PWD" --project-dir "$dir" backup-all -x)
  expect 'a relative path that begins with a dash' "$wanted" "$(bash -- "${links##*/}/deep/chain" -x)"
  # Links on the way: the project is where the path leads, also when its scripts are kept in another place.
  ln -s "${dir##*/}" "$work/stack"
  wanted=$(printf '<%q>' "$PWD" --project-dir "$work/stack" backup-all)
  expect 'the project by a link' "$wanted" "$("$work/stack/scripts/backup-all.sh")"
  mv "$dir/scripts" "$work/kept scripts"$'\n'
  ln -s "../kept scripts"$'\n' "$dir/scripts"
  wanted=$(printf '<%q>' "$PWD" --project-dir "$dir" backup-all)
  expect 'scripts by a link' "$wanted" "$("$dir/scripts/backup-all.sh")"
  # Nothing of that needs an open standard output, and a missing program is told.
  rm "$dir/bin/n8n-backup"
  ! "$links/deep/chain" 2>"$work/stderr" >&- || return 1
  log_line backup-all 'Standard output is closed' "$work/stderr"
  ! "$links/deep/chain" >"$work/stdout" || return 1
  log_line backup-all 'bin/n8n-backup is missing' "$work/stdout"
  rm -rf -- "$links" "$work/stack" "$work/kept scripts"$'\n'
}

a_missing_binary_is_one_log_line() {
  local word problem
  for problem in missing empty directory 'no run bit'; do
    for word in backup-all restore-postgres; do
      fresh 'no binary'
      in_checkout install N8N_DIR="$dir"
      rm "$dir/bin/n8n-backup"
      case $problem in
        empty) install -m 755 /dev/null "$dir/bin/n8n-backup" ;;
        directory) mkdir "$dir/bin/n8n-backup" ;;
        'no run bit') echo 'exit 0' >"$dir/bin/n8n-backup" ;;
      esac
      ! "$dir/scripts/$word.sh" >"$work/stdout" 2>"$work/stderr" || return 1
      expect "stderr, $problem" '' "$(cat "$work/stderr")"
      log_line "$word" 'make install' "$work/stdout"
      cmp "$work/stdout" "$dir/logs/backup.log"
      # As under the crontab line: standard output is the log.
      rm "$dir/logs/backup.log"
      ! "$dir/scripts/$word.sh" >>"$dir/logs/backup.log" 2>&1 || return 1
      log_line "$word" 'make install' "$dir/logs/backup.log"
    done
  done
}

a_closed_standard_output_stops_the_shim() {
  fresh 'closed'
  in_checkout install N8N_DIR="$dir"
  printf '#!/bin/sh\n: >"%s/was run"\n' "$work" >"$dir/bin/n8n-backup"
  ! "$dir/scripts/backup-all.sh" 2>"$work/stderr" >&- || return 1
  log_line backup-all 'Standard output is closed' "$work/stderr"
  cmp "$work/stderr" "$dir/logs/backup.log"
  [[ ! -e "$work/was run" ]]
}

check installs_and_keeps_originals
check installing_twice_changes_nothing
check uninstall_restores_every_byte
check a_lib_directory_of_the_owner_is_kept
check what_stands_for_the_lib_directory_is_not_replaced
check shims_of_an_older_version_are_not_kept_as_originals
check a_changed_original_is_never_overwritten
check originals_checked_out_again_are_replaced_again
check bad_directories_are_refused
check the_checkout_itself_is_only_built
check mistyped_settings_stop_make
check make_passes_file_names_whole
check cron_line_is_added_once_and_removed
check the_line_of_another_stack_is_left_alone
check backups_of_several_directories_begin_apart
check what_runs_it_already_is_named
check cron_line_runs_in_a_directory_with_spaces
check an_unreadable_crontab_is_not_replaced
check a_missing_crontab_program_is_named
check a_missing_cargo_is_named
check shims_pass_directory_word_and_arguments
check shims_work_through_links
check a_missing_binary_is_one_log_line
check a_closed_standard_output_stops_the_shim
check new_directories_are_for_their_owner_alone
if [[ $EUID -eq 0 ]]; then
  # Another user must be able to reach the directory.
  chmod 755 "$work"
  check root_leaves_the_files_to_their_owner
  check root_follows_no_link_of_the_owner
  check root_refuses_a_directory_that_others_may_write_to
  check what_another_user_has_made_is_told_before_anything_changes
  check the_owner_of_the_directory_gets_the_cron_line
  check what_the_owner_of_the_directory_may_not_do_is_told
  check a_timer_that_systemd_does_not_take_leaves_no_unit
  check an_unwritable_directory_is_refused
else
  printf '%s\n' 'install::root_*, install::the_owner_*, install::what_*, install::a_timer_*, install::an_unwritable_directory_is_refused: need root' \
    >>"${N8N_BACKUP_SKIPPED:-/dev/stderr}"
fi

printf 'install: %d tests, %d failed\n' "$tests" "$failures"
((failures == 0))
