//! The times of a model's batches by instance and batch size.

use std::collections::BTreeMap;
use std::sync::Arc;

use sdpoint::core::{Combination, CombinedRecord, Record};
use sdpoint::{Instance, Timetable};

use super::Demand;
use crate::job::Mode;

/// The expected times of one model, by instance and number of images.
#[derive(Clone, Debug)]
pub struct Costs {
    choices: Vec<Choice>,
    /// The model's combinations.
    combinations: Vec<Combination>,
    /// The timetables for 1, 2, 3, … images.
    tables: Vec<Arc<Timetable>>,
    /// The expected time of each choice, for 1, 2, 3, … images.
    times: Vec<Vec<f64>>,
    /// For each choice, the least time per image over all batch sizes.
    rates: Vec<f64>,
    /// The minimum of `rates`.
    least_rate: f64,
}

/// An instance that can answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// The instance, its cost and its accuracy.
    pub record: Record,
    /// Orders instances by the quality of their answers; see
    /// [`Way::worth`](sdpoint::Way::worth).
    pub worth: f64,
}

impl Choice {
    /// The instance.
    pub fn instance(&self) -> Instance {
        self.record.instance
    }
}

impl Costs {
    /// The costs of the instances in `records`, from timetables of some batch sizes,
    /// including 1. Times of sizes in between are interpolated; the largest one is the
    /// maximum batch size.
    ///
    /// # Panics
    /// If there is no timetable for one image, or none of the instances is in the
    /// timetables.
    pub fn new(measured: &BTreeMap<usize, Arc<Timetable>>, records: &[Record]) -> Self {
        let first = measured
            .get(&1)
            .expect("there is a timetable for one image");
        let choices: Vec<Choice> = records
            .iter()
            .filter_map(|record| {
                Some(Choice {
                    record: record.clone(),
                    worth: first.worth(record.instance)?,
                })
            })
            .collect();
        assert!(!choices.is_empty(), "a model has instances");
        let tables = interpolated(measured);
        let time = |table: &Timetable, choice: &Choice| {
            let time = table.expected(choice.instance());
            time.expect("all timetables have the same instances")
        };
        let times: Vec<Vec<f64>> = tables
            .iter()
            .map(|table| choices.iter().map(|choice| time(table, choice)).collect())
            .collect();
        let rate = |choice| {
            let each = (1..)
                .zip(&times)
                .map(|(images, row)| row[choice] / f64::from(images));
            each.fold(f64::INFINITY, f64::min)
        };
        let rates: Vec<f64> = (0..choices.len()).map(rate).collect();
        Self {
            least_rate: rates.iter().copied().fold(f64::INFINITY, f64::min),
            rates,
            combinations: Vec::new(),
            choices,
            tables,
            times,
        }
    }

    /// Adds the model's combinations, in the order of its file.
    pub fn with_combinations(mut self, combinations: &[CombinedRecord]) -> Self {
        let all = combinations.iter();
        self.combinations = all.map(|record| record.combination.clone()).collect();
        self
    }

    /// The instances.
    pub fn choices(&self) -> &[Choice] {
        &self.choices
    }

    /// The maximum batch size.
    pub fn max_batch(&self) -> usize {
        self.tables.len()
    }

    /// The index of an instance in [`Costs::choices`].
    pub fn index(&self, instance: Instance) -> Option<usize> {
        let mut choices = self.choices.iter();
        choices.position(|choice| choice.instance() == instance)
    }

    /// The timetable of a batch size from 1 to [`Costs::max_batch`].
    pub fn table(&self, images: usize) -> &Arc<Timetable> {
        &self.tables[images - 1]
    }

    /// The expected time in seconds of a batch in an instance, given by its index in
    /// [`Costs::choices`].
    pub fn time(&self, choice: usize, images: usize) -> f64 {
        self.times[images - 1][choice]
    }

    /// The indices of the instances that meet a demand; none for a combination, see
    /// [`Costs::quickest`].
    pub fn allowed<'a>(&'a self, demand: &'a Demand) -> impl Iterator<Item = usize> + 'a {
        let meets = |choice: &Choice| {
            demand.mode == Mode::Instance && demand.constraints.allow(&choice.record)
        };
        let choices = self.choices.iter().enumerate();
        choices
            .filter(move |(_, choice)| meets(choice))
            .map(|(index, _)| index)
    }

    /// Whether more than one instance meets a demand, so that there is accuracy to buy.
    pub fn offers_choice(&self, demand: &Demand) -> bool {
        self.allowed(demand).nth(1).is_some()
    }

    /// The shortest time of so many images, which may be more than a batch holds, in batches of
    /// their own, in seconds; 0 if no instance meets the demand.
    pub fn alone(&self, demand: &Demand, images: usize) -> f64 {
        let most = self.max_batch();
        let time = |images| self.quickest(demand, images).unwrap_or(0.0);
        let rest = match images % most {
            0 => 0.0,
            rest => time(rest),
        };
        (images / most) as f64 * time(most) + rest
    }

    /// The shortest expected time in seconds of a batch that meets a demand; none if no
    /// instance does.
    pub fn quickest(&self, demand: &Demand, images: usize) -> Option<f64> {
        match demand.mode {
            Mode::Instance => {
                let times = self.allowed(demand).map(|choice| self.time(choice, images));
                times.reduce(f64::min)
            }
            Mode::Combination(index) => self.combined(index, images),
        }
    }

    /// The least time per image, in batches of the best size.
    pub fn rate(&self, demand: &Demand) -> Option<f64> {
        match demand.mode {
            Mode::Instance => {
                let rates = self.allowed(demand).map(|choice| self.rates[choice]);
                rates.reduce(f64::min)
            }
            Mode::Combination(index) => {
                let each = (1..=self.max_batch())
                    .filter_map(|images| Some(self.combined(index, images)? / images as f64));
                each.reduce(f64::min)
            }
        }
    }

    /// The least time per image of the cheapest instance.
    pub fn least_rate(&self) -> f64 {
        self.least_rate
    }

    /// The fixed time of a batch of the cheapest instance.
    pub fn start_up(&self) -> f64 {
        let quickest = self.quickest(&Demand::ANY, 1).unwrap_or(0.0);
        (quickest - self.least_rate()).max(0.0)
    }

    /// The time in seconds of a cascade or an ensemble, given by its index in the model.
    fn combined(&self, index: usize, images: usize) -> Option<f64> {
        let combination = self.combinations.get(index)?;
        let members = combination.members();
        if combination.is_cascade() {
            self.cascade(&members, images)
        } else {
            self.together(&members, images)
        }
    }

    /// The time in seconds of a cascade all of whose stages run on all images: how
    /// many it will be is not known in advance. A stage continues from the
    /// earliest point of its own, of the stage before it and of those after it.
    fn cascade(&self, stages: &[Instance], images: usize) -> Option<f64> {
        let table = self.table(images);
        let mut time = 0.0;
        for (index, &stage) in stages.iter().enumerate() {
            time += table.expected(stage)?;
            if index > 0 {
                let stops = stages[index - 1..].iter().filter_map(|&i| table.stop_of(i));
                time -= stops.min().map_or(0.0, |stop| table.at(stop));
            }
        }
        Some(time)
    }

    /// The time in seconds of several instances that share the layers before their points.
    fn together(&self, members: &[Instance], images: usize) -> Option<f64> {
        let table = self.table(images);
        let each: Option<Vec<f64>> = members
            .iter()
            .map(|&member| table.expected(member))
            .collect();
        let mut stops: Vec<Option<usize>> = members.iter().map(|&m| table.stop_of(m)).collect();
        // The deepest runs on its own; each other has the layers up to its stop in common with
        // it. `full` has no stop and is the deepest.
        stops.sort_by_key(|stop| stop.unwrap_or(usize::MAX));
        stops.pop();
        let shared: f64 = stops.into_iter().flatten().map(|stop| table.at(stop)).sum();
        Some(each?.iter().sum::<f64>() - shared)
    }
}

/// A timetable for every batch size from 1 to the largest measured one.
fn interpolated(measured: &BTreeMap<usize, Arc<Timetable>>) -> Vec<Arc<Timetable>> {
    let largest = *measured
        .keys()
        .last()
        .expect("there is a timetable for one image");
    (1..=largest)
        .map(|images| {
            let (&below, lower) = measured
                .range(..=images)
                .next_back()
                .expect("1 was measured");
            if below == images {
                return lower.clone();
            }
            let (&above, upper) = measured.range(images..).next().expect("below the largest");
            let share = (images - below) as f64 / (above - below) as f64;
            Arc::new(lower.between(upper, share))
        })
        .collect()
}
