//! What a drill finds out about the key and the dump.

use std::ffi::OsStr;
use std::fs;
use std::process::Command;

use super::{assert_ends, assert_says, edit, fact, forge, gunzip, gzip};
use crate::common::{has_program, sh, skip, Sandbox};

/// An archive of a volume with this `config`, or without one.
fn volume_archive(sandbox: &Sandbox, config: Option<&str>) -> Vec<u8> {
    let dir = sandbox.aside("volume");
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("other"), "x").unwrap();
    if let Some(config) = config {
        fs::write(dir.join("config"), config).unwrap();
    }
    let mut command = Command::new("tar");
    command.arg("-cz").arg("-C").arg(&dir).arg(".");
    crate::common::output(command).stdout
}

#[test]
fn the_key_proof_tells_right_from_wrong_and_from_unknown() {
    if !has_program("openssl") {
        skip("drill: the key proof", "openssl is missing");
        return;
    }
    // The table may have a prefix and stand in another schema.
    let sandbox = Sandbox::new("dkey").postgres().volume().build();
    let (right, wrong) = ("k\u{e4}y 'A'\\\"$x", "key B");
    // A copy beside it, and a credential that holds nothing, prove nothing.
    sandbox.psql(
        "CREATE SCHEMA n8n; CREATE TABLE n8n.my_credentials_entity (id text PRIMARY KEY, data text NOT NULL); \
         INSERT INTO n8n.my_credentials_entity VALUES ('empty', ''); CREATE TABLE n8n.my_workflow_entity (id text); \
         CREATE TABLE n8n.my_migrations (id int); CREATE TABLE n8n.old_credentials_entity (id text, data text); \
         INSERT INTO n8n.old_credentials_entity VALUES ('old', 'U2FsdGVkX18AAAA')",
    );
    // n8n takes the key's characters as bytes.
    let latin1 = sh(
        "printf %s \"$1\" | iconv -f UTF-8 -t ISO-8859-1 | base64 -w0",
        &[OsStr::new(right)],
    );
    let script = "{ printf %s \"$1\" | base64 -d; printf '\\n%s' \"$2\"; } | openssl enc -aes-256-cbc -md md5 -a -A -pass stdin 2>/dev/null";
    let rows: Vec<String> = (0..12)
        .map(|n| {
            let plain = format!("{{\"password\":\"secret {n}\"}}");
            let data = sh(script, &[OsStr::new(&latin1), OsStr::new(&plain)]);
            format!("('id{n}', '{data}')")
        })
        .collect();
    sandbox.psql(&format!(
        "INSERT INTO n8n.my_credentials_entity VALUES {}",
        rows.join(", ")
    ));
    // Redis is not there, so the run fails and the point is incomplete: enough for a test of the database.
    let outcome = sandbox.run("backup-all", &[]);
    assert_eq!(outcome.code, Some(1), "{outcome}");
    outcome.assert_log_has("backup-all", "WARN The recovery point holds no encryption key: {}");
    edit(&sandbox, |text| {
        text.replace("# postgres.bytes: ", "# not-postgres.bytes: ")
    });
    let (env, archive, dump) = (sandbox.backup("env"), sandbox.backup("n8n"), sandbox.backup("postgres"));

    let test = |env_key: Option<&str>, config: Option<&str>| {
        let line = env_key.map_or_else(String::new, |key| crate::common::env_line("N8N_ENCRYPTION_KEY", key));
        forge(&sandbox, &env, format!("A=1\n{line}\n").as_bytes());
        forge(&sandbox, &archive, &volume_archive(&sandbox, config));
        sandbox.run("test-recovery", &["--postgres"])
    };
    let json = |key: &str| {
        format!(
            "{{\n\t\"encryptionKey\": \"{}\"\n}}",
            key.replace('\\', "\\\\").replace('"', "\\\"")
        )
    };
    let all = "Decrypted 12 of 12 credentials with the backed-up key";

    let outcome = test(Some(right), None);
    assert_ends(&outcome, 0, all);
    outcome.assert_never_says("secret");
    assert_eq!(fact(&sandbox, "drill.key").as_deref(), Some("decrypted 12 of 12"));
    let outcome = test(None, Some(&json(right)));
    assert_ends(&outcome, 0, all);
    let outcome = test(Some(wrong), None);
    assert_ends(
        &outcome,
        1,
        "Decrypted 0 of 12 credentials with the backed-up key; 12 cannot be decrypted: ID id0, ID id1",
    );
    outcome.assert_never_says(wrong);
    assert!(fact(&sandbox, "drill").unwrap().ends_with(": key"));
    let outcome = test(Some(right), Some(&json(wrong)));
    assert_ends(&outcome, 1, "differ: n8n does not start");
    outcome.assert_never_says(wrong);
    let outcome = test(None, None);
    assert_ends(
        &outcome,
        1,
        "the recovery point holds no encryption key, and its database holds 12 credentials",
    );

    // One that is damaged and one of a form that is not known; then only such.
    let text = String::from_utf8(gunzip(&dump)).unwrap();
    let row = |id: &str| text.lines().find(|line| line.starts_with(id)).unwrap().to_owned();
    let mut bytes = row("id3\t").into_bytes();
    let last = bytes.len() - 6;
    bytes[last] = if bytes[last] == b'A' { b'B' } else { b'A' };
    let damaged = text
        .replace(&row("id3\t"), &String::from_utf8(bytes).unwrap())
        .replace(&row("id5\t"), "id5\tn8n:v2:AAAA");
    forge(&sandbox, &dump, &gzip(&sandbox, damaged.as_bytes()));
    let outcome = test(Some(right), Some(&json(right)));
    assert_ends(
        &outcome,
        1,
        "Decrypted 10 of 12 credentials with the backed-up key; 1 cannot be decrypted: ID id3",
    );
    let unknown: String = text
        .lines()
        .map(|line| match line.split_once('\t') {
            Some((id, _)) if line.starts_with("id") => format!("{id}\t{{\"iv\":\"x\"}}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    forge(&sandbox, &dump, &gzip(&sandbox, unknown.as_bytes()));
    let before = fact(&sandbox, "drill");
    let outcome = test(None, Some(&json(right)));
    // Nothing was opened, so nothing is proven, and no mark says so.
    assert_eq!(outcome.code, Some(2), "{outcome}");
    assert!(
        outcome
            .stdout
            .contains("12 are stored in a form that is not known here, and were not checked"),
        "{outcome}"
    );
    assert_eq!(fact(&sandbox, "drill"), before);
}

#[test]
fn a_dump_that_is_not_what_it_should_be_fails() {
    let sandbox = Sandbox::new("ddump").postgres().build();
    sandbox.psql("CREATE TABLE things (id serial PRIMARY KEY); INSERT INTO things SELECT FROM generate_series(1, 50)");
    sandbox.psql("CREATE ROLE somebody; ALTER TABLE things OWNER TO somebody");
    sandbox.run("backup-postgres", &[]).assert_success();
    let dump = sandbox.backup("postgres");
    let whole = fs::read(&dump).unwrap();
    // The point holds neither .env nor the volume. The role of the dump is not there in a fresh server.
    let outcome = sandbox.run("test-recovery", &["--postgres"]);
    outcome.assert_success();
    assert_says(
        &outcome,
        "SUCCESS PostgreSQL: 1 tables, 50 rows, 1 sequences recovered in {}",
    );

    let text = String::from_utf8(gunzip(&dump)).unwrap();
    edit(&sandbox, |text| {
        text.replace("# postgres.bytes: ", "# not-postgres.bytes: ")
    });
    let check = |text: &str, reason: &str| {
        forge(&sandbox, &dump, &gzip(&sandbox, text.as_bytes()));
        let outcome = sandbox.run("test-recovery", &["--postgres"]);
        assert_ends(&outcome, 1, reason);
        assert!(outcome.stdout.contains("PostgreSQL test failed"), "{outcome}");
    };
    check(&text[..text.len() / 2], "the dump is cut off");
    check(&text.replace("\n50\n", "\n"), "rows.public.things is 49 instead of 50");
    check(
        &text.replace("setval('public.things_id_seq', 50", "setval('public.things_id_seq', 49"),
        "sequence.public.things_id_seq is 49 used instead of 50 used",
    );
    // It says what the manifest says, and does not load.
    check(
        &text.replace("CREATE TABLE public.things", "SELECT 1/0;\nCREATE TABLE public.things"),
        "division by zero",
    );
    // It loads, and what is there then is not what it says.
    check(
        &text.replace(
            "COPY public.things",
            "CREATE RULE less AS ON INSERT TO public.things DO ALSO NOTHING;\nCREATE FUNCTION public.less() RETURNS trigger LANGUAGE plpgsql AS \
             'BEGIN RETURN NULL; END';\nCREATE TRIGGER less BEFORE INSERT ON public.things FOR EACH ROW EXECUTE FUNCTION \
             public.less();\nCOPY public.things",
        ),
        "table public.things has 0 rows instead of 50",
    );
    forge(&sandbox, &dump, &whole);
    edit(&sandbox, |text| {
        text.replace("rows.public.things: 50", "rows.public.things: 51")
    });
    let outcome = sandbox.run("test-recovery", &["--postgres"]);
    assert_ends(&outcome, 1, "rows.public.things is 50 instead of 51");
    edit(&sandbox, |text| {
        text.replace("rows.public.things: 51", "rows.public.others: 1")
    });
    let outcome = sandbox.run("test-recovery", &["--postgres"]);
    assert_ends(&outcome, 1, "rows.public.others is missing, recorded as 1");
    edit(&sandbox, |text| {
        text.replace("rows.public.others: 1", "rows.public.things: 50")
    });
    sandbox.run("test-recovery", &["--postgres"]).assert_success();
}
