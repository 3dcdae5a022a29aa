//! What there is in `backups/`, as the retention sees it.

use std::time::Duration;

use chrono::{DateTime, Local};

use crate::store::inventory::{PointOnDisk, State};
use crate::store::manifest::Point;
use crate::store::marks::{self, DrillOutcome};
use crate::store::retention::{File, Grade, Unit};
use crate::store::{Entry, Kind, Stamp};

/// How far the time of a file may lie after the name of its recovery point: a run takes its time, and clocks change twice a
/// year.
const TOLERANCE: Duration = Duration::from_secs(86_400);

/// A recovery point as the retention sees it: its run tells its age, unless one of its files is younger.
pub(super) fn recorded(held: &PointOnDisk) -> Unit {
    let point = &held.point;
    let taken = point.time();
    let touched = held
        .files
        .iter()
        .filter_map(|file| Some(file.entry.as_ref()?.modified))
        .max();
    let good = point.excluded_from_latest().is_none();
    let files = held.files.iter().filter_map(|file| {
        let entry = file.entry.as_ref()?;
        Some(File {
            path: entry.path.clone(),
            kind: file.member.kind,
            bytes: entry.bytes,
            grade: match file.state {
                _ if entry.bytes == 0 => Grade::Empty,
                State::Present if good => Grade::Good,
                _ => Grade::Unproven,
            },
        })
    });
    Unit {
        files: files.collect(),
        taken,
        named: Some(taken),
        aged: touched.filter(|time| *time > taken + TOLERANCE).unwrap_or(taken),
        local: point.stamp.local(),
        recorded: true,
        pinned: point.pin().is_some(),
        complete: good && held.is_complete(),
        unreadable: held.files.iter().any(|file| file.state == State::Unreadable),
        verified: point.is_verified(),
        proven: proven(point),
    }
}

/// Those of a point's components that its drill has restored: one of the database alone proves nothing of the others.
fn proven(point: &Point) -> Vec<Kind> {
    let Some(drill) = point.drill().filter(DrillOutcome::passed) else {
        return Vec::new();
    };
    let tested = |kind: &Kind| marks::tests(&drill.parts, kind.name());
    Kind::ALL.into_iter().filter(tested).collect()
}

/// A file that belongs to no recovery point: the time at which it was written tells its age, as with find.
pub(super) fn unrecorded(kind: Kind, entry: &Entry) -> Unit {
    Unit {
        files: vec![File {
            path: entry.path.clone(),
            kind,
            bytes: entry.bytes,
            grade: if entry.bytes > 0 { Grade::Good } else { Grade::Empty },
        }],
        taken: entry.modified,
        named: entry.stamp.map(Stamp::time),
        aged: entry.modified,
        local: DateTime::<Local>::from(entry.modified).naive_local(),
        recorded: false,
        pinned: false,
        complete: false,
        unreadable: false,
        verified: false,
        proven: Vec::new(),
    }
}
