use super::*;
use crate::commands::rows;

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
    assert!(call.row.name == "cleanup-backups" && call.has(&Flag::new("dry-run", "")));
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
    assert!(call.has(&Flag::new("yes", "")));
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
        match parsed(&[row.name, "--help"]) {
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
