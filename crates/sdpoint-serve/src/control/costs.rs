//! What batches of a model cost, for every instance and batch size.

use std::collections::BTreeMap;
use std::sync::Arc;

use sdpoint::{Instance, Record, Timetable};

use super::Demand;
use crate::job::Mode;

/// The expected times of one model, by instance and number of images.
#[derive(Clone, Debug)]
pub struct Costs {
    choices: Vec<Choice>,
    /// The timetables for 1, 2, 3, … images.
    tables: Vec<Arc<Timetable>>,
    /// The expected time of each choice, for 1, 2, 3, … images.
    times: Vec<Vec<f64>>,
    /// The least time an image of each choice, over all batch sizes.
    rates: Vec<f64>,
    /// The least of all rates.
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
    /// The costs of the instances in `records`, from timetables for some numbers
    /// of images, 1 among them. Numbers in between are interpolated; the largest
    /// one is the largest batch.
    ///
    /// # Panics
    /// If there is no timetable for 1 image, or none of the instances is in the
    /// timetables.
    pub fn new(measured: &BTreeMap<usize, Arc<Timetable>>, records: &[Record]) -> Self {
        let first = measured.get(&1).expect("a timetable for one image");
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
            choices,
            tables,
            times,
        }
    }

    /// The instances.
    pub fn choices(&self) -> &[Choice] {
        &self.choices
    }

    /// The largest batch.
    pub fn max_batch(&self) -> usize {
        self.tables.len()
    }

    /// The index of an instance in [`Costs::choices`].
    pub fn index(&self, instance: Instance) -> Option<usize> {
        let mut choices = self.choices.iter();
        choices.position(|choice| choice.instance() == instance)
    }

    /// The timetable for a number of images, from 1 to [`Costs::max_batch`].
    pub fn table(&self, images: usize) -> &Arc<Timetable> {
        &self.tables[images - 1]
    }

    /// The expected time of `images` images in an instance, by its index in
    /// [`Costs::choices`], in seconds.
    pub fn time(&self, choice: usize, images: usize) -> f64 {
        self.times[images - 1][choice]
    }

    /// The instances that meet a demand, by index. For a cascade, there are none:
    /// see [`Costs::quickest`].
    pub fn allowed<'a>(&'a self, demand: &'a Demand) -> impl Iterator<Item = usize> + 'a {
        let meets = |choice: &Choice| {
            demand.mode == Mode::Instance && demand.constraints.allow(&choice.record)
        };
        let choices = self.choices.iter().enumerate();
        choices
            .filter(move |(_, choice)| meets(choice))
            .map(|(index, _)| index)
    }

    /// The shortest expected time in which `images` images can be answered, in
    /// seconds; none if no instance meets the demand.
    pub fn quickest(&self, demand: &Demand, images: usize) -> Option<f64> {
        match demand.mode {
            Mode::Instance => {
                let times = self.allowed(demand).map(|choice| self.time(choice, images));
                times.reduce(f64::min)
            }
            Mode::Cascade([first, second], _) => self.cascade(first, second, images),
        }
    }

    /// The least time an image, in batches of the best size.
    pub fn rate(&self, demand: &Demand) -> Option<f64> {
        match demand.mode {
            Mode::Instance => {
                let rates = self.allowed(demand).map(|choice| self.rates[choice]);
                rates.reduce(f64::min)
            }
            Mode::Cascade([first, second], _) => {
                let each = (1..=self.max_batch()).filter_map(|images| {
                    Some(self.cascade(first, second, images)? / images as f64)
                });
                each.reduce(f64::min)
            }
        }
    }

    /// The least time an image of the cheapest instance.
    pub fn least_rate(&self) -> f64 {
        self.least_rate
    }

    /// What a batch of the cheapest instance takes besides the time of its images.
    pub fn start_up(&self) -> f64 {
        let quickest = self.quickest(&Demand::ANY, 1).unwrap_or(0.0);
        (quickest - self.least_rate()).max(0.0)
    }

    /// The time of a cascade whose second instance runs for all images, in
    /// seconds. It cannot be known how many it will be.
    fn cascade(&self, first: Instance, second: Instance, images: usize) -> Option<f64> {
        let table = self.table(images);
        let both = table.expected(first)? + table.expected(second)?;
        let stops = [first, second].map(|i| table.stop_of(i));
        let shared = stops.into_iter().flatten().min();
        Some(both - shared.map_or(0.0, |stop| table.at(stop)))
    }
}

/// A timetable for every number of images from 1 to the largest.
fn interpolated(measured: &BTreeMap<usize, Arc<Timetable>>) -> Vec<Arc<Timetable>> {
    let largest = *measured.keys().last().expect("one of one image");
    (1..=largest)
        .map(|images| {
            let (&below, lower) = measured.range(..=images).next_back().expect("1 is there");
            if below == images {
                return lower.clone();
            }
            let (&above, upper) = measured.range(images..).next().expect("below the largest");
            let share = (images - below) as f64 / (above - below) as f64;
            Arc::new(lower.between(upper, share))
        })
        .collect()
}
