//! The command line with the rows of every command.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use super::*;
use crate::cli::{completions, man, parse, Request, UsageError, GLOBAL};
use crate::components::YES;
use crate::config::SETTINGS;

fn parsed(args: &[&str]) -> Result<Request, UsageError> {
    parse(&rows(), args.iter().map(OsString::from))
}

fn run(args: &[&str]) -> Call {
    match parsed(args) {
        Ok(Request::Run(call)) => call,
        other => panic!("{other:?}"),
    }
}

#[test]
fn options_stand_before_or_after_the_command() {
    let call = run(&["--project-dir", "/a b", "cleanup-backups", "--dry-run"]);
    assert_eq!(call.project_dir(), Some(PathBuf::from("/a b")));
    assert!(call.row.name == "cleanup-backups" && call.has(&shared::dry_run("")));
    assert_eq!(
        run(&["backup-all", "--project-dir=/x=y"]).project_dir(),
        Some(PathBuf::from("/x=y"))
    );
    assert_eq!(
        run(&["-C", "/x", "backup-all", "-q"]).project_dir(),
        Some(PathBuf::from("/x"))
    );
}

#[test]
fn an_operand_may_look_like_an_option_after_two_dashes() {
    let call = run(&["restore-postgres", "--yes", "--", "--dry-run"]);
    assert_eq!(call.operand.as_deref(), Some(OsStr::new("--dry-run")));
    assert!(call.has(&YES));
}

#[test]
fn a_part_of_a_command_is_its_second_word() {
    let call = run(&["workflows", "-q", "export", "--to", "d", "latest", "a", "b"]);
    assert_eq!((call.row.name, call.operands.len()), ("workflows export", 3));
    // After two dashes, it is an operand.
    assert_eq!(run(&["workflows", "--", "./export"]).row.name, "workflows");
}

#[test]
fn what_is_not_known_is_refused() {
    for (args, message) in [
        (&[][..], "no command given"),
        (&["backup-everything"], "unknown command: backup-everything"),
        (&["backup_al"], "unknown command: backup_al, did you mean backup-all?"),
        (
            &["restore-p"],
            "unknown command: restore-p, did you mean restore-postgres?",
        ),
        (&["statsu"], "unknown command: statsu, did you mean status?"),
        (
            &["cleanup-backups", "--dryrun"],
            "unknown option: --dryrun, did you mean --dry-run?",
        ),
        (&["cleanup-backups", "-d"], "unknown option: -d"),
        (&["cleanup-backups", "dry-run"], "unexpected argument: dry-run"),
        (&["cleanup-backups", "--dry-run=no"], "option --dry-run takes no value"),
        (&["backup-all", "--dry-run"], "unknown option: --dry-run"),
        (&["restore-postgres"], "FILE is missing"),
        (&["restore-postgres", "a", "b"], "one FILE expected, got 2"),
        (&["verify", "a", "b"], "one [FILE|SET] expected, got 2"),
        (&["workflows", "a", "b"], "one [SET|FILE] expected, got 2"),
        (&["workflows", "--json", "export"], "unknown option: --json"),
        (&["workflows", "diff"], "SET1 is missing"),
        (&["workflows", "diff", "a", "b", "c"], "unexpected argument: c"),
        (
            &["backup-all", "--project-dir"],
            "option --project-dir needs a value: DIR",
        ),
    ] {
        assert_eq!(parsed(args).unwrap_err().message, message);
    }
}

#[test]
fn every_command_has_help() {
    for row in rows() {
        let words: Vec<&str> = row.name.split(' ').chain(["--help"]).collect();
        match parsed(&words) {
            Ok(Request::Show(text)) => assert!(text.contains(row.summary)),
            other => panic!("{other:?}"),
        }
    }
    assert!(matches!(parsed(&["--version"]), Ok(Request::Show(_))));
    for (args, begin) in [
        (&["help"][..], "n8n-backup: "),
        (&["help", "list"], "list: "),
        (&["list", "-h"], "list: "),
    ] {
        assert!(matches!(parsed(args), Ok(Request::Show(text)) if text.starts_with(begin)));
    }
}

#[test]
fn names_and_flags_are_told_apart() {
    let mut names = HashSet::new();
    for row in rows() {
        assert!(names.insert(row.name), "{}", row.name);
        let mut flags = HashSet::new();
        for flag in row.flags.iter().chain(GLOBAL) {
            assert!(flags.insert(flag.long.to_owned()), "{}: --{}", row.name, flag.long);
            let short = flag.short.map(String::from);
            assert!(
                short.is_none_or(|short| flags.insert(short)),
                "{}: --{}",
                row.name,
                flag.long
            );
        }
    }
}

#[test]
fn a_script_is_named_only_where_there_is_one() {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts");
    for row in rows() {
        let file = scripts.join(format!("{}.sh", row.name));
        assert_eq!(row.has_script(), file.exists(), "{}", row.name);
    }
}

#[test]
fn everything_is_on_the_page_and_nothing_is_a_request_by_mistake() {
    let page = man::page(&rows());
    for row in rows() {
        let name = row.name.replace('-', "\\-");
        assert!(page.contains(&format!("\n.SS {name}")), "{name}");
    }
    for setting in SETTINGS {
        assert!(page.contains(&format!("\n.B {}\n", setting.name)), "{}", setting.name);
    }
    for line in page.lines().filter(|line| line.starts_with('.')) {
        let request = line.split(' ').next().unwrap();
        assert!(
            [".TH", ".SH", ".SS", ".TP", ".B", ".I", ".BR", ".IR"].contains(&request),
            "{line}"
        );
    }
    assert!(page.is_ascii());
}

#[test]
fn every_shell_knows_every_command_and_option() {
    for shell in completions::SHELLS {
        let text = completions::script(shell, &rows()).unwrap();
        assert!(text.is_ascii());
        for row in rows() {
            for word in row.name.split(' ') {
                assert!(text.contains(word), "{shell}: {}", row.name);
            }
            for flag in row.flags.iter().chain(GLOBAL) {
                assert!(text.contains(flag.long), "{shell}: {}", flag.long);
            }
        }
    }
    assert!(completions::script("tcsh", &rows()).is_none());
}
