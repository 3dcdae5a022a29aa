//! The command line: one table of commands, from which parser and help come. Parsing only validates; it does nothing.

mod completions;
mod man;

use std::ffi::{OsStr, OsString};
use std::fmt::Write;
use std::path::PathBuf;

/// What a command does, for the dispatch in `main`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Back up the database.
    BackupPostgres,
    /// Back up Redis.
    BackupRedis,
    /// Back up the n8n volume.
    BackupN8n,
    /// Back up everything.
    BackupAll,
    /// Apply the retention.
    Cleanup,
    /// Restore the database.
    RestorePostgres,
    /// Restore Redis.
    RestoreRedis,
    /// Restore the n8n volume.
    RestoreN8n,
    /// Restore `.env`.
    RestoreEnv,
    /// Restore everything.
    RestoreAll,
    /// List the recovery points.
    List,
    /// Prove backup files at rest.
    Verify,
    /// Send recovery points elsewhere.
    BackupOffsite,
    /// Bring a recovery point back from elsewhere.
    FetchOffsite,
    /// Tell how the backups are.
    Status,
    /// Look at everything that a backup needs.
    Doctor,
    /// Print a shell's completions.
    Completions,
    /// Print the manual page.
    Man,
    /// Recover a backup into scratch containers.
    TestRecovery,
}

impl Action {
    /// The exit code when the command could not do its work.
    pub const fn failure_code(self) -> u8 {
        match self {
            // "Unknown" to monitoring.
            Self::Status => 3,
            // 1 says that a test has failed.
            Self::TestRecovery => 2,
            _ => 1,
        }
    }

    /// Whether the command works while n8n does and nobody waits for it, unlike a restore.
    pub const fn runs_beside_the_live_stack(self) -> bool {
        matches!(
            self,
            Self::BackupAll
                | Self::BackupPostgres
                | Self::BackupRedis
                | Self::BackupN8n
                | Self::BackupOffsite
                | Self::TestRecovery
        )
    }
}

/// An option.
#[derive(Debug, PartialEq, Eq)]
pub struct Opt {
    /// Its name, without the dashes.
    pub long: &'static str,
    /// Its one-letter form.
    pub short: Option<char>,
    /// The name of its value; none when it takes none.
    pub value: Option<&'static str>,
    /// What it does.
    pub help: &'static str,
}

/// A command.
#[derive(Debug)]
pub struct Command {
    /// The word on the command line, which is also the script's name.
    pub name: &'static str,
    /// What it does, in a line.
    pub summary: &'static str,
    /// What the help says more.
    pub details: &'static str,
    /// Its operand; all of ours take one or none. In brackets when it may be left out.
    pub operand: Option<&'static str>,
    /// Its own options.
    pub options: &'static [Opt],
    /// The file below `logs/` that it writes to.
    pub log: Option<&'static str>,
    /// What `main` runs for it.
    pub action: Action,
}

impl Command {
    /// Whether there is a script of its name: those that act on backups have one, those that only tell have not.
    pub fn has_script(&self) -> bool {
        self.name.contains('-')
    }
}

const BACKUP_LOG: Option<&str> = Some("backup.log");

const YES: Opt = Opt {
    long: "yes",
    short: Some('y'),
    value: None,
    help: "do not ask for confirmation",
};

/// A choice of test-recovery.
const fn part(long: &'static str, help: &'static str) -> Opt {
    Opt {
        long,
        short: None,
        value: None,
        help,
    }
}
const EMPTY_QUEUE: Opt = Opt {
    long: "empty-queue",
    short: None,
    value: None,
    help: "leave out the jobs of n8n's queue, so that none runs again",
};

const CREATE_ROLES: Opt = Opt {
    long: "create-roles",
    short: None,
    value: None,
    help: "create roles that the dump names and the server lacks, without login",
};

/// Every command.
pub const COMMANDS: &[Command] = &[
    Command {
        name: "backup-all",
        summary: "clean up, then back up PostgreSQL, Redis, the n8n volume and .env",
        details:
            "Goes on when one component fails, and exits 1 if any failed. Only one such run, or a restore, at a time. As far as\n\
                  the settings say, it then tests the recovery point (BACKUP_DRILL), sends it elsewhere (BACKUP_OFFSITE) and\n\
                  tells how it went (BACKUP_PING_URL, BACKUP_METRICS_FILE, BACKUP_NOTIFY_COMMAND).",
        operand: None,
        options: &[],
        log: BACKUP_LOG,
        action: Action::BackupAll,
    },
    Command {
        name: "backup-postgres",
        summary: "dump the database to backups/postgres/n8n_YYYYMMDD_HHMMSS.sql.gz",
        details: "",
        operand: None,
        options: &[],
        log: BACKUP_LOG,
        action: Action::BackupPostgres,
    },
    Command {
        name: "backup-redis",
        summary: "save and copy the Redis snapshot to backups/redis/dump_YYYYMMDD_HHMMSS.rdb",
        details: "",
        operand: None,
        options: &[],
        log: BACKUP_LOG,
        action: Action::BackupRedis,
    },
    Command {
        name: "backup-n8n",
        summary: "archive the n8n volume to backups/n8n/n8n_data_YYYYMMDD_HHMMSS.tar.gz",
        details: "",
        operand: None,
        options: &[],
        log: BACKUP_LOG,
        action: Action::BackupN8n,
    },
    Command {
        name: "cleanup-backups",
        summary: "delete backups that are older than BACKUP_RETENTION_DAYS",
        details: "BACKUP_KEEP_LAST, _DAILY, _WEEKLY, _MONTHLY and _YEARLY keep more. The newest good backup of each component\n\
                  always stays, and so does what was verified or proven last; the files of a recovery point stay or go together.\n\
                  A stretch without backups that is longer than the retention counts as a third of it. --dry-run tells why each\n\
                  file stays or goes.",
        operand: None,
        options: &[Opt {
            long: "dry-run",
            short: Some('n'),
            value: None,
            help: "only say what would be deleted",
        }],
        log: BACKUP_LOG,
        action: Action::Cleanup,
    },
    Command {
        name: "restore-postgres",
        summary: "replace the database by the contents of a .sql.gz file",
        details: "The file is verified and loaded beside the live database first; then the two are swapped. With --in-place\n\
                  n8n is stopped meanwhile, and a failure after the drop leaves no database but that dump.",
        operand: Some("FILE"),
        options: &[
            YES,
            Opt {
                long: "keep-old",
                short: None,
                value: None,
                help: "keep the database that is replaced, as n8n_old_YYYYMMDD_HHMMSS",
            },
            CREATE_ROLES,
            Opt {
                long: "in-place",
                short: None,
                value: None,
                help: "where two databases have no room: dump the live one, drop it, then load",
            },
        ],
        log: BACKUP_LOG,
        action: Action::RestorePostgres,
    },
    Command {
        name: "restore-redis",
        summary: "replace all that Redis holds by the snapshot in a .rdb file",
        details: "The file is verified and loaded by a server of its own first; the append-only file, where Redis keeps one, is\n\
                  written anew from it. n8n is stopped meanwhile. Waiting jobs of n8n's queue may run again.",
        operand: Some("FILE"),
        options: &[YES, EMPTY_QUEUE],
        log: BACKUP_LOG,
        action: Action::RestoreRedis,
    },
    Command {
        name: "restore-n8n",
        summary: "replace the contents of the n8n volume by a .tar.gz file",
        details: "The file is verified, unpacked beside the data and read back first. n8n is stopped meanwhile, and what was there\n\
                  is backed up. The volume needs room for both.",
        operand: Some("FILE"),
        options: &[YES],
        log: BACKUP_LOG,
        action: Action::RestoreN8n,
    },
    Command {
        name: "restore-env",
        summary: "replace .env by a .backup file",
        details: "Tells by name which settings differ. The present file is kept as .env.before-restore-YYYYMMDD_HHMMSS.",
        operand: Some("FILE"),
        options: &[YES],
        log: BACKUP_LOG,
        action: Action::RestoreEnv,
    },
    Command {
        name: "restore-all",
        summary: "restore PostgreSQL, Redis, the n8n volume and .env from one recovery point",
        details: "SET is the stamp of a recovery point (YYYYMMDD_HHMMSS) or 'latest', the newest one that holds every part asked\n\
                  for; without SET it is the latest, and --yes is needed where nobody can be asked. All is verified before anything is\n\
                  touched. n8n is stopped first and started last; containers that did not run are stopped again. A run that was\n\
                  interrupted or failed goes on where it was when it is called again, as long as n8n has not run since; n8n stays\n\
                  stopped until then when some parts are restored and some are not.\n\
                  Parts: postgres, redis, n8n, env.",
        operand: Some("[SET]"),
        options: &[
            YES,
            Opt {
                long: "only",
                short: None,
                value: Some("PARTS"),
                help: "restore these parts, comma-separated",
            },
            Opt {
                long: "skip",
                short: None,
                value: Some("PARTS"),
                help: "leave these parts as they are",
            },
            Opt {
                long: "start",
                short: None,
                value: None,
                help: "start the whole stack at the end, whatever ran before",
            },
            EMPTY_QUEUE,
            CREATE_ROLES,
        ],
        log: BACKUP_LOG,
        action: Action::RestoreAll,
    },
    Command {
        name: "list",
        summary: "list the recovery points, oldest first",
        details: "For each: age, size of each component, rows and keys, whether it is complete, and when it was verified, proven by a drill and\n\
                  copied off-site; then the files that belong to no recovery point. Reads no backup and needs no docker.",
        operand: None,
        options: &[
            Opt {
                long: "all",
                short: None,
                value: None,
                help: "name each file that belongs to no recovery point, not only their number",
            },
            Opt {
                long: "json",
                short: None,
                value: None,
                help: "as JSON, for other programs",
            },
        ],
        log: None,
        action: Action::List,
    },
    Command {
        name: "verify",
        summary: "prove that backup files are whole, without docker",
        details: "FILE is a backup file, SET a recovery point: its stamp (YYYYMMDD_HHMMSS), its manifest or 'latest'. Without\n\
                  either, it is the newest point. Each file is compared with the SHA-256 in the manifest and read to its end.\n\
                  Exits 1 when anything is wrong; a point that is well is marked as verified.",
        operand: Some("[FILE|SET]"),
        options: &[Opt {
            long: "all",
            short: Some('a'),
            value: None,
            help: "every recovery point and every file besides",
        }],
        log: BACKUP_LOG,
        action: Action::Verify,
    },
    Command {
        name: "test-recovery",
        summary: "recover a recovery point into scratch containers, and compare",
        details: "SET is a recovery point's stamp (YYYYMMDD_HHMMSS) or 'latest'; without it, the newest that holds what is to be\n\
                  tested. Nothing of the live stack is touched: the containers are made from its images, have no network and\n\
                  none of its volumes. Exits 0 when all passed, 1 when a test failed, 2 when one could not be made. One of\n\
                  --postgres, --redis, --n8n, --full and --list has to be given.",
        operand: Some("[SET]"),
        options: &[
            part("postgres", "load the dump, compare, and decrypt the credentials with the point's key"),
            part("redis", "load the snapshot and compare its keys"),
            part("n8n", "unpack the archive and compare its members"),
            part("full", "all of these, and the environment file"),
            part("list", "list the recovery points and what the last test of each has shown"),
        ],
        log: Some("recovery-test.log"),
        action: Action::TestRecovery,
    },
    Command {
        name: "backup-offsite",
        summary: "send the recovery points that are not elsewhere yet to RCLONE_REMOTE:RCLONE_BUCKET",
        details: "By rclone, newest first; each is compared there and then marked. Nothing is deleted there because it was\n\
                  deleted here; BACKUP_OFFSITE_KEEP_DAYS alone decides. Exits 0 when done, 1 on failure, 2 when there was\n\
                  nothing to send.",
        operand: None,
        options: &[Opt {
            long: "dry-run",
            short: Some('n'),
            value: None,
            help: "only say what would be sent and deleted",
        }],
        log: BACKUP_LOG,
        action: Action::BackupOffsite,
    },
    Command {
        name: "fetch-offsite",
        summary: "bring a recovery point back from RCLONE_REMOTE:RCLONE_BUCKET",
        details: "SET is its stamp (YYYYMMDD_HHMMSS) or 'latest', which is the default. Each file gets its name only when its\n\
                  SHA-256 is the recorded one; what is here already is neither fetched nor replaced.",
        operand: Some("[SET]"),
        options: &[],
        log: BACKUP_LOG,
        action: Action::FetchOffsite,
    },
    Command {
        name: "status",
        summary: "tell how old, whole, proven and safe the backups are",
        details: "Exit codes and first line are those of a monitoring plugin: 0 ok, 1 warning, 2 critical, 3 unknown.",
        operand: None,
        options: &[
            Opt {
                long: "json",
                short: None,
                value: None,
                help: "print JSON",
            },
            Opt {
                long: "max-age",
                short: None,
                value: Some("AGE"),
                help: "the newest recovery point is critical when older, as in 26h (default), 90m, 2d",
            },
        ],
        log: None,
        action: Action::Status,
    },
    Command {
        name: "doctor",
        summary: "look at everything that a backup needs, and say what to do",
        details: "One line for each check, OK, WARN or FAIL; exits 1 when any failed. Changes nothing. --quiet leaves out what\n\
                  is OK.",
        operand: None,
        options: &[],
        log: None,
        action: Action::Doctor,
    },
    Command {
        name: "completions",
        summary: "print the completions for bash, zsh or fish",
        details: "For bash: n8n-backup completions bash >~/.local/share/bash-completion/completions/n8n-backup",
        operand: Some("SHELL"),
        options: &[],
        log: None,
        action: Action::Completions,
    },
    Command {
        name: "man",
        summary: "print the manual page",
        details: "To read it: n8n-backup man | man -l -",
        operand: None,
        options: &[],
        log: None,
        action: Action::Man,
    },
];

const USAGE: &str = "Usage: n8n-backup [--project-dir DIR] COMMAND [ARGUMENTS]\n";

/// Options that stand before the command or after it.
const GLOBAL: &[Opt] = &[
    Opt {
        long: "project-dir",
        short: Some('C'),
        value: Some("DIR"),
        help: "the n8n project directory",
    },
    Opt {
        long: "quiet",
        short: Some('q'),
        value: None,
        help: "of what is logged, print warnings and errors only; the log file gets all",
    },
    Opt {
        long: "verbose",
        short: Some('v'),
        value: None,
        help: "show each command that is run, on standard error",
    },
    Opt {
        long: "help",
        short: Some('h'),
        value: None,
        help: "show this help",
    },
    Opt {
        long: "version",
        short: Some('V'),
        value: None,
        help: "show the version",
    },
];

/// A command as it was called.
#[derive(Debug)]
pub struct Invocation {
    /// The command.
    pub command: &'static Command,
    /// Its operand; there when the command has one that may not be left out.
    pub operand: Option<OsString>,
    flags: Vec<(&'static str, Option<OsString>)>,
}

impl Invocation {
    /// Whether an option was given.
    pub fn has(&self, long: &str) -> bool {
        self.flags.iter().any(|(name, _)| *name == long)
    }

    /// The value of an option, the last one when it was given more than once.
    pub fn value(&self, long: &str) -> Option<&OsStr> {
        self.flags
            .iter()
            .rev()
            .find(|(name, _)| *name == long)
            .and_then(|(_, value)| value.as_deref())
    }

    /// The project directory, when it was named.
    pub fn project_dir(&self) -> Option<PathBuf> {
        self.value("project-dir").map(PathBuf::from)
    }
}

/// What the command line asks for.
#[derive(Debug)]
pub enum Request {
    /// Print this text.
    Show(String),
    /// Run a command.
    Run(Invocation),
}

/// A command line that cannot be run.
#[derive(Debug)]
pub struct UsageError {
    /// What is wrong.
    pub message: String,
    /// How it is right.
    pub usage: String,
    /// The command and the project directory, as far as they were understood, so that the error can go to its log.
    pub invocation: Option<Invocation>,
}

/// Reads a command line, without the program's name.
///
/// # Errors
/// When there is no such command or option, or a value or operand is missing or too many.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Request, UsageError> {
    let mut args = args.into_iter();
    let mut command: Option<&'static Command> = None;
    let mut flags = Vec::new();
    let mut operands = Vec::new();
    let mut problem: Option<String> = None;
    let mut options_end = false;
    while let Some(arg) = args.next() {
        let text = arg.to_string_lossy().into_owned();
        if options_end || !text.starts_with('-') || text == "-" {
            match command {
                None => match COMMANDS.iter().find(|known| known.name == text) {
                    Some(known) => command = Some(known),
                    // What many programs have for --help.
                    None if text == "help" => flags.push(("help", None)),
                    None => {
                        let names = COMMANDS.iter().map(|known| known.name.to_owned());
                        problem.get_or_insert(format!("unknown command: {text}{}", suggestion(&text, names)));
                        break;
                    }
                },
                Some(_) => operands.push(arg),
            }
        } else if text == "--" {
            options_end = true;
        } else {
            let known = command.map_or(&[][..], |command| command.options);
            if let Err(what) = option(&text, &arg, known, &mut args, &mut flags) {
                problem.get_or_insert(what);
            }
        }
    }
    let asked = |name: &str| flags.iter().any(|(long, _): &(&str, _)| *long == name);
    if asked("help") {
        return Ok(Request::Show(command.map_or_else(overview, help)));
    }
    if asked("version") {
        return Ok(Request::Show(format!("n8n-backup {}\n", env!("CARGO_PKG_VERSION"))));
    }
    let Some(command) = command else {
        // A list of all commands would push the message out of sight.
        let (message, usage) = match problem {
            Some(problem) => (problem, format!("{USAGE}'n8n-backup --help' lists the commands.\n")),
            None => ("no command given".to_owned(), overview()),
        };
        return Err(UsageError {
            message,
            usage,
            invocation: None,
        });
    };
    if problem.is_none() {
        problem = match (command.operand, operands.len()) {
            (Some(name), 0) if !name.starts_with('[') => Some(format!("{name} is missing")),
            (Some(_), 0) => None,
            (Some(_), 1) | (None, 0) => None,
            (Some(name), _) => Some(format!("one {name} expected, got {}", operands.len())),
            (None, _) => Some(format!("unexpected argument: {}", operands[0].to_string_lossy())),
        };
    }
    let invocation = Invocation {
        command,
        operand: operands.into_iter().next(),
        flags,
    };
    let shown = match command.action {
        Action::Man => Some(man::page()),
        Action::Completions => {
            let shell = invocation.operand.as_deref().unwrap_or_default().to_string_lossy();
            let script = completions::script(&shell);
            if script.is_none() {
                problem.get_or_insert(format!(
                    "no completions for {shell}: {}",
                    completions::SHELLS.join(", ")
                ));
            }
            script
        }
        _ => None,
    };
    match (problem, shown) {
        (Some(message), _) => Err(UsageError {
            message,
            usage: usage(command),
            invocation: Some(invocation),
        }),
        (None, Some(text)) => Ok(Request::Show(text)),
        (None, None) => Ok(Request::Run(invocation)),
    }
}

/// Reads one argument that starts with a dash, and its value. `own` are the options of the command.
fn option(
    text: &str,
    arg: &OsStr,
    own: &'static [Opt],
    args: &mut impl Iterator<Item = OsString>,
    flags: &mut Vec<(&'static str, Option<OsString>)>,
) -> Result<(), String> {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let (name, inline) = match text.split_once('=') {
        Some((name, _)) if text.starts_with("--") => (
            name,
            Some(OsString::from_vec(arg.as_bytes()[name.len() + 1..].to_vec())),
        ),
        _ => (text, None),
    };
    let matches = |opt: &Opt| match name.strip_prefix("--") {
        Some(long) => opt.long == long,
        None => opt.short.is_some_and(|short| name[1..].chars().eq([short])),
    };
    let known = || GLOBAL.iter().chain(own);
    let Some(found) = known().find(|opt| matches(opt)) else {
        let names = known().map(|opt| format!("--{}", opt.long));
        return Err(format!("unknown option: {name}{}", suggestion(name, names)));
    };
    let value = match (found.value, inline) {
        (None, None) => None,
        (None, Some(_)) => return Err(format!("option {name} takes no value")),
        (Some(_), Some(value)) => Some(value),
        (Some(what), None) => Some(
            args.next()
                .ok_or_else(|| format!("option {name} needs a value: {what}"))?,
        ),
    };
    flags.push((found.long, value));
    Ok(())
}

/// What may have been meant by `word`: the names that it begins, else those that two slips lead to; empty for none.
/// Begins with a comma, to end a message.
pub fn suggestion(word: &str, names: impl Iterator<Item = String>) -> String {
    // A dash, or two, begins every option.
    let begins = word.trim_start_matches('-').len() > 1;
    let (begun, others): (Vec<String>, Vec<String>) = names.partition(|name| begins && name.starts_with(word));
    let meant = match begun.is_empty() {
        true => others
            .into_iter()
            .filter(|name| edit_distance(word, name) <= 2)
            .collect(),
        false => begun,
    };
    match meant.is_empty() {
        true => String::new(),
        false => format!(", did you mean {}?", meant.join(" or ")),
    }
}

/// How many letters have to be put in, left out or exchanged to turn one word into the other (Levenshtein's distance).
fn edit_distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, y) in b.chars().enumerate() {
            let changed = corner + usize::from(x != y);
            corner = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(corner + 1);
        }
    }
    row.last().copied().unwrap_or(0)
}

/// The usage line of a command.
fn usage(command: &Command) -> String {
    let mut line = format!("Usage: n8n-backup {}", command.name);
    for opt in command.options {
        let value = opt.value.map_or_else(String::new, |value| format!(" {value}"));
        let _ = write!(line, " [--{}{value}]", opt.long);
    }
    if let Some(operand) = command.operand {
        let _ = write!(line, " {operand}");
    }
    line.push('\n');
    if command.has_script() {
        let _ = writeln!(line, "   or: scripts/{}.sh with the same arguments", command.name);
    }
    line
}

/// The help of one command.
pub fn help(command: &Command) -> String {
    let mut text = format!("{}: {}\n\n{}", command.name, command.summary, usage(command));
    if !command.details.is_empty() {
        let _ = write!(text, "\n{}\n", command.details);
    }
    text.push_str("\nOptions:\n");
    options(&mut text, command.options);
    options(&mut text, GLOBAL);
    text
}

/// The help of the whole.
pub fn overview() -> String {
    let mut text =
        format!("n8n-backup: backs up and restores a self-hosted n8n stack in Docker\n\n{USAGE}\nCommands:\n");
    let width = COMMANDS.iter().map(|command| command.name.len()).max().unwrap_or(0);
    for command in COMMANDS {
        let _ = writeln!(text, "  {:width$}  {}", command.name, command.summary);
    }
    text.push_str("\nOptions:\n");
    options(&mut text, GLOBAL);
    text.push_str(
        "\nThe project directory is --project-dir, else N8N_DIR, else the parent of the directory that this program\n\
         stands in, when that has scripts/, else the current directory. Settings are read from its .env.\n\
         'n8n-backup COMMAND --help' tells more about a command.\n",
    );
    text
}

fn options(text: &mut String, options: &[Opt]) {
    for opt in options {
        let mut names = opt
            .short
            .map_or_else(|| "    ".to_owned(), |short| format!("-{short}, "));
        let _ = write!(names, "--{}", opt.long);
        if let Some(value) = opt.value {
            let _ = write!(names, " {value}");
        }
        let _ = writeln!(text, "  {names:24}  {}", opt.help);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(args: &[&str]) -> Result<Request, UsageError> {
        parse(args.iter().map(OsString::from))
    }

    fn run(args: &[&str]) -> Invocation {
        match parsed(args) {
            Ok(Request::Run(invocation)) => invocation,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn options_stand_before_or_after_the_command() {
        let call = run(&["--project-dir", "/a b", "cleanup-backups", "--dry-run"]);
        assert_eq!(call.project_dir(), Some(PathBuf::from("/a b")));
        assert!(call.has("dry-run") && call.command.action == Action::Cleanup);
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
        assert!(call.has("yes"));
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
    fn a_script_is_named_only_where_there_is_one() {
        let scripts = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts");
        for command in COMMANDS {
            let file = scripts.join(format!("{}.sh", command.name));
            assert_eq!(command.has_script(), file.exists(), "{}", command.name);
        }
    }

    #[test]
    fn every_command_has_help() {
        for command in COMMANDS {
            match parsed(&[command.name, "--help"]) {
                Ok(Request::Show(text)) => assert!(text.contains(command.summary)),
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
}
