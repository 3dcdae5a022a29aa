//! What a check found, for doctor and status.

use crate::process::explained;

/// How bad a finding is; also the exit code of status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As it should be.
    Ok = 0,
    /// Somebody should look at it.
    Warning = 1,
    /// Somebody has to act.
    Critical = 2,
}

impl Level {
    /// The word for it, as monitoring plugins print it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Warning => "WARNING",
            Self::Critical => "CRITICAL",
        }
    }
}

/// What one check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The check.
    pub check: &'static str,
    /// How bad it is.
    pub level: Level,
    /// What was found.
    pub text: String,
}

impl Finding {
    /// A finding of `check`.
    pub fn new(check: &'static str, level: Level, text: impl Into<String>) -> Self {
        Self {
            check,
            level,
            text: text.into(),
        }
    }
}

/// Findings, in the order in which they were made.
#[derive(Debug, Default)]
pub struct Report(pub Vec<Finding>);

impl Report {
    /// All is well.
    pub fn ok(&mut self, check: &'static str, text: impl Into<String>) {
        self.0.push(Finding::new(check, Level::Ok, text));
    }

    /// Somebody should look at it.
    pub fn warn(&mut self, check: &'static str, text: impl Into<String>) {
        self.0.push(Finding::new(check, Level::Warning, text));
    }

    /// Somebody has to act.
    pub fn fail(&mut self, check: &'static str, text: impl Into<String>) {
        self.0.push(Finding::new(check, Level::Critical, text));
    }

    /// Somebody has to act on an error.
    pub fn error(&mut self, check: &'static str, error: &anyhow::Error) {
        self.fail(check, explained(error));
    }

    /// A question that was answered, or could not be.
    pub fn result(&mut self, check: &'static str, result: anyhow::Result<String>) {
        match result {
            Ok(text) => self.ok(check, text),
            Err(error) => self.error(check, &error),
        }
    }
}
