//! The data of a real n8n, in `tests/data`: its credentials are of the old form, under an inactive data key and under the active one.

// A test that cannot go on is to panic.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use super::point::{edit, encrypt, forge, gunzip, gzip};
use super::{done, repository, Outcome, Sandbox};

/// Its instance key.
pub const KEY: &str = "0123456789abcdef0123456789abcdef";
/// The `type` of one of its keys, in a row of the dump.
const DATA_KEY: &str = "data_encryption";

/// A file of `tests/data`.
pub fn data(name: &str) -> PathBuf {
    repository().join("tests/data").join(name)
}

/// Loads the dump into the sandbox's database.
pub fn load(sandbox: &Sandbox) {
    let mut load = std::process::Command::new("sh");
    load.args([
        "-c",
        "gzip -dc \"$1\" | docker exec -i \"$2\" psql -XqU \"$3\" -d \"$4\" -v ON_ERROR_STOP=1",
        "sh",
    ])
    .arg(data("n8n.sql.gz"))
    .arg(sandbox.container("postgres"))
    .args(["n8n", "n8n"]);
    done(load);
}

/// A recovery point of that data, whose dump and key a test changes.
pub struct Point<'a> {
    sandbox: &'a Sandbox,
    dump: PathBuf,
    env: PathBuf,
    text: String,
}

impl<'a> Point<'a> {
    /// Backs up what was loaded.
    pub fn new(sandbox: &'a Sandbox) -> Self {
        sandbox.set("N8N_ENCRYPTION_KEY", KEY);
        // Without Redis it is incomplete, which is enough here.
        sandbox.run("backup-all", &[]);
        edit(sandbox, |text| {
            text.replace("# postgres.bytes: ", "# not-postgres.bytes: ")
        });
        edit(sandbox, |text| text.replace("# postgres.rows", "# not-postgres.rows"));
        let dump = sandbox.backup("postgres");
        let text = String::from_utf8(gunzip(&dump)).unwrap();
        Self {
            sandbox,
            dump,
            env: sandbox.backup("env"),
            text,
        }
    }

    /// Tests the point with this key and a changed dump.
    pub fn test(&self, key: &str, change: impl FnOnce(String) -> String) -> Outcome {
        self.test_with(key, change, |sandbox| sandbox.run("test-recovery", &["--postgres"]))
    }

    fn test_with(
        &self,
        key: &str,
        change: impl FnOnce(String) -> String,
        run: impl FnOnce(&Sandbox) -> Outcome,
    ) -> Outcome {
        forge(
            self.sandbox,
            &self.env,
            format!("N8N_ENCRYPTION_KEY={key}\n").as_bytes(),
        );
        let dump = change(self.text.clone());
        forge(self.sandbox, &self.dump, &gzip(self.sandbox, dump.as_bytes()));
        run(self.sandbox)
    }
}

/// Changes a field of the row that begins with `start` and holds `has`.
#[track_caller]
fn field(dump: &str, has: &str, number: usize, change: impl Fn(&str) -> String) -> String {
    let mut found = 0;
    let lines: Vec<String> = dump
        .lines()
        .map(|line| {
            if !line.contains(has) || !line.contains('\t') {
                return line.to_owned();
            }
            found += 1;
            let mut fields: Vec<String> = line.split('\t').map(str::to_owned).collect();
            fields[number] = change(&fields[number]);
            fields.join("\t")
        })
        .collect();
    assert!(found > 0, "no row has {has}");
    lines.join("\n") + "\n"
}

/// Without the rows that hold `has`.
fn without(dump: &str, has: &str) -> String {
    let lines: Vec<&str> = dump.lines().filter(|line| !line.starts_with(has)).collect();
    assert!(lines.len() < dump.lines().count());
    lines.join("\n") + "\n"
}

/// Another character of base64 at a place.
fn flipped(text: &str, at: usize) -> String {
    let mut bytes = text.as_bytes().to_vec();
    bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
    String::from_utf8(bytes).unwrap()
}

#[track_caller]
fn assert_ends(outcome: &Outcome, code: i32, says: &str) {
    assert!(
        outcome.code == Some(code) && outcome.stdout.contains(says),
        "{code} and '{says}' expected: {outcome}"
    );
    for secret in [KEY, "correct horse battery", "first dek", "second dek", "other key"] {
        outcome.assert_never_says(secret);
    }
}

/// Every form that n8n stores is opened, and what cannot be opened is told.
pub fn prove_every_form(point: &Point<'_>) {
    const ALL: &str = "Decrypted 4 of 4 credentials with the backed-up key";
    const SECOND: &str = "\"Second key\", httpBearerAuth";
    let outcome = point.test(KEY, |dump| dump);
    assert_ends(&outcome, 0, ALL);
    assert_ends(&outcome, 0, "It also decrypts 3 signing keys");

    let outcome = point.test("other key", |dump| dump);
    assert_ends(&outcome, 1, "Decrypted 0 of 4 credentials");
    assert_ends(&outcome, 1, "(\"Old header\", httpHeaderAuth)");
    assert_ends(&outcome, 1, "BACKUP_DEAD_CREDENTIALS");

    // The data key of one credential, inactive; then that of the others.
    let outcome = point.test(KEY, |dump| without(&dump, "NIQvLbkMHeBR4kod\tdata"));
    assert_ends(
        &outcome,
        1,
        "1 cannot be decrypted: ID pQvS8aNiGiFBksHt (\"First key\", httpHeaderAuth), whose data key is missing",
    );
    // One byte of the salt, or of the wrapped data key.
    let outcome = point.test(KEY, |dump| field(&dump, "Second key", 1, |data| flipped(data, 30)));
    assert_ends(&outcome, 1, SECOND);
    let outcome = point.test(KEY, |dump| {
        field(&dump, &format!("FSoGtTx4c4UFzXbw\t{DATA_KEY}"), 2, |data| {
            flipped(data, 30)
        })
    });
    assert_ends(&outcome, 1, SECOND);
    assert_ends(&outcome, 1, "data key FSoGtTx4c4UFzXbw");
    let outcome = point.test(KEY, |dump| field(&dump, "\tsigning.jwt\t", 2, |data| flipped(data, 10)));
    assert_ends(
        &outcome,
        1,
        "Decrypted 4 of 4 credentials with the backed-up key; 1 cannot be decrypted: key signing.jwt",
    );

    for unknown in ["{\"iv\":\"x\"}", "FSoGtTx4c4UFzXbw:v9:AAAA", "AAAA"] {
        let outcome = point.test(KEY, |dump| field(&dump, "Second key", 1, |_| unknown.to_owned()));
        assert_ends(
            &outcome,
            2,
            "1 are stored in a form that is not known here, and were not checked: ID LINkcfAoGqGWYzAC",
        );
    }
    // One that holds nothing is none to open.
    let outcome = point.test(KEY, |dump| field(&dump, "Second key", 1, |_| String::new()));
    assert_ends(&outcome, 0, "Decrypted 3 of 3 credentials with the backed-up key");

    // Without a credential there are signing keys, which n8n cannot do without.
    let none = |dump: String| {
        let mut dropped = 0;
        let mut others = String::new();
        let mut table = "";
        for line in dump.lines() {
            match line.strip_prefix("COPY ").and_then(|rest| rest.split(' ').next()) {
                Some(name) => table = name,
                None if line == "\\." => table = "",
                None if table.ends_with("credentials_entity") || table.ends_with("shared_credentials") => {
                    dropped += usize::from(table.ends_with("credentials_entity"));
                    continue;
                }
                None => {}
            }
            others.push_str(line);
            others.push('\n');
        }
        assert_eq!(dropped, 4);
        others
    };
    let outcome = point.test(KEY, none);
    assert_ends(&outcome, 0, "It also decrypts 3 signing keys");
    let outcome = point.test("other key", none);
    assert_ends(&outcome, 1, "key signing.jwt");
    let outcome = point.test("", none);
    assert_ends(
        &outcome,
        1,
        "the recovery point holds no encryption key, and its database holds 6 keys or secrets of users",
    );

    // One that n8n lost long ago.
    let lost = |dump: String| field(&dump, "Old basic", 1, |_| encrypt("lost", "{}"));
    let outcome = point.test(KEY, lost);
    assert_ends(
        &outcome,
        1,
        "Decrypted 3 of 4 credentials with the backed-up key; 1 cannot be decrypted: ID JTiXbvzr5Qy3YACo",
    );
    point.sandbox.set("BACKUP_DEAD_CREDENTIALS", "x JTiXbvzr5Qy3YACo");
    let outcome = point.test(KEY, lost);
    assert_ends(&outcome, 0, "Decrypted 3 of 4 credentials with the backed-up key");
    assert_ends(&outcome, 0, "WARN");
    assert_ends(
        &outcome,
        0,
        "ID JTiXbvzr5Qy3YACo (\"Old basic\", httpBasicAuth) cannot be decrypted, as BACKUP_DEAD_CREDENTIALS says",
    );
    point.sandbox.set("BACKUP_DEAD_CREDENTIALS", "");

    // The instance key was changed: what is of the old form is under the stored legacy key, wrapped by CBC or in the clear. One
    // credential names that row.
    let legacy = "ab".repeat(32);
    for stored in [encrypt("new", &legacy), legacy.clone()] {
        let outcome = point.test("new", |dump| {
            let dump = field(&dump, "4TECynFVfwp6unXP", 2, |_| stored.clone());
            let dump = without(
                &without(&without(&dump, "n3SCLIzIyTarpQt1"), "u1ajMrWbzgObJsxY"),
                "lOXNAGk1YWsPHbfS",
            );
            let dump = without(&without(&dump, "FSoGtTx4c4UFzXbw"), "NIQvLbkMHeBR4kod");
            let change =
                |dump: String, name: &str, data: String| field(&dump, &format!("{name}\t"), 1, |_| data.clone());
            let dump = change(dump, "Old header", encrypt(&legacy, "{\"a\":1}"));
            let dump = change(dump, "Old basic", encrypt(&legacy, "{\"a\":2}"));
            let dump = change(
                dump,
                "First key",
                format!("4TECynFVfwp6unXP:{}", encrypt(&legacy, "{}")),
            );
            change(dump, "Second key", encrypt(&legacy, "[]"))
        });
        assert_ends(&outcome, 0, ALL);
    }

    // A user's second factor.
    let mfa = |key: &'static str| {
        move |dump: String| {
            let dump = field(&dump, "\towner@example.com\tO\t", 11, |_| {
                encrypt(key, "JBSWY3DPEHPK3PXP")
            });
            field(&dump, "\towner@example.com\tO\t", 12, |_| {
                [encrypt(key, "code-1"), encrypt(key, "code-2")].join(",")
            })
        }
    };
    let outcome = point.test(KEY, mfa(KEY));
    assert_ends(
        &outcome,
        0,
        "It also decrypts 3 signing keys and 3 secrets and recovery codes of users",
    );
    let outcome = point.test(KEY, mfa("other"));
    assert_ends(
        &outcome,
        1,
        "a secret or recovery code of user 12cf54af-4a6e-44cf-b860-38bfbaf224fe",
    );
    point.test(KEY, |dump| dump).assert_success();
}

/// What only an opener finds that checks tags.
pub fn prove_tags(point: &Point<'_>) {
    let outcome = point.test(KEY, |dump| {
        field(&dump, "Second key", 1, |data| flipped(data, data.len() - 12))
    });
    assert_ends(&outcome, 1, "\"Second key\", httpBearerAuth");
}
