//! Redis: a snapshot made by BGSAVE, followed through `INFO persistence`, and copied out of the container.

mod drill;
mod restore;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail, ensure, Context as _, Result};

use super::drill::{DrillEnv, Drilled};
use super::{check_plain, About, Backup, Component, RestoreOptions, RestorePlan, LISTENS_AFTER};
use crate::app::App;
use crate::config::Secret;
use crate::engine::{Docker, Exec};
use crate::formats::rdb;
use crate::process::Input;
use crate::report::finding::Report;
use crate::report::log::{self, Journal};
use crate::store::{Kind, Stamp};
use crate::stream::publish::{publish, write};
use crate::stream::read::observe;

const JOURNAL: Journal = Journal::new("backup-redis");

/// Commands that let a session wait a few milliseconds: for a replica more than most servers have. Where there is one, or
/// the command is denied, they return at once, which does no harm.
const PAUSES: [&str; 2] = ["WAIT 1 5", "WAIT 1 30"];

const ABOUT: About = About {
    title: "Redis",
    restored: ["Redis", "Redis"],
    backup_command: Some("backup-redis"),
    step: "backup-redis.sh",
    restore_command: "restore-redis",
    kept: "what Redis holds is dropped once the new is proven",
    key_place: None,
};

/// The queue.
pub struct RedisData;

impl Component for RedisData {
    fn kind(&self) -> Kind {
        Kind::Redis
    }

    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn backup(&self, app: &App, stamp: Stamp) -> Result<Backup> {
        backup(app, stamp)
    }

    fn verify(&self, app: &App, file: &Path) -> Result<()> {
        verify(app, file).map(drop)
    }

    fn servers(&self, app: &App) -> Vec<String> {
        vec![app.config.redis_container.clone()]
    }

    fn plan_restore<'a>(
        &self,
        app: &'a App,
        file: &'a Path,
        options: RestoreOptions,
    ) -> Result<Box<dyn RestorePlan + 'a>> {
        Ok(Box::new(restore::prepare(app, file, options, ABOUT.restore_journal())?))
    }

    fn drill<'a>(&self, env: &'a DrillEnv<'a>, file: &Path) -> Result<Drilled<'a>> {
        drill::drill(env, file)
    }

    fn probe(&self, app: &App, docker: Option<&Docker>, report: &mut Report) {
        let Some(docker) = docker else { return };
        let running = docker.running(&app.config.redis_container, "BACKUP_REDIS_CONTAINER");
        report.result("redis", running.and_then(|_| probe(app, docker)));
    }
}

/// Makes and copies a snapshot.
///
/// # Errors
/// When the container does not run, Redis does not save, or the copy is not whole.
fn backup(app: &App, stamp: Stamp) -> Result<Backup> {
    JOURNAL.info("Starting Redis backup");
    log::check_started()?;
    check_plain(app, Kind::Redis)?;
    let docker = app.docker()?;
    let config = &app.config;
    docker.running(&config.redis_container, "BACKUP_REDIS_CONTAINER")?;
    let _lock = app.hold(Kind::Redis, JOURNAL)?;
    let redis = Redis::live(app, &docker);

    let begun = redis
        .begin_save_once_loaded(JOURNAL)
        .with_context(|| format!("Failed to get LASTSAVE from Redis (port {})", config.redis_port))?;
    let before = begun.before.last_save.clone();
    JOURNAL.info(format_args!("Current LASTSAVE: {before}"));
    let saved = redis.save(begun, JOURNAL)?;
    JOURNAL.info(format_args!("BGSAVE completed. New LASTSAVE: {}", saved.last_save));

    let path = app.store.path(Kind::Redis, stamp);
    JOURNAL.info(format_args!("Copying RDB file to {}", path.display()));
    let partial = app.store.create(Kind::Redis, stamp)?;
    let (scanner, bytes, sha256) = {
        let mut chain = app.chain();
        let copy = docker.exec_leashed(&config.redis_container, &[], &["cat", &saved.file]);
        let (_, stream) = chain.stream("docker exec cat", copy, Input::Leash)?;
        let written = write(&app.config, &mut chain, &partial, stream, rdb::Scanner::new())?;
        chain.finish().and_then(|()| written.get())
    }
    .context("Failed to copy RDB file from container")?;
    if bytes == 0 {
        bail!("Backup file is empty");
    }
    let summary = scanner
        .finish()
        .and_then(|summary| saved.own_snapshot(&before, summary))
        .context("Failed to copy RDB file from container")?;
    if summary.checksum == rdb::Checksum::Absent {
        JOURNAL.warn("The snapshot carries no checksum: set 'rdbchecksum yes' in Redis to have its contents proven");
    }
    let entry = publish(&app.config, partial, bytes).context("Failed to copy RDB file from container")?;
    let mut facts = facts(&summary);
    facts.extend(saved.keys.map(|keys| ("redis.keys".to_owned(), keys.to_string())));
    let backup = Backup::of(Kind::Redis, entry, sha256, facts);
    backup.report(JOURNAL, "Backup completed");
    Ok(backup)
}

/// What a recovery point's manifest says of a snapshot.
fn facts(summary: &rdb::Summary) -> Vec<(String, String)> {
    let mut facts = vec![("redis.rdb-version".to_owned(), summary.version.to_string())];
    let version = summary.aux.get("redis-ver").or_else(|| summary.aux.get("valkey-ver"));
    if let Some(version) = version {
        facts.push(("redis.version".to_owned(), version.clone()));
    }
    facts
}

/// Proves that a snapshot is whole: magic, end and checksum.
///
/// # Errors
/// What is wrong with it.
fn verify(app: &App, path: &Path) -> Result<rdb::Summary> {
    observe(&app.config, path, rdb::Scanner::new())?.finish()
}

/// Asks the server how many keys it holds.
///
/// # Errors
/// When it does not let us in.
fn probe(app: &App, docker: &Docker) -> Result<String> {
    let state = Redis::live(app, docker).state()?;
    let keys = state.keys.map_or_else(|| "its".to_owned(), |keys| keys.to_string());
    Ok(format!(
        "Redis answers on port {} and holds {keys} keys",
        app.config.redis_port
    ))
}

/// How often a save is asked for again while saves of the server's own come before it.
const ATTEMPTS: u32 = 3;

/// A Redis in a container.
struct Redis<'a> {
    docker: &'a Docker,
    container: &'a str,
    /// How redis-cli reaches it.
    at: [String; 2],
    /// The user, none for the default one, and its password.
    login: Option<(&'a str, &'a Secret)>,
    stall: Duration,
}

/// What Redis says about its snapshots.
#[derive(Debug)]
struct State {
    /// `LASTSAVE`, in seconds since 1970.
    last_save: String,
    /// A save or a rewrite of the append-only file is under way.
    busy: bool,
    /// The last save succeeded.
    good: bool,
    /// Snapshots begun since the server started; Redis 7 and later.
    saves: Option<u64>,
    /// How many keys the save under way has written, so that a long one is not taken for a stalled one.
    progress: Option<String>,
    /// Where the snapshot lies in the container.
    file: String,
    /// Keys in all databases.
    keys: Option<u64>,
}

/// A save that Redis was told to begin.
struct Begun {
    /// The state before.
    before: State,
    /// What Redis replied.
    reply: String,
    /// The replies to each of [`PAUSES`] and to [`State::QUESTIONS`] after it.
    after: Vec<String>,
}

impl Begun {
    /// Whether another save came first; or may have: what is scheduled behind a rewrite cannot be told from that rewrite
    /// before Redis 7.
    fn is_forestalled(&self) -> bool {
        self.reply.contains("already in progress") || (self.before.saves.is_none() && self.reply.contains("scheduled"))
    }
}

impl State {
    /// What is asked, in one session.
    const QUESTIONS: [&'static str; 5] = [
        "LASTSAVE",
        "INFO persistence",
        "INFO keyspace",
        "CONFIG GET dir",
        "CONFIG GET dbfilename",
    ];

    /// Reads the replies to the questions.
    fn read(replies: &[String]) -> Result<Self> {
        let [last_save, info, keyspace, dir, name] = replies else {
            bail!("too few replies from Redis")
        };
        if last_save.parse::<u64>().is_err() {
            bail!("Redis replied: {last_save}{}", hint(last_save));
        }
        let info = fields(info);
        let on = |name: &str| info.get(name).is_some_and(|value| value != "0");
        // A server where CONFIG is renamed or denied: what the official image is set to.
        let dir = value_of(dir, "dir").unwrap_or("/data");
        let name = value_of(name, "dbfilename").unwrap_or("dump.rdb");
        Ok(Self {
            last_save: last_save.clone(),
            // A save waits for each of them.
            busy: [
                "rdb_bgsave_in_progress",
                "aof_rewrite_in_progress",
                "module_fork_in_progress",
            ]
            .into_iter()
            .any(on),
            good: info.get("rdb_last_bgsave_status").is_none_or(|status| status == "ok"),
            saves: info.get("rdb_saves").and_then(|count| count.parse().ok()),
            progress: info.get("current_save_keys_processed").cloned(),
            file: format!("{dir}/{name}"),
            keys: keys(keyspace),
        })
    }

    /// Gives back the snapshot that was found where this state says, unless it was made before `LASTSAVE` was `before`: then it is
    /// not that of the save, which lies elsewhere.
    fn own_snapshot(&self, before: &str, snapshot: rdb::Summary) -> Result<rdb::Summary> {
        let seconds = |text: &str| text.parse::<u64>().ok();
        let made = snapshot.aux.get("ctime").and_then(|time| seconds(time));
        if let (Some(made), Some(before), Some(after)) = (made, seconds(before), seconds(&self.last_save)) {
            // A clock that was set back says nothing.
            ensure!(
                made >= before || after < before,
                "{} is older than the save: Redis saves elsewhere and does not say where; allow CONFIG GET, or have it save there (dir, dbfilename)",
                self.file
            );
        }
        Ok(snapshot)
    }
}

impl<'a> Redis<'a> {
    /// The Redis of the stack.
    fn live(app: &'a App, docker: &'a Docker) -> Self {
        let config = &app.config;
        Self {
            docker,
            container: &config.redis_container,
            at: ["-p".to_owned(), config.redis_port.to_string()],
            login: config
                .redis_password
                .as_ref()
                .map(|password| (config.redis_username.as_str(), password)),
            stall: config.stall,
        }
    }

    /// Sends commands to Redis in one session of redis-cli and gives each one's reply. They and the password go by
    /// standard input, which nobody else can read.
    fn ask(&self, commands: &[&str]) -> Result<Vec<String>> {
        const END: &str = "n8n-backup-end-of-reply";
        let mut script = String::new();
        match self.login {
            None => {}
            Some(("", password)) => {
                let _ = writeln!(script, "AUTH {}", quoted(password.reveal()));
            }
            Some((user, password)) => {
                let _ = writeln!(script, "AUTH {} {}", quoted(user), quoted(password.reveal()));
            }
        }
        let _ = writeln!(script, "ECHO {END}");
        for command in commands {
            let _ = writeln!(script, "{command}\nECHO {END}");
        }
        let how = Exec {
            interactive: true,
            ..Exec::default()
        };
        let [option, value] = &self.at;
        let call = self.docker.exec(self.container, how, &["redis-cli", option, value]);
        let output = self.docker.answer("redis-cli", call, Some(script.into_bytes()))?;
        let text = String::from_utf8_lossy(&output.stdout).replace('\r', "");
        let mut replies = vec![String::new()];
        for line in text.lines() {
            if line == END {
                replies.push(String::new());
            } else if let Some(reply) = replies.last_mut() {
                reply.push_str(line);
                reply.push('\n');
            }
        }
        // The reply to AUTH comes first, what follows the last end is nothing.
        if replies.len() != commands.len() + 2 {
            // Without any end, every command was refused for the reason that the first one gives.
            let refused = replies.len() == 1;
            let last = replies.pop().unwrap_or_default();
            if let Some(first) = last.lines().map(str::trim).find(|line| refused && !line.is_empty()) {
                bail!("Redis replied: {first}{}", hint(first));
            }
            let output = [last.trim(), output.stderr.trim()].join(" ");
            bail!(
                "redis-cli did not get through: {}{}",
                output.trim(),
                hint(output.trim())
            );
        }
        replies.remove(0);
        replies.pop();
        Ok(replies.into_iter().map(|reply| reply.trim_end().to_owned()).collect())
    }

    fn state(&self) -> Result<State> {
        State::read(&self.ask(&State::QUESTIONS)?)
    }

    /// Has Redis save, in the session that asks for its state: it sees the end of a small save too, and each session takes
    /// the engine some time.
    fn begin_save(&self) -> Result<Begun> {
        let mut commands = State::QUESTIONS.to_vec();
        // SCHEDULE: a rewrite of the append-only file that is under way only delays ours.
        commands.push("BGSAVE SCHEDULE");
        for pause in PAUSES {
            commands.push(pause);
            commands.extend(State::QUESTIONS);
        }
        let mut replies = self.ask(&commands)?.into_iter();
        let before: Vec<String> = replies.by_ref().take(State::QUESTIONS.len()).collect();
        Ok(Begun {
            before: State::read(&before)?,
            reply: replies.next().unwrap_or_default(),
            after: replies.collect(),
        })
    }

    /// As [`Redis::begin_save`], once the server has loaded its data if it was only just started, as after a reboot of the host in
    /// the hour of the backup.
    fn begin_save_once_loaded(&self, journal: Journal) -> Result<Begun> {
        let first = self.begin_save();
        let says = |text: &str| match &first {
            Ok(begun) => begun.reply.starts_with(text),
            Err(error) => format!("{error:#}").contains(text),
        };
        let patience = match () {
            () if says("LOADING") => self.stall,
            // It may listen on another port.
            () if says("Connection refused") => self.stall.min(LISTENS_AFTER),
            () => return first,
        };
        journal.info("Redis is starting, waiting for it");
        self.loaded(patience, || {
            self.docker.running(self.container, "BACKUP_REDIS_CONTAINER").map(drop)
        })?;
        self.begin_save()
    }

    /// Waits until the server answers and has loaded its data, for as long as `patience` when nothing moves; `alive` says when that
    /// is hopeless. Gives what it says of its persistence.
    fn loaded(&self, patience: Duration, alive: impl Fn() -> Result<()>) -> Result<BTreeMap<String, String>> {
        let mut pause = Duration::from_millis(20);
        let mut moved = Instant::now();
        let mut progress = None;
        loop {
            let reason = match self.ask(&["INFO persistence"]) {
                Ok(replies) => {
                    let info = fields(replies.first().map_or("", String::as_str));
                    match info.get("loading").map(String::as_str) {
                        Some("0") => return Ok(info),
                        Some(_) => {
                            let now = info.get("loading_loaded_bytes").cloned();
                            if now != progress {
                                progress = now;
                                moved = Instant::now();
                            }
                            anyhow!("Redis is still loading")
                        }
                        None => {
                            let reply = replies.concat();
                            let reply = reply.lines().next().unwrap_or_default();
                            // A wrong password does not become right by waiting.
                            ensure!(!reply.contains("AUTH"), "Redis replied: {reply}{}", hint(reply));
                            anyhow!("Redis replied: {reply}")
                        }
                    }
                }
                Err(error) => error,
            };
            alive()?;
            if moved.elapsed() >= patience {
                return Err(reason.context(format!("no answer for {} s", patience.as_secs())));
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(500));
        }
    }

    /// Waits for the end of a save. One that another save or rewrite has forestalled is begun anew after that.
    fn save(&self, mut begun: Begun, journal: Journal) -> Result<State> {
        for _ in 0..ATTEMPTS {
            if !begun.is_forestalled() {
                break;
            }
            journal.info("Another save or rewrite is in progress, waiting for it first");
            self.wait(|state| !state.busy)?;
            begun = self.begin_save()?;
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
        let done = match seen {
            Some(state) => state,
            None => self.wait(is_done)?,
        };
        if !done.good {
            bail!("BGSAVE failed: rdb_last_bgsave_status:err (the Redis log says why, a full disk for one)");
        }
        Ok(done)
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

/// What to do about an error reply.
fn hint(reply: &str) -> &'static str {
    if reply.starts_with("NOAUTH") || reply.starts_with("WRONGPASS") {
        " (set REDIS_PASSWORD in .env, and REDIS_USERNAME for another user than the default one)"
    } else if reply.contains("Connection refused") {
        " (set REDIS_PORT in .env to the port that Redis listens on in its container)"
    } else {
        ""
    }
}

/// An argument as redis-cli reads it from a script, whatever bytes it has.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for byte in text.bytes() {
        let _ = write!(out, "\\x{byte:02x}");
    }
    out.push('"');
    out
}

/// The `name:value` lines of an INFO reply.
fn fields(info: &str) -> BTreeMap<String, String> {
    info.lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect()
}

/// The value in the reply to `CONFIG GET name`.
fn value_of<'a>(reply: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = reply.lines();
    (lines.next() == Some(name))
        .then(|| lines.next())
        .flatten()
        .filter(|value| !value.is_empty())
}

/// The sum of keys over all databases of an `INFO keyspace` reply (`db0:keys=3,expires=0,avg_ttl=0`).
fn keys(keyspace: &str) -> Option<u64> {
    let mut sum = 0;
    for (name, value) in fields(keyspace) {
        if name
            .strip_prefix("db")
            .is_some_and(|number| number.parse::<u32>().is_ok())
        {
            let count = value.split(',').find_map(|field| field.strip_prefix("keys="))?;
            sum += count.parse::<u64>().ok()?;
        }
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_read() {
        assert_eq!(
            keys("# Keyspace\ndb0:keys=3,expires=1,avg_ttl=0\ndb12:keys=4,expires=0,avg_ttl=0"),
            Some(7)
        );
        assert_eq!(keys("# Keyspace"), Some(0));
        assert_eq!(keys("db0:expires=1"), None);
        assert_eq!(value_of("dir\n/data x", "dir"), Some("/data x"));
        assert_eq!(value_of("ERR unknown command 'CONFIG'", "dir"), None);
        assert_eq!(value_of("", "dir"), None);
        assert_eq!(fields("# P\nrdb_saves:4\nx:y:z")["x"], "y:z");
    }

    #[test]
    fn a_save_that_came_first_is_told_from_ours() {
        let begun = |persistence: &str, reply: &str| Begun {
            before: State::read(&["1", persistence, "", "", ""].map(str::to_owned)).unwrap(),
            reply: reply.to_owned(),
            after: Vec::new(),
        };
        assert!(!begun("rdb_bgsave_in_progress:0", "Background saving started").is_forestalled());
        assert!(begun("aof_rewrite_in_progress:1", "Background saving scheduled").is_forestalled());
        assert!(!begun("rdb_saves:3", "Background saving scheduled").is_forestalled());
        assert!(begun("rdb_saves:3", "ERR Background save already in progress").is_forestalled());
    }

    #[test]
    fn any_password_is_one_argument() {
        assert_eq!(quoted("a \"\n"), r#""\x61\x20\x22\x0a""#);
    }
}
