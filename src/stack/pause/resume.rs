//! How a restore of a recovery point goes on that was interrupted.

use anyhow::{ensure, Result};

use super::Pause;
use crate::process::hinted;
use crate::stack::interrupted::names_of;
use crate::store::{Kind, Stamp};

impl Pause<'_> {
    /// The parts of a point that an interrupted restore of it has brought in place, with the same `left_out` of what the
    /// backups hold. From now on this point is what the record tells of, and its `parts` with those that the interrupted
    /// one was to bring, of whichever point, are what is to be done, but for those that are `skipped` by name and not half
    /// replaced.
    pub fn resume(&mut self, point: Stamp, parts: &[Kind], skipped: &[Kind], left_out: &str) -> Result<Vec<Kind>> {
        if self.record.point.is_some() && self.record.left_out != left_out {
            let mut record = self.record.clone();
            // Of another point, what it has not begun is to be as this one has it.
            let goes_on = record.point == Some(point);
            let is_left = |kind: &Kind| {
                let is_begun = record.done.contains(kind) || record.begun.contains(kind);
                is_begun || (goes_on && !skipped.contains(kind))
            };
            let mut other = record.parts.clone();
            other.retain(|kind| (kind.is_database() || *kind == Kind::Redis) && is_left(kind));
            let mut lost = other.clone();
            lost.retain(|kind| !parts.contains(kind));
            ensure!(
                lost.is_empty(),
                hinted(
                    format_args!(
                        "The interrupted restore was to bring back {} with other options ({}), which this one would lose",
                        names_of(&lost),
                        match record.left_out.as_str() {
                            "" => "without --deactivate and --empty-queue",
                            options => options,
                        }
                    ),
                    "give the same options, or restore all parts"
                )
            );
            record.forget_done(self.journal, &other, "the interrupted run had other options");
            self.record = record;
        }
        left_out.clone_into(&mut self.record.left_out);
        let record = &mut self.record;
        if record.point != Some(point) {
            // Until the parts of an unfinished restore are restored, too, what is there is half of it.
            record.mixed |= !record.parts.is_empty();
            record.done.clear();
        }
        // Those of restores of their own, without a point, are given up by nothing but another restore of them.
        if record.point.is_none() {
            record.begun.extend(&record.parts);
            record.begun.sort_unstable();
            record.begun.dedup();
        }
        if record.point.replace(point).is_some() {
            let (done, begun) = (&record.done, &record.begun);
            record
                .parts
                .retain(|part| done.contains(part) || begun.contains(part) || !skipped.contains(part));
        }
        let half: Vec<Kind> = skipped
            .iter()
            .copied()
            .filter(|part| record.begun.contains(part))
            .collect();
        if !half.is_empty() {
            self.journal.warn(format_args!(
                "The restore of {} was killed and may have replaced half of it: n8n stays stopped until it is restored",
                names_of(&half)
            ));
        }
        self.record.parts.extend(parts);
        self.record.parts.sort_unstable();
        self.record.parts.dedup();
        self.write()?;
        Ok(self.record.done.clone())
    }

    /// Restores a part, and records that it is in place.
    pub fn restore_part(&mut self, kind: Kind, work: impl FnOnce() -> Result<()>) -> Result<()> {
        self.record.begun.push(kind);
        self.write()?;
        let done = self.record.end_part(kind, work());
        if done.is_ok() {
            self.record.done.push(kind);
        }
        done.and(self.write())
    }

    /// Whether no part of the point is in place yet.
    pub fn is_untouched(&self) -> bool {
        self.record.is_untouched()
    }
}
