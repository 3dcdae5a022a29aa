//! Restore of n8n's data. The archive is unpacked beside what each directory holds and read back from there; then the two
//! are exchanged by renaming, after a last backup of what was there.

mod room;

use std::path::Path;

use anyhow::{bail, ensure, Context as _, Result};

use super::helper;
use super::layout::{check_volume, data_layout, is_missing, path_of_stored, stored_part};
use super::layout::{Directory, Layout, MOUNTS};
use super::packer::{self, Packer, Rework};
use crate::app::App;
use crate::components::dirswap::{self, DirSwap, DirSwaps, State};
use crate::components::{Around, N8n, RestoreOptions, RestorePlan};
use crate::engine::{Docker, Exec, Guard, Source};
use crate::formats::tar;
use crate::process::hinted;
use crate::report::log::Journal;
use crate::stack::{LeftHalfDone, Unseen};
use crate::store::Kind;
use crate::stream::encrypt::Locked;
use crate::stream::read::{check_recorded, observe, read};

/// Takes a directory and a path in there. Prints the first part of that which is a symbolic link.
const FIND_LINK: &str = r#"path=$1 rest=$2
while [ -n "$rest" ]; do
  path=$path/${rest%%/*}
  if [ -L "$path" ]; then
    printf '%s' "${path#"$1"/}"
    exit
  fi
  case $rest in */*) rest=${rest#*/} ;; *) rest='' ;; esac
done"#;

/// An archive that has been verified, and the directories that it is for.
pub struct Plan<'a> {
    app: &'a App,
    docker: Docker,
    journal: Journal,
    file: &'a Path,
    layout: Layout,
    /// Every directory of it, as a helper container sees it.
    targets: Vec<String>,
    /// Where a restore of the database works besides.
    database_dir: Option<String>,
    /// What is exchanged, the home first, each with what the archive has of it.
    parts: Vec<(Directory, tar::Summary)>,
    dry_run: bool,
}

/// Verifies the archive, looks for the directories and compares the room on the disks, unless an interrupted restore has left
/// something there: [`Plan::run`] then compares it. Changes nothing.
///
/// # Errors
/// What is wrong with the file, that there is no volume, that it is in use by containers which would not be stopped, or that
/// a disk has too little room.
pub fn prepare<'a>(app: &'a App, file: &'a Path, options: RestoreOptions, journal: Journal) -> Result<Plan<'a>> {
    journal.info("Verifying backup file integrity...");
    let docker = app.docker()?;
    let containers = app.n8n_containers(&docker)?;
    let layout = data_layout(app, &docker, &containers)?;
    let directories = layout.directories();
    let of_directories: Vec<tar::Part> = directories.iter().map(|directory| directory.part.clone()).collect();
    let mut scanners = packer::scanners(&of_directories);
    let all = tar::Scanner::new().apart(of_directories);
    let inner = layout.inner();
    let of_inner = inner.iter().flat_map(|(_, parts)| parts.clone());
    let homes = layout.homes_around();
    let of_homes = homes.iter().map(|(_, part)| part.clone());
    scanners.extend(of_inner.chain(of_homes).map(|part| tar::Scanner::new().part(part)));
    scanners.push(all.part(stored_part()).with_places());
    let mut summaries = check_recorded(&app.config, &app.store, file)
        .and_then(|()| {
            let seen = observe(&app.config, file, scanners)?;
            seen.into_iter().map(tar::Scanner::finish).collect::<Result<Vec<_>>>()
        })
        .map_err(|error| match error.downcast_ref::<Locked>() {
            Some(_) => error,
            None => error.context("Backup file is corrupted or not a tar.gz archive"),
        })?;
    let stored = summaries.pop().unwrap_or_default();
    let mut of_inner = summaries.split_off(directories.len());
    let of_homes = of_inner.split_off(2 * inner.len());
    let below = |summary: &tar::Summary| summary.members - u64::from(summary.root.is_some());
    for ((place, part), found) in homes.iter().zip(of_homes) {
        ensure!(
            below(&found) == 0,
            hinted(
                format_args!(
                    "The archive holds files at {}, which is n8n's home now and would be replaced without them",
                    part.below
                ),
                format_args!(
                    "for the restore, have n8n's home in a directory outside of {}, as it was then",
                    place.source
                )
            )
        );
    }
    for ((place, _), found) in inner.iter().zip(of_inner.chunks_exact(2)) {
        let [apart, there] = [0, 1].map(|of| (below(&found[of]), found[of].bytes));
        // Earlier versions have packed it twice.
        ensure!(
            apart.0 == 0 || (there.0 >= apart.0 && there.1 >= apart.1),
            hinted(
                format_args!(
                    "The archive holds {} by itself, and {} lies within another directory of n8n's now, which would be replaced \
                     without it",
                    place.at, place.source
                ),
                format_args!(
                    "for the restore, have n8n mount {} from a directory of its own, as it did then",
                    place.at
                )
            )
        );
    }
    if let Some(name) = stored.unsafe_names.first() {
        bail!("The archive holds names that lead out of the volume ({name}): it is not unpacked");
    }
    if let Some(name) = &stored.crossing {
        bail!(hinted(
            format_args!(
                "The archive holds {name} as a hard link to a file in another mount, which cannot be unpacked there"
            ),
            "name that mount in BACKUP_EXCLUDE_MOUNTS in .env and restore the others, then unpack that one with tar"
        ));
    }
    journal.info("Backup file integrity verified");
    helper::check_home(&docker, &layout)?;
    check_volume(app, &docker, &layout)?;
    check_users(app, &docker, &layout)?;
    warn_of_users(app, &docker, journal, &layout);
    for place in stored.places {
        let name = [MOUNTS.as_bytes(), b"/", &place.name].concat();
        let Some(at) = path_of_stored(&name) else { continue };
        let mut mounts = containers.iter().flat_map(|container| &container.mounts);
        let is_mounted = mounts.any(|mount| mount.destination == at);
        if let Some(why) = layout.why_left_out(&at, &app.config.exclude_mounts, is_mounted) {
            journal.warn(format_args!("The archive holds {at}, {why}: it is left out"));
        }
    }
    let targets = directories.iter().map(|directory| directory.target.clone()).collect();
    let mut parts = Vec::new();
    for (directory, summary) in directories.into_iter().zip(summaries) {
        let is_nested = layout.nested.contains_key(&directory.part.below);
        let is_held = below(&summary) > 0 || (summary.root.is_some() && !is_nested);
        if parts.is_empty() || is_held {
            parts.push((directory, summary));
        } else {
            journal.warn(format_args!(
                "The archive holds nothing of {}: it is left as it is",
                directory.place.at
            ));
        }
    }
    let plan = Plan {
        database_dir: database_dir(app, &layout),
        app,
        docker,
        journal,
        file,
        layout,
        targets,
        parts,
        dry_run: options.dry_run,
    };
    let helper = plan.helper(false)?;
    helper::check_mounts(&helper, plan.parts.iter().map(|(directory, _)| directory))?;
    // What an interrupted restore has left takes room, which is there again once run has set it right.
    if plan.all(&helper).state()? == State::None && plan.of_database(&helper).state()? == State::None {
        plan.check_database(&helper, options.with_sqlite)?;
        plan.check_room(&helper)?;
    }
    Ok(plan)
}

/// Where a restore of n8n's database in SQLite works, when that is not one of the directories.
pub(super) fn database_dir(app: &App, layout: &Layout) -> Option<String> {
    let file = app.config.found.sqlite.as_ref()?;
    let (directory, within) = layout.database(&file.path)?;
    let (above, _) = within.rsplit_once('/')?;
    Some(format!("{}/{above}", directory.target))
}

/// The containers that use a directory and are not n8n's.
fn strangers(app: &App, docker: &Docker, source: &Source) -> Result<Vec<String>> {
    let ours = |names: &String| {
        names
            .split(',')
            .any(|name| app.config.n8n_containers.iter().any(|n8n| n8n == name))
    };
    let mut others = docker.users(source)?;
    others.retain(|names| !ours(names));
    Ok(others)
}

/// Refuses a restore while containers use the home that would not be stopped.
fn check_users(app: &App, docker: &Docker, layout: &Layout) -> Result<()> {
    for place in layout.by_home().0 {
        let others = strangers(app, docker, &place.source)?;
        ensure!(
            others.is_empty(),
            "Containers that are not known as n8n's use the volume {}: {}. Stop them, or add them to BACKUP_N8N_CONTAINERS \
             in .env, so that they are stopped meanwhile (it is: {})",
            place.source,
            others.join(" "),
            app.config.n8n_containers.join(" ")
        );
    }
    Ok(())
}

/// Warns of those that use the other directories: what they write there meanwhile is lost.
fn warn_of_users(app: &App, docker: &Docker, journal: Journal, layout: &Layout) {
    for place in layout.by_home().1 {
        let others = strangers(app, docker, &place.source).unwrap_or_default();
        if !others.is_empty() {
            journal.warn(format_args!(
                "{} is used by {} too, which goes on: what that writes meanwhile is lost",
                place.source,
                others.join(" ")
            ));
        }
    }
}

/// A container that shows every directory by itself. Those of the project that are missing, as on a new host, are made
/// where `makes` says so, else left out.
fn start_helper(
    app: &App,
    docker: &Docker,
    journal: Journal,
    layout: &Layout,
    dry_run: bool,
    makes: bool,
) -> Result<Guard> {
    let image = helper::image(app, docker, journal)?;
    let all = layout.writing();
    dirswap::helper_container(app, docker, Kind::N8n, dry_run, |labels| {
        let start = |mounts: &[_]| helper::start(app, docker, journal, image.clone(), labels, mounts);
        start(&all).or_else(|error| {
            let (missing, mut there): (Vec<_>, Vec<_>) =
                all.iter().cloned().partition(|mount| is_missing(&mount.source));
            if missing.is_empty() {
                return Err(error);
            }
            if let Some(mount) = missing.iter().find(|mount| !helper::may_be_made(app, &mount.source)) {
                return Err(helper::not_there(error, &mount.source));
            }
            if makes {
                for mut mount in missing {
                    let name = &mount.source;
                    journal.warn(format_args!("{name}, which n8n mounts, is missing: it is made"));
                    mount.makes = true;
                    there.push(mount);
                }
            }
            start(&there)
        })
    })
}

/// Sets right what a killed restore has left. Whether there was something.
fn set_right(exchange: &DirSwaps<'_>, journal: Journal) -> Result<bool> {
    match exchange.state()? {
        State::None => return Ok(false),
        State::Staged => exchange.roll_back(journal)?,
        // Else n8n would be started on half of its data.
        State::Broken => exchange
            .roll_back(journal)
            .map_err(|error| error.context(LeftHalfDone::rollback_failed()))?,
        State::Exchanged => exchange.finish(&[])?,
    }
    journal.warn("An interrupted restore of the volume had left its traces; they are set right");
    Ok(true)
}

/// Sets right what a killed restore has left in all directories, for the restore of a database that lies in one of them.
///
/// # Errors
/// When it cannot be told what the directories are, and as for a restore of them.
pub fn recover(app: &App, docker: &Docker, journal: Journal) -> Result<()> {
    let layout = data_layout(app, docker, &app.n8n_containers(docker)?)?;
    helper::check_home(docker, &layout)?;
    let _lock = app.hold(Kind::N8n, journal)?;
    let helper = start_helper(app, docker, journal, &layout, false, false)?;
    let directories = layout.directories();
    let targets = directories.iter().map(|directory| directory.target.as_str());
    set_right(&DirSwaps::new(&helper, targets), journal).map(drop)
}

impl Plan<'_> {
    /// As [`start_helper`].
    fn helper(&self, makes: bool) -> Result<Guard> {
        start_helper(self.app, &self.docker, self.journal, &self.layout, self.dry_run, makes)
    }

    /// Every directory, since an earlier run may have begun with other ones.
    fn all<'h>(&'h self, helper: &'h Guard) -> DirSwaps<'h> {
        let targets = self.targets.iter().map(String::as_str);
        DirSwaps::new(helper, targets)
    }

    /// The directory of the database, which moves with the one that holds it.
    fn of_database<'h>(&'h self, helper: &'h Guard) -> DirSwaps<'h> {
        DirSwaps::new(helper, self.database_dir.as_deref())
    }

    /// What is exchanged now.
    fn swaps<'h>(&'h self, helper: &'h Guard) -> DirSwaps<'h> {
        let targets = self.parts.iter().map(|(directory, _)| directory.target.as_str());
        DirSwaps::new(helper, targets)
    }

    /// Makes sure that nothing which may write to the volume runs.
    fn check_alone(&self, around: &dyn Around) -> Result<()> {
        around.check_stopped()?;
        check_users(self.app, &self.docker, &self.layout)
    }

    /// Puts back what was there before, once nothing goes on any more in the helper in which a step has failed.
    fn put_back(&self, failed: Guard) -> Result<()> {
        drop(failed);
        let helper = self.helper(true)?;
        self.all(&helper).roll_back(self.journal)
    }

    /// Has the home stay where it is in what holds it.
    fn keep_home(&self, helper: &Guard) -> Result<()> {
        let holders = self
            .parts
            .iter()
            .filter(|(directory, _)| !directory.part.without.is_empty());
        let mut holders =
            holders.map(|(directory, _)| (DirSwap::new(helper, &directory.target), &directory.part.without));
        holders.try_for_each(|(swap, stays)| swap.stay(stays))
    }

    /// Has n8n's database in SQLite stay where it is: it comes back by itself.
    fn keep_database(&self, helper: &Guard) -> Result<()> {
        self.check_database(helper, false)?;
        self.database().map_or(Ok(()), |(target, within)| {
            DirSwap::new(helper, &target).keep(&[&within])
        })
    }

    /// The directory of those that are exchanged which holds n8n's database in SQLite, and its name in there.
    fn database(&self) -> Option<(String, String)> {
        let (target, within) = self.layout.database_place(self.app)?;
        let is_exchanged = self.parts.iter().any(|(directory, _)| directory.target == target);
        is_exchanged.then_some((target, within))
    }

    /// Refuses a database behind a symbolic link: the link would stay, and what it leads to would not. A database that
    /// is restored before takes the place of a link that is its own name.
    fn check_database(&self, helper: &Guard, is_restored_before: bool) -> Result<()> {
        let Some((target, within)) = self.database() else {
            return Ok(());
        };
        let argv = ["sh", "-c", FIND_LINK, "sh", &target, &within];
        let output = self
            .docker
            .answer("sh", self.docker.exec(helper.id(), Exec::default(), &argv), None)?;
        ensure!(output.success, "{}", output.stderr);
        let link = output.text();
        ensure!(
            link.is_empty() || (is_restored_before && link == within),
            hinted(
                format_args!(
                    "n8n's database {within} lies behind a symbolic link ({link}), and would not stay as it is"
                ),
                "set DB_SQLITE_DATABASE of n8n's containers to the path of the file itself, and create them again"
            )
        );
        Ok(())
    }

    /// Unpacks the archive and reads back what came of it.
    fn stage(&self, helper: &Guard) -> Result<()> {
        self.journal.info("Unpacking the archive beside the data...");
        let packer = Packer {
            app: self.app,
            docker: &self.docker,
            container: helper.id(),
        };
        for (directory, archive) in &self.parts {
            let dir = DirSwap::new(helper, &directory.target).new_dir();
            let mut chain = self.app.chain();
            let contents = read(&self.app.config, &mut chain, self.file)?;
            let contents = tar::Select::new(contents, directory.part.clone());
            // podman's own export has no `./`.
            let strip = match directory.part.depth() {
                1 => 0,
                depth => depth - usize::from(!archive.dot_slash),
            };
            let scanner = tar::Scanner::new().part(directory.part.clone()).with_places();
            let (seen, rework) = packer.unpack(chain, contents, &dir, strip, scanner)?;
            if rework == Rework::Needed {
                packer.rework(&dir, &seen.finish()?.places)?;
            }
        }
        self.journal.info("Verifying restore...");
        let mut files = 0;
        for (directory, archive) in &self.parts {
            let dir = DirSwap::new(helper, &directory.target).new_dir();
            let there = packer.look(&dir, &[tar::Part::default()]);
            for there in there.context("what was unpacked cannot be read back")? {
                packer::compare(archive, &there, &directory.place.source.to_string())?;
                files += there.files;
            }
        }
        self.journal
            .info(format_args!("Found {files} files in the restored volume"));
        Ok(())
    }
}

impl RestorePlan for Plan<'_> {
    fn warnings(&self) -> Vec<String> {
        let names: Vec<String> = self
            .parts
            .iter()
            .map(|(directory, _)| directory.place.source.to_string())
            .collect();
        vec![format!(
            "This will replace the contents of the volume {}, and stop n8n meanwhile",
            names.join(", ")
        )]
    }

    fn n8n(&self) -> N8n {
        N8n::Stops
    }

    /// Unpacks the archive beside what is there and exchanges the two, with a backup of what was there right before.
    fn run(&self, around: &dyn Around) -> Result<()> {
        let helper = self.helper(true).context(Unseen)?;
        let exchange = self.swaps(&helper);
        {
            let _lock = self.app.hold(Kind::N8n, self.journal).context(Unseen)?;
            let recovered = set_right(&self.all(&helper), self.journal).map_err(Unseen::mark)?;
            if recovered | set_right(&self.of_database(&helper), self.journal).map_err(Unseen::mark)? {
                self.check_room(&helper)?;
            }
        }
        // A backup like any other, which takes the lock itself.
        around
            .keep()
            .context("The volume was not touched, because what is in it could not be backed up first")?;
        // That backup may have taken it, where it lies on the same disk.
        self.check_volume(&helper)?;
        let _lock = self.app.hold(Kind::N8n, self.journal)?;
        let staged = exchange
            .begin()
            .and_then(|()| self.keep_home(&helper))
            .and_then(|()| self.keep_database(&helper))
            .and_then(|()| self.stage(&helper));
        if let Err(error) = staged {
            // What cannot be removed now is removed by the next restore.
            let _ = self.put_back(helper);
            return Err(error.context("n8n data restore failed"));
        }
        if let Err(error) = self.check_alone(around) {
            let _ = self.put_back(helper);
            return Err(error.context("n8n data restore failed"));
        }
        self.journal.info("Exchanging the contents of the volume...");
        // Once more before what was there is deleted: what somebody has written meanwhile is in it.
        if let Err(error) = exchange.exchange().and_then(|()| self.check_alone(around)) {
            self.journal.warn("Putting back what was there before");
            exchange.turn();
            let back = around.undo_at_rest(self.journal, Box::new(|| self.put_back(helper)));
            return Err(match back {
                Ok(()) => error.context("n8n data restore failed"),
                Err(worse) => error
                    .context(format!("{worse:#}"))
                    .context(LeftHalfDone::rollback_failed()),
            });
        }
        let roots = self.parts.iter().map(|(_, archive)| archive.root.iter());
        let roots: Vec<Vec<String>> = roots.map(|root| root.flat_map(properties).collect()).collect();
        exchange
            .finish(&roots)
            .context("The data are restored, and what was there before could not be removed from the volume")
    }
}

/// The properties of a directory as [`DirSwap::finish`] takes them.
fn properties(root: &tar::Properties) -> [String; 4] {
    [
        root.uid.to_string(),
        root.gid.to_string(),
        format!("{:o}", root.mode),
        root.mtime.to_string(),
    ]
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::testing::{sh, TempDir};

    #[test]
    fn a_link_on_the_way_to_the_database_is_found() {
        let dir = TempDir::new();
        fs::create_dir(dir.path().join("a b")).unwrap();
        fs::write(dir.path().join("a b/real"), "").unwrap();
        for (name, target) in [
            ("dir", "a b"),
            ("file", "a b/real"),
            ("away", "/no/where"),
            ("a b/file", "real"),
        ] {
            symlink(target, dir.path().join(name)).unwrap();
        }
        let link = |within: &str| {
            let output = sh(FIND_LINK).arg("sh").arg(dir.path()).arg(within).output().unwrap();
            assert!(output.status.success());
            String::from_utf8(output.stdout).unwrap()
        };
        for (within, expected) in [
            ("a b/real", ""),
            ("none/database.sqlite", ""),
            ("file", "file"),
            ("away", "away"),
            ("a b/file", "a b/file"),
            ("dir/real", "dir"),
        ] {
            assert_eq!(link(within), expected, "{within}");
        }
    }
}
