//! fetch-offsite: brings a recovery point back from the off-site copy.

use super::backup_offsite::fetch;
use super::shared::open;
use super::{Command, Run};
use crate::cli::Row;

pub const COMMAND: Command = Command {
    row: &Row {
        name: "fetch-offsite",
        summary: "bring a recovery point back from RCLONE_REMOTE:RCLONE_BUCKET",
        details: "SET is its stamp (YYYYMMDD_HHMMSS) or 'latest', which is the default. Each file gets its name only\n\
                  when its SHA-256 is the recorded one; what is here already is neither fetched nor replaced.",
        operand: Some("[SET]"),
        ..Row::ACTS
    },
    run: Run::Project(|project, call| fetch(&open(project, call)?, call.operand.as_deref()).map(|()| 0)),
};
