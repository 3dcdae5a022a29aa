//! The disks that the backups are on, and when each of them will be full.

use std::path::PathBuf;

use crate::app::App;
use crate::report::finding::{Finding, Level};
use crate::report::units;
use crate::store::retention::Rules;
use crate::store::space::{available, disks};
use crate::store::{total, Kind};

use super::checks::{Seen, State};
use super::DAY;

/// How far the disk forecast looks.
const HORIZON_DAYS: u64 = 90;
/// For how many of the usual gaps back points tell how often one is made and how they grow.
const RECENT: usize = 8;
/// A disk that will be full within so many days is warned about.
const WARN_DAYS: u64 = 14;

/// How long points are kept, as far as numbers can tell.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Keep {
    /// For how many days each is.
    pub(super) days: u64,
    /// How many the calendar's rules keep longer.
    pub(super) longer: u64,
}

impl Keep {
    pub(super) fn of(rules: &Rules) -> Self {
        Self {
            days: rules.days.max(rules.last as u64).max(rules.daily as u64),
            longer: (rules.weekly + rules.monthly + rules.yearly) as u64,
        }
    }
}

/// A disk that backups are written to.
#[derive(Clone, Debug, Default)]
pub(super) struct Room {
    /// The directory below `backups/` that is on it; `None` for that of `backups/` itself.
    pub(super) dir: Option<PathBuf>,
    /// What is written to it.
    pub(super) kinds: Vec<Kind>,
    pub(super) free: Option<u64>,
    /// What a run asks for besides. Another disk than that of `backups/` may be small.
    pub(super) reserve: u64,
}

impl Room {
    /// The disks that `backup-all` looks at.
    pub(super) fn of(app: &App) -> Vec<Self> {
        let config = &app.config;
        let disks = disks(&app.store).into_iter().map(|disk| {
            let is_first = disk.dir == app.store.root();
            Self {
                free: available(&disk.dir, config.stall).ok(),
                reserve: if is_first { config.min_free_kb * 1024 } else { 0 },
                dir: (!is_first).then_some(disk.dir),
                kinds: disk.kinds,
            }
        });
        disks.collect()
    }

    /// In how many days it will be full. `None`: not within the horizon, or nothing is known.
    fn days_until_full(&self, state: &State) -> Option<u64> {
        let free = self.free.filter(|_| state.away.is_empty())?;
        if free < self.reserve {
            return Some(0);
        }
        let here = |point: &Seen| {
            let sizes = point.sizes.iter().filter(|(kind, _)| self.kinds.contains(kind));
            total(sizes.map(|(_, bytes)| *bytes))
        };
        let sizes: Vec<(u64, u64)> = state
            .points
            .iter()
            .filter(|point| point.complete)
            .map(|point| (u64::try_from(point.age).unwrap_or(0), here(point)))
            .collect();
        forecast(&sizes, free - self.reserve, state.keep)
    }

    fn finding(&self, state: &State) -> Finding {
        let place = match &self.dir {
            Some(dir) => format!(" in {}", dir.display()),
            None => String::new(),
        };
        let Some(free) = self.free else {
            let text = format!("the free space{place} cannot be told");
            return Finding::new("disk", Level::Warning, text);
        };
        let text = format!("{} free{place}", units::available(free));
        let (level, text) = match self.days_until_full(state) {
            _ if free < self.reserve => (
                Level::Critical,
                format!("{text}, and a run asks for {}", units::amount(self.reserve)),
            ),
            _ if !state.away.is_empty() => (
                Level::Warning,
                format!("{text}; when it will be full cannot be told while files are not there"),
            ),
            Some(0) => (Level::Critical, format!("{text}: the next run will not fit")),
            Some(days) => (
                if days < WARN_DAYS { Level::Warning } else { Level::Ok },
                format!("{text}, full in about {days} days"),
            ),
            None => (Level::Ok, format!("{text}, enough for {HORIZON_DAYS} days and more")),
        };
        Finding::new("disk", level, text)
    }
}

impl State {
    pub(super) fn of_disks(&self) -> Vec<Finding> {
        self.disks.iter().map(|disk| disk.finding(self)).collect()
    }

    /// In how many days one of them will be full, when points go on to be made, to grow and to be deleted as they were.
    /// `None`: not within the horizon, or nothing is known.
    pub fn days_until_full(&self) -> Option<u64> {
        self.disks.iter().filter_map(|disk| disk.days_until_full(self)).min()
    }

    /// The disk that is warned about and will be full first, else that of `backups/` itself.
    pub(super) fn tightest(&self) -> Option<&Room> {
        let days = |disk: &&Room| disk.days_until_full(self).unwrap_or(WARN_DAYS).min(WARN_DAYS);
        self.disks.iter().min_by_key(days)
    }

    /// Free bytes on that disk.
    pub fn free(&self) -> Option<u64> {
        self.tightest()?.free
    }
}

/// In how many days `room` bytes will be used up. `points` are (age in seconds, bytes), oldest first. Points are taken to
/// come as often as they did lately, to grow by as much a day as they did, and to go as `keep` says.
pub(super) fn forecast(points: &[(u64, u64)], room: u64, keep: Keep) -> Option<u64> {
    let &(newest_age, newest_bytes) = points.last()?;
    // Points from before a pause, or that are kept longer than the others, do not tell how often one is made.
    let gap = |two: &[(u64, u64)]| two[0].0.saturating_sub(two[1].0);
    let gaps = points.windows(2).rev().map(gap).filter(|gap| *gap >= DAY / 2);
    let mut gaps: Vec<u64> = gaps.take(RECENT).collect();
    gaps.sort_unstable();
    let usual = gaps.get(gaps.len() / 4).map_or(DAY, |gap| DAY.max(*gap));
    let since = newest_age.saturating_add(RECENT as u64 * usual);
    let recent: Vec<_> = points.iter().filter(|(age, _)| *age <= since).collect();
    let &&(oldest_age, oldest_bytes) = recent.first()?;
    let turn = |age: u64| (age.saturating_sub(newest_age) / usual) as usize;
    let mut turns = vec![0_usize; turn(oldest_age) + 1];
    recent.iter().for_each(|(age, _)| turns[turn(*age)] += 1);
    turns.sort_unstable();
    // Nor do runs by hand on one day.
    let most = 2 * turns[turns.len() / 2].max(1);
    let made: usize = turns.iter().map(|made| made.min(&most)).sum();
    let days = oldest_age.saturating_sub(newest_age) as f64 / DAY as f64;
    // One point tells neither: once a day, and no growth, then.
    let (per_day, growth) = if days >= 0.5 {
        (
            made.saturating_sub(1) as f64 / days,
            (newest_bytes as f64 - oldest_bytes as f64) / days.max(1.0),
        )
    } else {
        (1.0, 0.0)
    };
    // What the last run has left, though it was older than the days, is pinned or kept by another rule, and stays. A run
    // may begin some seconds earlier than the one before, and leave one more.
    let (stay, go): (Vec<_>, Vec<_>) = points
        .iter()
        .partition(|(age, _)| age.saturating_sub(newest_age) / DAY > keep.days.saturating_add(1));
    let days = keep.days.saturating_add(keep.longer.saturating_sub(stay.len() as u64));
    let mut kept: Vec<(f64, f64)> = go
        .into_iter()
        .map(|&(age, bytes)| (-(age as f64) / DAY as f64, bytes as f64))
        .collect();
    let now: f64 = kept.iter().map(|(_, bytes)| bytes).sum();
    for day in 0..HORIZON_DAYS {
        let at = day as f64;
        kept.retain(|(born, _)| (at - born).floor() <= days as f64);
        let next = (newest_bytes as f64 + growth * at).max(0.0);
        // The next one has to fit whole, however long until then.
        let count = if day == 0 { per_day.max(1.0) } else { per_day };
        kept.push((at, next * count));
        if kept.iter().map(|(_, bytes)| bytes).sum::<f64>() - now > room as f64 {
            return Some(day);
        }
    }
    None
}
