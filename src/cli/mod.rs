//! The command line: flags and rows, from which the parser, the help, the manual page and the completions come.

pub mod completions;
pub mod help;
pub mod man;
mod parse;
mod suggest;

pub use parse::{parse, Call, Request, UsageError};
pub use suggest::suggestion;

const USAGE: &str = "Usage: n8n-backup [--project-dir DIR] COMMAND [ARGUMENTS]\n";

/// An option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flag {
    /// Its name, without the dashes.
    pub long: &'static str,
    /// Its one-letter form.
    pub short: Option<char>,
    /// The name of its value; none when it takes none.
    pub value: Option<&'static str>,
    /// What it does.
    pub help: &'static str,
}

impl Flag {
    /// A flag without a one-letter form that takes no value.
    pub const fn new(long: &'static str, help: &'static str) -> Self {
        Self {
            long,
            short: None,
            value: None,
            help,
        }
    }

    /// With a one-letter form.
    pub const fn short(self, letter: char) -> Self {
        Self {
            short: Some(letter),
            ..self
        }
    }

    /// With a value, called `name` in the help.
    pub const fn value(self, name: &'static str) -> Self {
        Self {
            value: Some(name),
            ..self
        }
    }
}

/// A command, as far as the command line is concerned.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The word on the command line, which is also the script's name; two words for a part of the command that is the first
    /// of them.
    pub name: &'static str,
    /// What it does, in a line.
    pub summary: &'static str,
    /// What the help says more.
    pub details: &'static str,
    /// Its operands, separated by a space; in brackets what may be left out, with dots what may stand more than once.
    pub operand: Option<&'static str>,
    /// Its own options.
    pub flags: &'static [Flag],
    /// The file below `logs/` that it writes to; a command that has one acts on backups, the others only tell.
    pub log: Option<&'static str>,
    /// The exit code when it could not do its work.
    pub failure: u8,
    /// Whether it works while n8n does and nobody waits for it, unlike a restore: it then yields to others.
    pub in_background: bool,
}

impl Row {
    /// A command that tells something and takes nothing.
    pub const TELLS: Self = Self {
        name: "",
        summary: "",
        details: "",
        operand: None,
        flags: &[],
        log: None,
        failure: 1,
        in_background: false,
    };

    /// A command that acts on backups.
    pub const ACTS: Self = Self {
        log: Some("backup.log"),
        ..Self::TELLS
    };

    /// Whether there is a script of its name: those that act on backups have one, those that only tell have not.
    pub fn has_script(&self) -> bool {
        self.name.contains('-')
    }

    /// Whether it is the part `word` of the command `whole`.
    fn is_part_of(&self, whole: &Self, word: &str) -> bool {
        self.name.split_once(' ') == Some((whole.name, word))
    }
}

/// The n8n project directory.
pub const PROJECT_DIR: Flag = Flag::new("project-dir", "the n8n project directory")
    .short('C')
    .value("DIR");
/// Fewer lines on standard output.
pub const QUIET: Flag = Flag::new(
    "quiet",
    "of what is logged, print warnings and errors only; the log file gets all",
)
.short('q');
/// The programs that are run, on standard error.
pub const VERBOSE: Flag = Flag::new("verbose", "show each command that is run, on standard error").short('v');
/// The help, in place of the command.
const HELP: Flag = Flag::new("help", "show this help").short('h');
/// The version, in place of a command.
const VERSION: Flag = Flag::new("version", "show the version").short('V');

/// Options that stand before the command or after it.
pub const GLOBAL: &[Flag] = &[PROJECT_DIR, QUIET, VERBOSE, HELP, VERSION];
