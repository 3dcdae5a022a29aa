//! How a script ended and what it said.

use std::time::Duration;

/// How a script ended and what it said.
#[derive(Debug)]
pub struct Outcome {
    /// The exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// What was added to `logs/backup.log` meanwhile.
    pub log: String,
    /// How long it took.
    pub took: Duration,
    /// The largest resident size of the binary that was seen, in KiB.
    pub peak_kib: u64,
}

/// One line of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// `INFO`, `SUCCESS`, `WARN` or `ERROR`.
    pub level: String,
    /// The command that it is tagged with.
    pub command: String,
    /// The text after that.
    pub message: String,
}

impl Outcome {
    /// Fails unless the exit code is 0 and standard error is empty.
    #[track_caller]
    pub fn assert_success(&self) -> &Self {
        assert!(
            self.code == Some(0) && self.stderr.is_empty(),
            "success expected: {self}"
        );
        self
    }

    /// Fails unless the exit code is 1 and exactly one ERROR line says what went wrong, matching `pattern`, where `{}`
    /// stands for any text. Lines that tell the cause of another do not count.
    #[track_caller]
    pub fn assert_error(&self, pattern: &str) -> &Self {
        let errors = self.errors();
        assert!(
            self.code == Some(1) && errors.len() == 1 && matches(pattern, &errors[0]),
            "exit code 1 and the one error '{pattern}' expected, not {errors:?}: {self}"
        );
        self
    }

    /// The messages of level ERROR, without those that tell the cause of another, or what to do.
    pub fn errors(&self) -> Vec<String> {
        self.lines()
            .into_iter()
            .filter(|line| line.level == "ERROR")
            .filter(|line| !line.message.starts_with("Cause: ") && !line.message.starts_with("Hint: "))
            .map(|line| line.message)
            .collect()
    }

    /// The log lines.
    ///
    /// # Panics
    /// When a line has another form.
    #[track_caller]
    pub fn lines(&self) -> Vec<Line> {
        self.log.lines().map(parse_line).collect()
    }

    /// The messages of one command as `LEVEL message`.
    #[track_caller]
    pub fn messages(&self, command: &str) -> Vec<String> {
        self.lines()
            .into_iter()
            .filter(|line| line.command == command)
            .map(|line| format!("{} {}", line.level, line.message))
            .collect()
    }

    /// Fails unless each pattern (`LEVEL message`, where `{}` stands for any text) matches exactly one line of the
    /// command, in this order. Other lines may stand between. A pattern that is given twice must be there twice.
    #[track_caller]
    pub fn assert_messages(&self, command: &str, patterns: &[&str]) -> &Self {
        let said = self.messages(command);
        let mut next = 0;
        for pattern in patterns {
            match said.iter().skip(next).position(|message| matches(pattern, message)) {
                Some(at) => next += at + 1,
                None => panic!("[{command}] not in order or not there: {pattern}\n{self}"),
            }
            let wanted = patterns.iter().filter(|other| *other == pattern).count();
            let count = said.iter().filter(|message| matches(pattern, message)).count();
            assert_eq!(count, wanted, "[{command}] times: {pattern}\n{self}");
        }
        self
    }

    /// Fails unless the log has a line of this command and pattern (`LEVEL message`).
    #[track_caller]
    pub fn assert_log_has(&self, command: &str, pattern: &str) -> &Self {
        let there = self.messages(command).iter().any(|message| matches(pattern, message));
        assert!(there, "[{command}] missing: {pattern}\n{self}");
        self
    }

    /// Fails when `text` is anywhere in what was said.
    #[track_caller]
    pub fn assert_never_says(&self, text: &str) -> &Self {
        let all = [&self.stdout, &self.stderr, &self.log];
        assert!(!all.iter().any(|said| said.contains(text)), "'{text}' is said: {self}");
        self
    }

    /// Fails unless standard output and the log have the same lines.
    #[track_caller]
    pub fn assert_logged_as_printed(&self) -> &Self {
        assert_eq!(self.stdout, self.log, "standard output and log differ");
        self
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "exit code {:?} after {:?}", self.code, self.took)?;
        writeln!(f, "--- standard output\n{}", self.stdout)?;
        writeln!(f, "--- standard error\n{}", self.stderr)?;
        if self.log != self.stdout {
            writeln!(f, "--- log\n{}", self.log)?;
        }
        Ok(())
    }
}

#[track_caller]
fn parse_line(line: &str) -> Line {
    let parsed = || -> Option<Line> {
        let (level, rest) = line.strip_prefix('[')?.split_once("] ")?;
        let (time, rest) = rest.split_at_checked(19)?;
        let (command, message) = rest.strip_prefix(" [")?.split_once("] ")?;
        let shape: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        let known = ["INFO", "SUCCESS", "WARN", "ERROR"].contains(&level)
            && shape == "0000-00-00 00:00:00"
            && line.chars().all(|c| c == ' ' || c.is_ascii_graphic());
        known.then(|| Line {
            level: level.to_owned(),
            command: command.to_owned(),
            message: message.to_owned(),
        })
    };
    parsed().unwrap_or_else(|| panic!("not a line of the log: {line:?}"))
}

/// Whether `text` is `pattern`, where each `{}` stands for one or more characters.
pub fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once("{}") {
        None => pattern == text,
        Some((before, after)) => text.strip_prefix(before).is_some_and(|rest| {
            rest.char_indices()
                .skip(1)
                .map(|(at, _)| at)
                .chain((!rest.is_empty()).then_some(rest.len()))
                .any(|at| matches(after, &rest[at..]))
        }),
    }
}
