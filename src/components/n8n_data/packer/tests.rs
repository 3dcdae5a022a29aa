use super::*;
use crate::formats::tar::{Properties, Select};
use crate::testing::{sh, TempDir};
use std::fs;
use std::process::{Command, Output};

/// Runs the packer, with `bin` before the other programs.
fn run(packing: &Packing<'_>, bin: &str) -> Output {
    let argv = packing.argv();
    let path = format!("{bin}:{}", std::env::var("PATH").unwrap());
    let mut command = Command::new(&argv[0]);
    command.args(&argv[1..]).envs(packing.variables()).env("PATH", path);
    command.output().unwrap()
}

/// The archives that it printed, as one.
fn archive(output: &Output) -> Vec<u8> {
    let mut list = List::of(Part::default());
    let archives = list.take(&output.stdout).unwrap();
    let mut archive = Vec::new();
    Select::new(archives, Part::default())
        .read_to_end(&mut archive)
        .unwrap();
    archive
}

/// A directory with a tar that can leave nothing out.
fn without_exclude() -> TempDir {
    let bin = TempDir::new();
    let tar = bin.path().join("tar");
    let text = "#!/bin/sh\ncase \"$*\" in *--exclude*) exit 1 ;; esac\nPATH=${PATH#*:} exec tar \"$@\"\n";
    let made = sh("printf %s \"$1\" >\"$2\" && chmod 755 \"$2\"")
        .args(["sh", text])
        .arg(&tar)
        .status()
        .unwrap();
    assert!(made.success());
    bin
}

#[test]
fn a_list_ends_with_an_empty_name_wherever_it_is_cut() {
    let bytes = b"./\0./a\nb\0./c\0\0rest\0";
    for cut in 0..bytes.len() {
        let mut list = List::of(Part::default());
        let first = list.take(&bytes[..cut]).map(<[u8]>::to_vec);
        let rest = match first {
            Some(first) => [&first[..], &bytes[cut..]].concat(),
            None => list.take(&bytes[cut..]).unwrap().to_vec(),
        };
        assert_eq!(rest, b"rest\0", "{cut}");
        assert!(list.names.contains(b"a\nb") && list.names.contains(b"c") && !list.names.contains(b"rest"));
    }
}

#[test]
fn names_in_a_script_are_only_names() {
    let place = |name: &[u8], is_link| Place {
        name: name.to_vec(),
        is_link,
        properties: Properties {
            uid: 1,
            gid: 2,
            mode: 0,
            mtime: 3,
        },
    };
    let text = script(&[place(b"a'$(x)\n", false), place(b"-l", true)]);
    let wanted = "touch -h -d @3 -- './a'\\''$(x)\n'\nchown -h 1:2 -- './-l'\ntouch -h -d @3 -- './-l'\necho done\n";
    assert_eq!(String::from_utf8(text).unwrap(), wanted);
}

#[test]
fn what_a_restore_of_a_database_unpacks_is_left_out_unless_the_exchange_has_begun() {
    let dir = TempDir::new();
    let work = dir.path().join(".n8n/[1]/.n8n-backup-restore");
    fs::create_dir_all(work.join("new")).unwrap();
    fs::write(work.join("new/database.sqlite"), "staged").unwrap();
    fs::write(dir.path().join(".n8n/config"), "{}").unwrap();
    let left_out = LeftOut {
        dir: "./.n8n/[1]".to_owned(),
        ..LeftOut::default()
    };
    let packing = Packing {
        what: What::Data(&left_out),
        dir: dir.path().to_str().unwrap(),
        others: &[],
        home: &Part::default(),
    };
    let has = |output: &[u8], name: &str| output.windows(name.len()).filter(|at| *at == name.as_bytes()).count();
    for (begun, held, said) in [(false, 0, "exit 0 0 0 0 1 0"), (true, 2, "exit 0 0 0 0 0 0")] {
        if begun {
            fs::write(work.join("begun"), "").unwrap();
        }
        let output = run(&packing, "/bin");
        // In the list of names and in the archive.
        assert_eq!(has(&output.stdout, "/new/database.sqlite\0"), held);
        assert_eq!(has(&output.stdout, "./.n8n/config\0"), 2);
        assert_eq!(String::from_utf8_lossy(&output.stderr).trim(), said);
    }
    // A tar that can leave nothing out is no tar for this, and is told as what it is.
    fs::remove_file(work.join("begun")).unwrap();
    let bin = without_exclude();
    let output = run(&packing, bin.path().to_str().unwrap());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.starts_with("error tar: this one has no --exclude: set BACKUP_HELPER_IMAGE "),
        "{said}"
    );
    assert!(said.ends_with("exit 1 1 0 0 1 0\n"), "{said}");
}

/// What the packer says of a `tar` that says this and ends with that exit code.
fn said_of(tar: &str, status: u8) -> Result<Said> {
    let bin = TempDir::new();
    let packing = Packing {
        what: What::All,
        dir: bin.path().to_str().unwrap(),
        others: &[],
        home: &Part::default(),
    };
    let made =
        sh("printf '#!/bin/sh\\ncat >&2 <<.\\n%s\\n.\\nexit %s\\n' \"$1\" \"$2\" >\"$3/tar\" && chmod 755 \"$3/tar\"")
            .args(["sh", tar, &status.to_string()])
            .arg(bin.path())
            .status()
            .unwrap();
    assert!(made.success());
    let output = run(&packing, bin.path().to_str().unwrap());
    let lines = String::from_utf8(output.stderr).unwrap();
    said_in(&lines.lines().map(str::to_owned).collect::<Vec<_>>())
}

#[test]
fn what_became_shorter_is_read_again_and_what_cannot_be_read_is_an_error() {
    let is_changed = |error: &anyhow::Error| error.downcast_ref::<Changed>().is_some();
    let error = said_of("tar: short read", 1).unwrap_err();
    assert!(is_changed(&error), "{error:#}");
    let said = said_of("tar: ./a: File shrank by 5 bytes; padding with zeros", 1).unwrap();
    assert_eq!(said.changed.0, 1);
    for (text, status) in [
        (
            "tar: ./a: Read error at byte 0, while reading 512 bytes: Input/output error",
            2,
        ),
        (
            "tar: ./a: File shrank by b: Read error at byte 512, while reading 1 byte: Input/output error",
            2,
        ),
        (
            "tar: ./emoving leading: Read error at byte 0, while reading 1 byte: Input/output error",
            2,
        ),
        ("tar: read error: I/O error", 1),
        ("tar: short read\ntar: ./a: Cannot open: Permission denied", 1),
        ("tar: ./a: file changed as we read it", 137),
        ("", 137),
    ] {
        let error = said_of(text, status).unwrap_err();
        assert!(!is_changed(&error), "{text}: {error:#}");
    }
}

/// busybox's tar prints names as they are.
#[test]
fn a_name_with_line_feeds_is_one_message() {
    for (text, status, changed, sockets) in [
        ("tar: ./a\nb.sock: socket ignored", 0, 0, 1),
        (
            "tar: ./a\n\nb\nc.sock: socket ignored\ntar: ./d: socket ignored",
            0,
            0,
            2,
        ),
        ("tar: ./a\nb: No such file or directory", 1, 1, 0),
        (
            "tar: can't open './a\nb': No such file or directory\ntar: ./c.sock: socket ignored",
            1,
            1,
            1,
        ),
    ] {
        let said = said_of(text, status).unwrap();
        assert_eq!((said.changed.0, said.sockets.0), (changed, sockets), "{text}");
    }
    let said = said_of("tar: ./a\nb.sock: socket ignored", 0).unwrap();
    assert_eq!(said.sockets.1, ["./a\\nb.sock: socket ignored"]);
    // What cannot be read is told, whatever it is called, and whatever is said before and after.
    for (text, wanted) in [
        ("tar: ./a\nb: Permission denied", "1 of"),
        ("tar: can't open './a\n: socket ignored\nb': Permission denied", "1 of"),
        ("tar: can't open './a\nb: socket ignored': Permission denied", "1 of"),
        ("tar: ./a\nb: Permission denied\nb.sock: socket ignored", "1 of"),
        ("tar: ./a: Permission denied\nsh: b: No such file or directory", "1 of"),
        ("tar: ./a\ntar: ./b.sock: socket ignored", "1 of"),
        ("tar: ./a\nexit 0", "1 of"),
        ("tar: ./a", "1 of"),
        ("tar: out of memory\nsh: b: No such file or directory", "1 of"),
        ("tar: ./a\nb: Permission denied\ntar: ./c\nd: I/O error", "2 of"),
    ] {
        let error = said_of(text, 1).unwrap_err().to_string();
        assert!(error.starts_with(wanted), "{text}: {error}");
    }
}

#[test]
fn what_is_mounted_in_the_home_is_packed_by_itself() {
    let dir = TempDir::new();
    let path = |name: &str| dir.path().join(name);
    fs::create_dir_all(path("custom[1]/deep/.n8n-backup-restore/new")).unwrap();
    fs::create_dir_all(path("custom1")).unwrap();
    for name in ["a", "custom1/b", "custom[1]/deep/.n8n-backup-restore/new/staged"] {
        fs::write(path(name), name).unwrap();
    }
    for name in ["twin", "custom[1]/a", "custom[1]/twin", "custom[1]/deep/a"] {
        fs::hard_link(path("a"), path(name)).unwrap();
    }
    let nested = ["custom[1]", "custom[1]/deep"].map(str::to_owned).to_vec();
    let parts = || {
        let below = |dir: &String| Part {
            below: dir.clone(),
            emptied: nested.iter().filter(|other| *other > dir).cloned().collect(),
            ..Part::default()
        };
        let home = Part {
            emptied: nested.clone(),
            ..Part::default()
        };
        let parts: Vec<Part> = [home].into_iter().chain(nested.iter().map(below)).collect();
        parts
    };
    let left_out = LeftOut::default();
    let packing = Packing {
        what: What::Data(&left_out),
        dir: dir.path().to_str().unwrap(),
        others: &[],
        home: &parts()[0],
    };
    let packed = |output: &Output, what: &dyn Fn(Scanner) -> Scanner| {
        let mut scanner = what(Scanner::new());
        scanner.feed(&archive(output)).unwrap();
        scanner.finish().unwrap()
    };
    let output = run(&packing, "/bin");
    assert_eq!(String::from_utf8_lossy(&output.stderr).trim(), "exit 0 0 0 0 1 0");
    let all = packed(&output, &|scanner| scanner.apart(parts()));
    // A link within one of them stays one.
    assert_eq!((all.members, all.files, all.crossing), (10, 4, None));
    for (part, members) in parts().into_iter().zip([6, 4, 2]) {
        let part = packed(&output, &|scanner| scanner.part(part.clone()));
        assert_eq!(part.members, members);
    }
    // A tar that can leave nothing out packs them together, and that is seen.
    fs::remove_dir_all(path("custom[1]/deep/.n8n-backup-restore")).unwrap();
    let bin = without_exclude();
    let output = run(&packing, bin.path().to_str().unwrap());
    let all = packed(&output, &|scanner| scanner.apart(parts()));
    assert!(all.members == 10 && all.crossing.is_some(), "{all:?}");
}

#[test]
fn what_holds_the_home_is_packed_without_what_is_in_that() {
    let root = TempDir::new();
    let at = |name: &str| root.path().join(".n8n-backup-mounts/%2Fdata[1]").join(name);
    for name in ["n8n/storage", "n8n2"] {
        fs::create_dir_all(at(name)).unwrap();
    }
    for name in ["n8n/config", "n8n/storage/x", "n8n2/a", "in"] {
        fs::write(at(name), name).unwrap();
    }
    let left_out = LeftOut {
        contents: vec!["./.n8n-backup-mounts/%2Fdata[1]/n8n".to_owned()],
        ..LeftOut::default()
    };
    let home = at("n8n");
    let packing = Packing {
        what: What::Data(&left_out),
        dir: home.to_str().unwrap(),
        others: &["./.n8n-backup-mounts/%2Fdata[1]".to_owned()],
        home: &Part::default(),
    };
    let mut argv = packing.argv();
    argv[2] = argv[2].replace("cd / ", &format!("cd '{}' ", root.path().display()));
    let mut command = Command::new(&argv[0]);
    let output = command.args(&argv[1..]).envs(packing.variables()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr).trim(), "exit 0 0 0 0 0 0");
    let has = |name: &str| {
        let name = format!("%2Fdata[1]/{name}");
        let found = output.stdout.windows(name.len()).filter(|at| *at == name.as_bytes());
        found.count()
    };
    // In the list of names and in the archive.
    assert_eq!((has("n8n2/a\0"), has("in\0")), (2, 2));
    assert_eq!((has("n8n/config"), has("n8n/storage")), (0, 0));
    // The home itself, and its directory.
    let mut scanner = Scanner::new();
    scanner.feed(&archive(&output)).unwrap();
    assert_eq!(scanner.finish().unwrap().members, 4 + 5);
}
