use super::copy::BLOCK;
use super::filter::MAX_LINE;
use super::lexer::MAX_TEXT;
use super::names::{MAX_OBJECTS, MAX_OTHERS};
use super::*;

const HEAD: &str = "--\n-- PostgreSQL database dump\n--\n\n\\restrict abc123XYZ\n\n\
    -- Dumped from database version 15.18 (Debian 15.18-0+deb12u1)\n-- Dumped by pg_dump version 17.2\n\n\
    SET statement_timeout = 0;\nSET transaction_timeout = 0;\nSET client_encoding = 'UTF8';\n\
    SET standard_conforming_strings = on;\nSELECT pg_catalog.set_config('search_path', '', false);\n\n";
const TAIL: &str = "\n--\n-- PostgreSQL database dump complete\n--\n\n\\unrestrict abc123XYZ\n\n";
const BODY: &str = r#"CREATE EXTENSION IF NOT EXISTS pg_trgm WITH SCHEMA public;
CREATE FUNCTION public.nasty() RETURNS void
LANGUAGE plpgsql
AS $_$ begin /* ' " $$
COPY public.fake FROM stdin;
\.
\! rm
SET transaction_timeout = 0;
--
-- PostgreSQL database dump complete
--
$x$; $_ $_x end $_$;
CREATE FUNCTION public.atomic(a integer) RETURNS integer
BEGIN ATOMIC
 SELECT 1; COPY public.fake FROM stdin;
 SELECT CASE WHEN (a > 1) THEN 2 ELSE 3 END;
END;
CREATE TABLE public.plain (
id integer DEFAULT nextval('public.plain_id_seq'::regclass),
"COPY x FROM stdin;" text DEFAULT E'\\! it\'s ''; \\'
);
ALTER TABLE public.plain OWNER TO "Odd Role";
CREATE UNLOGGED TABLE "My Schema"."Odd ""Name;" ();
CREATE TABLE public.part1 PARTITION OF public.part FOR VALUES IN (1);
CREATE FOREIGN TABLE public.ft (a integer) SERVER srv;
CREATE VIEW public.v AS
 SELECT '--'::text AS a, '/* ; */' b, 'C:\' c, 'COPY public.fake FROM stdin;
\.
' d, (1 OPERATOR(public.+/) 2) e, a$b$ FROM x;
CREATE RULE r AS ON INSERT TO public.plain DO ALSO (INSERT INTO x VALUES (1); COPY public.fake FROM stdin; );
COMMENT ON TABLE public.plain IS 'two
-- PostgreSQL database dump complete
lines';
SELECT pg_catalog.lo_create('16999');
ALTER DEFAULT PRIVILEGES FOR ROLE app IN SCHEMA s GRANT SELECT ON TABLES  TO reader;
GRANT SELECT(id),UPDATE(id) ON TABLE public.plain TO PUBLIC, writer WITH GRANT OPTION;
REVOKE ALL ON TABLE public.plain FROM gone;
CREATE POLICY p ON public.plain FOR SELECT TO polite, public USING ((id > 0));
SET default_tablespace = '';
COPY public.plain (id, "COPY x FROM stdin;") FROM stdin;
1	\\.
2	\N
\N	';$$ /* --
3	\\! rm
\\.	-- PostgreSQL database dump complete
\.x	COPY public.fake FROM stdin;
\.

copy "My Schema"."Odd ""Name;"  from STDIN;
\.

SELECT pg_catalog.setval('"My Schema"."it''s; ""seq"', 77, false);
SELECT pg_catalog.setval('public.neg', -6, true);
SET SESSION AUTHORIZATION 'owner';
"#;

fn sample() -> String {
    format!("{HEAD}{BODY}{TAIL}")
}

fn table(schema: &str, name: &str) -> TableName {
    TableName {
        schema: schema.to_owned(),
        name: name.to_owned(),
    }
}

fn try_scan(text: &str) -> Result<Summary> {
    let mut scanner = Scanner::new();
    scanner.feed(text.as_bytes())?;
    scanner.finish()
}

fn scan(text: &str) -> Summary {
    try_scan(text).unwrap()
}

fn is_complete(text: &str) -> bool {
    scan(text).incomplete.is_none()
}

fn strip() -> Strip {
    Strip {
        privileges: false,
        restrict: true,
        settings: vec!["transaction_timeout".to_owned()],
        ..Strip::default()
    }
}

/// What the filter writes for these chunks, and how it ends.
fn filter<'a>(strip: Strip, chunks: impl Iterator<Item = &'a [u8]>) -> (String, Result<Summary>) {
    let mut out = Vec::new();
    let mut filter = Filter::new(strip);
    for chunk in chunks {
        if let Err(error) = filter.feed(chunk, &mut out) {
            return (String::from_utf8(out).unwrap(), Err(error));
        }
    }
    let end = filter.finish(&mut out);
    (String::from_utf8(out).unwrap(), end)
}

fn filter_whole(strip: Strip, text: &str) -> (String, Result<Summary>) {
    filter(strip, std::iter::once(text.as_bytes()))
}

#[test]
fn whole_dump() {
    let summary = scan(&sample());
    assert_eq!(summary.incomplete, None);
    assert!(summary.is_dump && !summary.is_cluster_dump);
    assert!(!summary.creates_database && !summary.standard_conforming_strings_off);
    assert_eq!(
        summary.server_version.as_deref(),
        Some("15.18 (Debian 15.18-0+deb12u1)")
    );
    assert_eq!(summary.dump_version.as_deref(), Some("17.2"));
    assert_eq!((summary.command, summary.outside, summary.drops), (None, None, None));
    assert_eq!(summary.client_encoding.as_deref(), Some("utf8"));
    assert_eq!(
        summary.tables,
        [
            table("public", "plain"),
            table("My Schema", "Odd \"Name;"),
            table("public", "part1")
        ]
    );
    assert_eq!(
        summary.copies,
        [(table("public", "plain"), 6), (table("My Schema", "Odd \"Name;"), 0)]
    );
    assert_eq!(
        summary.sequences,
        [
            (table("My Schema", "it's; \"seq"), 77, false),
            (table("public", "neg"), -6, true)
        ]
    );
    let roles: Vec<&str> = summary.roles.iter().map(String::as_str).collect();
    assert_eq!(
        roles,
        ["Odd Role", "app", "gone", "owner", "polite", "reader", "writer"]
    );
    assert_eq!(summary.extensions, ["pg_trgm"]);
    assert_eq!(summary.event_triggers, [""; 0]);
    assert_eq!(summary.bytes, sample().len() as u64);
    assert_eq!(summary.lines, sample().lines().count() as u64);
}

#[test]
fn chunks_make_no_difference() {
    let text = sample();
    let bytes = text.as_bytes();
    let summary = scan(&text);
    let (passed, _) = filter_whole(strip(), &text);
    for cut in 0..=bytes.len() {
        let (head, tail) = bytes.split_at(cut);
        let (out, end) = filter(strip(), [head, tail].into_iter());
        assert_eq!(end.unwrap(), summary, "cut at {cut}");
        assert_eq!(out, passed, "cut at {cut}");
        let mut scanner = Scanner::new();
        scanner.feed(head).unwrap();
        scanner.feed(tail).unwrap();
        assert_eq!(scanner.finish().unwrap(), summary, "cut at {cut}");
    }
    for size in 1..400 {
        let (out, end) = filter(strip(), bytes.chunks(size));
        assert_eq!(end.unwrap(), summary, "chunks of {size}");
        assert_eq!(out, passed, "chunks of {size}");
    }
}

#[test]
fn every_cut_is_found() {
    for text in [
        sample(),
        sample()
            .replace("\n\\unrestrict abc123XYZ\n\n", "")
            .replace("\\restrict abc123XYZ\n", ""),
    ] {
        // What may be missing is white space and comments.
        let content = if text.contains("unrestrict") {
            text.rfind("XYZ").unwrap() + 3
        } else {
            text.rfind("complete").unwrap() + "complete\n".len()
        };
        for length in 0..content {
            let summary = scan(&text[..length]);
            assert!(summary.incomplete.is_some(), "cut to {length} bytes");
        }
        assert!(is_complete(&text[..content]));
        assert!(is_complete(&text));
    }
}

#[test]
fn reasons_name_the_place() {
    let why = |text: &str| scan(text).incomplete.unwrap();
    assert_eq!(why(""), "the dump is empty");
    assert_eq!(
        why("SELECT 1;\nCOPY public.t FROM stdin;\nsecret\n"),
        "the dump ends at line 4, byte 43, inside the COPY data of public.t that begin after line 2"
    );
    assert!(why("SELECT 'secret").ends_with("inside a quote"));
    assert!(why("SELECT 'secret'").ends_with("inside a statement"));
    assert!(why("DO $$ secret").ends_with("inside a quoted body"));
    assert!(why("SELECT 1;\n").contains("without the line"));
    let cut = sample().replace("\\unrestrict abc123XYZ", "\\unrestrict other");
    assert!(why(&cut).contains("\\unrestrict line"));
}

#[test]
fn trailer_must_be_the_end() {
    for more in ["SELECT 1;\n", "x", ";", "\\! x\n", "'", "COPY a FROM stdin;\n\\.\n"] {
        assert!(!is_complete(&format!("{}{more}", sample())), "{more}");
    }
    assert!(is_complete(&format!("{}-- more\n", sample())));
    assert!(!is_complete(&format!("{}{}\n", sample(), "\n".repeat(5000))));
    // Not the line itself.
    for line in [
        " -- PostgreSQL database dump complete",
        "-- PostgreSQL database dump complete.",
        "--PostgreSQL database dump complete",
        "-- PostgreSQL database cluster dump complete",
    ] {
        let text = format!("SELECT 1;\n{line}\n");
        assert!(!is_complete(&text), "{line}");
    }
    let late = format!("{}{}", "-- filling\n".repeat(500), sample());
    assert!(!scan(&late).is_dump && is_complete(&late));
}

#[test]
fn dumps_with_carriage_returns() {
    let text = sample().replace("\n", "\r\n");
    let summary = scan(&text);
    assert!(summary.incomplete.is_none() && summary.is_dump);
    assert_eq!(summary.copies[0].1, 6);
    let (out, end) = filter_whole(strip(), &text);
    assert!(end.is_ok() && !out.contains("restrict") && !out.contains("SET transaction_timeout = 0;\r\nSET"));
}

#[test]
fn kinds_of_dumps() {
    let cluster = "--\n-- PostgreSQL database cluster dump\n--\n\nCREATE ROLE app;\n\\connect template1\n\
        --\n-- PostgreSQL database dump\n--\n-- PostgreSQL database dump complete\n--\n\n\
        --\n-- PostgreSQL database cluster dump complete\n--\n\n";
    let summary = scan(cluster);
    assert!(summary.is_cluster_dump && !summary.is_dump && summary.creates_database);
    assert_eq!(summary.command, Some(6));
    let created = scan(&format!("{HEAD}CREATE DATABASE n8n WITH TEMPLATE = template0;\n{TAIL}"));
    assert!(created.creates_database && created.incomplete.is_none());
    let inserts = scan(&format!(
        "{HEAD}INSERT INTO public.t VALUES (1, 'a;\nINSERT INTO x');\n\
         INSERT INTO public.t VALUES (1e-07, NULL);\n{TAIL}"
    ));
    assert_eq!((inserts.inserts, inserts.incomplete), (2, None));
}

#[test]
fn commands_of_psql_are_found_wherever_they_stand() {
    for (text, line) in [
        ("\\! touch x\n", 1),
        ("\\!touch x\n", 1),
        ("SELECT 1 \\g /tmp/x\n", 1),
        ("SELECT 1\\gexec\n", 1),
        ("SELECT 'a'\\gset\n", 1),
        ("SELECT \"a\"\\gset\n", 1),
        ("SELECT $$a$$\\gset\n", 1),
        ("SELECT (1,\n2\\\\)", 2),
        ("-- x\r\\! x\n", 1),
        ("SELECT a$b$\n\\! x\n", 2),
        ("SELECT 'it''s \\' \\! x\n", 1),
        ("COPY x FROM stdin;\n1\n\\.\n\\! x\n", 4),
        ("COPY x TO stdout;\n\\! x\n", 2),
        ("COPY x FROM 'stdin';\n\\! x\n", 2),
        ("(COPY x FROM stdin;\n\\! x\n", 2),
        ("\\restrict a; \\! x\n", 1),
        ("\\restrict \n", 1),
        (" \\restrict a\n", 1),
        ("SELECT 1\n\\restrict a\n", 2),
        ("\\unrestrict a b\n", 1),
        ("\\! x", 1),
        ("\\.\n", 1),
    ] {
        let summary = scan(text);
        let summary_of_cut = |cut: usize| {
            let mut scanner = Scanner::new();
            scanner.feed(&text.as_bytes()[..cut]).unwrap();
            scanner.feed(&text.as_bytes()[cut..]).unwrap();
            scanner.finish().unwrap()
        };
        assert_eq!(summary.command, Some(line), "{text:?}");
        for cut in 0..=text.len() {
            assert_eq!(summary_of_cut(cut), summary, "{text:?} cut at {cut}");
            let chunks = [&text.as_bytes()[..cut], &text.as_bytes()[cut..]];
            let (out, end) = filter(strip(), chunks.into_iter());
            assert!(!out.contains("\\!") && !out.contains("\\g"), "{text:?}: {out:?}");
            assert!(end.unwrap_err().to_string().starts_with(&format!("line {line}: ")));
        }
    }
    let long = format!("\\{}\n", "x".repeat(100_000));
    let mut filter = Filter::new(strip());
    let mut out = Vec::new();
    assert!(long
        .as_bytes()
        .chunks(1000)
        .any(|chunk| filter.feed(chunk, &mut out).is_err()));
    assert!(out.is_empty());
}

#[test]
fn filter_leaves_lines_out() {
    let (out, end) = filter_whole(strip(), &sample());
    assert_eq!(end.unwrap().incomplete, None);
    let expected = sample()
        .replacen("\\restrict abc123XYZ\n", "\n", 1)
        .replacen("SET transaction_timeout = 0;\n", "\n", 1)
        .replacen("\\unrestrict abc123XYZ\n", "\n", 1);
    assert_eq!(out, expected);
    let (out, end) = filter_whole(Strip::default(), &sample());
    assert!(end.is_ok());
    assert_eq!(out, sample());
}

#[test]
fn filter_leaves_out_whole_lines_only() {
    for (text, expected) in [
        ("SET transaction_timeout = 0;\r\nSELECT 1;\n", "\nSELECT 1;\n"),
        ("-- x\nSET transaction_timeout = 0;", "-- x\n"),
        ("\\restrict a\n\\unrestrict a", "\n"),
    ] {
        for cut in 0..=text.len() {
            let (head, tail) = text.as_bytes().split_at(cut);
            assert_eq!(filter(strip(), [head, tail].into_iter()).0, expected, "{text:?}");
        }
    }
    for text in [
        "SET transaction_timeout = 0; SELECT 1;\n",
        "SET transaction_timeout = 0; SELECT 1;\nSELECT 2;\n",
        "SELECT 1; SET transaction_timeout = 0;\n",
        "SET transaction_timeout = 0; SET a = 1;\n",
        "SET\ntransaction_timeout = 0;\n",
        "SET transaction_timeout = 0\n;\n",
        "SET transaction_timeout = '0\n';\n",
        "SET transaction_timeouts = 0;\n",
        "SET x.transaction_timeout = 0;\n",
        "SET transaction_timeout = 0",
        "SELECT 1\nSET transaction_timeout = 0;\n",
        "(\nSET transaction_timeout = 0;\n",
        "SELECT '\nSET transaction_timeout = 0;\n';\n",
        "COPY x FROM stdin;\nSET transaction_timeout = 0;\n\\.\nSELECT 1;\n",
    ] {
        for cut in 0..=text.len() {
            let (head, tail) = text.as_bytes().split_at(cut);
            let (out, end) = filter(strip(), [head, tail].into_iter());
            end.unwrap();
            assert_eq!(out, text);
        }
    }
}

#[test]
fn filter_holds_back_little() {
    let mut filter = Filter::new(strip());
    let mut out = Vec::new();
    let begin = format!("SET transaction_timeout = '{}", "x".repeat(1000));
    filter.feed(begin.as_bytes(), &mut out).unwrap();
    assert!(out.is_empty());
    let mut length = begin.len();
    for _ in 0..200 {
        filter.feed(&[b'x'; 1000], &mut out).unwrap();
        length += 1000;
        assert!(length - out.len() < MAX_LINE);
    }
    filter.feed(b"';\n", &mut out).unwrap();
    filter.finish(&mut out).unwrap();
    assert_eq!(out.len(), length + 3);
    // A line that cannot be left out is not held back at all.
    let mut filter = Filter::new(strip());
    let mut out = Vec::new();
    filter.feed(b"SELECT 1;\nSELECT\n'x", &mut out).unwrap();
    assert_eq!(out, b"SELECT 1;\nSELECT\n'x");
}

#[test]
fn uncertain_text_is_refused() {
    for (text, says) in [
        ("SELECT 1;\n\0", "byte 10: a NUL byte"),
        ("COPY x FROM stdin;\n1\0\n\\.\n", "byte 20: a NUL byte"),
        ("COPY x FROM stdin; SELECT 1;\n", "line 1: text after COPY"),
        ("SELECT 1;\nDROP /* x */ DATABASE n8n;\n", "line 2: a block comment"),
    ] {
        for cut in 0..=text.len() {
            let mut scanner = Scanner::new();
            let (head, tail) = text.as_bytes().split_at(cut);
            let end = scanner.feed(head).and_then(|()| scanner.feed(tail));
            let error = end.unwrap_err().to_string();
            assert!(error.starts_with(says), "{text:?}: {error}");
        }
    }
    let tag = format!("DO ${}$", "a".repeat(2 * MAX_TEXT));
    assert!(try_scan(&tag).is_err());
}

#[test]
fn event_triggers_are_noted() {
    let text = "CREATE EVENT TRIGGER \"Odd one\" ON sql_drop EXECUTE FUNCTION f();\nCREATE EVENT TRIGGER b ON ddl_command_end\n  \
                WHEN TAG IN ('CREATE TABLE')\n  EXECUTE FUNCTION f();\nCREATE TRIGGER c AFTER INSERT ON t EXECUTE FUNCTION f();\n";
    assert_eq!(scan(text).event_triggers, ["Odd one", "b"]);
}

#[test]
fn what_acts_outside_of_the_database_is_noted() {
    for (text, line) in [
        ("CREATE TABLE t ();\nCOPY t FROM PROGRAM 'id';\n", 2),
        ("COPY t FROM '/etc/passwd';\n", 1),
        ("COPY t TO STDOUT;\n", 1),
        ("COPY (SELECT 1) TO PROGRAM 'sh';\n", 1),
        ("\nDROP DATABASE IF EXISTS n8n WITH (FORCE);\n", 2),
        ("CREATE DATABASE x;\n", 1),
        ("ALTER DATABASE n8n RENAME TO x;\n", 1),
        ("ALTER SYSTEM SET archive_command = 'id';\n", 1),
        ("CREATE ROLE me SUPERUSER;\n", 1),
        ("ALTER USER n8n PASSWORD 'x';\n", 1),
        ("CREATE GROUP admins USER me;\n", 1),
        ("GRANT pg_execute_server_program TO me;\n", 1),
        ("REVOKE admins FROM me;\n", 1),
        (
            "GRANT SELECT(a), UPDATE(b) ON TABLE t TO me;\nREVOKE ALL ON SCHEMA s FROM PUBLIC;\n",
            0,
        ),
        ("DROP OWNED BY n8n;\n", 1),
        ("REASSIGN OWNED BY a TO b;\n", 1),
        ("DROP TABLESPACE t;\n", 1),
        (
            "CREATE USER MAPPING FOR me SERVER s;\nALTER TABLE t OWNER TO me;\nDROP TABLE t;\n",
            0,
        ),
        ("COPY t FROM stdin;\nDROP DATABASE n8n;\n\\.\n", 0),
        ("COMMENT ON DATABASE n8n IS 'x';\n", 1),
        ("SELECT 1;\ncomment on -- x\n role \"on\" IS NULL;\n", 2),
        ("COMMENT ON TABLESPACE pg_default IS 'x';\n", 1),
        ("SECURITY LABEL FOR 'x' ON DATABASE \"n8n\" IS 'y';\n", 1),
        ("GRANT CREATE, CONNECT ON DATABASE n8n TO me;\n", 1),
        ("REVOKE ALL ON DATABASE \"n8n\" FROM PUBLIC;\n", 1),
        ("GRANT CREATE ON TABLESPACE t TO me;\n", 1),
        ("GRANT SET ON PARAMETER work_mem TO me;\n", 1),
        (
            "GRANT SELECT ON database TO me;\nGRANT SELECT ON role, t TO me;\nREVOKE ALL ON TABLE database FROM me;\n",
            0,
        ),
        (
            "COMMENT ON EXTENSION plpgsql IS 'ON DATABASE n8n';\nCOMMENT ON SCHEMA public IS 'x';\n\
             COMMENT ON COLUMN t.role IS 'x';\nCOMMENT ON FUNCTION f(a integer) IS 'x';\n\
             COMMENT ON TABLE database IS 'x';\nCOMMENT ON CONSTRAINT c ON DOMAIN d IS 'x';\n\
             SECURITY LABEL FOR x ON TABLE database IS 'y';\nGRANT USAGE ON LANGUAGE plpgsql TO me;\n",
            0,
        ),
        ("SELECT 'x; DROP DATABASE n8n;';\n", 0),
    ] {
        assert_eq!(scan(text).outside, (line > 0).then_some(line), "{text:?}");
    }
    // What pg_dump wrote by itself.
    let of_itself = "COMMENT ON DATABASE postgres IS 'default administrative connection database';\n\
                     SECURITY LABEL FOR x ON DATABASE n8n IS 'y';\n";
    for (version, line) in [
        ("9.6.24", None),
        ("10.23 (Debian 10.23-1)", None),
        ("11.2", Some(2)),
        ("x", Some(2)),
    ] {
        let text = format!("-- Dumped by pg_dump version {version}\n{of_itself}");
        assert_eq!(scan(&text).outside, line, "{version}");
    }
    let text = "-- Dumped by pg_dump version 10.23\nGRANT ALL ON DATABASE n8n TO me;\n";
    assert_eq!(scan(text).outside, Some(2));
    assert!(scan("SET standard_conforming_strings = off;\n").standard_conforming_strings_off);
}

#[test]
fn copy_data_in_blocks() {
    for first in ["1", "\\N", "x\\.", "\\\\."] {
        for length in [0, 1, 2, 100, BLOCK - 3, BLOCK, 3 * BLOCK] {
            let row = format!("{first}{}\n", "y".repeat(length));
            let text = format!("COPY t FROM stdin;\n{}\\.\nSELECT 1;\n", row.repeat(50));
            let summary = scan(&text);
            assert_eq!(summary.copies, [(table("", "t"), 50)], "{first} {length}");
            assert_eq!((summary.lines, summary.command), (53, None));
            let mut scanner = Scanner::new();
            for chunk in text.as_bytes().chunks(317) {
                scanner.feed(chunk).unwrap();
            }
            assert_eq!(scanner.finish().unwrap(), summary);
        }
    }
}

#[test]
fn lists_are_bounded() {
    let mut text = String::new();
    for n in 0..=MAX_OBJECTS {
        text.push_str(&format!(
            "CREATE TABLE s.t{n} ();\nGRANT ALL ON TABLE s.t TO r{n};\nCREATE EXTENSION e{n};\n"
        ));
    }
    let summary = scan(&text);
    assert_eq!(
        (summary.tables.len(), summary.roles.len(), summary.extensions.len()),
        (MAX_OBJECTS, MAX_OTHERS, MAX_OTHERS)
    );
    let long = format!("CREATE TABLE \"{}\" ();\nCREATE TABLE t ();\n", "x".repeat(100_000));
    assert_eq!(scan(&long).tables, [table("", "t")]);
    let columns: Vec<String> = (0..5000).map(|n| format!("\"column {n}\"")).collect();
    let wide = format!("COPY s.wide ({}) FROM stdin;\n1\n\\.\n", columns.join(", "));
    assert_eq!(scan(&wide).copies, [(table("s", "wide"), 1)]);
}

#[test]
fn any_bytes_are_read_without_panic() {
    let pieces: [&[u8]; 24] = [
        b"'",
        b"''",
        b"\"",
        b"$$",
        b"$a$",
        b"$",
        b"--",
        b"/*",
        b"*/",
        b"(",
        b")",
        b";",
        b"E'",
        b"\\",
        b"\n",
        b"\r",
        b"COPY t FROM stdin;\n",
        b"\\.\n",
        b"SET transaction_timeout = 0;",
        b"\xff\xc3",
        b":",
        b"SELECT setval(",
        b"u&",
        b"GRANT a TO ,",
    ];
    let mut seed = 1u64;
    for _ in 0..3000 {
        let mut text = Vec::new();
        for _ in 0..20 {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            text.extend_from_slice(pieces[(seed >> 33) as usize % pieces.len()]);
        }
        let mut whole = Scanner::new();
        let whole = whole.feed(&text).and_then(|()| whole.finish()).ok();
        let mut parts = Scanner::new();
        let end = text
            .chunks(1 + (seed >> 40) as usize % 7)
            .try_for_each(|chunk| parts.feed(chunk));
        let parts = end.and_then(|()| parts.finish()).ok();
        let shown = String::from_utf8_lossy(&text);
        assert_eq!(whole, parts, "{shown:?}");
        // What the filter does not refuse passes unchanged.
        let mut passed = Vec::new();
        let mut filter = Filter::new(Strip::default());
        let end = text
            .chunks(1 + (seed >> 40) as usize % 7)
            .try_for_each(|chunk| filter.feed(chunk, &mut passed));
        let end = end.and_then(|()| filter.finish(&mut passed)).ok();
        assert_eq!(end, whole.filter(|summary| summary.command.is_none()), "{shown:?}");
        assert!(end.is_none() || passed == text, "{shown:?}");
    }
}
