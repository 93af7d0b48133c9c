//! Selection of the instance for a budget.

mod budget;
mod choice;

pub use budget::{
    Budget, BudgetError, format_duration, parse_accuracy, parse_duration, parse_macs,
};
pub use choice::{Choice, Reason};

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::time::Duration;

use budget::percent;

use crate::combination::CombinedRecord;
use crate::instance::Instance;
use crate::record::Record;

/// The latency of each instance, as far as it is known.
pub type Times = BTreeMap<Instance, Duration>;

/// Why no instance can be selected.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SelectError {
    /// The model has no instances.
    #[error("the model has no instances")]
    Empty,
    /// No instance fits the budget.
    #[error("{}", none_fits(budget, *instance, needed))]
    NoneFits {
        /// The budget.
        budget: Budget,
        /// The instance that is closest to fitting.
        instance: Instance,
        /// The least budget of the same kind that this instance fits.
        needed: Budget,
    },
    /// The requested instance does not exist.
    #[error("the model has no instance {instance}; the nearest are {nearest}")]
    Unknown {
        /// The requested instance.
        instance: Instance,
        /// The most similar names.
        nearest: String,
    },
    /// An accuracy was requested, but none was measured.
    #[error(
        "no instance of the model was evaluated, so it is unknown which has an accuracy of {0}"
    )]
    NotEvaluated(Budget),
    /// There is no cascade or ensemble within the limit.
    #[error("the model has no {kind} of at most {}", combined_limit(*limit, *cheapest))]
    NoCombination {
        /// Cascade or ensemble.
        kind: &'static str,
        /// The limit on its mean cost, as a share of the most expensive
        /// instance's.
        limit: f64,
        /// The mean cost of the cheapest of the kind, if there is any.
        cheapest: Option<f64>,
    },
    /// A latency was requested, but none is known.
    #[error("no instance has a known latency")]
    NotTimed,
}

/// The limit and the cost of the cheapest combination, with enough digits to
/// distinguish the two.
fn combined_limit(limit: f64, cheapest: Option<f64>) -> String {
    let of = "of the full network's cost";
    let Some(cheapest) = cheapest else {
        return format!("{} {of}", percent(limit, 1));
    };
    let texts = (1..=12).map(|digits| [limit, cheapest].map(|share| percent(share, digits)));
    let [limit, cheapest] = texts
        .into_iter()
        .find(|[limit, cheapest]| limit != cheapest)
        .unwrap_or_else(|| [limit, cheapest].map(|share| percent(share, 12)));
    format!("{limit} {of}: the cheapest costs {cheapest} on average")
}

/// The message that no instance fits, with the one that is closest to it.
fn none_fits(budget: &Budget, instance: Instance, needed: &Budget) -> String {
    let (asked, needed) = (budget.distinct_from(needed), needed.to_string());
    let best = match budget {
        Budget::MinAccuracy(_) => {
            let [asked, best] = [&asked, &needed].map(|text| text.trim_start_matches(">="));
            return format!(
                "no instance has an accuracy of {asked}: the most accurate is {instance}, with {best}"
            );
        }
        Budget::Latency(_) => "the fastest",
        _ => "the cheapest",
    };
    format!("no instance fits {asked}: {best} is {instance}, which needs a budget of {needed}")
}

/// Selects the instance for a budget when no latencies are known; see
/// [`select_timed`].
///
/// ```
/// use sdpoint_core::{Budget, Record, select};
///
/// let record = |instance: &str, macs, top1| {
///     let instance = instance.parse().expect("an instance");
///     Record { top1: Some(top1), ..Record::unmeasured(instance, macs) }
/// };
/// let records = [record("full", 100, 0.84), record("0@0.5", 34, 0.80), record("1@0.5", 43, 0.81)];
/// let choice = select(&records, Budget::Share(0.5))?;
/// assert_eq!(choice.instance.to_string(), "1@0.5");
/// # Ok::<(), sdpoint_core::SelectError>(())
/// ```
///
/// # Errors
/// As [`select_timed`].
pub fn select(records: &[Record], budget: Budget) -> Result<Choice, SelectError> {
    select_timed(records, &Times::new(), budget)
}

/// Selects the instance for a budget: of those that fit, the one with the
/// highest measured accuracy, and of equally accurate ones the cheapest. So it
/// is always on the Pareto frontier of those that fit. If none of them was
/// measured, the most expensive. For [`Budget::MinAccuracy`], the cheapest of
/// those that are accurate enough.
///
/// Cost is measured in multiply-accumulates, and for [`Budget::Latency`] in
/// time; instances that are not in `times` do not fit a latency.
///
/// # Errors
/// If no instance fits, or the requested one does not exist.
pub fn select_timed(
    records: &[Record],
    times: &Times,
    budget: Budget,
) -> Result<Choice, SelectError> {
    let highest_cost = records.iter().map(|record| record.macs).max();
    let highest_cost = highest_cost.ok_or(SelectError::Empty)?;
    let pool = Pool {
        highest_cost,
        times,
        budget,
    };
    if let Budget::Instance(instance) = budget {
        let found = records.iter().find(|record| record.instance == instance);
        return found
            .map(|record| pool.choice(record, Reason::Requested))
            .ok_or_else(|| SelectError::Unknown {
                instance,
                nearest: nearest(records, instance),
            });
    }
    let fits: Vec<&Record> = records.iter().filter(|record| pool.fits(record)).collect();
    let fitting = fits.len();
    let best = fits
        .iter()
        .filter(|record| measured(record).is_some())
        .min_by(|a, b| pool.compare(a, b));
    if let Some(record) = best {
        let reason = match budget {
            Budget::MinAccuracy(_) => Reason::Cheapest { fitting },
            _ => Reason::MostAccurate { fitting },
        };
        return Ok(pool.choice(record, reason));
    }
    let unmeasured = fits
        .into_iter()
        .min_by(|a, b| pool.cost(b, a).then(a.instance.cmp(&b.instance)));
    if let Some(record) = unmeasured {
        return Ok(pool.choice(record, Reason::MostExpensive { fitting }));
    }
    Err(pool.none(records))
}

/// What a comparison of instances depends on.
struct Pool<'a> {
    highest_cost: u64,
    times: &'a Times,
    budget: Budget,
}

impl Pool<'_> {
    fn share(&self, record: &Record) -> f64 {
        if self.highest_cost == 0 {
            1.0
        } else {
            record.macs as f64 / self.highest_cost as f64
        }
    }

    fn time(&self, record: &Record) -> Option<Duration> {
        self.times.get(&record.instance).copied()
    }

    fn fits(&self, record: &Record) -> bool {
        match self.budget {
            Budget::Instance(instance) => record.instance == instance,
            // A share that was printed and parsed again must still fit.
            Budget::Share(limit) => self.share(record) <= limit * (1.0 + 1e-9),
            Budget::Macs(limit) => record.macs <= limit,
            Budget::Latency(limit) => self.time(record).is_some_and(|time| time <= limit),
            Budget::MinAccuracy(least) => {
                measured(record).is_some_and(|top1| top1 >= least * (1.0 - 1e-9))
            }
        }
    }

    /// Compares costs in the budget's unit.
    fn cost(&self, a: &Record, b: &Record) -> Ordering {
        match self.budget {
            Budget::Latency(_) => self.time(a).cmp(&self.time(b)),
            _ => a.macs.cmp(&b.macs),
        }
    }

    /// Orders two instances that fit and were measured, the better one first.
    fn compare(&self, a: &Record, b: &Record) -> Ordering {
        let accuracy = || {
            let [a, b] = [a, b].map(|r| measured(r).unwrap_or(f64::NEG_INFINITY));
            b.total_cmp(&a)
        };
        let order = match self.budget {
            Budget::MinAccuracy(_) => self.cost(a, b).then_with(accuracy),
            _ => accuracy().then_with(|| self.cost(a, b)),
        };
        order.then_with(|| a.instance.cmp(&b.instance))
    }

    fn choice(&self, record: &Record, reason: Reason) -> Choice {
        Choice {
            instance: record.instance,
            macs: record.macs,
            share: self.share(record),
            top1: measured(record),
            time: self.time(record),
            reason,
        }
    }

    /// The error when none fits, with the budget that would be needed.
    fn none(&self, records: &[Record]) -> SelectError {
        let order = |a: &&Record, b: &&Record| self.cost(a, b).then(a.instance.cmp(&b.instance));
        let found = match self.budget {
            Budget::Latency(_) => {
                let timed = records.iter().filter(|r| self.time(r).is_some());
                timed.min_by(order).ok_or(SelectError::NotTimed)
            }
            Budget::MinAccuracy(_) => {
                let best = records.iter().filter(|r| measured(r).is_some());
                best.min_by(|a, b| measured(b).partial_cmp(&measured(a)).unwrap_or(order(a, b)))
                    .ok_or(SelectError::NotEvaluated(self.budget))
            }
            _ => records.iter().min_by(order).ok_or(SelectError::Empty),
        };
        match found {
            Ok(record) => SelectError::NoneFits {
                budget: self.budget,
                instance: record.instance,
                needed: self.needed(record),
            },
            Err(error) => error,
        }
    }

    /// The least budget that a record fits, rounded so that it still fits when
    /// printed and parsed again.
    fn needed(&self, record: &Record) -> Budget {
        match self.budget {
            Budget::Share(_) => {
                Budget::Share(((self.share(record) * 1e4) - 1e-6).ceil().min(1e4) / 1e4)
            }
            Budget::Latency(_) => {
                let nanos = self.time(record).unwrap_or_default().as_nanos();
                let nanos = u64::try_from(nanos).unwrap_or(u64::MAX);
                Budget::Latency(Duration::from_nanos(three_digits_up(nanos)))
            }
            Budget::MinAccuracy(_) => {
                let steps = measured(record).unwrap_or(0.0) * 1e4;
                Budget::MinAccuracy((steps + 1e-6).floor() / 1e4)
            }
            Budget::Macs(_) | Budget::Instance(_) => Budget::Macs(three_digits_up(record.macs)),
        }
    }
}

/// Rounds up to three significant digits.
fn three_digits_up(number: u64) -> u64 {
    let mut unit = 1;
    while number.div_ceil(unit) > 999 {
        unit *= 10;
    }
    number.div_ceil(unit).saturating_mul(unit)
}

/// Selects the most accurate combination whose mean cost is at most `limit`, a
/// share of the most expensive instance's cost; of equally accurate ones the
/// cheapest. All are of one `kind`, which errors name.
///
/// # Errors
/// If none is cheap enough.
pub fn select_combined<'a>(
    records: &[Record],
    combinations: impl IntoIterator<Item = &'a CombinedRecord>,
    kind: &'static str,
    limit: f64,
) -> Result<&'a CombinedRecord, SelectError> {
    let highest_cost = records.iter().map(|record| record.macs).max();
    let highest_cost = highest_cost.unwrap_or(0).max(1) as f64;
    let share = |record: &CombinedRecord| record.macs as f64 / highest_cost;
    let all: Vec<&CombinedRecord> = combinations.into_iter().collect();
    // Mean costs are rounded.
    let most = limit * highest_cost * (1.0 + 1e-9) + 0.5;
    let fits = all.iter().filter(|record| record.macs as f64 <= most);
    let best = fits.min_by(|a, b| b.top1.total_cmp(&a.top1).then(a.macs.cmp(&b.macs)));
    best.copied().ok_or_else(|| SelectError::NoCombination {
        kind,
        limit,
        cheapest: all
            .iter()
            .map(|record| share(record))
            .min_by(f64::total_cmp),
    })
}

/// Which of some `(cost, accuracy)` pairs are on the Pareto frontier: no other
/// pair is at least as good in both and better in one. A pair whose accuracy is
/// NaN is not.
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
        assert_eq!((choice.macs, choice.reason), (100, Reason::Requested));
    }

    #[test]
    fn without_measurements_the_most_expensive_is_chosen() {
        let mut records = curve();
        for record in &mut records {
            record.top1 = None;
        }
        records.push(Record::unmeasured("8@0.5".parse().unwrap(), 100));
        let choice = select(&records, Budget::Share(0.6)).unwrap();
        assert_eq!(choice.instance.to_string(), "2@0.5");
        assert_eq!(choice.reason, Reason::MostExpensive { fitting: 2 });
        let choice = select(&records, Budget::Share(1.0)).unwrap();
        assert_eq!(choice.instance, Instance::Full);
    }

    #[test]
    fn what_cannot_be_had_is_explained() {
        let error = select(&curve(), Budget::Share(0.3))
            .unwrap_err()
            .to_string();
        for part in ["30%", "cheapest is 0@0.5", "34%"] {
            assert!(error.contains(part), "{error}");
        }
        let close = [record("full", 21_960_000, None)];
        let error = select(&close, Budget::Macs(21_959_999)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no instance fits 21.959999M MACs: the cheapest is full, which needs a budget of \
             22.0M MACs"
        );
        let error = select(&curve(), Budget::MinAccuracy(0.9)).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("most accurate is 0@0.75, with 83%") && !text.contains(">="),
            "{text}"
        );
        let time = Budget::Latency(Duration::from_millis(3));
        assert_eq!(select(&curve(), time), Err(SelectError::NotTimed));
        let mut unmeasured = curve();
        unmeasured.iter_mut().for_each(|record| record.top1 = None);
        let least = Budget::MinAccuracy(0.1);
        assert_eq!(
            select(&unmeasured, least),
            Err(SelectError::NotEvaluated(least))
        );
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

    fn budget() -> impl Strategy<Value = Budget> {
        prop_oneof![
            (0u64..7).prop_map(Budget::Macs),
            (1u8..5).prop_map(|part| Budget::Share(f64::from(part) / 4.0)),
            (0u64..7).prop_map(|ms| Budget::Latency(Duration::from_millis(ms))),
            (0u8..5).prop_map(|step| Budget::MinAccuracy(f64::from(step) / 4.0)),
            (0usize..14).prop_map(|index| {
                Budget::Instance(Instance::At(PointId::Block(index), Ratio::DEFAULT[0]))
            }),
        ]
    }

    /// What fits, written down once more from the meaning of each budget.
    fn keeps(record: &Record, highest_cost: u64, times: &Times, budget: Budget) -> bool {
        match budget {
            Budget::Macs(limit) => record.macs <= limit,
            // All of nothing is all of it.
            Budget::Share(limit) if highest_cost == 0 => limit >= 1.0,
            Budget::Share(limit) => record.macs as f64 <= limit * highest_cost as f64,
            Budget::Latency(limit) => times.get(&record.instance).is_some_and(|t| *t <= limit),
            Budget::MinAccuracy(least) => record.top1.is_some_and(|top1| top1 >= least),
            Budget::Instance(instance) => record.instance == instance,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn nothing_that_fits_is_better(
            records in records(),
            times in prop::collection::vec(prop::option::of(0u64..6), 12),
            budget in budget(),
        ) {
            let times: Times = std::iter::zip(&records, times)
                .filter_map(|(r, ms)| Some((r.instance, Duration::from_millis(ms?))))
                .collect();
            let highest_cost = records.iter().map(|r| r.macs).max().unwrap();
            let keeps = |record: &Record, budget| keeps(record, highest_cost, &times, budget);
            let fits: Vec<&Record> = records.iter().filter(|r| keeps(r, budget)).collect();
            let cost = |record: &Record| match budget {
                Budget::Latency(_) => times[&record.instance].as_millis() as u64,
                _ => record.macs,
            };
            match select_timed(&records, &times, budget) {
                Ok(choice) => {
                    let chosen = fits.iter().find(|r| r.instance == choice.instance);
                    let chosen = chosen.expect("what is chosen fits");
                    for other in &fits {
                        let no_costlier = cost(chosen) <= cost(other);
                        let fine = match (chosen.top1, other.top1, budget) {
                            (Some(a), Some(b), Budget::MinAccuracy(_)) => {
                                cost(chosen) < cost(other) || no_costlier && a >= b
                            }
                            (Some(a), Some(b), _) => a > b || a == b && no_costlier,
                            (None, None, _) => cost(chosen) >= cost(other),
                            (Some(_), None, _) => true,
                            (None, Some(_), _) => false,
                        };
                        prop_assert!(fine, "{other:?} is better than {chosen:?}");
                    }
                }
                Err(SelectError::NoneFits { instance, needed, .. }) => {
                    prop_assert!(fits.is_empty());
                    let found = select_timed(&records, &times, needed).unwrap();
                    let nearest = records.iter().find(|r| r.instance == instance).unwrap();
                    prop_assert!(keeps(nearest, needed), "{needed}");
                    prop_assert!(found.instance == instance || cost(nearest) >= found.macs
                        || found.top1 >= nearest.top1);
                    // Anything tighter would not have been enough.
                    let tighter = match needed {
                        Budget::Macs(macs) => macs.checked_sub(1).map(Budget::Macs),
                        Budget::Latency(time) => time
                            .checked_sub(Duration::from_millis(1))
                            .map(Budget::Latency),
                        Budget::Share(share) => Some(Budget::Share(share - 2e-4)),
                        Budget::MinAccuracy(top1) => Some(Budget::MinAccuracy(top1 + 2e-4)),
                        Budget::Instance(_) => None,
                    };
                    if let Some(tighter) = tighter {
                        prop_assert!(!records.iter().any(|r| keeps(r, tighter)), "{tighter}");
                    }
                }
                Err(SelectError::Unknown { .. } | SelectError::NotEvaluated(_)) => {
                    prop_assert!(fits.is_empty());
                }
                Err(SelectError::NotTimed) => prop_assert!(times.is_empty()),
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
        fn a_budget_that_an_error_names_is_enough_as_it_stands(
            macs in 1u64..999_000_000_000_000,
            nanos in 1000u64..3_600_000_000_000,
            top1 in 0.001f64..0.999,
        ) {
            let records = [record("full", macs, Some(top1))];
            let times = Times::from([(Instance::Full, Duration::from_nanos(nanos))]);
            for budget in [
                Budget::Macs(0),
                Budget::Latency(Duration::ZERO),
                Budget::MinAccuracy(1.0),
            ] {
                let error = select_timed(&records, &times, budget).unwrap_err();
                let text = error.to_string();
                let of_cost = text.rsplit_once("a budget of ");
                let needed = match of_cost {
                    Some((_, needed)) => needed.parse().unwrap(),
                    None => {
                        let (_, needed) = text.rsplit_once("with ").unwrap();
                        Budget::MinAccuracy(parse_accuracy(needed).unwrap())
                    }
                };
                prop_assert!(select_timed(&records, &times, needed).is_ok(), "{text}");
            }
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
