//! Restore of a database. It is unpacked beside the live one, proven there, and takes its place by renaming, while n8n rests. What
//! stands in the live one's log never comes to the new one.

use std::path::Path;

use anyhow::{anyhow, bail, ensure, Context as _, Result};

use super::node::Node;
use super::{database, mounted_alone, rows, verify, OWNER, ROWS, SETTING};
use crate::app::App;
use crate::components::dirswap::{self, DirSwap, State};
use crate::components::drill::check_recorded as check_rows;
use crate::components::n8n_data::{self, check_mounted};
use crate::components::{Around, N8n, RestoreOptions, RestorePlan};
use crate::engine::{Container, Data, Docker, Exec, Guard, Mount, Source};
use crate::formats::sqlite::Summary;
use crate::process::hinted;
use crate::report::log::Journal;
use crate::report::units;
use crate::stack::{LeftHalfDone, Unseen};
use crate::store::inventory::point_of;
use crate::store::{Kind, Stamp};
use crate::stream::encrypt::Locked;
use crate::stream::read::check_recorded;

/// What SQLite keeps beside a database.
const BESIDE: [&str; 4] = ["", "-wal", "-shm", "-journal"];

/// Makes a directory that is missing, in an empty volume, and gives it to the owner of the one above.
const MAKE_DIR: &str = r#"set -eu
make() {
  [ ! -d "$1/." ] || return 0
  make "${1%/*}"
  mkdir -- "$1"
  chown "$(stat -c %u:%g "${1%/*}/.")" "$1"
}
make "$1""#;

/// Takes the live database, the new one, what the recovery point says of owner and mode, and the user of n8n's
/// container. Gives the new one what the live one has. Where that is lost, the engine may have made the directory,
/// which is root's then.
const OWN: &str = r#"set -eu
live=$1 new=$2 recorded=$3 user=$4
dir=${live%/*} mode=644
case $recorded in *[!0-9:]*) recorded='' ;; esac
of_dir=$(stat -c %u:%g "$dir/.")
has=$(stat -L -c %u:%g:%a "$live" 2>/dev/null) || has=''
case $has in
  '') ;;
  # A restore into such a directory has made it root's.
  0:*) mode=${has##*:} has='' ;;
esac
: "${has:=$recorded}"
if [ -z "$has" ]; then
  case $user in
    *:*) ;;
    *) user=${user:-0}:$(id -g "${user:-0}" 2>/dev/null || echo 0) ;;
  esac
  case $of_dir in
    0:*) has=$user:$mode ;;
    *) has=$of_dir:$mode ;;
  esac
fi
chown "${has%:*}" "$new"
chmod "${has##*:}" "$new"
if [ ! -e "$live" ] && [ "${of_dir%:*}" = 0 ]; then chown "${has%:*}" "$dir"; fi"#;

/// A database that has been verified, and the place that it is for.
pub struct Plan<'a> {
    app: &'a App,
    docker: Docker,
    journal: Journal,
    file: &'a Path,
    packed: Summary,
    container: Container,
    dir: String,
    name: String,
    options: RestoreOptions,
}

/// Verifies the file and looks up where n8n's database is. Changes nothing.
pub fn prepare<'a>(app: &'a App, file: &'a Path, options: RestoreOptions, journal: Journal) -> Result<Plan<'a>> {
    journal.info("Verifying backup file integrity...");
    let packed = check_recorded(&app.config, &app.store, file)
        .and_then(|()| verify(app, file))
        .map_err(|error| match error.downcast_ref::<Locked>() {
            Some(_) => error,
            None => error.context("Backup file is corrupted or not a SQLite database"),
        })?;
    journal.info("Backup file integrity verified");
    let docker = app.docker()?;
    let of = database(app)?;
    let container = docker.existing(&of.container, SETTING)?;
    let path = Path::new(&of.path);
    let (dir, name) = path
        .parent()
        .zip(path.file_name())
        .context("n8n's database has no name")?;
    let plan = Plan {
        dir: dir.display().to_string(),
        name: name.to_string_lossy().into_owned(),
        app,
        docker,
        journal,
        file,
        packed,
        container,
        options,
    };
    plan.check_users()?;
    check_mounted(app, &plan.docker, journal, &plan.container)?;
    let helper = plan.helper()?;
    // What an interrupted restore has left takes room, which is there again once run has set it right.
    if DirSwap::new(&helper, &plan.dir).state()? == State::None && !plan.is_home_half_replaced(&helper)? {
        plan.check_room(&helper)?;
    }
    Ok(plan)
}

impl RestorePlan for Plan<'_> {
    fn warnings(&self) -> Vec<String> {
        vec![format!(
            "This will replace n8n's database {} in {}, and stop n8n meanwhile",
            self.live(),
            self.container.name
        )]
    }

    fn n8n(&self) -> N8n {
        N8n::Stops
    }

    fn run(&self, around: &dyn Around) -> Result<()> {
        let _component = self.app.hold(Kind::Sqlite, self.journal).context(Unseen)?;
        let helper = self.helper().context(Unseen)?;
        let swap = DirSwap::new(&helper, &self.dir);
        if self.recover(&helper, &swap).map_err(Unseen::mark)? {
            self.check_room(&helper)?;
        }
        let staged = self.stage(&helper, &swap);
        let kept = match staged.and_then(|kept| self.check_alone(around).map(|()| kept)) {
            Ok(kept) => kept,
            Err(error) => {
                // What cannot be removed now is removed by the next restore.
                let _ = self.put_back(helper);
                return Err(error.context("SQLite restore failed"));
            }
        };
        if let Err(error) = self.node(&helper).checkpoint(&self.live()) {
            // It is kept with its log, and put back with it.
            log::trace!("the live database is moved with its log: {error:#}");
        }
        self.journal.info("Replacing the database...");
        if let Err(error) = swap.exchange().and_then(|()| self.check_alone(around)) {
            self.journal.warn("Putting back what was there before");
            swap.turn();
            let back = around.undo_at_rest(self.journal, Box::new(|| self.put_back(helper)));
            return Err(match back {
                Ok(()) => error.context("SQLite restore failed"),
                Err(worse) => error
                    .context(format!("{worse:#}"))
                    .context(LeftHalfDone::rollback_failed()),
            });
        }
        let done = swap.finish(&[]);
        match kept {
            Some(kept) => {
                done.context("The database is restored, and the one before could not be kept")?;
                self.journal.info(format_args!("The database before is kept as {kept}"));
                Ok(())
            }
            None => done.context("The database is restored, and the one before could not be removed"),
        }
    }
}

impl Plan<'_> {
    /// The path of the live database.
    fn live(&self) -> String {
        format!("{}/{}", self.dir, self.name)
    }

    /// A container that sees what n8n's has mounted.
    fn helper(&self) -> Result<Guard> {
        let data = Data::Of(&self.container.name);
        dirswap::helper_container(self.app, &self.docker, Kind::Sqlite, self.options.dry_run, |labels| {
            self.docker.helper_container(labels, &self.container.image_id, data)
        })
    }

    fn node<'h>(&'h self, helper: &'h Guard) -> Node<'h> {
        Node::new(self.app, &self.docker, helper.id())
    }

    /// Runs a script in the helper.
    fn sh(&self, helper: &Guard, script: &str, args: &[&str]) -> Result<()> {
        let argv = [&["sh", "-c", script, "sh"], args].concat();
        let command = self.docker.exec(helper.id(), Exec::default(), &argv);
        let output = self.docker.answer("sh", command, None)?;
        ensure!(output.success, "{}", output.stderr);
        Ok(())
    }

    /// What holds the database.
    fn mount(&self) -> Result<&Mount> {
        let path = self.live();
        let above = |mount: &&Mount| Path::new(&path).starts_with(&mount.destination);
        let mounts = self.container.mounts.iter().filter(above);
        mounts.max_by_key(|mount| mount.destination.len()).with_context(|| {
            format!(
                "{path} is on no volume of {}: what is restored there would go with the container",
                self.container.name
            )
        })
    }

    /// Refuses a restore while containers use the volume that would not be stopped.
    fn check_users(&self) -> Result<()> {
        if let Some((why, hint)) = mounted_alone(&self.container, &self.live()) {
            bail!(hinted(why, hint));
        }
        let mount = self.mount()?;
        let source = match mount.name.as_str() {
            "" => Source::Directory(mount.directory.clone()),
            name => Source::Volume(name.to_owned()),
        };
        let n8n = &self.app.config.n8n_containers;
        let mut others = self.docker.users(&source)?;
        others.retain(|names| !names.split(',').any(|name| n8n.iter().any(|n8n| n8n == name)));
        ensure!(
            others.is_empty(),
            hinted(
                format_args!(
                    "Containers that are not known as n8n's use {source}: {}",
                    others.join(" ")
                ),
                format_args!(
                    "stop them, or add them to {SETTING} in .env, so that they are stopped meanwhile (it is: {})",
                    n8n.join(" ")
                )
            )
        );
        Ok(())
    }

    /// Refuses a database that the volume has no room for, beside the live one.
    fn check_room(&self, helper: &Guard) -> Result<()> {
        // The directory may be missing in an empty volume.
        let Some(free) = self.docker.free_space(helper.id(), &self.mount()?.destination)? else {
            self.journal.warn(format_args!(
                "Could not determine the disk space that is free for {}",
                self.dir
            ));
            return Ok(());
        };
        ensure!(
            free >= self.packed.bytes,
            "Insufficient disk space for {} of {} on Docker's disk: {} available, {} required, since the database is unpacked \
             beside the live one: make room there (docker system df tells what takes it)",
            self.dir,
            self.container.name,
            units::available(free),
            units::amount(self.packed.bytes)
        );
        Ok(())
    }

    /// Makes sure that nothing which may work with the database runs.
    fn check_alone(&self, around: &dyn Around) -> Result<()> {
        around.check_stopped()?;
        self.check_users()
    }

    /// Puts back what was there before, once nothing goes on any more in the helper in which a step has failed.
    fn put_back(&self, failed: Guard) -> Result<()> {
        drop(failed);
        let helper = self.helper()?;
        DirSwap::new(&helper, &self.dir).roll_back(self.journal)
    }

    /// Whether a killed restore of n8n's data has begun to exchange one of their directories.
    fn is_home_half_replaced(&self, helper: &Guard) -> Result<bool> {
        let mounts = self.container.mounts.iter();
        dirswap::is_whole_begun(helper, mounts.map(|mount| mount.destination.as_str()))
    }

    /// Sets right what a killed restore has left. Whether there was something.
    fn recover(&self, helper: &Guard, swap: &DirSwap<'_>) -> Result<bool> {
        let is_of_home = self.is_home_half_replaced(helper)?;
        if is_of_home {
            // What was exchanged with the home goes the same way as the home, which alone is seen here.
            n8n_data::recover(self.app, &self.docker, self.journal).map_err(|error| {
                error.context(LeftHalfDone::new(
                    "A restore of n8n's data was interrupted and may have replaced half of them: run restore-n8n or \
                     restore-all again, which sets that right first",
                ))
            })?;
        }
        match swap.state()? {
            State::None => return Ok(is_of_home),
            State::Staged => swap.roll_back(self.journal)?,
            // Else n8n would be started on a database that is not there.
            State::Broken => swap
                .roll_back(self.journal)
                .map_err(|error| error.context(LeftHalfDone::rollback_failed()))?,
            State::Exchanged => swap.finish(&[])?,
        }
        self.journal
            .warn("An interrupted restore had left its traces beside the database; they are set right");
        Ok(true)
    }

    /// Unpacks the database, proves it, and compares it with what the recovery point says. Gives how the live one will
    /// be kept.
    fn stage(&self, helper: &Guard, swap: &DirSwap<'_>) -> Result<Option<String>> {
        self.journal.info("Unpacking the database beside the live one...");
        let names = BESIDE.map(|end| format!("{}{end}", self.name));
        self.sh(helper, MAKE_DIR, &[&self.dir])?;
        swap.begin(&names.each_ref().map(String::as_str))?;
        let kept = match self.options.keep_old {
            true => Some(self.keep_old(helper, swap)?),
            false => None,
        };
        let new = format!("{}/{}", swap.new_dir(), self.name);
        let node = self.node(helper);
        node.copy_in(self.file, &new)?;
        self.journal.info("Verifying restore...");
        let contents = node.examine(&new)?;
        if contents.length != self.packed.bytes {
            return Err(anyhow!(
                "the file holds {} bytes, and {} were unpacked",
                self.packed.bytes,
                contents.length
            ));
        }
        let point = point_of(&self.app.store, self.file)?.map(|(point, _)| point);
        if let Some(point) = &point {
            check_rows(point, ROWS, &[""], &rows(&contents).collect::<Vec<_>>())?;
        }
        self.journal.info(format_args!(
            "Found {} tables with {} rows in the restored database",
            contents.tables.len(),
            contents.rows()
        ));
        if self.options.deactivate {
            let count = node.deactivate(&new)?;
            let count = count.context("--deactivate: the database holds no workflows of n8n")?;
            self.journal.info(format_args!(
                "--deactivate: {count} workflow(s) that were active are inactive, and no execution waits"
            ));
        }
        let recorded = point.as_ref().and_then(|point| point.fact(OWNER)).unwrap_or_default();
        let user = self.docker.user(&self.container.name)?;
        self.sh(helper, OWN, &[&self.live(), &new, recorded, &user])?;
        Ok(kept)
    }

    /// Has the database that is replaced kept under another name, which it gives.
    fn keep_old(&self, helper: &Guard, swap: &DirSwap<'_>) -> Result<String> {
        let path = |stamp| format!("{}/n8n_old_{stamp}.sqlite", self.dir);
        let stamp = Stamp::now().free(|stamp| self.sh(helper, r#"[ -e "$1" ]"#, &[&path(stamp)]).is_ok());
        swap.keep_old_as(&format!("n8n_old_{stamp}.sqlite"))?;
        Ok(path(stamp))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{symlink, MetadataExt, PermissionsExt};

    use super::*;
    use crate::testing::{sh, TempDir};

    #[test]
    fn the_new_database_has_the_mode_of_the_file_that_a_link_leads_to() {
        let dir = TempDir::new();
        let [real, live, new] = ["real", "live", "new"].map(|name| dir.path().join(name));
        fs::write(&real, "").unwrap();
        fs::write(&new, "").unwrap();
        fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
        symlink("real", &live).unwrap();
        let own = sh(OWN).arg("sh").args([&live, &new]).args(["", ""]).status();
        assert!(own.unwrap().success());
        assert_eq!(new.metadata().unwrap().mode() & 0o777, 0o640);
    }
}
