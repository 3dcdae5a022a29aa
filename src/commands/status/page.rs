//! The verdict as a page: one file without script, network or anything that is not escaped.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use chrono::Local;

use super::checks::{span, Seen, State};
use super::worst;
use crate::app::App;
use crate::process::explained;
use crate::report::finding::{Finding, Level};
use crate::report::units;
use crate::store::atomic::{self, Access};
use crate::store::marks::DrillOutcome;
use crate::store::Stamp;

const STYLE: &str = include_str!("page.css");
/// How many points the chart and the table show, the newest of them.
const SHOWN: usize = 60;

/// Writes the page to `file`: whole, or not at all, and for its owner alone. A run that has failed is told, since it need
/// not have left anything that is looked at.
pub fn write(app: &App, file: &Path, max_age: Duration, succeeded: bool) -> Result<()> {
    let (state, mut findings) = match State::gather(app) {
        Ok(state) => {
            let findings = state.findings(max_age);
            (state, findings)
        }
        // The page of before would go on saying that all is well.
        Err(error) => {
            let finding = Finding::new("directories", Level::Critical, explained(&error));
            (State::default(), vec![finding])
        }
    };
    let is_told = |finding: &Finding| finding.check == "run" && finding.level != Level::Ok;
    if !succeeded && !findings.iter().any(is_told) {
        findings.retain(|finding| finding.check != "run");
        findings.push(Finding::new("run", Level::Warning, "the last run failed"));
    }
    let text = page(&app.config.project.to_string_lossy(), &state, &findings);
    let name = file
        .file_name()
        .context("a page needs the name of a file")?
        .to_string_lossy();
    let file = std::path::absolute(file).with_context(|| format!("Cannot write {}", file.display()))?;
    atomic::replace(&file, &format!(".{name}.new"), text.as_bytes(), Access::PRIVATE)
}

/// The page of what is known of a project.
pub(super) fn page(project: &str, state: &State, findings: &[Finding]) -> String {
    let level = worst(findings);
    let mut html = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"robots\" content=\"noindex\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>{} - n8n backups</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<h1>n8n backups</h1>\n\
         <p class=\"soft\">{} - as of {}</p>\n",
        level.name(),
        escaped(project),
        Local::now().format("%Y-%m-%d %H:%M %:z")
    );
    let headline = match (level, state.newest()) {
        (Level::Ok, Some((_, point))) => format!("The newest recovery point is {} old.", span(point.age)),
        _ => "Somebody has to look at this.".to_owned(),
    };
    let _ = write!(
        html,
        "<section class=\"verdict {}\">\n<p><b>{}</b> {}</p>\n<p>Next:</p>\n<ol>\n",
        class(level),
        level.name(),
        escaped(&headline)
    );
    for step in next_steps(state, findings) {
        let _ = writeln!(html, "<li>{}</li>", escaped(&step));
    }
    html.push_str("</ol>\n</section>\n");
    cards(&mut html, state);
    html.push_str("<h2>Checks</h2>\n<div class=\"table\"><table>\n");
    for finding in findings {
        let _ = writeln!(
            html,
            "<tr class=\"{}\"><td class=\"level\">{}</td><th class=\"check\">{}</th><td class=\"soft\">{}</td></tr>",
            class(finding.level),
            finding.level.name(),
            escaped(finding.check),
            escaped(&finding.text)
        );
    }
    html.push_str("</table></div>\n");
    let first = state.points.len().saturating_sub(SHOWN);
    let shown = &state.points[first..];
    if !shown.is_empty() {
        chart(&mut html, shown);
        table(&mut html, shown);
    }
    let _ = write!(
        html,
        "<p class=\"soft\">n8n-backup {}. This page does not change by itself: a time above that is old means that nothing \
         has written it since.</p>\n</body>\n</html>\n",
        env!("CARGO_PKG_VERSION")
    );
    html
}

/// What to do, the most urgent first.
fn next_steps(state: &State, findings: &[Finding]) -> Vec<String> {
    let mut wrong: Vec<&Finding> = findings.iter().filter(|finding| finding.level > Level::Ok).collect();
    wrong.sort_by_key(|finding| std::cmp::Reverse(finding.level));
    let mut steps: Vec<String> = wrong.iter().map(|finding| step(finding)).collect();
    if state.newest().is_none() {
        return steps;
    }
    if state.drill_success().is_none() {
        steps.push(
            "Prove that a backup can be restored: scripts/test-recovery.sh --full, or BACKUP_DRILL=full in .env"
                .to_owned(),
        );
    }
    if !state.offsite_wanted
        && state
            .points
            .iter()
            .all(|point| point.offsite.is_none() && point.copy_defect.is_none())
    {
        steps.push("Keep a copy on another machine: docs/offsite.md".to_owned());
    }
    if steps.is_empty() {
        steps.push("Nothing. Look again tomorrow.".to_owned());
    }
    steps
}

/// What to do about a finding.
fn step(finding: &Finding) -> String {
    let what = match finding.check {
        "age" => "Make a backup (scripts/backup-all.sh), and see in logs/backup.log why none came",
        "run" => "See in logs/backup.log what failed, then run scripts/backup-all.sh",
        "files" => "n8n-backup verify --all tells which files are damaged; make a new backup",
        "size" => "See whether data is missing: n8n-backup list",
        "proven" => "See in logs/recovery-test.log what failed; make a new backup and test that",
        "offsite" => "Run scripts/backup-offsite.sh, and see what it says",
        "clock" => "Set the clock of the host right",
        "directories" => "Mount the disk of the backups",
        "restore" => "Run the interrupted restore again",
        "manifests" => "n8n-backup list names what cannot be read",
        "disk" if finding.text.contains("cannot be told") => "See whether the disk of the backups is there",
        "disk" => "Make room on the disk of the backups, or keep fewer (docs/retention.md)",
        _ => "Look at this",
    };
    format!("{what} ({}: {})", finding.check, finding.text)
}

/// What is safe, and since when.
fn cards(html: &mut String, state: &State) {
    let latest = |is: &dyn Fn(&Seen) -> bool| state.points.iter().rev().find(|point| is(point));
    let cards = [
        ("Last restorable point", state.newest().map(|(_, point)| point)),
        ("Last proven by a drill", latest(&Seen::is_proven)),
        ("Last verified", latest(&|point| point.verified.is_some())),
        ("Last off-site", latest(&|point| point.offsite.is_some())),
    ];
    html.push_str("<h2>What is safe, and since when</h2>\n<div class=\"cards\">\n");
    for (title, point) in cards {
        let (what, more) = match point {
            Some(point) => (
                date(&point.name),
                format!("{} old, {}", span(point.age), units::amount(point.bytes)),
            ),
            None => ("none".to_owned(), "not yet".to_owned()),
        };
        let _ = writeln!(
            html,
            "<div class=\"card\"><span class=\"soft\">{title}</span><strong>{}</strong><span class=\"soft\">{more}</span></div>",
            escaped(&what)
        );
    }
    let (count, bytes) = state.stored();
    let free = state.free().map_or_else(|| "unknown".to_owned(), units::amount);
    let _ = write!(
        html,
        "<div class=\"card\"><span class=\"soft\">Kept</span><strong>{count} point(s)</strong><span class=\"soft\">{}, {free} \
         free</span></div>\n</div>\n",
        units::amount(bytes)
    );
}

/// The sizes over time, a bar for each point.
fn chart(html: &mut String, points: &[Seen]) {
    const WIDTH: f64 = 720.0;
    const HEIGHT: f64 = 160.0;
    const LEFT: f64 = 64.0;
    let most = points.iter().map(|point| point.bytes).max().unwrap_or(0).max(1);
    let step = (WIDTH - LEFT) / points.len().max(8) as f64;
    let _ = write!(
        html,
        "<h2>Sizes over time</h2>\n<div class=\"card\"><div class=\"chart\">\n<svg viewBox=\"0 0 {WIDTH} {}\" role=\"img\" aria-label=\"Sizes of the \
         recovery points, oldest first\">\n",
        HEIGHT + 24.0
    );
    for (part, label) in [
        (0.0, units::amount(most)),
        (0.5, units::amount(most / 2)),
        (1.0, "0".to_owned()),
    ] {
        let y = 6.0 + part * (HEIGHT - 6.0);
        let _ = writeln!(
            html,
            "<line x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{WIDTH}\" y2=\"{y:.1}\"/><text x=\"{}\" y=\"{:.1}\" \
             text-anchor=\"end\">{}</text>",
            LEFT - 8.0,
            y + 4.0,
            escaped(&label)
        );
    }
    for (index, point) in points.iter().enumerate() {
        let height = (point.bytes as f64 / most as f64 * (HEIGHT - 6.0)).max(1.0);
        let kind = match () {
            () if point.is_proven() => " proven",
            () if point.why_not_latest.is_some() => " partial",
            () => "",
        };
        let _ = writeln!(
            html,
            "<rect class=\"bar{kind}\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{height:.1}\" rx=\"1.5\"><title>{}: \
             {}</title></rect>",
            LEFT + index as f64 * step + step * 0.1,
            HEIGHT - height,
            step * 0.8,
            escaped(&date(&point.name)),
            units::amount(point.bytes)
        );
    }
    let ends = [points.first(), points.last().filter(|_| points.len() > 1)];
    let last = LEFT + points.len() as f64 * step;
    for (point, x, anchor) in [(ends[0], LEFT, "start"), (ends[1], last.max(LEFT + 260.0), "end")] {
        if let Some(point) = point {
            let _ = writeln!(
                html,
                "<text x=\"{x:.1}\" y=\"{}\" text-anchor=\"{anchor}\">{}</text>",
                HEIGHT + 18.0,
                escaped(&date(&point.name))
            );
        }
    }
    html.push_str(
        "</svg></div>\n<p class=\"soft\"><span class=\"key\" style=\"--tone: var(--proven)\"></span> proven by a drill \
         &nbsp; <span class=\"key\" style=\"--tone: var(--bar)\"></span> whole &nbsp; <span class=\"key\" \
         style=\"--tone: var(--soft)\"></span> not what a restore of the latest takes</p>\n</div>\n",
    );
}

/// The points, newest first: what each holds, and what a drill has proven of it.
fn table(html: &mut String, points: &[Seen]) {
    html.push_str(
        "<h2>Recovery points</h2>\n<div class=\"table\"><table class=\"points\">\n<tr><th>Point</th><th class=\"number\">Size</th><th>State</th>\
         <th>Drill</th><th>Off-site</th></tr>\n",
    );
    for point in points.iter().rev() {
        let mut state = vec![match &point.why_not_latest {
            Some(why) => why.clone(),
            None => "whole".to_owned(),
        }];
        state.extend(point.executions_left_out.then(|| "without executions".to_owned()));
        let bad = [&point.broken, &point.damaged, &point.unreadable];
        state.extend(bad.into_iter().flatten().map(|name| format!("not as it was: {name}")));
        state.extend(point.verified.as_deref().map(|at| format!("verified {}", day(at))));
        state.extend(point.pinned.as_deref().map(|why| match why {
            "" => "pinned".to_owned(),
            why => format!("pinned: {why}"),
        }));
        let _ = writeln!(
            html,
            "<tr><td class=\"stamp\">{}</td><td class=\"number\">{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            escaped(&date(&point.name)),
            units::amount(point.bytes),
            escaped(&state.join(", ")),
            escaped(&drilled(point)),
            escaped(&match (&point.offsite, &point.copy_defect) {
                (Some(copy), _) => day_and_place(copy),
                (None, Some(_)) => "not whole".to_owned(),
                (None, None) => "-".to_owned(),
            })
        );
    }
    html.push_str("</table></div>\n");
}

/// What a drill has proven of a point.
fn drilled(point: &Seen) -> String {
    let Some(outcome) = &point.drill else {
        return "-".to_owned();
    };
    let DrillOutcome { parts, at, failed } = outcome;
    let what = match parts.as_str() {
        "full" => "everything",
        part => part,
    };
    let at = at.to_string();
    let mut text = match outcome.passed() {
        true => format!("{what} recovered {}", day(&at)),
        false => format!("failed {}: {}", day(&at), failed.join(", ")),
    };
    if let Some(key) = &point.key {
        let _ = write!(text, ", credentials {key}");
    }
    text
}

fn class(level: Level) -> &'static str {
    match level {
        Level::Ok => "ok",
        Level::Warning => "warning",
        Level::Critical => "critical",
    }
}

/// A point's name as a date.
fn date(name: &str) -> String {
    Stamp::parse(name).map_or_else(
        || name.to_owned(),
        |stamp| stamp.local().format("%Y-%m-%d %H:%M").to_string(),
    )
}

/// The day of a time in a manifest.
fn day(time: &str) -> &str {
    time.split('T').next().unwrap_or(time)
}

fn day_and_place(copy: &str) -> String {
    let (at, place) = copy.split_once(' ').unwrap_or((copy, ""));
    // How it was compared is for the manifest.
    let place = place.rsplit_once(" (").map_or(place, |(place, _)| place);
    format!("{} {place}", day(at)).trim().to_owned()
}

/// Text for a page, wherever it stands. What controls a terminal or the direction of text is not text.
fn escaped(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            '\n' | '\t' => html.push(' '),
            '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => html.push('?'),
            c if c.is_control() => html.push('?'),
            c => html.push(c),
        }
    }
    html
}

#[cfg(test)]
mod tests {
    use super::super::DEFAULT_MAX_AGE;
    use super::*;
    use crate::config::Config;
    use crate::testing::TempDir;
    use std::fs;

    #[test]
    fn points_that_cannot_be_looked_at_leave_no_page_of_before() {
        let project = TempDir::new();
        fs::create_dir_all(project.path().join("backups")).unwrap();
        fs::write(project.path().join("backups/sets"), "").unwrap();
        let file = project.path().join("status.html");
        fs::write(&file, "<b>OK</b>").unwrap();
        let app = App::new(Config::without_env_file(project.path()).unwrap());
        write(&app, &file, DEFAULT_MAX_AGE, true).unwrap();
        let text = fs::read_to_string(&file).unwrap();
        assert!(
            text.contains("<b>CRITICAL</b>") && text.contains("backups/sets"),
            "{text}"
        );
        assert!(
            text.contains("Mount the disk of the backups") && !text.contains("<b>OK</b>"),
            "{text}"
        );
    }

    #[test]
    fn whatever_is_in_it_the_page_is_inert() {
        let hostile = "<script>alert(1)</script>\" onload='x' &\u{202e}\u{1b}[31m";
        let point = Seen {
            name: "20260102_030405".to_owned(),
            age: 3600,
            bytes: 5 << 20,
            complete: true,
            drill: DrillOutcome::parse(&format!("failed full 2026-01-02T03:04:05+00:00: {hostile}")),
            offsite: Some(format!("2026-01-02T03:04:05+00:00 {hostile}")),
            pinned: Some(hostile.to_owned()),
            key: Some(hostile.to_owned()),
            broken: vec![hostile.to_owned()],
            ..Seen::default()
        };
        let state = State {
            points: vec![point],
            away: vec![hostile.to_owned()],
            ..State::default()
        };
        let text = page(hostile, &state, &state.findings(DEFAULT_MAX_AGE));
        for forbidden in [
            "<script", "onload='", "\" on", "\u{202e}", "\u{1b}", "http://", "https://", "url(", "@import",
        ] {
            assert!(!text.contains(forbidden), "{forbidden}");
        }
        assert!(text.contains("&lt;script&gt;alert(1)&lt;/script&gt;&quot; onload=&#39;x&#39; &amp;?"));
        // Every tag that is opened is closed.
        for tag in ["section", "table", "div", "svg", "p", "span", "ol", "tr", "td"] {
            let count = |what: &str| text.matches(what).count();
            let opened = count(&format!("<{tag}>")) + count(&format!("<{tag} "));
            assert_eq!(opened, count(&format!("</{tag}>")), "{tag}");
        }
    }

    #[test]
    fn the_next_step_is_that_of_the_worst_finding() {
        let point = |age_hours: i64| Seen {
            name: "20260102_030405".to_owned(),
            age: age_hours * 3600,
            complete: true,
            drill: DrillOutcome::parse("passed full 2026-01-02T03:04:05+00:00"),
            offsite: Some("2026-01-02T03:04:05+00:00 nas:b".to_owned()),
            ..Seen::default()
        };
        let steps = |point: Option<Seen>| {
            let state = State {
                points: point.into_iter().collect(),
                ..State::default()
            };
            next_steps(&state, &state.findings(DEFAULT_MAX_AGE))
        };
        assert_eq!(steps(Some(point(1))), ["Nothing. Look again tomorrow."]);
        assert!(steps(Some(point(30)))[0].starts_with("Make a backup (scripts/backup-all.sh)"));
        assert!(steps(None)[0].starts_with("Make a backup"));
        let unproven = steps(Some(Seen {
            drill: None,
            offsite: None,
            ..point(1)
        }));
        assert_eq!(unproven.len(), 2, "{unproven:?}");
        assert!(unproven[0].starts_with("Prove that a backup can be restored"));
    }
}
