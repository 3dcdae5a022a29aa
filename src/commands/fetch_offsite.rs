//! fetch-offsite: brings a recovery point back from the off-site copy.

use std::ffi::OsStr;
use std::io::Read;
use std::time::SystemTime;

use anyhow::{anyhow, bail, ensure, Context as _, Result};

use super::backup_offsite::{note_pin, rclone, read_manifest, Unread};
use super::shared::{now, open};
use super::{Command, Run};
use crate::app::App;
use crate::cli::{Flag, Row};
use crate::components::ALLOW_PLAIN;
use crate::config::Encryption;
use crate::process::hinted;
use crate::report::log::Journal;
use crate::report::units;
use crate::store::identity::{self, Identity, OF_ANOTHER};
use crate::store::inventory::{is_ahead, look_newest_first, Inventory};
use crate::store::manifest::{self, Member, Point, FETCHED};
use crate::store::marks::{self, Mark, OffsiteCopy};
use crate::store::offsite::{stack_dir, stamp_of_file, Remote, RemoteFiles};
use crate::store::remote::Rclone;
use crate::store::{is_there, Kind, Stamp, ENCRYPTED};
use crate::stream::encrypt::{is_of_passphrase, Locked};
use crate::stream::publish;
use crate::stream::read::{is_no_verdict, sha256};

const STACK: Flag = Flag::new("stack", "the stack whose points are meant, where there are several").value("ID");

pub const COMMAND: Command = Command {
    row: &Row {
        name: "fetch-offsite",
        summary: "bring a recovery point back from RCLONE_REMOTE:RCLONE_BUCKET",
        details:
            "SET is its stamp (YYYYMMDD_HHMMSS) or 'latest', the newest complete one there, which is the default.\n\
                  Each file gets its name only when its SHA-256 is the recorded one; what is here already is neither\n\
                  fetched nor replaced. A host that has no identity and no points of its own yet takes over that of\n\
                  the only stack there; of several it lists them.",
        operand: Some("[SET]"),
        flags: &[STACK, ALLOW_PLAIN],
        ..Row::ACTS
    },
    run: Run::Project(|project, call| {
        let stack = call.value(&STACK).map(|value| value.to_string_lossy().into_owned());
        run(
            &open(project, call)?,
            call.operand.as_deref(),
            stack.as_deref(),
            call.has(&ALLOW_PLAIN),
        )
        .map(|()| 0)
    }),
};

const JOURNAL: Journal = Journal::new("fetch-offsite");
/// So much of a file tells how it is encrypted.
const START: u64 = 64 << 10;

/// Brings a recovery point back: the newest there, or the one that `operand` names by its stamp. A file that is not the one
/// that was backed up ends it; what has been proven until then stays.
fn run(app: &App, operand: Option<&OsStr>, stack: Option<&str>, allow_plain: bool) -> Result<()> {
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
    let mut there = Remote::list(&rclone)?;
    let known = Identity::before_fetch(&app.store)?;
    let asked = stack;
    let stack = choose(&there, known.as_ref(), asked, &remote)?;
    let files = there.take(stack.as_ref());
    let source = |rclone, files, is_own| Source {
        app,
        rclone,
        files,
        is_own,
        stack: stack.as_ref(),
        remote: &remote,
        allow_plain,
    };
    let dir = stack.as_ref().map(stack_dir);
    let own = dir.map_or_else(|| rclone.clone(), |dir| rclone.within(&dir));
    let own = source(own, files, stack.is_some());
    // What earlier versions have sent bears no name, and counts as this project's: it is none of another stack's.
    let unnamed = match asked.is_none() || stack == known {
        true => there.unnamed,
        false => RemoteFiles::default(),
    };
    let unnamed = source(rclone, unnamed, false);
    let sources = [&own, &unnamed];
    let sets: Vec<(Stamp, &Source<'_>)> = sources
        .into_iter()
        .flat_map(|source| source.files.sets().map(move |stamp| (stamp, source)))
        .filter(|(stamp, source)| source.is_own || own.files.set(*stamp).is_none())
        .collect();
    let last = sets.iter().map(|(stamp, _)| *stamp).max();
    let last = last.with_context(|| format!("There is no recovery point at {remote}"))?;
    let (mut point, source) = match wanted {
        None => latest(&sets, SystemTime::now(), &remote)?,
        Some(wanted) => {
            let found = sets.iter().find(|(stamp, _)| *stamp == wanted);
            let (stamp, source) = found.with_context(|| {
                format!("There is no recovery point {wanted} at {remote}; the last one by its name is {last}")
            })?;
            (source.point(*stamp)?, *source)
        }
    };
    let stamp = point.stamp;
    let is_of_another = source.is_own && known.is_some() && stack != known;
    if is_of_another {
        JOURNAL.info("It is of another stack: it is restored by name only, and is never this project's latest");
    }
    let here = here(app, &point)?;
    Inventory::note_away(&app.store, &mut point);
    JOURNAL.info(format_args!(
        "Fetching recovery point {stamp}, {} file(s)",
        point.members.len()
    ));
    // A dump in clear gets its name when the manifest says that it was fetched, and not before: it would count as ours.
    let may_be_anybodys = |member: &Member| member.kind == Kind::Postgres && !member.name.ends_with(ENCRYPTED);
    let members = point.members.clone();
    let (last, first): (Vec<&Member>, Vec<&Member>) = members.iter().partition(|member| may_be_anybodys(member));
    let not_fetched = |member: &Member| format!("{} could not be fetched", member.name);
    // What comes lies beside what is missed there, which a point that is here would tell to be back.
    let missed = members.iter().map(|member| member.kind.name());
    let missed: Vec<&str> = missed.filter(|dir| here.is_some() && point.was_away(dir)).collect();
    let note = |member: &Member| match missed.contains(&member.kind.name()) {
        true => manifest::update(&app.store, stamp, |here| here.add_away(member.kind.name())),
        false => Ok(()),
    };
    for member in first {
        source
            .fetch(member, || note(member))
            .with_context(|| not_fetched(member))?;
    }
    let record = || match here {
        // Its files are those that were recorded, by their checksums.
        Some(here) if here.members != point.members || !here.damaged().is_empty() => {
            manifest::update(&app.store, stamp, |here| {
                // Of what is new here, the manifest that was fetched alone says what it is.
                let is_new = |member: &&Member| !here.members.contains(member);
                if point.members.iter().filter(is_new).any(may_be_anybodys) {
                    here.set(FETCHED, &now());
                }
                here.members = point.members;
                [marks::DAMAGED, "deleted"].iter().for_each(|fact| here.unset(fact));
            })
        }
        Some(_) => Ok(()),
        None => {
            point.mark(&Mark::Offsite(OffsiteCopy::now(&remote, None)));
            let whose = if is_of_another {
                format!(" {OF_ANOTHER}")
            } else {
                String::new()
            };
            point.set(FETCHED, &format!("{}{whose}", now()));
            let sent = point.clone();
            note_pin(&mut point, &sent);
            point.write(&app.store).map(drop)
        }
    };
    match last.first() {
        Some(dump) => source
            .fetch(dump, || note(dump).and_then(|()| record()))
            .with_context(|| not_fetched(dump))?,
        None => record()?,
    }
    // Whoever has nothing of a stack is not that stack.
    if let Some(stack) = stack.clone().filter(|_| known.is_none() && source.is_own) {
        JOURNAL.info(format_args!("This host takes over the identity of stack {stack}"));
        stack.adopt(&app.store)?;
    }
    JOURNAL.success(format_args!(
        "Recovery point {stamp} is in {}",
        app.store.root().display()
    ));
    Ok(())
}

/// The point as it is recorded here, if it is. Some of its files may have been deleted or damaged since.
fn here(app: &App, point: &Point) -> Result<Option<Point>> {
    let path = app.store.set_path(point.stamp);
    if !is_there(&path) {
        return Ok(None);
    }
    let other = |what: &str| format!("{} {what}: move it away first", path.display());
    let here = Point::load(&path).with_context(|| other("is here, and cannot be used"))?;
    ensure!(
        here.members.iter().all(|member| point.members.contains(member)),
        other("is here, and names other files")
    );
    Ok(Some(here))
}

/// The stack whose points are meant: the one that was asked for, this project's own, or the only one there.
fn choose(there: &Remote, known: Option<&Identity>, asked: Option<&str>, remote: &str) -> Result<Option<Identity>> {
    let list = || {
        let newest = |files: &RemoteFiles| {
            files
                .sets()
                .last()
                .map_or_else(|| "none".to_owned(), |set| set.to_string())
        };
        let stacks = there.stacks.iter();
        let stacks: Vec<String> = stacks
            .map(|(stack, files)| format!("{stack} (newest {})", newest(files)))
            .collect();
        stacks.join(", ")
    };
    if let Some(asked) = asked {
        let stack = Identity::parse(asked).filter(|stack| there.stacks.contains_key(stack));
        let stack = stack.with_context(|| format!("There is no stack '{asked}' at {remote}; there are: {}", list()))?;
        return Ok(Some(stack));
    }
    let others = there.stacks.len();
    match known {
        Some(known) if there.stacks.contains_key(known) || there.unnamed.sets().next().is_some() => {
            Ok(Some(known.clone()))
        }
        Some(known) if others > 0 => bail!(hinted(
            format_args!(
                "There is no recovery point of this stack ({known}) at {remote}; there are those of: {}",
                list()
            ),
            "add --stack ID to fetch one of another stack"
        )),
        None if others > 1 => bail!(hinted(
            format_args!("There are recovery points of several stacks at {remote}: {}", list()),
            "add --stack ID"
        )),
        None => Ok(there.stacks.keys().next().cloned()),
        known => Ok(known.cloned()),
    }
}

/// The point that `latest` means there, as it does here: the newest that holds all parts, by the instant. Where none does, it is
/// the newest that holds any.
fn latest<'s>(sets: &[(Stamp, &'s Source<'s>)], now: SystemTime, remote: &str) -> Result<(Point, &'s Source<'s>)> {
    let mut is_found = false;
    let look = |stamp: Stamp, source: &'s Source<'s>| {
        let point = match source.point(stamp) {
            // As of an earlier passphrase; by the names, the one that is found is newer.
            Err(error) if is_found && error.is::<Locked>() => {
                JOURNAL.warning(&error.context(format!("Passing over recovery point {stamp}")));
                return Ok(None);
            }
            // What says nothing of this one may be said of all.
            Err(error) if error.is::<Unread>() || is_no_verdict(&error) => return Err(error),
            point => point,
        };
        let time = point.as_ref().map_or_else(|_| stamp.time(), Point::time);
        let why_not = |point: &Point| {
            let excluded = point.excluded_from_latest().map(str::to_owned);
            excluded.or_else(|| source.lacks(point))
        };
        let point = point.and_then(|point| why_not(&point).map_or(Ok(point), |why| Err(anyhow!(why))));
        let missing = point.as_ref().ok().and_then(|point| point.missing_parts(&Kind::PARTS));
        let is_whole = point.is_ok() && missing.is_none();
        is_found |= is_whole && !is_ahead(time, now);
        Ok(Some((time, is_whole, (stamp, source, point, missing))))
    };
    let mut looked = look_newest_first(sets.iter().copied(), now, look)?;
    let whole = looked
        .iter()
        .position(|(_, _, point, missing)| point.is_ok() && missing.is_none());
    let found = whole.or_else(|| looked.iter().position(|(_, _, point, _)| point.is_ok()));
    let rest = looked.split_off(found.unwrap_or(looked.len()));
    for (stamp, _, point, missing) in looked {
        let error = match (point, missing) {
            (Err(error), _) if rest.is_empty() => {
                return Err(error.context(hinted(
                    format_args!("Recovery point {stamp} at {remote} is not fetched as the latest, nor is any other"),
                    "name one as YYYYMMDD_HHMMSS",
                )));
            }
            (Err(error), _) => error,
            (Ok(_), missing) => anyhow!(missing.unwrap_or_default()),
        };
        JOURNAL.warning(&error.context(format!("Passing over the newer recovery point {stamp}")));
    }
    let found = rest.into_iter().next();
    let (stamp, source, point, missing) = found.with_context(|| format!("There is no recovery point at {remote}"))?;
    let point = point?;
    if let Some(missing) = missing {
        JOURNAL.warn(format_args!(
            "Recovery point {stamp} is not complete, and no other one there is: {missing}"
        ));
    }
    if is_ahead(point.time(), now) {
        JOURNAL.warn(format_args!(
            "Recovery point {stamp} is dated in the future, and there is no other one: is the clock right?"
        ));
    }
    Ok((point, source))
}

/// A directory there whose points are meant.
struct Source<'a> {
    app: &'a App,
    rclone: Rclone,
    files: RemoteFiles,
    /// Whether it is that of the stack, and not what earlier versions have sent.
    is_own: bool,
    /// The stack whose points are meant.
    stack: Option<&'a Identity>,
    remote: &'a str,
    allow_plain: bool,
}

impl Source<'_> {
    /// A point, as its manifest there tells it.
    fn point(&self, stamp: Stamp) -> Result<Point> {
        let text = self.manifest(stamp)?;
        let mut point = Point::parse(&text)
            .and_then(|point| check(&point, stamp, self.stack, self.is_own).map(|()| point))
            .with_context(|| format!("The manifest of {stamp} at {} cannot be used", self.remote))?;
        self.check_encrypted(&point)?;
        // That was said of the files of the host that sent it; these are compared when they come.
        point.unset(marks::DAMAGED);
        Ok(point)
    }

    /// What a point lacks there, in words.
    fn lacks(&self, point: &Point) -> Option<String> {
        let lacks = self.files.lacks(point);
        (!lacks.is_empty()).then(|| format!("these are missing there or have another length: {}", lacks.join(", ")))
    }

    /// The text of the manifest of a point.
    fn manifest(&self, stamp: Stamp) -> Result<String> {
        let name = self.files.set(stamp).context("there is no such manifest")?;
        read_manifest(self.app, &self.rclone, name, |bytes| {
            if name.ends_with(ENCRYPTED) {
                self.check_made_here(name, bytes)?;
            } else if self.app.config.encryption.is_some() {
                // No version has sent one in clear there.
                ensure!(
                    !self.is_own || self.allow_plain,
                    hinted(
                        format_args!(
                            "{name} is not encrypted, while this project encrypts its backups: anybody who may write there could \
                             have made it"
                        ),
                        "add --allow-plain if you know where it is from, or name another recovery point"
                    )
                );
                JOURNAL.warn(format_args!(
                    "{name} is not encrypted, as earlier versions sent it: which files belong together is not authenticated"
                ));
            }
            Ok(())
        })
    }

    /// Refuses a point with files that whoever may write there could have made.
    fn check_encrypted(&self, point: &Point) -> Result<()> {
        let plain = point.members.iter().find(|member| !member.name.ends_with(ENCRYPTED));
        match plain.filter(|_| self.app.config.encryption.is_some() && !self.allow_plain) {
            None => Ok(()),
            Some(member) => bail!(hinted(
                format_args!(
                    "Recovery point {} holds a file that is not encrypted ({}), while this project encrypts its backups: \
                     anybody who may write there could have made it",
                    point.stamp, member.name
                ),
                "add --allow-plain if you know where it is from, or name another recovery point"
            )),
        }
    }

    /// Refuses what begins as a file that was encrypted to a public key, where we encrypt with a passphrase.
    fn check_made_here(&self, name: &str, start: &[u8]) -> Result<()> {
        let by_passphrase = matches!(self.app.config.encryption, Some(Encryption::Passphrase(_)));
        if !by_passphrase || self.allow_plain || is_of_passphrase(start) {
            return Ok(());
        }
        Err(
            anyhow!("anybody who may write there could have made it").context(hinted(
                format_args!("{name} was not encrypted with a passphrase, as this project does it"),
                "add --allow-plain if you know where it is from",
            )),
        )
    }

    /// Fetches a file, unless it is here, and gives it its name when its SHA-256 is the recorded one, and `record` has
    /// succeeded.
    fn fetch(&self, member: &Member, record: impl FnOnce() -> Result<()>) -> Result<()> {
        let app = self.app;
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
            return record();
        }
        let encrypted = member.name.ends_with(ENCRYPTED);
        let store = app.store.clone().with_encryption(encrypted);
        ensure!(
            !store.is_taken(kind, stamp),
            "another backup of {stamp} is here: move it away first"
        );
        let partial = store.create(kind, stamp)?;
        let mut chain = app.chain();
        let stream: Box<dyn Read + Send> = Box::new(self.rclone.read(&mut chain, &member.name)?);
        let written = publish::write_as_is(&app.config, &mut chain, &partial, stream, ())?;
        let ((), bytes, sum) = written.get(&chain.finish()?)?;
        ensure!(
            sum == member.sha256,
            "the copy is damaged: its SHA-256 is {sum}, and {} was recorded",
            member.sha256
        );
        if encrypted {
            let mut start = Vec::new();
            partial.reader()?.take(START).read_to_end(&mut start)?;
            self.check_made_here(&member.name, &start)?;
        }
        record()?;
        let entry = partial.publish()?;
        JOURNAL.info(format_args!(
            "Fetched: {} ({})",
            entry.path.display(),
            units::amount(bytes)
        ));
        Ok(())
    }
}

/// Refuses a manifest of another point or another stack, of none that has files, or that names files where ours do not lie.
fn check(point: &Point, stamp: Stamp, stack: Option<&Identity>, named: bool) -> Result<()> {
    ensure!(point.stamp == stamp, "it is that of {}", point.stamp);
    // Earlier versions told none.
    ensure!(
        identity::of(point).as_ref() == stack || !named && identity::of(point).is_none(),
        "it is that of another stack"
    );
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
            Point::parse(&text).and_then(|point| check(&point, stamp("20260102_030405"), None, false))
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
        assert!(check(&Point::parse(&other).unwrap(), stamp("20260102_030405"), None, false).is_err());
        let ours = Identity::parse("00000000000000aa").unwrap();
        let mut of_ours = Point::parse(&format!("# n8n-backup recovery point 20260102_030405\n{good}")).unwrap();
        assert!(check(&of_ours, of_ours.stamp, Some(&ours), true).is_err());
        ours.mark(&mut of_ours);
        check(&of_ours, of_ours.stamp, Some(&ours), true).unwrap();
        assert!(check(&of_ours, of_ours.stamp, None, false).is_err());
    }
}
