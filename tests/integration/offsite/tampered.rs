//! A place that somebody else has written to: what comes back is ours, or does not come back.

use std::fs;
use std::path::Path;

use super::{files, lacks_programs, send, stack_dir, to_directory, PASSPHRASE};
use crate::common::{name, sh, Outcome, Sandbox};

/// A host with one encrypted point of Redis off-site, and a new host with the passphrase.
fn hosts([ours, new]: [&'static str; 2]) -> (Sandbox, Sandbox) {
    let sandbox = Sandbox::new(ours)
        .redis()
        .env("BACKUP_GPG_PASSPHRASE", PASSPHRASE)
        .build();
    to_directory(&sandbox);
    sandbox.redis(&["SET", "value", "ours"]);
    sandbox.run("backup-redis", &[]).assert_success();
    send(&sandbox).assert_success();
    let host = Sandbox::new(new)
        .redis()
        .env("BACKUP_GPG_PASSPHRASE", PASSPHRASE)
        .build();
    host.set("RCLONE_CONFIG", &sandbox.aside("rclone.conf").to_string_lossy());
    (sandbox, host)
}

fn fetch(host: &Sandbox, args: &[&str]) -> Outcome {
    host.binary().arg("fetch-offsite").args(args).run()
}

/// A manifest in clear of one file, as whoever may write there can make it.
fn forge(dir: &Path, stamp: &str, stack: Option<&str>, file: &str, contents: &[u8]) {
    for part in ["redis", "sets"] {
        fs::create_dir_all(dir.join(part)).unwrap();
    }
    let path = dir.join(file);
    fs::write(&path, contents).unwrap();
    let sum = sh("sha256sum <\"$1\" | cut -c -64", &[path.as_os_str()]);
    let stack = stack.map_or_else(String::new, |stack| format!("# stack: {stack}\n"));
    let text = format!(
        "# n8n-backup recovery point {stamp}\n# failed: none\n{stack}# size.redis: {}\n{}  {file}\n",
        contents.len(),
        sum.trim()
    );
    fs::write(dir.join(format!("sets/{stamp}.sha256")), text).unwrap();
}

const NEWER: &str = "20260901_020000";

#[test]
fn plain_files_are_neither_fetched_nor_restored() {
    if lacks_programs("offsite::tampered::plain_files") {
        return;
    }
    let (sandbox, host) = hosts(["offtamp", "offtampnew"]);
    let there = sandbox.aside("elsewhere/n8n-backups");
    let stack = stack_dir(&there);
    let id = name(&stack).trim_start_matches("stack-").to_owned();
    let evil = sh("printf 'evil'", &[]);
    let file = format!("redis/dump_{NEWER}.rdb");
    // It is the newest by its name, in either place.
    for (dir, stack_of) in [(&there, None), (&stack, Some(id.as_str()))] {
        forge(dir, NEWER, stack_of, &file, evil.as_bytes());
        let outcome = fetch(&host, &[NEWER]);
        outcome.assert_error(match stack_of {
            None => "Recovery point {} holds a file that is not encrypted ({}), while this project encrypts{}",
            Some(_) => "sets/{} is not encrypted, while this project encrypts its backups{}",
        });
        outcome.assert_log_has("fetch-offsite", "ERROR Hint: add --allow-plain {}");
        assert!(
            host.backups("redis").is_empty() && host.backups("sets").is_empty(),
            "{outcome}"
        );
        fs::remove_file(dir.join(format!("sets/{NEWER}.sha256"))).unwrap();
    }
    // Nor does one in clear say which encrypted files belong together.
    let set = stack.join(format!("sets/{NEWER}.sha256"));
    forge(
        &stack,
        NEWER,
        Some(&id),
        &format!("{file}.gpg"),
        &fs::read(sandbox.backup("redis")).unwrap(),
    );
    fetch(&host, &[NEWER]).assert_error("sets/{} is not encrypted, while this project encrypts its backups{}");
    fs::remove_file(&set).unwrap();
    fs::remove_file(stack.join(format!("{file}.gpg"))).unwrap();
    // A manifest that is another stack's, or none's, in the stack's own directory.
    for stack_of in [None, Some("00000000000000aa")] {
        forge(&stack, NEWER, stack_of, &format!("{file}.gpg"), evil.as_bytes());
        let outcome = fetch(&host, &["--allow-plain", NEWER]);
        outcome.assert_error("The manifest of {} at {} cannot be used");
        fs::remove_file(stack.join(format!("sets/{NEWER}.sha256"))).unwrap();
    }
    forge(&there, NEWER, None, &file, evil.as_bytes());
    fetch(&host, &["--allow-plain", NEWER]).assert_success();
    let plain = host.backup("redis");
    let before = host.redis(&["DBSIZE"]);
    let outcome = host.run("restore-redis", &[&plain.to_string_lossy(), "--yes"]);
    outcome.assert_error("{} is not encrypted, while this project encrypts its backups: anybody could have made it");
    let outcome = host.run("restore-all", &["--only", "redis", "--yes", NEWER]);
    outcome.assert_error("{} is not encrypted, while this project encrypts its backups: anybody could have made it");
    assert_eq!(host.redis(&["DBSIZE"]), before);
    // With the flag it is looked at, and found to be no snapshot.
    let outcome = host.run("restore-redis", &[&plain.to_string_lossy(), "--yes", "--allow-plain"]);
    assert_eq!(outcome.code, Some(1), "{outcome}");
    assert!(!outcome.stdout.contains("is not encrypted, while"), "{outcome}");
    // Where nothing is encrypted, plain files are what there is.
    host.set("BACKUP_GPG_PASSPHRASE", "");
    fs::remove_file(&plain).unwrap();
    fs::remove_file(host.backup("sets")).unwrap();
    fetch(&host, &[NEWER]).assert_success();
}

/// What bears the name of an encrypted file, and was not made with the passphrase.
#[test]
fn a_forged_message_is_refused() {
    if lacks_programs("offsite::tampered::a_forged_message") {
        return;
    }
    let (sandbox, host) = hosts(["offforge", "offforgenew"]);
    let there = sandbox.aside("elsewhere/n8n-backups");
    let stack = stack_dir(&there);
    let file = format!("redis/dump_{NEWER}.rdb.gpg");
    let ours = fs::read(sandbox.backup("redis")).unwrap();
    let literal = b"\xcb\x0bb\0\0\0\0\0evil\n";
    let session_key = &ours[..2 + usize::from(ours[1])];
    let to_a_key = sandbox.aside("to-a-key.gpg");
    sh(
        "export GNUPGHOME=$(mktemp -d); gpg -q --batch --passphrase '' --quick-generate-key evil default default never \
         2>/dev/null; printf evil | gpg -q --batch --trust-model always -r evil -e >\"$1\"; gpgconf --kill all; rm -rf \"$GNUPGHOME\"",
        &[to_a_key.as_os_str()],
    );
    for (what, forged) in [
        ("plain text as a message", literal.to_vec()),
        (
            "plain text behind one of our session keys",
            [session_key, literal].concat(),
        ),
        ("plain text behind one of our messages", [&ours[..], literal].concat()),
        ("a message to a public key", fs::read(&to_a_key).unwrap()),
        ("no message", b"evil".to_vec()),
    ] {
        forge(&there, NEWER, None, &file, &forged);
        let fetched = fetch(&host, &[NEWER]);
        // What can be told by its first bytes is not fetched; the rest is not restored.
        if fetched.code == Some(0) {
            let copy = host.backup("redis");
            let outcome = host.run("restore-redis", &[&copy.to_string_lossy(), "--yes"]);
            assert_eq!(outcome.code, Some(1), "{what}: {outcome}");
            fs::remove_file(copy).unwrap();
            fs::remove_file(host.backup("sets")).unwrap();
        } else {
            fetched.assert_log_has("fetch-offsite", "ERROR {} could not be fetched");
        }
        assert!(
            host.backups("sets").is_empty() && host.redis(&["DBSIZE"]).trim() == "0",
            "{what}"
        );
    }
    fs::remove_file(there.join(format!("sets/{NEWER}.sha256"))).unwrap();
    // The same in the place of a manifest.
    let set = files(&stack)
        .into_iter()
        .find(|name| name.starts_with("sets/"))
        .unwrap();
    let good = fs::read(stack.join(&set)).unwrap();
    for forged in [
        [session_key, literal].concat(),
        fs::read(&to_a_key).unwrap(),
        good[..good.len() - 1].to_vec(),
        [&good[..good.len() - 30], &[0; 30]].concat(),
    ] {
        fs::write(stack.join(&set), forged).unwrap();
        let outcome = fetch(&host, &["latest"]);
        assert_eq!(outcome.code, Some(1), "{outcome}");
        assert!(
            host.backups("redis").is_empty() && host.backups("sets").is_empty(),
            "{outcome}"
        );
    }
    // Another point of ours in the place of this one, as it was.
    fs::write(stack.join(&set), good).unwrap();
    let other = stack.join(format!("sets/{NEWER}.sha256.gpg"));
    fs::copy(stack.join(&set), &other).unwrap();
    fetch(&host, &[NEWER]).assert_error("The manifest of {} at {} cannot be used");
    fs::remove_file(other).unwrap();
    fetch(&host, &["latest"]).assert_success();
    let copy = host.backup("redis");
    host.run("restore-redis", &[&copy.to_string_lossy(), "--yes"])
        .assert_success();
    assert_eq!(host.redis(&["GET", "value"]).trim(), "ours");
    assert!(files(&host.path("backups/sets"))
        .iter()
        .all(|name| !name.contains("offsite")));
}
