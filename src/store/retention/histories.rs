//! Random histories: whatever has happened, the retention keeps its promises.

use std::cmp::Reverse;
use std::time::Duration;

use super::tests::{days, gone, loose, now};
use super::*;

/// Linear congruential generator (constants of Knuth's MMIX), seeded, so that a failure repeats.
struct Lcg(u64);

impl Lcg {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn unit(&mut self, number: u64) -> Unit {
        let mut unit = loose(Kind::Env, self.below(days(60)), true);
        unit.recorded = self.below(2) == 0;
        unit.verified = unit.recorded && self.below(6) == 0;
        if unit.recorded && self.below(9) == 0 {
            unit.proven = match self.below(2) {
                0 => Kind::ALL.to_vec(),
                _ => vec![Kind::Postgres],
            };
        }
        unit.unreadable = unit.recorded && self.below(12) == 0;
        unit.pinned = unit.recorded && self.below(10) == 0;
        unit.named = (self.below(2) == 0).then(|| now() - Duration::from_secs(self.below(days(60))));
        if self.below(20) == 0 {
            unit.taken = now() + Duration::from_secs(days(2 + self.below(60)));
            unit.aged = unit.taken;
        }
        unit.files.clear();
        let one = self.below(4) as usize;
        for (index, kind) in Kind::ALL.into_iter().enumerate() {
            if (unit.recorded && self.below(5) > 0) || (!unit.recorded && index == one) {
                unit.files.push(File {
                    path: PathBuf::from(format!("{number}")),
                    kind,
                    bytes: 1 + self.below(3000),
                    grade: match self.below(6) {
                        0 => Grade::Empty,
                        1 => Grade::Unproven,
                        2 => Grade::Unpacks,
                        _ => Grade::Good,
                    },
                });
            }
        }
        unit.complete = unit.recorded && unit.files.len() == Kind::ALL.len() && unit.files.iter().all(is_good);
        unit
    }

    fn rules(&mut self) -> Rules {
        let mut number = |bound| {
            if self.below(2) == 0 {
                0
            } else {
                self.below(bound) as usize
            }
        };
        Rules {
            last: number(5),
            daily: number(8),
            weekly: number(5),
            monthly: number(3),
            yearly: number(2),
            days: self.below(12),
        }
    }
}

#[test]
fn random_histories_keep_every_promise() {
    let mut random = Lcg(20_240_229);
    let (mut deleted, mut rescued, mut pins) = (0, 0, 0);
    for round in 0..3_000 {
        let units: Vec<Unit> = (0..random.below(16)).map(|number| random.unit(number)).collect();
        let rules = random.rules();
        let verdicts = decide(&units, now(), &rules);
        assert_eq!(verdicts.len(), units.len());
        let kept = |index: usize| !verdicts[index].is_deletion();
        for (unit, verdict) in units.iter().zip(&verdicts) {
            // Stated without division: older than the retention means at least retention + 1 full days old.
            let old = unit.aged + Duration::from_secs(days(rules.days + 1)) <= now();
            assert!(
                (old && !unit.unreadable && !unit.pinned) || !verdict.is_deletion(),
                "round {round}: a young or pinned one, or one that could not be looked at, goes: {unit:?}"
            );
            deleted += usize::from(verdict.is_deletion());
            rescued += usize::from(old && !verdict.is_deletion());
        }
        // What is from the future counts where nothing else is there.
        let order = |index: &usize| {
            let unit = &units[*index];
            Reverse((
                unit.taken <= now(),
                unit.taken,
                unit.files.first().map(|file| &file.path),
            ))
        };
        let mut complete: Vec<usize> = (0..units.len()).filter(|index| units[*index].complete).collect();
        complete.sort_by_key(order);
        assert!(
            complete.iter().take(rules.last).all(|index| kept(*index)),
            "round {round}: one of the newest complete points goes"
        );
        for kind in Kind::ALL {
            let holding = |is: &dyn Fn(&Unit, &File) -> bool| -> Vec<usize> {
                let mut found: Vec<usize> = (0..units.len())
                    .filter(|index| {
                        let unit = &units[*index];
                        unit.files.iter().any(|file| file.kind == kind && is(unit, file))
                    })
                    .collect();
                found.sort_by_key(order);
                found
            };
            let good = holding(&|_, file| is_good(file));
            let points = holding(&|unit, file| unit.recorded && is_good(file));
            let all = holding(&|_, _| true);
            let grade = |index: &usize| {
                units[*index]
                    .files
                    .iter()
                    .find(|file| file.kind == kind)
                    .map(|file| file.grade)
            };
            let best = all.iter().map(grade).max();
            let resort = all.iter().find(|index| Some(grade(index)) == best);
            assert!(
                resort.is_none_or(|index| kept(*index)),
                "round {round}: {kind:?} lost its last resort"
            );
            let named = good.iter().filter_map(|index| Some((units[*index].named?, index)));
            let by_name = named.filter(|(time, _)| *time <= now()).max_by_key(|(time, _)| *time);
            assert!(
                by_name.is_none_or(|(_, index)| kept(*index)),
                "round {round}: {kind:?} lost the newest by its name"
            );
            for of in [
                holding(&|unit, file| is_good(file) && unit.verified)
                    .into_iter()
                    .take(1)
                    .collect(),
                holding(&|unit, file| is_good(file) && unit.proven.contains(&kind))
                    .into_iter()
                    .take(1)
                    .collect::<Vec<_>>(),
            ] {
                assert!(of.iter().all(|index| kept(*index)), "round {round}: {kind:?} {of:?}");
            }
            for period in Period::ALL {
                let mut periods: Vec<_> = points.iter().map(|index| period.of(units[*index].local)).collect();
                periods.dedup();
                for key in periods.into_iter().take(period.wanted(&rules)) {
                    let newest = points.iter().find(|index| period.of(units[**index].local) == key);
                    assert!(
                        newest.is_some_and(|index| kept(*index)),
                        "round {round}: {kind:?} {period:?}"
                    );
                }
            }
        }
        // Once it has been applied, the same rules let nothing more go.
        let left: Vec<Unit> = (0..units.len())
            .filter(|i| kept(*i))
            .map(|i| units[i].clone())
            .collect();
        assert!(
            gone(&left, &rules).iter().all(|goes| !goes),
            "round {round}: not at rest"
        );
        // The order of a listing does not matter.
        let mut reversed: Vec<Unit> = units.clone();
        reversed.reverse();
        let mut back = gone(&reversed, &rules);
        back.reverse();
        assert_eq!(back, gone(&units, &rules), "round {round}: the order matters");
        // A pin keeps its own unit, and nothing goes or stays for the pin of another.
        if let Some(index) = (0..units.len()).find(|index| !kept(*index)) {
            let mut pinned = units.clone();
            pinned[index].pinned = true;
            let mut expected = gone(&units, &rules);
            expected[index] = false;
            assert_eq!(gone(&pinned, &rules), expected, "round {round}: pinned {index}");
            pins += 1;
        }
        // To keep more by one rule never costs what another keeps.
        let more = Rules {
            daily: rules.daily + 1,
            ..rules
        };
        let lost = gone(&units, &more)
            .iter()
            .zip(&verdicts)
            .any(|(goes, was)| *goes && !was.is_deletion());
        assert!(!lost, "round {round}: more kept, and something lost");
    }
    assert!(
        deleted > 2_000 && rescued > 1_000 && pins > 1_000,
        "the histories exercise all: {deleted} deleted, {rescued} rescued, {pins} pinned"
    );
}
