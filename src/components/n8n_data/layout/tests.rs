use super::databases::holds;
use super::*;
use crate::config::Config;
use crate::testing::TempDir;

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
        home: place(volume("home"), "/home/node/.n8n"),
        nested: nested
            .into_iter()
            .map(|(name, of)| (name.to_owned(), place(volume(of), &format!("/home/node/.n8n/{name}"))))
            .collect(),
        others: vec![place(Source::Directory("/p/files".to_owned()), "/data/50%")],
        within: Vec::new(),
        around: Vec::new(),
        left_out: Vec::new(),
        ours: Vec::new(),
        excluded: Vec::new(),
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
            // It stands for a directory.
            home: place(Source::Volume("home".to_owned()), home),
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
            within: Vec::new(),
            around: Vec::new(),
            left_out: Vec::new(),
            ours: Vec::new(),
            excluded: Vec::new(),
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
            home: directory(home, "/home/node/.n8n"),
            nested: BTreeMap::new(),
            others: others.iter().map(|(path, at)| directory(path, at)).collect(),
            within: Vec::new(),
            around: Vec::new(),
            left_out: Vec::new(),
            ours: Vec::new(),
            excluded: Vec::new(),
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
