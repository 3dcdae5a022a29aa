use super::databases::holds;
use super::*;
use crate::config::{Config, SqliteFile};
use crate::engine::{Mount, Status};
use crate::testing::{executable, TempDir, STALL};

fn place(source: Source, at: &str) -> Place {
    Place {
        source,
        at: at.to_owned(),
    }
}

#[test]
fn what_holds_another_directory_is_told_by_whole_names() {
    let directory = |path: &str| Source::Directory(path.to_owned());
    let volume = |name: &str| Source::Volume(name.to_owned());
    for (outer, inner, wanted) in [
        (directory("/p/data"), directory("/p/data/postgres"), true),
        (directory("/p/data/"), directory("/p/data"), true),
        (directory("/p/data"), directory("/p/database"), false),
        (directory("/p/data/n8n"), directory("/p/data"), false),
        (volume("data"), volume("data"), true),
        (volume("data"), directory("data"), false),
    ] {
        assert_eq!(holds(&outer, &inner), wanted, "{outer} {inner}");
    }
}

#[test]
fn each_directory_has_its_part_of_an_archive() {
    let volume = |name: &str| Source::Volume(name.to_owned());
    let nested = [("custom", "c"), ("custom/deep", "d")];
    let layout = Layout {
        nested: nested
            .into_iter()
            .map(|(name, of)| (name.to_owned(), place(volume(of), &format!("/home/node/.n8n/{name}"))))
            .collect(),
        others: vec![place(Source::Directory("/p/files".to_owned()), "/data/50%")],
        ..Layout::of(place(volume("home"), "/home/node/.n8n"))
    };
    let parts = |name: &[u8]| -> Vec<bool> {
        let all = layout.directories();
        all.iter()
            .map(|directory| directory.part.relative(name).is_some())
            .collect()
    };
    assert_eq!(parts(b"./config"), [true, false, false, false]);
    // The directory itself is needed where the other one is mounted.
    assert_eq!(parts(b"./custom/"), [true, true, false, false]);
    assert_eq!(parts(b"./custom/a"), [false, true, false, false]);
    assert_eq!(parts(b"./custom/deep/a"), [false, false, true, false]);
    let stored = ".n8n-backup-mounts/%2Fdata%2F50%25";
    assert_eq!(parts(format!("./{stored}/x").as_bytes()), [false, false, false, true]);
    assert_eq!(path_of_stored(stored.as_bytes()).as_deref(), Some("/data/50%"));
    assert_eq!(path_of_stored(format!("{stored}/x").as_bytes()), None);
    assert_eq!(layout.reading()[1].target, "/n8n-backup-volume/custom");
    let writing = layout.writing();
    assert_eq!(writing[3].target, format!("/{stored}"));
    let missing: Vec<bool> = writing.iter().map(|mount| is_missing(&mount.source)).collect();
    assert_eq!(missing, [false, false, false, true]);
    // What cannot be looked for may be there.
    let unseen = Source::Directory(format!("/{}", "n".repeat(1000)));
    assert!(!is_missing(&unseen));
}

#[test]
fn what_lies_within_another_directory_is_a_part_of_it() {
    let directory = |path: &str, at: &str| place(Source::Directory(path.to_owned()), at);
    let home = "/home/node/.n8n";
    let layout = |others: &[(&str, &str)]| {
        let mut layout = Layout {
            nested: [
                (
                    "custom".to_owned(),
                    directory("/none/data/custom", "/home/node/.n8n/custom"),
                ),
                ("deep".to_owned(), directory("/none/data/other", "/home/node/.n8n/deep")),
                ("far".to_owned(), directory("/none/data2", "/home/node/.n8n/far")),
            ]
            .into(),
            others: others.iter().map(|(path, at)| directory(path, at)).collect(),
            // It stands for a directory.
            ..Layout::of(place(Source::Volume("home".to_owned()), home))
        };
        layout.take_once(|source| match source {
            Source::Directory(path) => PathBuf::from(path),
            Source::Volume(name) if name == "home" => PathBuf::from("/none/data"),
            Source::Volume(_) => PathBuf::new(),
        });
        layout
    };
    let others = [
        ("/none/files/a", "/a"),
        ("/none/files", "/files"),
        ("/none/files/a/b", "/b"),
        ("/none", "/all"),
        ("/none/data/x", "/x"),
    ];
    let (found, reversed) = (
        layout(&others),
        layout(&others.iter().rev().copied().collect::<Vec<_>>()),
    );
    for layout in [&found, &reversed] {
        let kept: Vec<&str> = layout.places().map(|place| &*place.at).collect();
        assert_eq!(kept, [home, "/home/node/.n8n/far", "/files"]);
        let around = &layout.around[0];
        let found = (&*around.place.at, &*around.home, around.stays.as_deref());
        assert_eq!(found, ("/all", ".n8n-backup-mounts/%2Fall/data", None));
        // It is read, and not exchanged, since others lie within it.
        let targets = |mounts: Vec<Mounted>| -> Vec<String> { mounts.into_iter().map(|mount| mount.target).collect() };
        let target = "/.n8n-backup-mounts/%2Fall".to_owned();
        assert!(targets(layout.reading()).contains(&target) && !targets(layout.writing()).contains(&target));
        assert!(layout.stored().contains(&format!(".{target}")));
        let why = |at: &str, mounted| {
            layout
                .why_left_out(at, &["/no".to_owned()], mounted)
                .unwrap_or_default()
        };
        assert_eq!((why("/files", true), why("/b", true)), ("", ""));
        assert!(why("/all", true).contains("n8n's home") && why("/scripts", true).contains("as doctor says"));
        assert!(why("/no", true).contains("EXCLUDE") && why("/gone", false).contains("no container of n8n mounts"));
        let inner = layout.inner();
        let mut inner: Vec<(&str, [&str; 2])> = inner
            .iter()
            .map(|(place, parts)| (&*place.at, parts.each_ref().map(|part| &*part.below)))
            .collect();
        inner.sort_unstable();
        // One that has kept its place is in no archive twice.
        assert_eq!(
            inner,
            [
                ("/a", [".n8n-backup-mounts/%2Fa", ".n8n-backup-mounts/%2Ffiles/a"]),
                ("/b", [".n8n-backup-mounts/%2Fb", ".n8n-backup-mounts/%2Ffiles/a/b"]),
                ("/home/node/.n8n/deep", ["deep", "other"]),
                ("/x", [".n8n-backup-mounts/%2Fx", "x"]),
            ]
        );
        let mut within: Vec<(&str, &str)> = layout
            .within
            .iter()
            .map(|(place, there)| (&*place.at, &**there))
            .collect();
        within.sort_unstable();
        let wanted = [
            ("/a", "/files/a"),
            ("/b", "/files/a/b"),
            ("/home/node/.n8n/custom", "/home/node/.n8n/custom"),
            ("/home/node/.n8n/deep", "/home/node/.n8n/other"),
            ("/x", "/home/node/.n8n/x"),
        ];
        assert_eq!(within, wanted);
        // Only what is in the home is n8n's alone.
        let (alone, shared) = layout.by_home();
        assert_eq!(alone.len(), 5);
        let mut shared: Vec<&str> = shared.iter().map(|place| &*place.at).collect();
        shared.sort_unstable();
        assert_eq!(shared, ["/a", "/b", "/files"]);
        // A database is found where the archive holds it.
        for (file, at, name) in [
            ("/home/node/.n8n/deep/database.sqlite", home, "other/database.sqlite"),
            ("/x/database.sqlite", home, "x/database.sqlite"),
            ("/b/database.sqlite", "/files", "a/b/database.sqlite"),
            (
                "/home/node/.n8n/far/database.sqlite",
                "/home/node/.n8n/far",
                "database.sqlite",
            ),
        ] {
            let (directory, within) = layout.database(file).unwrap();
            assert_eq!((&*directory.place.at, &*within), (at, name));
        }
    }
    // What the engine tells no place of is by itself.
    let mut unknown = layout(&[]);
    unknown
        .others
        .extend(["v", "w"].map(|name| place(Source::Volume(name.to_owned()), &format!("/{name}"))));
    unknown.take_once(|_| PathBuf::new());
    assert_eq!(unknown.others.len(), 2);
    // Nor is another file system a part of a volume, unlike of a directory.
    for (source, shows) in [
        (Source::Volume("home".to_owned()), false),
        (Source::Directory("/".to_owned()), true),
    ] {
        let mut layout = unknown.clone();
        layout.home.source = source;
        layout.nested.clear();
        layout.within.clear();
        let others = [("/proc/1", "/deep"), ("/proc", "/p"), ("/", "/again")];
        layout.others = others.map(|(path, at)| directory(path, at)).into();
        layout.take_once(|source| match source {
            Source::Directory(path) => PathBuf::from(path),
            Source::Volume(_) => PathBuf::from("/"),
        });
        let within = |at: &str| layout.within.iter().find(|(place, _)| place.at == at);
        let there = |at: &str| within(at).map_or("", |(_, there)| &**there);
        assert_eq!(there("/again"), home);
        let (p, deep) = match shows {
            true => ("/home/node/.n8n/proc", "/home/node/.n8n/proc/1"),
            false => ("", "/p/1"),
        };
        assert_eq!((there("/p"), there("/deep")), (p, deep));
    }
}

#[test]
fn what_holds_the_home_is_replaced_without_it() {
    let directory = |path: &str, at: &str| place(Source::Directory(path.to_owned()), at);
    let of = |home: &str, others: &[(&str, &str)]| {
        let mut layout = Layout {
            others: others.iter().map(|(path, at)| directory(path, at)).collect(),
            ..Layout::of(directory(home, "/home/node/.n8n"))
        };
        layout.take_once(|source| match source {
            Source::Directory(path) => PathBuf::from(path),
            Source::Volume(_) => PathBuf::new(),
        });
        layout
    };
    let layout = of("/p/data/n8n", &[("/p/data", "/data"), ("/p/files", "/files")]);
    let all = layout.directories();
    let holder = all.last().unwrap();
    assert_eq!(
        (&*holder.target, &*holder.part.without),
        ("/.n8n-backup-mounts/%2Fdata", "n8n")
    );
    let has = |name: &str| {
        holder
            .part
            .relative(format!("./{}/{name}", holder.part.below).as_bytes())
            .is_some()
    };
    assert_eq!(
        ["", "a", "n8n2/a", "n8n/", "n8n/config"].map(has),
        [true, true, true, false, false]
    );
    assert_eq!(layout.writing().len(), 3);
    assert_eq!(layout.homes_around()[0].1.below, ".n8n-backup-mounts/%2Fdata/n8n");
    let left_out = |count: usize, database| layout.left_out_of(all.iter().take(count), database);
    let database = Some("/home/node/.n8n/db/n8n.sqlite");
    let of_database = ["", "-wal", "-shm", "-journal"].map(|end| format!("/n8n-backup-volume/db/n8n.sqlite{end}"));
    assert_eq!(left_out(1, database), of_database);
    assert_eq!(left_out(3, None), ["/.n8n-backup-mounts/%2Fdata/n8n"]);
    assert_eq!(left_out(3, database).len(), 5);
    // One that n8n keeps in a place of its own is left out of nothing here.
    assert_eq!(left_out(1, Some("/files/n8n.sqlite")), [""; 0]);
    assert_eq!(layout.why_left_out("/data", &[], true), None);
    let shared: Vec<&str> = layout.by_home().1.iter().map(|place| &*place.at).collect();
    assert_eq!(shared, ["/files", "/data"]);
    // Where more than one entry of it would have to stay, or a part of one, it is left as it is.
    for (home, others) in [
        ("/p/data/n8n", &[("/p/data", "/data"), ("/p/data/files", "/files")][..]),
        ("/p/data/deep/n8n", &[("/p/data", "/data")]),
        ("/p/data/n\n8n", &[("/p/data", "/data")]),
    ] {
        let layout = of(home, others);
        assert_eq!(layout.around[0].stays, None, "{home}");
        assert!(!layout
            .directories()
            .iter()
            .any(|directory| directory.place.at == "/data"));
    }
    // Of two that hold it, the inner one.
    let layout = of("/p/data/n8n", &[("/p/data", "/data"), ("/p", "/all")]);
    let stays: Vec<_> = layout.around.iter().map(|holder| holder.stays.as_deref()).collect();
    assert_eq!(stays, [Some("n8n"), None]);
}

#[test]
fn what_holds_something_of_ours_is_not_n8ns() {
    let dir = TempDir::new();
    let project = dir.path().canonicalize().unwrap();
    for name in ["logs", "scripts/mine", "files"] {
        fs::create_dir_all(project.join(name)).unwrap();
    }
    let script = include_str!("../../../../scripts/backup-all.sh");
    fs::write(project.join("scripts/backup-all.sh"), script).unwrap();
    let app = App::new(Config::of_text(&project, Path::new(".env"), b"").unwrap());
    let why = |name: &str| what_of_project(&app, &project.join(name).display().to_string());
    for name in ["logs", "scripts"] {
        assert_eq!(why(name), Some("it holds n8n-backup's log, program or scripts"));
    }
    assert_eq!((why("scripts/mine"), why("files")), (None, None));
    assert_eq!(why(""), Some("it holds the backups"));
}

/// What is mounted: a volume, or a directory, and where.
type Mounts<'a> = &'a [(&'a str, &'a str)];

/// As [`try_layout`], where nothing is refused.
fn laid_out(settings: &str, home: &str, containers: &[(&str, Mounts<'_>)]) -> Layout {
    try_layout(settings, home, containers).unwrap()
}

/// What n8n's data consist of in a project, for containers that say that n8n's directory is `home`. The engine keeps
/// each volume in a directory of its own, and has no PostgreSQL and no Redis. `VOLUME:PATH` is a part of a volume,
/// `./PATH` a directory of the project, `/PATH` one of the host.
fn try_layout(settings: &str, home: &str, containers: &[(&str, Mounts<'_>)]) -> Result<Layout> {
    layout_beside(&[], settings, home, containers)
}

/// As [`try_layout`], where PostgreSQL and Redis mount these volumes.
fn layout_beside(servers: Mounts<'_>, settings: &str, home: &str, containers: &[(&str, Mounts<'_>)]) -> Result<Layout> {
    let dir = TempDir::new();
    let project = dir.path().canonicalize().unwrap();
    let program = project.join("docker");
    let script = "#!/bin/sh\ncase \"$*\" in\nvolume*) while [ $# -gt 5 ]; do echo \"$6|/v/$6|\"; shift; done ;;\n\
                  inspect*) echo '[]' ;;\nesac\n";
    executable(&program, script);
    let docker = Docker::locate(Some(project.clone().into()), STALL).unwrap();
    let mut app = App::new(Config::of_text(&project, Path::new(".env"), settings.as_bytes()).unwrap());
    home.clone_into(&mut app.config.found.home);
    "main".clone_into(&mut app.config.found.told_by);
    let known = servers
        .iter()
        .map(|(volume, at)| ((*volume).to_owned(), (*at).to_owned()));
    app.config.found.server_volumes = known.collect();
    let directory_of = |path: &str| match path.strip_prefix('.') {
        Some(rest) => Some(format!("{}{rest}", project.display())),
        None => path.starts_with('/').then(|| path.to_owned()),
    };
    let containers = containers.iter().map(|(name, mounts)| Container {
        name: (*name).to_owned(),
        id: String::new(),
        image_id: String::new(),
        image: String::new(),
        status: Status::Running,
        version: String::new(),
        started_at: String::new(),
        restart: String::new(),
        auto_remove: false,
        mounts: mounts
            .iter()
            .map(|(source, at)| {
                let (source, read_only) = source
                    .strip_suffix(" ro")
                    .map_or((*source, false), |source| (source, true));
                let (name, subpath) = source
                    .split_once(':')
                    .map_or((source, None), |(name, path)| (name, Some(path)));
                Mount {
                    directory: directory_of(source).unwrap_or_default(),
                    name: directory_of(source).map_or(name.to_owned(), |_| String::new()),
                    subpath: subpath.map(str::to_owned),
                    destination: (*at).to_owned(),
                    read_only,
                }
            })
            .collect(),
    });
    let mut layout = data_layout(&app, &docker, &containers.collect::<Vec<_>>())?;
    check_volume(&app, &docker, &layout)?;
    let plain = |text: &mut String| *text = text.replace(&project.display().to_string(), ".");
    if let Source::Directory(path) = &mut layout.home.source {
        plain(path);
    }
    layout.separate.iter_mut().for_each(plain);
    Ok(layout)
}

#[test]
fn the_home_is_what_n8ns_main_container_has_its_directory_on() {
    const AT: &str = "/home/node/.n8n";
    let of = |settings: &str, home: &str, containers: &[(&str, Mounts<'_>)]| {
        let Place { source, at } = laid_out(settings, home, containers).home;
        format!("{source} {at}")
    };
    // A directory for each container; whoever is named first.
    let main = ("main", &[("./main", AT)][..]);
    for worker in [AT, "/home/node/.n8n/deep", "/home/node"] {
        let worker = ("worker", &[("./worker", worker)][..]);
        for containers in [[main, worker], [worker, main]] {
            assert_eq!(of("", AT, &containers), format!("./main {AT}"));
        }
    }
    // A volume that has the name which nobody has set.
    let named = ("main", &[("n8n_n8n_data", "/files"), ("./home", AT)][..]);
    assert_eq!(of("", AT, &[named]), format!("./home {AT}"));
    let set = "BACKUP_N8N_VOLUME=n8n_n8n_data\n";
    assert_eq!(of(set, AT, &[named]), "n8n_n8n_data /files");
    // Containers that say nothing have the names decide.
    assert_eq!(of("", "", &[named]), "n8n_n8n_data /files");
    assert_eq!(
        of("", "", &[("main", &[("v", "/files"), ("./home", AT)])]),
        format!("./home {AT}")
    );
    // One volume at two places.
    for mounts in [
        [("n8n_n8n_data", "/data"), ("n8n_n8n_data", AT)],
        [("n8n_n8n_data", AT), ("n8n_n8n_data", "/data")],
    ] {
        for (settings, home) in [("", AT), ("", ""), (set, AT), (set, "")] {
            assert_eq!(of(settings, home, &[("main", &mounts)]), format!("n8n_n8n_data {AT}"));
        }
    }
    // Where no mount holds it.
    assert_eq!(
        of("", "/root/.n8n", &[("main", &[("./a", "/a"), ("n8n_n8n_data", "/b")])]),
        "n8n_n8n_data /b"
    );
    assert_eq!(of("", "/root/.n8n", &[main]), format!("./main {AT}"));
}

#[test]
fn what_a_worker_keeps_for_itself_is_told() {
    const AT: &str = "/home/node/.n8n";
    let main = ("main", &[("./main", AT), ("./files", "/files")][..]);
    let told = |settings: &str, mounts: Mounts<'_>| {
        // Two of one service mount the same.
        laid_out(settings, AT, &[main, ("worker-1", mounts), ("worker-2", mounts)]).separate
    };
    let all = [("./worker", AT), ("worker_files", "/files")];
    let wanted = [
        "/home/node/.n8n (./worker): a home of n8n's beside the one that is backed up",
        "/files (worker_files): another container of n8n mounts something else there",
    ];
    assert_eq!(told("", &all), wanted);
    assert_eq!(
        told("BACKUP_EXCLUDE_MOUNTS=\"/home/node/.n8n /files\"\n", &all),
        [""; 0]
    );
    // The same as the main one mounts, a part of it, and what goes with the container.
    let anonymous = "0123456789abcdef".repeat(4);
    for mounts in [
        ("./main", AT),
        ("./main/.n8n", AT),
        (&anonymous, AT),
        (&anonymous, "/files"),
    ] {
        assert_eq!(told("", &[mounts]), [""; 0], "{mounts:?}");
    }
}

#[test]
fn a_part_of_a_volume_is_refused_as_n8ns_home() {
    const AT: &str = "/home/node/.n8n";
    let of = |settings: &str, mounts: Mounts<'_>| try_layout(settings, AT, &[("main", mounts)]);
    let home = ("n8n_n8n_data", AT);
    for (mounts, wanted) in [
        (
            [("shared:n8n", AT), ("v", "/files")],
            "/home/node/.n8n is a part of the volume shared (n8n)",
        ),
        (
            [home, ("shared:b", "/home/node/.n8n/binaryData")],
            "binaryData is a part of the volume shared (b)",
        ),
    ] {
        let error = of("", &mounts)
            .map(|_| String::new())
            .unwrap_or_else(|error| error.to_string());
        assert!(error.contains(wanted), "{error}");
    }
    // Beside the home it is left out, and told once.
    let mounts = &[home, ("shared:a/b", "/files")][..];
    let layout = try_layout("", AT, &[("main", mounts), ("worker", mounts)]).unwrap();
    let told = "/files is a part of the volume shared (a/b), which can be neither backed up nor restored by itself";
    assert!(layout.others.is_empty() && layout.separate == [told]);
    let layout = of("BACKUP_EXCLUDE_MOUNTS=/files\n", mounts).unwrap();
    assert!(layout.others.is_empty() && layout.separate.is_empty());
    // The whole of it holds the part.
    assert!(of("", &[home, ("n8n_n8n_data:part", "/part")]).is_ok());
}

#[test]
fn a_volume_that_holds_a_databases_data_is_no_home() {
    let of = |volume: &str, at: &str| {
        let n8n = ("main", &[("n8n_data", "/home/node/.n8n")][..]);
        layout_beside(&[(volume, at)], "", "/home/node/.n8n", &[n8n]).map(drop)
    };
    let error = of("n8n_data", "/data").unwrap_err().to_string();
    assert!(
        error.contains("n8n's home n8n_data cannot be replaced as a whole: it holds data of PostgreSQL or Redis"),
        "{error}"
    );
    assert!(of("n8n_data", "/pgdata").is_err());
    assert!(of("redis_data", "/data").is_ok());
    // Its configuration.
    assert!(of("n8n_data", "/usr/local/etc/redis").is_ok());
}

#[test]
fn what_is_n8ns_is_backed_up_wherever_it_lies_on_the_host() {
    const AT: &str = "/home/node/.n8n";
    let of = |settings: &str, mounts: Mounts<'_>| {
        let mounts = [&[("n8n_n8n_data", AT)], mounts].concat();
        let layout = laid_out(settings, AT, &[("main", &mounts)]);
        let taken: Vec<String> = layout.places().skip(1).map(|place| place.at.clone()).collect();
        (taken.join(" "), layout.left_out.join("; "))
    };
    let none = || String::new();
    // Below the home, or named.
    for path in [
        "/usr/local/share/none",
        "/run/media/u/none/files",
        "/etc/none",
        "/srv/none",
    ] {
        let below = "/home/node/.n8n/binaryData";
        assert_eq!(of("", &[(path, below)]), (below.to_owned(), none()), "{path}");
        let named = of("BACKUP_INCLUDE_MOUNTS=/files\n", &[(path, "/files")]);
        assert_eq!(named, ("/files".to_owned(), none()), "{path}");
    }
    // What n8n merely uses is told neither way.
    for (path, at) in [
        ("/etc/localtime", "/etc/localtime"),
        ("/usr/share/zoneinfo", "/usr/share/zoneinfo"),
        ("/etc/ssl/certs", "/etc/ssl/certs"),
        ("/run/none", "/run/none"),
        ("/etc", "/host-etc"),
    ] {
        assert_eq!(of("", &[(path, at)]), (none(), none()), "{path}");
    }
    // So it is where n8n may only read it, unless it is named.
    let below = "/home/node/.n8n/certs";
    assert_eq!(of("", &[("/etc/none ro", below)]), (none(), none()));
    assert_eq!(of("", &[("/srv/none ro", below)]), (below.to_owned(), none()));
    let named = of("BACKUP_INCLUDE_MOUNTS=/files\n", &[("/etc/none ro", "/files")]);
    assert_eq!(named, ("/files".to_owned(), none()));
    // A file stays one of the system's below the home, too; a directory is left out.
    assert_eq!(of("", &[("/etc/passwd", "/home/node/.n8n/users")]), (none(), none()));
    for path in ["/etc", "/run", "/usr/share/none", "/etc/ssl/none", "/proc/none", "/dev"] {
        for at in ["/files", "/home/node/.n8n/certs"] {
            let (taken, left_out) = of("BACKUP_INCLUDE_MOUNTS=/files\n", &[(path, at)]);
            assert_eq!(taken, "", "{path}");
            let wanted = format!("{at} ({path}): it is a directory of the system, which a restore must not replace");
            assert_eq!(left_out, wanted);
        }
    }
}

#[test]
fn a_database_that_no_restore_of_n8ns_data_replaces_is_told_from_one_that_it_has_to_leave() {
    const AT: &str = "/home/node/.n8n";
    let holds = |settings: &str, mounts: Mounts<'_>, path: &str, in_home: &str| {
        let mut app = App::new(Config::without_env_file(Path::new("/project")).unwrap());
        app.config.found.sqlite = Some(SqliteFile {
            container: "main".to_owned(),
            path: path.to_owned(),
            in_home: in_home.to_owned(),
        });
        laid_out(settings, AT, &[("main", mounts)])
            .database_place(&app)
            .is_some()
    };
    let (home, database) = (("n8n_n8n_data", AT), "/db/current/database.sqlite");
    let (apart, within) = ([home, ("n8n_db", "/db")], [home, ("./db", "/home/node/.n8n/db")]);
    assert!(holds("", &apart, database, ""));
    assert!(!holds("BACKUP_EXCLUDE_MOUNTS=/db\n", &apart, database, ""));
    for path in ["/home/node/.n8n/database.sqlite", "/home/node/.n8n/db/database.sqlite"] {
        assert!(holds("", &within, path, "database.sqlite"), "{path}");
    }
    assert!(!holds("", &[home], database, ""));
    // The containers do not tell where the home is.
    let unknown = [("other", "/files")];
    assert!(holds(
        "",
        &unknown,
        "/home/node/.n8n/database.sqlite",
        "database.sqlite"
    ));
    assert!(!holds("", &unknown, database, ""));
}
