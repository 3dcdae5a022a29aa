//! Dumps that are not plain sailing: cut, flipped, empty, foreign, newer, hostile.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::{before_end, case, dump_of, edited, few_or_many, pack, restore, staged_databases};
use crate::common::{assert_same, plain, Outcome, Sandbox};

const CORRUPT: &str = "Backup file is corrupted or not a valid gzip file";

/// Refused before anything happened: nothing was asked of the server, which is not even there.
#[track_caller]
fn assert_refused_offline(outcome: &Outcome) {
    outcome.assert_error(CORRUPT);
}

/// A file cut at any byte, or with one bit flipped, is refused, or holds the very same dump.
#[test]
fn a_cut_or_flipped_file_is_refused_before_anything_happens() {
    let sandbox = Sandbox::new("cut").postgres().seeded().build();
    // Small enough to be cut at many places, with all that a seed has.
    let stored = dump_of(&sandbox);
    let whole = fs::read(plain(&sandbox, &stored)).unwrap();
    let plain = {
        let path = sandbox.aside("whole.gz");
        fs::write(&path, &whole).unwrap();
        unpacked(&path)
    };
    // From here on there is no server to be harmed.
    sandbox.set("BACKUP_POSTGRES_CONTAINER", &format!("{}-none", sandbox.prefix()));
    let file = sandbox.aside("cut.sql.gz");
    let cuts = few_or_many(6, 120);
    for n in 0..cuts {
        let length = whole.len() * n / cuts;
        case(&format!("the packed file cut after {n}/{cuts}"), || {
            fs::write(&file, &whole[..length]).unwrap();
            assert_refused_offline(&restore(&sandbox, &file));
        });
    }
    for length in [whole.len() - 1, whole.len() - 4, whole.len() - 8] {
        case(
            &format!("the packed file without its last {} bytes", whole.len() - length),
            || {
                fs::write(&file, &whole[..length]).unwrap();
                assert_refused_offline(&restore(&sandbox, &file));
            },
        );
    }
    if stored.extension().is_some_and(|end| end == "gpg") {
        let whole = fs::read(&stored).unwrap();
        let file = sandbox.aside("cut.sql.gz.gpg");
        let refused = |bytes: &[u8]| {
            fs::write(&file, bytes).unwrap();
            let outcome = restore(&sandbox, &file);
            assert_eq!(outcome.code, Some(1), "{outcome}");
            assert!(!outcome.log.contains("is not running"), "{outcome}");
        };
        for n in 0..cuts {
            case(&format!("the encrypted file cut after {n}/{cuts}"), || {
                refused(&whole[..whole.len() * n / cuts]);
            });
            case(
                &format!("bit {} of the encrypted file flipped at {n}/{cuts}", n % 8),
                || {
                    let mut bytes = whole.clone();
                    bytes[whole.len() * n / cuts] ^= 1 << (n % 8);
                    refused(&bytes);
                },
            );
        }
    }
    // What is cut before it is packed unpacks without a fault: only its end tells.
    let end = plain.len() - 60;
    for n in 0..cuts {
        let length = end * n / cuts;
        case(&format!("the dump cut after {n}/{cuts} and packed"), || {
            let path = pack(&sandbox, "cutplain.sql.gz", &plain[..length]);
            assert_refused_offline(&restore(&sandbox, &path));
        });
    }
    case("the dump cut at a member's end", || {
        let half = plain.len() / 2;
        let first = fs::read(pack(&sandbox, "first.sql.gz", &plain[..half])).unwrap();
        fs::write(&file, &first).unwrap();
        assert_refused_offline(&restore(&sandbox, &file));
        // Both members are the whole dump: it goes as far as the server that is not there.
        let second = fs::read(pack(&sandbox, "second.sql.gz", &plain[half..])).unwrap();
        fs::write(&file, [first, second].concat()).unwrap();
        restore(&sandbox, &file).assert_error("Container {} is not running");
    });
    case("the dump cut inside COPY data", || {
        let text = String::from_utf8_lossy(&plain);
        let copy = text.find("FROM stdin;\n").unwrap();
        for length in [copy + 12, copy + 13, copy + 40] {
            let path = pack(&sandbox, "copy.sql.gz", &plain[..length]);
            assert_refused_offline(&restore(&sandbox, &path));
        }
    });
    let flips = few_or_many(6, 100);
    for n in 0..flips {
        let at = whole.len() * n / flips;
        case(&format!("bit {} flipped at {n}/{flips}", n % 8), || {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (n % 8);
            fs::write(&file, &bytes).unwrap();
            let outcome = restore(&sandbox, &file);
            if outcome.errors() != [CORRUPT] {
                // A bit of the header that means nothing.
                outcome.assert_error("Container {} is not running");
                assert!(unpacked(&file) == plain, "the contents have changed");
            }
        });
    }
    for (what, bytes) in [
        ("an empty file", Vec::new()),
        ("a file that is no gzip", b"-- PostgreSQL database dump\n".to_vec()),
        ("zeroes", vec![0; 4096]),
    ] {
        case(what, || {
            fs::write(&file, bytes).unwrap();
            assert_refused_offline(&restore(&sandbox, &file));
        });
    }
    case("a whole dump with text behind its last member", || {
        fs::write(&file, [whole.clone(), b"DROP DATABASE n8n;\n".to_vec()].concat()).unwrap();
        let outcome = restore(&sandbox, &file);
        // Some programs take it, none unpacks it.
        if outcome.errors() != [CORRUPT] {
            outcome.assert_error("Container {} is not running");
            assert!(unpacked(&file) == plain, "the contents have changed");
        }
    });
    for (what, text) in [
        ("nothing, packed", ""),
        ("garbage, packed", "\u{1}\u{2}garbage\n"),
        ("SQL that is no dump, packed", "DROP TABLE workflow_entity;\n"),
        (
            "the last line alone, packed",
            "--\n-- PostgreSQL database dump complete\n--\n",
        ),
    ] {
        case(what, || {
            let path = pack(&sandbox, "garbage.sql.gz", text);
            assert_refused_offline(&restore(&sandbox, &path));
        });
    }
}

fn unpacked(path: &Path) -> Vec<u8> {
    let mut gzip = Command::new("gzip");
    gzip.arg("-dc").arg(path);
    crate::common::output(gzip).stdout
}

/// What psql would run on the client's side is not run; what looks like it in data is data.
#[test]
fn no_command_of_psql_is_run() {
    let sandbox = Sandbox::new("meta").postgres().seeded().build();
    let dump = dump_of(&sandbox);
    let before = sandbox.fingerprint_postgres();
    let container = sandbox.container("postgres");
    let absent = || {
        let there = sandbox.docker(&["exec", &container, "sh", "-c", "ls /tmp/planted 2>/dev/null || true"]);
        assert_eq!(there.trim(), "", "the command was run");
    };
    for (what, statement) in [
        ("at the start of a line", "\\! touch /tmp/planted"),
        ("in the middle of a line", "SELECT 1 \\! touch /tmp/planted\n;"),
        ("after a statement", "SELECT 1; \\! touch /tmp/planted"),
        ("as \\g to a program", "SELECT 1 \\g |touch /tmp/planted"),
        (
            "as \\copy to a program",
            "\\copy settings to program 'touch /tmp/planted'",
        ),
        ("as \\o", "\\o /tmp/planted"),
        ("as \\gexec", "SELECT 'DROP TABLE settings' \\gexec"),
        ("behind a false \\restrict", "\\restrict x y\n\\! touch /tmp/planted"),
        ("as backquotes", "\\set x `touch /tmp/planted`"),
    ] {
        case(&format!("a command of psql {what}"), || {
            let path = edited(&sandbox, &dump, "planted.sql.gz", |text| before_end(&text, statement));
            let outcome = restore(&sandbox, &path);
            if outcome.errors() != [CORRUPT] {
                outcome.assert_error("The dump holds a psql command that pg_dump does not write {}");
            }
            absent();
        });
    }
    assert_same(&before, &sandbox.fingerprint_postgres());
    case("the same text where it is data", || {
        let body = "CREATE FUNCTION public.harmless() RETURNS text LANGUAGE sql AS $body$\n\\! touch /tmp/planted\nSELECT 'x'::text\n$body$;".replace("\\!", "-- \\!");
        let text = "CREATE TABLE public.harmless (line text);\nCOPY public.harmless (line) FROM stdin;\n\\\\! touch /tmp/planted\nx\n\\.\n";
        let quoted = "CREATE TABLE public.quoted AS SELECT '\n\\! touch /tmp/planted\n' AS line;";
        let path = edited(&sandbox, &dump, "harmless.sql.gz", |dump| {
            before_end(&dump, &format!("{body}\n{text}\n{quoted}"))
        });
        restore(&sandbox, &path).assert_success();
        absent();
        assert_eq!(
            sandbox
                .psql("SELECT count(*) FROM (TABLE harmless UNION ALL TABLE quoted) x WHERE line LIKE '%touch%'")
                .trim(),
            "2"
        );
    });
}

/// Made by newer programs: loaded where that is right.
#[test]
fn a_dump_of_a_newer_pg_dump_is_loaded() {
    let sandbox = Sandbox::new("newer").postgres().seeded().build();
    let dump = dump_of(&sandbox);
    let before = sandbox.fingerprint_postgres();
    case("SET transaction_timeout, which this server does not know", || {
        let path = edited(&sandbox, &dump, "newer.sql.gz", |text| {
            let changed = text.replacen(
                "SET lock_timeout = 0;\n",
                "SET lock_timeout = 0;\nSET transaction_timeout = 0;\n",
                1,
            );
            assert_ne!(changed, text);
            changed
        });
        restore(&sandbox, &path).assert_success();
        assert_same(&before, &sandbox.fingerprint_postgres());
    });
    case("\\restrict lines", || {
        let path = edited(&sandbox, &dump, "restrict.sql.gz", |text| {
            if text.contains("\n\\restrict ") {
                return text;
            }
            let head = text.find("-- Dumped from").unwrap();
            format!(
                "{}\\restrict abcDEF123\n\n{}\n\\unrestrict abcDEF123\n\n",
                &text[..head],
                &text[head..]
            )
        });
        restore(&sandbox, &path).assert_success();
        assert_same(&before, &sandbox.fingerprint_postgres());
    });
    case("no \\restrict lines, as older programs write", || {
        let path = edited(&sandbox, &dump, "plain.sql.gz", |text| {
            let line =
                |text: &str, word: &str| text.lines().find_map(|line| line.strip_prefix(word).map(str::to_owned));
            match line(&text, "\\restrict ") {
                Some(token) => text
                    .replace(&format!("\n\\restrict {token}\n"), "\n")
                    .replace(&format!("\n\\unrestrict {token}\n"), "\n"),
                None => text,
            }
        });
        restore(&sandbox, &path).assert_success();
        assert_same(&before, &sandbox.fingerprint_postgres());
    });
    case("many members", || {
        let plain = unpacked(&plain(&sandbox, &dump));
        let mut packed = Vec::new();
        for part in plain.chunks(plain.len() / 40) {
            packed.extend(fs::read(pack(&sandbox, "part.gz", part)).unwrap());
        }
        let path = sandbox.aside("members.sql.gz");
        fs::write(&path, packed).unwrap();
        restore(&sandbox, &path).assert_success();
        assert_same(&before, &sandbox.fingerprint_postgres());
    });
    case("a setting that no server knows", || {
        let path = edited(&sandbox, &dump, "future.sql.gz", |text| {
            text.replacen(
                "SET lock_timeout = 0;\n",
                "SET lock_timeout = 0;\nSET setting_of_the_future = 0;\n",
                1,
            )
        });
        let outcome = restore(&sandbox, &path);
        outcome.assert_error("Database restore failed");
        assert!(outcome.log.contains("setting_of_the_future"), "{outcome}");
        assert_same(&before, &sandbox.fingerprint_postgres());
        assert_eq!(staged_databases(&sandbox), Vec::<String>::new());
    });
}

/// Made by other tools, or with options of pg_dump that a restore by staging cannot take: refused, saying why.
#[test]
fn a_dump_that_makes_its_own_database_is_refused() {
    let sandbox = Sandbox::new("other").postgres().seeded().build();
    let before = sandbox.fingerprint_postgres();
    for (what, program, expected) in [
        (
            "pg_dump --create",
            "pg_dump -C n8n",
            "The dump creates or connects to a database by itself (pg_dump --create)",
        ),
        ("pg_dumpall", "pg_dumpall", CORRUPT),
        (
            "pg_dump --clean",
            "pg_dump -c n8n",
            "The dump drops what is not there in a fresh database (line {}; pg_dump --clean without --if-exists)",
        ),
        (
            "pg_dump --schema-only",
            "pg_dump -s n8n",
            "The dump holds tables and no rows (pg_dump --schema-only)",
        ),
        ("pg_dump --format=custom", "pg_dump -Fc n8n", CORRUPT),
    ] {
        case(what, || {
            let container = sandbox.container("postgres");
            let mut made = Command::new("docker");
            made.args(["exec", &container, "sh", "-c", &format!("{program} -U n8n")]);
            let path = pack(&sandbox, "other.sql.gz", crate::common::output(made).stdout);
            let outcome = restore(&sandbox, &path);
            outcome.assert_error(expected);
            assert!(what != "pg_dumpall" || outcome.log.contains("this is a dump of a whole server (pg_dumpall)"));
            assert_same(&before, &sandbox.fingerprint_postgres());
        });
    }
}

/// What pg_dump writes with other options is restored as well.
#[test]
fn dumps_of_other_forms_are_loaded() {
    let sandbox = Sandbox::new("forms").postgres().seeded().build();
    let before = sandbox.fingerprint_postgres();
    for options in [
        "--clean --if-exists",
        "--inserts --rows-per-insert=10",
        "--no-owner --no-privileges",
    ] {
        case(&format!("pg_dump {options}"), || {
            let container = sandbox.container("postgres");
            let mut made = Command::new("docker");
            made.args(["exec", &container, "sh", "-c", &format!("pg_dump -U n8n {options} n8n")]);
            let path = pack(&sandbox, "form.sql.gz", crate::common::output(made).stdout);
            sandbox.psql("CREATE TABLE mark AS SELECT 1 AS n");
            restore(&sandbox, &path).assert_success();
            let now = sandbox.fingerprint_postgres();
            // Without owners and privileges, all belongs to the user that restores.
            if options.starts_with("--no-owner") {
                assert!(!now.contains("mark"));
                let rows = |text: &str| text.lines().filter(|line| line.starts_with("rows|")).count();
                assert!(rows(&now) > 10 && rows(&now) == rows(&before));
            } else {
                // An INSERT of pg_dump loses the sign of a zero, which this table holds.
                let kept = |text: &str| -> String {
                    let lines = text.lines();
                    let lines = lines
                        .filter(|line| !options.starts_with("--inserts") || !line.starts_with("rows|public.types|"));
                    lines.collect::<Vec<_>>().join("\n")
                };
                assert_same(&kept(&before), &kept(&now));
            }
        });
    }
}

/// Text in other encodings, names included, goes to the backup and comes back.
#[test]
fn other_encodings_come_back() {
    let sandbox = Sandbox::new("enc").postgres().build();
    for (encoding, locale) in [("LATIN1", "C"), ("SQL_ASCII", "C"), ("EUC_JP", "C")] {
        case(&format!("a database in {encoding}"), || {
            sandbox.psql_in("postgres", "DROP DATABASE n8n WITH (FORCE)");
            sandbox.psql_in(
                "postgres",
                &format!("CREATE DATABASE n8n TEMPLATE template0 ENCODING '{encoding}' LC_COLLATE '{locale}' LC_CTYPE '{locale}'"),
            );
            // Spelled in ASCII, which the server turns into its own encoding.
            let (table, value) = match encoding {
                "LATIN1" => (r#"U&"stra\00dfe""#, r"U&'\00e4\00f6'"),
                "EUC_JP" => (r#"U&"\65e5\672c""#, r"U&'\8a9e'"),
                _ => ("plain", r"E'\xff\xfe'"),
            };
            let client = if encoding == "SQL_ASCII" { encoding } else { "UTF8" };
            sandbox.psql(&format!(
                "SET client_encoding = '{client}'; CREATE TABLE {table} (id serial, t text); INSERT INTO {table} (t) VALUES ({value})"
            ));
            if encoding == "SQL_ASCII" {
                sandbox.psql(r#"DO $$ BEGIN EXECUTE E'CREATE TABLE "t\xe4" AS SELECT 1 AS n'; END $$"#);
            }
            // As bytes, which no conversion bends.
            let print = || {
                let names = sandbox.psql("SELECT encode(textsend(relname::text), 'hex') FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY 1");
                let values = format!("SELECT encode(textsend(t), 'hex') FROM {table} ORDER BY id");
                names + &sandbox.psql(&format!("SET client_encoding = '{client}'; {values}"))
            };
            let dump = dump_of(&sandbox);
            let before = print();
            if encoding == "SQL_ASCII" {
                sandbox.run("backup-postgres", &[]).assert_success();
                sandbox.run("test-recovery", &["--postgres", "latest"]).assert_success();
                super::clear_backups(&sandbox);
            }
            restore(&sandbox, &dump).assert_success();
            assert_same(&before, &print());
            let now = sandbox.psql("SELECT pg_encoding_to_char(encoding) FROM pg_database WHERE datname = 'n8n'");
            assert_eq!(now.trim(), encoding);
            fs::remove_file(dump).unwrap();
        });
    }
}
