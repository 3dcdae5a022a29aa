//! man: the manual page.

use super::{rows, Command, Run};
use crate::cli::{man, Row};

pub const COMMAND: Command = Command {
    row: &Row {
        name: "man",
        summary: "print the manual page",
        details: "To read it: n8n-backup man | man -l -",
        ..Row::TELLS
    },
    run: Run::Text(|_| Ok(man::page(&rows()))),
};
