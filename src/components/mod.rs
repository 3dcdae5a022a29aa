//! The parts of a stack that are backed up: one folder each, and one trait for all.
//!
//! A component is a folder here, a row in [`Kind`] and a line in [`COMPONENTS`]. Commands know the trait alone.

pub mod credentials;
mod dirswap;
pub mod drill;
mod env_file;
pub mod key_proof;
mod n8n_data;
pub mod n8n_image;
pub mod n8n_proof;
mod postgres;
mod put;
mod redis;
mod run;
mod sqlite;
mod tables;

use std::path::Path;
use std::time::Duration;

use anyhow::{bail, Result};

use crate::app::App;
use crate::cli::{Call, Flag, Row};
use crate::config::{Config, Secret};
use crate::engine::Docker;
use crate::formats::n8n::Digests;
use crate::process::hinted;
use crate::report::finding::Report;
use crate::report::log::Journal;
use crate::report::units;
use crate::store::manifest::{Member, Point};
use crate::store::ENCRYPTED;
use crate::store::{Entry, Kind};

use drill::{DrillEnv, Drilled};
pub use env_file::{check_plain, lost as lost_env_file};
pub use put::{Guard, How, Put};
pub use run::BackupRun;
pub use tables::{check_put, put_rows, read_backup, read_tables, recorded_place, told_place};

/// How long a server that was just started may take until it listens. What listens elsewhere is not told from it, and is not worth
/// a longer wait.
const LISTENS_AFTER: Duration = Duration::from_secs(10);

/// Every component, in the order in which backups begin and a whole restore goes.
pub const COMPONENTS: &[&dyn Component] = &[
    &postgres::Postgres,
    &sqlite::Sqlite,
    &redis::RedisData,
    &n8n_data::N8nData,
    &env_file::EnvFile,
];

/// The component of a kind.
pub fn component(kind: Kind) -> Result<&'static dyn Component> {
    match COMPONENTS.iter().find(|component| component.holds(kind)) {
        Some(component) => Ok(*component),
        None => bail!("There is no component for {}", kind.name()),
    }
}

/// Proves that a backup file is whole.
pub fn verify(app: &App, kind: Kind, file: &Path) -> Result<()> {
    component(kind)?.verify(app, file)
}

/// A part of a stack that is backed up by itself, and comes back by itself.
pub trait Component: Sync {
    /// What its files are recorded as.
    fn kind(&self) -> Kind;

    /// Its names and sentences.
    fn about(&self) -> &'static About;

    /// Whether its own commands may work at all, before anything else is looked at.
    fn check_settings(&self, _app: &App) -> Result<()> {
        Ok(())
    }

    /// The file of a recovery point that it is restored from.
    fn member<'a>(&self, point: &'a Point) -> Option<&'a Member> {
        point.member(self.kind())
    }

    /// Whether files of a kind are its own.
    fn holds(&self, kind: Kind) -> bool {
        self.kind() == kind
    }

    /// Makes a backup as a part of a run.
    fn backup(&self, app: &App, run: &BackupRun) -> Result<Backup>;

    /// Proves that a file is whole, by what its kind of contents must be like from beginning to end.
    fn verify(&self, app: &App, file: &Path) -> Result<()>;

    /// The container that must run for [`Component::plan_restore`]; a whole restore starts it where it does not.
    fn needs(&self, _app: &App) -> Option<(String, &'static str)> {
        None
    }

    /// Waits until the server in [`Component::needs`], which was just started, takes connections.
    fn await_ready(&self, _app: &App, _docker: &Docker) -> Result<()> {
        Ok(())
    }

    /// The containers, apart from n8n's, that a restore may start or stop; they are as before at its end.
    fn servers(&self, _app: &App) -> Vec<String> {
        Vec::new()
    }

    /// Proves the file and asks whether it can be restored here. Changes nothing.
    fn plan_restore<'a>(
        &self,
        app: &'a App,
        file: &'a Path,
        options: RestoreOptions,
    ) -> Result<Box<dyn RestorePlan + 'a>>;

    /// The settings that hold once `file` is restored, where it is what settings come from.
    fn settings(&self, _app: &App, _file: &Path) -> Result<Option<Config>> {
        Ok(None)
    }

    /// Recovers the member of the recovery point that `env` is for into a scratch container, and compares.
    fn drill<'a>(&self, env: &'a DrillEnv<'a>, file: &Path) -> Result<Drilled<'a>>;

    /// n8n's key in a file, for a component that has an [`About::key_place`].
    fn key(&self, _env: &DrillEnv<'_>, _file: &Path) -> Result<Option<Secret>> {
        Ok(None)
    }

    /// What doctor says of it. Without an engine only what needs none.
    fn probe(&self, app: &App, docker: Option<&Docker>, report: &mut Report);
}

/// What a component is called, and what is said of it.
pub struct About {
    /// In a drill: `PostgreSQL`.
    pub title: &'static str,
    /// In the lines of its restore, at their beginning and within them.
    pub restored: [&'static str; 2],
    /// The command that backs it up by itself; one that has none is a step of backup-all alone.
    pub backup: Option<Row>,
    /// What backup-all says that it runs.
    pub step: &'static str,
    /// The command that restores it.
    pub restore: Row,
    /// What its drill does, where it can be asked for by itself.
    pub drill: Option<&'static str>,
    /// What a whole restore keeps of what is there.
    pub kept: &'static str,
    /// Where it may hold n8n's key.
    pub key_place: Option<&'static str>,
}

impl About {
    /// The log of its backup.
    pub fn backup_journal(&self) -> Journal {
        Journal::new(self.backup.map_or("backup-all", |row| row.name))
    }

    /// The log of its restore.
    pub fn restore_journal(&self) -> Journal {
        Journal::new(self.restore.name)
    }
}

/// What restores ask for, unless it is given.
pub const YES: Flag = Flag::new("yes", "do not ask for confirmation").short('y');
/// Keep the database that is replaced.
pub const KEEP_OLD: Flag = Flag::new(
    "keep-old",
    "keep the database that is replaced, as n8n_old_YYYYMMDD_HHMMSS",
);
/// Create missing roles.
pub const CREATE_ROLES: Flag = Flag::new(
    "create-roles",
    "create roles that the restored database needs and the server lacks, without login",
);
/// Drop first.
pub const IN_PLACE: Flag = Flag::new(
    "in-place",
    "where two databases have no room: dump the live one, drop it, then load",
);
/// Vouch for a dump.
pub const TRUST_DUMP: Flag = Flag::new(
    "trust-dump",
    "load a dump of unknown origin as it is, with your own rights",
);
/// Restart n8n.
pub const RESTART_N8N: Flag = Flag::new(
    "restart-n8n",
    "restart n8n's containers that ran on meanwhile, so that nothing of theirs waits for what only the old database knew",
);
/// Leave the queue out.
pub const EMPTY_QUEUE: Flag = Flag::new(
    "empty-queue",
    "leave out the jobs of n8n's queue, so that none runs again",
);
/// Take what anybody could have made.
pub const ALLOW_PLAIN: Flag = Flag::new(
    "allow-plain",
    "take files that are not encrypted although backups are: you know where they are from",
);

/// Refuses to restore a file that is not encrypted where backups are: what comes from a place that others may write to is ours
/// only because they lack the passphrase.
pub fn check_encrypted(app: &App, file: &Path, options: RestoreOptions) -> Result<()> {
    let plain = !file.to_string_lossy().ends_with(ENCRYPTED);
    if plain && app.config.encryption.is_some() && !options.allow_plain {
        bail!(hinted(
            format_args!(
                "{} is not encrypted, while this project encrypts its backups: anybody could have made it",
                file.display()
            ),
            "add --allow-plain if you know where it is from, as from before encryption was turned on"
        ));
    }
    Ok(())
}

/// Replace files of the deployment.
pub const REPLACE_DEPLOYMENT: Flag = Flag::new(
    "replace-deployment",
    "replace those files of the deployment that differ from the backup; each stays beside the new one",
);

/// No workflow runs.
pub const DEACTIVATE: Flag = Flag::new(
    "deactivate",
    "with every workflow inactive and no execution waiting, for a test host",
);

/// How restores are to be done; each component takes what concerns it.
#[derive(Clone, Copy, Debug, Default)]
pub struct RestoreOptions {
    /// Keep the database that is replaced, under another name.
    pub keep_old: bool,
    /// Create the roles that the restored database needs and the server lacks, without login.
    pub create_roles: bool,
    /// Drop the live database first, where there is no room for two.
    pub in_place: bool,
    /// Take a dump of unknown origin, whatever psql can be told.
    pub trust_dump: bool,
    /// Leave out n8n's queue, so that no waiting job runs again.
    pub empty_queue: bool,
    /// Replace files of the deployment that differ.
    pub replace_deployment: bool,
    /// Leave every workflow inactive, and no execution waiting.
    pub deactivate: bool,
    /// Take files that are not encrypted, where backups are.
    pub allow_plain: bool,
    /// Only plan: the main lock is not held.
    pub dry_run: bool,
    /// n8n's database in SQLite is restored before n8n's data.
    pub with_sqlite: bool,
}

impl RestoreOptions {
    /// What they leave out of what the backups hold.
    pub fn left_out(&self) -> String {
        let all = [(self.deactivate, &DEACTIVATE), (self.empty_queue, &EMPTY_QUEUE)];
        let given = all.iter().filter(|(given, _)| *given);
        given
            .map(|(_, flag)| format!("--{}", flag.long))
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// What the command line says.
    pub fn of(call: &Call) -> Self {
        Self {
            keep_old: call.has(&KEEP_OLD),
            create_roles: call.has(&CREATE_ROLES),
            in_place: call.has(&IN_PLACE),
            trust_dump: call.has(&TRUST_DUMP),
            empty_queue: call.has(&EMPTY_QUEUE),
            replace_deployment: call.has(&REPLACE_DEPLOYMENT),
            deactivate: call.has(&DEACTIVATE),
            allow_plain: call.has(&ALLOW_PLAIN),
            dry_run: false,
            with_sqlite: false,
        }
    }
}

/// A file that has been proven, and the place that it fits.
pub trait RestorePlan {
    /// What is going to be replaced, as warnings before the question; none where nothing is, so that nobody is asked.
    fn warnings(&self) -> Vec<String>;

    /// What it asks of n8n.
    fn n8n(&self) -> N8n;

    /// Why a whole restore begins with it, if it does.
    fn comes_first(&self) -> Option<String> {
        None
    }

    /// Replaces what is there.
    ///
    /// # Errors
    /// When a step fails. What is there is then what was before, unless the error is a [`crate::stack::LeftHalfDone`].
    fn run(&self, around: &dyn Around) -> Result<()>;

    /// Says what is left for the user to do.
    fn afterwards(&self, _journal: Journal) {}
}

/// What a restore needs of the command that runs it.
pub trait Around {
    /// Backs up what the component holds now, for one that does so at the last moment.
    fn keep(&self) -> Result<()>;

    /// Makes sure that n8n has not worked since it was stopped, right before and right after a step that cannot be taken back. Where
    /// it was not stopped, there is nothing to look at.
    fn check_stopped(&self) -> Result<()>;

    /// Undoes a step with n8n at rest, whatever has been started meanwhile.
    fn undo_at_rest(&self, journal: Journal, undo: Box<dyn FnOnce() -> Result<()> + '_>) -> Result<()>;
}

/// What a restore asks of n8n.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum N8n {
    /// To be stopped meanwhile.
    Stops,
    /// It may run, and is to be restarted for the reason given.
    MayRun(&'static str),
    /// Nothing.
    Unaffected,
}

/// A finished backup of one component.
#[derive(Clone, Debug, Default)]
pub struct Backup {
    /// The published files.
    pub files: Vec<File>,
    /// What else is worth knowing of it, as `name: value` lines of the recovery point's manifest.
    pub facts: Vec<(String, String)>,
    /// The workflows in it, where there are any to be told.
    pub workflows: Option<Digests>,
}

/// A published backup file.
#[derive(Clone, Debug)]
pub struct File {
    /// What it holds.
    pub kind: Kind,
    /// Where it lies.
    pub entry: Entry,
    /// The SHA-256 of the file, in hexadecimal.
    pub sha256: String,
}

impl Backup {
    /// A backup that is one file.
    fn of(kind: Kind, entry: Entry, sha256: String, facts: Vec<(String, String)>) -> Self {
        let file = File { kind, entry, sha256 };
        Self {
            files: vec![file],
            facts,
            workflows: None,
        }
    }

    /// The last line of a component's log.
    fn report(&self, journal: Journal, what: &str) {
        for file in &self.files {
            let size = units::du(file.entry.disk);
            journal.success(format_args!("{what}: {} ({size})", file.entry.path.display()));
        }
    }
}

/// Removes what killed restores have left in the engine. The main lock is held.
pub fn clear(app: &App, journal: Journal) {
    match app.docker().and_then(|docker| dirswap::sweep(app, &docker)) {
        Ok(0) => {}
        Ok(left) => journal.warn(format_args!(
            "Removed {left} helper container(s) that an interrupted restore left"
        )),
        Err(error) => log::trace!("no look at the helper containers of restores: {error:#}"),
    }
}
