//! PostgreSQL: a plain SQL dump, gzipped, and its restore by way of a staged database.

/// Where images have PostgreSQL's programs that do not have them in PATH.
macro_rules! places {
    () => {
        "/usr/local/bin /usr/local/pgsql/bin /usr/lib/postgresql/bin /usr/lib/postgresql/*/bin /usr/pgsql-*/bin \
         /opt/bitnami/postgresql/bin"
    };
}

mod compat;
mod drill;
mod executions;
mod leftovers;
mod live;
mod load;
mod loader;
mod messages;
mod probe;
mod psql;
mod restore;
mod rows;
mod scratch;
mod sql;
mod surroundings;
mod trust;

use std::io::{self, Read};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail, ensure, Context as _, Result};

use self::executions::LeftOut;
pub use self::live::read_tables;
use self::psql::{turns, Psql, OTHER_LOGINS};
pub use self::rows::{check_put, put_rows};
use super::drill::{DrillEnv, Drilled};
use super::tables::told_place;
use super::{check_plain, About, Backup, BackupRun, Component, File, RestoreOptions, RestorePlan};
use super::{ALLOW_PLAIN, CREATE_ROLES, DEACTIVATE, IN_PLACE, KEEP_OLD, LISTENS_AFTER, RESTART_N8N, TRUST_DUMP, YES};
use crate::app::App;
use crate::cli::Row;
use crate::engine::Docker;
use crate::formats::n8n::Digests;
use crate::formats::pg_dump;
use crate::formats::text::unascii;
use crate::process::{hinted, Input};
use crate::report::finding::Report;
use crate::report::log::{self, Journal};
use crate::store::manifest::Point;
use crate::store::Kind;
use crate::stream::publish::{publish, Packed};
use crate::stream::read::observe;

const JOURNAL: Journal = Journal::new("backup-postgres");
/// How the facts of a point begin that tell what a role may do.
const ROLE_FACT: &str = "postgres.role.";

/// Finds a program of PostgreSQL, and has it log in where its container asks for a password
/// (`POSTGRES_INITDB_ARGS=--auth=scram-sha-256`): with the one that the image was given, which stays in there. A password file of
/// the container's own goes first.
const LOG_IN: &str = concat!(
    r#"if ! command -v "$1" >/dev/null; then
  for place in "#,
    places!(),
    r#"; do
    if [ -x "$place/$1" ]; then found=:$place; fi
  done
  PATH=${PATH:-/usr/bin:/bin}${found-}
  export PATH
fi
if [ -z "${PGPASSWORD-}" ] && [ ! -e "${PGPASSFILE:-${HOME-}/.pgpass}" ]; then
  PGPASSWORD=${POSTGRES_PASSWORD-}
  if [ -z "$PGPASSWORD" ] && [ -r "${POSTGRES_PASSWORD_FILE-}" ]; then PGPASSWORD=$(cat "$POSTGRES_PASSWORD_FILE"); fi
  export PGPASSWORD
fi
exec "$@""#
);

const ABOUT: About = About {
    title: "PostgreSQL",
    restored: ["PostgreSQL", "PostgreSQL"],
    backup: Some(Row {
        name: "backup-postgres",
        summary: "dump the database to backups/postgres/n8n_YYYYMMDD_HHMMSS.sql.gz",
        in_background: true,
        ..Row::ACTS
    }),
    step: "backup-postgres.sh",
    restore: Row {
        name: "restore-postgres",
        summary: "replace the database by the contents of a .sql.gz file",
        details: "The file is verified and loaded beside the live database first; then the two are swapped. With --in-place\n\
                  n8n is stopped meanwhile, and a failure after the drop leaves no database but that dump.",
        operand: Some("FILE"),
        flags: &[YES, KEEP_OLD, CREATE_ROLES, IN_PLACE, TRUST_DUMP, DEACTIVATE, ALLOW_PLAIN, RESTART_N8N],
        ..Row::ACTS
    },
    drill: Some("load the dump, compare, and decrypt the credentials with the point's key"),
    kept: "the database is dropped once the new one is proven (restore-postgres --keep-old keeps it)",
    key_place: None,
};

/// The database.
pub struct Postgres;

impl Component for Postgres {
    fn kind(&self) -> Kind {
        Kind::Postgres
    }

    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn check_settings(&self, app: &App) -> Result<()> {
        ensure!(
            app.config.env_file_exists || app.config.found.is_told(),
            ".env file not found"
        );
        Ok(())
    }

    fn backup(&self, app: &App, run: &BackupRun) -> Result<Backup> {
        JOURNAL.info("Starting PostgreSQL backup");
        log::check_started()?;
        let config = &app.config;
        self.check_settings(app)?;
        let docker = app.docker()?;
        docker.running(&config.postgres_container, "BACKUP_POSTGRES_CONTAINER")?;
        let _lock = app.hold(Kind::Postgres, JOURNAL)?;
        let path = app.store.path(Kind::Postgres, run.stamp);
        JOURNAL.info(format_args!(
            "Dumping database {} to {}",
            config.postgres_db,
            path.display()
        ));
        let (file, mut facts, workflows) = once_started(app, &docker, JOURNAL, || {
            let left_out = LeftOut::plan(app, &Psql::live(app, &docker))?;
            dump(app, &docker, run, left_out.as_ref())
        })?;
        facts.extend(run.snapshot.taken().map(|at| ("postgres.snapshot".to_owned(), at)));
        let files = vec![file];
        let backup = Backup {
            files,
            facts,
            workflows,
        };
        backup.report(JOURNAL, "Backup completed");
        Ok(backup)
    }

    fn verify(&self, app: &App, file: &Path) -> Result<()> {
        verify(app, file).map(drop)
    }

    fn needs(&self, app: &App) -> Option<(String, &'static str)> {
        Some((app.config.postgres_container.clone(), "BACKUP_POSTGRES_CONTAINER"))
    }

    fn await_ready(&self, app: &App, docker: &Docker) -> Result<()> {
        ready_within(app, docker, app.config.stall)
    }

    fn servers(&self, app: &App) -> Vec<String> {
        vec![app.config.postgres_container.clone()]
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
        let running = docker.running(&app.config.postgres_container, "BACKUP_POSTGRES_CONTAINER");
        match running.and_then(|_| probe::probe(app, docker).map_err(explained)) {
            Ok(found) => found.report(app, report),
            Err(error) => report.error("postgres", &error),
        }
    }
}

/// A dump, what the manifest says of it, and its workflows.
type Dumped = (File, Vec<(String, String)>, Option<Digests>);

fn dump(app: &App, docker: &Docker, run: &BackupRun, left_out: Option<&LeftOut>) -> Result<Dumped> {
    check_plain(app, Kind::Postgres)?;
    let docker = &app.logged_in(docker.clone());
    let config = &app.config;
    let application = sql::application_name("dump", &config.postgres_db);
    let target = Psql::live(app, docker).target(&config.postgres_db, &application)?;
    let mut chain = app.chain();
    // A table of dead rows gives nothing for as long as it is read.
    chain.pulse(Psql::live(app, docker).works(&config.postgres_db, "dump")?);
    let dump_of = format!("--dbname={target}");
    let mut argv = vec!["pg_dump", "--no-password", &dump_of];
    argv.extend(
        left_out
            .iter()
            .flat_map(|left_out| &left_out.options)
            .map(String::as_str),
    );
    let (script, options) = (surroundings::script(app)?, surroundings::options());
    let first = [
        "sh",
        "-c",
        surroundings::FIRST,
        "sh",
        &script,
        LOG_IN,
        &options,
        &target,
    ];
    let argv = [&first[..], &logged_in(&argv)].concat();
    let command = docker.exec_leashed(&config.postgres_container, &[], &argv);
    let (_, mut stream) = chain.stream("pg_dump", command, Input::Leash)?;
    // Where it has ended already, the chain tells why.
    let (told, begun) = surroundings::split_at_nul(&mut stream).unwrap_or_default();
    let is_cut = begun.is_none() && !told.is_empty();
    let stream = io::Cursor::new(begun.unwrap_or_default()).chain(stream);
    let around = {
        let (app, docker) = (app.clone(), docker.clone());
        thread::spawn(move || surroundings::facts(&app, &docker, &told))
    };
    let packed = Packed::start(
        &app.target(Kind::Postgres, run.stamp),
        &mut chain,
        stream,
        (Digests::rows(told_place(app)), run.snapshot.at_first_byte()),
        JOURNAL,
    )?;
    let finished = chain.finish().map_err(explained).context("pg_dump failed")?;
    let (partial, bytes, (rows, _), sha256) = packed.get(&finished).context("pg_dump failed")?;
    if is_cut {
        return Err(anyhow!("its output was cut off").context("pg_dump failed"));
    }
    if bytes == 0 {
        bail!("Backup file is empty");
    }
    // An exit code of 0 does not prove the end: a docker client that is terminated leaves it too.
    let told = !rows.has_failed();
    let (reader, summary) = rows.finish().context("pg_dump failed")?;
    let summary = summary.whole().context("pg_dump failed")?;
    if summary.tables.is_empty() {
        JOURNAL.warn(format_args!(
            "Database {} holds no table: set POSTGRES_DB in .env to the database of n8n",
            config.postgres_db
        ));
    }
    probe::check_is_n8ns(app, &summary)?;
    if let Some(left_out) = left_out {
        left_out
            .check(app, &Psql::live(app, docker))
            .context("pg_dump failed")?;
    }
    let entry = publish(&app.config, partial, bytes).context("pg_dump failed")?;
    let kind = Kind::Postgres;
    let mut facts = facts(&summary);
    match around.join().unwrap_or_else(|_| Err(anyhow!("a thread panicked"))) {
        Ok(told) => facts.extend(told),
        Err(error) => JOURNAL.warning(&error.context("What the recovery point tells of the server is missing")),
    }
    let workflows = reader.into_visitor().filter(|_| told);
    Ok((File { kind, entry, sha256 }, facts, workflows))
}

/// The roles that a point tells of.
fn recorded_roles(point: &Point) -> Vec<sql::Role> {
    let recorded = point.facts(ROLE_FACT);
    recorded
        .map(|(name, rights)| sql::Role::parse(&unascii(name), rights))
        .collect()
}

/// Does a task again when it failed because the server lets us in by another way alone, or was still starting, as after a
/// reboot of the host in the hour of the backup.
fn once_started<T>(app: &App, docker: &Docker, journal: Journal, task: impl Fn() -> Result<T>) -> Result<T> {
    let mut done = task();
    for _ in 0..OTHER_LOGINS {
        match &done {
            Err(error) if turns(app, &format!("{error:#}")) => done = task(),
            _ => break,
        }
    }
    if let Some(warning) = psql::warning(app) {
        journal.warn(warning);
    }
    let error = match done {
        Err(error) => error,
        done => return done,
    };
    let text = format!("{error:#}");
    let Some(patience) = patience(&text, app.config.stall) else {
        return Err(error);
    };
    journal.info("PostgreSQL is starting, waiting for it");
    if ready_within(app, docker, patience).is_err() {
        docker.running(&app.config.postgres_container, "BACKUP_POSTGRES_CONTAINER")?;
        return Err(error);
    }
    task()
}

/// How long to wait after a failure, if at all: what the server says while it starts is worded in English, and the socket that
/// is missing meanwhile may never come.
fn patience(failure: &str, stall: Duration) -> Option<Duration> {
    const STARTING: [&str; 3] = [
        "is starting up",
        "is not yet accepting connections",
        "is in recovery mode",
    ];
    const NO_SOCKET: [&str; 2] = ["failed: No such file or directory", "failed: Connection refused"];
    let says = |texts: &[&str]| texts.iter().any(|text| failure.contains(text));
    match () {
        () if says(&STARTING) => Some(stall),
        () if says(&NO_SOCKET) => Some(stall.min(LISTENS_AFTER)),
        () => None,
    }
}

fn ready_within(app: &App, docker: &Docker, patience: Duration) -> Result<()> {
    const ASK: &str = "SELECT 'ready' WHERE current_setting('listen_addresses') <> '';\n";
    let config = &app.config;
    let psql = Psql::live(app, docker);
    let deadline = Instant::now() + patience;
    loop {
        let reason = match psql.run_in_reachable(sql::maintenance_databases(&config.postgres_db)?, [ASK.to_owned()]) {
            Ok((_, [output])) if output.lines().any(|line| line == "ready") => return Ok(()),
            Ok(_) => anyhow!("it listens on no address yet"),
            Err(error) => error,
        };
        docker.running(&config.postgres_container, "BACKUP_POSTGRES_CONTAINER")?;
        if Instant::now() >= deadline {
            return Err(reason.context("PostgreSQL is not ready"));
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// The arguments of a program that is run by way of [`LOG_IN`].
fn logged_in<'a>(argv: &[&'a str]) -> Vec<&'a str> {
    [&["sh", "-c", LOG_IN, "sh"], argv].concat()
}

/// Adds what to do to a failure whose reason is a setting, as the server words it in English.
fn explained(error: anyhow::Error) -> anyhow::Error {
    let text = format!("{error:#}");
    let unknown = |what: &str| text.contains(&format!("FATAL:  {what} \"")) && text.contains("\" does not exist");
    // The policy of pg_cron's jobs is one that others meet.
    let may_not_read = text.contains("permission denied for ") || text.contains("affected by row-level security");
    let hint = match () {
        () if unknown("role") => "set BACKUP_POSTGRES_USER in .env to the user of the stack",
        () if unknown("database") => "set BACKUP_POSTGRES_DB in .env to the database of n8n",
        () if may_not_read => compat::BE_SUPERUSER,
        // The server's own hint is to drop it, which is done when there is a new one.
        () if text.contains("cannot connect to invalid database \"") => {
            "its drop was cut short, and nothing of it can be saved: restore a recovery point (restore-all --only postgres latest), \
             or the dump that the restore with --in-place named"
        }
        () => return error,
    };
    hinted(text, hint).into()
}

/// What a recovery point's manifest says of a dump: versions, rows of each table (`postgres.rows.TABLE`), and the value
/// of each sequence, with whether it is in use already or comes next.
fn facts(summary: &pg_dump::Summary) -> Vec<(String, String)> {
    let mut facts = vec![
        ("postgres.tables".to_owned(), summary.tables.len().to_string()),
        (
            "postgres.rows".to_owned(),
            summary.copies.iter().map(|(_, rows)| rows).sum::<u64>().to_string(),
        ),
        ("postgres.bytes".to_owned(), summary.bytes.to_string()),
    ];
    facts.extend(
        summary
            .server_version
            .iter()
            .map(|version| ("postgres.version".to_owned(), version.clone())),
    );
    facts.extend(
        summary
            .dump_version
            .iter()
            .map(|version| ("postgres.pg_dump".to_owned(), version.clone())),
    );
    if executions::are_left_out(summary) {
        facts.push((executions::FACT.0.to_owned(), executions::FACT.1.to_owned()));
    }
    facts.push(("postgres.sequences".to_owned(), summary.sequences.len().to_string()));
    facts.extend(summary.sequences.iter().map(|(sequence, last, used)| {
        let used = if *used { "used" } else { "next" };
        (format!("postgres.sequence.{sequence}"), format!("{last} {used}"))
    }));
    facts.extend(
        summary
            .copies
            .iter()
            .map(|(table, rows)| (format!("postgres.rows.{table}"), rows.to_string())),
    );
    facts
}

/// Proves that a dump is whole: it unpacks, pg_dump's last line is there, outside of any data.
fn verify(app: &App, path: &Path) -> Result<pg_dump::Summary> {
    observe(&app.config, path, pg_dump::Scanner::new())?
        .finish()
        .and_then(pg_dump::Summary::whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_known_whatever_letters_it_has() {
        let mut point = Point::new(crate::store::Stamp::now());
        point.set("deleted", "env");
        point.set("stack.schema", "sch\u{e4}ma");
        let (app, group) = ("j\u{f6}rg: app", "gr\u{fc}n");
        point.set(&format!("{ROLE_FACT}{app}"), "member:6772c3bc6e");
        point.set(&format!("{ROLE_FACT}{group}"), "");
        let point = Point::parse(&point.text()).unwrap();
        let roles = recorded_roles(&point);
        assert_eq!([&roles[0].name, &roles[1].name], [app, group]);
        assert_eq!(roles[0].member_of, [group]);
        let place = crate::components::recorded_place(&point).unwrap();
        assert_eq!(place.schema, "sch\u{e4}ma");
    }
}
