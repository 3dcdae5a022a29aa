//! What is to be thought of another off-site copy that is under way.

use std::fmt;
use std::thread;
use std::time::{Duration, SystemTime};

use super::{is_here, is_marked};
use crate::app::{halted, App};
use crate::report::units;
use crate::store::inventory;

/// How long a point may wait for a copy that is under way: one daily run finds it so, the next but one does not.
const LONGEST: Duration = Duration::from_secs(36 * 3600);
/// How often, a second apart, a process is looked at that seems to wait for a disk.
const LOOKS: u32 = 5;

/// Another off-site copy is under way, by the process with this ID.
#[derive(Debug)]
pub struct Busy(pub(super) String);

impl fmt::Display for Busy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "An off-site copy is already in progress (PID: {})", self.0)
    }
}

impl std::error::Error for Busy {}

impl Busy {
    /// Why that copy cannot be relied on: its process cannot go on, or a point has waited for it for too long.
    pub fn why_in_vain(&self, app: &App) -> Option<String> {
        self.why_halted().or_else(|| Self::why_too_long(app))
    }

    fn why_halted(&self) -> Option<String> {
        let mut why = None;
        for look in 0..LOOKS {
            let (patience, text) = halted(&self.0)?;
            why = Some(text);
            if patience.is_zero() {
                break;
            }
            if look + 1 < LOOKS {
                thread::sleep(Duration::from_secs(1));
            }
        }
        why
    }

    /// Of the points that could be sent and are newer than all that have been, the oldest one tells how long.
    fn why_too_long(app: &App) -> Option<String> {
        let remote = app.config.remote();
        let now = SystemTime::now();
        let points = inventory::latest_first(&app.store, now).ok()?;
        let points = points.into_iter().filter_map(|(_, point)| point.ok());
        let ours = points.filter(|point| point.excluded_from_latest().is_none() && is_here(app, point));
        let waits = ours.take_while(|point| !is_marked(point, &remote)).last()?;
        let age = now.duration_since(waits.time()).unwrap_or_default();
        (age > LONGEST).then(|| {
            format!(
                "recovery point {} is {} old and is not off-site yet: see whether that copy still sends",
                waits.stamp,
                units::span(age)
            )
        })
    }
}
