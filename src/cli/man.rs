//! The manual page, in the man macros of groff (groff_man(7)), from the tables of commands and settings.

use std::fmt::Write;

use super::{Flag, Row, GLOBAL};
use crate::config::SETTINGS;

/// The page `n8n-backup(1)`.
pub fn page(rows: &[&Row]) -> String {
    let mut text = format!(
        ".TH N8N\\-BACKUP 1 \"\" \"n8n\\-backup {}\" \"User Commands\"\n.SH NAME\n\
         n8n\\-backup \\- back up and restore a self\\-hosted n8n stack in Docker\n.SH SYNOPSIS\n\
         .B n8n\\-backup\n[\\fIOPTION\\fR]... \\fICOMMAND\\fR [\\fIARGUMENT\\fR]...\n.SH DESCRIPTION\n",
        escaped(env!("CARGO_PKG_VERSION"))
    );
    text.push_str(
        "Backs up the database, Redis, the data volume and the environment file of an n8n that runs in Docker, and\n\
         restores them. The n8n project directory is \\fB\\-\\-project\\-dir\\fR, else \\fBN8N_DIR\\fR, else the\n\
         parent of the directory that this program is in, when that has\n.IR scripts/ ,\n\
         else the current directory. A program that is installed in another directory than \\fBN8N_DIR\\fR asks\n\
         for \\fB\\-\\-project\\-dir\\fR. Settings are read from the directory's\n.IR .env .\n.SH COMMANDS\n",
    );
    for row in rows {
        let operand = row.operand.map_or_else(String::new, |name| format!(" {name}"));
        let _ = writeln!(text, ".SS {}", escaped(&format!("{}{operand}", row.name)));
        let _ = writeln!(text, "{}.", escaped(&capitalized(row.summary)));
        if !row.details.is_empty() {
            let _ = writeln!(text, "{}", escaped(row.details));
        }
        options(&mut text, row.flags);
    }
    text.push_str(".SH OPTIONS\nThey stand before the command or after it.\n");
    options(&mut text, GLOBAL);
    text.push_str(
        ".SH EXIT STATUS\n0 for success and 1 for any failure, unless the description of a command says otherwise.\n\
         .SH SETTINGS\nIn the\n.I .env\nof the project directory, else in the environment.\n",
    );
    for setting in SETTINGS {
        let default = Some(setting.default).filter(|value| !value.is_empty());
        let notes: Vec<String> = setting
            .range()
            .into_iter()
            .chain(default.map(|value| format!("default: {value}")))
            .collect();
        let notes = match notes.is_empty() {
            true => String::new(),
            false => format!(" ({})", notes.join("; ")),
        };
        let _ = writeln!(
            text,
            ".TP\n.B {}\n{}",
            escaped(setting.name),
            escaped(&format!("{}{notes}", capitalized(setting.help)))
        );
    }
    text.push_str(
        ".SH FILES\nBelow the project directory:\n.TP\n.I backups/\nWhat was backed up, by kind, and in\n.I sets/\n\
         a list of each recovery point that \\fBsha256sum \\-c\\fR reads.\n.TP\n.I logs/backup.log\nThe log.\n\
         .SH SEE ALSO\n.BR docker (1),\n.BR pg_dump (1),\n.BR sha256sum (1)\n",
    );
    text
}

fn options(text: &mut String, options: &[Flag]) {
    for opt in options {
        let short = opt.short.map_or_else(String::new, |short| format!("-{short}, "));
        let value = opt.value.map_or_else(String::new, |value| format!(" {value}"));
        let names = escaped(&format!("{short}--{}{value}", opt.long));
        let _ = writeln!(text, ".TP\n.B {names}\n{}.", escaped(&capitalized(opt.help)));
    }
}

/// Text that groff takes as text: a line that begins with a dot or a quote would be a request.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    let lines = text.lines().map(|line| match line.trim_start() {
        line if line.starts_with(['.', '\'']) => format!("\\&{line}"),
        line => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| {
        first.to_ascii_uppercase().to_string() + chars.as_str()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_no_request() {
        assert_eq!(escaped("a-b\\\n.env 'x'\n'y"), "a\\-b\\e\n\\&.env 'x'\n\\&'y");
    }
}
