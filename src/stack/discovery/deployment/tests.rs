use super::super::tests::{app_of, found, stack};
use super::super::{composed as remembered, facts};
use super::*;
use crate::engine::describe::tests::described;
use crate::store::manifest::Point;
use crate::store::Stamp;
use crate::testing::TempDir;

fn write(project: &Path, name: &str, text: &str) {
    let path = project.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

#[test]
fn what_the_compose_files_name_is_found() {
    let dir = TempDir::new();
    let project = dir.path().canonicalize().unwrap();
    let write = |name: &str, text: &str| write(&project, name, text);
    let far = TempDir::new();
    let far = far.path().join("key");
    fs::write(&far, "x").unwrap();
    let text = "include:\n  - more/db.yaml\nservices:\n  n8n:\n    env_file: [n8n.env, \"./none.env\"]\n    # hidden.env\n    \
                volumes:\n      - ./files:/files\n      - './hook.js:/data/hook.js:ro'\n      - \
                ./scripts/init.sh:/docker-entrypoint-initdb.d/init.sh\n      - ./bin/n8n-backup:/b\n      - \
                /etc/passwd:/x\nsecrets:\n  key:\n    file: ./secrets/key\n  far:\n    file: FAR\n";
    write("docker-compose.yml", &text.replace("FAR", &far.display().to_string()));
    write(
        "more/db.yaml",
        "services: {db: {volumes: [\"../init.sql:/docker-entrypoint-initdb.d/init.sql\"]}}\n",
    );
    for name in [
        "n8n.env",
        "hidden.env",
        "hook.js",
        "secrets/key",
        "init.sql",
        ".env",
        "files/a",
        "backups/x",
        "other",
        "scripts/init.sh",
        "bin/n8n-backup",
    ] {
        write(name, "x");
    }
    std::os::unix::fs::symlink("/etc/passwd", project.join("none.env")).unwrap();
    let mut warnings = Vec::new();
    let found: Vec<String> = files(&project, &[], &[], &mut warnings)
        .iter()
        .map(|file| file.display().to_string())
        .collect();
    assert_eq!(
        found,
        [
            "docker-compose.yml",
            "hook.js",
            "init.sql",
            "more/db.yaml",
            "n8n.env",
            "scripts/init.sh",
            "secrets/key"
        ]
    );
    assert!(
        warnings.len() == 1 && warnings[0].starts_with(&far.display().to_string()),
        "{warnings:?}"
    );
    assert!(files(TempDir::new().path(), &[], &[], &mut Vec::new()).is_empty());
}

#[test]
fn of_a_build_context_the_files_are_found_and_the_rest_is_told() {
    let dir = TempDir::new();
    let project = dir.path().canonicalize().unwrap();
    let write = |name: &str, text: &str| write(&project, name, text);
    write(
        "compose.yaml",
        "services:\n  n8n:\n    build: ./n8n\n  web:\n    build:\n      context: web\n      dockerfile: Web.docker\n  \
         far: {build: ../far}\n  git:\n    build: https://example.org/x.git\n",
    );
    write(
        "n8n/Dockerfile",
        "FROM n8nio/n8n\nCOPY --chown=node:node hook.js nodes \\\n  /data/\ncopy [\"a.sh\", \"/\"]\n\
         COPY --from=x /bin/y /bin/\nADD https://example.org/z /z\nRUN cp b.sh /b\n",
    );
    for name in [
        "n8n/hook.js",
        "n8n/nodes/x.js",
        "n8n/a.sh",
        "n8n/b.sh",
        "n8n/.dockerignore",
        "web/other",
    ] {
        write(name, "x");
    }
    write("web/Web.docker", "FROM scratch\nCOPY *.html /\n");
    let mut warnings = Vec::new();
    let found = files(&project, &[], &[], &mut warnings);
    let names: Vec<String> = found.iter().map(|file| file.display().to_string()).collect();
    assert_eq!(
        names,
        [
            "compose.yaml",
            "n8n/.dockerignore",
            "n8n/Dockerfile",
            "n8n/a.sh",
            "n8n/hook.js",
            "web/Web.docker"
        ]
    );
    let begins = |warning: &String, begin: &str| warning.starts_with(begin);
    assert!(begins(
        &warnings[0],
        "n8n/Dockerfile copies what is not backed up: nodes ("
    ));
    assert!(begins(
        &warnings[1],
        "web/Web.docker copies what is not backed up: *.html ("
    ));
    let excluded = [project.join("n8n/nodes").display().to_string()];
    let mut warnings = Vec::new();
    assert_eq!(files(&project, &[], &excluded, &mut warnings), found);
    assert!(warnings.len() == 1 && warnings[0].starts_with("web/"), "{warnings:?}");
}

#[test]
fn directories_of_configuration_are_found_and_others_are_told() {
    let dir = TempDir::new();
    let project = dir.path().canonicalize().unwrap();
    for name in [
        "init/a.sql",
        "init/deep/b.sh",
        "conf/big",
        "wal/1",
        "data/1",
        "backups/x",
    ] {
        write(&project, name, "x");
    }
    fs::File::create(project.join("conf/big"))
        .unwrap()
        .set_len(MAX_BYTES + 1)
        .unwrap();
    let mounts = [
        ("init", "/docker-entrypoint-initdb.d"),
        ("conf", "/usr/local/etc/redis"),
        ("wal", "/wal"),
        ("data", "/var/lib/postgresql/data"),
        ("backups", "/etc/backups"),
    ];
    let mounts = mounts.map(|(source, at)| {
        let source = project.join(source).display().to_string();
        format!(r#"{{"Type": "bind", "Source": "{source}", "Destination": "{at}"}}"#)
    });
    let server = described(&format!(
        r#"{{"Id": "1", "Name": "/db", "Mounts": [{}]}}"#,
        mounts.join(",")
    ));
    let n8n = described(r#"{"Id": "2", "Name": "/n8n"}"#);
    let stack = Stack {
        main: &n8n,
        servers: vec![&n8n],
        left_behind: Vec::new(),
    };
    let mut found = mounted_files(&project, &[&n8n, &server], &stack, &[], &mut Vec::new());
    found.sort_unstable();
    assert_eq!(found, ["init/a.sql", "init/deep/b.sh"].map(PathBuf::from));
    let told = "db mounts what is not backed up: conf wal";
    assert_eq!(beside_data(&server, &stack, &project).as_deref(), Some(told));
    let told = uncovered(&server, &stack, &project).unwrap();
    assert!(told.ends_with(": conf data wal"), "{told}");
}

#[test]
fn what_compose_was_called_with_is_not_left_out_without_a_word() {
    let dir = TempDir::new();
    let project = dir.path().canonicalize().unwrap();
    fs::write(project.join("docker-compose.yml"), "services: {}\n").unwrap();
    std::os::unix::fs::symlink("docker-compose.yml", project.join("link.yml")).unwrap();
    let with = |files: &str, excluded: &[String]| {
        let text = format!(r#"{{"Id": "1", "Name": "/x", "Config": {{"Labels": {{"{FILES}": "{files}"}}}}}}"#);
        left_out(&project, &[&described(&text)], excluded)
    };
    let called = |files: &str| with(files, &[]);
    let inside = project.join("docker-compose.yml").display().to_string();
    assert!(called("").is_empty() && called(&inside).is_empty());
    for left in ["/etc/passwd", "gone.yml", "link.yml"] {
        let warnings = called(&format!("{inside},{left}"));
        assert!(warnings.len() == 1 && warnings[0].starts_with(left), "{warnings:?}");
    }
    // As Portainer's directory: all that lies in it.
    assert!(with("/etc/passwd", &["/etc".to_owned()]).is_empty());
    assert_eq!(with("/etc/passwd", &["/et".to_owned()]).len(), 1);
}

#[test]
fn no_warning_names_what_a_setting_excludes_by_either_path() {
    let dir = TempDir::new();
    let project = dir.path().canonicalize().unwrap();
    let aside = TempDir::new();
    fs::write(aside.path().join("key.pem"), "x").unwrap();
    let key = aside.path().join("key.pem").display().to_string();
    write(&project, "compose.yaml", &format!("secrets: [{key}]\n"));
    let proxy = described(&format!(
        r#"{{"Id": "1", "Name": "/proxy", "Mounts": [{{"Type": "bind", "Source": "{key}", "Destination": "/certs/key.pem"}}]}}"#
    ));
    let told = |named: &[&str]| {
        let named: Vec<String> = named.iter().map(|name| (*name).to_owned()).collect();
        let excluded = excluded(&named, [&proxy].into_iter());
        let mut warnings = left_out(&project, &[&proxy], &excluded);
        files(&project, &[], &excluded, &mut warnings);
        readable(
            &project,
            vec![PathBuf::from(&key).join("gone")],
            &excluded,
            &mut warnings,
        );
        warnings
    };
    let warnings = told(&[]);
    assert!(
        warnings.len() == 2 && warnings[0].contains("BACKUP_EXCLUDE_MOUNTS"),
        "{warnings:?}"
    );
    for named in [&key[..], "/certs/key.pem", &aside.path().display().to_string()] {
        assert!(told(&[named]).is_empty(), "{named}");
    }
    assert_eq!(told(&["/certs/other.pem"]).len(), 2);
    // What is mounted at the same path is something else.
    let dir = aside.path().display().to_string();
    let other = format!(
        r#"{{"Id": "2", "Name": "/x", "Mounts": [{{"Type": "bind", "Source": "/srv", "Destination": "{dir}"}}]}}"#
    );
    let found = excluded(&[dir], [&described(&other)].into_iter());
    assert_eq!(found, ["/srv"]);
    // What lies in memory has no source, with which each path would begin.
    let other =
        r#"{"Id": "2", "Name": "/x", "Mounts": [{"Type": "tmpfs", "Source": "", "Destination": "/run/cache"}]}"#;
    let found = excluded(&["/run/cache".to_owned()], [&described(other)].into_iter());
    assert_eq!(found, ["/run/cache"]);
}

#[test]
fn of_a_directory_of_ours_that_n8n_mounts_the_users_own_files_are_found() {
    let dir = TempDir::new();
    let project = dir.path().canonicalize().unwrap();
    let shim = include_str!("../../../../scripts/backup-all.sh");
    let shared = include_str!("../../../../scripts/lib/shim.sh");
    for (name, text) in [
        (
            "compose.yaml",
            "volumes: [./scripts/backup-all.sh:/x, ./scripts/init.sql:/y]\n",
        ),
        ("scripts/backup-all.sh", shim),
        ("scripts/lib/shim.sh", shared),
        ("scripts/backup-all.sh.orig", "x"),
        ("scripts/init.sql", "x"),
        ("scripts/deep/a.py", "x"),
        ("bin/n8n-backup", "x"),
        ("bin/tool", "x"),
        ("logs/backup.log", "x"),
        ("files/a", "x"),
    ] {
        write(&project, name, text);
    }
    assert_eq!(
        files(&project, &[], &[], &mut Vec::new()),
        ["compose.yaml", "scripts/init.sql"].map(PathBuf::from)
    );
    let found = |excluded: &[String]| {
        let mounts = ["scripts", "bin", "logs", "files"].map(|name| {
            let source = project.join(name).display().to_string();
            format!(r#"{{"Type": "bind", "Source": "{source}", "Destination": "/{name}"}}"#)
        });
        let n8n = described(&format!(
            r#"{{"Id": "2", "Name": "/n8n", "Mounts": [{}]}}"#,
            mounts.join(",")
        ));
        let stack = Stack {
            main: &n8n,
            servers: vec![&n8n],
            left_behind: Vec::new(),
        };
        let mut warnings = Vec::new();
        let mut found = mounted_files(&project, &[&n8n], &stack, excluded, &mut warnings);
        found.sort_unstable();
        (found, warnings)
    };
    let own = ["scripts/backup-all.sh.orig", "scripts/deep/a.py", "scripts/init.sql"].map(PathBuf::from);
    assert_eq!(
        found(&[]),
        ([&[PathBuf::from("bin/tool")], &own[..]].concat(), Vec::new())
    );
    let large = fs::File::create(project.join("bin/tool")).unwrap();
    large.set_len(MAX_BYTES + 1).unwrap();
    let (left, warnings) = found(&[]);
    assert_eq!(left, own);
    assert_eq!(found(&["/bin".to_owned()]), (own.to_vec(), Vec::new()));
    assert!(
        warnings.len() == 1 && warnings[0].starts_with("bin holds more "),
        "{warnings:?}"
    );
}

#[test]
fn compose_files_in_a_directory_of_the_project_are_found_from_where_compose_worked() {
    let dir = TempDir::new();
    let project = dir.path().canonicalize().unwrap();
    let text = "services:\n  n8n:\n    build: ./image\n    volumes: [./hook.js:/data/hook.js]\n";
    write(&project, "docker/compose.yml", text);
    for name in [
        ".env",
        "docker/.env",
        "docker/hook.js",
        "docker/image/Dockerfile",
        "hook.js",
        "image/Dockerfile",
    ] {
        write(&project, name, "x");
    }
    let called = |directory: &Path, file: &str| {
        let mut all = stack("mine", directory);
        for container in &mut all {
            container.labels.insert(FILES.to_owned(), file.to_owned());
        }
        let mut app = app_of(&project, "BACKUP_COMPOSE_PROJECT=mine\n");
        found(&mut app, &all).unwrap();
        let mut point = Point::new(Stamp::parse("20260101_000000").unwrap());
        facts(&app).iter().for_each(|(name, value)| point.set(name, value));
        (app.config.found.deployment.clone(), remembered(&point))
    };
    let beside = [
        "docker/.env",
        "docker/compose.yml",
        "docker/hook.js",
        "docker/image/Dockerfile",
    ];
    let file = project.join("docker/compose.yml").display().to_string();
    for file in [&file, "docker/compose.yml", "compose.yml"] {
        let (files, told) = called(&project.join("docker"), file);
        assert_eq!(files, beside.map(PathBuf::from), "{file}");
        assert_eq!(
            (told.directory, told.files),
            (PathBuf::from("docker"), vec![PathBuf::from(beside[1])])
        );
    }
    // With --project-directory, what the file names is seen from there.
    let (files, told) = called(&project, &file);
    assert!(
        ["hook.js", "image/Dockerfile"]
            .iter()
            .all(|name| files.contains(&PathBuf::from(name))),
        "{files:?}"
    );
    assert_eq!(
        (told.directory, told.files),
        (PathBuf::new(), vec![PathBuf::from(beside[1])])
    );
    assert_eq!(called(Path::new("/srv"), &file).1.files, Vec::<PathBuf>::new());
    let mut point = Point::new(Stamp::parse("20260101_000000").unwrap());
    point.set("stack.compose.directory", "../x");
    assert_eq!(remembered(&point).directory, PathBuf::new());
}

#[test]
fn what_cannot_be_read_is_named_and_left_out() {
    let dir = TempDir::new();
    let project = dir.path().canonicalize().unwrap();
    write(
        &project,
        "compose.yaml",
        "services:\n  n8n:\n    build: .\ninclude: [more.yaml, deep/x.yaml]\n",
    );
    for name in ["more.yaml", "Dockerfile"] {
        // Root may read everything, but not as text.
        fs::write(project.join(name), b"a: \xff").unwrap();
    }
    let mut warnings = Vec::new();
    let found = files(&project, &[], &[], &mut warnings);
    assert_eq!(found, ["Dockerfile", "compose.yaml", "more.yaml"].map(PathBuf::from));
    let told = ["What Dockerfile names is not ", "What more.yaml names is not "];
    assert!(
        warnings.len() == 2
            && told
                .iter()
                .zip(&warnings)
                .all(|(told, warning)| warning.starts_with(told)),
        "{warnings:?}"
    );
    warnings.clear();
    let found = readable(
        &project,
        ["gone", "more.yaml"].map(PathBuf::from).into(),
        &[],
        &mut warnings,
    );
    assert_eq!(found, [Path::new("more.yaml")]);
    assert!(
        warnings.len() == 1 && warnings[0].starts_with("gone is not backed up "),
        "{warnings:?}"
    );
}

#[test]
fn directories_are_remembered_with_their_owners() {
    let dir = TempDir::new();
    let project = dir.path().canonicalize().unwrap();
    for name in ["data/pg", "a,b", "conf"] {
        fs::create_dir_all(project.join(name)).unwrap();
    }
    let mount = |name: &str| {
        format!(
            r#"{{"Type": "bind", "Source": "{}/{name}", "Destination": "/x"}}"#,
            project.display()
        )
    };
    let mounts = ["data/pg", "a,b", "gone", "../.."].map(mount).join(",");
    let server = described(&format!(r#"{{"Id": "1", "Name": "/db", "Mounts": [{mounts}]}}"#));
    let found = directories(
        &project,
        &[&server],
        &[PathBuf::from("conf/x.conf"), PathBuf::from("compose.yaml")],
    );
    let names: Vec<&Path> = found.iter().map(|directory| directory.path.as_path()).collect();
    assert_eq!(names, ["a,b", "conf", "data", "data/pg"].map(Path::new));
    assert!(found.iter().all(|directory| directory.owner.is_none()));
    let mut app = app_of(&project, "");
    app.config.found.told_by = "x".to_owned();
    app.config.found.compose.directories = found;
    app.config.found.compose.directories[3].owner = Some((999, 998));
    let mut point = Point::new(Stamp::parse("20260101_000000").unwrap());
    facts(&app).iter().for_each(|(name, value)| point.set(name, value));
    assert_eq!(
        remembered(&point).directories,
        app.config.found.compose.directories[1..]
    );
    point.set("stack.directories", "755 - ../x,755 1 y,755 - /etc/x,z");
    assert_eq!(remembered(&point).directories, []);
}
