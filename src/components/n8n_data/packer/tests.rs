use super::*;
use crate::formats::tar::Properties;
use crate::testing::{sh, TempDir};
use std::fs;
use std::process::Command;

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
        work: "./.n8n/[1]/.n8n-backup-restore".to_owned(),
        ..LeftOut::default()
    };
    let packing = Packing {
        what: What::Data(&left_out),
        dir: dir.path().to_str().unwrap(),
        others: &[],
        home: &Part::default(),
    };
    let has = |output: &[u8], name: &str| output.windows(name.len()).filter(|at| *at == name.as_bytes()).count();
    for (begun, held, said) in [(false, 0, "exit 0 0 0 0 1"), (true, 2, "exit 0 0 0 0 0")] {
        if begun {
            fs::write(work.join("begun"), "").unwrap();
        }
        let argv = packing.argv();
        let output = Command::new(argv[0])
            .args(&argv[1..])
            .envs(packing.variables())
            .output()
            .unwrap();
        // In the list of names and in the archive.
        assert_eq!(has(&output.stdout, "/new/database.sqlite\0"), held);
        assert_eq!(has(&output.stdout, "./.n8n/config\0"), 2);
        assert_eq!(String::from_utf8_lossy(&output.stderr).trim(), said);
    }
    // A tar that can leave nothing out is no tar for this, and is told as what it is.
    fs::remove_file(work.join("begun")).unwrap();
    let bin = TempDir::new();
    let tar = bin.path().join("tar");
    let text = "#!/bin/sh\ncase \"$*\" in *--exclude*) exit 1 ;; esac\nPATH=${PATH#*:} exec tar \"$@\"\n";
    let made = sh("printf %s \"$1\" >\"$2\" && chmod 755 \"$2\"")
        .args(["sh", text])
        .arg(&tar)
        .status()
        .unwrap();
    assert!(made.success());
    let argv = packing.argv();
    let path = format!("{}:{}", bin.path().display(), std::env::var("PATH").unwrap());
    let output = Command::new(argv[0])
        .args(&argv[1..])
        .envs(packing.variables())
        .env("PATH", path)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.starts_with("error tar: this one has no --exclude: set BACKUP_HELPER_IMAGE "),
        "{said}"
    );
    assert!(said.ends_with("exit 1 1 0 0 1\n"), "{said}");
}
