//! The time in a file name.

use std::fmt;
use std::time::SystemTime;

use chrono::{Local, NaiveDateTime, TimeDelta, TimeZone};

/// The local time in a file name, `YYYYMMDD_HHMMSS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Stamp(NaiveDateTime);

impl Stamp {
    const FORMAT: &'static str = "%Y%m%d_%H%M%S";
    /// The names of a run's manifest and files tell times that are closer than this.
    pub const SAME_RUN: TimeDelta = TimeDelta::hours(1);

    /// The time now.
    pub fn now() -> Self {
        Self(Local::now().naive_local())
    }

    /// Reads a stamp as it stands in a file name.
    pub fn parse(text: &str) -> Option<Self> {
        // chrono alone would also take fewer digits.
        (text.len() == 15)
            .then(|| NaiveDateTime::parse_from_str(text, Self::FORMAT).ok().map(Self))
            .flatten()
    }

    /// The moment that it stands for; the later one of two where clocks were set back.
    pub fn time(self) -> SystemTime {
        // Where clocks were set forward, the time that they would have shown.
        let skipped = || Local.from_local_datetime(&(self.0 + TimeDelta::hours(1))).latest();
        match Local.from_local_datetime(&self.0).latest().or_else(skipped) {
            Some(time) => time.into(),
            None => self.0.and_utc().into(),
        }
    }

    /// The date and time itself.
    pub fn local(self) -> NaiveDateTime {
        self.0
    }

    /// Whether two names are so close that they may be of one run.
    pub fn is_near(self, other: Self) -> bool {
        (self.0 - other.0).abs() < Self::SAME_RUN
    }

    /// One second later.
    pub fn next(self) -> Self {
        self.later(TimeDelta::seconds(1))
    }

    /// The first second from this one on whose names are free.
    pub fn free(self, is_taken: impl Fn(Self) -> bool) -> Self {
        let mut stamp = self;
        while is_taken(stamp) {
            stamp = stamp.next();
        }
        stamp
    }

    /// So much later, by the same clock.
    pub fn later(self, by: TimeDelta) -> Self {
        Self(self.0.checked_add_signed(by).unwrap_or(self.0))
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.format(Self::FORMAT))
    }
}
