//! What doctor says of `.env` and n8n's key.

use std::env;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;

use crate::app::App;
use crate::cli;
use crate::components::credentials;
use crate::config::{dotenv, SETTINGS};
use crate::process;
use crate::report::finding::Report;

/// `.env`, and n8n's key in it.
pub fn probe(app: &App, report: &mut Report) {
    let path = app.config.env_file();
    if path.is_file() && !app.config.env_file_exists {
        // It could not be understood, which is told already.
        return;
    }
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound && !app.config.found.deployment.is_empty() => {
            return report.ok(
                "settings",
                "there is no .env; what the stack was deployed from is backed up",
            );
        }
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
                process::shell_quote(&path.to_string_lossy())
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
    let recorded = crate::store::inventory::list(&app.store).ok().and_then(|points| {
        let mut newest_first = points.into_iter().rev().filter_map(|(_, point)| point.ok());
        let newest = newest_first.find(|point| point.excluded_from_latest().is_none())?;
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
