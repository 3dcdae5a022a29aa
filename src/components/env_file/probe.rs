//! What doctor says of `.env` and n8n's key.

use std::env;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::time::SystemTime;

use crate::app::App;
use crate::cli;
use crate::components::credentials;
use crate::config::{dotenv, MAX_BYTES, SETTINGS};
use crate::process;
use crate::report::finding::Report;
use crate::store::manifest::Point;
use crate::store::{atomic, inventory, Stamp};

/// `.env`, and n8n's key in it.
pub fn probe(app: &App, report: &mut Report) {
    let path = app.config.env_file();
    if path.is_file() && !app.config.env_file_exists {
        // It could not be understood, which is told already.
        return;
    }
    let text = match atomic::read(&path, MAX_BYTES) {
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
    match (credentials::key_of_env(&path, &text), point_with_key(app)) {
        (Ok(Some(_)), _) => report.ok("key", "N8N_ENCRYPTION_KEY is in .env"),
        (_, Some(point)) => report.ok("key", format!("recovery point {point} holds n8n's key")),
        _ => report.warn(
            "key",
            "there is no N8N_ENCRYPTION_KEY in .env; unless n8n keeps it in its volume (a backup tells), put it there: \
             without it stored credentials are lost",
        ),
    }
}

/// The newest recovery point that holds n8n's key. Of each place where that may be, the last backup that looked there
/// tells; one of another part by itself says nothing of it.
fn point_with_key(app: &App) -> Option<Stamp> {
    let points = inventory::latest_first(&app.store, SystemTime::now()).ok()?;
    let readable = points.into_iter().filter_map(|(_, point)| point.ok());
    let points: Vec<Point> = readable
        .filter(|point| point.excluded_from_latest().is_none())
        .collect();
    let tells = |name: &str| points.iter().find_map(|point| Some((point, point.fact(name)?)));
    let told = ["n8n.key", "env.key"].into_iter().filter_map(tells);
    let mut holding = told.filter(|(_, place)| !place.starts_with("none"));
    holding.next().map(|(point, _)| point.stamp)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::store::manifest::Member;
    use crate::store::marks::EXCLUDED;
    use crate::store::Kind;
    use crate::testing::TempDir;

    #[test]
    fn a_backup_of_another_part_hides_no_key() {
        let project = TempDir::new();
        let app = App::new(Config::without_env_file(project.path()).unwrap());
        let write = |stamp: &str, kind: Kind, facts: &[(&str, &str)]| {
            let mut point = Point::new(Stamp::parse(stamp).unwrap());
            let path = app.store.path(kind, point.stamp);
            let name = path.strip_prefix(app.store.root()).unwrap().display().to_string();
            let sha256 = "0".repeat(64);
            point.members.push(Member { kind, name, sha256 });
            for (name, value) in facts {
                point.set(name, value);
            }
            point.write(&app.store).unwrap();
        };
        let found = || point_with_key(&app).map(|stamp| stamp.to_string());
        assert_eq!(found(), None);
        let [volume, no_env] = [("n8n.key", "in the volume"), ("env.key", "none in .env")];
        write("20260101_020000", Kind::N8n, &[volume, no_env]);
        write("20260102_020000", Kind::Postgres, &[]);
        write("20260103_020000", Kind::Env, &[no_env]);
        // As clocks that are wrong date one, and one that is restored by name only.
        write(
            "21060101_020000",
            Kind::N8n,
            &[("n8n.key", "none in the volume"), no_env],
        );
        write(
            "20260104_020000",
            Kind::N8n,
            &[("n8n.key", "none in the volume"), (EXCLUDED, "so")],
        );
        assert_eq!(found().as_deref(), Some("20260101_020000"));
        write(
            "20260105_020000",
            Kind::N8n,
            &[("n8n.key", "none in the volume"), no_env],
        );
        assert_eq!(found(), None);
    }
}
