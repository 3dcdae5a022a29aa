//! fetch-offsite: brings a recovery point back from the off-site copy.

use std::ffi::OsStr;
use std::io::Read;
use std::time::SystemTime;

use anyhow::{ensure, Context as _, Result};

use super::backup_offsite::rclone;
use super::shared::open;
use super::{Command, Run};
use crate::app::App;
use crate::cli::Row;
use crate::report::log::Journal;
use crate::report::units;
use crate::store::manifest::{Member, Point};
use crate::store::marks::{Mark, OffsiteCopy};
use crate::store::offsite::{fetch_manifest, newest_there, stamp_of_file, RemoteFiles};
use crate::store::remote::Rclone;
use crate::store::{is_there, Stamp, ENCRYPTED};
use crate::stream::publish;
use crate::stream::read::sha256;

pub const COMMAND: Command = Command {
    row: &Row {
        name: "fetch-offsite",
        summary: "bring a recovery point back from RCLONE_REMOTE:RCLONE_BUCKET",
        details: "SET is its stamp (YYYYMMDD_HHMMSS) or 'latest', which is the default. Each file gets its name only\n\
                  when its SHA-256 is the recorded one; what is here already is neither fetched nor replaced.",
        operand: Some("[SET]"),
        ..Row::ACTS
    },
    run: Run::Project(|project, call| run(&open(project, call)?, call.operand.as_deref()).map(|()| 0)),
};

const JOURNAL: Journal = Journal::new("fetch-offsite");

/// Brings a recovery point back: the newest there, or the one that `operand` names by its stamp. A file that is not the one
/// that was backed up ends it; what has been proven until then stays.
fn run(app: &App, operand: Option<&OsStr>) -> Result<()> {
    let remote = app.config.remote();
    JOURNAL.info(format_args!("Starting fetch from {remote}"));
    let wanted =
        match operand.map(|operand| operand.to_string_lossy()) {
            None => None,
            Some(name) if name == "latest" => None,
            Some(name) => {
                let stamp = Stamp::parse(&name);
                Some(stamp.with_context(|| {
                    format!("'{name}' is no recovery point: name one as YYYYMMDD_HHMMSS, or latest")
                })?)
            }
        };
    let rclone = rclone(app)?;
    let there = RemoteFiles::list(&rclone)?;
    let last = there.last_set();
    let last = last.with_context(|| format!("There is no recovery point at {remote}"))?;
    let (stamp, text) = match wanted {
        None => {
            let newest = newest_there(&rclone, &there, SystemTime::now())?;
            newest.with_context(|| format!("There is no recovery point at {remote}"))?
        }
        Some(stamp) => {
            ensure!(
                there.has_set(stamp),
                "There is no recovery point {stamp} at {remote}; the newest one is {last}"
            );
            (stamp, fetch_manifest(&rclone, stamp)?)
        }
    };
    let mut point = Point::parse(&text)
        .and_then(|point| check(&point, stamp).map(|()| point))
        .with_context(|| format!("The manifest of {stamp} at {remote} cannot be used"))?;
    JOURNAL.info(format_args!(
        "Fetching recovery point {stamp}, {} file(s)",
        point.members.len()
    ));
    for member in &point.members {
        fetch_file(app, &rclone, member).with_context(|| format!("{} could not be fetched", member.name))?;
    }
    if !is_there(&app.store.set_path(stamp)) {
        point.mark(&Mark::Offsite(OffsiteCopy::now(&remote, None)));
        point.write(&app.store)?;
    }
    JOURNAL.success(format_args!(
        "Recovery point {stamp} is in {}",
        app.store.root().display()
    ));
    Ok(())
}

/// Refuses a manifest of another point, of none that has files, or that names files where ours do not lie.
fn check(point: &Point, stamp: Stamp) -> Result<()> {
    ensure!(point.stamp == stamp, "it is that of {}", point.stamp);
    ensure!(!point.members.is_empty(), "it names no file");
    for member in &point.members {
        let known = stamp_of_file(&member.name);
        ensure!(
            known.is_some_and(|(kind, _)| kind == member.kind),
            "no backup file: {}",
            member.name
        );
    }
    Ok(())
}

/// Fetches a file, unless it is here, and gives it its name when its SHA-256 is the recorded one.
fn fetch_file(app: &App, rclone: &Rclone, member: &Member) -> Result<()> {
    let (kind, stamp) = stamp_of_file(&member.name).context("no backup file")?;
    let _lock = app.hold(kind, JOURNAL)?;
    let path = app.store.root().join(&member.name);
    if path.symlink_metadata().is_ok() {
        let sum = sha256(&app.config, &path)?;
        ensure!(
            sum == member.sha256,
            "{} is here with other contents: move it away first",
            path.display()
        );
        JOURNAL.info(format_args!("Already here: {}", path.display()));
        return Ok(());
    }
    let store = app.store.clone().with_encryption(member.name.ends_with(ENCRYPTED));
    ensure!(
        !store.is_taken(kind, stamp),
        "another backup of {stamp} is here: move it away first"
    );
    let partial = store.create(kind, stamp)?;
    let mut chain = app.chain();
    let stream: Box<dyn Read + Send> = Box::new(rclone.read(&mut chain, &member.name)?);
    let written = publish::write_as_is(&app.config, &mut chain, &partial, stream, ())?;
    let ((), bytes, sum) = written.get(&chain.finish()?)?;
    ensure!(
        sum == member.sha256,
        "the copy is damaged: its SHA-256 is {sum}, and {} was recorded",
        member.sha256
    );
    let entry = partial.publish()?;
    JOURNAL.info(format_args!(
        "Fetched: {} ({})",
        entry.path.display(),
        units::amount(bytes)
    ));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(text: &str) -> Stamp {
        Stamp::parse(text).unwrap()
    }

    #[test]
    fn a_manifest_from_elsewhere_is_not_trusted() {
        let point = |text: &str| {
            let text = format!("# n8n-backup recovery point 20260102_030405\n{text}");
            Point::parse(&text).and_then(|point| check(&point, stamp("20260102_030405")))
        };
        let sum = "0".repeat(64);
        let good = format!("# size.env: 3\n{sum}  env/env_20260102_030405.backup.gpg\n");
        point(&good).unwrap();
        for bad in [
            String::new(),
            "# size.env: 3\n".to_owned(),
            format!("# size.redis: 3\n{good}"),
            format!("{sum}  ../env/env_20260102_030405.backup\n"),
            format!("{sum}  /etc/env/env_20260102_030405.backup\n"),
            format!("{sum}  env/../../x.backup\n"),
            format!("{sum}  redis/env_20260102_030405.backup\n"),
        ] {
            assert!(point(&bad).is_err(), "{bad}");
        }
        let other = format!("# n8n-backup recovery point 20260102_030406\n{good}");
        assert!(check(&Point::parse(&other).unwrap(), stamp("20260102_030405")).is_err());
    }
}
