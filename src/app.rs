//! What every command works with: the settings, the project's `backups/`, and the programs that are found on demand.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail, Error, Result};

use crate::config::{Config, Encryption, Secret, PASSPHRASE};
use crate::engine::{Container, Docker, Glance};
use crate::process::{hinted, Chain};
use crate::report::log::Journal;
use crate::store::lock::{component_lock, state_of, Attempt, Lock, ProjectLock};
use crate::store::{make_dir, owner_of, Entry, Kind, Stamp, Store, Unfinished, ENCRYPTED};
use crate::stream::encrypt::Gpg;
use crate::stream::publish::Target;

/// Shorter passphrases are warned about: what lies off-site can be guessed at for years.
const SHORTEST_PASSPHRASE: usize = 12;
/// How long another run may work on a component before we give up waiting for it. The lock goes with its holder, which
/// ends itself when nothing moves for the stall limit: so one that holds it for long has much to do, and the wait ends
/// with it, or with [`LockWait`]. A day is the bound for a holder of which nothing is known.
const LONGEST_LOCK_WAIT: Duration = Duration::from_secs(24 * 3600);
/// How long a living process may at least be held by the kernel, as while a large file goes to a slow disk.
const LONGEST_WRITE: Duration = Duration::from_secs(600);

/// The settings and the backups of one n8n project directory.
#[derive(Clone, Debug)]
pub struct App {
    /// The settings.
    pub config: Config,
    /// The project's `backups/`.
    pub store: Store,
    /// What the engine has said of all containers, for a run that only reads.
    pub glance: Option<Glance>,
    /// The socket of PostgreSQL does not let its role in: it is asked by TCP.
    pub postgres_by_tcp: Arc<AtomicBool>,
    /// PostgreSQL lacks the superuser that its container names: it is asked as n8n's role.
    pub postgres_as_n8n: Arc<AtomicBool>,
}

impl App {
    /// The context of a project.
    pub fn new(config: Config) -> Self {
        let store = Store::new(config.backups()).with_encryption(config.encryption.is_some());
        Self {
            config,
            store,
            glance: None,
            postgres_by_tcp: Arc::default(),
            postgres_as_n8n: Arc::default(),
        }
    }

    /// The role that PostgreSQL is asked as, with its password, where one is known that its container does not give to its
    /// own programs.
    pub fn postgres_login(&self) -> (&str, Option<&Secret>) {
        let config = &self.config;
        let found = &config.found;
        match found.second_login && self.postgres_as_n8n.load(Ordering::Relaxed) {
            true => (&found.login, found.login_password.as_ref()),
            false => (&config.postgres_user, config.postgres_password.as_ref()),
        }
    }

    /// The client with that password.
    pub fn logged_in(&self, docker: Docker) -> Docker {
        match self.postgres_login().1 {
            Some(password) => docker.with_login(&self.config.postgres_container, "PGPASSWORD", password),
            None => docker,
        }
    }

    /// The docker client.
    pub fn docker(&self) -> Result<Docker> {
        let docker = Docker::locate(self.config.path.clone(), self.config.stall)?.with_glance(self.glance.clone());
        Ok(self.logged_in(docker))
    }

    /// Makes sure that what is to be encrypted can be, before anything begins.
    pub fn check_encryption(&self, journal: Journal) -> Result<()> {
        if let Some(warning) = self.check_as_written()? {
            journal.warning(&warning);
        }
        self.check_gpg(journal)
    }

    /// Makes sure that gpg takes what is set.
    pub fn check_gpg(&self, journal: Journal) -> Result<()> {
        let Some(encryption) = &self.config.encryption else {
            return Ok(());
        };
        Gpg::locate(self.config.path.as_ref(), self.config.stall)?.check(encryption)?;
        if let Encryption::Passphrase(passphrase) = encryption {
            let length = passphrase.reveal().chars().count();
            if length < SHORTEST_PASSPHRASE {
                journal.warn(format_args!(
                    "BACKUP_GPG_PASSPHRASE is short ({length} characters): take {SHORTEST_PASSPHRASE} or more"
                ));
            }
        }
        Ok(())
    }

    /// Refuses a passphrase that is another than what is written in `.env`: whoever has kept that one can read nothing
    /// once `.env` is lost. What is encrypted already may open with it, so then it is a warning, which this gives.
    pub fn check_as_written(&self) -> Result<Option<Error>> {
        let by_recipient = matches!(self.config.encryption, Some(Encryption::Recipient(_)));
        if by_recipient || !self.config.rewritten.contains(PASSPHRASE) {
            return Ok(None);
        }
        let error = |hint| {
            let what = "is not what is written in .env, where $ begins the name of a variable and ' #' a comment";
            Error::new(hinted(format_args!("{PASSPHRASE} {what}"), hint))
        };
        if self.config.encryption.is_none() {
            bail!(error(
                "set the variable that it names, which is empty, or put it in single quotes where it names none; \
                 ${NAME:-} may be empty"
            ));
        }
        if !self.has_encrypted() {
            bail!(error(
                "put it in single quotes, and keep the old line: copies in other places may open with that alone; of a \
                 variable, write ${NAME} alone, and set that one"
            ));
        }
        Ok(Some(error(
            "put it in single quotes, and keep the old line: what was encrypted with it opens with that alone \
             (docs/encryption.md)",
        )))
    }

    /// Whether there is an encrypted backup, or may be one in a directory that cannot be read.
    fn has_encrypted(&self) -> bool {
        let is_encrypted = |entry: &Entry| entry.path.to_string_lossy().ends_with(ENCRYPTED);
        let mut listings = Kind::PARTS.into_iter().map(|kind| self.store.list(kind));
        listings.any(|listing| listing.map_or(true, |entries| entries.iter().any(is_encrypted)))
    }

    /// Where the backup of a component goes that a run begins.
    pub fn target(&self, kind: Kind, stamp: Stamp) -> Target<'_> {
        Target {
            config: &self.config,
            store: &self.store,
            kind,
            stamp,
        }
    }

    /// A chain with the stall limit of the settings.
    pub fn chain(&self) -> Chain {
        Chain::new(self.config.stall)
    }

    /// Marks helper containers as those of this project on this host.
    pub fn owner(&self) -> String {
        owner_of(&self.config.project)
    }

    /// Tries to take the lock that backup-all and the restores share.
    pub fn lock(&self) -> Result<Attempt<ProjectLock>> {
        make_dir(self.store.root())?;
        ProjectLock::attempt(self.store.root(), &self.config.lock_file)
    }

    /// The containers of n8n that there are.
    pub fn n8n_containers(&self, docker: &Docker) -> Result<Vec<Container>> {
        let names = &self.config.n8n_containers;
        docker.containers(&names.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Holds one component: waits for another run that works on it, then clears what a dead one left in its directory.
    ///
    /// # Errors
    /// When that run cannot go on by itself, or not within a day, or the directory cannot be used.
    pub fn hold(&self, kind: Kind, journal: Journal) -> Result<Lock> {
        let dir = self.store.make_dir(kind)?;
        let mut turn = LockWait::new(self, kind);
        let mut told = false;
        let lock = Lock::wait(&component_lock(&dir), LONGEST_LOCK_WAIT, |pid| {
            if !std::mem::replace(&mut told, true) {
                journal.info(format_args!(
                    "Waiting for the run that works on {} (PID: {pid})",
                    kind.name()
                ));
            }
            turn.look_at(pid)
        })?;
        let left = self.store.sweep(kind)?;
        if left > 0 {
            journal.warn(format_args!(
                "Removed {left} unfinished file(s) that an interrupted run left"
            ));
        }
        Ok(lock)
    }
}

/// Why the process `pid` cannot go on by itself, if it cannot now, and for how long that may be nothing unusual.
pub fn halted(pid: &str) -> Option<(Duration, String)> {
    match state_of(pid) {
        Some('T' | 't') => Some((
            Duration::ZERO,
            format!("that process is stopped: kill -CONT {pid} has it go on, kill -KILL {pid} ends it"),
        )),
        // A dead process keeps the lock as long as a part of it waits so.
        Some('D' | 'Z') => Some((
            LONGEST_WRITE,
            "that process waits for a disk, or a file system of the network, that does not answer".to_owned(),
        )),
        _ => None,
    }
}

/// The wait for another run. One that works gets its time, also where it writes nothing, as a restore does that loads; one
/// that cannot go on by itself, and has not for the stall limit, is given up, so that it costs its own component only.
struct LockWait<'a> {
    app: &'a App,
    kind: Kind,
    unfinished: Vec<Unfinished>,
    moved: Instant,
}

impl<'a> LockWait<'a> {
    fn new(app: &'a App, kind: Kind) -> Self {
        Self {
            app,
            kind,
            unfinished: Vec::new(),
            moved: Instant::now(),
        }
    }

    /// Looks whether the run of the process `pid` goes on.
    fn look_at(&mut self, pid: &str) -> Result<()> {
        let stall = self.app.config.stall;
        let halted = halted(pid).map(|(longest, why)| (stall.max(longest), why));
        let unfinished = self.app.store.unfinished(self.kind);
        let Some((patience, why)) = halted.filter(|_| unfinished == self.unfinished) else {
            self.unfinished = unfinished;
            self.moved = Instant::now();
            return Ok(());
        };
        if self.moved.elapsed() < patience {
            return Ok(());
        }
        Err(anyhow!(why).context(format!("Backup already in progress (PID: {pid})")))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::process::hint_of;
    use crate::testing::TempDir;

    #[test]
    fn a_passphrase_that_is_not_what_is_written_encrypts_nothing_new() {
        let dir = TempDir::new();
        let check = |value: &str| {
            let text = format!("SECRET='a$b'\nBACKUP_GPG_PASSPHRASE={value}\n");
            let config = Config::of_text(dir.path(), Path::new(".env"), text.as_bytes()).unwrap();
            App::new(config).check_as_written()
        };
        for value in [
            "'My$Kitchen-2024'",
            "${SECRET}",
            "plain",
            "''",
            "${NO_VAULT:-}",
            "$NoSuchKitchen\nBACKUP_GPG_RECIPIENT=me@example.org",
        ] {
            assert!(check(value).unwrap().is_none(), "{value}");
        }
        for value in ["My$Kitchen-2024", "\"My$Kitchen-2024\"", "a #b", "$NoSuchKitchen"] {
            let error = check(value).unwrap_err();
            assert!(hint_of(&error).unwrap().contains("single quotes"), "{error:#}");
            assert!(!format!("{error:#}").contains("Kitchen"), "{error:#}");
        }
        let postgres = dir.path().join("backups/postgres");
        std::fs::create_dir_all(&postgres).unwrap();
        std::fs::write(postgres.join("n8n_20260102_030405.sql.gz.gpg"), "x").unwrap();
        assert!(check("My$Kitchen-2024").unwrap().is_some());
        // That one encrypts nothing at all.
        assert!(check("$NoSuchKitchen").is_err());
    }
}
