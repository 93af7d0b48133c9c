//! Summaries of runs: curves of series, areas under them, means over seeds.

use sdpoint_core::pareto;
use sdpoint_train::{Mark, MarkKind};

use crate::experiment::{Experiment, Method, Part, Series, Which};
use crate::results::{Measured, Results, Run};

/// A mean over seeds, and its spread.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Value {
    pub mean: f64,
    /// The sample standard deviation; `None` for a single seed.
    pub spread: Option<f64>,
}

impl Value {
    /// The mean of some values; `None` if there are none.
    pub fn of(values: &[f64]) -> Option<Self> {
        let count = values.len() as f64;
        if values.is_empty() {
            return None;
        }
        let mean = values.iter().sum::<f64>() / count;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        Some(Self {
            mean,
            spread: (values.len() > 1).then(|| (squares / (count - 1.0)).sqrt()),
        })
    }

    /// Formats the values divided by `unit`, with a number of digits.
    pub fn text(self, unit: f64, digits: usize) -> String {
        let mean = format!("{:.digits$}", self.mean * unit);
        match self.spread {
            Some(spread) => format!("{mean} ± {:.digits$}", spread * unit),
            None => mean,
        }
    }
}

/// The finished runs of a method, seed by seed.
pub fn runs<'a>(results: &'a Results, experiment: &Experiment, method: &Method) -> Vec<&'a Run> {
    let run = |&seed: &u64| {
        let arguments = experiment.train_arguments(method, seed);
        results.find(&experiment.name, &method.name, seed, &arguments)
    };
    method.seeds.iter().filter_map(run).collect()
}

/// The marks of a series, a curve for each seed of which all parts are there.
#[derive(Clone, Debug, PartialEq)]
pub struct Curves {
    pub name: String,
    pub seeds: Vec<Vec<Mark>>,
}

impl Curves {
    /// The curves of a series, as far as its runs were done.
    pub fn of(results: &Results, experiment: &Experiment, series: &Series) -> Self {
        let alone = series.parts.len() == 1;
        let part = |part: &Part| -> Vec<(u64, Vec<Mark>)> {
            let Some(method) = experiment.method(&part.method) else {
                return Vec::new();
            };
            let runs = runs(results, experiment, method).into_iter();
            let marks = |run: &Run| {
                Some((
                    run.seed,
                    marks(part, alone, run.measures.get(&part.measure)?),
                ))
            };
            runs.filter_map(marks).collect()
        };
        let parts: Vec<_> = series.parts.iter().map(part).collect();
        let first = parts.first().into_iter().flatten();
        let curve = |seed: u64| -> Option<Vec<Mark>> {
            let of_seed = |part: &Vec<(u64, Vec<Mark>)>| {
                let found = part.iter().find(|(other, _)| *other == seed);
                found.map(|(_, marks)| marks.clone())
            };
            let all: Option<Vec<_>> = parts.iter().map(of_seed).collect();
            Some(all?.into_iter().flatten().collect())
        };
        Self {
            name: series.name.clone(),
            seeds: first.filter_map(|&(seed, _)| curve(seed)).collect(),
        }
    }

    /// The accuracy of the instance that is chosen at a cost of at most `budget`.
    pub fn at(&self, budget: f64) -> Option<Value> {
        let best = self.seeds.iter().map(|marks| best(marks, budget));
        Value::of(&best.collect::<Option<Vec<_>>>()?)
    }

    /// See [`area`].
    pub fn area(&self, range: [f64; 2]) -> Option<Value> {
        let areas: Vec<f64> = self.seeds.iter().map(|marks| area(marks, range)).collect();
        Value::of(&areas)
    }

    /// The cost of the most expensive instance.
    pub fn most(&self) -> Option<u64> {
        self.seeds.first()?.iter().map(|mark| mark.macs).max()
    }

    /// Each instance with its mean accuracy over the seeds.
    pub fn mean(&self) -> Vec<Mark> {
        let Some(first) = self.seeds.first() else {
            return Vec::new();
        };
        let mean = |mark: &Mark| {
            let same = |other: &&Mark| other.name == mark.name;
            let all: Vec<&Mark> = self
                .seeds
                .iter()
                .filter_map(|one| one.iter().find(same))
                .collect();
            let of = |value: fn(&Mark) -> f64| {
                all.iter().map(|m| value(m)).sum::<f64>() / all.len() as f64
            };
            Mark {
                // The cost of a cascade depends on the images.
                macs: of(|m| m.macs as f64).round() as u64,
                top1: of(|m| m.top1),
                chosen_by: of(|m| m.chosen_by),
                ..mark.clone()
            }
        };
        first.iter().map(mean).collect()
    }
}

fn marks(part: &Part, alone: bool, measured: &[Measured]) -> Vec<Mark> {
    let wanted = measured
        .iter()
        .filter(|one| part.instances == Which::All || one.instance == "full");
    let mark = |one: &Measured| {
        let full = one.instance == "full";
        Mark {
            // Several networks side by side go by their methods' names.
            name: match (alone, part.instances) {
                (false, Which::Full) if part.measure == crate::experiment::OWN => {
                    part.method.clone()
                }
                (false, Which::Full) => part.measure.clone(),
                _ => one.instance.clone(),
            },
            kind: match (
                full && (alone || part.instances == Which::All),
                one.instance.contains(['>', '+']),
            ) {
                (true, _) => MarkKind::Full,
                (_, true) => MarkKind::Combination,
                _ => MarkKind::Instance,
            },
            macs: one.macs,
            top1: one.top1,
            chosen_by: one.val_top1.unwrap_or(one.top1),
        }
    };
    wanted.map(mark).collect()
}

/// The accuracy of the instance that is chosen at a cost of at most `budget`: of
/// equally good ones the cheapest.
fn best(marks: &[Mark], budget: f64) -> Option<f64> {
    // A budget of all of it allows for rounding.
    let affordable = marks
        .iter()
        .filter(|mark| mark.macs as f64 <= budget * (1.0 + 1e-9));
    let better = |a: &&Mark, b: &&Mark| {
        let order = a.chosen_by.total_cmp(&b.chosen_by);
        order.then(b.macs.cmp(&a.macs))
    };
    affordable.max_by(better).map(|mark| mark.top1)
}

/// The mean accuracy over budgets that are uniformly distributed in a range of
/// MACs, each with the instance that is chosen at that cost; without such
/// an instance, the accuracy is zero. This is the area under the Pareto frontier
/// as a step function, divided by the range.
pub fn area(marks: &[Mark], [from, to]: [f64; 2]) -> f64 {
    let points = marks.iter().map(|mark| (mark.macs, mark.chosen_by));
    let on = pareto(&points.collect::<Vec<_>>());
    let mut steps: Vec<(f64, f64)> = std::iter::zip(marks, on)
        .filter(|(_, on)| *on)
        .map(|(mark, _)| (mark.macs as f64, mark.top1))
        .collect();
    steps.sort_by(|a, b| a.0.total_cmp(&b.0));
    let ends = steps
        .iter()
        .skip(1)
        .map(|step| step.0)
        .chain([f64::INFINITY]);
    let area: f64 = std::iter::zip(&steps, ends)
        .map(|(&(start, top1), end)| top1 * (end.min(to) - start.max(from)).max(0.0))
        .sum();
    area / (to - from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::tests::TEXT;
    use crate::results::tests::run;

    fn mark(macs: u64, top1: f64) -> Mark {
        Mark {
            name: String::new(),
            kind: MarkKind::Instance,
            macs,
            top1,
            chosen_by: top1,
        }
    }

    #[test]
    fn held_out_images_choose_and_test_images_judge() {
        let by = |chosen_by, mark: Mark| Mark { chosen_by, ..mark };
        let marks = [
            by(0.7, mark(40, 0.5)),
            by(0.6, mark(50, 0.9)),
            by(0.7, mark(60, 0.8)),
            by(0.9, mark(100, 0.6)),
        ];
        assert_eq!(best(&marks, 60.0), Some(0.5), "the cheapest of the best");
        assert_eq!(best(&marks, 100.0), Some(0.6));
        assert_eq!(best(&marks, 30.0), None);
        let close = |range, expected: f64| (area(&marks, range) - expected).abs() < 1e-12;
        assert!(close([40.0, 120.0], (0.5 * 60.0 + 0.6 * 20.0) / 80.0));
    }

    #[test]
    fn the_area_is_that_under_the_steps_of_the_frontier() {
        // 0.5 from 40, 0.8 from 60; dominated instances do not count.
        let marks = [mark(60, 0.8), mark(40, 0.5), mark(70, 0.1), mark(100, 0.8)];
        let close = |range, expected: f64| (area(&marks, range) - expected).abs() < 1e-12;
        assert!(close([40.0, 100.0], (0.5 * 20.0 + 0.8 * 40.0) / 60.0));
        assert!(close([50.0, 60.0], 0.5));
        assert!(close([0.0, 40.0], 0.0));
        assert!(close([200.0, 300.0], 0.8));
        assert_eq!(area(&[], [0.0, 1.0]), 0.0);
    }

    #[test]
    fn spread_is_the_sample_standard_deviation() {
        let value = Value::of(&[0.80, 0.82, 0.84]).unwrap();
        assert_eq!(value.text(100.0, 1), "82.0 ± 2.0");
        assert_eq!(Value::of(&[0.5]).unwrap().text(100.0, 2), "50.00");
        assert_eq!(Value::of(&[]), None);
    }

    #[test]
    fn a_series_of_several_methods_has_the_seeds_that_all_have() {
        let experiment = Experiment::parse("costs", TEXT).unwrap();
        let mut results = Results::default();
        let mut add = |method: &str, seed, own: &[(&str, u64, f64)]| {
            let found = experiment.method(method).unwrap();
            let arguments = experiment.train_arguments(found, seed);
            results.runs.push(run(method, seed, &arguments, own));
        };
        let own = [("full", 100, 0.8), ("0@0.5", 50, 0.6)];
        add("plain", 0, &own);
        add("plain", 1, &[("full", 100, 0.82), ("0@0.5", 50, 0.64)]);
        add("narrow", 0, &[("full", 60, 0.7)]);
        let shared = results.runs[2].measures["own"].clone();
        results.runs[2].measures.insert("shared".into(), shared);

        let plain = Curves::of(&results, &experiment, &experiment.series[0]);
        assert_eq!(plain.seeds.len(), 2);
        assert_eq!(plain.at(50.0).unwrap().text(100.0, 0), "62 ± 3");
        assert_eq!(plain.at(40.0), None);
        assert!((plain.mean()[0].top1 - 0.81).abs() < 1e-12);
        assert_eq!(plain.mean()[0].kind, MarkKind::Full);

        let smaller = Curves::of(&results, &experiment, &experiment.series[1]);
        assert_eq!(smaller.seeds.len(), 1);
        let names: Vec<&str> = smaller.seeds[0]
            .iter()
            .map(|mark| mark.name.as_str())
            .collect();
        assert_eq!(names, ["plain", "shared"]);
        assert_eq!(smaller.at(60.0).unwrap().text(100.0, 0), "70");

        results.runs[2].arguments.push("--other".into());
        let smaller = Curves::of(&results, &experiment, &experiment.series[1]);
        assert!(smaller.seeds.is_empty(), "taken with other settings");
    }
}
