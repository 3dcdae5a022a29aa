//! The retention there.

use std::cmp::Reverse;
use std::time::SystemTime;

use anyhow::{anyhow, ensure, Error, Result};

use super::there::There;
use super::{names_of, read_manifest, Unread, JOURNAL};
use crate::app::App;
use crate::process::{hinted, is_outside};
use crate::stack::{self, Needs};
use crate::store::inventory::{self, Inventory};
use crate::store::manifest::{self, Point};
use crate::store::marks;
use crate::store::offsite::{expired, set_name, Expired};
use crate::store::remote::Rclone;
use crate::store::retention::Rules;
use crate::store::Stamp;

/// After this number of manifests that could not be read, the older ones are not tried: each takes a program and the network.
const MOST_LOCKED: usize = 5;

/// The rules of the retention there, where there is one.
pub(super) fn rules(app: &App) -> Rules {
    Rules {
        days: app.config.offsite_keep_days,
        last: app.config.retention.last,
        ..Rules::default()
    }
}

/// Applies `BACKUP_OFFSITE_KEEP_DAYS` to the points of this stack, and to those that are nobody's. `before` is what was there when
/// the run began: where that tells nothing, what was sent since does not either.
pub(super) fn clear(app: &App, rclone: &Rclone, points: &[Point], before: There, dry_run: bool) -> Result<()> {
    let days = app.config.offsite_keep_days;
    if days == 0 {
        return Ok(());
    }
    // What is pinned here, and what the points hold, is not known then.
    let away = Inventory::take(&app.store)?.away.into_iter().next();
    let away = away.map(|away| away.to_string()).or_else(|| {
        let none = points.is_empty() && !before.is_empty();
        none.then(|| {
            format!(
                "{} holds no recovery point of this stack",
                app.store.sets_dir().display()
            )
        })
    });
    if let Some(away) = away {
        JOURNAL.warn(format_args!("{away}: is a disk not mounted? Nothing is deleted there"));
        return Ok(());
    }
    let rules = rules(app);
    let now = SystemTime::now();
    let after = There::look(rclone, before.stack.clone())?;
    // What this run has found wrong with a copy, or set right, their manifests tell.
    let now_told = |point: &Point| Point::load(&point.path(&app.store)).unwrap_or_else(|_| point.clone());
    let mut known: Vec<Point> = points.iter().map(now_told).collect();
    let mut locked: Vec<(Stamp, Error)> = Vec::new();
    // A host that has taken over knows its points there by their manifests alone.
    let expired = loop {
        let stamps: Vec<Stamp> = locked.iter().map(|(stamp, _)| *stamp).collect();
        let expired = expired(&before.places(&known, &stamps), now, &rules)
            .and_then(|_| expired(&after.places(&known, &stamps), now, &rules));
        let mut unknown = expired
            .as_ref()
            .map(|expired| after.unknown(&known, &stamps, expired))
            .unwrap_or_default();
        unknown.sort_unstable_by_key(|(stamp, _)| Reverse(*stamp));
        if unknown.is_empty() {
            break expired;
        }
        let read = |stamp: Stamp, name: &str| {
            let point = Point::parse(&read_manifest(app, rclone, name, |_| Ok(()))?)?;
            ensure!(
                point.stamp == stamp,
                "the manifest of {stamp} is that of {}",
                point.stamp
            );
            Ok(point)
        };
        let read = unknown.iter().try_for_each(|(stamp, name)| {
            // Those before them were sealed as they were, or by somebody else.
            let point = match locked.len() < MOST_LOCKED {
                true => read(*stamp, name),
                false => Err(anyhow!("it was not tried")),
            };
            match point {
                Ok(point) => known.push(point),
                Err(error) if error.is::<Unread>() || is_outside(&error) => return Err(error),
                Err(error) => locked.push((*stamp, error)),
            }
            Ok(())
        });
        if let Err(error) = read {
            break Err(error);
        }
    };
    let Expired {
        mut sets, mut files, ..
    } = match expired {
        Ok(expired) => expired,
        Err(error) => {
            JOURNAL.warn(format_args!("{error:#}: nothing is deleted there"));
            return Ok(());
        }
    };
    tell_locked(locked);
    let needs = stack::needs(app);
    if let Needs::Any(_) = needs {
        needs.tell(JOURNAL);
        return Ok(());
    }
    // Somebody may have pinned a point since this run began.
    for point in inventory::list(&app.store)?
        .into_iter()
        .filter_map(|(_, point)| point.ok())
    {
        if point.pin().is_some() || needs.include(Some(point.stamp)) {
            let names = [names_of(&point), vec![set_name(point.stamp, false)]].concat();
            for list in [&mut sets, &mut files] {
                list.retain(|there| !names.iter().any(|name| there.contains(name)));
            }
        }
    }
    for name in sets.iter().chain(&files) {
        let what = if dry_run { "[DRY-RUN] Would delete" } else { "Deleting" };
        JOURNAL.info(format_args!("{what} there, older than {days} days: {name}"));
    }
    if dry_run {
        return Ok(());
    }
    // The manifests first: a point without one is not taken for whole, here either.
    if !sets.is_empty() {
        rclone.delete(&sets)?;
    }
    for point in points {
        if after.set_path(point).is_some_and(|set| sets.contains(&set)) {
            manifest::update(&app.store, point.stamp, |point| point.unset(marks::OFFSITE))?;
        }
    }
    if !files.is_empty() {
        rclone.delete(&files)?;
    }
    Ok(())
}

/// Says how many points stay because their manifests cannot be read here.
fn tell_locked(locked: Vec<(Stamp, Error)>) {
    let count = locked.len();
    if let Some((last, error)) = locked.into_iter().max_by_key(|(stamp, _)| *stamp) {
        JOURNAL.warning(&error.context(hinted(
            format_args!(
                "{count} recovery point(s) there, up to {last}, stay however old they are, since it cannot be read here whether \
                 they are pinned"
            ),
            "delete there what you do not need, and have points stay here for as long as there (BACKUP_RETENTION_DAYS), or leave \
             the retention there to its provider",
        )));
    }
}
