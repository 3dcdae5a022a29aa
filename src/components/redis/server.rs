//! A Redis in its container: what it is asked, and what it answers.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::iter;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail, ensure, Context as _, Result};

use super::replies::{explained, fields, keys, keyspace, modules, quoted, value_of, Keys};
use crate::app::App;
use crate::config::{Config, Secret};
use crate::engine::{Docker, Exec};
use crate::formats::rdb;

/// What ends each reply.
const END: &str = "n8n-backup-end-of-reply";

/// Becomes the server of the image, whatever its entry point does: this adds configuration and takes arguments, or does not.
pub(super) const START: &str = r#"for name in redis-server valkey-server keydb-server; do
  if command -v "$name" >/dev/null; then exec "$name" "$@"; fi
done
echo "the image has no redis-server or valkey-server" >&2
exit 127"#;

/// A Redis in a container.
pub(super) struct Redis<'a> {
    pub(super) docker: &'a Docker,
    pub(super) container: &'a str,
    /// How redis-cli reaches it.
    pub(super) at: Vec<String>,
    /// The user, none for the default one, and its password.
    pub(super) login: Option<(&'a str, &'a Secret)>,
    pub(super) stall: Duration,
}

/// What Redis says about its snapshots.
#[derive(Debug)]
pub(super) struct State {
    /// `LASTSAVE`, in seconds since 1970.
    pub(super) last_save: String,
    /// A save or a rewrite of the append-only file is under way.
    pub(super) busy: bool,
    /// The last save succeeded.
    pub(super) good: bool,
    /// Snapshots begun since the server started; Redis 7 and later.
    pub(super) saves: Option<u64>,
    /// How many keys the save under way has written, so that a long one is not taken for a stalled one.
    pub(super) progress: Option<String>,
    /// Where Redis says that it keeps its data.
    pub(super) dir: Option<String>,
    /// Where the snapshot lies in the container.
    pub(super) file: String,
    /// Keys in all databases.
    pub(super) keys: Option<u64>,
    /// The databases that hold keys.
    pub(super) databases: Vec<u32>,
    /// The modules that were loaded from files, each with its arguments, where Redis tells them.
    pub(super) modules: Option<Vec<Vec<String>>>,
}

impl State {
    /// What is asked, in one session.
    pub(super) const QUESTIONS: [&'static str; 6] = [
        "LASTSAVE",
        "INFO persistence",
        "INFO keyspace",
        "CONFIG GET dir",
        "CONFIG GET dbfilename",
        "MODULE LIST",
    ];

    /// Reads the replies to the questions.
    pub(super) fn read(replies: &[String]) -> Result<Self> {
        let [last_save, info, keyspace_told, dir, name, loaded] = replies else {
            bail!("too few replies from Redis")
        };
        if last_save.parse::<u64>().is_err() {
            return Err(explained(format!("Redis replied: {last_save}")));
        }
        let reply = info.lines().next().unwrap_or_default();
        let info = fields(info);
        // A refusal says nothing of a save.
        let status = info.get("rdb_last_bgsave_status");
        let Some(status) = status.filter(|_| info.contains_key("rdb_bgsave_in_progress")) else {
            return Err(explained(format!("Redis replied to INFO persistence: {reply}")));
        };
        let on = |name: &str| info.get(name).is_some_and(|value| value != "0");
        // A server where CONFIG is renamed or denied: what the official image is set to.
        let told = value_of(dir, "dir");
        let dir = told.unwrap_or("/data");
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
            good: status == "ok",
            saves: info.get("rdb_saves").and_then(|count| count.parse().ok()),
            progress: info.get("current_save_keys_processed").cloned(),
            dir: told.map(str::to_owned),
            file: format!("{dir}/{name}"),
            keys: keys(keyspace_told),
            databases: keyspace(keyspace_told).unwrap_or_default().into_keys().collect(),
            modules: modules(loaded),
        })
    }

    /// Gives back the snapshot that was found where this state says, unless it was made before `LASTSAVE` was `before`: then it is
    /// not that of the save, which lies elsewhere.
    pub(super) fn own_snapshot(&self, before: &str, snapshot: rdb::Summary) -> Result<rdb::Summary> {
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

/// Takes the replies to as many commands out of what redis-cli printed.
pub(super) fn replies(stdout: &[u8], stderr: &str, commands: usize) -> Result<Vec<String>> {
    let text = String::from_utf8_lossy(stdout).replace('\r', "");
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
    if replies.len() != commands + 2 {
        // Without any end, every command was refused for the reason that the first one gives.
        let refused = replies.len() == 1;
        let last = replies.pop().unwrap_or_default();
        if let Some(first) = last.lines().map(str::trim).find(|line| refused && !line.is_empty()) {
            return Err(explained(format!("Redis replied: {first}")));
        }
        let output = [last.trim(), stderr.trim()].join(" ");
        return Err(explained(format!("redis-cli did not get through: {}", output.trim())));
    }
    replies.remove(0);
    replies.pop();
    Ok(replies.into_iter().map(|reply| reply.trim_end().to_owned()).collect())
}

/// The options with which redis-cli reaches the live server. Its certificate need not be one for the name that it has in
/// its own container.
fn reached_at(config: &Config) -> Vec<String> {
    let mut at = vec!["-p".to_owned(), config.redis_port.to_string()];
    if config.redis_tls {
        at.extend(["--tls", "--insecure"].map(str::to_owned));
    }
    at
}

impl<'a> Redis<'a> {
    /// The Redis of the stack.
    pub(super) fn live(app: &'a App, docker: &'a Docker) -> Self {
        let config = &app.config;
        Self {
            docker,
            container: &config.redis_container,
            at: reached_at(config),
            login: config
                .redis_password
                .as_ref()
                .map(|password| (config.redis_username.as_str(), password)),
            stall: config.stall,
        }
    }

    /// Sends commands to Redis in one session of redis-cli and gives each one's reply. They and the password go by
    /// standard input, which nobody else can read.
    pub(super) fn ask(&self, commands: &[&str]) -> Result<Vec<String>> {
        let script = self.script(commands);
        let how = Exec {
            interactive: true,
            ..Exec::default()
        };
        let at = self.at.iter().map(String::as_str);
        let argv: Vec<&str> = iter::once("redis-cli").chain(at.clone()).collect();
        let call = self.docker.exec(self.container, how, &argv);
        let mut output = self
            .docker
            .answer("redis-cli", call, Some(script.clone().into_bytes()))?;
        // Not there.
        if matches!(output.code, Some(126 | 127)) {
            let argv: Vec<&str> = iter::once("valkey-cli").chain(at).collect();
            let call = self.docker.exec(self.container, how, &argv);
            let other = self.docker.answer("valkey-cli", call, Some(script.into_bytes()))?;
            if !matches!(other.code, Some(126 | 127)) {
                output = other;
            }
        }
        replies(&output.stdout, &output.stderr, commands.len())
    }

    /// What has redis-cli log in and run commands.
    pub(super) fn script(&self, commands: &[&str]) -> String {
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
        script
    }

    pub(super) fn state(&self) -> Result<State> {
        State::read(&self.ask(&State::QUESTIONS)?)
    }

    /// Waits until the server answers and has loaded its data, for as long as `patience` when nothing moves; `alive` says when that
    /// is hopeless. Gives what it says of its persistence.
    pub(super) fn loaded(
        &self,
        patience: Duration,
        alive: impl Fn() -> Result<()>,
    ) -> Result<BTreeMap<String, String>> {
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
                            // A command that is denied is not allowed by waiting, nor does a password become right.
                            let refused = reply.contains("AUTH") || reply.starts_with("NOPERM");
                            ensure!(!refused, explained(format!("Redis replied: {reply}")));
                            anyhow!("Redis replied: {reply}")
                        }
                    }
                }
                Err(error) => {
                    let said = format!("{error:#}");
                    let refused = ["NOAUTH", "WRONGPASS", "NOPERM"].iter().any(|why| said.contains(why));
                    if refused {
                        return Err(error);
                    }
                    error
                }
            };
            alive()?;
            if moved.elapsed() >= patience {
                return Err(reason.context(format!("no answer for {} s", patience.as_secs())));
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(500));
        }
    }
}

impl Redis<'_> {
    /// Waits until the append-only file that was just turned on is written.
    pub(super) fn rewritten(&self) -> Result<()> {
        let deadline = Instant::now() + self.stall;
        loop {
            let replies = self.ask(&["INFO persistence"])?;
            let info = fields(&replies.concat());
            let is = |name: &str, value: &str| info.get(name).is_some_and(|now| now == value);
            let busy = is("aof_rewrite_in_progress", "1") || is("aof_rewrite_scheduled", "1");
            if !busy && is("aof_enabled", "1") {
                ensure!(
                    is("aof_last_bgrewrite_status", "ok"),
                    "Redis could not write the append-only file"
                );
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "Redis did not write the append-only file in {} s",
                self.stall.as_secs()
            );
            thread::sleep(Duration::from_millis(50));
        }
    }

    pub(super) fn expect(&self, command: &str, wanted: &str) -> Result<()> {
        let reply = self.ask(&[command])?.concat();
        ensure!(reply == wanted, "Redis replied to {command}: {reply}");
        Ok(())
    }

    pub(super) fn count(&self) -> Result<Keys> {
        let reply = self.ask(&["INFO keyspace"])?.concat();
        keyspace(&reply)
            .map(|databases| {
                databases.values().fold(Keys::default(), |sum, keys| Keys {
                    total: sum.total + keys.total,
                    expiring: sum.expiring + keys.expiring,
                })
            })
            .with_context(|| format!("Redis replied to INFO keyspace: {reply}"))
    }

    /// Runs a script with the queue's prefix in the queue's database, or where that is not known in every one that has keys,
    /// and adds up what it gives.
    pub(super) fn sum(&self, script: &str, config: &Config) -> Result<u64> {
        let reply = self.ask(&["INFO keyspace"])?.concat();
        let databases = keyspace(&reply).context("Redis does not tell its databases")?;
        let call = format!("EVAL {} 0 {}", quoted(script), quoted(&config.queue_prefix));
        let mut sum = 0;
        let is_of_queue = |database: &&u32| config.queue_db.is_none_or(|queue_db| queue_db == **database);
        for database in databases.keys().filter(is_of_queue) {
            let select = format!("SELECT {database}");
            let replies = self.ask(&[&select, &call])?;
            let reply = replies.last().map_or("", String::as_str);
            let reply = reply.strip_prefix("(integer) ").unwrap_or(reply);
            let count = reply.parse::<u64>().ok().and_then(|count| count.checked_add(sum));
            sum = count.with_context(|| format!("Redis replied to the script that looks at n8n's queue: {reply}"))?;
        }
        Ok(sum)
    }
}
