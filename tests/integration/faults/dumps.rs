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

/// A dump is a program; what it must not reach is refused before anything is loaded.
#[test]
fn what_acts_outside_of_the_database_is_refused() {
    let sandbox = Sandbox::new("outside").postgres().seeded().build();
    let dump = dump_of(&sandbox);
    let before = sandbox.fingerprint_postgres();
    let databases = sandbox.databases();
    for statement in [
        "COPY settings FROM PROGRAM 'touch /tmp/planted; echo';",
        "COPY settings TO PROGRAM 'touch /tmp/planted';",
        "COPY settings FROM '/etc/passwd';",
        "DROP DATABASE IF EXISTS n8n WITH (FORCE); SELECT 1/0;",
        "drop -- x\n database n8n;",
        "ALTER DATABASE n8n RENAME TO gone;",
        "ALTER SYSTEM SET archive_command = 'touch /tmp/planted';",
        "CREATE ROLE intruder SUPERUSER LOGIN;",
        "REASSIGN OWNED BY n8n TO intruder;",
    ] {
        case(statement, || {
            let path = edited(&sandbox, &dump, "outside.sql.gz", |text| before_end(&text, statement));
            restore(&sandbox, &path)
                .assert_error("The dump holds a statement that acts outside of its database (line {}): {}");
        });
    }
    assert_eq!(sandbox.databases(), databases);
    assert_same(&before, &sandbox.fingerprint_postgres());
    let planted = [
        "exec",
        &sandbox.container("postgres"),
        "sh",
        "-c",
        "ls /tmp/planted 2>/dev/null || true",
    ];
    assert_eq!(sandbox.docker(&planted).trim(), "");
}

/// A dump's functions run with the rights of whoever loads it; of a stranger's dump, that is a role that may do nothing else.
#[test]
fn what_a_strangers_dump_does_in_the_dark_is_refused_by_the_server() {
    let sandbox = Sandbox::new("stranger").postgres().seeded().build();
    // What only a superuser can make, and a name that no line of pg_dump holds whole.
    sandbox.psql("DROP EVENT TRIGGER zz_ignore; DROP PUBLICATION n8n_changes; DO $x$ DECLARE t regclass; BEGIN FOR t IN SELECT oid FROM pg_class WHERE relname ~ E'\\n' AND relkind = 'r' LOOP EXECUTE 'DROP TABLE ' || t; END LOOP; END $x$");
    let dump = dump_of(&sandbox);
    sandbox.psql("CREATE ROLE \"n8n app\" LOGIN; ALTER TABLE settings OWNER TO \"n8n app\"; CREATE ROLE reader; GRANT SELECT ON settings TO reader");
    let roles = "SELECT string_agg(rolname || rolsuper || rolcanlogin, ',' ORDER BY rolname) FROM pg_roles";
    let server = || (sandbox.psql(roles), sandbox.databases(), sandbox.fingerprint_postgres());
    let before = server();
    let hidden = |statement: &str| {
        format!(
            "DO $x$ BEGIN EXECUTE convert_from('\\x{}', 'UTF8'); END $x$;",
            hex(statement)
        )
    };
    let statements = [
        hidden("COPY settings TO PROGRAM 'touch /tmp/planted'"),
        hidden("COPY settings TO '/tmp/planted'"),
        hidden("CREATE ROLE intruder SUPERUSER LOGIN"),
        hidden("ALTER ROLE n8n PASSWORD 'x'"),
        hidden("ALTER DATABASE n8n RENAME TO gone"),
        hidden("ALTER DATABASE n8n SET search_path = evil"),
        hidden("SET SESSION AUTHORIZATION n8n"),
        hidden("SET ROLE n8n"),
        hidden("CREATE TABLE public.taken AS SELECT pg_read_file('/etc/passwd') AS line"),
        hidden("CREATE EXTENSION file_fdw SCHEMA public"),
        "SELECT lo_export(lo_from_bytea(0, 'x'), '/tmp/planted');".to_owned(),
        "RESET SESSION AUTHORIZATION; SET ROLE \"n8n\";".to_owned(),
        "CREATE FUNCTION public.f(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $x$ BEGIN RETURN pg_read_file('/etc/passwd'); END $x$; \
         CREATE INDEX evil ON public.settings (public.f(key));"
            .to_owned(),
    ];
    for statement in statements.into_iter().step_by(few_or_many(3, 1)) {
        case(&statement, || {
            let path = edited(&sandbox, &dump, "dark.sql.gz", |text| before_end(&text, &statement));
            let outcome = stranger(&sandbox, &path);
            outcome.assert_error("Database restore failed");
            assert!(outcome.log.contains("The dump is of unknown origin"), "{outcome}");
            assert!(
                outcome.log.contains("permission denied") || outcome.log.contains("must be"),
                "{outcome}"
            );
            assert_eq!(server(), before, "{outcome}");
            let planted = [
                "exec",
                &sandbox.container("postgres"),
                "sh",
                "-c",
                "ls /tmp/planted 2>/dev/null || true",
            ];
            assert_eq!(sandbox.docker(&planted).trim(), "");
        });
    }
    let owners = "SELECT string_agg(DISTINCT pg_get_userbyid(relowner), ',') FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace \
                  WHERE nspname = 'public' AND relkind IN ('r', 'S', 'v', 'i')";
    case("an honest one is loaded, and belongs to the role of n8n", || {
        sandbox.psql("ALTER TABLE workflow_entity OWNER TO \"n8n app\"");
        let path = edited(&sandbox, &dump, "honest.sql.gz", |text| {
            before_end(&text, "CREATE FUNCTION public.mine() RETURNS int LANGUAGE sql AS 'SELECT 1';\nALTER FUNCTION public.mine() OWNER TO nobody_here;")
        });
        let outcome = stranger(&sandbox, &path);
        outcome.assert_success();
        assert_eq!(sandbox.psql(owners).trim(), "n8n app");
        assert_eq!(sandbox.psql(roles), before.0);
        let rows = |print: &str| {
            print
                .lines()
                .filter(|line| line.starts_with("rows|"))
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert_eq!(rows(&before.2), rows(&sandbox.fingerprint_postgres()));
        assert!(!rows(&before.2).is_empty());
        assert_eq!(sandbox.psql("SELECT mine()").trim(), "1");
    });
    case(
        "a trigger of it does not run with more when workflows are made inactive",
        || {
            let trigger = format!(
            "CREATE FUNCTION public.t() RETURNS trigger LANGUAGE plpgsql AS $x$ BEGIN EXECUTE convert_from('\\x{}', 'UTF8'); RETURN NEW; END $x$;\n\
             CREATE TRIGGER t BEFORE UPDATE ON public.workflow_entity FOR EACH ROW EXECUTE FUNCTION public.t();",
            hex("ALTER ROLE n8n PASSWORD 'x'")
        );
            let path = edited(&sandbox, &dump, "trigger.sql.gz", |text| {
                before_end(
                    &text,
                    &format!("UPDATE public.workflow_entity SET active = true;\n{trigger}"),
                )
            });
            let outcome = sandbox.run("restore-postgres", &["--yes", "--deactivate", path.to_str().unwrap()]);
            outcome.assert_error("Database restore failed");
            assert_eq!(sandbox.psql("SELECT mine()").trim(), "1");
            assert_eq!(sandbox.psql(roles), before.0);
        },
    );
    case("in place, it is not loaded at all", || {
        let path = edited(&sandbox, &dump, "inplace.sql.gz", |text| text);
        sandbox
            .run("restore-postgres", &["--yes", "--in-place", path.to_str().unwrap()])
            .assert_error("The dump is of unknown origin, so it is loaded with few rights, {}");
    });
    assert_eq!(staged_databases(&sandbox), Vec::<String>::new());
}

/// Restores a file of which nobody says where it is from.
fn stranger(sandbox: &Sandbox, file: &Path) -> Outcome {
    sandbox.call("restore-postgres").arg(file).run()
}

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

/// Where psql cannot be restricted, a file is ours, or somebody vouches for it.
#[test]
fn a_dump_of_unknown_origin_needs_a_psql_that_can_be_restricted() {
    let sandbox = Sandbox::new("origin").postgres().seeded().build();
    let dump = dump_of(&sandbox);
    let before = sandbox.fingerprint_postgres();
    let foreign = edited(&sandbox, &dump, "foreign.sql.gz", |text| text);
    let container = sandbox.container("postgres");
    // The real one, but for its version.
    let old = r#"real=$(command -v psql); mv "$real" "$real.real"
printf '#!/bin/sh\n%s.real "$@" | sed "s/^15[.][0-9][0-9]*\\( .*\\)*$/15.10/"\n' "$real" >"$real"
chmod 755 "$real""#;
    sandbox.docker(&["exec", "-u", "0", &container, "sh", "-c", old]);
    case("a foreign file and an old psql", || {
        stranger(&sandbox, &foreign).assert_error("The dump is of unknown origin: {}");
    });
    case("with --trust-dump", || {
        let path = foreign.to_str().unwrap();
        sandbox
            .run("restore-postgres", &["--yes", "--trust-dump", path])
            .assert_success();
        assert_same(&before, &sandbox.fingerprint_postgres());
    });
    sandbox.run("backup-postgres", &[]).assert_success();
    let own = sandbox.backup("postgres");
    case("a copy of a file that a recovery point records", || {
        let copy = sandbox.aside("copy.sql.gz");
        std::fs::copy(&own, &copy).unwrap();
        stranger(&sandbox, &copy).assert_success();
    });
    let sets = sandbox.path("backups/sets");
    std::fs::rename(&sets, sandbox.path("backups/sets.away")).unwrap();
    case("a file of backups/postgres that nobody else can write", || {
        stranger(&sandbox, &own).assert_success();
    });
    case("the same, once others can", || {
        std::fs::set_permissions(&own, std::os::unix::fs::PermissionsExt::from_mode(0o622)).unwrap();
        stranger(&sandbox, &own).assert_error("The dump is of unknown origin: {}");
    });
    assert_same(&before, &sandbox.fingerprint_postgres());
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

/// What a function of the dump runs on the server is not seen beforehand; that the live database is gone is said.
#[test]
fn a_live_database_that_a_dump_has_dropped_is_told() {
    let sandbox = Sandbox::new("dumpdrop").postgres().seeded().build();
    let dump = dump_of(&sandbox);
    let before = sandbox.fingerprint_postgres();
    let database = sandbox.psql("SELECT current_database()").trim().to_owned();
    let user = sandbox.psql("SELECT current_user").trim().to_owned();
    case(
        "a dump that drops the live database in a DO block and fails then",
        || {
            // In the background: a server drops no database while one of its sessions waits for a program.
            let drop = format!(
                "CREATE TABLE public.out(line text); DO $x$ BEGIN EXECUTE $y$COPY public.out FROM PROGRAM \
             'dropdb --force -U \"{user}\" \"{database}\" >/dev/null 2>&1 &'$y$; END $x$; \
             SELECT pg_sleep(5); SELECT 1/0;"
            );
            let bad = edited(&sandbox, &dump, "drops.sql.gz", |text| before_end(&text, &drop));
            // In the directory of our own dumps it is loaded as one of them.
            let bad_name = sandbox.path("backups/postgres/n8n_20200101_000000.sql.gz");
            fs::copy(&bad, &bad_name).unwrap();
            let outcome = sandbox
                .call("restore-postgres")
                .arg("--trust-dump")
                .arg(&bad_name)
                .run();
            assert_eq!(outcome.code, Some(1), "{outcome}");
            outcome.assert_log_has(
                "restore-postgres",
                "ERROR The live database {} is gone: the dump has dropped it",
            );
            outcome.assert_log_has(
                "restore-postgres",
                "ERROR Hint: stop n8n and restore a good recovery point at once: {}",
            );
            outcome.assert_log_has("restore-postgres", "ERROR Database restore failed");
            fs::remove_file(&bad_name).unwrap();
            sandbox
                .call("restore-postgres")
                .arg("--trust-dump")
                .arg(&dump)
                .run()
                .assert_success();
            assert_same(&before, &sandbox.fingerprint_postgres());
        },
    );
    case("a dump that fails and leaves the live database", || {
        let bad = edited(&sandbox, &dump, "fails.sql.gz", |text| before_end(&text, "SELECT 1/0;"));
        let outcome = sandbox.call("restore-postgres").arg("--trust-dump").arg(&bad).run();
        outcome.assert_error("Database restore failed");
        assert!(!outcome.stdout.contains("is gone"), "{outcome}");
        assert_same(&before, &sandbox.fingerprint_postgres());
    });
}
