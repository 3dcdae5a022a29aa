//! The parser. It only validates; it does nothing.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use super::suggest::suggestion;
use super::{help, Flag, Row, GLOBAL, HELP, PROJECT_DIR, USAGE, VERSION};

/// A command as it was called.
#[derive(Debug)]
pub struct Call {
    /// The command.
    pub row: &'static Row,
    /// Its operand; there when the command has one that may not be left out.
    pub operand: Option<OsString>,
    /// All operands, that one included.
    pub operands: Vec<OsString>,
    given: Vec<(&'static str, Option<OsString>)>,
}

impl Call {
    /// Whether an option was given.
    pub fn has(&self, flag: &Flag) -> bool {
        self.given.iter().any(|(name, _)| *name == flag.long)
    }

    /// The value of an option, the last one when it was given more than once.
    pub fn value(&self, flag: &Flag) -> Option<&OsStr> {
        self.given
            .iter()
            .rev()
            .find(|(name, _)| *name == flag.long)
            .and_then(|(_, value)| value.as_deref())
    }

    /// The operand; empty where it was left out.
    pub fn operand(&self) -> &OsStr {
        self.operand.as_deref().unwrap_or_default()
    }

    /// The project directory, when it was named.
    pub fn project_dir(&self) -> Option<PathBuf> {
        self.value(&PROJECT_DIR).map(PathBuf::from)
    }
}

/// What the command line asks for.
#[derive(Debug)]
pub enum Request {
    /// Print this text.
    Show(String),
    /// Run a command.
    Run(Call),
}

/// A command line that cannot be run.
#[derive(Debug)]
pub struct UsageError {
    /// What is wrong.
    pub message: String,
    /// How it is right.
    pub usage: String,
    /// The command and the project directory, as far as they were understood, so that the error can go to its log.
    pub call: Option<Box<Call>>,
}

impl UsageError {
    /// A call that a command could not make anything of.
    pub fn of(call: Call, error: &anyhow::Error) -> Self {
        Self {
            message: format!("{error:#}"),
            usage: help::usage(call.row),
            call: Some(Box::new(call)),
        }
    }
}

/// Reads a command line, without the program's name.
pub fn parse(rows: &[&'static Row], args: impl IntoIterator<Item = OsString>) -> Result<Request, UsageError> {
    let mut args = args.into_iter();
    let mut command: Option<&'static Row> = None;
    let mut given = Vec::new();
    let mut operands = Vec::new();
    let mut problem: Option<String> = None;
    let mut options_end = false;
    while let Some(arg) = args.next() {
        let text = arg.to_string_lossy().into_owned();
        if options_end || !text.starts_with('-') || text == "-" {
            match command {
                None => match rows.iter().find(|known| known.name == text) {
                    Some(known) => command = Some(*known),
                    // What many programs have for --help.
                    None if text == "help" => given.push((HELP.long, None)),
                    None => {
                        let names = rows.iter().map(|known| known.name.to_owned());
                        problem.get_or_insert(format!("unknown command: {text}{}", suggestion(&text, names)));
                        break;
                    }
                },
                Some(known) => match rows.iter().find(|row| row.is_part_of(known, &text)) {
                    Some(part) if operands.is_empty() => command = Some(*part),
                    _ => operands.push(arg),
                },
            }
        } else if text == "--" {
            options_end = true;
        } else {
            let known = command.map_or(&[][..], |command| command.flags);
            if let Err(what) = option(&text, &arg, known, &mut args, &mut given) {
                problem.get_or_insert(what);
            }
        }
    }
    let asked = |flag: &Flag| given.iter().any(|(long, _): &(&str, _)| *long == flag.long);
    if asked(&HELP) {
        return Ok(Request::Show(command.map_or_else(|| help::overview(rows), help::help)));
    }
    if asked(&VERSION) {
        return Ok(Request::Show(format!("n8n-backup {}\n", env!("CARGO_PKG_VERSION"))));
    }
    let Some(command) = command else {
        // A list of all commands would push the message out of sight.
        let (message, usage) = match problem {
            Some(problem) => (problem, format!("{USAGE}'n8n-backup --help' lists the commands.\n")),
            None => ("no command given".to_owned(), help::overview(rows)),
        };
        return Err(UsageError {
            message,
            usage,
            call: None,
        });
    };
    if problem.is_none() {
        let names: Vec<&str> = command.operand.unwrap_or_default().split_whitespace().collect();
        let most = match names.last().is_some_and(|name| name.contains("...")) {
            true => usize::MAX,
            false => names.len(),
        };
        let missing = names.get(operands.len()).filter(|name| !name.starts_with('['));
        let is_own = |name: &str| command.flags.iter().chain(GLOBAL).any(|flag| flag.long == name);
        let foreign = given.iter().find(|(name, _)| !is_own(name));
        problem = match (names[..].first(), missing, foreign) {
            // It stands before the second word of the command, and belongs to the first alone.
            (_, _, Some((name, _))) => Some(format!("unknown option: --{name}")),
            (_, Some(name), _) => Some(format!("{name} is missing")),
            _ if operands.len() <= most => None,
            (Some(name), ..) if most == 1 => Some(format!("one {name} expected, got {}", operands.len())),
            _ => Some(format!("unexpected argument: {}", operands[most].to_string_lossy())),
        };
    }
    let call = Call {
        row: command,
        operand: operands.first().cloned(),
        operands,
        given,
    };
    match problem {
        Some(message) => Err(UsageError {
            message,
            usage: help::usage(command),
            call: Some(Box::new(call)),
        }),
        None => Ok(Request::Run(call)),
    }
}

/// Reads one argument that starts with a dash, and its value. `own` are the options of the command.
fn option(
    text: &str,
    arg: &OsStr,
    own: &'static [Flag],
    args: &mut impl Iterator<Item = OsString>,
    given: &mut Vec<(&'static str, Option<OsString>)>,
) -> Result<(), String> {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    // What is not UTF-8 has another length in the text.
    let value = arg.as_bytes().splitn(2, |byte| *byte == b'=').nth(1);
    let (name, inline) = match (text.split_once('='), value) {
        (Some((name, _)), Some(value)) if text.starts_with("--") => (name, Some(OsString::from_vec(value.to_vec()))),
        _ => (text, None),
    };
    let matches = |flag: &Flag| match name.strip_prefix("--") {
        Some(long) => flag.long == long,
        None => flag.short.is_some_and(|short| name[1..].chars().eq([short])),
    };
    let known = || GLOBAL.iter().chain(own);
    let Some(found) = known().find(|flag| matches(flag)) else {
        let names = known().map(|flag| format!("--{}", flag.long));
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
    given.push((found.long, value));
    Ok(())
}
