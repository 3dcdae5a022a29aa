//! What the drills of the components share. A drill recovers a backup into a scratch container and compares what is
//! there then with the backup and with the manifest of its recovery point.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail, ensure, Context as _, Error, Result};

use super::n8n_image::N8nImage;
use super::tables::recorded_place;
use crate::app::App;
use crate::config::Secret;
use crate::engine::{
    tells_ended_container, tells_lost_engine, Confined, ContainerSpec, Data, Docker, Label, ScratchContainer,
};
use crate::formats::n8n::Place;
use crate::formats::tar::Names;
use crate::process::hinted;
use crate::report::log::Journal;
use crate::report::units;
use crate::store::lock::{drill_lock, Attempt, Lock};
use crate::store::make_dir;
use crate::store::manifest::{Member, Point};
use crate::stream::read::sha256;

/// Marks an error as one of the set-up: the test could not be made, so it says nothing of the backup.
#[derive(Debug)]
pub struct Inconclusive;

impl fmt::Display for Inconclusive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("The recovery test cannot be made")
    }
}

/// The log of the drills.
pub const JOURNAL: Journal = Journal::new("test-recovery");

/// What a drill has shown.
pub struct Drilled<'a> {
    /// What was recovered and compared, in a few words.
    pub what: String,
    /// How long the recovery took, without the comparison of the file with the manifest.
    pub took: Duration,
    /// The files of n8n's data, with the directories among them that may hold binary data.
    pub files: Option<(Names, Vec<String>)>,
    /// n8n's key, where it was looked for.
    pub key: Option<Option<Secret>>,
    /// The database, still there in a scratch container.
    pub database: Option<Box<dyn RecoveredDatabase + 'a>>,
}

impl<'a> Drilled<'a> {
    /// With what was found where n8n's key may be.
    pub fn with_key(self, key: Option<Secret>) -> Self {
        Self { key: Some(key), ..self }
    }

    /// With the files of n8n's data, and where among them binary data may be.
    pub fn with_files(self, files: Names, places: Vec<String>) -> Self {
        let files = Some((files, places));
        Self { files, ..self }
    }

    /// With the database that was recovered.
    pub fn with_database(self, database: Box<dyn RecoveredDatabase + 'a>) -> Self {
        let database = Some(database);
        Self { database, ..self }
    }
}

/// The migrations of n8n that a database has seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Migrations {
    /// How many.
    pub count: u64,
    /// The name of the newest.
    pub newest: String,
}

/// A recovered database of n8n.
pub trait RecoveredDatabase {
    /// The program that prints what is encrypted in it, as `open.js` takes it, and what that reads on its standard input.
    fn sealed(&self) -> Result<(Command, String)>;

    /// The migrations that it has seen; none where it is not n8n's.
    fn migrations(&self) -> Result<Option<Migrations>>;

    /// The files of binary data that executions name, as n8n keeps them in a directory of its home.
    fn binary_files(&self) -> Result<Vec<String>>;

    /// The scratch container that it is in.
    fn container(&self) -> &str;

    /// Has n8n come to it, and gives the variables that tell n8n where it is.
    fn let_in(&self, n8n: &N8nImage) -> Result<Access>;

    /// Deletes these credentials, and those that hold nothing.
    fn forget(&self, credentials: &[String]) -> Result<()>;

    /// Asks whether n8n works in it.
    fn busy(&self) -> Result<Box<dyn Fn() -> bool + Send>>;

    /// psql in another database of its server, for a script on its standard input: an empty one that is made under the name given.
    fn scratch(&self, _name: &str) -> Result<Command> {
        bail!("the database is on no server that could")
    }
}

/// How n8n comes to a recovered database.
pub struct Access {
    /// The variables that tell where it is.
    pub variables: Vec<(&'static str, String)>,
    /// Whether n8n opens its files, which are on the volume of its container.
    pub by_files: bool,
}

/// Where the drills of one run take place.
pub struct DrillEnv<'a> {
    /// The settings and the backups.
    pub app: &'a App,
    /// The engine.
    pub docker: Docker,
    /// The recovery point that is tested.
    pub point: &'a Point,
    /// The image of PostgreSQL, where it is not to be that of the stack.
    pub postgres_image: Option<String>,
    owner: String,
}

impl<'a> DrillEnv<'a> {
    /// Where n8n's tables were, as the point remembers.
    pub fn recorded_place(&self) -> Option<Place> {
        recorded_place(self.point)
    }

    /// A env for `point`, cleared of what a run that was killed has left. The caller holds the lock of the drills.
    /// Gives also how many containers that were.
    pub fn new(app: &'a App, point: &'a Point) -> Result<(Self, usize)> {
        let docker = app.docker()?;
        let owner = app.owner();
        let left = docker.sweep(Label::Drill(&owner))?;
        let env = Self {
            app,
            docker,
            point,
            postgres_image: None,
            owner,
        };
        Ok((env, left))
    }

    /// An env for a look at `point`. Drills may be at work, whose containers are others.
    pub fn beside(app: &'a App, point: &'a Point) -> Result<Self> {
        Ok(Self {
            app,
            docker: app.docker()?,
            point,
            postgres_image: None,
            owner: format!("{}-look", app.owner()),
        })
    }

    /// The setting of a scratch container's memory, and its value.
    pub fn memory(&self) -> (&'static str, &str) {
        ("BACKUP_DRILL_MEMORY", &self.app.config.drill_memory)
    }

    /// The file of a member.
    pub fn path(&self, member: &Member) -> PathBuf {
        self.app.store.root().join(&member.name)
    }

    /// The ID of the image that the container `name` of the stack was made from. It need not run.
    pub fn image_of(&self, name: &str, setting: &str) -> Result<String> {
        let container = self.docker.container(name).context(Inconclusive)?;
        container
            .map(|container| container.image_id)
            .with_context(|| {
                hinted(
                    format_args!("There is no container {name} whose image could be used"),
                    format_args!("set {setting} in .env if yours is called otherwise"),
                )
            })
            .context(Inconclusive)
    }

    /// Makes a scratch container within the limits of the settings, in which `sh` gets these arguments; it does not run yet.
    pub fn container(&self, image: &str, argv: &[&str]) -> Result<ScratchContainer> {
        self.shell(image, None, Data::Fresh, argv)
    }

    /// As [`DrillEnv::container`], as root.
    pub fn root_container(&self, image: &str, argv: &[&str]) -> Result<ScratchContainer> {
        self.shell(image, Some("0"), Data::Fresh, argv)
    }

    fn shell(&self, image: &str, user: Option<&str>, data: Data<'_>, argv: &[&str]) -> Result<ScratchContainer> {
        let config = &self.app.config;
        let labels = [Label::Drill(&self.owner)];
        let spec = ContainerSpec {
            limits: Some((&config.drill_memory, &config.drill_cpus)),
            user,
            entrypoint: Some("sh"),
            argv,
            ..ContainerSpec::new(&labels, image, data)
        };
        self.docker.create_scratch(&spec).context(Inconclusive)
    }

    /// Makes a container from n8n's image that waits, with a home of its own, a limit of memory of its own, and the processor time that
    /// others leave.
    pub fn n8n_container(
        &self,
        image: &str,
        confined: Confined<'_>,
        home: &str,
        argv: &[&str],
    ) -> Result<ScratchContainer> {
        let labels = [Label::Drill(&self.owner)];
        let spec = ContainerSpec {
            limits: Some((&self.app.config.drill_n8n_memory, "")),
            confined: Some(confined),
            entrypoint: Some("sh"),
            argv,
            ..ContainerSpec::new(&labels, image, Data::FreshAt(home))
        };
        self.docker.create_scratch(&spec)
    }

    /// Runs a program of an image to its end in a scratch container that may do nothing but read its standard input and compute.
    pub fn confined_run(&self, image: &str, program: &str, argv: &[&str]) -> Command {
        let config = &self.app.config;
        let labels = [Label::Drill(&self.owner)];
        self.docker.run_scratch(&ContainerSpec {
            limits: Some((&config.drill_memory, &config.drill_cpus)),
            confined: Some(Confined::default()),
            entrypoint: Some(program),
            argv,
            ..ContainerSpec::new(&labels, image, Data::Fresh)
        })
    }

    /// Starts a scratch container that does nothing, for programs that are run as root in it: with a volume of its own, or with that
    /// of another scratch container, which it goes before.
    pub fn helper(&self, image: &str, of: Option<&ScratchContainer>) -> Result<ScratchContainer> {
        let data = of.map_or(Data::Fresh, |other| Data::Of(other.id()));
        // A first process takes only signals that it asks for.
        let mut helper = self.shell(image, Some("0"), data, &["-c", "trap exit INT; sleep 86400 & wait"])?;
        helper.start().context(Inconclusive)?;
        Ok(helper)
    }

    /// As [`check_room`].
    pub fn check_room(&self, image: &str, bytes: u64) -> Result<()> {
        let label = Label::Drill(&self.owner);
        check_room(self.app, &self.docker, label, image, bytes).context(Inconclusive)
    }
}

/// Makes sure that the engine's disk, which the live stack shares, has room for `bytes` and for what a run of backups
/// asks for on top. Where nothing tells, there is.
pub fn check_room(app: &App, docker: &Docker, label: Label<'_>, image: &str, bytes: u64) -> Result<()> {
    let reserve = app.config.min_free_kb.saturating_mul(1024);
    let free = docker.free_on_engine(label, image)?;
    ensure!(
        free.is_none_or(|free| free >= bytes.saturating_add(reserve)),
        hinted(
            format_args!(
                "Docker's disk has {} free, and this needs {} on top of a reserve of {}",
                units::amount(free.unwrap_or_default()),
                units::amount(bytes),
                units::amount(reserve)
            ),
            "make room there (docker system df tells what takes it)"
        )
    );
    Ok(())
}

/// Keeps other tests away: each clears what another one has left.
pub fn hold(app: &App) -> Result<Lock> {
    make_dir(&app.store.sets_dir())?;
    match Lock::attempt(&drill_lock(app.store.root()))? {
        Attempt::Held(lock) => Ok(lock),
        Attempt::Busy(pid) => bail!("Recovery test already in progress (PID: {pid})"),
    }
}

/// Warns when executions of the recovered database name binary data that the archive of n8n's data lacks.
pub fn compare_binary_data(database: &dyn RecoveredDatabase, (files, places): &(Names, Vec<String>)) {
    let named = match database.binary_files() {
        Ok(named) => named,
        Err(error) => return JOURNAL.warning(&error.context("Binary data were not looked for")),
    };
    let is_there = |file: &&String| {
        places
            .iter()
            .any(|place| files.contains(format!("{place}/{file}").as_bytes()))
    };
    let missing: Vec<&String> = named.iter().filter(|file| !is_there(file)).collect();
    if let Some(first) = missing.first() {
        JOURNAL.warn(format_args!(
            "{} of {} files of binary data that executions name are not in the archive of n8n's data, such as {first}",
            missing.len(),
            named.len()
        ));
    }
}

/// Proves that a member's file is there, and is the one that was recorded.
pub fn check_file(app: &App, path: &Path, member: &Member) -> Result<()> {
    // What is away, or cannot be read, says nothing of the backup.
    let meta = path
        .metadata()
        .with_context(|| format!("{} is missing", path.display()));
    meta.context(Inconclusive)?;
    // A point that was put together from file names has no checksums.
    if member.sha256.is_empty() {
        return Ok(());
    }
    let sum = sha256(&app.config, path).context(Inconclusive)?;
    ensure!(
        sum == member.sha256,
        "{} is not the file that was recorded: its SHA-256 is {sum} instead of {}",
        path.display(),
        member.sha256
    );
    Ok(())
}

/// Compares what a backup holds, as facts, with the facts of the manifest whose names begin with `prefix`. A manifest may
/// tell less; of what stands under `complete` (tables, say), each must be there.
///
/// # Errors
/// The first differences.
pub fn check_recorded(point: &Point, prefix: &str, complete: &[&str], found: &[(String, String)]) -> Result<()> {
    let mut now = Point::new(point.stamp);
    for (name, value) in found {
        now.set(name, value);
    }
    let mut differences = Vec::new();
    for (name, recorded) in point.facts(prefix) {
        match now.fact(&format!("{prefix}{name}")) {
            Some(value) if value == recorded => {}
            Some(value) => differences.push(format!("{name} is {value} instead of {recorded}")),
            None if complete.iter().any(|part| name.starts_with(part)) => {
                differences.push(format!("{name} is missing, recorded as {recorded}"));
            }
            None => {}
        }
    }
    if differences.is_empty() {
        return Ok(());
    }
    let first: Vec<&str> = differences.iter().take(5).map(String::as_str).collect();
    bail!(
        "the manifest differs from the backup in {} point(s): {}",
        differences.len(),
        first.join("; ")
    )
}

/// What programs print where a disk is full: tar and PostgreSQL, Node.js, SQLite.
const FULL: [&str; 3] = ["No space left on device", "ENOSPC", "database or disk is full"];

/// As [`explain`], of a full disk alone, by what a program printed.
pub fn explain_full_disk(error: Error, output: &str) -> Error {
    if !FULL.iter().any(|sign| output.contains(sign)) {
        return error;
    }
    let hint = "make room there; docker system df shows what takes it";
    anyhow!("{error:#}")
        .context(hinted("There was no room on Docker's disk", hint))
        .context(Inconclusive)
}

/// Tells apart what says nothing of the backup: a full disk, a lost engine, and that the scratch container of `name`, or a
/// program in it, was ended, as happens when it takes more memory than a setting allows.
pub fn explain(error: Error, name: &str, (setting, memory): (&str, &str)) -> Error {
    let text = format!("{error:#}");
    let error = explain_full_disk(error, &text);
    if error.is::<Inconclusive>() {
        return error;
    }
    let killed = [
        // What psql prints when the server is gone.
        "closed the connection unexpectedly",
        "terminating connection because of crash",
        "is in recovery mode",
        // 128 + SIGABRT: Node.js gives up by itself.
        "exit code 134",
    ];
    let why = if tells_lost_engine(&text) {
        hinted(
            "Docker engine went away",
            "see whether the daemon runs: systemctl status docker",
        )
    } else if tells_ended_container(&text) || killed.iter().any(|sign| text.contains(sign)) {
        hinted(
            format_args!("The scratch container of {name} was ended, which had {memory} of memory"),
            format_args!("give it more by {setting} in .env, unless somebody else has ended it"),
        )
    } else {
        return error;
    };
    anyhow!("{text}").context(why).context(Inconclusive)
}

/// Measures a recovery.
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Begins.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// The result.
    pub fn drilled<'a>(&self, what: String) -> Drilled<'a> {
        Drilled {
            what,
            took: self.0.elapsed(),
            files: None,
            key: None,
            database: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::hint_of;
    use crate::store::Stamp;

    fn facts(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn a_server_that_was_killed_says_nothing_of_the_backup() {
        let limit = ("BACKUP_DRILL_MEMORY", "1g");
        for text in [
            "server closed the connection unexpectedly",
            "exit code 137",
            "exit code 134",
        ] {
            let killed = explain(anyhow!(text), "PostgreSQL", limit);
            assert!(killed.downcast_ref::<Inconclusive>().is_some());
            assert!(hint_of(&killed).is_some_and(|hint| hint.contains("BACKUP_DRILL_MEMORY")));
        }
        for (text, hint) in [
            ("tar: x: Cannot write: No space left on device", "make room"),
            ("SQLITE_FULL: database or disk is full", "make room"),
            ("Cannot connect to the Docker daemon at unix:///x", "systemctl"),
            ("tar failed: exit code 255", "systemctl"),
        ] {
            let lost = explain(anyhow!(text), "n8n volume", limit);
            assert!(lost.is::<Inconclusive>() && hint_of(&lost).is_some_and(|told| told.contains(hint)));
        }
        let known = explain(anyhow!("exit code 137").context(Inconclusive), "Redis", limit);
        assert_eq!(hint_of(&known), None);
        let real = explain(anyhow!("duplicate key value"), "PostgreSQL", limit);
        assert!(real.downcast_ref::<Inconclusive>().is_none());
    }

    #[test]
    fn the_manifest_is_compared_where_it_tells_something() {
        let mut point = Point::new(Stamp::now());
        point.set("p.rows.public.odd: \n\u{e4}", "3");
        point.set("p.server", "16");
        point.set("other.rows.a", "9");
        let check = |found: &[(&str, &str)]| check_recorded(&point, "p.", &["rows."], &facts(found));
        assert!(check(&[("p.rows.public.odd: \n\u{e4}", "3"), ("p.new", "1")]).is_ok());
        let wrong = check(&[("p.rows.public.odd: \n\u{e4}", "2")]).unwrap_err().to_string();
        assert!(wrong.contains("is 2 instead of 3"), "{wrong}");
        let missing = check(&[]).unwrap_err().to_string();
        assert!(
            missing.contains("1 point(s)") && missing.contains("is missing"),
            "{missing}"
        );
    }
}
