//! The choice among several programs, part by part. How much less a fast one packs depends on the data (nothing where they are
//! noise or repeat themselves nearby, a fifth in prose), so it is tried on samples. What looks like something that was tried
//! before gets the same answer.

use anyhow::{Context, Result};

use super::{Candidate, Tool};

/// What is cut out of a part to try programs on: so many pieces of so many bytes. A piece holds two of deflate's windows.
const SAMPLE: (usize, usize) = (2, 64 << 10);
/// How much larger than what `gzip -6` makes of it an archive may become by the choice of faster programs, in thousandths.
/// That a member is made of each part, and that samples make the programs look better than the whole does, takes up to as much again.
const TOLERANCE: i64 = 7;
/// So many parts are packed by what one sample has told, at least and at most: to try all programs takes longer than to pack
/// a part by the slowest.
const TRUST: (u32, u32) = (4, 64);
/// So many parts come before the first question, by the last program: a stream of so few is packed sooner than asked about.
const UNASKED: u32 = 8;
/// What two parts may differ in and still look alike, as the share of their bytes that would have to be others.
const ALIKE: f64 = 0.1;
/// So many looks are kept.
const LOOKS: usize = 16;

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
    looks: Vec<Look>,
    /// How many parts there were, and by which candidate the last one was packed.
    parts: u32,
    before: Option<usize>,
    /// What the samples of all parts so far may take, and what they do.
    balance: Balance,
}

/// The archive as a whole is what is to be small: what some parts save may be spent on others.
#[derive(Clone, Copy, Default)]
struct Balance {
    /// What the measure makes of the samples, in bytes.
    least: i64,
    /// By how much more is made of them.
    excess: i64,
}

impl Balance {
    fn with(self, least: i64, excess: i64) -> Self {
        Self {
            least: self.least + least,
            excess: self.excess + excess,
        }
    }

    fn holds(self) -> bool {
        self.excess <= self.least * TOLERANCE / 1000
    }
}

/// What parts look like, and what was found out about them.
struct Look {
    /// How often a sample had each byte.
    bytes: [u32; 256],
    /// What the measure makes of it.
    least: i64,
    /// What each candidate makes of it, up to the first that makes it as small.
    packed: Vec<i64>,
    /// For how many parts the answer holds, and for how many it has been used.
    trust: u32,
    used: u32,
}

impl Look {
    fn is_like(&self, bytes: &[u32; 256]) -> bool {
        let total: u32 = bytes.iter().sum();
        let differ: u32 = self.bytes.iter().zip(bytes).map(|(a, b)| a.abs_diff(*b)).sum();
        f64::from(differ) / 2.0 <= f64::from(total) * ALIKE
    }

    /// The first candidate that the balance allows, else the last that was tried; and the balance after it.
    fn answer(&self, balance: Balance) -> (usize, Balance) {
        let after = |packed| balance.with(self.least, packed - self.least);
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
            looks: Vec::new(),
            parts: 0,
            before: None,
            balance: Balance::default(),
        }
    }

    /// The program for the next part.
    ///
    /// # Errors
    /// When one cannot be tried.
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

    /// The candidate for a part; none for the last. A short part is not worth the question.
    fn answer(&mut self, part: &[u8]) -> Result<Option<usize>> {
        self.parts = self.parts.saturating_add(1);
        let (Some(measure), Some(sample)) = (&self.measure, sample(part)) else {
            return Ok(None);
        };
        if self.candidates.len() < 2 || self.parts <= UNASKED {
            return Ok(None);
        }
        let mut bytes = [0; 256];
        for &byte in &sample {
            bytes[usize::from(byte)] += 1;
        }
        let known = self.looks.iter().rposition(|look| look.is_like(&bytes));
        let mut look = match known.map(|place| self.looks.remove(place)) {
            Some(look) if look.used < look.trust => look,
            old => {
                let mut look = Look {
                    bytes,
                    least: measure.try_on(&sample)?,
                    packed: Vec::new(),
                    trust: TRUST.0,
                    used: 0,
                };
                for candidate in &self.candidates {
                    let packed = candidate.tool.try_on(&sample)?;
                    look.packed.push(packed);
                    if packed <= look.least {
                        break;
                    }
                }
                // The longer the answer stays the same, the longer it is trusted.
                if let Some(old) = old.filter(|old| old.packed.len() == look.packed.len()) {
                    look.trust = (old.trust * 2).min(TRUST.1);
                }
                look
            }
        };
        look.used += 1;
        let (answer, after) = look.answer(self.balance);
        self.balance = after;
        if self.looks.len() >= LOOKS {
            self.looks.remove(0);
        }
        self.looks.push(look);
        Ok(Some(answer))
    }
}

/// Pieces from all over a part; none of a part that is hardly larger.
pub(super) fn sample(part: &[u8]) -> Option<Vec<u8>> {
    let (pieces, bytes) = SAMPLE;
    let step = part.len() / pieces;
    (step > bytes).then(|| {
        (0..pieces)
            .flat_map(|n| &part[n * step..n * step + bytes])
            .copied()
            .collect()
    })
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

    /// Whether the fast level packs each of so many parts.
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
        // Nobody asks about the first.
        assert_eq!(fast(&mut chooser, &noise(256), UNASKED), all(false, UNASKED));
        assert_eq!(fast(&mut chooser, &text(), 3), all(false, 3));
        assert_eq!(fast(&mut chooser, &noise(256), 3), all(true, 3));
        // What was seen before is known again.
        fast(&mut chooser, &text(), 1);
        assert_eq!(chooser.looks.len(), 2);
        assert_eq!(fast(&mut chooser, b"short", 1), all(false, 1));
    }

    #[test]
    fn an_answer_is_trusted_longer_when_it_stays_the_same() {
        let mut chooser = chooser();
        fast(&mut chooser, &noise(256), UNASKED + TRUST.0 + 1);
        assert_eq!(chooser.looks[0].trust, 2 * TRUST.0);
        fast(&mut chooser, &noise(256), 2 * TRUST.0);
        assert_eq!(chooser.looks[0].trust, 4 * TRUST.0);
        // As many looks as there are kinds, and no more than are kept.
        for symbols in 2..40 {
            fast(&mut chooser, &noise(symbols * symbols / 8 + 2), 1);
        }
        assert!(chooser.looks.len() <= LOOKS);
    }

    #[test]
    fn what_some_parts_save_is_spent_on_others_and_no_more() {
        let look = |least, packed: &[i64]| Look {
            bytes: [0; 256],
            least,
            packed: packed.to_vec(),
            trust: 1,
            used: 0,
        };
        let none = Balance::default();
        // 7 bytes are given; where neither does, it is the last.
        assert_eq!(look(1000, &[1007, 1000]).answer(none).0, 0);
        assert_eq!(look(1000, &[1008, 1000]).answer(none).0, 1);
        let (number, over) = look(1000, &[1200, 1015]).answer(none);
        assert_eq!((number, over.excess), (1, 15));
        let (number, saved) = look(1000, &[1200, 990]).answer(none);
        assert_eq!((number, saved.excess), (1, -10));
        // Ten bytes were saved: with 14 of what is given, 24 may be spent.
        let (number, spent) = look(1000, &[1024, 1000]).answer(saved);
        assert_eq!((number, spent.excess), (0, 14));
        assert_eq!(look(1000, &[1025, 1000]).answer(saved).0, 1);
    }
}
