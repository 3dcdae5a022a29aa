//! The choice among several programs, part by part. How much less a fast one packs depends on the data (nothing where
//! they are noise or repeat themselves nearby, a fifth in prose), so it is tried on samples. A part that is like one
//! that was tried before gets the same answer.

use anyhow::{Context, Result};

use super::tool::{Candidate, Tool};

/// How much of the middle of a part is tried: four of deflate's windows. Several shorter pieces would join what is not
/// adjacent, which some programs pack badly.
const SAMPLE: usize = 128 << 10;
/// How much larger than what `gzip -6` makes of it an archive may become by the choice of faster programs, in
/// thousandths. A member for each part, and samples that flatter the programs, take up to as much again.
const TOLERANCE: i64 = 7;
/// For how many parts the answer of one trial holds, at least and at most. Odd, so that kinds that take turns are all
/// tried.
const REUSE: (u32, u32) = (3, 31);
/// How many parts the last program packs before the first trial: a shorter stream is packed sooner than tried.
const WARMUP: u32 = 16;
/// How many parts there are to a trial at least: to try all programs takes longer than to pack a part by the slowest.
const PARTS_A_TRIAL: u32 = 4;
/// How much two parts may differ and still get the same answer, as a share of their bytes.
const SAME: f64 = 0.1;
/// The same when there have been too many trials.
const SIMILAR: f64 = 0.2;
/// How many trials are kept.
const TRIALS: usize = 16;
/// How much of a sample is looked at for what repeats.
const NEARBY: usize = 32 << 10;

/// The program for a part.
pub(super) struct Choice {
    pub(super) tool: Tool,
    /// It is that of the part before.
    pub(super) goes_on: bool,
    /// As of its [`Candidate`].
    pub(super) keeps_up: bool,
}

/// Chooses the program for each part.
pub(super) struct Chooser {
    /// The fastest first; the last is what packs best.
    candidates: Vec<Candidate>,
    measure: Option<Tool>,
    /// Answers, the last used last.
    trials: Vec<Trial>,
    /// How many parts and trials there were, and which candidate packed the last part.
    parts: u32,
    tried: u32,
    before: Option<usize>,
    /// What the samples of all parts so far may take, and what they do.
    budget: SizeBudget,
}

/// The archive as a whole is what is to be small: half of what some parts save may be spent on others. The other half
/// is for what a sample promises and the whole does not keep.
#[derive(Clone, Copy, Default)]
struct SizeBudget {
    /// What the measure makes of the samples, in bytes.
    least: i64,
    /// By how much more is made of them.
    excess: i64,
}

impl SizeBudget {
    fn with(self, least: i64, excess: i64) -> Self {
        Self {
            least: self.least + least,
            excess: self.excess + if excess < 0 { excess / 2 } else { excess },
        }
    }

    fn holds(self) -> bool {
        self.excess <= self.least * TOLERANCE / 1000
    }
}

/// What tells parts of one kind from others.
#[derive(Clone)]
struct Fingerprint {
    /// How often a sample has each byte.
    bytes: [u32; 256],
    /// How many bytes of it that is.
    total: u32,
    /// The share of places where what was there shortly before comes again. It tells text that repeats itself, which
    /// any program packs well, from other text of the same letters.
    repeats: f64,
}

impl Fingerprint {
    fn of(sample: &[u8]) -> Self {
        let mut bytes = [0; 256];
        for &byte in sample {
            bytes[usize::from(byte)] += 1;
        }
        let mut last = [0_u32; 4096];
        let (mut again, mut places) = (0_u32, 0_u32);
        for four in sample[..sample.len().min(NEARBY)].windows(4) {
            let word = u32::from_le_bytes([four[0], four[1], four[2], four[3]]);
            // Fibonacci hashing: the upper bits of the product.
            let slot = &mut last[(word.wrapping_mul(0x9e37_79b1) >> 20) as usize];
            again += u32::from(std::mem::replace(slot, word) == word);
            places += 1;
        }
        Self {
            bytes,
            total: bytes.iter().sum(),
            repeats: f64::from(again) / f64::from(places.max(1)),
        }
    }

    /// From 0 for what is the same to 1.
    fn distance(&self, other: &Self) -> f64 {
        let differ: u32 = self.bytes.iter().zip(&other.bytes).map(|(a, b)| a.abs_diff(*b)).sum();
        let bytes = f64::from(differ) / f64::from(self.total + other.total).max(1.0);
        bytes.max((self.repeats - other.repeats).abs())
    }
}

/// What was found out about parts of one kind.
struct Trial {
    fingerprint: Fingerprint,
    /// What the measure makes of a sample.
    least: i64,
    /// What each candidate makes of it, up to the first that makes it as small.
    packed: Vec<i64>,
    /// For how many parts the answer holds, and for how many it has been used.
    trust: u32,
    used: u32,
}

impl Trial {
    /// The first candidate that the budget allows, else the last that was tried; and the budget after it.
    fn answer(&self, budget: SizeBudget) -> (usize, SizeBudget) {
        let after = |packed| budget.with(self.least, packed - self.least);
        let allowed = self.packed.iter().position(|&packed| after(packed).holds());
        let answer = allowed.unwrap_or(self.packed.len().saturating_sub(1));
        (answer, after(self.packed.get(answer).copied().unwrap_or(self.least)))
    }
}

impl Chooser {
    /// A chooser for one stream. `measure` is what archives are to be as small as.
    pub(super) fn new(candidates: Vec<Candidate>, measure: Option<Tool>) -> Self {
        Self {
            candidates,
            measure,
            trials: Vec::new(),
            parts: 0,
            tried: 0,
            before: None,
            budget: SizeBudget::default(),
        }
    }

    /// The program for the next part.
    pub(super) fn choose(&mut self, part: &[u8]) -> Result<Choice> {
        let answer = self.answer(part)?.unwrap_or(self.candidates.len().saturating_sub(1));
        let goes_on = self.before.replace(answer) == Some(answer);
        let candidate = self.candidates.get(answer).context("no compressor has been chosen")?;
        Ok(Choice {
            tool: candidate.tool.clone(),
            goes_on,
            keeps_up: candidate.keeps_up,
        })
    }

    /// The candidate for a part; none for the last. A short part is not worth a trial.
    fn answer(&mut self, part: &[u8]) -> Result<Option<usize>> {
        self.parts = self.parts.saturating_add(1);
        let (Some(measure), Some(sample)) = (&self.measure, sample(part)) else {
            return Ok(None);
        };
        if self.candidates.len() < 2 || self.parts <= WARMUP {
            return Ok(None);
        }
        let fingerprint = Fingerprint::of(sample);
        let nearest = self
            .trials
            .iter()
            .map(|trial| trial.fingerprint.distance(&fingerprint))
            .enumerate()
            .min_by(|a, b| a.1.total_cmp(&b.1));
        let within = |limit: f64| {
            nearest
                .filter(|(_, distance)| *distance <= limit)
                .map(|(place, _)| place)
        };
        let known = within(SAME).filter(|&place| self.trials[place].used < self.trials[place].trust);
        let may_try = self.tried.saturating_mul(PARTS_A_TRIAL) <= self.parts;
        let mut trial = match (known, may_try) {
            (Some(place), _) => self.trials.remove(place),
            (None, true) => {
                self.tried += 1;
                let mut trial = self.try_all(measure, fingerprint, sample)?;
                if let Some(old) = within(SAME).map(|place| self.trials.remove(place)) {
                    // The longer the answer stays the same, the longer it is trusted.
                    let answer = |trial: &Trial| trial.answer(SizeBudget::default()).0;
                    if answer(&old) == answer(&trial) {
                        trial.trust = (old.trust * 2 + 1).min(REUSE.1);
                    }
                }
                trial
            }
            (None, false) => match within(SIMILAR) {
                Some(place) => self.trials.remove(place),
                None => return Ok(None),
            },
        };
        trial.used += 1;
        let (answer, after) = trial.answer(self.budget);
        self.budget = after;
        if self.trials.len() >= TRIALS {
            self.trials.remove(0);
        }
        self.trials.push(trial);
        Ok(Some(answer))
    }

    /// Tries the programs on a sample.
    fn try_all(&self, measure: &Tool, fingerprint: Fingerprint, sample: &[u8]) -> Result<Trial> {
        let mut trial = Trial {
            fingerprint,
            least: measure.try_on(sample)?,
            packed: Vec::new(),
            trust: REUSE.0,
            used: 0,
        };
        for candidate in &self.candidates {
            let packed = candidate.tool.try_on(sample)?;
            trial.packed.push(packed);
            if packed <= trial.least {
                break;
            }
        }
        Ok(trial)
    }
}

/// The middle of a part; none of a part that is hardly larger.
pub(super) fn sample(part: &[u8]) -> Option<&[u8]> {
    let start = part.len().checked_sub(SAMPLE)? / 2;
    (start > 0).then(|| &part[start..start + SAMPLE])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    const PART: usize = 1 << 20;

    /// Two levels of one program, so that any host can run this.
    fn chooser() -> Chooser {
        let gzip = |level| Tool::new(PathBuf::from("/bin/gzip"), level);
        let candidates = ["-1", "-9"].map(|level| Candidate {
            tool: gzip(level),
            keeps_up: level == "-1",
        });
        Chooser::new(candidates.to_vec(), Some(gzip("-9")))
    }

    /// Whether the fast level packs each of `times` parts.
    fn fast(chooser: &mut Chooser, part: &[u8], times: u32) -> Vec<bool> {
        (0..times)
            .map(|_| chooser.choose(part).unwrap().tool.args == ["-1"])
            .collect()
    }

    fn all(answer: bool, times: u32) -> Vec<bool> {
        vec![answer; times as usize]
    }

    /// Bytes of `symbols` values, each as likely as the other: every level makes about the same of them.
    fn noise(symbols: u32) -> Vec<u8> {
        let mut state = 1_u32;
        std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((state >> 16) % symbols) as u8
        })
        .take(PART)
        .collect()
    }

    /// What the fast level packs much worse.
    fn text() -> Vec<u8> {
        (0..)
            .flat_map(|n: u32| {
                format!("{{\"n\":{},\"user\":\"u{}@example.org\"}}\n", n * 7919 % 10007, n % 977).into_bytes()
            })
            .take(PART)
            .collect()
    }

    #[test]
    fn the_fast_program_packs_only_what_it_packs_as_well() {
        let mut chooser = chooser();
        // The first are not tried.
        assert_eq!(fast(&mut chooser, &noise(256), WARMUP), all(false, WARMUP));
        assert_eq!(fast(&mut chooser, &text(), 3), all(false, 3));
        assert_eq!(fast(&mut chooser, &noise(256), 3), all(true, 3));
        // What was seen before is known again.
        fast(&mut chooser, &text(), 1);
        assert_eq!(chooser.trials.len(), 2);
        assert_eq!(fast(&mut chooser, b"short", 1), all(false, 1));
    }

    #[test]
    fn an_answer_is_trusted_longer_when_it_stays_the_same() {
        let mut chooser = chooser();
        fast(&mut chooser, &noise(256), WARMUP + REUSE.0);
        assert_eq!((chooser.trials[0].trust, chooser.tried), (REUSE.0, 1));
        fast(&mut chooser, &noise(256), 1);
        assert_eq!((chooser.trials[0].trust, chooser.tried), (2 * REUSE.0 + 1, 2));
        fast(&mut chooser, &noise(256), 2 * REUSE.0 + 1);
        assert_eq!((chooser.trials[0].trust, chooser.tried), (4 * REUSE.0 + 3, 3));
        // As many trials as there are kinds, and no more than are kept; and never many trials.
        for turn in 0..60 {
            fast(&mut chooser, &noise(3 + turn * 4), 1);
        }
        assert!(chooser.trials.len() <= TRIALS);
        assert!(
            (chooser.tried - 1) * PARTS_A_TRIAL <= chooser.parts,
            "{}",
            chooser.tried
        );
    }

    #[test]
    fn what_repeats_is_told_from_what_has_the_same_letters() {
        let letters = noise(26);
        let repeated: Vec<u8> = letters[..1000].iter().copied().cycle().take(PART).collect();
        let [fingerprint, other, same] =
            [&letters, &repeated, &noise(26)].map(|part| Fingerprint::of(sample(part).unwrap()));
        assert!(fingerprint.distance(&same) < SAME / 2.0);
        assert!(fingerprint.distance(&other) > 0.5);
    }

    #[test]
    fn what_some_parts_save_is_spent_on_others_and_no_more() {
        let trial = |least, packed: &[i64]| Trial {
            fingerprint: Fingerprint::of(b""),
            least,
            packed: packed.to_vec(),
            trust: 1,
            used: 0,
        };
        let none = SizeBudget::default();
        // 7 bytes are given; where neither does, it is the last.
        assert_eq!(trial(1000, &[1007, 1000]).answer(none).0, 0);
        assert_eq!(trial(1000, &[1008, 1000]).answer(none).0, 1);
        let (number, over) = trial(1000, &[1200, 1015]).answer(none);
        assert_eq!((number, over.excess), (1, 15));
        let (number, saved) = trial(1000, &[1200, 990]).answer(none);
        assert_eq!((number, saved.excess), (1, -5));
        // Half of ten bytes that were saved, with the 14 that are given, may be spent.
        let (number, spent) = trial(1000, &[1019, 1000]).answer(saved);
        assert_eq!((number, spent.excess), (0, 14));
        assert_eq!(trial(1000, &[1020, 1000]).answer(saved).0, 1);
    }
}
