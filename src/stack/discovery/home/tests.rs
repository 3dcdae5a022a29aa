use super::super::tests::{app_of, container, found, found_by};
use super::*;
use crate::testing::{executable, TempDir};

#[test]
fn two_homes_with_sqlite_are_two_databases() {
    let dir = TempDir::new();
    let project = dir.path().canonicalize().unwrap();
    let of = |service| Some(("mine", project.as_path(), service));
    let mut all = vec![
        container("mine-n8n-1", "n8nio/n8n", &[], &[], of("n8n")),
        container("mine-dev-1", "n8nio/n8n", &[], &[], of("dev")),
    ];
    all[1].mounts[0].source = "/other".to_owned();
    let mut app = app_of(&project, "");
    found(&mut app, &all).unwrap();
    let problem = &app.config.found.problems[&Kind::Sqlite];
    assert!(
        problem.text.contains("not configured to the same database"),
        "{problem:?}"
    );
    let mut app = app_of(&project, "BACKUP_N8N_CONTAINERS=mine-n8n-1\n");
    found(&mut app, &all).unwrap();
    assert!(app.config.found.problems.is_empty());
}

#[test]
fn a_script_of_ones_own_is_n8n_where_no_other_container_surely_is() {
    let dir = TempDir::new();
    let project = dir.path().canonicalize().unwrap();
    let of = |service| Some(("mine", project.as_path(), service));
    let mut all = vec![
        container("mine-helper-1", "n8nio/n8n", &[], &[], of("helper")),
        container("mine-n8n-1", "n8nio/n8n", &[], &[], of("n8n")),
    ];
    all[0].entry_point = vec!["/scripts/run".to_owned()];
    all[0].container.restart = "always".to_owned();
    let names = |settings: &str, all: &[Described]| {
        let mut app = app_of(&project, settings);
        found(&mut app, all).unwrap();
        app.config.n8n_containers.join(" ")
    };
    assert_eq!(names("", &all), "mine-n8n-1");
    assert_eq!(names("", &all[..1]), "mine-helper-1");
    let named = "mine-helper-1 mine-n8n-1";
    assert_eq!(names(&format!("BACKUP_N8N_CONTAINERS=\"{named}\"\n"), &all), named);
    // Its environment tells that it is of this n8n.
    let env = ["DB_TYPE=postgresdb", "DB_POSTGRESDB_HOST=db"];
    let told = |env: &[&str]| container("x", "n8nio/n8n", env, &[], None).env;
    (all[0].env, all[1].env) = (told(&env), told(&env));
    assert_eq!(names("", &all), "mine-n8n-1 mine-helper-1");
    all[0].env = told(&[env[0], "DB_POSTGRESDB_HOST=other"]);
    assert_eq!(names("", &all), "mine-n8n-1");
    // Where nothing tells whose they are, either may be the one that is wanted.
    all.iter_mut().for_each(|one| one.labels.clear());
    let problem = found(&mut app_of(&project, ""), &all).unwrap_err();
    assert!(problem.text.contains("More than one n8n"), "{problem:?}");
}

#[test]
fn the_home_is_where_the_user_has_it() {
    let dir = TempDir::new();
    let project = dir.path().canonicalize().unwrap();
    let home = |user: &str, env: &[&str], at: &str| {
        let mut n8n = container("mine-n8n-1", "n8nio/n8n", env, &[], Some(("mine", &project, "n8n")));
        n8n.user = user.to_owned();
        n8n.mounts[0].destination = at.to_owned();
        let mut app = app_of(&project, "");
        found(&mut app, &[n8n]).unwrap();
        (app.config.found.home, app.config.found.problems.is_empty())
    };
    let good = |home: &str| (home.to_owned(), true);
    assert_eq!(home("node", &[], "/home/node/.n8n"), good("/home/node/.n8n"));
    for user in ["root", "0", "0:0", ""] {
        assert_eq!(home(user, &[], "/root/.n8n"), good("/root/.n8n"));
        // The start script of earlier images changes the user.
        assert_eq!(home(user, &[], "/home/node/.n8n"), good("/home/node/.n8n"));
    }
    assert_eq!(home("1000", &["HOME=/data"], "/data"), good("/data/.n8n"));
    assert_eq!(
        home("root", &["HOME=/data", "N8N_USER_FOLDER=/f"], "/f"),
        good("/f/.n8n")
    );
    assert!(!home("1000", &["HOME=/data"], "/home/node/.n8n").1);
}

/// As /proc tells of them: their words, and what they are told, unless they run as another user.
#[test]
fn a_process_of_n8ns_tells_whether_it_works_as_root() {
    let is_root_in = |link: Option<(&str, &str)>, processes: &[(&str, Option<&str>)]| {
        let dir = TempDir::new();
        let homes = ["root/.n8n", "node/.n8n"].map(|home| dir.path().join(home));
        homes.iter().for_each(|home| fs::create_dir_all(home).unwrap());
        if let Some((from, to)) = link {
            fs::remove_dir_all(dir.path().join(from)).unwrap();
            std::os::unix::fs::symlink(dir.path().join(to), dir.path().join(from)).unwrap();
        }
        for (number, (words, environment)) in processes.iter().enumerate() {
            let process = dir.path().join((number + 1).to_string());
            fs::create_dir(&process).unwrap();
            fs::write(process.join("cmdline"), words.replace(' ', "\0") + "\0").unwrap();
            if let Some(environment) = environment {
                fs::write(process.join("environ"), environment.replace(' ', "\0") + "\0").unwrap();
            }
        }
        let sh = std::process::Command::new("sh")
            .args(["-c", FOLDERS, "sh"])
            .arg(dir.path())
            .args(&homes)
            .output()
            .unwrap();
        are_of_root(&String::from_utf8(sh.stdout).unwrap())
    };
    let is_root = |processes: &[(&str, Option<&str>)]| is_root_in(None, processes);
    let n8n = "node /usr/local/bin/n8n worker";
    let starter = ("tini -- /docker-entrypoint.sh", Some("HOME=/root A=b"));
    for words in [n8n, "n8n", "/usr/local/bin/node /opt/n8n/bin/n8n"] {
        assert!(
            is_root(&[starter, (words, Some("A=HOME=/x HOME=/root B=c"))]),
            "{words}"
        );
    }
    for environment in [
        None,
        Some("HOME=/home/node"),
        Some("HOME=/root N8N_USER_FOLDER=/data"),
        Some("A=b"),
    ] {
        assert!(!is_root(&[starter, (n8n, environment)]), "{environment:?}");
        // Somebody calls n8n as root beside one that is not.
        let call = ("node /usr/local/bin/n8n export:workflow", Some("HOME=/root"));
        assert!(!is_root(&[starter, (n8n, environment), call]), "{environment:?}");
    }
    // It is about to start, or is something else.
    for words in [
        "su-exec node n8n",
        "chown -R node /home/node/.n8n",
        "node /app/server.js",
        "su node -c n8n",
    ] {
        assert!(!is_root(&[starter, (words, Some("HOME=/root"))]), "{words}");
    }
    assert!(!is_root(&[]));
    // A link leads it into the other home.
    for link in [("root/.n8n", "node/.n8n"), ("root", "node"), ("node/.n8n", "root/.n8n")] {
        assert!(!is_root_in(Some(link), &[(n8n, Some("HOME=/root"))]), "{link:?}");
    }
}

#[test]
fn a_home_of_roots_without_a_volume_costs_neither_the_database_nor_the_key() {
    let dir = TempDir::new();
    let project = dir.path().canonicalize().unwrap();
    executable(
        &project.join("docker"),
        "#!/bin/sh\ncase \"$*\" in */.n8n/config) echo '{\"encryptionKey\":\"other\"}' ;; *) echo HOME=/root ;; esac\n",
    );
    let with = |settings: &str, env: &[&str], mounts: &[(&str, &str)]| {
        let mut n8n = container("mine-n8n-1", "n8nio/n8n", env, &[], Some(("mine", &project, "n8n")));
        n8n.user = "root".to_owned();
        n8n.status = Status::Running;
        n8n.mounts.extend(mounts.iter().map(|(source, at)| MountPoint {
            volume: String::new(),
            source: project.join(source).display().to_string(),
            destination: (*at).to_owned(),
        }));
        let mut app = app_of(&project, settings);
        found_by(&mut app, &[n8n], &project).unwrap();
        let volume = app.config.n8n_volume.clone();
        (app.config.found, volume)
    };
    let env = [
        "DB_TYPE=postgresdb",
        "DB_POSTGRESDB_HOST=n8n-db",
        "N8N_ENCRYPTION_KEY=k",
    ];
    // The volume is backed up and restored as ever, with what is mounted beside it.
    for mounts in [&[][..], &[("files", "/files")]] {
        let (told, volume) = with("", &env, mounts);
        assert!(told.uses(Kind::N8n) && !told.problems.contains_key(&Kind::N8n));
        assert_eq!((told.home.as_str(), volume.as_str()), (OF_NODE, "mine-n8n-1_data"));
        let wanted = "/root/.n8n is no volume of mine-n8n-1, which runs as root and leaves what is mounted at \
                      /home/node/.n8n unused";
        assert!(told.undeployed[0].contains(wanted), "{:?}", told.undeployed);
    }
    let (told, _) = with("BACKUP_EXCLUDE_MOUNTS=/root/.n8n\n", &env, &[]);
    assert!(told.undeployed.is_empty(), "{:?}", told.undeployed);
    // The key, or the database, lies in root's home alone, whatever key is mounted in the other one.
    let config = [("config", "/home/node/.n8n/config")];
    for (env, mounts) in [(&env[..2], &[][..]), (&env[2..], &[]), (&env[..2], &config)] {
        let (told, _) = with("", env, mounts);
        assert_eq!(told.home, OF_ROOT);
        assert!(told.problems.contains_key(&Kind::N8n), "{env:?}");
        assert_eq!(told.key.is_some(), env.len() == 1, "{env:?}");
    }
    let (told, _) = with("BACKUP_N8N_VOLUME=mine-n8n-1_data\n", &env[..2], &config);
    assert!(told.key.is_none() && !told.problems.contains_key(&Kind::N8n));
}

#[test]
fn binary_data_are_where_n8n_is_told_to_keep_them() {
    let dir = TempDir::new();
    let told = |settings: &str, version: &str, env: &[&str]| {
        let mut n8n = container("n8n", "n8nio/n8n", env, &[], None);
        n8n.container.version = version.to_owned();
        let mount = n8n.mounts[0].clone();
        let destination = "/data".to_owned();
        n8n.mounts.push(MountPoint { destination, ..mount });
        let mut app = app_of(dir.path(), settings);
        found(&mut app, &[n8n]).unwrap();
        let found = app.config.found;
        (found.storage_mount, found.undeployed.len())
    };
    let (files, queue) = ("N8N_DEFAULT_BINARY_DATA_MODE=filesystem", "EXECUTIONS_MODE=queue");
    let mounted = ("/data".to_owned(), 0);
    let none = (String::new(), 0);
    for variable in ["N8N_STORAGE_PATH", "N8N_BINARY_DATA_STORAGE_PATH"] {
        let at = |path: &str| format!("{variable}={path}");
        assert_eq!(told("", "1.120.0", &[files, &at("/data/binary")]), mounted);
        assert_eq!(told("", "2.1.0", &[&at("/data")]), mounted);
        assert_eq!(told("", "2.1.0", &[queue, files, &at("/data")]), mounted);
        let lost = at("/lost");
        assert_eq!(told("", "2.1.0", &[&lost]), (String::new(), 1));
        assert_eq!(told("BACKUP_EXCLUDE_MOUNTS=/lost\n", "2.1.0", &[&lost]), none);
        // It keeps them in the database, or in the memory.
        assert_eq!(told("", "2.1.0", &[queue, &lost]), none);
        assert_eq!(told("", "1.120.0", &[&lost]), none);
        assert_eq!(
            told("", "2.1.0", &["N8N_DEFAULT_BINARY_DATA_MODE=database", &lost]),
            none
        );
        let home = ("/home/node/.n8n".to_owned(), 0);
        assert_eq!(told("", "2.1.0", &[&at("/home/node/.n8n/files")]), home);
    }
}

#[test]
fn binary_data_take_in_no_directory_that_may_hold_more() {
    let dir = TempDir::new();
    let project = dir.path().canonicalize().unwrap();
    let told = |settings: &str, source: &Path, at: &str, path: &str| {
        let env = [
            "N8N_DEFAULT_BINARY_DATA_MODE=filesystem",
            &format!("N8N_STORAGE_PATH={path}"),
        ];
        let mut n8n = container("n8n", "n8nio/n8n", &env, &[], None);
        n8n.mounts.push(MountPoint {
            volume: String::new(),
            source: source.display().to_string(),
            destination: at.to_owned(),
        });
        let mut app = app_of(&project, settings);
        found(&mut app, &[n8n]).unwrap();
        let found = app.config.found;
        (!found.storage_mount.is_empty(), found.undeployed.len())
    };
    let (away, path) = (Path::new("/mnt/nas"), "/data/n8n/bin");
    assert_eq!(told("", away, "/data", path), (false, 1));
    assert_eq!(told("BACKUP_EXCLUDE_MOUNTS=/data\n", away, "/data", path), (false, 0));
    assert_eq!(told("BACKUP_INCLUDE_MOUNTS=/data\n", away, "/data", path), (true, 0));
    assert_eq!(told("", away, path, "/data/n8n/bin/"), (true, 0));
    assert_eq!(told("", &project.join("data"), "/data", path), (true, 0));
    let below = "/home/node/.n8n/x";
    assert_eq!(told("", away, below, "/home/node/.n8n/x/bin"), (true, 0));
}

#[test]
fn a_database_that_is_mounted_as_a_file_is_no_file_of_the_deployment() {
    let dir = TempDir::new();
    let project = dir.path().canonicalize().unwrap();
    std::fs::create_dir(project.join("db")).unwrap();
    for name in ["database.sqlite", "hooks.js"] {
        std::fs::write(project.join("db").join(name), "x").unwrap();
    }
    let mounted = |name: &str| MountPoint {
        volume: String::new(),
        source: project.join("db").join(name).display().to_string(),
        destination: format!("/home/node/.n8n/{name}"),
    };
    let told = |env: &[&str], names: &[&str]| {
        let mut n8n = container("mine-n8n-1", "n8nio/n8n", env, &[], Some(("mine", &project, "n8n")));
        n8n.mounts.extend(names.iter().map(|name| mounted(name)));
        let mut app = app_of(&project, "");
        app.config.env_file_exists = false;
        found(&mut app, &[n8n]).unwrap();
        app.config.found
    };
    let both = ["database.sqlite", "hooks.js"];
    assert_eq!(told(&[], &both).deployment, [Path::new("db/hooks.js")]);
    // What is left of an n8n that used SQLite is a file like any other.
    let on_postgres = ["DB_TYPE=postgresdb", "DB_POSTGRESDB_HOST=n8n-db"];
    assert_eq!(told(&on_postgres, &both).deployment.len(), 2);
    assert!(told(&[], &both[1..]).uses(Kind::Env));
    // Where there is no other file, there is no deployment, and nobody but root may read this one.
    let nobody = std::os::unix::fs::PermissionsExt::from_mode(0o0);
    fs::set_permissions(project.join("db/database.sqlite"), nobody).unwrap();
    let alone = told(&[], &both[..1]);
    assert!(alone.deployment.is_empty() && alone.undeployed.is_empty() && !alone.uses(Kind::Env));
}

#[test]
fn the_key_is_found_in_a_config_that_is_mounted_as_a_file() {
    let dir = TempDir::new();
    let project = dir.path().canonicalize().unwrap();
    let file = project.join("n8n-config.json");
    std::fs::write(&file, r#"{"encryptionKey":"mounted"}"#).unwrap();
    let at = "/home/node/.n8n/config";
    let docker = |says: &str| executable(&project.join("docker"), format!("#!/bin/sh\n{says}\n"));
    let told = |env: &[&str], source: &Path, at: &str| {
        let mut n8n = container("mine-n8n-1", "n8nio/n8n", env, &[], Some(("mine", &project, "n8n")));
        n8n.status = Status::Running;
        n8n.mounts.push(MountPoint {
            volume: String::new(),
            source: source.display().to_string(),
            destination: at.to_owned(),
        });
        let mut app = app_of(&project, "");
        found_by(&mut app, &[n8n], &project).unwrap();
        let found = app.config.found;
        (found.key.map(|key| key.reveal().to_owned()), found.undeployed)
    };
    let key = |key: &str| (Some(key.to_owned()), Vec::new());
    let none = || (None, Vec::new());
    docker("exit 1");
    assert_eq!(told(&[], &file, at), key("mounted"));
    assert_eq!(told(&["N8N_ENCRYPTION_KEY=k"], &file, at), key("k"));
    assert_eq!(told(&[], &file, "/config"), none());
    assert_eq!(told(&[], &project, at), none());
    // It is on another host, or its directory is another user's.
    let away = project.join("none");
    let warning = "/home/node/.n8n/config of mine-n8n-1, which is mounted as a file, cannot be read: n8n's key is not \
                   backed up with the deployment";
    assert_eq!(told(&[], &away, at), (None, vec![warning.to_owned()]));
    docker(&format!(
        "case \"$*\" in *exec*{at}*) echo '{{\"encryptionKey\":\"shown\"}}' ;; *) exit 1 ;; esac"
    ));
    assert_eq!(told(&[], &away, at), key("shown"));
    docker("echo '{}'");
    assert_eq!(told(&[], &away, at), none());
}

#[test]
fn n8n_that_keeps_nothing_but_its_key_needs_no_volume() {
    let dir = TempDir::new();
    let project = dir.path().canonicalize().unwrap();
    std::fs::write(project.join(".env"), "A=1\n").unwrap();
    let pg = [
        "DB_TYPE=postgresdb",
        "DB_POSTGRESDB_HOST=n8n-db",
        "N8N_ENCRYPTION_KEY=k",
    ];
    let with = |settings: &str, env: &[&str], mounts: &[&Path]| {
        let n8n = container("mine-n8n-1", "n8nio/n8n", env, &[], Some(("mine", &project, "n8n")));
        let mounted = mounts.iter().map(|source| MountPoint {
            volume: String::new(),
            source: source.display().to_string(),
            destination: "/there".to_owned(),
        });
        let mut app = app_of(&project, settings);
        app.config.env_file_exists = true;
        let mounts = mounted.collect();
        found(&mut app, &[Described { mounts, ..n8n }]).unwrap();
        app.config.found
    };
    let of = |env: &[&str], mounts: &[&Path]| with("", env, mounts);
    let told = of(&pg, &[&project.join(".env")]);
    assert!(!told.uses(Kind::N8n) && !told.problems.contains_key(&Kind::N8n));
    assert!(
        told.undeployed[0].contains("/home/node/.n8n is no volume of mine-n8n-1"),
        "{:?}",
        told.undeployed
    );
    let told = with("BACKUP_EXCLUDE_MOUNTS=/home/node/.n8n\n", &pg, &[&project.join(".env")]);
    assert!(told.undeployed.is_empty(), "{:?}", told.undeployed);
    for told in [
        of(&pg[..2], &[]),
        of(&pg, &[&project]),
        of(&pg, &[Path::new("/no/where")]),
        of(&["N8N_ENCRYPTION_KEY=k"], &[]),
    ] {
        assert!(told.uses(Kind::N8n) && told.problems.contains_key(&Kind::N8n));
    }
}
