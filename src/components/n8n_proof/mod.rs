//! n8n itself proves a recovered database: it opens every credential, and starts from it.
//!
//! Its container is made from n8n's own image, and shares the network of the database's scratch container, which has none. What it decrypts
//! stays in its memory. It changes what it runs on, so this comes after everything that is counted and compared.

mod environment;
mod log;

use std::io;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context as _, Error, Result};

use self::environment::{Place, PORT};
use self::log::Log;
use super::drill::{self, DrillEnv, Inconclusive, RecoveredDatabase, JOURNAL};
use super::key_proof::Proof;
use super::n8n_data::{unpack_home, user_folder, AT_FACT};
use super::n8n_image::N8nImage;
use crate::config::Secret;
use crate::engine::{Confined, Exec, ScratchContainer};
use crate::process::{Chain, Input};
use crate::report::units;
use crate::store::marks;

/// n8n's user folder in the official image.
const USER_FOLDER: &str = "/home/node";
/// Where n8n reads its environment and writes what it decrypts: in the container's memory, so that neither reaches a disk or the
/// engine's records.
const MEMORY: &str = "/n8n-backup-memory";
const TMPFS: &str = "/n8n-backup-memory:mode=1777,noexec,nosuid,nodev,size=512m";
/// Less free memory than this, and n8n is not started: it would push the live stack out of it.
const LEAST_MEMORY: u64 = 1 << 30;
/// How long an n8n that answers, and does not say that it has started, has to stay up.
const SETTLES: Duration = Duration::from_secs(30);
/// How long a session of the database counts as at work.
const PAUSE: Duration = Duration::from_secs(2);

/// The container's first process. It does nothing, and ends when it is told to.
const WAIT: &str = "trap 'exit 0' INT TERM; sleep 86400 & wait";
/// Takes the environment on standard input.
const RECEIVE: &str = r#"umask 077 && cat >"$1/environment""#;
/// Has n8n decrypt every credential, and prints how many there are, after n8n's messages.
const EXPORT: &str = r#"umask 077
. "$1/environment"
n8n export:credentials --all --decrypted --output="$1/credentials.json" 2>&1 || exit
exec node -e 'console.log(JSON.parse(require("fs").readFileSync(process.argv[1], "utf8")).length)' "$1/credentials.json""#;
/// Becomes n8n's server.
const SERVE: &str = r#". "$1/environment"; exec n8n 2>&1"#;
/// Ends when n8n's database is migrated. Until then an n8n of before 1.59 gives a text with status 200 under every address,
/// and afterwards 404, since it does not know this one.
const READY: &str = "const again = () => setTimeout(ask, 250);
const isReady = async (answer) => answer.status === 404
  || (answer.status === 200 && !(await answer.text()).startsWith('n8n is starting up'));
const ask = () => fetch(`http://127.0.0.1:${process.argv[1]}/healthz/readiness`)
  .then(isReady).then((ready) => ready || again(), again);
ask();";

/// What n8n has proven, as facts of the point.
pub type Facts = Vec<(&'static str, String)>;

/// Has n8n open every credential of the recovered database, and start from it. `archive` is that of its volume. Gives nothing where
/// it cannot be tried, and warns of that.
///
/// # Errors
/// When n8n does not open them, or does not start; with [`Inconclusive`] when a container could not be made.
pub fn prove(
    env: &DrillEnv<'_>,
    image: &N8nImage,
    database: &dyn RecoveredDatabase,
    proof: &Proof,
    archive: &Path,
) -> Result<Facts> {
    if let Some(free) = free_memory(env, database).filter(|free| *free < LEAST_MEMORY) {
        JOURNAL.warn(format_args!(
            "n8n was not started from the backup: {} of memory are free, and it needs {}",
            units::amount(free),
            units::amount(LEAST_MEMORY)
        ));
        return Ok(Vec::new());
    }
    let begun = Instant::now();
    let n8n = N8n::create(env, image, database, proof, archive).context(Inconclusive)?;
    if !n8n.has_programs()? {
        JOURNAL.warn(format_args!(
            "n8n was not started from the backup: image {} holds no n8n",
            image.name
        ));
        return Ok(Vec::new());
    }
    database.forget(&proof.dead).context(Inconclusive)?;
    let before = database.migrations().context(Inconclusive)?;
    let mut facts = Vec::new();
    let expected = proof.credentials - proof.dead.len();
    if expected > 0 {
        let opened = n8n
            .open()
            .with_context(|| format!("{} did not open the credentials", image.title()))?;
        ensure!(
            opened == expected,
            "{} opened {opened} of {expected} credentials",
            image.title()
        );
        let words = format!("{opened} of {expected}");
        JOURNAL.success(format_args!("{} opened {words} credentials", image.title()));
        facts.push((marks::OPENED, format!("{words} by {}", image.title())));
    }
    // The first command of n8n is the one that migrates.
    let migrating = begun.elapsed();
    let (took, log) = n8n
        .start()
        .with_context(|| format!("{} did not start from the backup", image.title()))?;
    let took = units::span(took);
    JOURNAL.success(format_args!("{} started from the backup in {took}", image.title()));
    facts.push((marks::STARTED, format!("{} in {took}", image.title())));
    let failed = log.failed_activations();
    if !failed.is_empty() {
        JOURNAL.info(format_args!(
            "Without a network {} workflow(s) could not be activated: {}",
            failed.len(),
            failed.join(", ")
        ));
    }
    let after = database.migrations().context(Inconclusive)?;
    if let (Some(before), Some(after)) = (before, after) {
        let title = image.title();
        if before == after {
            JOURNAL.info(format_args!(
                "The recovered database had all {} migrations of {title}",
                after.count
            ));
        } else {
            let (from, to) = (before.count, after.count);
            JOURNAL.warn(format_args!(
                "{title} migrated the recovered database from {from} to {to} migrations"
            ));
            JOURNAL.info(format_args!(
                "With the first of n8n's commands that took {}",
                units::span(migrating)
            ));
            facts.push((marks::MIGRATED, format!("from {from} to {to} by {title}")));
        }
    }
    Ok(facts)
}

/// The memory that is free where the scratch containers run; none where that is not told.
fn free_memory(env: &DrillEnv<'_>, database: &dyn RecoveredDatabase) -> Option<u64> {
    let ask = env
        .docker
        .exec(database.container(), Exec::default(), &["cat", "/proc/meminfo"]);
    let text = env.docker.answer("cat", ask, None).ok()?.text();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

/// The owner of a directory in n8n's container, as `UID:GID`. n8n runs as the owner of its user folder: it writes there,
/// too, and nobody else may look into `/root`. The image may name another user, and so may the stack.
fn owner_of(env: &DrillEnv<'_>, container: &ScratchContainer, dir: &str) -> Result<String> {
    let ask = env
        .docker
        .exec(container.id(), Exec::default(), &["stat", "-c", "%u:%g", "--", dir]);
    let output = env.docker.answer("stat", ask, None)?;
    ensure!(output.success, "it cannot be told whose {dir} is: {}", output.stderr);
    Ok(output.text().trim().to_owned())
}

/// n8n's container, in which it does not run yet.
struct N8n<'a> {
    env: &'a DrillEnv<'a>,
    database: &'a dyn RecoveredDatabase,
    container: ScratchContainer,
    /// Who runs its programs, as `UID:GID`.
    user: String,
}

impl<'a> N8n<'a> {
    /// Makes it, with its home from the archive, and starts it.
    fn create(
        env: &'a DrillEnv<'a>,
        image: &N8nImage,
        database: &'a dyn RecoveredDatabase,
        proof: &Proof,
        archive: &Path,
    ) -> Result<Self> {
        let access = database.let_in(image)?;
        let folder = image
            .variable("N8N_USER_FOLDER")
            .filter(|folder| folder.starts_with('/'))
            .map(str::to_owned)
            .or_else(|| user_folder(env.point))
            .unwrap_or_else(|| USER_FOLDER.to_owned());
        let home = format!("{}/.n8n", folder.trim_end_matches('/'));
        // What the archive holds may have been mounted above the home.
        let above = env.point.fact(AT_FACT).filter(|at| home.starts_with(&format!("{at}/")));
        let home = above.map_or(home, str::to_owned);
        let owned = above.unwrap_or(&folder);
        let none = Secret::new("");
        let place = Place {
            database: &access.variables,
            key: proof.key.as_ref().unwrap_or(&none),
            user_folder: &folder,
        };
        let bytes = env.point.fact("n8n.bytes").and_then(|bytes| bytes.parse().ok());
        env.check_room(&image.id, bytes.unwrap_or_default())?;
        let confined = Confined {
            network_of: Some(database.container()),
            volume_of: access.by_files.then(|| database.container()),
            tmpfs: Some(TMPFS),
        };
        let mut container = env.n8n_container(&image.id, confined, &home, &["-c", WAIT])?;
        container.start()?;
        let user = owner_of(env, &container, owned)?;
        unpack_home(env, archive, &container, &home, &user).context("n8n's home could not be unpacked")?;
        let n8n = Self {
            env,
            database,
            container,
            user,
        };
        let receive = n8n.exec(true, &["sh", "-c", RECEIVE, "sh", MEMORY]);
        let variables = environment::script(&environment::of_drill(&image.environment, &place));
        let sent = env.docker.answer("sh", receive, Some(variables.into_bytes()))?;
        ensure!(sent.success, "n8n's environment was not taken: {}", sent.stderr);
        Ok(n8n)
    }

    fn exec(&self, interactive: bool, argv: &[&str]) -> Command {
        let how = Exec {
            interactive,
            user: Some(&self.user),
            ..Exec::default()
        };
        self.env.docker.exec(self.container.id(), how, argv)
    }

    /// Whether what is needed of n8n is in the image.
    fn has_programs(&self) -> Result<bool> {
        let argv = ["sh", "-c", "command -v n8n && command -v node"];
        let asked = self.env.docker.answer("sh", self.exec(false, &argv), None);
        let output = asked.context(Inconclusive)?;
        Ok(output.success)
    }

    /// Has it decrypt every credential, and gives how many it wrote.
    fn open(&self) -> Result<usize> {
        let argv = ["sh", "-c", EXPORT, "sh", MEMORY];
        let export = self.exec(false, &argv);
        let mut chain = Chain::new(self.env.app.config.drill_n8n);
        chain.pulse(self.database.busy()?);
        let (_, stdout) = chain.spawn("n8n export:credentials", export, Input::Null)?;
        let log = Log::default();
        chain.pump("reading from n8n", stdout, io::sink(), log.clone());
        chain.finish().map_err(|error| self.explain(error, &log))?;
        let text = log.last_lines();
        let count = text.rsplit(' ').next().unwrap_or_default();
        count
            .parse()
            .with_context(|| format!("n8n gave {text:?} where a number was expected"))
    }

    /// Starts the server, and waits until it is up. Gives how long that took, and what it printed.
    fn start(&self) -> Result<(Duration, Log)> {
        let log = Log::default();
        let (sender, events) = mpsc::channel();
        for (event, argv) in [
            (Event::Ended, &["sh", "-c", SERVE, "sh", MEMORY][..]),
            (Event::Ready, &["node", "-e", READY, PORT]),
        ] {
            // It ends with the container.
            let mut chain = Chain::new(Duration::from_secs(86_400));
            let (_, stdout) = chain.spawn("n8n", self.exec(false, argv), Input::Null)?;
            chain.pump("reading from n8n", stdout, io::sink(), log.clone());
            let sender = sender.clone();
            thread::spawn(move || sender.send((event, chain.finish().map(drop))));
        }
        let limits = [self.env.app.config.drill_n8n, SETTLES];
        let took = until_up(&events, &log, limits, self.database.busy()?).map_err(|error| self.explain(error, &log))?;
        Ok((took, log))
    }

    /// Adds n8n's last lines to a failure. They tell of a full disk; whether n8n was ended they are not asked, since they
    /// name workflows, which are called anything.
    fn explain(&self, error: Error, log: &Log) -> Error {
        let limit = ("BACKUP_DRILL_N8N_MEMORY", &*self.env.app.config.drill_n8n_memory);
        let error = log.explain(drill::explain(error, "n8n", limit));
        drill::explain_full_disk(error, &log.last_lines())
    }
}

/// Waits until n8n is ready and says that it has started. One that does not say so, as another version may, has to stay up
/// for the second limit. Gives how long the start took.
fn until_up(
    events: &Receiver<Outcome>,
    log: &Log,
    [limit, settles]: [Duration; 2],
    busy: impl Fn() -> bool,
) -> Result<Duration> {
    let begun = Instant::now();
    let mut deadline = begun + limit;
    let mut ready = None;
    loop {
        match events.recv_timeout(Duration::from_millis(50)) {
            Ok((_, Err(error))) => return Err(error),
            Ok((Event::Ended, Ok(()))) => bail!("it ended with exit code 0"),
            Ok((Event::Ready, Ok(()))) => {
                ready = Some(begun.elapsed());
                deadline = Instant::now() + settles;
            }
            Err(_) if ready.is_some() && log.is_settled() => return Ok(begun.elapsed()),
            Err(_) if Instant::now() < deadline => {}
            Err(_) => match ready {
                Some(took) => return Ok(took),
                // A migration takes the time that it takes.
                None if busy() => deadline = Instant::now() + PAUSE,
                None => bail!("it was not ready after {} s", limit.as_secs()),
            },
        }
    }
}

/// What n8n's server comes to.
#[derive(Clone, Copy)]
enum Event {
    Ended,
    Ready,
}

/// How the program ended that tells of it.
type Outcome = (Event, Result<()>);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Observer as _;
    use anyhow::anyhow;

    /// What comes of a start whose server is ready, then does the rest, and else stays up.
    fn after_ready(settles: Duration, rest: fn(&mpsc::Sender<Outcome>, &mut Log)) -> Result<Duration> {
        let (sender, events) = mpsc::channel();
        let log = Log::default();
        sender.send((Event::Ready, Ok(()))).unwrap();
        let (mut printed, sends) = (log.clone(), sender.clone());
        let work = thread::spawn(move || {
            thread::sleep(Duration::from_millis(200));
            rest(&sends, &mut printed);
        });
        let done = until_up(&events, &log, [Duration::from_secs(60), settles], || false);
        work.join().unwrap();
        done
    }

    #[test]
    fn an_n8n_that_ends_after_it_was_ready_has_not_started() {
        let failed = after_ready(Duration::from_secs(60), |events, _| {
            events.send((Event::Ended, Err(anyhow!("exit code 1")))).unwrap();
        });
        assert_eq!(failed.unwrap_err().to_string(), "exit code 1");
        let ended = after_ready(Duration::from_secs(60), |events, _| {
            events.send((Event::Ended, Ok(()))).unwrap();
        });
        assert!(ended.is_err());
    }

    #[test]
    fn an_n8n_has_started_when_it_says_so_or_stays_up() {
        let told = after_ready(Duration::from_secs(60), |_, log| {
            log.feed(b"\nEditor is now accessible via:\n").unwrap();
        });
        assert!(told.unwrap() < Duration::from_secs(50));
        let begun = Instant::now();
        let silent = after_ready(Duration::from_millis(300), |_, _| ()).unwrap();
        assert!(begun.elapsed() >= silent + Duration::from_millis(300));
    }

    #[test]
    fn an_n8n_that_works_on_its_database_is_waited_for() {
        let (_sender, events) = mpsc::channel();
        let asked = std::cell::Cell::new(0);
        let busy = || asked.replace(asked.get() + 1) == 0;
        let late = until_up(&events, &Log::default(), [Duration::from_millis(10); 2], busy).unwrap_err();
        assert!(
            late.to_string().starts_with("it was not ready") && asked.get() == 2,
            "{late}"
        );
    }
}
