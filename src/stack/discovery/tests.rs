use super::*;
use crate::config::Config;
use crate::engine::describe::tests::described;
use crate::engine::Status;
use crate::store::manifest::Point;
use crate::store::Stamp;
use crate::testing::TempDir;

/// A container: its name, image, environment, command, and labels of Compose.
pub(super) fn container(
    name: &str,
    image: &str,
    env: &[&str],
    command: &[&str],
    project: Option<(&str, &Path, &str)>,
) -> Described {
    let list = |words: &[&str]| {
        format!(
            "[{}]",
            words
                .iter()
                .map(|word| format!("{word:?}"))
                .collect::<Vec<_>>()
                .join(",")
        )
    };
    let labels = match project {
        Some((project, directory, service)) => format!(
            r#"{{"{PROJECT}": "{project}", "{DIRECTORY}": "{}", "{SERVICE}": "{service}", "{ONE_OFF}": "False"}}"#,
            directory.display()
        ),
        None => "{}".to_owned(),
    };
    let network = project.map_or("bridge", |(project, ..)| project);
    let service = project.map_or("", |(.., service)| service);
    described(&format!(
        r#"{{"Id": "id-{name}", "Name": "/{name}", "State": {{"Status": "exited"}},
            "Config": {{"Image": "{image}", "User": "node", "Env": {}, "Cmd": {},
                        "Entrypoint": ["tini", "--", "/docker-entrypoint.sh"], "Labels": {labels}, "Hostname": "h-{name}"}},
            "HostConfig": {{"NetworkMode": "{network}"}},
            "Mounts": [{{"Type": "volume", "Name": "{name}_data", "Source": "/v", "Destination": "/home/node/.n8n"}}],
            "NetworkSettings": {{"Networks": {{"{network}": {{"Aliases": ["{service}"]}}}}}}}}"#,
        list(env),
        list(command)
    ))
}

fn server(name: &str, image: &str, env: &[&str], project: Option<(&str, &Path, &str)>) -> Described {
    Described {
        entry_point: vec!["docker-entrypoint.sh".to_owned()],
        ..container(name, image, env, &[image], project)
    }
}

pub(super) fn app_of(dir: &Path, settings: &str) -> App {
    App::new(Config::of_text(dir, Path::new(".env"), settings.as_bytes()).unwrap())
}

/// What is found, as [`discover`] finds it.
pub(super) fn found(app: &mut App, all: &[Described]) -> Result<(), Problem> {
    found_by(app, all, Path::new("/usr/bin"))
}

/// As [`found`], with the docker command of a directory.
pub(super) fn found_by(app: &mut App, all: &[Described], dir: &Path) -> Result<(), Problem> {
    let docker = crate::engine::Docker::locate(Some(dir.into()), app.config.stall).unwrap();
    match Stack::find(app, all)? {
        Some(stack) => values::fill(app, &docker, all, &stack),
        None => recall::recall(app, Some((&docker, all))),
    }
    Ok(())
}

const QUEUE: &[&str] = &[
    "DB_TYPE=postgresdb",
    "DB_POSTGRESDB_HOST=db",
    "DB_POSTGRESDB_DATABASE=flows",
    "DB_POSTGRESDB_USER=app",
    "EXECUTIONS_MODE=queue",
    "QUEUE_BULL_REDIS_HOST=cache",
    "QUEUE_BULL_REDIS_PORT=6380",
    "QUEUE_BULL_REDIS_PASSWORD=secret",
];

/// A stack of the project `name` in `dir`.
pub(super) fn stack(name: &str, dir: &Path) -> Vec<Described> {
    let of = |service| Some((name, dir, service));
    vec![
        server(
            &format!("{name}-db-1"),
            "postgres:16",
            &["POSTGRES_USER=root", "POSTGRES_DB=other", "PG_MAJOR=16"],
            of("db"),
        ),
        server(&format!("{name}-cache-1"), "redis:7", &[], of("cache")),
        container(
            &format!("{name}-worker-2"),
            "n8nio/n8n:2",
            QUEUE,
            &["worker"],
            of("worker"),
        ),
        container(&format!("{name}-n8n-1"), "n8nio/n8n:2", QUEUE, &[], of("n8n")),
        container(
            &format!("{name}-worker-1"),
            "n8nio/n8n:2",
            QUEUE,
            &["worker"],
            of("worker"),
        ),
    ]
}

#[test]
fn a_stack_of_compose_is_found_without_a_setting() {
    let dir = TempDir::new();
    let project = dir.path().canonicalize().unwrap();
    let mut all = stack("other", Path::new("/elsewhere"));
    all.extend(stack("mine", &project));
    let mut app = app_of(&project, "POSTGRES_USER=app\nPOSTGRES_DB=app\nREDIS_PORT=16379\n");
    found(&mut app, &all).unwrap();
    let config = &app.config;
    assert_eq!(config.n8n_containers, ["mine-n8n-1", "mine-worker-1", "mine-worker-2"]);
    assert_eq!(
        (
            config.postgres_container.as_str(),
            config.postgres_user.as_str(),
            config.postgres_db.as_str()
        ),
        ("mine-db-1", "root", "flows")
    );
    assert_eq!(
        (config.redis_container.as_str(), config.redis_port),
        ("mine-cache-1", 6380)
    );
    assert_eq!(
        config.redis_password.as_ref().map(|password| password.reveal()),
        Some("secret")
    );
    assert_eq!(config.n8n_volume, "mine-n8n-1_data");
    assert!(config.found.problems.is_empty() && config.found.unused.is_empty());
    assert_eq!(config.found.compose.services, ["n8n", "worker"]);
}

#[test]
fn how_compose_was_called_is_remembered_where_all_files_lie_in_the_directory() {
    let dir = TempDir::new();
    let project = dir.path().canonicalize().unwrap();
    for name in ["n8n.yml", "prod.yml", ".env"] {
        std::fs::write(project.join(name), "").unwrap();
    }
    let called = |files: &str| {
        let mut all = stack("mine", &project);
        for container in &mut all {
            container
                .labels
                .insert("com.docker.compose.project.config_files".to_owned(), files.to_owned());
            let env = project.join(".env").display().to_string();
            container
                .labels
                .insert("com.docker.compose.project.environment_file".to_owned(), env);
        }
        let mut app = app_of(&project, "");
        found(&mut app, &all).unwrap();
        let mut point = Point::new(Stamp::parse("20260101_000000").unwrap());
        facts(&app).iter().for_each(|(name, value)| point.set(name, value));
        composed(&point)
    };
    let told = called(&format!("{},prod.yml", project.join("n8n.yml").display()));
    assert_eq!(told.files, [Path::new("n8n.yml"), Path::new("prod.yml")]);
    assert_eq!(told.env_files, [Path::new(".env")]);
    assert_eq!(told.services, ["n8n", "worker"]);
    let told = called("n8n.yml,/etc/hostname");
    assert!(told.files.is_empty() && told.env_files.is_empty());
    let mut point = Point::new(Stamp::parse("20260101_000000").unwrap());
    point.set("stack.compose.files", "/etc/x.yml,../x.yml,x.yml");
    assert_eq!(composed(&point).files, [Path::new("x.yml")]);
}

#[test]
fn what_is_not_n8ns_is_named() {
    let dir = TempDir::new();
    let project = dir.path().canonicalize().unwrap();
    let mut all = stack("mine", &project);
    let of = |service| Some(("mine", project.as_path(), service));
    all.push(server("mine-qdrant-1", "qdrant/qdrant", &[], of("qdrant")));
    all.push(server("mine-init-1", "n8nio/n8n", QUEUE, of("init")));
    all[6].command = vec!["chown".to_owned()];
    all[3]
        .env
        .insert("N8N_DEFAULT_BINARY_DATA_MODE".to_owned(), "s3".to_owned());
    for name in ["qdrant/storage", "nginx"] {
        std::fs::create_dir_all(project.join(name)).unwrap();
    }
    let bind = |source: &Path| crate::engine::describe::MountPoint {
        volume: String::new(),
        source: source.display().to_string(),
        destination: "/there".to_owned(),
    };
    let qdrant = &mut all[5].mounts;
    qdrant.extend([
        bind(&project.join("qdrant/storage")),
        bind(&project),
        bind(Path::new("/etc")),
    ]);
    // What n8n mounts, too, is n8n's.
    qdrant.push(bind(&project.join("nginx")));
    all[3].mounts.push(bind(&project.join("nginx")));
    all[1].image = "docker.dragonflydb.io/dragonflydb/dragonfly".to_owned();
    all[3].container.auto_remove = true;
    let mut app = app_of(&project, "");
    found(&mut app, &all).unwrap();
    let warnings = app.config.found.warnings.join("\n");
    let removed = format!("{} was created with --rm: ", all[3].name);
    assert!(warnings.contains(&removed), "{warnings}");
    assert!(
        warnings.contains("binary data in s3") && warnings.contains("backed up: mine-qdrant-1_data qdrant/storage ("),
        "{warnings}"
    );
    assert!(warnings.contains("BACKUP_EXCLUDE_MOUNTS"), "{warnings}");
    assert!(app
        .config
        .found
        .check(Kind::Redis)
        .unwrap_err()
        .to_string()
        .contains("Dragonfly"));
    let mut app = app_of(&project, "BACKUP_EXCLUDE_MOUNTS=/there\n");
    found(&mut app, &all).unwrap();
    assert!(!app.config.found.warnings.join("\n").contains("qdrant/storage"));
}

#[test]
fn the_superuser_of_other_images_is_known() {
    let dir = TempDir::new();
    let project = dir.path().canonicalize().unwrap();
    for (env, user, password) in [
        (
            &[
                "POSTGRESQL_POSTGRES_PASSWORD=a",
                "POSTGRESQL_USERNAME=x",
                "POSTGRESQL_PASSWORD=b",
            ][..],
            "postgres",
            Some("a"),
        ),
        (&["POSTGRESQL_USERNAME=x", "POSTGRESQL_PASSWORD=b"], "x", Some("b")),
        (&["PG_MAJOR=17"], "postgres", None),
        (&[], "app", None),
    ] {
        let mut all = stack("mine", &project);
        all[0] = server("mine-db-1", "db", env, Some(("mine", &project, "db")));
        let mut app = app_of(&project, "");
        found(&mut app, &all).unwrap();
        assert_eq!(app.config.postgres_user, user);
        assert_eq!(
            app.config.postgres_password.as_ref().map(|password| password.reveal()),
            password
        );
    }
}

/// As after `setup --write`, and once n8n's containers are gone.
#[test]
fn the_password_of_a_role_that_is_named_is_taken_from_where_it_is_told() {
    let dir = TempDir::new();
    let project = dir.path().canonicalize().unwrap();
    let official = &["POSTGRES_USER=root", "PG_MAJOR=16"][..];
    let bitnami = &["POSTGRESQL_USERNAME=x", "POSTGRESQL_PASSWORD=b"][..];
    for (env, user, password, without_n8n) in [
        (bitnami, "x", Some("b"), Some("b")),
        (&["POSTGRESQL_POSTGRES_PASSWORD=a"], "postgres", Some("a"), Some("a")),
        (official, "app", Some("n"), None),
        (bitnami, "app", Some("n"), None),
        // Its container gives it to its own programs; or nothing tells it.
        (official, "root", None, None),
        (official, "backup", None, None),
        (&[], "postgres", None, None),
    ] {
        let mut all = stack("mine", &project);
        all[0] = server("mine-db-1", "db", env, Some(("mine", &project, "db")));
        for n8n in &mut all[2..] {
            n8n.env.insert("DB_POSTGRESDB_PASSWORD".to_owned(), "n".to_owned());
        }
        let with = |settings: &str, all: &[Described]| {
            let mut app = app_of(&project, settings);
            found(&mut app, all).unwrap();
            let password = app
                .config
                .postgres_password
                .as_ref()
                .map(|password| password.reveal().to_owned());
            (app.config.postgres_user.clone(), password, facts(&app))
        };
        let named = format!("BACKUP_POSTGRES_USER={user}\n");
        let (taken, told, facts) = with(&named, &all);
        assert_eq!((taken.as_str(), told.as_deref()), (user, password), "{env:?}");
        let own = format!("{named}BACKUP_POSTGRES_PASSWORD=own\n");
        assert_eq!(with(&own, &all).1.as_deref(), Some("own"));
        let mut point = Point::new(Stamp::parse("20260101_000000").unwrap());
        point.set("deleted", "env");
        facts.iter().for_each(|(name, value)| point.set(name, value));
        point.write(&app_of(&project, "").store).unwrap();
        for settings in ["", &named] {
            let (taken, told, _) = with(settings, &all[..2]);
            assert_eq!((taken.as_str(), told.as_deref()), (user, without_n8n), "{env:?}");
        }
        std::fs::remove_dir_all(project.join("backups")).unwrap();
    }
}

#[test]
fn the_role_of_n8n_is_not_guessed_where_a_file_names_it() {
    let dir = TempDir::new();
    let project = dir.path().canonicalize().unwrap();
    for (env, login) in [
        (&["DB_POSTGRESDB_USER=app"][..], "app"),
        (&[], "postgres"),
        (&["DB_POSTGRESDB_USER_FILE=/run/secrets/user"], ""),
    ] {
        let mut all = stack("mine", &project);
        for n8n in &mut all[2..] {
            n8n.env.remove("DB_POSTGRESDB_USER");
            n8n.env
                .insert("DB_POSTGRESDB_PASSWORD".to_owned(), "its own".to_owned());
            let env = env.iter().filter_map(|line| line.split_once('='));
            n8n.env
                .extend(env.map(|(name, value)| (name.to_owned(), value.to_owned())));
        }
        let mut app = app_of(&project, "");
        found(&mut app, &all).unwrap();
        assert_eq!(app.config.found.login, login);
        assert_eq!(app.config.postgres_user, "root");
        // In case the server lacks that one.
        assert_eq!(app.config.found.second_login, !login.is_empty());
        let mut app = app_of(&project, "BACKUP_POSTGRES_USER=root\n");
        found(&mut app, &all).unwrap();
        assert!(!app.config.found.second_login);
        let password = app.config.found.login_password.unwrap();
        assert_eq!(password.reveal(), "its own");
    }
}

/// A stack with the value of `variable` in a file that holds `text`, or is not there.
fn with_file(project: &Path, variable: &str, text: Option<&str>) -> Vec<Described> {
    let file = project.join("value");
    match text {
        Some(text) => std::fs::write(&file, text).unwrap(),
        None => drop(std::fs::remove_file(&file)),
    }
    let mut all = stack("mine", project);
    for n8n in &mut all[2..] {
        n8n.env.remove(variable);
        n8n.env.insert(format!("{variable}_FILE"), "/run/value".to_owned());
        n8n.mounts.push(crate::engine::describe::MountPoint {
            volume: String::new(),
            source: file.display().to_string(),
            destination: "/run/value".to_owned(),
        });
    }
    all
}

#[test]
fn a_value_that_cannot_be_read_is_not_taken_for_the_usual_one() {
    let dir = TempDir::new();
    let project = dir.path().canonicalize().unwrap();
    let told = |settings: &str, all: &[Described]| {
        let mut app = app_of(&project, settings);
        found(&mut app, all).unwrap();
        app.config
    };
    for (variable, setting, kind) in [
        ("DB_TYPE", "", Kind::Postgres),
        ("DB_TYPE", "", Kind::Sqlite),
        ("DB_TABLE_PREFIX", "", Kind::Postgres),
        (
            "DB_POSTGRESDB_HOST",
            "BACKUP_POSTGRES_CONTAINER=mine-db-1",
            Kind::Postgres,
        ),
        (
            "DB_POSTGRESDB_PORT",
            "BACKUP_POSTGRES_CONTAINER=mine-db-1",
            Kind::Postgres,
        ),
        ("DB_POSTGRESDB_DATABASE", "BACKUP_POSTGRES_DB=flows", Kind::Postgres),
        ("DB_POSTGRESDB_SCHEMA", "", Kind::Postgres),
        (
            "QUEUE_BULL_REDIS_HOST",
            "BACKUP_REDIS_CONTAINER=mine-cache-1",
            Kind::Redis,
        ),
        ("QUEUE_BULL_REDIS_DB", "QUEUE_BULL_REDIS_DB=2", Kind::Redis),
        ("QUEUE_BULL_REDIS_TLS", "BACKUP_REDIS_TLS=true", Kind::Redis),
        ("QUEUE_BULL_PREFIX", "QUEUE_BULL_PREFIX=jobs", Kind::Redis),
    ] {
        let all = with_file(&project, variable, None);
        let config = told("", &all);
        let problem = &config.found.problems[&kind];
        assert_eq!(
            problem.text,
            format!("{variable}_FILE of mine-n8n-1 cannot be read: /run/value")
        );
        assert!(config.found.uses(kind) || variable == "DB_TYPE", "{variable}");
        let own = setting.split('=').next().unwrap_or_default();
        assert!(problem.hint.contains(own), "{problem:?}");
        if !setting.is_empty() {
            let problems = told(setting, &all).found.problems;
            assert!(problems.is_empty(), "{variable}: {problems:?}");
        }
    }
    // Whether Redis is used at all.
    let mut all = with_file(&project, "EXECUTIONS_MODE", None);
    all.retain(|container| !container.name.contains("worker"));
    assert!(told("", &all).found.check(Kind::Redis).is_err() && told("", &all).found.uses(Kind::Redis));
    // What decides nothing, or is not asked for.
    for variable in ["DB_POSTGRESDB_PASSWORD", "QUEUE_BULL_REDIS_PASSWORD"] {
        assert!(told("", &with_file(&project, variable, None)).found.problems.is_empty());
    }
    let mut all = with_file(&project, "DB_POSTGRESDB_SCHEMA", None);
    all.retain(|container| container.name == "mine-n8n-1");
    all[0].env.retain(|name, _| name == "DB_POSTGRESDB_SCHEMA_FILE");
    assert!(told("", &all).found.problems.is_empty());
    // An empty name is the user's.
    for (text, database) in [("flows\n", "flows"), ("", "app"), ("\n", "app")] {
        let config = told("", &with_file(&project, "DB_POSTGRESDB_DATABASE", Some(text)));
        assert_eq!(config.postgres_db, database);
        assert!(config.found.problems.is_empty());
    }
    let config = told("", &with_file(&project, "N8N_ENCRYPTION_KEY", None));
    assert!(config.found.problems.is_empty());
    let undeployed = config.found.undeployed.join(" ");
    assert!(undeployed.contains("N8N_ENCRYPTION_KEY_FILE"), "{undeployed}");
}

#[test]
fn settings_of_our_own_go_first() {
    let dir = TempDir::new();
    let project = dir.path().canonicalize().unwrap();
    let settings = "BACKUP_POSTGRES_CONTAINER=x\nBACKUP_POSTGRES_USER=u\nBACKUP_POSTGRES_DB=d\nBACKUP_REDIS_PORT=1\n\
                    BACKUP_REDIS_PASSWORD=p\nBACKUP_N8N_VOLUME=v\n";
    let mut app = app_of(&project, settings);
    let mut all = stack("mine", &project);
    all.push(server("x", "postgres", &["POSTGRES_USER=y"], None));
    found(&mut app, &all).unwrap();
    let config = &app.config;
    assert_eq!(
        (config.postgres_container.as_str(), config.postgres_user.as_str()),
        ("x", "u")
    );
    assert_eq!(
        (
            config.postgres_db.as_str(),
            config.redis_port,
            config.n8n_volume.as_str()
        ),
        ("d", 1, "v")
    );
    assert_eq!(
        config.redis_password.as_ref().map(|password| password.reveal()),
        Some("p")
    );
    // Where n8n has another way to Redis than a program in its container, and where its start script sets what it uses.
    let told = |settings: &str, env: &[(&str, &str)]| {
        let mut all = stack("mine", &project);
        for n8n in &mut all[2..] {
            let env = env
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            n8n.env.extend(env);
        }
        let mut app = app_of(&project, settings);
        found(&mut app, &all).unwrap();
        (app.config.redis_tls, app.config.queue_db)
    };
    let own = "BACKUP_REDIS_TLS=false\nQUEUE_BULL_REDIS_DB=2\n";
    let env = [("QUEUE_BULL_REDIS_TLS", "true"), ("QUEUE_BULL_REDIS_DB", "3")];
    assert_eq!(told("", &[]), (false, Some(0)));
    assert_eq!(told("", &env), (true, Some(3)));
    assert_eq!(told(own, &env), (false, Some(3)));
    assert_eq!(told(&own.replace("false", "true"), &[]), (true, Some(2)));
}

#[test]
fn a_stack_of_another_directory_is_never_ours() {
    let dir = TempDir::new();
    let project = dir.path().canonicalize().unwrap();
    let foreign = Path::new("/elsewhere");
    let of = |service| Some(("n8n", foreign, service));
    let all = [
        server("n8n-postgres", "postgres:16", &[], of("postgres")),
        server("n8n-redis", "redis:7", &[], of("redis")),
        container("n8n-main", "n8nio/n8n", QUEUE, &[], of("n8n")),
    ];
    // By default names, and as a directory whose own stack is down.
    let problem = found(&mut app_of(&project, ""), &all).unwrap_err();
    assert!(
        problem.text.contains("/elsewhere") && problem.hint.contains("BACKUP_COMPOSE_PROJECT=n8n"),
        "{problem:?}"
    );
    std::fs::write(project.join("compose.yaml"), "").unwrap();
    let mut app = app_of(&project, "");
    found(&mut app, &all).unwrap();
    for kind in OF_CONTAINERS {
        assert!(app.config.found.check(kind).is_err(), "{kind:?}");
    }
    assert_eq!(app.config.n8n_containers, ["n8n-worker"]);
    // What is named is wanted.
    let mut app = app_of(&project, "BACKUP_COMPOSE_PROJECT=n8n\n");
    found(&mut app, &all).unwrap();
    assert_eq!(app.config.n8n_containers, ["n8n-main"]);
    let mut app = app_of(&project, "BACKUP_POSTGRES_CONTAINER=n8n-postgres\n");
    found(&mut app, &all).unwrap();
    assert!(app.config.found.check(Kind::Postgres).is_ok() && app.config.found.check(Kind::Redis).is_err());
}

#[test]
fn a_directory_without_a_stack_names_the_projects_that_run_n8n() {
    let dir = TempDir::new();
    let project = dir.path().canonicalize().unwrap();
    let mut all = stack("stack7", Path::new("/data/compose/7"));
    let refused = |all: &[Described], settings: &str, kind| {
        let mut app = app_of(&project, settings);
        found(&mut app, all).unwrap();
        app.config.found.problems.get(&kind).cloned()
    };
    for kind in [Kind::Postgres, Kind::Redis, Kind::N8n] {
        let problem = refused(&all, "", kind).unwrap();
        assert!(problem.hint.contains("stack7 of /data/compose/7"), "{problem:?}");
        assert!(problem.hint.contains("BACKUP_COMPOSE_PROJECT=stack7"), "{problem:?}");
    }
    assert!(refused(&all, "BACKUP_POSTGRES_CONTAINER=pg\n", Kind::Postgres).is_none());
    assert!(refused(&all, "BACKUP_POSTGRES_CONTAINER=pg\n", Kind::Redis).is_some());
    let mut app = app_of(&project, "BACKUP_COMPOSE_PROJECT=stack7\n");
    found(&mut app, &all).unwrap();
    assert_eq!(app.config.postgres_container, "stack7-db-1");
    // Which of two is never guessed.
    all.extend(stack("other", Path::new("/data/compose/8")));
    let problem = refused(&all, "", Kind::Postgres).unwrap();
    assert!(
        problem
            .hint
            .contains("other of /data/compose/8, stack7 of /data/compose/7"),
        "{problem:?}"
    );
    assert!(!problem.hint.contains('='), "{problem:?}");
    assert!(
        problem.text.starts_with("No container of n8n belongs to"),
        "{problem:?}"
    );
    let mut app = App::new(Config::without_env_file(&project).unwrap());
    found(&mut app, &all).unwrap();
    let problem = app.config.found.check(Kind::Postgres).unwrap_err();
    assert_eq!(problem.to_string(), ".env file not found");
    // A compose file may be that of a stack that is down, or a copy of what runs as another project.
    std::fs::write(project.join("compose.yaml"), "").unwrap();
    assert!(refused(&all[..5], "", Kind::N8n).is_none());
    // The volume of the usual name is the other project's where one of its containers mounts it.
    let mut mounted = all[..5].to_vec();
    mounted[2].mounts.push(crate::engine::describe::MountPoint {
        volume: "n8n_n8n_data".to_owned(),
        source: String::new(),
        destination: "/home/node/.n8n".to_owned(),
    });
    assert!(refused(&mounted, "", Kind::N8n).is_some());
    for (kind, name) in [(Kind::Postgres, "n8n-postgres"), (Kind::Redis, "n8n-redis")] {
        let problem = refused(&all[..5], "", kind).unwrap();
        let hint = &problem.hint;
        assert_eq!(problem.text, format!("Container {name} is not running"));
        assert!(
            hint.contains("docker compose up") && hint.contains("BACKUP_COMPOSE_PROJECT=stack7"),
            "{problem:?}"
        );
    }
    // A container of its own tells that it is down.
    let own = server("mine-db-1", "postgres", &[], Some(("mine", &project, "db")));
    assert!(refused(&[&all[..], &[own]].concat(), "", Kind::Redis).is_none());
    // What bears a default name and belongs to nobody is here, unless the directory has a stack of its own.
    all.push(server("n8n-postgres", "postgres", &[], None));
    let problem = refused(&all, "", Kind::Postgres).unwrap();
    assert!(
        problem.text.contains("n8n-postgres is no container of the stack"),
        "{problem:?}"
    );
    std::fs::remove_file(project.join("compose.yaml")).unwrap();
    assert!(refused(&all, "", Kind::Postgres).is_none());
}

#[test]
fn containers_that_say_nothing_leave_the_contracts_names() {
    let dir = TempDir::new();
    let stand_in = |name: &str| server(name, "busybox", &["PATH=/bin"], None);
    let all = [stand_in("n8n-postgres"), stand_in("n8n-redis"), stand_in("n8n-main")];
    let mut app = app_of(dir.path(), "");
    found(&mut app, &all).unwrap();
    assert!(!app.config.found.is_told() && app.config.found.problems.is_empty());
    assert_eq!(app.config.postgres_container, "n8n-postgres");
    // Those of a project are its stack also where they say nothing.
    let project = dir.path().canonicalize().unwrap();
    let all = [server("n8n-postgres", "postgres", &[], Some(("p", &project, "db")))];
    let mut app = app_of(&project, "");
    found(&mut app, &all).unwrap();
    assert!(app.config.found.check(Kind::Postgres).is_ok());
}

#[test]
fn a_part_of_the_stack_is_not_taken_for_the_whole() {
    let dir = TempDir::new();
    let with = |all: &[(&str, &str)], remembered: &str| {
        let mut all: Vec<Described> = all
            .iter()
            .map(|(name, command)| container(name, "n8nio/n8n", QUEUE, &[command], None))
            .collect();
        all.push(server("db", "postgres:16", &["PG_MAJOR=16"], None));
        let other = ["DB_TYPE=postgresdb", "DB_POSTGRESDB_HOST=other"];
        all.push(container("z-other-worker", "n8nio/n8n", &other, &["worker"], None));
        all.push(container(
            "z-sqlite",
            "n8nio/n8n",
            &[],
            &[],
            Some(("p", Path::new("/srv/p"), "n8n")),
        ));
        let mut app = app_of(dir.path(), "");
        let mut point = Point::new(Stamp::parse("20260101_000000").unwrap());
        point.set("deleted", "env");
        point.set("stack.n8n", remembered);
        std::fs::create_dir_all(app.store.sets_dir()).unwrap();
        match remembered {
            "" => drop(std::fs::remove_file(point.path(&app.store))),
            _ => std::fs::write(point.path(&app.store), point.text()).unwrap(),
        }
        found(&mut app, &all).unwrap();
        (app.config.found.told_by.clone(), app.config.n8n_containers.join(" "))
    };
    let told = |by: &str, names: &str| (by.to_owned(), names.to_owned());
    for remembered in ["", "n8n-worker"] {
        let found = with(&[("n8n-worker", "worker"), ("n8n", "start")], remembered);
        assert_eq!(found, told("n8n", "n8n n8n-worker"));
        let all = [
            ("n8n-main", "start"),
            ("n8n-worker-1", "worker"),
            ("n8n-worker-2", "worker"),
        ];
        assert_eq!(
            with(&all, remembered),
            told("n8n-main", "n8n-main n8n-worker-1 n8n-worker-2")
        );
    }
    // One that was added since, and one that was renamed and kept: the known one tells the configuration.
    let all = [("flows", "start"), ("flows-2", "worker"), ("a-old", "start")];
    assert_eq!(with(&all, "flows"), told("flows", "flows a-old flows-2"));
    // What has been backed up is gone; another n8n is not the stack.
    assert!(with(&[("new", "start")], "flows").0.starts_with("recovery point"));
}

#[test]
fn what_says_nothing_may_be_the_main_one_beside_a_worker_that_does() {
    let dir = TempDir::new();
    let all = [
        server("n8n-main", "busybox", &["PATH=/bin"], None),
        container("n8n-worker", "n8nio/n8n", QUEUE, &["worker"], None),
        container("other", "n8nio/n8n", &[], &[], None),
    ];
    let mut app = app_of(dir.path(), "");
    found(&mut app, &all).unwrap();
    assert_eq!(app.config.n8n_containers, ["n8n-worker"]);
    // Without it, both are named that may belong together.
    let mut app = app_of(dir.path(), "");
    found(&mut app, &all[1..]).unwrap();
    let problem = &app.config.found.problems[&Kind::N8n];
    assert!(
        problem.text.contains("not configured to the same database"),
        "{problem:?}"
    );
}

#[test]
fn a_stack_without_a_queue_has_no_use_for_redis() {
    let dir = TempDir::new();
    let env = ["DB_TYPE=postgresdb", "DB_POSTGRESDB_HOST=pg"];
    let mut n8n = container("n8n", "n8nio/n8n", &env, &[], None);
    n8n.networks = [("net".to_owned(), Vec::new())].into();
    let mut pg = server("pg", "postgres:17", &["PG_MAJOR=17"], None);
    pg.networks = [("net".to_owned(), Vec::new())].into();
    let mut app = app_of(dir.path(), "");
    // Something else has a Redis.
    found(&mut app, &[n8n.clone(), pg, server("n8n-redis", "redis", &[], None)]).unwrap();
    let config = &app.config;
    assert_eq!(config.found.unused, [Kind::Redis]);
    assert_eq!(
        (config.postgres_container.as_str(), config.postgres_user.as_str()),
        ("pg", "postgres")
    );
    assert_eq!(config.postgres_db, "n8n");
    // Its database is somewhere else.
    let mut app = app_of(dir.path(), "");
    found(&mut app, &[n8n]).unwrap();
    let error = app.config.found.check(Kind::Postgres).unwrap_err().to_string();
    assert!(error.contains("is on pg"), "{error}");
}

#[test]
fn sqlite_is_told_and_no_other_database_is_taken_for_it() {
    let dir = TempDir::new();
    let n8n = container("n8n", "n8nio/n8n", &["DB_POSTGRESDB_HOST=pg"], &[], None);
    let mut app = app_of(dir.path(), "");
    found(&mut app, &[n8n, server("n8n-postgres", "postgres", &[], None)]).unwrap();
    let told = &app.config.found;
    assert!(told.check(Kind::Sqlite).is_ok() && told.database() == Kind::Sqlite);
    let error = told.check(Kind::Postgres).unwrap_err().to_string();
    assert!(error.contains("no use for postgres"), "{error}");
    assert!(told
        .warnings
        .iter()
        .any(|warning| warning.contains("DB_POSTGRESDB_HOST")));
    // It is named where it is of the same project, whatever it is called.
    let of = |service| Some(("p", dir.path(), service));
    let n8n = container("n8n", "n8nio/n8n", &[], &[], of("n8n"));
    let mut app = app_of(dir.path(), "");
    found(&mut app, &[n8n, server("n8n-postgres", "postgres", &[], of("db"))]).unwrap();
    let warnings = &app.config.found.warnings;
    assert!(
        warnings
            .iter()
            .any(|warning| warning.contains("n8n-postgres is not n8n's") && warning.contains("not backed up")),
        "{warnings:?}"
    );
    // Without n8n's containers the contract's names hold.
    let error = app_of(dir.path(), "").config.found.check(Kind::Sqlite);
    assert!(error.unwrap_err().to_string().contains("no use for sqlite"));
}

#[test]
fn a_file_of_configuration_that_may_name_another_database_is_a_problem() {
    let dir = TempDir::new();
    let file = dir.path().join("config.json").display().to_string();
    let is_refused = |text: Option<&str>, more: &[&str]| {
        let env = [&["N8N_CONFIG_FILES=/no/such/mount.json,/config.json"][..], more].concat();
        let env = if text.is_some() {
            [&["N8N_CONFIG_FILES=/config.json"][..], more].concat()
        } else {
            env
        };
        let mut n8n = container("n8n", "n8nio/n8n", &env, &[], None);
        n8n.mounts.push(crate::engine::describe::MountPoint {
            volume: String::new(),
            source: file.clone(),
            destination: "/config.json".to_owned(),
        });
        std::fs::write(&file, text.unwrap_or("{}")).unwrap();
        let mut app = app_of(dir.path(), "");
        found(&mut app, &[n8n]).unwrap();
        app.config.found.check(Kind::Sqlite).is_err()
    };
    let postgres = Some(r#"{"database": {"type": "postgresdb"}}"#);
    assert!(is_refused(postgres, &[]) && is_refused(Some("module.exports"), &[]) && is_refused(None, &[]));
    assert!(!is_refused(postgres, &["DB_TYPE=sqlite"]));
    for text in [
        r#"{"executions": {}}"#,
        r#"{"database": {"type": "sqlite"}}"#,
        r#"{"database": {}}"#,
    ] {
        assert!(!is_refused(Some(text), &[]), "{text}");
    }
}

#[test]
fn the_database_is_where_n8n_looks_for_it() {
    let dir = TempDir::new();
    for (env, path, in_home) in [
        (&[][..], "/home/node/.n8n/database.sqlite", "database.sqlite"),
        (
            &["DB_TYPE=sqlite", "DB_SQLITE_DATABASE=data/my.db"],
            "/home/node/.n8n/data/my.db",
            "data/my.db",
        ),
        (&["DB_SQLITE_DATABASE=../other.db"], "/home/node/other.db", ""),
        (&["DB_SQLITE_DATABASE=/home/node/.n8n/x"], "/home/node/.n8n/x", "x"),
        (
            &["N8N_USER_FOLDER=/data/"],
            "/data/.n8n/database.sqlite",
            ".n8n/database.sqlite",
        ),
        (&["N8N_USER_FOLDER=/lost"], "/lost/.n8n/database.sqlite", ""),
    ] {
        let mut n8n = container("n8n", "n8nio/n8n", env, &[], None);
        let above = "/data".to_owned();
        let mount = n8n.mounts[0].clone();
        n8n.mounts.push(crate::engine::describe::MountPoint {
            destination: above,
            ..mount
        });
        let mut app = app_of(dir.path(), "");
        found(&mut app, &[n8n]).unwrap();
        let file = app.config.found.sqlite.clone().unwrap();
        assert_eq!((file.path.as_str(), file.in_home.as_str()), (path, in_home));
        // What is on no volume cannot come back.
        let is_kept = !path.starts_with("/lost") && !path.ends_with("/other.db");
        assert_eq!(app.config.found.check(Kind::Sqlite).is_ok(), is_kept, "{path}");
    }
}

#[test]
fn where_two_answers_are_possible_both_are_named() {
    let dir = TempDir::new();
    let project = dir.path().canonicalize().unwrap();
    let one = container("one", "n8nio/n8n", QUEUE, &[], None);
    let two = container("two", "n8nio/n8n", QUEUE, &[], None);
    let problem = found(&mut app_of(&project, ""), &[one, two]).unwrap_err();
    assert!(
        problem.text.contains("one two") && problem.hint.contains(N8N_CONTAINERS),
        "{problem:?}"
    );
    let mut all = stack("a", &project);
    all.extend(stack("b", &project));
    let problem = found(&mut app_of(&project, ""), &all).unwrap_err();
    assert!(
        problem.text.ends_with("a b") && problem.hint.contains(COMPOSE_PROJECT),
        "{problem:?}"
    );
    let mut app = app_of(&project, "BACKUP_COMPOSE_PROJECT=b\n");
    found(&mut app, &all).unwrap();
    assert_eq!(app.config.postgres_container, "b-db-1");
    // Two instances in one project.
    let mut all = stack("a", &project);
    let env = [
        "DB_TYPE=postgresdb",
        "DB_POSTGRESDB_HOST=db",
        "DB_POSTGRESDB_DATABASE=staging",
    ];
    all.push(container(
        "a-staging-1",
        "n8nio/n8n",
        &env,
        &[],
        Some(("a", &project, "staging")),
    ));
    let mut app = app_of(&project, "");
    found(&mut app, &all).unwrap();
    assert!(OF_CONTAINERS.iter().all(|kind| app.config.found.check(*kind).is_err()));
}

#[test]
fn a_main_container_that_was_left_behind_does_not_tell() {
    let dir = TempDir::new();
    let project = dir.path().canonicalize().unwrap();
    std::fs::create_dir_all(project.join("backups/sets")).unwrap();
    let told = |status: [Status; 2], settings: &str| {
        let mut all = stack("mine", &project);
        let mut renamed = all[3].clone();
        renamed.env.insert("QUEUE_BULL_REDIS_DB".to_owned(), "7".to_owned());
        renamed.name = "mine-n8n-main-1".to_owned();
        renamed.id = "renamed".to_owned();
        renamed.labels.insert(SERVICE.to_owned(), "n8n-main".to_owned());
        renamed.container.name.clone_from(&renamed.name);
        all.push(renamed);
        for (n8n, status) in [3, 5].into_iter().zip(status) {
            all[n8n].container.status = status.clone();
            all[n8n].status = status;
        }
        let mut app = app_of(&project, settings);
        found(&mut app, &all).unwrap();
        (app.config.found.told_by.clone(), app.config.n8n_containers.clone(), app)
    };
    let by = |status: [Status; 2]| told(status, "").0;
    let (old, new) = ("mine-n8n-1", "mine-n8n-main-1");
    let gone = || Status::Exited;
    for works in [Status::Running, Status::Restarting, Status::Paused] {
        assert_eq!(by([gone(), works.clone()]), new);
        assert_eq!(by([works, gone()]), old);
    }
    // Of two that work, and of two that nobody knows.
    assert_eq!(by([Status::Running, Status::Running]), old);
    assert_eq!(by([gone(), gone()]), old);
    let (by_name, names, app) = told(
        [gone(), Status::Running],
        "BACKUP_N8N_CONTAINERS=\"mine-n8n-1 mine-n8n-main-1\"\n",
    );
    assert_eq!((by_name.as_str(), app.config.queue_db), (new, Some(7)));
    assert_eq!(names, [old, new]);
    let (_, names, app) = told([gone(), Status::Running], "");
    assert_eq!(names, [new, "mine-worker-1", "mine-worker-2"]);
    // A stack that is created again has no service of the one that was left behind.
    let services = |app: &App| app.config.found.compose.services.join(" ");
    assert_eq!(services(&app), "n8n-main worker");
    assert_eq!(services(&told([gone(), gone()], "").2), "n8n n8n-main worker");
    assert_eq!(told([gone(), gone()], "").1.len(), 4);
    // All are stopped, and what was backed up tells which worked.
    let mut point = Point::new(Stamp::parse("20260101_000000").unwrap());
    point.set("deleted", "env");
    facts(&app).iter().for_each(|(name, value)| point.set(name, value));
    point.write(&app.store).unwrap();
    assert_eq!(by([gone(), gone()]), new);
    assert_eq!(by([Status::Running, gone()]), old);
    // A restore has stopped the one that is to run.
    let record =
        "container mine-n8n-1 2026-01-01T00:00:00Z runs\ncontainer mine-n8n-main-1 2026-01-01T00:00:00Z rests\n";
    std::fs::write(project.join("backups/.restore"), record).unwrap();
    let (by, names, _) = told([gone(), gone()], "");
    assert_eq!((by.as_str(), names.len()), (old, 3));
    // By whatever name.
    let id = &stack("mine", &project)[3].id;
    let record = record.replace("mine-n8n-1 ", "mine-before-1 ") + &format!("id mine-before-1 {id}\n");
    std::fs::write(project.join("backups/.restore"), record).unwrap();
    assert_eq!(told([gone(), gone()], "").0, old);
    // Unless another one has its name by now.
    let record = format!("container {new} 2026-01-01T00:00:00Z runs\nid {new} {id}\n");
    std::fs::write(project.join("backups/.restore"), record).unwrap();
    let (by, names, _) = told([gone(), gone()], "");
    assert_eq!((by.as_str(), names.len()), (new, 3));
}

#[test]
fn a_task_of_swarm_is_refused() {
    let dir = TempDir::new();
    let mut n8n = container("n8n.1.x", "n8nio/n8n", QUEUE, &[], None);
    n8n.labels.insert(SWARM.to_owned(), "n8n".to_owned());
    assert!(found(&mut app_of(dir.path(), ""), &[n8n])
        .unwrap_err()
        .text
        .contains("Swarm"));
}

#[test]
fn what_means_the_same_is_the_same_database() {
    let dir = TempDir::new();
    let project = dir.path().canonicalize().unwrap();
    let with = |worker: &[&str]| {
        let mut all = stack("mine", &project);
        let of = Some(("mine", project.as_path(), "worker"));
        all[2] = container("mine-worker-2", "n8nio/n8n:2", worker, &["worker"], of);
        let mut app = app_of(&project, "");
        found(&mut app, &all).unwrap();
        app.config.found.problems
    };
    let host = "DB_POSTGRESDB_HOST=mine-db-1";
    let base = ["DB_TYPE=postgresdb", "DB_POSTGRESDB_DATABASE=flows", host];
    assert!(with(QUEUE).is_empty() && with(&base).is_empty());
    assert!(with(&[&base[..], &["DB_POSTGRESDB_PORT=5432", "DB_POSTGRESDB_SCHEMA="]].concat()).is_empty());
    for other in [
        "DB_POSTGRESDB_PORT=5433",
        "DB_POSTGRESDB_SCHEMA=n8n",
        "DB_TABLE_PREFIX=x_",
    ] {
        assert!(!with(&[&base[..], &[other]].concat()).is_empty(), "{other}");
    }
    assert!(!with(&base[1..]).is_empty(), "SQLite");
}

#[test]
fn the_volumes_of_a_server_are_known_where_n8n_uses_it() {
    let dir = TempDir::new();
    let all = [
        server("n8n-postgres", "postgres", &[], None),
        server("n8n-redis", "redis", &[], None),
    ];
    let mut app = app_of(dir.path(), "");
    app.config.found.unused.push(Kind::Postgres);
    let known = ("n8n-redis_data".to_owned(), "/home/node/.n8n".to_owned());
    assert_eq!(server_volumes(&app, &all), [known]);
}
