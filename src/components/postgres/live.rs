//! Tables of the live database, read as a dump of them.

use anyhow::{Context as _, Result};

use super::{explained, logged_in, sql, Psql};
use crate::app::App;
use crate::process::{Input, Observer};

/// Leads a dump of the tables whose names end with one of `names` past `observer`, and gives it back. Nothing is
/// changed, and what is read is of one moment.
pub fn read_tables<O: Observer>(app: &App, names: &[&str], observer: O) -> Result<O> {
    let config = &app.config;
    let docker = app.docker()?;
    docker.running(&config.postgres_container, "BACKUP_POSTGRES_CONTAINER")?;
    let psql = Psql::live(app, &docker);
    // It finds out as whom, and by which way, the server lets us in, which a dump cannot try twice.
    psql.run(&config.postgres_db, "read", "SELECT 1;\n".to_owned())?;
    let application = sql::application_name("read", &config.postgres_db);
    let target = format!("--dbname={}", psql.target(&config.postgres_db, &application)?);
    let tables: Vec<String> = names.iter().map(|name| format!("--table=*.*{name}")).collect();
    let mut argv = vec!["pg_dump", "--no-password", &target];
    argv.extend(tables.iter().map(String::as_str));
    let mut chain = app.chain();
    chain.pulse(psql.works(&config.postgres_db, "read")?);
    let docker = app.logged_in(docker.clone());
    let command = docker.exec_leashed(&config.postgres_container, &[], &logged_in(&argv));
    let (_, stream) = chain.stream("pg_dump", command, Input::Leash)?;
    let seen = chain.pump("reading tables", stream, std::io::sink(), observer);
    let finished = chain.finish().map_err(explained).context("pg_dump failed")?;
    seen.get(&finished)
}
