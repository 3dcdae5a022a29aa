//! completions: what a shell completes.

use anyhow::{Context as _, Result};

use super::{rows, Command, Run};
use crate::cli::completions::{script, SHELLS};
use crate::cli::{Call, Row};

pub const COMMAND: Command = Command {
    row: &Row {
        name: "completions",
        summary: "print the completions for bash, zsh or fish",
        details: "For bash: n8n-backup completions bash >~/.local/share/bash-completion/completions/n8n-backup",
        operand: Some("SHELL"),
        ..Row::TELLS
    },
    run: Run::Text(run),
};

fn run(call: &Call) -> Result<String> {
    let shell = call.operand().to_string_lossy();
    script(&shell, &rows()).with_context(|| format!("no completions for {shell}: {}", SHELLS.join(", ")))
}
