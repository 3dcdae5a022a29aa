//! A snapshot that Redis makes: asked for, waited for, and begun to be copied.

use std::io::{Cursor, Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail, Context as _, Result};

use super::left::{shell_function, Left};
use super::server::{replies, Redis, State};
use super::LISTENS_AFTER;
use crate::app::App;
use crate::process::{Chain, ChildInput, Input};
use crate::report::log::Journal;

/// Commands that let a session wait a few milliseconds: for a replica more than most servers have. Where there is one, or
/// the command is denied, they return at once, which does no harm.
const PAUSES: [&str; 2] = ["WAIT 1 5", "WAIT 1 30"];

/// How often a save is asked for again while saves of the server's own come before it.
const ATTEMPTS: u32 = 3;

/// What begins the line with what a restore has left and the file, between the replies and the copy.
const COPIES: &[u8] = b"n8n-backup-copies ";

/// Follows [`shell_function`]. Takes how redis-cli reaches the server, and by standard input what redis-cli runs, up to an empty
/// line. Prints the replies, a line with what a restore has left and the file that Redis saves to, and that file.
const SESSION: &str = r#"client=redis-cli
command -v redis-cli >/dev/null || client=valkey-cli
commands=
while IFS= read -r line && [ "$line" ]; do
  commands="$commands$line
"
done
replies=$(printf %s "$commands" | "$client" "$@") || exit
told() { printf '%s\n' "$replies" | sed -n "/^$1\$/{n;p;q;}"; }
dir=$(told dir) name=$(told dbfilename)
set -- cat -- "${dir:-/data}/${name:-dump.rdb}"
printf '%s\nn8n-backup-copies %s %s\n' "$replies" "$(left "${dir:-/data}")" "$3"
"#;

/// What messages call the copy.
pub(super) const COPY: &str = "docker exec cat";

/// A save that Redis was told to begin.
pub(super) struct Begun {
    /// The state before.
    pub(super) before: State,
    /// What Redis replied.
    pub(super) reply: String,
    /// The replies to each of [`PAUSES`] and to [`State::QUESTIONS`] after it.
    pub(super) after: Vec<String>,
}

impl Begun {
    fn commands() -> Vec<&'static str> {
        let mut commands = State::QUESTIONS.to_vec();
        // SCHEDULE: a rewrite of the append-only file that is under way only delays ours.
        commands.push("BGSAVE SCHEDULE");
        for pause in PAUSES {
            commands.push(pause);
            commands.extend(State::QUESTIONS);
        }
        commands
    }

    /// Reads the replies to the commands.
    fn read(replies: Vec<String>) -> Result<Self> {
        let mut replies = replies.into_iter();
        let before: Vec<String> = replies.by_ref().take(State::QUESTIONS.len()).collect();
        Ok(Self {
            before: State::read(&before)?,
            reply: replies.next().unwrap_or_default(),
            after: replies.collect(),
        })
    }

    /// Whether the server has not loaded its data yet.
    fn is_too_early(&self) -> bool {
        self.reply.starts_with("LOADING")
    }

    /// Whether another save came first; or may have: what is scheduled behind a rewrite cannot be told from that rewrite
    /// before Redis 7.
    fn is_forestalled(&self) -> bool {
        self.reply.contains("already in progress") || (self.before.saves.is_none() && self.reply.contains("scheduled"))
    }
}

/// A copy of the file that Redis saves to.
pub(super) struct Copy {
    pub(super) chain: Chain,
    /// Ends it when it is dropped.
    pub(super) leash: ChildInput,
    pub(super) stream: Box<dyn Read + Send>,
    /// The file.
    pub(super) file: String,
    /// What an interrupted restore has left beside it.
    pub(super) left: Left,
}

/// The replies, what is left, the file and the beginning of the copy, once all of that is there.
fn parted(output: &[u8]) -> Option<(&[u8], Left, String, &[u8])> {
    let line = |at: &usize| *at == 0 || output[at - 1] == b'\n';
    let mut places = output.windows(COPIES.len()).enumerate();
    let begin = places.find_map(|(at, bytes)| (bytes == COPIES && line(&at)).then_some(at))?;
    let (session, rest) = output.split_at(begin);
    let rest = &rest[COPIES.len()..];
    let end = rest.iter().position(|byte| *byte == b'\n')?;
    let line = String::from_utf8_lossy(&rest[..end]);
    let (left, file) = line.split_once(' ')?;
    Some((session, Left::of(left), file.to_owned(), &rest[end + 1..]))
}

impl Redis<'_> {
    /// Has Redis save, in the session that asks for its state: it sees the end of a small save too, and each session takes
    /// the engine some time.
    pub(super) fn begin_save(&self) -> Result<Begun> {
        Begun::read(self.ask(&Begun::commands())?)
    }

    /// As [`Redis::begin_save`], in a program that copies the snapshot right after, which is that of the save when that was
    /// over by then. Gives nothing where it does not come to that: then another session tells why.
    fn begin_save_and_copy(&self, mut chain: Chain) -> Result<Option<(Begun, Copy)>> {
        let started = Instant::now();
        let at: Vec<&str> = self.at.iter().map(String::as_str).collect();
        let call = self
            .docker
            .exec_leashed_after(&(shell_function() + SESSION), self.container, &at);
        let (leash, mut stream) = chain.stream(COPY, call, Input::Piped)?;
        let mut leash = leash.context("redis-cli has no input")?;
        let commands = Begun::commands();
        // A client that has ended takes no line.
        let _ = writeln!(leash, "{}", self.script(&commands));
        let mut output = Vec::new();
        let mut block = [0; 8192];
        let (session, left, file, rest) = loop {
            if let Some(parts) = parted(&output) {
                break parts;
            }
            match stream.read(&mut block) {
                Ok(n) if n > 0 => output.extend_from_slice(&block[..n]),
                _ if started.elapsed() < self.stall => return Ok(None),
                _ => {
                    return Err(chain
                        .finish()
                        .err()
                        .unwrap_or_else(|| anyhow!("redis-cli did not answer")))
                }
            }
        };
        let Ok(begun) = replies(session, "", commands.len()).and_then(Begun::read) else {
            return Ok(None);
        };
        if begun.is_too_early() {
            return Ok(None);
        }
        let copy = Copy {
            chain,
            leash,
            stream: Box::new(Cursor::new(rest.to_vec()).chain(stream)),
            file,
            left,
        };
        Ok(Some((begun, copy)))
    }

    /// As [`Redis::begin_save`], once the server has loaded its data if it was only just started, as after a reboot of the host in
    /// the hour of the backup.
    pub(super) fn begin_save_once_loaded(&self, app: &App, journal: Journal) -> Result<(Begun, Option<Copy>)> {
        if let Some((begun, copy)) = self.begin_save_and_copy(app.chain())? {
            return Ok((begun, Some(copy)));
        }
        let first = self.begin_save();
        let says = |text: &str| match &first {
            Ok(begun) => begun.reply.starts_with(text),
            Err(error) => format!("{error:#}").contains(text),
        };
        let patience = match () {
            () if says("LOADING") => self.stall,
            // It may listen on another port.
            () if says("Connection refused") => self.stall.min(LISTENS_AFTER),
            () => return first.map(|begun| (begun, None)),
        };
        journal.info("Redis is starting, waiting for it");
        self.loaded(patience, || {
            self.docker.running(self.container, "BACKUP_REDIS_CONTAINER").map(drop)
        })?;
        Ok((self.begin_save()?, None))
    }

    /// Waits for the end of a save, and says whether it was over in the session that began it. One that another save or
    /// rewrite has forestalled is begun anew after that.
    pub(super) fn save(&self, mut begun: Begun, journal: Journal) -> Result<(State, bool)> {
        let mut at_once = true;
        for _ in 0..ATTEMPTS {
            if !begun.is_forestalled() {
                break;
            }
            journal.info("Another save or rewrite is in progress, waiting for it first");
            self.wait(|state| !state.busy)?;
            begun = self.begin_save()?;
            at_once = false;
        }
        let Begun { before, reply, after } = begun;
        journal.info("Triggering BGSAVE");
        if !reply.starts_with("Background saving") {
            bail!("BGSAVE failed: {reply}");
        }
        journal.info("Waiting for BGSAVE to complete...");
        let is_done = |now: &State| {
            let begun = match (before.saves, now.saves) {
                // CONFIG RESETSTAT lets it begin anew.
                (Some(before), Some(now)) => now != before,
                _ => true,
            };
            begun && !now.busy
        };
        let seen = after
            .chunks(1 + State::QUESTIONS.len())
            .filter_map(|answers| State::read(answers.get(1..)?).ok())
            .find(is_done);
        at_once &= seen.is_some();
        let done = match seen {
            Some(state) => state,
            None => self.wait(is_done)?,
        };
        if !done.good {
            bail!("BGSAVE failed: rdb_last_bgsave_status:err (the Redis log says why, a full disk for one)");
        }
        Ok((done, at_once))
    }

    /// Asks again and again until `done`; gives up when the stall limit passes without progress.
    fn wait(&self, done: impl Fn(&State) -> bool) -> Result<State> {
        let limit = self.stall;
        let mut moved = Instant::now();
        let mut progress = None;
        let mut pause = Duration::from_millis(20);
        loop {
            let state = self.state()?;
            if done(&state) {
                return Ok(state);
            }
            if state.progress != progress {
                progress.clone_from(&state.progress);
                moved = Instant::now();
            }
            if moved.elapsed() >= limit {
                return Err(anyhow!("BGSAVE timeout after {} seconds", limit.as_secs()));
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }
}
#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::hint_of;

    #[test]
    fn a_save_that_came_first_is_told_from_ours() {
        let state = |info: &str| State::read(&["1", info, "", "", "", ""].map(str::to_owned));
        let begun = |more: &str, reply: &str| Begun {
            before: state(&format!("rdb_bgsave_in_progress:0\nrdb_last_bgsave_status:ok\n{more}")).unwrap(),
            reply: reply.to_owned(),
            after: Vec::new(),
        };
        assert!(!begun("", "Background saving started").is_forestalled());
        assert!(begun("aof_rewrite_in_progress:1", "Background saving scheduled").is_forestalled());
        assert!(!begun("rdb_saves:3", "Background saving scheduled").is_forestalled());
        assert!(begun("rdb_saves:3", "ERR Background save already in progress").is_forestalled());
    }

    #[test]
    fn a_refusal_tells_nothing_of_saves() {
        let refused = "NOPERM User n8n has no permissions to run the 'info' command";
        let error = State::read(&["1", refused, "# Keyspace", "", "", ""].map(str::to_owned)).unwrap_err();
        assert!(error.to_string().ends_with(refused), "{error}");
        assert!(hint_of(&error).is_some_and(|hint| hint.contains("+info")));
    }

    #[test]
    fn a_session_is_told_from_the_copy_wherever_it_is_cut() {
        let output = b"replies\nn8n-backup-copies staged /data/odd name.rdb\nREDIS\nn8n-backup-copies x\n";
        let whole = parted(output).unwrap();
        assert_eq!(whole.0, b"replies\n");
        assert_eq!((whole.1, whole.2.as_str()), (Left::Staged, "/data/odd name.rdb"));
        assert!(whole.3.starts_with(b"REDIS\n"));
        assert!((0..52).all(|cut| parted(&output[..cut]).is_none()));
    }
}
