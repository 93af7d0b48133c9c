//! From a budget to an instance.

mod budget;

pub use budget::{Budget, BudgetError, parse_macs};

use std::fmt;

use crate::cost::format_macs;
use crate::instance::Instance;
use crate::record::Record;

/// The instance chosen for a budget; displays as a sentence that says why.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// The instance.
    pub instance: Instance,
    /// Its multiply-accumulates.
    pub macs: u64,
    /// Its multiply-accumulates as a share of the dearest instance's.
    pub share: f64,
    /// Its measured top-1 accuracy, 0 to 1.
    pub top1: Option<f64>,
    /// Why it was chosen.
    pub reason: Reason,
}

/// Why an instance was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// It was asked for by name.
    Asked,
    /// Of those that fit and were measured, it is the most accurate.
    MostAccurate {
        /// How many instances fit.
        fitting: usize,
    },
    /// None of those that fit was measured; it is the dearest.
    Dearest {
        /// How many instances fit.
        fitting: usize,
    },
}

/// A budget for which there is no instance.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SelectError {
    /// There is nothing to choose from.
    #[error("the model has no instances")]
    Empty,
    /// Everything costs more.
    #[error(
        "no instance fits {budget}: the cheapest is {cheapest} with {} MACs ({:.1}% of the dearest)",
        format_macs(*macs),
        100.0 * share
    )]
    TooSmall {
        /// The budget.
        budget: Budget,
        /// The cheapest instance.
        cheapest: Instance,
        /// Its multiply-accumulates.
        macs: u64,
        /// Its share of the dearest instance's.
        share: f64,
    },
    /// The instance asked for is not among them.
    #[error("the model has no instance {instance}; the nearest are {nearest}")]
    Unknown {
        /// The instance asked for.
        instance: Instance,
        /// The most similar names.
        nearest: String,
    },
}

/// The instance for a budget: the most accurate, as measured, of those that
/// fit, and of equals the cheapest. Where none that fits was measured, the
/// dearest.
///
/// # Errors
/// If no instance fits, or if the one asked for does not exist.
pub fn select(records: &[Record], budget: Budget) -> Result<Choice, SelectError> {
    let dearest = records.iter().map(|record| record.macs).max();
    let dearest = dearest.ok_or(SelectError::Empty)?;
    let share = |macs: u64| {
        if dearest == 0 {
            1.0
        } else {
            macs as f64 / dearest as f64
        }
    };
    let choice = |record: &Record, reason| Choice {
        instance: record.instance,
        macs: record.macs,
        share: share(record.macs),
        top1: measured(record),
        reason,
    };
    let fits: Vec<&Record> = match budget {
        Budget::Instance(instance) => {
            let found = records.iter().find(|record| record.instance == instance);
            return found
                .map(|record| choice(record, Reason::Asked))
                .ok_or_else(|| SelectError::Unknown {
                    instance,
                    nearest: nearest(records, instance),
                });
        }
        // A share that was printed and read again must still fit.
        Budget::Share(limit) => records
            .iter()
            .filter(|record| share(record.macs) <= limit * (1.0 + 1e-9))
            .collect(),
        Budget::Macs(limit) => records
            .iter()
            .filter(|record| record.macs <= limit)
            .collect(),
    };
    let fitting = fits.len();
    let best = fits
        .iter()
        .filter_map(|record| Some((record, measured(record)?)))
        .min_by(|(a, accuracy_a), (b, accuracy_b)| {
            accuracy_b
                .total_cmp(accuracy_a)
                .then(a.macs.cmp(&b.macs))
                .then(a.instance.cmp(&b.instance))
        });
    if let Some((record, _)) = best {
        return Ok(choice(record, Reason::MostAccurate { fitting }));
    }
    let by_cost = |record: &&Record| (std::cmp::Reverse(record.macs), record.instance);
    if let Some(record) = fits.into_iter().min_by_key(by_cost) {
        return Ok(choice(record, Reason::Dearest { fitting }));
    }
    let cheapest = records
        .iter()
        .min_by_key(|record| (record.macs, record.instance))
        .ok_or(SelectError::Empty)?;
    Err(SelectError::TooSmall {
        budget,
        cheapest: cheapest.instance,
        macs: cheapest.macs,
        share: share(cheapest.macs),
    })
}

/// Which of some `(cost, accuracy)` pairs lie on the Pareto frontier: no
/// other is at least as good in both and better in one. An accuracy that is
/// not a number is never on it.
pub fn pareto(points: &[(u64, f64)]) -> Vec<bool> {
    let mut order: Vec<usize> = (0..points.len())
        .filter(|&i| !points[i].1.is_nan())
        .collect();
    order.sort_by(|&a, &b| {
        let ((cost_a, accuracy_a), (cost_b, accuracy_b)) = (points[a], points[b]);
        cost_a.cmp(&cost_b).then(accuracy_b.total_cmp(&accuracy_a))
    });
    let mut on = vec![false; points.len()];
    let mut last: Option<(u64, f64)> = None;
    for index in order {
        let point = points[index];
        if last.is_none_or(|last| point.1 > last.1 || point == last) {
            on[index] = true;
            last = Some(point);
        }
    }
    on
}

fn measured(record: &Record) -> Option<f64> {
    record.top1.filter(|accuracy| accuracy.is_finite())
}

/// The three names that are most like an instance's.
fn nearest(records: &[Record], instance: Instance) -> String {
    let name = instance.to_string();
    let mut names: Vec<String> = records
        .iter()
        .map(|record| record.instance.to_string())
        .collect();
    names.sort_by_key(|known| strsim::damerau_levenshtein(&name, known));
    names.truncate(3);
    names.join(", ")
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} MACs, {:.1}% of the dearest",
            self.instance,
            format_macs(self.macs),
            100.0 * self.share
        )?;
        if let Some(top1) = self.top1 {
            write!(f, ", {:.2}% right on the test images", 100.0 * top1)?;
        }
        match self.reason {
            Reason::Asked => f.write_str("; asked for by name"),
            Reason::MostAccurate { fitting } => {
                write!(f, "; the most accurate of the {fitting} that fit")
            }
            Reason::Dearest { fitting } => write!(
                f,
                "; the dearest of the {fitting} that fit, none of which was evaluated"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::instance::PointId;
    use crate::ratio::Ratio;

    fn record(name: &str, macs: u64, top1: Option<f64>) -> Record {
        Record {
            top1,
            ..Record::unmeasured(name.parse().unwrap(), macs)
        }
    }

    fn curve() -> Vec<Record> {
        vec![
            record("full", 100, Some(0.82)),
            record("0@0.5", 34, Some(0.78)),
            record("0@0.75", 62, Some(0.83)),
            record("1@0.75", 67, Some(0.83)),
            record("2@0.5", 52, Some(0.79)),
        ]
    }

    #[test]
    fn the_most_accurate_that_fits_is_chosen() {
        let pick = |budget| select(&curve(), budget).unwrap();
        let choice = pick(Budget::Share(1.0));
        assert_eq!(choice.instance.to_string(), "0@0.75");
        assert_eq!(choice.reason, Reason::MostAccurate { fitting: 5 });
        let text = choice.to_string();
        assert!(text.contains("83.00%") && text.contains("62.0%"), "{text}");
        let choice = pick(Budget::Macs(61));
        assert_eq!(choice.instance.to_string(), "2@0.5");
        let choice = pick(Budget::Instance(Instance::Full));
        assert_eq!((choice.macs, choice.reason), (100, Reason::Asked));
    }

    #[test]
    fn without_measurements_the_dearest_is_chosen() {
        let mut records = curve();
        for record in &mut records {
            record.top1 = None;
        }
        records.push(Record::unmeasured("8@0.5".parse().unwrap(), 100));
        let choice = select(&records, Budget::Share(0.6)).unwrap();
        assert_eq!(choice.instance.to_string(), "2@0.5");
        assert_eq!(choice.reason, Reason::Dearest { fitting: 2 });
        let choice = select(&records, Budget::Share(1.0)).unwrap();
        assert_eq!(choice.instance, Instance::Full);
    }

    #[test]
    fn what_cannot_be_had_is_explained() {
        let error = select(&curve(), Budget::Share(0.3))
            .unwrap_err()
            .to_string();
        for part in ["30%", "0@0.5", "34 MACs", "34.0%"] {
            assert!(error.contains(part), "{error}");
        }
        let asked = Budget::Instance("1@0.5".parse().unwrap());
        let error = select(&curve(), asked).unwrap_err().to_string();
        assert!(
            error.contains("1@0.5") && error.contains("2@0.5"),
            "{error}"
        );
        assert_eq!(select(&[], Budget::Share(0.5)), Err(SelectError::Empty));
    }

    fn records() -> impl Strategy<Value = Vec<Record>> {
        // Few different values, so that ties are common.
        let one = (0u64..6, prop::option::of(0u8..4));
        prop::collection::vec(one, 1..12).prop_map(|list| {
            let half = Ratio::new(0.5).unwrap();
            list.into_iter()
                .enumerate()
                .map(|(index, (macs, top1))| Record {
                    top1: top1.map(|step| f64::from(step) / 4.0),
                    ..Record::unmeasured(Instance::At(PointId::Block(index), half), macs)
                })
                .collect()
        })
    }

    proptest! {
        #[test]
        fn nothing_that_fits_is_better(records in records(), limit in 0u64..7) {
            let fits: Vec<&Record> = records.iter().filter(|r| r.macs <= limit).collect();
            match select(&records, Budget::Macs(limit)) {
                Ok(choice) => {
                    prop_assert!(choice.macs <= limit);
                    for other in &fits {
                        match (choice.top1, other.top1) {
                            (Some(chosen), Some(top1)) => prop_assert!(
                                chosen > top1 || (chosen == top1 && choice.macs <= other.macs)
                            ),
                            (None, None) => prop_assert!(choice.macs >= other.macs),
                            (Some(_), None) => {}
                            (None, Some(_)) => prop_assert!(false, "a measured one was left out"),
                        }
                    }
                }
                Err(SelectError::TooSmall { macs, .. }) => {
                    prop_assert!(fits.is_empty());
                    prop_assert!(records.iter().all(|r| r.macs >= macs));
                }
                Err(other) => prop_assert!(false, "{other}"),
            }
        }

        #[test]
        fn a_printed_share_still_fits(macs in 1u64..u64::MAX, part in 0.0f64..1.0) {
            let small = (macs as f64 * part) as u64;
            let records = [record("full", macs, None), record("0@0.5", small.min(macs), None)];
            let share = small as f64 / macs as f64;
            prop_assume!(share > 0.0);
            let printed: f64 = share.to_string().parse().unwrap();
            prop_assert!(select(&records, Budget::Share(printed)).is_ok());
        }

        #[test]
        fn the_frontier_is_what_nothing_dominates(
            points in prop::collection::vec((0u64..5, 0u8..5), 0..12)
        ) {
            let points: Vec<(u64, f64)> =
                points.into_iter().map(|(cost, step)| (cost, f64::from(step))).collect();
            let brute: Vec<bool> = points
                .iter()
                .map(|a| !points.iter().any(|b| b.0 <= a.0 && b.1 >= a.1 && a != b))
                .collect();
            prop_assert_eq!(pareto(&points), brute);
        }
    }

    #[test]
    fn no_number_is_not_on_the_frontier() {
        assert_eq!(pareto(&[(1, f64::NAN), (2, 0.5)]), [false, true]);
    }
}
