//! Marks: what a recovery point knows of itself beside its files. In the manifest each is a line, `# NAME: VALUE`.
//!
//! The text is read by earlier versions and by people. Whatever decides by a mark asks for it here, by its parts.

use std::fmt;

use chrono::{DateTime, FixedOffset, Local, SecondsFormat};

use super::Kind;

/// The names of the marks.
pub const VERIFIED: &str = "verified";
pub const DAMAGED: &str = "damaged";
pub const DRILL: &str = "drill";
pub const OFFSITE: &str = "offsite";
pub const EXCLUDED: &str = "aside";
pub const PINNED: &str = "pinned";

/// What was found wrong with the copy off-site, until it is sent again or found whole; a fact of a point. The mark stays beside
/// it: by that, what is there is known as ours.
pub const OFFSITE_DEFECT: &str = "offsite.defect";

/// What the last drill has shown, part by part; facts of a point.
pub const KEY: &str = "drill.key";
pub const OPENED: &str = "drill.opened";
pub const STARTED: &str = "drill.started";
pub const MIGRATED: &str = "drill.migrated";
/// What a drill calls n8n's start, where that has failed.
pub const START: &str = "start";
/// With which other images it was recovered, and when. A drill leaves that as it is.
pub const REHEARSED: &str = "drill.rehearsed";
/// All of them that a drill replaces.
pub const PROOFS: [&str; 4] = [KEY, OPENED, STARTED, MIGRATED];

/// A mark of a recovery point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mark {
    /// Every file was found to be as it was recorded.
    Verified(Time),
    /// The components whose files were found to be others than those that were recorded.
    Damaged(Vec<Kind>),
    /// What the last drill has shown.
    Drill(DrillOutcome),
    /// Where a copy of it is.
    Offsite(OffsiteCopy),
    /// Why it, or what is in it, is restored by name only.
    ExcludedFromLatest(String),
    /// That no retention deletes it.
    Pinned(Pin),
}

impl Mark {
    /// Reads a line of a manifest; none when it is no mark, or says nothing that can be understood.
    pub fn parse(name: &str, value: &str) -> Option<Self> {
        Some(match name {
            VERIFIED => Self::Verified(Time::parse(value)),
            DAMAGED => Self::Damaged(kinds(value)),
            DRILL => Self::Drill(DrillOutcome::parse(value)?),
            OFFSITE => Self::Offsite(OffsiteCopy::parse(value)),
            EXCLUDED => Self::ExcludedFromLatest(value.to_owned()),
            PINNED => Self::Pinned(Pin::parse(value)),
            _ => return None,
        })
    }

    /// The name of its line.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Verified(_) => VERIFIED,
            Self::Damaged(_) => DAMAGED,
            Self::Drill(_) => DRILL,
            Self::Offsite(_) => OFFSITE,
            Self::ExcludedFromLatest(_) => EXCLUDED,
            Self::Pinned(_) => PINNED,
        }
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Verified(at) => at.fmt(f),
            Self::Damaged(kinds) => {
                let names: Vec<&str> = kinds.iter().map(|kind| kind.name()).collect();
                f.write_str(&names.join(" "))
            }
            Self::Drill(outcome) => outcome.fmt(f),
            Self::Offsite(copy) => copy.fmt(f),
            Self::ExcludedFromLatest(why) => f.write_str(why),
            Self::Pinned(pin) => pin.fmt(f),
        }
    }
}

fn kinds(words: &str) -> Vec<Kind> {
    let named = |word: &str| Kind::ALL.into_iter().find(|kind| kind.name() == word);
    words.split_whitespace().filter_map(named).collect()
}

/// When something happened; a manifest that was edited may tell no time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time(Option<DateTime<FixedOffset>>);

impl Time {
    /// The time now.
    pub fn now() -> Self {
        Self(Some(Local::now().fixed_offset()))
    }

    fn parse(text: &str) -> Self {
        Self(DateTime::parse_from_rfc3339(text).ok())
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(time) => f.write_str(&time.to_rfc3339_opts(SecondsFormat::Secs, false)),
            None => f.write_str("unknown"),
        }
    }
}

/// What a drill has shown: `passed PARTS TIME`, or `failed PARTS TIME: WHAT ...`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrillOutcome {
    /// What was tested: `full`, or a component.
    pub parts: String,
    /// When.
    pub at: Time,
    /// What failed; nothing when the drill passed.
    pub failed: Vec<String>,
}

impl DrillOutcome {
    /// Whether everything that was tested is proven.
    pub fn passed(&self) -> bool {
        self.failed.is_empty()
    }

    /// Whether it has tested all that has failed in `other`.
    pub fn covers(&self, other: &Self) -> bool {
        other.failed.iter().all(|name| tests(&self.parts, name))
    }

    /// Reads the value of the mark; none when it tells no outcome.
    pub fn parse(text: &str) -> Option<Self> {
        let (head, failed) = match text.split_once(": ") {
            Some((head, failed)) => (head, failed.split_whitespace().map(str::to_owned).collect()),
            None => (text, Vec::new()),
        };
        let words: Vec<&str> = head.split_whitespace().collect();
        let failed = match words.first()?.trim_end_matches(':') {
            "passed" => Vec::new(),
            // What failed is not told: it may have been anything.
            "failed" if failed.is_empty() => vec!["unknown".to_owned()],
            "failed" => failed,
            _ => return None,
        };
        Some(Self {
            // The first versions tested everything, and did not name it.
            parts: words.get(1).filter(|_| words.len() > 2).unwrap_or(&FULL).to_string(),
            at: Time::parse(words.last()?),
            failed,
        })
    }
}

/// What a drill of everything calls what it tests.
pub const FULL: &str = "full";

/// Whether a drill of `parts` tests what is named so; the key is proven with the database.
pub fn tests(parts: &str, name: &str) -> bool {
    let is_database = |word: &str| kinds(word).iter().any(|kind| kind.is_database());
    parts == FULL || parts == name || (name == "key" && is_database(parts))
}

impl fmt::Display for DrillOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.passed() {
            true => write!(f, "passed {} {}", self.parts, self.at),
            false => write!(f, "failed {} {}: {}", self.parts, self.at, self.failed.join(" ")),
        }
    }
}

/// Where a copy of a point is: `TIME REMOTE (HOW IT WAS COMPARED)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsiteCopy {
    /// When it was made.
    pub at: Time,
    /// The remote, and how the copy was compared.
    place: String,
}

impl OffsiteCopy {
    /// A copy that was made now; of one that was there before, nobody knows how it was compared.
    pub fn now(remote: &str, proof: Option<&str>) -> Self {
        Self {
            at: Time::now(),
            place: match proof {
                Some(proof) => format!("{remote} ({proof})"),
                None => remote.to_owned(),
            },
        }
    }

    /// Whether it is the one at this remote. A remote's name may have blanks and parentheses.
    pub fn is_at(&self, remote: &str) -> bool {
        let rest = self.place.strip_prefix(remote);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(" ("))
    }

    fn parse(text: &str) -> Self {
        let (at, place) = text.split_once(' ').unwrap_or((text, ""));
        Self {
            at: Time::parse(at),
            place: place.to_owned(),
        }
    }
}

impl fmt::Display for OffsiteCopy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.at, self.place)
    }
}

/// That a point is pinned: `TIME`, or `TIME REASON`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// When it was pinned.
    pub at: Time,
    /// Why, in the words of who did it.
    pub reason: Option<String>,
}

impl Pin {
    /// Whatever the value says, the line pins.
    fn parse(text: &str) -> Self {
        let (at, reason) = text.split_once(' ').unwrap_or((text, ""));
        Self {
            at: Time::parse(at),
            reason: Some(reason.trim().to_owned()).filter(|reason| !reason.is_empty()),
        }
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.reason {
            Some(reason) => write!(f, "{} {reason}", self.at),
            None => self.at.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: &str = "2026-01-02T03:04:05+01:00";

    #[test]
    fn what_is_read_is_written_again() {
        for (name, value) in [
            ("verified", AT),
            ("damaged", "redis n8n"),
            ("drill", &format!("passed full {AT}")),
            ("drill", &format!("failed postgres {AT}: postgres key")),
            ("offsite", &format!("{AT} nas:backups (compared by size)")),
            ("offsite", &format!("{AT} nas:failover")),
            ("aside", "made while a restore was interrupted"),
            ("pinned", AT),
            ("pinned", &format!("{AT} before the update to 2.0: keep")),
        ] {
            let mark = Mark::parse(name, value).unwrap();
            assert_eq!((mark.name(), mark.to_string().as_str()), (name, value));
        }
        assert_eq!(Mark::parse("postgres.rows", "3"), None);
        // A line that somebody wrote by hand pins too.
        let by_hand = Pin {
            at: Time(None),
            reason: Some("for the audit".to_owned()),
        };
        assert_eq!(Mark::parse("pinned", "yes for the audit"), Some(Mark::Pinned(by_hand)));
    }

    #[test]
    fn a_drill_is_judged_by_its_first_word() {
        let passed = |text: &str| DrillOutcome::parse(text).map(|outcome| outcome.passed());
        for (text, expected) in [
            (format!("passed full {AT}"), Some(true)),
            // As the first versions wrote it.
            (format!("passed {AT}"), Some(true)),
            (format!("failed {AT}"), Some(false)),
            ("failed: 3 rows lost".to_owned(), Some(false)),
            (format!("failed full {AT}: redis"), Some(false)),
            ("never passed".to_owned(), None),
            (String::new(), None),
        ] {
            assert_eq!(passed(&text), expected, "{text}");
        }
        assert_eq!(DrillOutcome::parse(&format!("passed {AT}")).unwrap().parts, "full");
        assert_eq!(DrillOutcome::parse("passed postgres x").unwrap().parts, "postgres");
    }

    #[test]
    fn a_copy_is_that_of_one_remote() {
        let copy = |text: &str| OffsiteCopy::parse(&format!("{AT} {text}"));
        for text in ["nas:backups (compared by size)", "nas:backups"] {
            assert!(copy(text).is_at("nas:backups"), "{text}");
            for other in ["nas:backup", "nas:backups2", "nas:"] {
                assert!(!copy(text).is_at(other), "{text} {other}");
            }
        }
        assert!(copy("nas:old (1) (compared by size)").is_at("nas:old (1)"));
    }
}
