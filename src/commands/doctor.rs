//! doctor: looks at everything that a backup will need, and says what to do about what is not right. Changes nothing.

use std::env;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Error, Result};

use super::status::{Level, State};
use crate::app::App;
use crate::cli;
use crate::components::credentials;
use crate::components::{n8n_data, postgres, redis};
use crate::config::dotenv;
use crate::config::{Encryption, SETTINGS};
use crate::engine::Docker;
use crate::process;
use crate::report::log::{ascii, Journal};
use crate::store::lock::{Attempt, Lock};
use crate::stream::compress::Compressor;

const JOURNAL: Journal = Journal::new("doctor");
/// A backup that is older than this does not come every night.
const EXPECTED_AGE: Duration = Duration::from_secs(26 * 3600);

/// Prints a line for each check, and gives whether nothing failed. `unread` is why `.env` could not be read, when it could
/// not; the other checks go by the defaults then.
///
/// # Errors
/// When standard output cannot be written.
pub fn run(app: &App, unread: Option<&Error>, quiet: bool) -> Result<bool> {
    let mut report = Report::default();
    match unread {
        Some(error) => report.fail(
            "settings",
            format!("{error:#}; the other checks go by the defaults until this is mended"),
        ),
        None => env_file(app, &mut report),
    }
    match app.docker() {
        Ok(docker) => engine(app, &docker, &mut report),
        Err(error) => report.fail("docker", format!("{error:#}")),
    }
    cron_environment(app, &mut report);
    programs(app, &mut report);
    places(app, &mut report);
    history(app, &mut report);
    schedule(app, &mut report);

    let mut out = io::stdout().lock();
    for (verdict, check, text) in &report.lines {
        if !(quiet && *verdict == OK) {
            writeln!(out, "{verdict:4} {check}: {}", ascii(text)).context("Cannot write to standard output")?;
        }
    }
    Ok(!report.lines.iter().any(|(verdict, _, _)| *verdict == FAIL))
}

const OK: &str = "OK";
const WARN: &str = "WARN";
const FAIL: &str = "FAIL";

#[derive(Default)]
struct Report {
    lines: Vec<(&'static str, &'static str, String)>,
}

impl Report {
    fn ok(&mut self, check: &'static str, text: impl Into<String>) {
        self.lines.push((OK, check, text.into()));
    }

    fn warn(&mut self, check: &'static str, text: impl Into<String>) {
        self.lines.push((WARN, check, text.into()));
    }

    fn fail(&mut self, check: &'static str, text: impl Into<String>) {
        self.lines.push((FAIL, check, text.into()));
    }

    fn result(&mut self, check: &'static str, result: Result<String>) {
        match result {
            Ok(text) => self.ok(check, text),
            Err(error) => self.fail(check, format!("{error:#}")),
        }
    }
}

/// `.env`, and n8n's key in it.
fn env_file(app: &App, report: &mut Report) {
    let path = app.config.env_file();
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) => {
            return report.fail(
                "settings",
                format!("{} cannot be read: {error}; backups need it", path.display()),
            )
        }
    };
    match fs::metadata(&path).map(|meta| meta.permissions().mode() & 0o077) {
        Ok(0) => report.ok("settings", format!("{} is read", path.display())),
        _ => report.warn(
            "settings",
            format!(
                "others may read {}, which holds secrets: chmod 600 {}",
                path.display(),
                process::quoted(&path.to_string_lossy())
            ),
        ),
    }
    for name in &app.config.unknown {
        let meant = cli::suggestion(name, SETTINGS.iter().map(|known| known.name.to_owned()));
        report.warn(
            "settings",
            format!("{name} in .env is none of n8n-backup's settings{meant}"),
        );
    }
    // n8n's own name for it; both names in one file may well differ by oversight.
    const N8N_DB: &str = "DB_POSTGRESDB_DATABASE";
    let n8n_db = dotenv::parse(&path, &text, &|name| name == N8N_DB, &|name| env::var(name).ok())
        .ok()
        .and_then(|mut values| values.remove(N8N_DB));
    if let Some(name) = n8n_db.filter(|name| !name.is_empty() && *name != app.config.postgres_db) {
        report.warn(
            "settings",
            format!(
                "n8n's database is {name} (DB_POSTGRESDB_DATABASE), and {} is what is backed up: set POSTGRES_DB={name}",
                app.config.postgres_db
            ),
        );
    }
    let recorded = crate::store::manifest::list(&app.store).ok().and_then(|points| {
        let newest = points.into_iter().rev().find_map(|(_, point)| point.ok())?;
        let holds = |name: &str| newest.fact(name).is_some_and(|value| !value.starts_with("none"));
        (holds("n8n.key") || holds("env.key")).then(|| newest.stamp.to_string())
    });
    match (credentials::key_of_env(&path, &text), recorded) {
        (Ok(Some(_)), _) => report.ok("key", "N8N_ENCRYPTION_KEY is in .env"),
        (_, Some(point)) => report.ok("key", format!("recovery point {point} holds n8n's key")),
        _ => report.warn(
            "key",
            "there is no N8N_ENCRYPTION_KEY in .env; unless n8n keeps it in its volume (a backup tells), put it there: \
             without it stored credentials are lost",
        ),
    }
}

/// The engine, and what runs in it.
fn engine(app: &App, docker: &Docker, report: &mut Report) {
    let config = &app.config;
    match docker.engine_version() {
        Ok(version) => report.ok(
            "docker",
            format!("{} reaches engine {version}", docker.program().display()),
        ),
        Err(error) => return report.fail("docker", format!("{error:#}")),
    }
    let running = docker.running(&config.postgres_container, "BACKUP_POSTGRES_CONTAINER");
    report.result("postgres", running.and_then(|_| postgres::probe(app, docker)));
    let running = docker.running(&config.redis_container, "BACKUP_REDIS_CONTAINER");
    report.result("redis", running.and_then(|_| redis::probe(app, docker)));
    volume(app, docker, report);
    other_containers(app, docker, report);
    report.result(
        "helper",
        n8n_data::helper_image(app, docker, JOURNAL).map(|image| format!("local image {image} shows the volume")),
    );
}

/// The volume, and whether n8n keeps its data there.
fn volume(app: &App, docker: &Docker, report: &mut Report) {
    let volume = &app.config.n8n_volume;
    let mut exists = false;
    match docker.volume_exists(volume) {
        Ok(true) => {
            exists = true;
            report.ok("volume", format!("{volume} exists"));
        }
        Ok(false) => report.fail(
            "volume",
            format!("{volume} does not exist; set BACKUP_N8N_VOLUME in .env to the one that n8n mounts"),
        ),
        Err(error) => report.fail("volume", format!("{error:#}")),
    }
    // A volume may stand for a directory of the host that n8n mounts as such.
    let directory = docker.volume_directory(volume).unwrap_or_default();
    for name in &app.config.n8n_containers {
        let mounts = match docker.container(name) {
            Ok(Some(container)) => container.mounts,
            Ok(None) => {
                report.warn(
                    "n8n",
                    format!("there is no container {name}; name n8n's in BACKUP_N8N_CONTAINERS"),
                );
                continue;
            }
            Err(error) => {
                report.fail("n8n", format!("{error:#}"));
                continue;
            }
        };
        if let Some(mount) = mounts.iter().find(|mount| mount.name == *volume) {
            report.ok("n8n", format!("{name} mounts {volume} at {}", mount.destination));
            continue;
        }
        match mounts.iter().find(|mount| mount.destination.ends_with(n8n_data::HOME)) {
            Some(mount) if !directory.is_empty() && mount.directory == directory => {
                report.ok("n8n", format!("{name} mounts {directory}, which is {volume}"));
            }
            Some(mount) if mount.name.is_empty() => {
                report.fail("n8n", in_a_directory(name, volume, exists, &mount.directory));
            }
            Some(mount) => report.fail(
                "n8n",
                format!(
                    "{name} keeps its data in the volume {0}, not in {volume}: set BACKUP_N8N_VOLUME={0}",
                    mount.name
                ),
            ),
            None => report.warn("n8n", format!("{name} does not mount {volume}")),
        }
    }
}

/// Containers that mount the volume and are not known as n8n's: a worker that was added, say.
fn other_containers(app: &App, docker: &Docker, report: &mut Report) {
    let config = &app.config;
    let users = docker.users(&config.n8n_volume).unwrap_or_default();
    let others: Vec<&str> = users
        .iter()
        .filter(|name| !config.n8n_containers.contains(name))
        .map(String::as_str)
        .collect();
    if !others.is_empty() {
        report.warn(
            "n8n",
            format!(
                "{} is mounted by {}, too, and a restore refuses while what it does not stop runs: set \
                 BACKUP_N8N_CONTAINERS=\"{} {1}\" in .env",
                config.n8n_volume,
                others.join(" "),
                config.n8n_containers.join(" ")
            ),
        );
    }
}

/// What to do where n8n keeps its data in a directory of the host.
fn in_a_directory(container: &str, volume: &str, exists: bool, directory: &str) -> String {
    // Another volume of that name may hold data.
    let new = if exists { "n8n_data_directory" } else { volume };
    let set = match new == volume {
        true => String::new(),
        false => format!(", and set BACKUP_N8N_VOLUME={new} in .env"),
    };
    let device = process::quoted(&format!("device={directory}"));
    format!(
        "{container} keeps its data in the directory {directory} of the host, not in {volume}. Make a volume that stands for it \
         (nothing is moved): docker volume create -o type=none -o o=bind -o {device} {new}{set}"
    )
}

/// Whether cron, which passes next to nothing, reaches the engine.
fn cron_environment(app: &App, report: &mut Report) {
    let cron = Docker::locate(Some("/usr/bin:/bin".into()), app.config.stall)
        .and_then(|docker| docker.engine_version_under_cron());
    match (
        cron,
        ["DOCKER_HOST", "DOCKER_CONTEXT"]
            .into_iter()
            .find(|name| env::var_os(name).is_some()),
    ) {
        (Ok(_), None) => report.ok("cron", "the engine answers in cron's environment, too"),
        (Ok(_), Some(name)) => report.warn(
            "cron",
            format!("{name} is set here, and cron does not pass it: put {name}=... above the entry in the crontab"),
        ),
        (Err(error), _) => report.warn("cron", format!("in cron's environment: {error:#}")),
    }
}

/// The programs that a run starts.
fn programs(app: &App, report: &mut Report) {
    let config = &app.config;
    report.result(
        "compressor",
        Compressor::choose(&config.compressor, config.path.as_ref()).map(|compressor| compressor.label()),
    );
    let mut wanted = vec![("sha256sum", "coreutils"), ("df", "coreutils"), ("gzip", "gzip")];
    if config.ping_url.is_some() {
        wanted.push(("curl", "curl"));
    }
    if config.offsite {
        wanted.push(("rclone", "rclone"));
    }
    for (name, package) in wanted {
        if process::find(name, config.path.as_ref()).is_none() {
            report.fail("programs", format!("{name} is missing: install {package}"));
        }
    }
    match &config.encryption {
        None => report.ok("encryption", "off: the files are as readable as their mode says"),
        Some(how) => report.result(
            "encryption",
            app.check_encryption(JOURNAL).map(|()| match how {
                Encryption::Passphrase(_) => "gpg takes the passphrase; is a copy of it kept elsewhere?".to_owned(),
                Encryption::Recipient(_) => "gpg takes the recipient's key".to_owned(),
            }),
        ),
    }
    if let Some(name) = config.notify_command.split_whitespace().next() {
        let program = if name.contains('/') {
            config.project.join(name).display().to_string()
        } else {
            name.to_owned()
        };
        if process::find(&program, config.path.as_ref()).is_none() {
            report.fail("notify", format!("BACKUP_NOTIFY_COMMAND: {program} cannot be run"));
        }
    }
}

/// Directories, the lock.
fn places(app: &App, report: &mut Report) {
    let config = &app.config;
    for dir in [config.backups(), config.project.join("logs")] {
        match writable(&dir) {
            Ok(()) => report.ok("directory", format!("{} takes files", dir.display())),
            Err(error) => report.fail(
                "directory",
                format!(
                    "{} takes no files: {error}; make it, or give it to this user",
                    dir.display()
                ),
            ),
        }
    }
    if let Some(dir) = config.metrics_file.as_deref().and_then(Path::parent) {
        if let Err(error) = writable(dir) {
            report.fail("metrics", format!("{} takes no files: {error}", dir.display()));
        }
    }
    match Lock::attempt(&config.lock_file) {
        Ok(Attempt::Held(_)) => report.ok("lock", format!("{} is free", config.lock_file.display())),
        Ok(Attempt::Busy(pid)) => report.warn("lock", format!("a backup or restore runs (PID: {pid})")),
        Err(error) => report.fail("lock", format!("{error:#}")),
    }
}

/// Whether a file can be made in `dir`, by making one without a name that anything reads.
fn writable(dir: &Path) -> io::Result<()> {
    let probe = dir.join(format!(".doctor.{}", std::process::id()));
    fs::File::create_new(&probe)?;
    fs::remove_file(&probe)
}

/// The last backups, the disk, the clock.
fn history(app: &App, report: &mut Report) {
    let state = match State::gather(app) {
        Ok(state) => state,
        Err(error) => return report.fail("last run", format!("{error:#}")),
    };
    for finding in state.findings(EXPECTED_AGE) {
        let check = match finding.check {
            "age" | "run" => "last run",
            check @ ("files" | "size" | "disk" | "proven" | "offsite") => check,
            _ => continue,
        };
        match finding.level {
            Level::Ok => report.ok(check, finding.text),
            Level::Warning => report.warn(check, finding.text),
            // No run yet is where everybody begins; a disk that is full stops one.
            Level::Critical if finding.check == "age" => report.warn(check, finding.text),
            Level::Critical => report.fail(check, finding.text),
        }
    }
    if state.newest_age().is_none() {
        if let Some(free) = state.free() {
            report.ok("disk", format!("{} free", crate::report::units::available(free)));
        }
    }
    let mut timedatectl = process::command("timedatectl");
    timedatectl.args(["show", "--property=NTPSynchronized", "--value"]);
    match process::output("timedatectl", timedatectl, None, Duration::from_secs(5)) {
        Ok(output) if output.success && output.text() == "no" => {
            report.warn(
                "clock",
                "it is not synchronized: retention and status count by it; turn NTP on",
            );
        }
        Ok(output) if output.success => report.ok("clock", "it is synchronized"),
        _ => report.ok(
            "clock",
            format!("{} (whether it is synchronized cannot be told here)", super::now()),
        ),
    }
}

/// Whether anything runs backup-all by itself.
fn schedule(app: &App, report: &mut Report) {
    let script = app.config.project.join("scripts/backup-all.sh");
    let script = script.to_string_lossy();
    let mentions = |text: &str| {
        let escaped = script.replace('%', "\\%");
        text.lines()
            .any(|line| !line.trim_start().starts_with('#') && (line.contains(&*script) || line.contains(&escaped)))
    };
    let mut crontab = process::command("crontab");
    crontab.arg("-l");
    let listed = process::output("crontab", crontab, None, Duration::from_secs(5));
    let mut dirs = vec!["/etc/cron.d".into(), "/etc/systemd/system".into()];
    dirs.extend(env::var_os("HOME").map(|home| Path::new(&home).join(".config/systemd/user")));
    let files = dirs
        .iter()
        .flat_map(|dir| fs::read_dir(dir).into_iter().flatten().flatten());
    let mut texts = files.map(|item| item.path()).chain(["/etc/crontab".into()]);
    if listed.is_ok_and(|output| output.success && mentions(&output.text())) {
        report.ok("schedule", "your crontab runs backup-all.sh");
    } else if let Some(file) = texts.find(|file| fs::read_to_string(file).is_ok_and(|text| mentions(&text))) {
        report.ok("schedule", format!("{} runs backup-all.sh", file.display()));
    } else {
        report.warn(
            "schedule",
            "nothing was found that runs backup-all.sh: make install-cron (or install-timer) N8N_DIR=..., in the clone",
        );
    }
}
