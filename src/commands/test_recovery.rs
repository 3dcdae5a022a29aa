//! test-recovery: the drill. One recovery point is recovered into scratch containers and compared, and its credentials
//! are decrypted with its own key. The live stack is only asked which images it runs.

mod points;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use anyhow::{anyhow, bail, ensure, Context as _, Error, Result};

use super::shared::open_stack;
use super::{Command, Run};
use crate::app::App;
use crate::cli::{Call, Flag, Row};
use crate::components::drill::{self, check_file, DrillEnv, Drilled, Inconclusive, JOURNAL};
use crate::components::n8n_image::{self, N8nImage};
use crate::components::{component, key_proof, n8n_proof, Component, COMPONENTS};
use crate::config::Drill;
use crate::process::hinted;
use crate::report::log;
use crate::report::units;
use crate::store::manifest::{self, Point, DRILL_TOOK};
use crate::store::marks::{self, DrillOutcome, Mark, Time};
use crate::store::{Kind, Stamp};
use crate::stream::read::is_no_verdict;

/// The name of the key proof, beside those of the components.
const KEY: &str = "key";
/// The name of n8n's own proof.
const N8N: &str = marks::START;

/// What is to be tested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Parts(&'static [Kind]);

impl Parts {
    /// Everything.
    const FULL: Self = Self(&Kind::PARTS);

    /// One component; a database with the key.
    fn one(kind: Kind) -> Self {
        let at = Kind::PARTS.iter().position(|each| *each == kind).unwrap_or_default();
        Self(&Kind::PARTS[at..=at])
    }

    fn holds(self, kind: Kind) -> bool {
        self.0.contains(&kind)
    }

    /// The word for it, as on the command line.
    fn word(self) -> &'static str {
        match self.0 {
            [one] => one.name(),
            _ => marks::FULL,
        }
    }
}

const FULL: Flag = Flag::new("full", "all of these, and the environment file");
const LIST: Flag = Flag::new(
    "list",
    "list the recovery points and what the last test of each has shown",
);

/// Those components that can be tested by themselves, each with its flag.
fn single() -> impl Iterator<Item = (Kind, Flag)> {
    COMPONENTS.iter().filter_map(|component| {
        let (kind, help) = (component.kind(), component.about().drill?);
        Some((kind, Flag::new(kind.name(), help)))
    })
}

static FLAGS: LazyLock<Vec<Flag>> = LazyLock::new(|| single().map(|(_, flag)| flag).chain([FULL, LIST]).collect());
static ROW: LazyLock<Row> = LazyLock::new(|| Row {
    name: "test-recovery",
    summary: "recover a recovery point into scratch containers, and compare",
    details:
        "SET is a recovery point's stamp (YYYYMMDD_HHMMSS) or 'latest'; without it, the newest that holds what is to\n\
              be tested. Nothing of the live stack is touched: the containers are created from its images, have no\n\
              network and none of its volumes. Exits 0 when all passed, 1 when a test failed, 2 when one could not be\n\
              made. Give exactly one option that says what is tested, or --list.",
    operand: Some("[SET]"),
    flags: &FLAGS,
    log: Some("recovery-test.log"),
    failure: 2,
    in_background: true,
});

pub fn command() -> Command {
    Command {
        row: &ROW,
        run: Run::Project(run),
    }
}

fn run(project: &Path, call: &Call) -> Result<u8> {
    let app = open_stack(project, call)?;
    let mut asked: Vec<Option<Parts>> = single()
        .filter(|(_, flag)| call.has(flag))
        .map(|(kind, _)| Some(Parts::one(kind)))
        .collect();
    asked.extend(call.has(&FULL).then_some(Some(Parts::FULL)));
    asked.extend(call.has(&LIST).then_some(None));
    match asked[..] {
        [None] => points::list(&app).map(|()| 0),
        [Some(parts)] => test_one(&app, parts, call.operand.as_deref()).map(u8::from),
        _ => {
            let names: Vec<String> = FLAGS.iter().map(|flag| format!("--{}", flag.long)).collect();
            bail!("one of {} has to be given", names.join(", "))
        }
    }
}

/// Tests the newest recovery point that holds what is asked, or the one that `set` names by its stamp. Gives whether a
/// test has failed, which is logged then.
fn test_one(app: &App, parts: Parts, set: Option<&OsStr>) -> Result<bool> {
    JOURNAL.info(format_args!("Starting recovery test: {}", parts.word()));
    log::check_started().context(Inconclusive)?;
    let _lock = drill::hold(app).context(Inconclusive)?;
    failed(points::choose(app, parts, set).and_then(|point| test(app, &point, parts, None)))
}

/// Another n8n or PostgreSQL than that of the stack.
#[derive(Default)]
pub struct Rehearsal {
    /// The image of n8n; that of the stack without it.
    pub n8n: Option<N8nImage>,
    /// The ID of PostgreSQL's image.
    pub postgres: Option<String>,
    /// The names of both.
    pub names: String,
}

/// Tests everything of a point with other images. Gives whether that has failed, which is logged then.
pub fn rehearse(app: &App, rehearsal: &Rehearsal, set: Option<&OsStr>) -> Result<bool> {
    let _lock = drill::hold(app).context(Inconclusive)?;
    let point = points::choose(app, Parts::FULL, set)?;
    check_images(&point, rehearsal).context(Inconclusive)?;
    failed(test(app, &point, Parts::FULL, Some(rehearsal)))
}

/// Refuses a PostgreSQL that would not be started, and an n8n to which there is no update.
fn check_images(point: &Point, rehearsal: &Rehearsal) -> Result<()> {
    ensure!(
        rehearsal.postgres.is_none() || !point.is_unused(Kind::Postgres),
        hinted(
            format_args!(
                "Recovery point {} uses no PostgreSQL to rehearse an update of",
                point.stamp
            ),
            "leave out --postgres-image, or name a recovery point that does"
        )
    );
    match rehearsal.n8n.as_ref().and_then(|n8n| n8n.why_too_old(point)) {
        Some(why) => bail!(hinted(why, "name the n8n that you want to update to")),
        None => Ok(()),
    }
}

/// Whether a test has failed; what kept it from being made stays an error.
fn failed(done: Result<()>) -> Result<bool> {
    match done {
        Ok(()) => Ok(false),
        Err(error) if error.downcast_ref::<Inconclusive>().is_some() => Err(error),
        Err(error) => {
            JOURNAL.failure(&error);
            Ok(true)
        }
    }
}

/// Tests the recovery point `stamp` that a run has just made, as the settings ask for it.
///
/// # Errors
/// When a test failed; with [`Inconclusive`] when one could not be made.
pub fn after_backup(app: &App, stamp: Stamp) -> Result<()> {
    let parts = match app.config.drill {
        Drill::Off => return Ok(()),
        Drill::Postgres => Parts::one(app.config.found.database()),
        Drill::Full => Parts::FULL,
    };
    JOURNAL.info(format_args!("Starting recovery test: {}", parts.word()));
    let _lock = drill::hold(app).context(Inconclusive)?;
    let point = Point::load(&app.store.set_path(stamp)).context(Inconclusive)?;
    test(app, &point, parts, None)
}

/// What has come of the tests so far.
#[derive(Default)]
struct Tally {
    passed: Vec<&'static str>,
    failed: Vec<&'static str>,
    unready: usize,
    took: Vec<(Kind, Duration)>,
}

impl Tally {
    /// Takes the outcome of one test: logs it, and gives what it gave.
    fn take<T>(&mut self, name: &'static str, title: &str, outcome: Result<T>) -> Option<T> {
        let error = match outcome {
            Ok(value) => {
                self.passed.push(name);
                return Some(value);
            }
            Err(error) => error,
        };
        // A file that this host cannot decrypt, or not read just now, may be as whole as any.
        if error.downcast_ref::<Inconclusive>().is_some() || is_no_verdict(&error) {
            self.unready += 1;
            JOURNAL.failure(&error.context(format!("{title} could not be tested")));
        } else {
            self.failed.push(name);
            JOURNAL.failure(&error.context(format!("{title} test failed")));
        }
        None
    }

    fn all_passed(&self) -> bool {
        self.failed.is_empty() && self.unready == 0 && !self.passed.is_empty()
    }

    /// What has failed, by this test or one before it that this one did not come to.
    fn still_failed(&self, before: Option<&DrillOutcome>) -> Vec<String> {
        let tested = |name: &str| self.passed.iter().chain(&self.failed).any(|known| *known == name);
        let before = before
            .into_iter()
            .flat_map(|before| before.failed.iter().map(String::as_str));
        let failed = self.failed.iter().copied();
        failed
            .chain(before.filter(|name| !tested(name)))
            .map(str::to_owned)
            .collect()
    }

    /// How long each recovery took, as the manifest tells it.
    fn seconds(&self) -> String {
        let each = self.took.iter().rev();
        let each = each.map(|(kind, took)| format!("{} {:.1}", kind.name(), took.as_secs_f64()));
        each.collect::<Vec<_>>().join(", ")
    }

    fn report(&mut self, kind: Kind, title: &str, drilled: &Drilled<'_>) {
        self.took.push((kind, drilled.took));
        JOURNAL.success(format_args!(
            "{title}: {} recovered in {}",
            drilled.what,
            units::span(drilled.took)
        ));
    }
}

/// Tests the parts of a point, one after another.
fn test(app: &App, point: &Point, parts: Parts, rehearsal: Option<&Rehearsal>) -> Result<()> {
    JOURNAL.info(format_args!(
        "Recovery point: {}, {} old",
        point.stamp,
        units::span(point.time().elapsed().unwrap_or_default())
    ));
    let components = points::used(point, parts).context(Inconclusive)?;
    let _used = point.hold(&app.store).context(Inconclusive)?;
    let (mut env, left) = DrillEnv::new(app, point).context(Inconclusive)?;
    env.postgres_image = rehearsal.and_then(|rehearsal| rehearsal.postgres.clone());
    if left > 0 {
        JOURNAL.warn(format_args!(
            "Removed {left} scratch container(s) that an interrupted test left"
        ));
    }
    let mut run = Tally::default();
    let mut keys = BTreeMap::new();
    let mut database = None;
    let mut files = None;
    // The database comes last: what it holds is proven by the keys that the others do.
    for component in components.into_iter().rev() {
        let (kind, title) = (component.kind(), component.about().title);
        let outcome = checked(&env, component).and_then(|path| component.drill(&env, &path));
        let outcome = outcome.map_err(|error| drill::explain(error, title, env.memory()));
        if let Some(drilled) = run.take(kind.name(), title, outcome) {
            run.report(kind, title, &drilled);
            keys.extend(drilled.key.map(|key| (kind, key)));
            database = database.or(drilled.database);
            files = files.or(drilled.files);
        }
    }
    let mut shown = Vec::new();
    if let Some(database) = database {
        if let Some(files) = &files {
            drill::compare_binary_data(&*database, files);
        }
        let n8n = n8n_of(&env, rehearsal).context(Inconclusive);
        let outcome = n8n.and_then(|n8n| {
            let keys = key_proof::all_keys(&env, keys)?;
            Ok((key_proof::prove(&env, &keys, &*database, n8n.as_ref())?, n8n))
        });
        if let Some((proof, n8n)) = run.take(KEY, "Encryption key", outcome) {
            shown.push((marks::KEY, proof.words.clone()));
            let tried = parts == Parts::FULL && run.all_passed();
            let archive = component(Kind::N8n)?.member(point).filter(|_| tried);
            let too_old = n8n.as_ref().and_then(|n8n| n8n.why_too_old(point));
            let lacking = match (&n8n, archive) {
                (None, _) => Some("its image is not on this host"),
                (_, None) => Some("the recovery point holds no home of n8n"),
                _ => too_old.as_deref(),
            };
            if let Some(why) = lacking.filter(|_| tried) {
                if rehearsal.is_some() {
                    run.unready += 1;
                }
                JOURNAL.warn(format_args!("n8n was not started from the backup: {why}"));
            }
            if let (Some(n8n), Some(archive), None) = (n8n, archive, lacking) {
                match n8n_proof::prove(&env, &n8n, &*database, &proof, &env.path(archive)) {
                    // It was not tried, which was warned of.
                    Ok(facts) if facts.is_empty() => run.unready += usize::from(rehearsal.is_some()),
                    outcome => shown.extend(run.take(N8N, "n8n", outcome).unwrap_or_default()),
                }
            }
        }
    }
    if run.all_passed() {
        JOURNAL.info(format_args!(
            "A recovery of this would take about {} (RTO), and its data would be {} old (RPO)",
            units::span(run.took.iter().map(|(_, took)| *took).sum()),
            units::span(point.time().elapsed().unwrap_or_default())
        ));
    }
    conclude(app, point, parts, &run, &shown, rehearsal)
}

/// The n8n that is to open the credentials.
fn n8n_of(env: &DrillEnv<'_>, rehearsal: Option<&Rehearsal>) -> Result<Option<N8nImage>> {
    let live = n8n_image::find(env.app, &env.docker, env.point)?;
    match rehearsal.and_then(|rehearsal| rehearsal.n8n.clone()) {
        Some(other) => Ok(Some(other.in_place_of(live, &env.docker)?)),
        None => Ok(live),
    }
}

/// The file of a component, when it is the one that was recorded.
fn checked(env: &DrillEnv<'_>, component: &dyn Component) -> Result<PathBuf> {
    let name = component.kind().name();
    let member = component.member(env.point);
    let member = member.with_context(|| format!("Recovery point {} holds no {name}", env.point.stamp))?;
    let path = env.path(member);
    JOURNAL.info(format_args!("Testing {}", path.display()));
    check_file(env.app, &path, member)?;
    Ok(path)
}

/// What a test that passed makes of the mark that its point bears.
#[derive(Debug, PartialEq, Eq)]
enum Change {
    Keep,
    Clear,
    Set,
}

/// A lesser test takes nothing away from a full one, nor from a failure of what it did not test; and what proves a point is
/// at least its database. Whether n8n starts is not tested where its image is not here.
fn after_pass(before: Option<&DrillOutcome>, parts: Parts, started: bool) -> Change {
    let proves = parts.0.iter().any(|kind| kind.is_database());
    let tested = |name: &String| match name.as_str() {
        N8N => started,
        name => marks::tests(parts.word(), name),
    };
    match before {
        Some(before) if !before.passed() => match (before.failed.iter().all(tested), proves) {
            (false, _) => Change::Keep,
            (true, false) => Change::Clear,
            (true, true) => Change::Set,
        },
        _ if parts == Parts::FULL => Change::Set,
        Some(before) if before.parts == Parts::FULL.word() => Change::Keep,
        _ if proves => Change::Set,
        _ => Change::Keep,
    }
}

/// Records the outcome in the manifest and turns it into the exit code.
fn conclude(
    app: &App,
    point: &Point,
    parts: Parts,
    run: &Tally,
    shown: &[(&str, String)],
    rehearsal: Option<&Rehearsal>,
) -> Result<()> {
    let word = parts.word();
    let passed = run.all_passed();
    if let Some(rehearsal) = rehearsal {
        if passed {
            let words = format!("{} {}", rehearsal.names, Time::now());
            manifest::update(&app.store, point.stamp, |point| point.set(marks::REHEARSED, &words))?;
        }
    } else if passed || !run.failed.is_empty() {
        let marked = manifest::update(&app.store, point.stamp, |point| {
            let before = point.drill();
            let outcome = |failed| {
                Mark::Drill(DrillOutcome {
                    parts: word.to_owned(),
                    at: Time::now(),
                    failed,
                })
            };
            if !passed {
                point.mark(&outcome(run.still_failed(before.as_ref())));
                marks::PROOFS.iter().for_each(|fact| point.unset(fact));
                point.unset(DRILL_TOOK);
                return;
            }
            match after_pass(before.as_ref(), parts, run.passed.contains(&N8N)) {
                Change::Keep => return,
                Change::Clear => {
                    point.unset(marks::DRILL);
                    point.unset(DRILL_TOOK);
                }
                Change::Set => {
                    point.mark(&outcome(Vec::new()));
                    point.set(DRILL_TOOK, &run.seconds());
                }
            }
            marks::PROOFS.iter().for_each(|fact| point.unset(fact));
            shown.iter().for_each(|(fact, words)| point.set(fact, words));
        });
        if let Err(error) = marked {
            JOURNAL.warning(&error.context("The outcome could not be recorded in the manifest"));
        }
    }
    if !run.failed.is_empty() {
        bail!(
            "Recovery test failed: {} of recovery point {}",
            run.failed.join(", "),
            point.stamp
        );
    }
    if !passed {
        return Err(unfinished(run.unready));
    }
    JOURNAL.success(format_args!(
        "Recovery test passed: {word} of recovery point {} ({}/{})",
        point.stamp,
        run.passed.len(),
        run.passed.len()
    ));
    Ok(())
}

fn unfinished(parts: usize) -> Error {
    anyhow!("{parts} part(s) could not be tested").context(Inconclusive)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[test]
    fn what_cannot_be_read_in_a_test_has_not_failed_it() {
        let mut run = Tally::default();
        let unreadable = io::Error::from_raw_os_error(5);
        let outcome: Result<()> = Err(Error::new(unreadable).context("reading n8n.sql.gz"));
        assert!(run.take("postgres", "PostgreSQL", outcome).is_none());
        let outcome: Result<()> = Err(anyhow!("relation does not exist").context("psql"));
        assert!(run.take("redis", "Redis", outcome).is_none());
        assert_eq!((run.unready, &run.failed[..]), (1, &["redis"][..]));
    }

    #[test]
    fn nothing_is_no_test_that_passed() {
        assert!(!Tally::default().all_passed());
    }

    #[test]
    fn no_postgres_is_rehearsed_on_sqlite() {
        let mut point = Point::new(Stamp::parse("20260102_030405").unwrap());
        let mut rehearsal = Rehearsal {
            postgres: Some("sha256:17".to_owned()),
            ..Rehearsal::default()
        };
        check_images(&point, &rehearsal).unwrap();
        point.set(manifest::UNUSED, "redis postgres");
        let error = check_images(&point, &rehearsal).unwrap_err();
        assert!(error.to_string().contains("uses no PostgreSQL"), "{error}");
        rehearsal.postgres = None;
        check_images(&point, &rehearsal).unwrap();
    }

    #[test]
    fn a_lesser_test_takes_nothing_away() {
        let full = Some("passed full 2026-01-02T03:04:05+00:00");
        let failed = Some("failed full 2026-01-02T03:04:05+00:00: redis");
        let key = Some("failed full 2026-01-02T03:04:05+00:00: postgres key");
        let start = Some("failed full 2026-01-02T03:04:05+00:00: start");
        for (before, parts, change) in [
            (None, Parts::FULL, Change::Set),
            (None, Parts::one(Kind::Postgres), Change::Set),
            (None, Parts::one(Kind::Redis), Change::Keep),
            (full, Parts::one(Kind::Postgres), Change::Keep),
            (full, Parts::FULL, Change::Set),
            (failed, Parts::one(Kind::Postgres), Change::Keep),
            (failed, Parts::one(Kind::Redis), Change::Clear),
            (failed, Parts::FULL, Change::Set),
            (start, Parts::FULL, Change::Keep),
            (key, Parts::one(Kind::Postgres), Change::Set),
            (key, Parts::one(Kind::N8n), Change::Keep),
            (Some("passed postgres x"), Parts::one(Kind::Postgres), Change::Set),
        ] {
            let before = before.and_then(DrillOutcome::parse);
            assert_eq!(
                after_pass(before.as_ref(), parts, false),
                change,
                "{before:?} {parts:?}"
            );
        }
        let start = start.and_then(DrillOutcome::parse);
        assert_eq!(after_pass(start.as_ref(), Parts::FULL, true), Change::Set);
    }

    #[test]
    fn a_failure_stays_until_what_failed_is_tested_again() {
        let before = DrillOutcome::parse("failed full 2026-01-02T03:04:05+00:00: redis key");
        let run = Tally {
            passed: vec!["n8n"],
            failed: vec!["postgres"],
            ..Tally::default()
        };
        assert_eq!(run.still_failed(before.as_ref()), ["postgres", "redis", "key"]);
        let run = Tally {
            passed: vec!["redis"],
            failed: vec!["postgres", KEY],
            ..Tally::default()
        };
        assert_eq!(run.still_failed(before.as_ref()), ["postgres", "key"]);
        assert_eq!(run.still_failed(None), ["postgres", "key"]);
    }
}
