//! The copies there, compared by their checksums.

use std::io;

use anyhow::{bail, Error, Result};
use chrono::DateTime;

use super::there::{sent_manifest, There};
use super::{check_files, is_here, is_marked, length, names_of, note_defect, Changed, JOURNAL};
use crate::app::App;
use crate::commands::shared::now;
use crate::commands::verify::note_damaged;
use crate::process::hinted;
use crate::store::manifest::{self, Point};
use crate::store::marks;
use crate::store::remote::{Differs, Proof, Rclone};
use crate::stream::checksum::Digest;

/// When the copy was last compared by checksums.
pub(super) const CHECKED: &str = "offsite.checked";
/// A run compares no more copies than this, as long as none is as it was sent.
const MOST: usize = 3;

/// Compares the copies by checksums until one is as it was sent: of those that are whole here, first the ones that were found
/// broken before, then those that were compared the longest ago. Gives those that are to be sent again, and adds to `failed` what
/// says nothing of a copy.
pub(super) fn check_in_turn<'a>(
    app: &App,
    rclone: &Rclone,
    points: &'a [Point],
    there: &There,
    remote: &str,
    failed: &mut Vec<Error>,
) -> Result<Vec<&'a Point>> {
    let whole = |point: &&Point| is_marked(point, remote) && there.defect(point).is_none() && is_here(app, point);
    let compared = |point: &&Point| {
        let time = point.fact(CHECKED).or(point.fact(marks::OFFSITE)).unwrap_or_default();
        let time = time.split(' ').next().unwrap_or_default();
        DateTime::parse_from_rfc3339(time).map_or(0, |time| time.timestamp_millis())
    };
    let mut turns: Vec<&Point> = points.iter().filter(whole).collect();
    turns.sort_by_key(|point| (point.copy_defect().is_none(), compared(point)));
    let (mut again, mut left) = (Vec::new(), MOST);
    for point in turns {
        if left == 0 {
            break;
        }
        match compare(app, rclone, point, there) {
            Ok(proof) => {
                manifest::update(&app.store, point.stamp, |point| {
                    point.set(CHECKED, &now());
                    point.unset(marks::OFFSITE_DEFECT);
                })?;
                JOURNAL.info(format_args!(
                    "The copy of recovery point {} is as it was sent, {proof}",
                    point.stamp
                ));
                break;
            }
            Err(error) => {
                // A good copy differs from a file that has changed here.
                if let Err(error) = check_files(app, point) {
                    // One that cannot be read is not noted, and comes first again: it keeps no other from its turn.
                    if let Some(Changed(kind, _)) = error.downcast_ref() {
                        note_damaged(app, point.stamp, *kind);
                        left -= 1;
                    }
                    JOURNAL.warning(&error.context(hinted(
                        format_args!(
                            "The copy of recovery point {} cannot be compared and stays as it is, since a file here has \
                             changed or cannot be read",
                            point.stamp
                        ),
                        format_args!(
                            "move that file away, and bring the copy back: n8n-backup fetch-offsite {}",
                            point.stamp
                        ),
                    )));
                    continue;
                }
                left -= 1;
                if !error.is::<Differs>() {
                    let error = error.context(format!(
                        "The copy of recovery point {} could not be compared",
                        point.stamp
                    ));
                    // Of a place that gives no answer nothing else is told either.
                    if rclone.list().is_err() {
                        return Err(error);
                    }
                    failed.push(error);
                    continue;
                }
                JOURNAL.warning(&error.context(format!(
                    "The copy of recovery point {} is not as it was sent. It is sent again",
                    point.stamp
                )));
                note_defect(app, point, "it is not as it was sent")?;
                again.push(point);
            }
        }
    }
    Ok(again)
}

/// Compares the files of a point, and the manifest where it is known what was sent.
fn compare(app: &App, rclone: &Rclone, point: &Point, there: &There) -> Result<Proof> {
    let (place, _) = there.place(rclone, point);
    let _used = point.hold(&app.store)?;
    let proof = place.check(app.store.root(), &names_of(point), length(app, point))?;
    let Some(set) = there.set(point) else {
        return Ok(proof);
    };
    match is_as_sent(app, &place, &set, point) {
        Ok(Some(false)) => bail!(Differs(format!("{set} differs"))),
        // What has rotted on a remote of type crypt cannot be read, and looks like a connection that ends. It is short.
        Err(error) if proof == Proof::Crypt && rclone.list().is_ok() => {
            Err(error.context(Differs(format!("{set} cannot be read"))))
        }
        known => known.map(|_| proof),
    }
}

/// Whether a manifest there is the one that was sent last, where that is known.
pub(super) fn is_as_sent(app: &App, place: &Rclone, set: &str, point: &Point) -> Result<Option<bool>> {
    let Some((_, sum)) = sent_manifest(point) else {
        return Ok(None);
    };
    let mut chain = place.chain();
    let stream = place.read(&mut chain, set)?;
    let (digest, sha256) = Digest::start(&mut chain, app.config.path.as_ref())?;
    chain.pump("comparing a manifest", stream, io::sink(), digest);
    Ok(Some(sha256.get(&chain.finish()?)? == sum))
}
