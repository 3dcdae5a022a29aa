//! Which of n8n's containers work on the same database.

use super::home::{home_of, mount_of};
use super::hosts::{direct, is_proxy, reached};
use super::n8n::{role, starts_own, Role};
use super::{Stack, PROJECT, SERVICE};
use crate::engine::describe::Described;
use crate::store::Kind;

const HOST: (&str, &str) = ("DB_POSTGRESDB_HOST", "localhost");
const PORT: (&str, &str) = ("DB_POSTGRESDB_PORT", "5432");
const DATABASE: (&str, &str) = ("DB_POSTGRESDB_DATABASE", "n8n");
const USER: (&str, &str) = ("DB_POSTGRESDB_USER", "postgres");
const SCHEMA: (&str, &str) = ("DB_POSTGRESDB_SCHEMA", "public");
const PREFIX: (&str, &str) = ("DB_TABLE_PREFIX", "");

/// The containers of n8n that are not of the stack and work on its PostgreSQL database all the same, as a worker of
/// another directory; `names` are those of n8n's containers. Where it is not sure, it is none: two stacks may have the
/// same words for different databases.
pub(super) fn strangers<'a>(names: &[String], all: &'a [Described], stack: &Stack<'_>) -> Vec<&'a Described> {
    let is_known = |other: &Described| {
        let mut servers = stack.servers.iter();
        names.contains(&other.name) || servers.any(|known| known.id == other.id)
    };
    let is_one_more = |other: &Described| {
        let is_of_service = service(other).iter().all(|label| !label.is_empty());
        is_of_service && stack.servers.iter().any(|known| service(known) == service(other))
    };
    let works_on_it = |other: &Described| match role(other) {
        None => false,
        Some(_) if is_one_more(other) => share_server(all, stack.main, other),
        // A script may only read the database, and be left out on purpose.
        Some(role) if role == Role::Presumed || starts_own(other) => false,
        Some(_) => share_server(all, stack.main, other) && are_told_alike(all, stack.main, other),
    };
    let others = all.iter().filter(|other| !is_known(other));
    others.filter(|other| works_on_it(other)).collect()
}

/// The Compose project and the service in it.
fn service(container: &Described) -> [&str; 2] {
    [PROJECT, SERVICE].map(|label| container.label(label))
}

/// Whether two containers are told the same database in PostgreSQL.
pub(super) fn share_server(all: &[Described], one: &Described, other: &Described) -> bool {
    other.variable("DB_TYPE") == Some("postgresdb") && !differ(all, one, other)
}

/// Whether two of n8n's containers work on different databases.
pub(super) fn differ(all: &[Described], one: &Described, other: &Described) -> bool {
    let differs = |what: &(&str, &str)| value(one, *what) != value(other, *what);
    if [("DB_TYPE", "sqlite"), PREFIX].iter().any(differs) {
        return true;
    }
    if value(one, ("DB_TYPE", "sqlite")) != "postgresdb" {
        let home = |container: &Described| mount_of(container, &home_of(container)).map(|mount| mount.source.clone());
        return differs(&("DB_SQLITE_DATABASE", "database.sqlite")) || home(one) != home(other);
    }
    // A server may have several names.
    let is_other_server = match (server(all, one), server(all, other)) {
        (None, None) => [HOST, PORT].iter().any(differs),
        (one, other) => one != other,
    };
    is_other_server || [DATABASE, SCHEMA].iter().any(differs)
}

/// A variable, the file that tells it, or what holds without it.
fn value(container: &Described, (name, usual): (&str, &str)) -> String {
    let value = container
        .variable(name)
        .filter(|value| !value.is_empty())
        .map(str::to_owned);
    let file = || Some(format!("the file {}", container.variable(&format!("{name}_FILE"))?));
    value.or_else(file).unwrap_or_else(|| usual.to_owned())
}

/// The container of the PostgreSQL server that another one is configured to, by its ID, and the port there.
fn server<'a>(all: &'a [Described], container: &Described) -> Option<(&'a str, u16)> {
    let port = value(container, PORT).parse().unwrap_or_default();
    match reached(all, container, &value(container, HOST), port, Kind::Postgres)[..] {
        [(server, inner)] => Some((server.id.as_str(), inner)),
        _ => None,
    }
}

/// Whether the environments alone tell which database two containers work on, and its server is a container here. To a
/// pooler a name may stand for any database, and some go by the user's: it is one where both go there as one user, whom
/// no file tells.
fn are_told_alike(all: &[Described], one: &Described, other: &Described) -> bool {
    let asked = |container: &Described| {
        let port = value(container, PORT).parse().unwrap_or_default();
        direct(all, container, &value(container, HOST), port, Kind::Postgres)
    };
    let user_in_file = format!("{}_FILE", USER.0);
    let is_user_told = |container: &Described| container.variable(&user_in_file).is_none();
    let is_same_way = match (&asked(one)[..], &asked(other)[..]) {
        ([(first, _)], [(second, _)]) if !is_proxy(first) && !is_proxy(second) => true,
        ([(first, inner)], [(second, other_inner)]) => {
            let is_same_user = is_user_told(one) && is_user_told(other) && value(one, USER) == value(other, USER);
            (&first.id, inner) == (&second.id, other_inner) && is_same_user
        }
        _ => false,
    };
    is_same_way && is_told(one) && is_told(other)
}

/// Whether no file tells anything of n8n's database.
fn is_told(container: &Described) -> bool {
    let mut names = [HOST, PORT, DATABASE, SCHEMA, PREFIX].iter().map(|(name, _)| *name);
    let is_in_file = names.any(|name| container.variable(&format!("{name}_FILE")).is_some());
    !is_in_file && container.variable("N8N_CONFIG_FILES").is_none()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::tests::{app_of, container, found, stack};
    use super::*;
    use crate::engine::Status;
    use crate::testing::TempDir;

    /// The strangers beside a stack of the project `mine`, of which these are all containers.
    fn strangers_in(project: &Path, settings: &str, mut all: Vec<Described>) -> Vec<String> {
        all.iter_mut().for_each(|one| one.status = Status::Running);
        let mut app = app_of(project, settings);
        found(&mut app, &all).unwrap();
        let stack = Stack::find(&app, &all).unwrap().unwrap();
        let strangers = strangers(&app.config.n8n_containers, &all, &stack);
        let warnings = app.config.found.warnings.join("\n");
        assert_eq!(
            warnings.contains("a restore is refused"),
            !strangers.is_empty(),
            "{warnings}"
        );
        strangers.iter().map(|other| other.name.clone()).collect()
    }

    #[test]
    fn one_more_worker_than_a_setting_names_is_a_stranger() {
        let dir = TempDir::new();
        let project = dir.path().canonicalize().unwrap();
        let named = "BACKUP_N8N_CONTAINERS='mine-n8n-1 mine-worker-1'\n";
        let mut all = stack("mine", &project);
        all.extend(stack("other", Path::new("/srv/other")));
        assert_eq!(strangers_in(&project, "", all.clone()), [""; 0]);
        assert_eq!(strangers_in(&project, named, all.clone()), ["mine-worker-2"]);
        // Of one service, whatever the words mean: here the server is no container.
        let all = all.split_off(2);
        assert_eq!(strangers_in(&project, named, all[..3].to_vec()), ["mine-worker-2"]);
        // One that works once and ends is none.
        let mut all = stack("mine", &project);
        all[2].command = vec!["import:workflow".to_owned()];
        assert_eq!(strangers_in(&project, named, all), [""; 0]);
    }

    #[test]
    fn a_worker_of_another_directory_is_a_stranger_where_it_surely_has_the_same_database() {
        let dir = TempDir::new();
        let project = dir.path().canonicalize().unwrap();
        let base = [
            "DB_TYPE=postgresdb",
            "DB_POSTGRESDB_HOST=db",
            "DB_POSTGRESDB_DATABASE=flows",
        ];
        let of = Some(("other", Path::new("/srv/other"), "jobs"));
        let beside = |env: &[&str], command: &[&str]| {
            let mut worker = container("other-jobs-1", "n8nio/n8n:2", env, command, of);
            worker.networks.insert("mine".to_owned(), Vec::new());
            let mut all = stack("mine", &project);
            all.push(worker);
            all
        };
        let with = |env: &[&str], command: &[&str]| !strangers_in(&project, "", beside(env, command)).is_empty();
        assert!(with(&base, &["worker"]) && with(&base, &["webhook"]) && with(&base, &["start"]));
        assert!(with(
            &[&base[..], &["DB_POSTGRESDB_SCHEMA=public"]].concat(),
            &["worker"]
        ));
        for other in [
            "DB_POSTGRESDB_DATABASE=two",
            "DB_POSTGRESDB_SCHEMA=two",
            "DB_TABLE_PREFIX=two_",
            "DB_POSTGRESDB_PORT=5433",
            "DB_POSTGRESDB_HOST=db.example.org",
            "DB_TYPE=sqlite",
            "DB_TYPE=",
            // Nobody knows what these hold.
            "DB_POSTGRESDB_SCHEMA_FILE=/run/secrets/schema",
            "N8N_CONFIG_FILES=/etc/n8n.json",
        ] {
            assert!(!with(&[&base[..], &[other]].concat(), &["worker"]), "{other}");
        }
        assert!(!with(&[], &["worker"]) && !with(&base, &["execute", "--id", "1"]));
        // A setting may name it, and then it is stopped.
        let named = "BACKUP_N8N_CONTAINERS='mine-n8n-1 mine-worker-1 mine-worker-2 other-jobs-1'\n";
        assert_eq!(strangers_in(&project, named, beside(&base, &["worker"])), [""; 0]);
        // The same words lead to a server of its own, or to none that is known.
        let mut all = beside(&base, &["worker"]);
        all.last_mut().unwrap().networks.remove("mine");
        all.extend(stack("other", Path::new("/srv/other")));
        assert_eq!(strangers_in(&project, "", all), [""; 0]);
        let all = beside(&base, &["worker"]).split_off(1);
        assert_eq!(strangers_in(&project, "", all), [""; 0]);
        // Behind a pooler a name may stand for another database, unless both of n8n's go there.
        let pooled_with = |own: fn(&mut Described), by_both: bool, host: &str, env: &[&str]| {
            let mut all = beside(&[&base[..], env].concat(), &["worker"]);
            all[2..5].iter_mut().for_each(own);
            let of_pooler: &[&str] = if host.is_empty() { &[] } else { &["POSTGRESQL_HOST=db"] };
            let mut pooler = container("pool", "bitnami/pgbouncer", of_pooler, &[], None);
            pooler.networks.insert("mine".to_owned(), vec!["pool".to_owned()]);
            let to_pool = |one: &mut Described| one.env.insert("DB_POSTGRESDB_HOST".to_owned(), "pool".to_owned());
            to_pool(all.last_mut().unwrap());
            if by_both {
                all[2..5].iter_mut().for_each(|one| drop(to_pool(one)));
            }
            all.push(pooler);
            let settings = if host.is_empty() {
                "BACKUP_POSTGRES_CONTAINER=mine-db-1\n"
            } else {
                ""
            };
            strangers_in(&project, settings, all)
        };
        let pooled = |by_both: bool, host: &str, env: &[&str]| pooled_with(|_| (), by_both, host, env);
        let same_user = "DB_POSTGRESDB_USER=app";
        assert_eq!(pooled(false, "db", &[same_user]), [""; 0]);
        for host in ["db", ""] {
            assert_eq!(pooled(true, host, &[same_user]), ["other-jobs-1"], "{host}");
            assert_eq!(pooled(true, host, &[]), [""; 0], "{host}");
            let two = ["DB_POSTGRESDB_DATABASE=two", same_user];
            assert_eq!(pooled(true, host, &two), [""; 0], "{host}");
            // A file of the same path may hold another user.
            let in_file = |one: &mut Described| {
                one.env.remove("DB_POSTGRESDB_USER");
                let file = "/run/secrets/db_user".to_owned();
                one.env.insert("DB_POSTGRESDB_USER_FILE".to_owned(), file);
            };
            let from_file = ["DB_POSTGRESDB_USER_FILE=/run/secrets/db_user"];
            assert_eq!(pooled_with(in_file, true, host, &from_file), [""; 0], "{host}");
        }
        // A script of one's own may do anything there.
        let behind_start_script = ["tini", "--", "/docker-entrypoint.sh", "sh", "/scripts/worker-stats.sh"];
        let scripts: [&[&str]; 3] = [
            &["/export.sh"],
            &["sh", "/scripts/worker-stats.sh"],
            &behind_start_script,
        ];
        for script in scripts {
            let mut all = beside(&base, &[]);
            let own = all.last_mut().unwrap();
            own.entry_point = script.iter().map(|word| (*word).to_owned()).collect();
            own.container.restart = "always".to_owned();
            assert!(role(own).is_some());
            assert_eq!(strangers_in(&project, "", all), [""; 0]);
        }
        // What its command tells is n8n all the same, whatever paths and scripts stand beside it.
        let behind_start_script = ["tini", "--", "/docker-entrypoint.sh"];
        let of_n8n: [(&[&str], &[&str]); 6] = [
            (&["/bin/sh", "-c"], &["export X=$(cat /run/secrets/x); exec n8n worker"]),
            (&["sh", "-c"], &["exec /usr/local/bin/n8n worker"]),
            (&["sh", "-c"], &["/scripts/wait.sh; exec n8n worker"]),
            (&behind_start_script, &["sh", "-c", "/scripts/wait.sh && n8n worker"]),
            (&["/wait-for-it.sh", "db:5432", "--"], &["n8n", "worker"]),
            (&["sh", "/docker-entrypoint.sh"], &["worker"]),
        ];
        for (entry_point, command) in of_n8n {
            let mut all = beside(&base, command);
            let worker = all.last_mut().unwrap();
            worker.entry_point = entry_point.iter().map(|word| (*word).to_owned()).collect();
            worker.container.restart = "always".to_owned();
            assert_eq!(
                strangers_in(&project, "", all),
                ["other-jobs-1"],
                "{entry_point:?} {command:?}"
            );
        }
        // A script in the shell's own words, too.
        let mut all = beside(&base, &["sleep 5; exec /scripts/worker-stats.sh"]);
        let own = all.last_mut().unwrap();
        own.entry_point = vec!["sh".to_owned(), "-c".to_owned()];
        own.container.restart = "always".to_owned();
        assert!(role(own).is_some());
        assert_eq!(strangers_in(&project, "", all), [""; 0]);
    }
}
