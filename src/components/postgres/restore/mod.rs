//! Restore of the database. The dump is verified whole, loaded into a staged database, compared with what the dump
//! holds, and only then swapped for the live one in one transaction. Until that commits, the live database serves.

mod fresh;
mod in_place;
mod swap;

use std::path::Path;
use std::thread;

use anyhow::{anyhow, bail, ensure, Context as _, Result};

use super::compat;
use super::leftovers::sweep;
use super::loader::{let_migrate, Loader};
use super::sql::{self, Leftover, Mark, Server};
use super::{executions, load, once_started, trust, verify, Psql};
use crate::app::App;
use crate::components::tables::told_place;
use crate::components::{Around, N8n, RestoreOptions, RestorePlan};
use crate::engine::Docker;
use crate::formats::n8n::Place;
use crate::formats::pg_dump::{self, Strip};
use crate::process::hinted;
use crate::report::log::Journal;
use crate::report::units;
use crate::stack::LeftHalfDone;
use crate::store::{total, Kind, Stamp};
use crate::stream::encrypt::Locked;
use crate::stream::read::check_recorded;

/// A dump that has been verified, and the server that it fits.
pub struct Plan<'a> {
    app: &'a App,
    docker: Docker,
    journal: Journal,
    file: &'a Path,
    summary: pg_dump::Summary,
    server: Server,
    maintenance: &'static str,
    missing_roles: Vec<String>,
    /// What earlier restores have left on the server.
    leftovers: Vec<Leftover>,
    /// Whether psql can be told to take no meta-command.
    restrict: bool,
    /// Whether the dump is loaded with the rights of the user that restores.
    trusted: bool,
    options: RestoreOptions,
}

/// Verifies the dump and asks the server whether it can take it. Changes nothing.
pub fn prepare<'a>(app: &'a App, file: &'a Path, options: RestoreOptions, journal: Journal) -> Result<Plan<'a>> {
    ensure!(
        !(options.in_place && options.keep_old),
        hinted(
            "--in-place drops the database that --keep-old would keep",
            "choose one of them"
        )
    );
    let config = &app.config;
    journal.info("Verifying backup file integrity...");
    let (recorded, verified) = thread::scope(|scope| {
        let recorded = scope.spawn(|| check_recorded(&app.config, &app.store, file));
        let verified = verify(app, file);
        (recorded.join(), verified)
    });
    let summary = recorded
        .unwrap_or_else(|_| Err(anyhow!("a thread panicked")))
        .and(verified)
        .map_err(|error| match error.downcast_ref::<Locked>() {
            Some(_) => error,
            None => error.context("Backup file is corrupted or not a valid gzip file"),
        })?;
    load::check_statements(&summary)?;
    journal.info("Backup file integrity verified");
    if executions::are_left_out(&summary) {
        journal.warn(executions::WARNING);
    }

    let docker = app.docker()?;
    docker.running(&config.postgres_container, "BACKUP_POSTGRES_CONTAINER")?;
    let psql = Psql::live(app, &docker);
    let live = &config.postgres_db;
    // A name in another encoding than UTF-8 cannot be asked for.
    let legible = |role: &&String| !role.contains(char::REPLACEMENT_CHARACTER);
    let roles: Vec<String> = summary.roles.iter().filter(legible).cloned().collect();
    let login = Some(&config.found.login).filter(|login| !login.is_empty());
    let questions = [
        sql::server(live)?,
        sql::missing_roles(&roles)?,
        sql::missing_roles(&login.cloned().into_iter().collect::<Vec<_>>())?,
        sql::blockers(live, &summary.without_pg_cron().extensions)?,
        sql::sweep_list(live)?,
        sql::PSQL_VERSION.to_owned(),
    ];
    let candidates = sql::maintenance_databases(live)?;
    let (maintenance, [server, missing_roles, missing_login, blockers, leftovers, version]) =
        once_started(app, &docker, journal, || {
            psql.run_in_reachable(candidates, questions.clone())
        })?;
    let restrict = sql::knows_restrict(&version);
    let leftovers = sql::parse_leftovers(&leftovers)?;
    let server = sql::parse_server(&server)?;
    let trusted = trust::is_trusted(app, file, restrict, options.trust_dump)?;
    ensure!(
        trusted || !options.in_place,
        hinted(
            "The dump is of unknown origin, so it is loaded with few rights, which may not suffice; --in-place would leave no \
             database then",
            trust::TRUST_IT
        )
    );
    ensure!(
        server.may_restore(),
        hinted(
            format_args!(
                "PostgreSQL user {} may not restore: it must be a superuser, or own the database and have CREATEDB",
                app.postgres_login().0
            ),
            server.how_to_allow(app.postgres_login().0, live)?
        )
    );
    // What a stranger's dump says of roles is left out; what it holds is for the role of n8n.
    let (missing_roles, whose) = match trusted {
        true => (missing_roles, "The dump names roles that the server does not have"),
        false => (missing_login, "n8n logs in as a role that the server does not have"),
    };
    let missing_roles = sql::parse_names(&missing_roles)?;
    if !trusted && !server.superuser {
        let place = live_place(app, &summary, &server);
        compat::check_usable(&psql, maintenance, place.as_ref())?;
    }
    if !missing_roles.is_empty() && !options.create_roles {
        let pooled = "; where a pooler has another name for the role, --trust-dump loads the dump as it is";
        bail!(hinted(
            format_args!("{whose}: {}", missing_roles.join(", ")),
            format_args!(
                "create them first, or add --create-roles to have them created without login{}",
                if trusted { "" } else { pooled }
            )
        ));
    }
    if summary.has_pg_cron() {
        compat::warn_of_pg_cron(config, file, journal);
    }
    compat::check_extras(
        &sql::parse_named(&blockers)?,
        &summary.event_triggers,
        trusted,
        app,
        journal,
    )?;
    compat::check_versions(&summary, &server, options, journal)?;
    check_room(app, &docker, &server, &leftovers, summary.bytes, options, journal)?;
    if server.exists {
        compat::warn_of_others(&psql, journal);
    }
    if options.in_place && server.exists {
        journal.warn(format_args!(
            "--in-place: {live} is dumped and dropped before the load. A failure after that leaves no database but the dump"
        ));
    }
    Ok(Plan {
        app,
        docker,
        journal,
        file,
        summary,
        server,
        maintenance,
        missing_roles,
        leftovers,
        restrict,
        trusted,
        options,
    })
}

/// Where n8n's tables are: as n8n's containers say, else as in the dump.
fn place(app: &App, summary: &pg_dump::Summary) -> Option<Place> {
    let tables: Vec<_> = summary.tables.iter().collect();
    told_place(app).or_else(|| Place::all(&tables).into_iter().next())
}

/// Where they are in the live database, if there is one.
fn live_place(app: &App, summary: &pg_dump::Summary, server: &Server) -> Option<Place> {
    place(app, summary).filter(|_| server.exists)
}

/// Refuses a restore that would fill the server's disk.
fn check_room(
    app: &App,
    docker: &Docker,
    server: &Server,
    leftovers: &[Leftover],
    bytes: u64,
    options: RestoreOptions,
    journal: Journal,
) -> Result<()> {
    let free = match server.directory.as_str() {
        "" => None,
        directory => docker.free_space(&app.config.postgres_container, directory)?,
    };
    let Some(free) = free else {
        journal.warn("Could not determine the disk space that is free for the database");
        return Ok(());
    };
    // They are dropped before the load.
    let swept = leftovers.iter().filter(|leftover| leftover.mark != Mark::Kept);
    let swept = total(swept.map(|leftover| leftover.bytes));
    let freed = swept.saturating_add(if options.in_place { server.size } else { 0 });
    let needed = room(bytes, server.wal);
    if free.saturating_add(freed) >= needed {
        return Ok(());
    }
    let hint = if options.in_place || !server.exists {
        "make room there, or use a larger disk"
    } else {
        "make room there, or use restore-postgres --in-place, which drops the live database before the load"
    };
    bail!(hinted(
        format_args!(
            "Insufficient disk space in container {} at {}: {} available, {} required",
            app.config.postgres_container,
            server.directory,
            units::available(free),
            units::amount(needed)
        ),
        hint
    ))
}

/// What loading a dump of `bytes` takes at most: rows and indexes, a quarter more than their text, and the log of the
/// load, which the server keeps to about `wal` bytes.
fn room(bytes: u64, wal: u64) -> u64 {
    let data = bytes.saturating_add(bytes / 4);
    data.saturating_add(wal.min(data))
}

impl RestorePlan for Plan<'_> {
    fn warnings(&self) -> Vec<String> {
        vec![format!("This will drop and recreate the database {}", self.live())]
    }

    fn n8n(&self) -> N8n {
        // What n8n would write between the dump and the drop of a restore in place would be in neither, and without a database
        // it cannot work.
        match self.options.in_place || !self.server.exists {
            true => N8n::Stops,
            false => N8n::MayRun("n8n ran while its database was replaced, and may hold what is not in it any more"),
        }
    }

    /// Loads the dump beside the live database and swaps the two.
    fn run(&self, around: &dyn Around) -> Result<()> {
        let _component = self.app.hold(Kind::Postgres, self.journal)?;
        self.create_roles()?;
        let safety = if self.options.in_place && self.server.exists {
            self.check_alone()?;
            Some(self.safety_dump()?)
        } else {
            None
        };
        let kept = |name: String| self.leftovers.iter().any(|leftover| leftover.name == name);
        let stamp = Stamp::now()
            .free(|stamp| kept(sql::old_name(&stamp.to_string())))
            .to_string();
        let mut staged = Staged {
            plan: self,
            name: sql::staged_name(&stamp),
            keep: false,
        };
        let old = sql::old_name(&stamp);
        let database = self.create(&staged.name)?;
        // Where the live database is lost, one of these may be all that knows what it was like; now the new one knows it, too.
        staged.keep = !self.server.exists && self.leftovers.iter().any(|leftover| leftover.mark == Mark::Staged);
        if !self.leftovers.is_empty() {
            self.sweep(&staged.name)?;
        }
        let Some(safety) = safety else {
            return self
                .load_and_check(&staged.name)
                .and_then(|()| self.limit(&staged.name, &database))
                .and_then(|id| self.swap(&mut staged, id, &old, around))
                .inspect_err(|_| self.check_live(&mut staged));
        };
        // What the live database is like must be with the staged one before the live one goes.
        let id = self.limit(&staged.name, &database)?;
        self.lift_limit(&staged.name, &database)?;
        self.check_unused(around)
            .and_then(|()| self.drop_live(&mut staged))
            .and_then(|()| {
                let loaded = self.load_and_check(&staged.name);
                self.limit_again(&staged.name, &database);
                loaded
            })
            .and_then(|()| self.swap(&mut staged, id, &old, around))
            .map_err(|error| match staged.keep {
                // The live database is there.
                false => error,
                true => error.context(LeftHalfDone::new(format!(
                    "{} as it was before is in {}: restore that file to go back",
                    self.live(),
                    safety.display()
                ))),
            })
            .context("Database restore failed")
    }
}

impl Plan<'_> {
    /// Says so when the live database did not survive a dump that could not be loaded: what a dump has run on the server is not
    /// known. The staged one then knows what it was like, and stays.
    fn check_live(&self, staged: &mut Staged<'_>) {
        if !self.server.exists {
            return;
        }
        let live = self.live();
        let there = sql::exists(live).and_then(|ask| self.psql().run(self.maintenance, "restore", ask));
        match there {
            Ok(there) if there.trim() == "t" => {}
            Ok(_) => {
                staged.keep = true;
                self.journal.error(format_args!(
                    "The live database {live} is gone: the dump has dropped it"
                ));
                self.journal.error(
                    "Hint: stop n8n and restore a good recovery point at once: restore-all --only postgres latest. Take no more \
                     dumps from where this one is from",
                );
            }
            Err(error) => self.journal.warning(&error.context(format!(
                "Whether the live database {live} is still there could not be found out"
            ))),
        }
    }

    /// Loads the dump into the staged database and proves that all of it is there, and n8n's to go on with.
    fn load_and_check(&self, staged: &str) -> Result<()> {
        self.load_by_trust(staged)?;
        if let Err(error) = self.let_migrate(staged) {
            self.journal
                .warning(&error.context("What n8n's role may do in the restored database could not be found out"));
        }
        Ok(())
    }

    fn let_migrate(&self, staged: &str) -> Result<()> {
        let login = &self.app.config.found.login;
        let is_superuser = self.server.superuser && *login == self.app.config.postgres_user;
        let Some(place) = place(self.app, &self.summary).filter(|_| !login.is_empty() && !is_superuser) else {
            return Ok(());
        };
        let names = [staged, self.live()];
        let (done, needed) = let_migrate(&self.psql_of_loaded(), names, login, &place.schema)?;
        if !done.is_empty() {
            self.journal.warn(format_args!(
                "n8n's role {login} could not have created tables in the restored database, which n8n's updates need; it was \
                 granted that: {}",
                done.join("; ")
            ));
        }
        if !needed.is_empty() {
            self.journal.warn(format_args!(
                "n8n's role {login} may not create tables in the restored database, which n8n's updates need: have a superuser \
                 run in it {};",
                needed.join("; ")
            ));
        }
        let asked = self
            .psql_of_loaded()
            .run(staged, "restore", sql::out_of_reach(login, &place)?)?;
        let needed = sql::parse_names(&asked)?;
        if !needed.is_empty() {
            self.journal.warn(format_args!(
                "n8n's role {login} may not read and write n8n's tables in the restored database, which belong to \
                 another role: have a superuser run in it {};",
                needed.join("; ")
            ));
        }
        Ok(())
    }

    /// Loads the dump as who may be trusted with it.
    fn load_by_trust(&self, staged: &str) -> Result<()> {
        if self.trusted || !self.server.superuser {
            if !self.trusted {
                // They are for roles of another server, and n8n is to work with what comes of it.
                self.journal.warn(
                    "The dump is of unknown origin: what it says of owners and privileges is left out (--trust-dump loads it \
                     as it is)",
                );
            }
            return self.load_as(&self.psql_of_loaded(), staged, !self.trusted);
        }
        let (_, stamp) = staged.split_at(sql::staged_name("").len());
        let loader = Loader::create(self.app, self.psql(), self.maintenance, stamp, staged)
            .context("Database restore failed")?;
        self.journal.warn(
            "The dump is of unknown origin: a role loads it that may do nothing but fill the new database, and what the \
             dump says of owners and privileges is left out (--trust-dump loads it as it is)",
        );
        self.load_as(&loader.psql(), staged, true)?;
        let place = live_place(self.app, &self.summary, &self.server);
        let owner = loader
            .hand_over(staged, place.as_ref())
            .context("Database restore failed")?;
        self.journal
            .info(format_args!("All that was loaded belongs to {owner}"));
        Ok(())
    }

    /// Loads the dump as the role of `loader`, with or without what it says of owners and privileges.
    fn load_as(&self, loader: &Psql<'_>, staged: &str, stranger: bool) -> Result<()> {
        let psql = self.psql_of_loaded();
        self.journal.info("Restoring database from backup...");
        let strip = Strip {
            privileges: stranger,
            pg_cron: self.summary.has_pg_cron(),
            ..load::strip(self.server.version)
        };
        if !load::load(loader, staged, self.file, &self.summary, self.restrict, strip)? {
            let user = match stranger {
                true => loader.user,
                false => self.app.postgres_login().0,
            };
            self.journal.warn(format_args!(
                "Privileges that PostgreSQL user {user} may not grant or revoke are left out, so that others may do more, or less, \
                 than the dump says: to have them, {}, and restore it again",
                compat::BE_SUPERUSER
            ));
        }
        self.journal.info("Verifying restore...");
        let expected = self.summary.without_pg_cron();
        thread::scope(|scope| -> Result<()> {
            // Both read every table: the second then finds it in memory.
            let analyzed = scope.spawn(|| psql.run_long(staged, "restore", sql::analyze()));
            // A query of a stranger's table may run functions of the dump, so its loader asks. ANALYZE has the owner's rights.
            let compared = load::compare(loader, staged, &expected, self.journal);
            let analyzed = analyzed.join().unwrap_or_else(|_| Err(anyhow!("a thread panicked")));
            compared?;
            if let Err(error) = analyzed {
                // It is faster with them, and whole without.
                self.journal.warn(format_args!(
                    "Statistics for the query planner could not be taken: {error:#}. Run ANALYZE when it is restored"
                ));
            }
            Ok(())
        })?;
        if self.options.deactivate {
            // What triggers of the dump do, they do with its rights.
            let output = loader
                .run_long(staged, "restore", sql::deactivate())
                .context("Database restore failed")?;
            let count = sql::parse_deactivated(&output)?;
            self.journal.warn(format_args!(
                "--deactivate: {count} workflow(s) that were active are inactive, and no execution waits"
            ));
        }
        Ok(())
    }

    fn psql(&self) -> Psql<'_> {
        Psql::live(self.app, &self.docker)
    }

    fn psql_of_loaded(&self) -> Psql<'_> {
        self.psql().of_loaded(self.server.version, self.server.superuser)
    }

    fn live(&self) -> &str {
        &self.app.config.postgres_db
    }

    /// Clears what a restore that died has left, and tells of what was kept.
    fn sweep(&self, except: &str) -> Result<()> {
        sweep(&self.psql(), self.maintenance, self.live(), Some(except), self.journal)
    }
}

/// A staged database that goes when the restore fails.
struct Staged<'a> {
    plan: &'a Plan<'a>,
    name: String,
    /// It has become the live one, or must not go for another reason.
    keep: bool,
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        if !self.keep {
            // What cannot be dropped now is swept by the next run.
            let _ = sql::drop_database(&self.name)
                .and_then(|script| Ok(script + &sql::sweep_loaders(self.plan.live())?))
                .and_then(|script| self.plan.psql().run(self.plan.maintenance, "restore", script));
        }
    }
}
