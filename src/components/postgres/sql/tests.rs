use super::*;
use crate::formats::n8n::Place;

#[test]
fn answers_of_one_session_are_told_apart() {
    let both: [String; 2] = separated("a\nb\n=====\n").unwrap();
    assert_eq!(both, ["a\nb\n", ""]);
    assert_eq!(separated::<1>("").unwrap(), [""]);
    assert_eq!(separated::<3>("=====\n=====\nc\n").unwrap(), ["", "", "c\n"]);
    assert!(separated::<2>("a\n").is_err() && separated::<1>("=====\n").is_err());
}

#[test]
fn names_are_quoted_or_refused() {
    assert_eq!(ident("a\"b;--").unwrap(), "\"a\"\"b;--\"");
    assert!(ident(&"x".repeat(63)).is_ok());
    assert!(ident(&"x".repeat(64)).is_err());
    assert!(ident(&"\u{e4}".repeat(32)).is_err(), "64 bytes in UTF-8");
    assert!(ident("").is_err());
    assert!(ident("a\0b").is_err());
    assert_eq!(literal("it's").unwrap(), "'it''s'");
    assert_eq!(literal(r"\'").unwrap(), r" E'\\'''");
    assert!(literal("a\0b").is_err());
}

#[test]
fn connection_string_takes_hostile_names_as_they_are() {
    assert_eq!(
        conninfo("n8n", r"host=x '\", None, "t").unwrap(),
        r"user='n8n' dbname='host=x \'\\' application_name='t'"
    );
    assert!(conninfo("", "n8n", None, "t").is_err());
}

#[test]
fn maintenance_database_is_never_the_live_one() {
    for live in ["n8n", "postgres"] {
        let names = maintenance_databases(live).unwrap();
        assert!(!names.is_empty() && !names.contains(&live));
    }
    assert!(maintenance_databases("template1").is_err());
}

#[test]
fn application_names_differ_by_database_and_fit() {
    let long = application_name("restore", &"\u{e4}".repeat(31));
    assert!(long.len() <= MAX_NAME && long.is_ascii());
    assert_ne!(long, application_name("restore", "n8n"));
    // FNV-1a of the empty string is its offset basis.
    assert_eq!(application_name("t", ""), "n8n-backup t cbf29ce484222325");
}

#[test]
fn a_name_cannot_end_the_dollar_quotes_of_the_swap() {
    let script = swap("$swap$; DROP", "s", "o", Some(Mark::Kept)).unwrap();
    let body = script.split_once("DO $swap$").unwrap().1;
    assert_eq!(body.matches("$swap$").count(), 1, "only our own end");
    assert!(script.contains("'n8n-backup: kept \"$swap$; DROP\"'"));
}

#[test]
fn sweep_tells_names_apart_where_one_begins_like_the_other() {
    // `"a"` is a prefix of `"a""b"`: only equality or a line feed may follow.
    let list = sweep_list("n8n").unwrap();
    assert!(list.contains("('staged', 'n8n-backup: staged for \"n8n\"')"));
    assert!(list.contains(r"note = mark OR starts_with(note, mark || E'\n')"));
    assert!(list.contains("'^n8n_restore_[0-9]{8}_[0-9]{6}$'"));
}

#[test]
fn what_is_left_of_a_drop_has_a_size() {
    for script in [server("n8n").unwrap(), sweep_list("n8n").unwrap()] {
        let (before, _) = script.split_once("THEN pg_database_size(").unwrap();
        assert!(before.rsplit_once("coalesce(CASE WHEN ").is_some(), "{script}");
        assert!(!script.contains("ELSE 0"), "{script}");
    }
}

#[test]
fn what_is_left_of_a_drop_is_no_database() {
    for script in [
        server("n8n").unwrap(),
        exists("n8n").unwrap(),
        sweep_list("n8n").unwrap(),
        describe("n8n", "s").unwrap(),
    ] {
        assert!(script.contains("datconnlimit <> -2"), "{script}");
    }
    let script = swap("n8n", "s", "o", Some(Mark::Replaced)).unwrap();
    let dropped = script.find("datconnlimit = -2").unwrap();
    assert!(dropped < script.find("DO $swap$").unwrap());
}

#[test]
fn a_swap_that_is_to_replace_nothing_refuses_before_it_ends_a_session() {
    let script = swap("n8n", "s", "o", None).unwrap();
    assert!(script.contains("SET n8n_backup.old_mark = '';"), "{script}");
    let refused = script.find("ERRCODE = 'NB004'").unwrap();
    assert!(refused < script.find("pg_terminate_backend").unwrap(), "{script}");
}

#[test]
fn schemas_are_asked_for_by_the_functions_of_the_server() {
    let script = other_schemas("public").unwrap();
    assert!(script.starts_with(PRELUDE), "{script}");
    assert_eq!(other_schemas("").unwrap(), "SELECT '';\n");
}

#[test]
fn the_newest_of_the_migrations_has_the_greatest_number() {
    let read = |output: &str| parse_migrations(output).unwrap();
    assert_eq!(read(""), None);
    assert_eq!(read("migrations\n"), Some((0, "none".to_owned())));
    assert_eq!(
        read("migrations\n9\tOld\n10\tNew\n2\tFirst\n"),
        Some((3, "New".to_owned()))
    );
    assert!(parse_migrations("migrations\nx\tOld\n").is_err());
    assert!(parse_migrations("migrations\n9\n").is_err());
    let script = migrations(None).unwrap();
    assert!(script.contains("'COPY %s (id, name) TO STDOUT'"), "{script}");
}

#[test]
fn reads_the_server() {
    let server = parse_server("150018\tt\tt\tt\tf\t7471619\t1073741824\t2f64\n").unwrap();
    assert_eq!((server.version, server.size), (150_018, 7_471_619));
    assert_eq!(server.directory, "/d");
    assert!(server.may_restore());
    let other = "150018\tf\tt\tt\tf\t0\t0\t";
    let other = parse_server(other).unwrap();
    assert!(!other.may_restore());
    assert!(other
        .how_to_allow("app", "n8n")
        .unwrap()
        .contains("ALTER DATABASE \"n8n\" OWNER TO \"app\";"));
    assert!(parse_server("").is_err());
    assert!(parse_server("150018\tx\tt\tt\tf\t0\t0\t").is_err());
}

#[test]
fn reads_a_description_into_two_scripts() {
    let description = parse_describe("limits\t42\ncreate\t41\ncreate\t430a\nsettings\t44\n").unwrap();
    assert_eq!(description.create, ["A", "C\n"]);
    assert_eq!(description.limits, ["B"]);
    assert_eq!(description.settings, ["D"]);
    assert!(script(&description.create).ends_with(";\nA;\nC\n;\n"));
    assert!(parse_describe("").is_err(), "no database, no description");
    assert!(parse_describe("create 41").is_err());
}

#[test]
fn reads_counts_and_refuses_what_it_does_not_know() {
    let lines = "r\t70\t410942\t3\tf\ns\t70\t41\t-7\tt\np\t70\t41\t?\tf\n";
    let counts = parse_counts(lines).unwrap();
    assert_eq!(counts[0].kind, CountKind::Table);
    assert_eq!(counts[0].name, "A\tB");
    assert_eq!(counts[0].value, Some(3));
    assert_eq!((counts[1].value, counts[1].called), (Some(-7), true));
    assert_eq!(counts[2].value, None);
    for bad in [
        "",
        "r\t70\t41\t3",
        "z\t70\t41\t3\tf",
        "r\t7\t41\t3\tf",
        "r\t70\t41\tx\tf",
    ] {
        assert!(parse_counts(&format!("{bad}\n")).is_err(), "{bad:?}");
    }
}

#[test]
fn restrict_came_with_minor_releases() {
    for (version, known) in [
        ("psql (PostgreSQL) 15.20 (Debian 15.20-0+deb12u1)", true),
        ("psql (PostgreSQL) 15.13", false),
        ("psql (PostgreSQL) 16.10", true),
        ("psql (PostgreSQL) 16.9 (Debian 16.9-1.pgdg120+1)", false),
        ("psql (PostgreSQL) 12.22", false),
        ("psql (PostgreSQL) 17.6", true),
        ("psql (PostgreSQL) 18.0", true),
        ("psql (PostgreSQL) 18beta1", false),
        ("", false),
    ] {
        assert_eq!(knows_restrict(version), known, "{version}");
    }
}

#[test]
fn the_restriction_is_lifted_before_the_marker() {
    assert!(load_prelude(Some("T")).ends_with("\n\\restrict T\n"));
    assert!(!load_prelude(None).contains("restrict"));
    assert!(load_epilogue("m", Some("T"))
        .unwrap()
        .starts_with("\n\n\\unrestrict T\n\\echo\n"));
    assert!(!load_epilogue("m", None).unwrap().contains("restrict"));
}

#[test]
fn reads_names() {
    assert_eq!(parse_names("61\nc3a4\n").unwrap(), ["a", "\u{e4}"]);
    assert_eq!(
        parse_named("slot\t61\n").unwrap(),
        [("slot".to_owned(), "a".to_owned())]
    );
    assert!(parse_named("slot").is_err());
    let query = missing_roles(&["a'b".to_owned()]).unwrap();
    assert!(query.contains("'a''b'"));
}

#[test]
fn a_role_gets_what_a_restore_gives_it() {
    let app = Role::parse("a\"pp", "superuser owner create member:67");
    let names = [("g", ""), ("a\"pp", &app.rights())].map(|(name, rights)| Role::parse(name, rights));
    assert_eq!(names[1], app);
    let script = grant_rights(&names).unwrap();
    assert!(script.ends_with("ALTER ROLE \"a\"\"pp\" SUPERUSER;\nGRANT \"g\" TO \"a\"\"pp\";\n"));
    assert_eq!(
        let_log_in(&app).unwrap(),
        "ALTER ROLE \"a\"\"pp\" LOGIN SUPERUSER PASSWORD '...'; GRANT \"g\" TO \"a\"\"pp\""
    );
    assert_eq!(let_log_in(&names[0]).unwrap(), "ALTER ROLE \"g\" LOGIN PASSWORD '...'");
}

#[test]
fn what_a_role_lacks_is_granted_in_the_loaded_database_and_told_of_the_live_one() {
    let [before, grant, after] = let_migrate("a'pp", "public", "staged", "n8n").unwrap();
    assert_eq!(before, after);
    for (script, database, gives) in [(before, "'n8n'", false), (grant, "'staged'", true)] {
        assert!(script.contains("rolname::text = 'a''pp'"), "{script}");
        assert!(
            script.contains(&format!("ON DATABASE %I TO %I', {database},")),
            "{script}"
        );
        assert_eq!(script.contains("\\gexec"), gives);
    }
}

#[test]
fn only_tables_of_n8n_are_asked_for_and_under_their_own_names() {
    let place = Place {
        schema: "s'1".to_owned(),
        prefix: "p_".to_owned(),
    };
    let script = out_of_reach("a'pp", &place).unwrap();
    for part in [
        "rolname::text = 'a''pp'",
        "nspname = 's''1'",
        "'p_workflow_entity'",
        "'p_migrations'",
    ] {
        assert!(script.contains(part), "{part}: {script}");
    }
    assert!(!script.contains("'workflow_entity'"), "{script}");
}

#[test]
fn a_database_is_made_with_the_locale_of_another() {
    let made = |text: &str| Locale::parse(text).map(|locale| locale.create_database("x").unwrap());
    let libc = "CREATE DATABASE \"x\" TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'de_DE.utf8' LC_CTYPE 'C'";
    for (text, clause) in [
        ("UTF8 c de_DE.utf8 C", ""),
        (
            "UTF8 i de_DE.utf8 C de-x'y",
            " LOCALE_PROVIDER icu ICU_LOCALE 'de-x''y'",
        ),
        (
            "UTF8 b de_DE.utf8 C C.UTF-8",
            " LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8'",
        ),
    ] {
        let script = made(text).unwrap();
        assert!(script.ends_with(&format!("{libc}{clause};\n")), "{script}");
    }
    for text in ["", "UTF8", "UTF8 c a b c d"] {
        assert_eq!(made(text), None, "{text}");
    }
    let plain = |encoding| Locale::plain(encoding).create_database("x").unwrap();
    assert!(plain("UTF8").ends_with("ENCODING 'UTF8';\n"));
    assert!(plain("SQL_ASCII").ends_with("ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C';\n"));
}
