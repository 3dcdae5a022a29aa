//! Completions for bash, zsh and fish, from the table of commands.

use std::fmt::Write;

use super::{Flag, Row, GLOBAL};

/// The shells that there is a script for.
pub const SHELLS: [&str; 3] = ["bash", "zsh", "fish"];

/// The script for a shell; `None` for one that is not known.
pub fn script(shell: &str, rows: &[&Row]) -> Option<String> {
    match shell {
        "bash" => Some(bash(rows)),
        "zsh" => Some(zsh(rows)),
        "fish" => Some(fish(rows)),
        _ => None,
    }
}

/// What a value or an operand is, by its name in the help.
enum Value {
    Directory,
    File,
    Shell,
    Other,
}

impl Value {
    fn of(name: &str) -> Self {
        match name {
            "DIR" => Self::Directory,
            "SHELL" => Self::Shell,
            name if name.contains("FILE") => Self::File,
            _ => Self::Other,
        }
    }
}

/// `--long` and `-s` of options.
fn flags<'a>(options: impl Iterator<Item = &'a Flag>) -> Vec<String> {
    options
        .flat_map(|opt| {
            let short = opt.short.map(|short| format!("-{short}"));
            short.into_iter().chain([format!("--{}", opt.long)])
        })
        .collect()
}

/// The second words that a command can have.
fn parts<'a>(whole: &Row, rows: &[&'a Row]) -> Vec<&'a str> {
    let words = rows.iter().filter_map(|row| row.name.split_once(' '));
    words
        .filter(|(first, _)| *first == whole.name)
        .map(|(_, part)| part)
        .collect()
}

/// The commands, those of two words first.
fn parts_first<'a>(rows: &[&'a Row]) -> Vec<&'a Row> {
    let mut rows = rows.to_vec();
    rows.sort_by_key(|row| !row.name.contains(' '));
    rows
}

fn bash(rows: &[&Row]) -> String {
    let valued: Vec<&Flag> = rows
        .iter()
        .flat_map(|row| row.flags)
        .chain(GLOBAL)
        .filter(|opt| opt.value.is_some())
        .collect();
    let mut text = String::from(
        "# bash completion for n8n-backup\n_n8n_backup() {\n  \
         local current=${COMP_WORDS[COMP_CWORD]} command='' word i\n  \
         COMPREPLY=()\n  for ((i = 1; i < COMP_CWORD; i++)); do\n    word=${COMP_WORDS[i]}\n    case $word in\n",
    );
    let _ = writeln!(text, "      {}) ((i++)) ;;", flags(valued.iter().copied()).join(" | "));
    text.push_str(
        "      -*) ;;\n      *) if [[ $command ]]; then command+=\" $word\"; break; else command=$word; fi ;;\n    esac\n  done\n  \
         case ${COMP_WORDS[COMP_CWORD - 1]} in\n",
    );
    for opt in &valued {
        let pattern = flags([*opt].into_iter()).join(" | ");
        let action = match Value::of(opt.value.unwrap_or_default()) {
            Value::Directory => "_n8n_backup_paths -d",
            Value::File => "_n8n_backup_paths -f",
            _ => ":",
        };
        let _ = writeln!(text, "    {pattern}) {action}; return ;;");
    }
    let global = flags(GLOBAL.iter()).join(" ");
    text.push_str("  esac\n  case $command in\n");
    let names: Vec<&str> = rows
        .iter()
        .map(|row| row.name)
        .filter(|name| !name.contains(' '))
        .collect();
    let _ = writeln!(text, "    '') _n8n_backup_words '{} {global}' ;;", names.join(" "));
    for row in parts_first(rows) {
        let own = flags(row.flags.iter().chain(GLOBAL)).join(" ");
        let parts = parts(row, rows).join(" ");
        let operand = match Value::of(row.operand.unwrap_or_default()) {
            Value::File => format!("_n8n_backup_paths -f '{parts}'"),
            Value::Directory => "_n8n_backup_paths -d".to_owned(),
            Value::Shell => format!("_n8n_backup_words '{}'", SHELLS.join(" ")),
            _ => format!("_n8n_backup_words '{own} {parts}'"),
        };
        let pattern = match row.name.contains(' ') {
            true => format!("'{}'", row.name),
            false => format!("{0} | '{0} '*", row.name),
        };
        let _ = writeln!(
            text,
            "    {pattern})\n      if [[ $current == -* ]]; then _n8n_backup_words '{own}'; else {operand}; fi ;;"
        );
    }
    text.push_str(
        "  esac\n}\n_n8n_backup_words() {\n  mapfile -t COMPREPLY < <(compgen -W \"$1\" -- \"$current\")\n}\n\
         _n8n_backup_paths() {\n  compopt -o filenames 2>/dev/null\n  \
         mapfile -t COMPREPLY < <(compgen \"$1\" ${2:+-W \"$2\"} -- \"$current\")\n}\n\
         complete -F _n8n_backup n8n-backup\n",
    );
    text
}

/// Text within single quotes of a shell.
fn quoted(text: &str) -> String {
    text.replace('\'', "'\\''")
}

/// An option as `_arguments` of zsh takes it.
fn zsh_option(opt: &Flag) -> String {
    let help = quoted(opt.help)
        .replace('[', "\\[")
        .replace(']', "\\]")
        .replace(':', "\\:");
    let value = opt.value.map_or_else(String::new, |name| {
        let action = match Value::of(name) {
            Value::Directory => "_files -/",
            Value::File => "_files",
            _ => " ",
        };
        format!(":{name}:{action}")
    });
    let long = if opt.value.is_some() {
        format!("--{}=", opt.long)
    } else {
        format!("--{}", opt.long)
    };
    match opt.short {
        Some(short) => format!("'(-{short} --{})'{{-{short},{long}}}'[{help}]{value}'", opt.long),
        None => format!("'{long}[{help}]{value}'"),
    }
}

fn zsh(rows: &[&Row]) -> String {
    let mut text = String::from(
        "#compdef n8n-backup\n_n8n_backup() {\n  local curcontext=$curcontext state line\n  \
         local -a commands\n  commands=(\n",
    );
    for row in rows.iter().filter(|row| !row.name.contains(' ')) {
        let _ = writeln!(text, "    '{}:{}'", row.name, quoted(row.summary).replace(':', "\\:"));
    }
    text.push_str("  )\n  _arguments -C \\\n");
    for opt in GLOBAL {
        let _ = writeln!(text, "    {} \\", zsh_option(opt));
    }
    text.push_str("    '1:command:->command' '*::argument:->argument'\n  case $state in\n");
    text.push_str("    command) _describe command commands ;;\n    argument)\n      case \"$words[1] $words[2]\" in\n");
    for row in parts_first(rows) {
        let mut arguments: Vec<String> = row.flags.iter().chain(GLOBAL).map(zsh_option).collect();
        arguments.extend(row.operand.map(|name| match Value::of(name) {
            Value::File => match parts(row, rows) {
                parts if parts.is_empty() => "'*:file:_files'".to_owned(),
                parts => format!("'*:file:{{compadd {}; _files}}'", parts.join(" ")),
            },
            Value::Directory => "'1:directory:_files -/'".to_owned(),
            Value::Shell => format!("'1:shell:({})'", SHELLS.join(" ")),
            _ => "'1:argument: '".to_owned(),
        }));
        let _ = writeln!(
            text,
            "        {}          _arguments \\\n            {} ;;",
            match row.name.contains(' ') {
                true => format!("'{}')\n          shift words; (( CURRENT-- ))\n", row.name),
                false => format!("'{} '*)\n", row.name),
            },
            arguments.join(" \\\n            ")
        );
    }
    text.push_str("      esac ;;\n  esac\n}\n");
    text.push_str(
        "if [[ $funcstack[1] == _n8n-backup ]]; then _n8n_backup \"$@\"; else compdef _n8n_backup n8n-backup; fi\n",
    );
    text
}

/// Text within single quotes of fish, which knows a backslash there.
fn fish_quoted(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\'', "\\'")
}

fn fish_option(text: &mut String, condition: &str, opt: &Flag) {
    let short = opt.short.map_or_else(String::new, |short| format!(" -s {short}"));
    let value = match opt.value.map(Value::of) {
        None => "",
        Some(Value::Directory) => " -x -a '(__fish_complete_directories)'",
        Some(Value::File) => " -r -F",
        Some(_) => " -x",
    };
    let _ = writeln!(
        text,
        "complete -c n8n-backup{condition}{short} -l {}{value} -d '{}'",
        opt.long,
        fish_quoted(opt.help)
    );
}

fn fish(rows: &[&Row]) -> String {
    let mut text = String::from("# fish completion for n8n-backup\ncomplete -c n8n-backup -f\n");
    for opt in GLOBAL {
        fish_option(&mut text, "", opt);
    }
    for row in rows {
        let seen = match row.name.split_once(' ') {
            None => format!(" -n '__fish_seen_subcommand_from {}'", row.name),
            Some((first, part)) => {
                format!(" -n '__fish_seen_subcommand_from {first}; and __fish_seen_subcommand_from {part}'")
            }
        };
        let (place, word) = match row.name.split_once(' ') {
            None => (" -n __fish_use_subcommand".to_owned(), row.name),
            Some((first, part)) => (format!(" -n '__fish_seen_subcommand_from {first}'"), part),
        };
        let _ = writeln!(
            text,
            "complete -c n8n-backup{place} -a {word} -d '{}'",
            fish_quoted(row.summary)
        );
        for opt in row.flags {
            fish_option(&mut text, &seen, opt);
        }
        match Value::of(row.operand.unwrap_or_default()) {
            Value::File => {
                let _ = writeln!(text, "complete -c n8n-backup{seen} -F");
            }
            Value::Directory => {
                let _ = writeln!(
                    text,
                    "complete -c n8n-backup{seen} -x -a '(__fish_complete_directories)'"
                );
            }
            Value::Shell => {
                let _ = writeln!(text, "complete -c n8n-backup{seen} -a '{}'", SHELLS.join(" "));
            }
            Value::Other => {}
        }
    }
    text
}
