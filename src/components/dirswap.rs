//! The exchange of what a directory of a volume holds for something new, by renaming: quick, and to be taken back.
//!
//! Everything stands in one directory of our own in there, [`WORK`], until the exchange is done. Whatever the state is in
//! which a run was killed, the next one can tell it by that directory and set it right.

use anyhow::{anyhow, bail, ensure, Result};

use crate::app::App;
use crate::engine::{Docker, Exec, Guard, Label};
use crate::report::log::Journal;
use crate::store::Kind;

/// Our directory within the one that is exchanged.
pub const WORK: &str = ".n8n-backup-restore";

/// The mark in our directory within `dir` that an exchange has begun.
pub fn begun(dir: &str) -> String {
    format!("{dir}/{WORK}/begun")
}

/// Takes the directory, a verb, and for `begin` the names that are exchanged; without a name it is all that is there.
///
/// In our directory: `new` (what comes), `old` (what was there), `root` (owner, mode and time of the directory
/// itself), `names`, `old_as` (how the first of them is kept), `stays` (an entry that has no part in it), and the marks
/// `begun`, `moved` and `back`, which tell how far the exchange has come and which way it goes. Each step may be cut
/// short by the end of its container: what it has left must not look like something else.
const SCRIPT: &str = r#"export LC_ALL=C # a shell that reads names in UTF-8 does not see those that are none
set -eu
verb=$2
# To remove much, or to bring it to disk, takes longer than a wait for an answer may; but not for ever.
alive() {
  left=14400
  while [ $left -gt 0 ] && sleep 1 >/dev/null 2>&1 && kill -0 $$ 2>/dev/null; do
    echo
    left=$((left - 1))
  done
}
case $verb in
  exchange|back|finish)
    alive &
    alive=$!
    trap 'kill $alive 2>/dev/null' EXIT ;;
esac
# What is mounted may be a file: a configuration, a secret, the time zone.
if [ ! -d "$1" ]; then
  case $verb in
    state) echo none; exit ;;
    turn|back) exit ;;
  esac
fi
cd -- "$1"
shift 2
work=.n8n-backup-restore stays=
[ ! -s "$work/stays" ] || IFS= read -r stays <"$work/stays"
# pass FROM TO [NAME...]: moves the entries
pass() {
  from=$1 to=$2
  shift 2
  [ $# -gt 0 ] || set -- "$from"/* "$from"/.[!.]* "$from"/..?*
  for name; do
    name=${name##*/}
    case $name in .n8n-backup-* | "$stays") continue ;; esac
    [ -e "$from/$name" ] || [ -L "$from/$name" ] || continue
    if [ "$to" != none ]; then mv -- "$from/$name" "$to/"
    elif written "$name"; then set_aside "$name"
    else rm -rf -- "${from:?}/$name"
    fi
  done
  # What is left in there would be removed at the end.
  [ "$from" = . ] || [ -z "$(ls -A "$from")" ] || { echo "not all of $from could be moved" >&2; exit 1; }
}
# named FROM TO: the same for the names that were given to begin
named() {
  set -- "$1" "$2"
  if [ -e "$work/names" ]; then
    while IFS= read -r name; do set -- "$@" "$name"; done <"$work/names"
  fi
  pass "$@"
}
# written NAME: whether n8n has worked with what is new there; names are given for what we start ourselves to prove it. An
# archive may hold times of the future.
written() {
  [ ! -e "$work/names" ] || return 1
  [ -n "$(find "./$1" "./$1-wal" ! -type d -newer "$work/moved" ! -newer "$work/back" 2>/dev/null | head -n 1)" ]
}
# given: gives what is ours in there to the owner of the directory
given() {
  owner=$(stat -c '%u:%g' .)
  for name in '' new old root names stays kept dropped old_as begun moved; do
    [ ! -e "$work/$name" ] || chown "$owner" "$work/$name"
  done
}
# kept FROM TO: moves the databases that stay, with what SQLite keeps beside them
kept() {
  [ -e "$work/kept" ] || return 0
  while IFS= read -r name; do
    for end in '' -wal -shm -journal; do
      [ -e "$1/$name$end" ] || continue
      case $name in */*) mkdir -p -- "$2/${name%/*}" ;; esac
      mv -f -- "$1/$name$end" "$2/$name$end"
    done
  done <"$work/kept"
}
# set_aside NAME: moves it out of the way, with what SQLite keeps beside it
set_aside() {
  for end in -wal -shm -journal ''; do
    [ -e "$1$end" ] || [ -L "$1$end" ] || continue
    mv -- "./$1$end" "$work/aside/$1.before-restore-$stamp$end"
  done
}
# aside FROM: the same for what was made since in the place of an entry of FROM, as by n8n that was started by hand
aside() {
  for entry in "$1"/* "$1"/.[!.]* "$1"/..?*; do
    name=${entry##*/}
    [ -e "$entry" ] || [ -L "$entry" ] || continue
    [ -e "$name" ] || [ -L "$name" ] || continue
    set_aside "$name"
  done
}
# close: removes our directory, and gives the directory the properties in $properties
close() {
  rm -rf -- "$work"
  set -- $properties
  chown "$1:$2" .
  chmod "$3" .
  touch -d "@$4" .
}
case $verb in
  state)
    if [ ! -e "$work" ]; then echo none
    elif [ ! -e "$work/begun" ]; then echo staged
    elif [ ! -e "$work/back" ] && [ -e "$work/moved" ] && [ -z "$(ls -A "$work/new")" ]; then echo exchanged
    else echo broken
    fi ;;
  begin)
    properties=$(stat -c '%u %g %a %Y' .)
    mkdir "$work"
    # What starts in there may look at each file, without the rights of root: it is let in as to the directory.
    chmod "$(stat -c %a .)" "$work"
    printf '%s\n' "$properties" >"$work/root"
    [ $# -eq 0 ] || printf '%s\n' "$@" >"$work/names"
    mkdir "$work/new" "$work/old"
    given
    set -- $properties
    printf '%s:%s\n' "$1" "$2" ;;
  stay)
    printf '%s\n' "$1" >"$work/stays.new"
    mv -- "$work/stays.new" "$work/stays" ;;
  keep)
    for name; do
      [ ! -e "$name" ] || printf '%s\n' "$name"
    done >"$work/kept" ;;
  exchange)
    rm -rf -- "$work/new"/.n8n-backup-*
    # The archive may hold what a restore of a database had begun in a directory below.
    find "$work/new" -name "$work" -prune -exec rm -rf -- {} +
    # What is live goes before a copy in the archive.
    mkdir "$work/dropped"
    kept "$work/new" "$work/dropped"
    sync
    : >"$work/begun"
    named . "$work/old"
    kept "$work/old" "$work/new"
    : >"$work/moved"
    pass "$work/new" .
    given ;;
  turn)
    # Others come first: what is new here does not stay.
    [ ! -e "$work/begun" ] || : >"$work/back" ;;
  back)
    if [ -e "$work/begun" ]; then
      : >"$work/back"
      stamp=$(date +%Y%m%d_%H%M%S)
      mkdir -p "$work/aside"
      # An entry moves from one to the other at once: it stands in both only if somebody made it again.
      [ ! -e "$work/moved" ] || aside "$work/new"
      kept "$work/new" "$work/old"
      if [ -e "$work/moved" ]; then
        kept . "$work/old"
        named . none
        rm -f -- "$work/moved"
      fi
      aside "$work/old"
      pass "$work/old" .
      ls -A "$work/aside"
      pass "$work/aside" .
    fi
    if [ -s "$work/root" ]; then properties=$(cat "$work/root"); else properties=$(stat -c '%u %g %a %Y' .); fi
    close ;;
  old_as)
    printf '%s\n' "$1" >"$work/old_as" ;;
  finish)
    if [ -s "$work/old_as" ]; then
      IFS= read -r name <"$work/names"
      IFS= read -r as <"$work/old_as"
      for end in '' -wal -shm -journal; do
        [ ! -e "$work/old/$name$end" ] || mv -- "$work/old/$name$end" "./$as$end"
      done
    fi
    sync
    properties="${*:-$(stat -c '%u %g %a %Y' .)}"
    printf '%s\n' "$properties" >"$work/root"
    # From here on there is nothing to put back.
    rm -f -- "$work/begun"
    close ;;
esac"#;

/// Takes directories. Prints those of which an exchange was begun that was given no names.
const WHOLE: &str = r#"for dir; do
  work=$dir/.n8n-backup-restore
  if [ -e "$work/begun" ] && [ ! -e "$work/names" ]; then printf '%s\n' "$dir"; fi
done"#;

/// Whether an earlier run has begun to exchange all that is in one of these directories, as the helper sees them.
pub fn is_whole_begun<'a>(helper: &Guard, dirs: impl IntoIterator<Item = &'a str>) -> Result<bool> {
    let argv: Vec<&str> = ["sh", "-c", WHOLE, "sh"].into_iter().chain(dirs).collect();
    let docker = helper.docker();
    let output = docker.answer("sh", docker.exec(helper.id(), Exec::default(), &argv), None)?;
    ensure!(output.success, "{}", output.stderr);
    Ok(!output.text().is_empty())
}

/// Starts the helper container in which a restore of a component exchanges its data, once those are gone that were killed with
/// earlier restores of it. In a dry run, beside which a restore may be at work, one that only looks, and all others stay.
pub fn helper_container(
    app: &App,
    docker: &Docker,
    kind: Kind,
    dry_run: bool,
    start: impl FnOnce(&[Label<'_>]) -> Result<Guard>,
) -> Result<Guard> {
    let project = app.owner();
    if dry_run {
        return start(&[Label::Look(&project)]);
    }
    let owner = helper_owner(app, kind);
    let helper = Label::Helper(&owner);
    docker.sweep(helper)?;
    start(&[helper, Label::Restore(&project)])
}

/// Whose the helper containers are in which a component is restored.
pub fn helper_owner(app: &App, kind: Kind) -> String {
    format!("{}-restore-{}", app.owner(), kind.name())
}

/// Removes the helper containers that restores which were killed have left. Gives how many there were. The caller holds the
/// main lock, as every restore does: none of them works. What it has left in the volume is set right by the next restore,
/// in a helper of its own.
pub fn sweep(app: &App, docker: &Docker) -> Result<usize> {
    docker.sweep(Label::Restore(&app.owner()))
}

/// How far an exchange has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// There is none.
    None,
    /// Something new is in preparation, and what was there is untouched.
    Staged,
    /// It was begun and is not complete.
    Broken,
    /// All that is new is in place, and what was there is kept.
    Exchanged,
}

/// A directory that a helper container sees.
pub struct DirSwap<'a> {
    helper: &'a Guard,
    dir: &'a str,
}

impl<'a> DirSwap<'a> {
    /// The directory `dir`.
    pub fn new(helper: &'a Guard, dir: &'a str) -> Self {
        Self { helper, dir }
    }

    /// Where what comes is to be laid, after [`Exchange::begin`].
    pub fn new_dir(&self) -> String {
        format!("{}/{WORK}/new", self.dir)
    }

    /// How far an exchange has come that an earlier run began; in what is no directory there is none.
    pub fn state(&self) -> Result<State> {
        match self.run("state", &[])?.as_str() {
            "none" => Ok(State::None),
            "staged" => Ok(State::Staged),
            "broken" => Ok(State::Broken),
            "exchanged" => Ok(State::Exchanged),
            other => bail!("the state of {} is not understood: {other}", self.dir),
        }
    }

    /// Makes room for what comes. Only the entries `names` will be exchanged, or all without any. Gives the owner of the
    /// directory, as `UID:GID`.
    pub fn begin(&self, names: &[&str]) -> Result<String> {
        self.run("begin", names)
    }

    /// Has the databases `names` stay in their places, as far as they are there; after [`DirSwap::begin`].
    pub fn keep(&self, names: &[&str]) -> Result<()> {
        self.run("keep", names).map(drop)
    }

    /// Has the entry `name` stay where it is; after [`DirSwap::begin`].
    pub fn stay(&self, name: &str) -> Result<()> {
        self.run("stay", &[name]).map(drop)
    }

    /// Has what the first name of [`DirSwap::begin`] stood for kept as `name` by whichever run finishes the exchange.
    pub fn keep_old_as(&self, name: &str) -> Result<()> {
        self.run("old_as", &[name]).map(drop)
    }

    /// Moves what is there aside and what is new into its place.
    ///
    /// # Errors
    /// When a step fails; [`Exchange::back`] then puts back what was there.
    pub fn exchange(&self) -> Result<()> {
        self.run("exchange", &[]).map(drop)
    }

    /// Puts back what was there, from any state; what was made in its place since is kept under a dated name. After a
    /// step that failed, only in a helper of its own: the step may go on in the old one, since a program that was
    /// started by `docker exec` outlives the client.
    pub fn roll_back(&self, journal: Journal) -> Result<()> {
        for name in self.run("back", &[])?.lines().filter(|line| !line.is_empty()) {
            journal.warn(format_args!(
                "Something was started on what was half replaced: what that made is kept as {}/{name}",
                self.dir
            ));
        }
        Ok(())
    }

    /// Decides that what was there is to be put back, by the next run where this one does not come to that: an exchange that is
    /// complete would be finished. As far as the engine lets us.
    pub fn turn(&self) {
        let _ = self.run("turn", &[]);
    }

    /// Ends the exchange: what was there is removed. `root` is what the directory itself is to be like: owner, group,
    /// mode in octal, time of change in seconds since 1970.
    pub fn finish(&self, root: &[&str]) -> Result<()> {
        self.run("finish", root).map(drop)
    }

    fn run(&self, verb: &str, names: &[&str]) -> Result<String> {
        let mut argv = vec!["sh", "-c", SCRIPT, "sh", self.dir, verb];
        argv.extend_from_slice(names);
        let docker = self.helper.docker();
        let output = docker.answer("sh", docker.exec(self.helper.id(), Exec::default(), &argv), None)?;
        if !output.success {
            return Err(anyhow!("{}", output.stderr)
                .context(format!("the step '{verb}' of the exchange in {} failed", self.dir)));
        }
        Ok(output.text())
    }
}

/// Directories that a helper container sees, and that are exchanged together. Their order tells how far that has come: they are
/// finished from the first on, and put back from the last on.
pub struct DirSwaps<'a>(Vec<DirSwap<'a>>);

impl<'a> DirSwaps<'a> {
    /// The directories `dirs`, of which the first is always exchanged.
    pub fn new(helper: &'a Guard, dirs: impl IntoIterator<Item = &'a str>) -> Self {
        Self(dirs.into_iter().map(|dir| DirSwap::new(helper, dir)).collect())
    }

    /// How far an exchange has come that an earlier run began.
    pub fn state(&self) -> Result<State> {
        let states = self.0.iter().map(DirSwap::state).collect::<Result<Vec<_>>>()?;
        Ok(combined(&states))
    }

    /// As of each.
    pub fn begin(&self) -> Result<()> {
        self.0.iter().try_for_each(|swap| swap.begin(&[]).map(drop))
    }

    /// As of each.
    pub fn exchange(&self) -> Result<()> {
        self.0.iter().try_for_each(DirSwap::exchange)
    }

    /// As of each; the first tells which way it goes, until it is its turn.
    pub fn turn(&self) {
        if let Some(first) = self.0.first() {
            first.turn();
        }
    }

    /// As of each, from any state.
    pub fn roll_back(&self, journal: Journal) -> Result<()> {
        // The first tells from now on which way it goes, until it is its turn.
        if let [first, _, ..] = &self.0[..] {
            first.run("turn", &[])?;
        }
        self.0.iter().rev().try_for_each(|swap| swap.roll_back(journal))
    }

    /// As of each that is not finished yet. `roots` tells what they are to be like.
    pub fn finish(&self, roots: &[Vec<String>]) -> Result<()> {
        for (at, swap) in self.0.iter().enumerate() {
            if swap.state()? == State::None {
                continue;
            }
            let root = roots.get(at).map_or(&[][..], Vec::as_slice);
            swap.finish(&root.iter().map(String::as_str).collect::<Vec<_>>())?;
        }
        Ok(())
    }
}

/// The state of all, of which the first is the first to be exchanged and to be finished, and broken as long as others are put back.
/// One without a state is finished, or takes no part.
fn combined(states: &[State]) -> State {
    let left: Vec<State> = states.iter().copied().filter(|state| *state != State::None).collect();
    // What an end that was cut short has left looks as if it had not begun, and stands before what is yet to be finished.
    let staged = left.iter().take_while(|state| **state == State::Staged).count();
    match () {
        () if left.is_empty() => State::None,
        () if staged == left.len() => State::Staged,
        () if left[staged..].iter().all(|state| *state == State::Exchanged) => State::Exchanged,
        () => State::Broken,
    }
}

#[cfg(test)]
mod tests;
