//! What is to be thought of another off-site copy that is under way.

use std::fmt;
use std::thread;
use std::time::{Duration, SystemTime};

use super::{is_here, is_marked, may_leave};
use crate::app::{halted, App};
use crate::report::units;
use crate::store::inventory;
use crate::store::lock::offsite_lock;
use crate::store::manifest::Point;

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

    /// Of the points that could be sent and are newer than all that have been, the oldest one tells how long: since that
    /// copy began, at most.
    fn why_too_long(app: &App) -> Option<String> {
        let remote = app.config.remote();
        let now = SystemTime::now();
        let points = inventory::latest_first(&app.store, now).ok()?;
        let points = points.into_iter().filter_map(|(_, point)| point.ok());
        let can_be_sent = |point: &Point| may_leave(app, point) && is_here(app, point);
        let ours = points.filter(|point| point.excluded_from_latest().is_none() && can_be_sent(point));
        let waits = ours.take_while(|point| !is_marked(point, &remote)).last()?;
        let since = |time| now.duration_since(time).unwrap_or_default();
        let age = since(waits.time());
        // It has written its number there.
        let begun = offsite_lock(app.store.root())
            .metadata()
            .and_then(|meta| meta.modified());
        let waited = begun.map_or(age, |begun| age.min(since(begun)));
        (waited > LONGEST).then(|| {
            format!(
                "recovery point {} is {} old and is not off-site yet: see whether that copy still sends",
                waits.stamp,
                units::span(age)
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::path::Path;

    use super::*;
    use crate::config::Config;
    use crate::store::manifest;
    use crate::store::marks::{Mark, OffsiteCopy};
    use crate::testing::TempDir;

    #[test]
    fn a_wait_begins_with_the_copy_that_is_waited_for() {
        let dir = TempDir::new();
        let app = |env: &[u8]| App::new(Config::of_text(dir.path(), Path::new(".env"), env).unwrap());
        let (sealed, plain) = (app(b""), app(b"RCLONE_SYNC_ENCRYPTED_ONLY=false"));
        let root = plain.store.root();
        for name in ["redis", "sets"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        let points = ["20250102_020000", "20250101_020000"].map(|stamp| {
            let name = format!("redis/dump_{stamp}.rdb");
            fs::write(root.join(&name), "x").unwrap();
            let sum = "0".repeat(64);
            let text = format!("# n8n-backup recovery point {stamp}\n# size.redis: 1\n{sum}  {name}\n");
            let point = Point::parse(&text).unwrap();
            fs::write(point.path(&plain.store), text).unwrap();
            point
        });
        let lock = File::create(offsite_lock(plain.store.root())).unwrap();
        assert_eq!(Busy::why_too_long(&plain), None, "it has begun just now");
        lock.set_modified(SystemTime::now() - LONGEST - Duration::from_secs(60))
            .unwrap();
        let why = Busy::why_too_long(&plain).unwrap_or_default();
        assert!(why.starts_with("recovery point 20250101_020000 is "), "{why}");
        assert_eq!(Busy::why_too_long(&sealed), None, "they may not leave");
        let copy = OffsiteCopy::now(&plain.config.remote(), None);
        manifest::update(&plain.store, points[0].stamp, |point| {
            point.mark(&Mark::Offsite(copy));
        })
        .unwrap();
        assert_eq!(Busy::why_too_long(&plain), None, "it has sent the newest");
    }
}
