//! status: is the last backup young, whole, proven, elsewhere, and will the next one fit? Said once for people, programs
//! and monitoring: the exit codes and the first line are those of the Monitoring Plugins' development guidelines.

mod checks;
mod disk;
mod page;

use std::ffi::OsStr;
use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use anyhow::{bail, Context as _, Result};

use super::shared::open;
use super::{Command, Run};
use crate::app::App;
use crate::cli::{Call, Flag, Row};
use crate::formats::json::Json;
use crate::process::explained;
use crate::report::finding::{Finding, Level};
use crate::report::log::ascii;
use crate::report::units;

use checks::span;
pub use checks::State;

const JSON: Flag = Flag::new("json", "print JSON");
const HTML: Flag = Flag::new("html", "also write a page for people: one file, for its owner alone").value("FILE");
const MAX_AGE: Flag = Flag::new(
    "max-age",
    "the newest recovery point is critical when older, as in 26h (default), 90m, 2d",
)
.value("AGE");

pub const COMMAND: Command = Command {
    row: &Row {
        name: "status",
        summary: "tell how old, whole, proven and safe the backups are",
        details: "Exit codes and first line are those of a monitoring plugin: 0 ok, 1 warning, 2 critical, 3 unknown.",
        flags: &[JSON, HTML, MAX_AGE],
        failure: UNKNOWN,
        ..Row::TELLS
    },
    run: Run::Plugin(|project, call| run(&open(project, call)?, call), unknown),
};

const DAY: u64 = 86_400;
/// How old the newest recovery point may be when nothing else is said: a day and two hours for a nightly run.
const DEFAULT_MAX_AGE: Duration = Duration::from_secs(26 * 3600);
/// The exit code when nothing can be told.
const UNKNOWN: u8 = 3;

/// Reads a duration such as `26h`, `90m`, `2d`, `45s`.
pub fn parse_age(text: &str) -> Result<Duration> {
    let (number, unit) = text.split_at(text.len() - text.chars().next_back().map_or(0, char::len_utf8));
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => DAY,
        _ => bail!("not an age such as 26h, 90m or 2d: '{text}'"),
    };
    number
        .parse::<u32>()
        .map(|number| Duration::from_secs(u64::from(number) * unit))
        .with_context(|| format!("not an age such as 26h, 90m or 2d: '{text}'"))
}

/// The line for monitoring when nothing can be told, or the JSON.
fn unknown(call: &Call, error: &anyhow::Error) -> String {
    let text = ascii(&explained(error));
    if !call.has(&JSON) {
        return format!("BACKUP UNKNOWN - {text}\n");
    }
    let json = Json::object([
        ("status", Json::text("unknown")),
        ("code", Json::number(UNKNOWN)),
        ("error", Json::text(text)),
    ]);
    format!("{json}\n")
}

/// Prints the verdict and gives its exit code: 0 ok, 1 warning, 2 critical.
fn run(app: &App, call: &Call) -> Result<u8> {
    let (max_age, json) = (call.value(&MAX_AGE), call.has(&JSON));
    if let Some(file) = call.value(&HTML) {
        let limit = max_age.map_or(Ok(DEFAULT_MAX_AGE), |text| parse_age(&text.to_string_lossy()));
        page::write(app, Path::new(file), limit.context("Bad --max-age")?, true)?;
    }
    let (level, text) = tell(app, max_age, json)?;
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .context("Cannot write to standard output")?;
    Ok(level as u8)
}

/// Writes the page that `BACKUP_STATUS_PAGE` names.
pub fn write_page(app: &App, succeeded: bool) -> Result<()> {
    let Some(file) = &app.config.status_page else {
        return Ok(());
    };
    page::write(app, file, DEFAULT_MAX_AGE, succeeded).context("BACKUP_STATUS_PAGE was not written")
}

fn tell(app: &App, max_age: Option<&OsStr>, json: bool) -> Result<(Level, String)> {
    let max_age = match max_age {
        Some(text) => parse_age(&text.to_string_lossy()).context("Bad --max-age")?,
        None => DEFAULT_MAX_AGE,
    };
    let state = State::gather(app)?;
    let findings = state.findings(max_age);
    let level = worst(&findings);
    let text = if json {
        format!("{}\n", state.json(&findings))
    } else {
        state.report(&findings, max_age)
    };
    Ok((level, text))
}

fn worst(findings: &[Finding]) -> Level {
    findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok)
}

impl State {
    fn report(&self, findings: &[Finding], max_age: Duration) -> String {
        let level = worst(findings);
        let headline = match (level, self.newest()) {
            (Level::Ok, Some((_, point))) => format!(
                "recovery point {}, {} old, {}",
                point.name,
                span(point.age),
                units::amount(point.bytes)
            ),
            _ => findings
                .iter()
                .filter(|finding| finding.level == level)
                .map(|finding| format!("{}: {}", finding.check, finding.text))
                .collect::<Vec<_>>()
                .join("; "),
        };
        let mut text = format!("BACKUP {} - {headline}", level.name());
        let mut performance = Vec::new();
        if let Some((_, point)) = self.newest() {
            performance.push(format!("age={}s;;{};0", point.age.max(0), max_age.as_secs()));
            performance.push(format!("size={}B;;;0", point.bytes));
        }
        let disk = self.tightest().and_then(|disk| Some((disk.free?, disk.reserve)));
        performance.extend(disk.map(|(free, reserve)| format!("free={free}B;;{reserve}:;0")));
        performance.push(format!("points={};;;0", self.stored().0));
        text = format!("{} | {}\n", text.replace('|', "/"), performance.join(" "));
        for finding in findings {
            text.push_str(&format!(
                "[{}] {}: {}\n",
                finding.level.name(),
                finding.check,
                finding.text
            ));
        }
        text.lines().map(|line| format!("{}\n", ascii(line))).collect()
    }

    fn json(&self, findings: &[Finding]) -> Json {
        let level = worst(findings);
        let newest = self.newest().map_or(Json::Null, |(_, point)| {
            Json::object([
                ("name", Json::text(&point.name)),
                ("age_seconds", Json::number(point.age)),
                ("bytes", Json::number(point.bytes)),
                ("verified", Json::maybe(point.verified.as_deref())),
                ("drill", Json::maybe(point.drill.as_ref().map(ToString::to_string))),
                (
                    "proofs",
                    Json::Object(
                        point
                            .proofs
                            .iter()
                            .map(|(name, text)| ((*name).to_owned(), Json::text(text)))
                            .collect(),
                    ),
                ),
                ("offsite", Json::maybe(point.offsite.as_deref())),
            ])
        });
        let checks = findings.iter().map(|finding| {
            Json::object([
                ("check", Json::text(finding.check)),
                ("status", Json::text(finding.level.name().to_ascii_lowercase())),
                ("text", Json::text(&finding.text)),
            ])
        });
        Json::object([
            ("status", Json::text(level.name().to_ascii_lowercase())),
            ("code", Json::number(level as i64)),
            ("newest", newest),
            ("points", Json::number(self.stored().0)),
            ("stored_bytes", Json::number(self.stored().1)),
            ("free_bytes", self.free().map_or(Json::Null, Json::number)),
            (
                "days_until_full",
                self.days_until_full().map_or(Json::Null, Json::number),
            ),
            ("checks", Json::List(checks.collect())),
        ])
    }
}

#[cfg(test)]
mod tests;
