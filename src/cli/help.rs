//! The help of a command, and of the whole.

use std::fmt::Write;

use super::{Flag, Row, GLOBAL, USAGE};

/// The usage line of a row.
pub(super) fn usage(row: &Row) -> String {
    let mut line = format!("Usage: n8n-backup {}", row.name);
    for flag in row.flags {
        let value = flag.value.map_or_else(String::new, |value| format!(" {value}"));
        let _ = write!(line, " [--{}{value}]", flag.long);
    }
    if let Some(operand) = row.operand {
        let _ = write!(line, " {operand}");
    }
    line.push('\n');
    if row.has_script() {
        let _ = writeln!(line, "   or: scripts/{}.sh with the same arguments", row.name);
    }
    line
}

/// The help of one row.
pub fn help(row: &Row) -> String {
    let mut text = format!("{}: {}\n\n{}", row.name, row.summary, usage(row));
    if !row.details.is_empty() {
        let _ = write!(text, "\n{}\n", row.details);
    }
    text.push_str("\nOptions:\n");
    flags(&mut text, row.flags);
    flags(&mut text, GLOBAL);
    text
}

/// The help of the whole.
pub fn overview(rows: &[&Row]) -> String {
    let mut text =
        format!("n8n-backup: backs up and restores a self-hosted n8n stack in Docker\n\n{USAGE}\nCommands:\n");
    let width = rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
    for row in rows {
        let _ = writeln!(text, "  {:width$}  {}", row.name, row.summary);
    }
    text.push_str("\nOptions:\n");
    flags(&mut text, GLOBAL);
    text.push_str(
        "\nThe project directory is --project-dir, else N8N_DIR, else the parent of the directory that this program\n\
         is in, when that has scripts/, else the current directory. A program that is installed in another directory\n\
         than N8N_DIR asks for --project-dir. Settings are read from the directory's .env.\n\
         'n8n-backup COMMAND --help' tells more about a command.\n",
    );
    text
}

fn flags(text: &mut String, flags: &[Flag]) {
    for flag in flags {
        let mut names = flag
            .short
            .map_or_else(|| "    ".to_owned(), |short| format!("-{short}, "));
        let _ = write!(names, "--{}", flag.long);
        if let Some(value) = flag.value {
            let _ = write!(names, " {value}");
        }
        let _ = writeln!(text, "  {names:24}  {}", flag.help);
    }
}
