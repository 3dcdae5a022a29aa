//! Redis: a snapshot made by BGSAVE, followed through `INFO persistence`, and copied out of the container.

mod drill;
mod layout;
mod left;
mod replies;
mod restore;
mod save;
mod server;

use std::io::Read;
use std::path::Path;

use anyhow::{bail, Context as _, Result};

use super::drill::{DrillEnv, Drilled};
use super::{check_plain, About, Backup, BackupRun, Component, RestoreOptions, RestorePlan};
use super::{ALLOW_PLAIN, EMPTY_QUEUE, LISTENS_AFTER, YES};
use crate::app::App;
use crate::cli::Row;
use crate::engine::Docker;
use crate::formats::rdb;
use crate::process::Input;
use crate::report::finding::Report;
use crate::report::log::{self, Journal};
use crate::store::{Kind, Stamp};
use crate::stream::publish::{publish, write};
use crate::stream::read::observe;
use left::Left;
use save::COPY;
use server::Redis;

/// The fact of a point with the modules of the live server: their files and arguments.
const MODULES_FACT: &str = "redis.modules";
const JOURNAL: Journal = Journal::new("backup-redis");

const ABOUT: About = About {
    title: "Redis",
    restored: ["Redis", "Redis"],
    backup: Some(Row {
        name: "backup-redis",
        summary: "save and copy the Redis snapshot to backups/redis/dump_YYYYMMDD_HHMMSS.rdb",
        in_background: true,
        ..Row::ACTS
    }),
    step: "backup-redis.sh",
    restore: Row {
        name: "restore-redis",
        summary: "replace all that Redis holds by the snapshot in a .rdb file",
        details: "The file is verified and loaded by a server of its own first; the append-only file, where Redis keeps one, is\n\
                  written anew from it. n8n is stopped meanwhile. Waiting jobs of n8n's queue may run again.",
        operand: Some("FILE"),
        flags: &[YES, EMPTY_QUEUE, ALLOW_PLAIN],
        ..Row::ACTS
    },
    drill: Some("load the snapshot and compare its keys"),
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

    fn backup(&self, app: &App, run: &BackupRun) -> Result<Backup> {
        backup(app, run.stamp)
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
        let name = &app.config.redis_container;
        let running = docker.running(name, "BACKUP_REDIS_CONTAINER");
        let state = running.and_then(|_| Redis::live(app, docker).state());
        let dir = state.as_ref().ok().and_then(|state| state.dir.as_deref());
        if let Some(Err(error)) = dir.map(|dir| layout::check_kept(docker, name, dir)) {
            report.warn("redis", error.to_string());
        }
        let left = dir.map(|dir| Left::look(docker, name, Some(dir)).warning(Some(dir)));
        if let Some(text) = left.flatten() {
            report.warn("redis", text);
        }
        let databases = state.as_ref().map(|state| state.databases.as_slice());
        if let Some(why) = shared(app, databases.unwrap_or_default()) {
            report.warn(
                "redis",
                format!("{name} {why}: a restore of Redis replaces the data of other programs there, too"),
            );
        }
        report.result("redis", state.map(|state| told(app, &state)));
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
    let container = docker.running(&config.redis_container, "BACKUP_REDIS_CONTAINER")?;
    let _lock = app.hold(Kind::Redis, JOURNAL)?;
    let redis = Redis::live(app, &docker);

    let (begun, copy) = redis
        .begin_save_once_loaded(app, JOURNAL)
        .with_context(|| format!("Failed to get LASTSAVE from Redis (port {})", config.redis_port))?;
    let before = begun.before.last_save.clone();
    let left = copy.as_ref().map(|copy| copy.left);
    JOURNAL.info(format_args!("Current LASTSAVE: {before}"));
    let (saved, at_once) = redis.save(begun, JOURNAL)?;
    JOURNAL.info(format_args!("BGSAVE completed. New LASTSAVE: {}", saved.last_save));

    let path = app.store.path(Kind::Redis, stamp);
    JOURNAL.info(format_args!("Copying RDB file to {}", path.display()));
    let partial = app.store.create(Kind::Redis, stamp)?;
    let (scanner, bytes, sha256) = {
        // One that began before the end of the save is not that of the save.
        let (mut chain, leash, stream) = match copy.filter(|copy| at_once && copy.file == saved.file) {
            Some(copy) => (copy.chain, Some(copy.leash), copy.stream),
            None => {
                let mut chain = app.chain();
                let copy = docker.exec_leashed(&config.redis_container, &[], &["cat", "--", &saved.file]);
                let (_, stream) = chain.stream(COPY, copy, Input::Leash)?;
                (chain, None, Box::new(stream) as Box<dyn Read + Send>)
            }
        };
        let written = write(&app.config, &mut chain, &partial, stream, rdb::Scanner::new())?;
        let written = chain.finish().and_then(|finished| written.get(&finished));
        drop(leash);
        written
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
    let dir = saved.dir.as_deref();
    let left = left.unwrap_or_else(|| Left::look(&docker, &container.name, dir));
    left::clear(app, &docker, &container, left, dir);
    let mut facts = facts(&summary);
    facts.extend(saved.keys.map(|keys| ("redis.keys".to_owned(), keys.to_string())));
    let modules = saved.modules.unwrap_or_else(|| {
        let arguments = docker.arguments(&config.redis_container).unwrap_or_default();
        layout::modules_of(&arguments)
    });
    let modules: Vec<String> = modules.iter().map(|module| module.join(" ")).collect();
    if !modules.is_empty() {
        facts.push((MODULES_FACT.to_owned(), modules.join("; ")));
    }
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
fn verify(app: &App, path: &Path) -> Result<rdb::Summary> {
    observe(&app.config, path, rdb::Scanner::new())?.finish()
}

/// What tells that other programs use the server of n8n's queue, too; `databases` are those that hold keys.
fn shared(app: &App, databases: &[u32]) -> Option<String> {
    let config = &app.config;
    let queue_db = config.queue_db?;
    let others = databases.iter().filter(|database| **database != queue_db);
    let others: Vec<String> = others.map(u32::to_string).collect();
    if !others.is_empty() {
        return Some(format!(
            "holds keys in database {}, and n8n's queue is in {queue_db}",
            others.join(" ")
        ));
    }
    let project = config.found.others.get(&Kind::Redis).filter(|name| !name.is_empty())?;
    Some(format!("belongs to the Compose project {project}"))
}

/// What the server says that it holds.
fn told(app: &App, state: &server::State) -> String {
    let keys = state.keys.map_or_else(|| "its".to_owned(), |keys| keys.to_string());
    format!("Redis answers on port {} and holds {keys} keys", app.config.redis_port)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    #[test]
    fn a_server_that_others_use_is_told() {
        let config = |text: &str| Config::of_text(Path::new("/p"), Path::new("/p/.env"), text.as_bytes()).unwrap();
        let mut app = App::new(config("QUEUE_BULL_REDIS_DB=2\n"));
        assert_eq!(shared(&app, &[2]), None);
        let told = shared(&app, &[0, 2, 5]);
        assert_eq!(
            told.as_deref(),
            Some("holds keys in database 0 5, and n8n's queue is in 2")
        );
        app.config.found.others.insert(Kind::Redis, "shared".to_owned());
        assert_eq!(
            shared(&app, &[]).as_deref(),
            Some("belongs to the Compose project shared")
        );
        assert_eq!(shared(&App::new(config("")), &[0, 1]), None);
    }
}
