//! rclone on directories of this host, and what its words mean.

use std::fs;
use std::os::unix::fs::symlink;

use super::*;
use crate::testing::{skip, TempDir, STALL};

#[test]
fn progress_is_told_from_other_lines() {
    let line = "2026/11/23 01:04:27 NOTICE:     2.861 MiB / 2.861 MiB, 100%, 0 B/s, ETA -";
    assert_eq!(progress(line), Some("2.861 MiB"));
    assert_eq!(progress("2026/11/23 01:04:27 ERROR : a / b: no such file"), None);
}

#[test]
fn numbers_are_found_before_their_words() {
    let output = "NOTICE: r: 0 differences found / NOTICE: r: 12 matching files";
    assert_eq!(number_before(output, "matching files"), Some(12));
    assert_eq!(number_before(output, "hashes could not be checked"), None);
}

#[test]
fn what_links_lead_to_is_sent_and_compared() {
    let path = std::env::var_os("PATH");
    if find("rclone", path.as_ref()).is_none() {
        return skip("store::remote::tests::what_links_lead_to", "no rclone");
    }
    let dir = TempDir::new();
    let at = |name: &str| dir.path().join(name);
    for name in ["here", "disk"] {
        fs::create_dir(at(name)).unwrap();
    }
    fs::write(at("moved"), "moved").unwrap();
    fs::write(at("disk/a"), "a").unwrap();
    for (to, link) in [
        ("../disk", "here/redis"),
        ("../moved", "disk/b"),
        ("gone", "here/old"),
        ("gone", "disk/old"),
    ] {
        symlink(to, at(link)).unwrap();
    }
    let (config, there) = (Some(at("none.conf")), "there".to_owned());
    let rclone = Rclone::locate(path.as_ref(), dir.path(), config, there, STALL).unwrap();
    let names = ["redis/a", "redis/b"].map(str::to_owned);
    rclone.copy(&at("here"), &names, Resend::Changed).unwrap();
    assert_eq!(fs::read_to_string(at("there/redis/b")).unwrap(), "moved");
    assert_eq!(rclone.check(&at("here"), &names, 6).unwrap(), Proof::Hash);
    fs::write(at("disk/a"), "b").unwrap();
    assert!(rclone.check(&at("here"), &names, 6).unwrap_err().is::<Differs>());
}

#[test]
fn what_links_lead_to_there_is_deleted() {
    let path = std::env::var_os("PATH");
    if find("rclone", path.as_ref()).is_none() {
        return skip("store::remote::tests::what_links_lead_to_there", "no rclone");
    }
    let dir = TempDir::new();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir_all(at("there/redis")).unwrap();
    fs::create_dir(at("disk")).unwrap();
    let files = ["there/redis/a", "there/redis/b", "disk/a", "disk/b"].map(at);
    files.iter().for_each(|file| fs::write(file, "x").unwrap());
    symlink("../disk", at("there/postgres")).unwrap();
    symlink("gone", at("there/old")).unwrap();
    let (config, there) = (Some(at("none.conf")), "there".to_owned());
    let rclone = Rclone::locate(path.as_ref(), dir.path(), config, there, STALL).unwrap();
    // That one of them is gone already is no error.
    let names = ["postgres/a", "redis/a", "redis/gone", "sets/gone"].map(str::to_owned);
    rclone.delete(&names).unwrap();
    assert_eq!(files.map(|file| file.exists()), [false, true, false, true]);
}

#[test]
fn links_of_others_hide_nothing_of_ours() {
    let path = std::env::var_os("PATH");
    if find("rclone", path.as_ref()).is_none() {
        return skip("store::remote::tests::links_of_others", "no rclone");
    }
    let dir = TempDir::new();
    let at = |name: &str| dir.path().join(name);
    for name in ["there/redis", "there/notes", "disk"] {
        fs::create_dir_all(at(name)).unwrap();
    }
    for file in ["there/redis/a", "there/notes/a", "disk/a"] {
        fs::write(at(file), "x").unwrap();
    }
    let (config, there) = (Some(at("none.conf")), "there".to_owned());
    let rclone = Rclone::locate(path.as_ref(), dir.path(), config, there, STALL).unwrap();
    let list = || {
        let mut names: Vec<String> = rclone.list().unwrap().into_iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        names
    };
    assert_eq!(list(), ["redis/a"]);
    // One that cannot be followed, to the end of this test as one into another user's directory.
    symlink("redis/a/b", at("there/private")).unwrap();
    assert_eq!(list(), ["redis/a"]);
    symlink("../disk", at("there/postgres")).unwrap();
    let error = rclone.list().unwrap_err().to_string();
    assert!(error.contains("there/private"), "{error}");
    fs::remove_file(at("there/private")).unwrap();
    for link in ["there/old", "there/older", "disk/old"] {
        symlink("gone", at(link)).unwrap();
        assert_eq!(list(), ["postgres/a", "redis/a"], "{link}");
    }
    // A disk of ours that is not mounted holds what it held; another stack's is for that one, and for a list of all.
    fs::create_dir_all(at("there/stack-00000000000000aa/sets")).unwrap();
    fs::write(at("there/stack-00000000000000aa/sets/a"), "x").unwrap();
    let of_one = rclone.clone().of_stack(Identity::parse("00000000000000aa"));
    let names_of_one = || {
        let mut names: Vec<String> = of_one.list().unwrap().into_iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        names
    };
    for (link, is_ours) in [
        ("there/stack-00000000000000aa/redis", true),
        ("there/sets", true),
        ("there/stack-00000000000000bb", false),
    ] {
        symlink(at("unmounted"), at(link)).unwrap();
        let error = rclone.list().unwrap_err().to_string();
        assert!(error.contains("cannot be listed") && error.contains(link), "{error}");
        assert_eq!(of_one.list().is_err(), is_ours, "{link}");
        if !is_ours {
            let wanted = ["postgres/a", "redis/a", "stack-00000000000000aa/sets/a"];
            assert_eq!(names_of_one(), wanted, "{link}");
            // Nor is one that may not be followed, beside what is no link.
            fs::remove_file(at(link)).unwrap();
            fs::remove_file(at("there/postgres")).unwrap();
            symlink("redis/a/b", at(link)).unwrap();
            assert_eq!(names_of_one(), wanted[1..], "{link}");
            symlink("../disk", at("there/postgres")).unwrap();
        }
        fs::remove_file(at(link)).unwrap();
    }
    fs::remove_dir_all(at("there/stack-00000000000000aa")).unwrap();
    // More of them than there are lines to count.
    (0..9).for_each(|number| symlink("gone", at(&format!("there/old{number}"))).unwrap());
    assert!(rclone.list().is_err());
    fs::remove_file(at("there/postgres")).unwrap();
    assert_eq!(list(), ["redis/a"]);
}

#[test]
fn links_that_lead_nowhere_are_told_from_other_errors() {
    let broken = "ERROR : a: Listing error: symlink: stat /r/a: no such file or directory";
    let closed = "ERROR : b: failed to open directory \"b\": open /r/b: permission denied";
    let ours = broken.replace(" a:", " stack-00000000000000aa/postgres:");
    let encrypted = broken.replace(" a:", " p0gq7c4vhdn1u6rm2bsk5tj8ea/ll9rbd9mu1hdvjc8l5c7cja7mj:");
    for (is_so, said) in [
        (false, format!("{ours} / Failed to lsf: symlink: stat /r/a")),
        (false, format!("{encrypted} / Failed to lsf: symlink: stat /r/a")),
        (
            false,
            format!("{broken} / {ours} / Failed to lsf with 2 errors: last error was: symlink: stat /r/a"),
        ),
        (true, format!("{broken} / Failed to lsf: symlink: stat /r/a")),
        (
            true,
            format!("{broken} / {broken} / Failed to lsf with 2 errors: last error was: symlink: stat /r/a"),
        ),
        (
            false,
            format!("{broken} / {closed} / Failed to lsf with 2 errors: last error was: open /r/b"),
        ),
        (
            false,
            format!("{broken} / Failed to lsf with 9 errors: last error was: symlink: stat /r/a"),
        ),
        (false, format!("{closed} / Failed to lsf: open /r/b")),
        (false, String::new()),
    ] {
        assert_eq!(has_broken_links_only(&said, None), is_so, "{said}");
    }
}

#[test]
fn an_error_is_no_difference() {
    for (is_one, succeeded, said) in [
        (
            true,
            false,
            "ERROR : a: md5 differ / NOTICE: r: 1 differences found / NOTICE: r: 1 errors while checking / \
             NOTICE: r: 1 matching files / Failed to check: 1 differences found",
        ),
        (
            true,
            false,
            "Failed to cryptcheck with 3 errors: last error was: 1 differences found",
        ),
        (
            true,
            false,
            "Failed to cryptcheck: not an encrypted file - bad magic string",
        ),
        (
            true,
            true,
            "NOTICE: r: 0 differences found / NOTICE: r: 1 matching files",
        ),
        // Where rclone cannot look, it counts a difference all the same.
        (
            false,
            false,
            "ERROR : a: Failed to calculate dst hash: EOF / NOTICE: r: 1 differences found / \
             NOTICE: r: 1 errors while checking / Failed to check: EOF",
        ),
        (
            false,
            false,
            "Failed to create file system for \"r:\": connect: connection refused",
        ),
        (false, true, ""),
    ] {
        assert_eq!(has_differed(succeeded, said), is_one, "{said}");
    }
}

#[test]
fn names_are_one_a_line() {
    assert_eq!(lines(&["a b".to_owned(), "#c".to_owned()]), b"a b\n#c\n");
}
