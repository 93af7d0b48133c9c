//! A simulated machine: expected and actual times of batches.

use std::collections::BTreeMap;
use std::sync::Arc;

use chacha20::ChaCha8Rng;
use rand::SeedableRng;
use rand_distr::{Distribution, Normal};
use sdpoint::core::{Ratio, Record};
use sdpoint::engine::InstanceMacs;
use sdpoint::profile::{BatchProfile, InstanceTime, StretchTime};
use sdpoint::{Instance, Timetable, zoo};

use crate::control::Costs;

/// Random deviations of actual from expected times.
#[derive(Debug)]
pub struct Machine {
    /// The standard deviation of a stretch's logarithm.
    stretch: Normal<f64>,
    /// The probability that a batch is interrupted.
    interrupted: f64,
    /// The duration of an interruption, in seconds.
    interruption: f64,
    /// The start and the end of a time in which it is slower, and the factor.
    slow: Option<(f64, f64, f64)>,
    rng: ChaCha8Rng,
}

impl Machine {
    /// A machine whose times from one point to the next deviate by 4 %, and which
    /// interrupts one batch in a hundred for half a millisecond.
    pub fn usual(seed: u64) -> Self {
        Self {
            stretch: Normal::new(0.0, 0.04).expect("a deviation"),
            interrupted: 0.01,
            interruption: 0.5e-3,
            slow: None,
            rng: ChaCha8Rng::seed_from_u64(seed),
        }
    }

    /// The same machine, slower by a factor for some time, as if another process used a
    /// part of it.
    pub fn slower(self, from: f64, to: f64, factor: f64) -> Self {
        Self {
            slow: Some((from, to, factor)),
            ..self
        }
    }

    /// The actual time in seconds of a stretch that starts at `now`.
    pub fn stretch(&mut self, now: f64, expected: f64) -> f64 {
        let factor = match self.slow {
            Some((from, to, factor)) if (from..to).contains(&now) => factor,
            _ => 1.0,
        };
        factor * expected * self.stretch.sample(&mut self.rng).exp()
    }

    /// The time for which a batch is interrupted, in seconds; usually 0.
    pub fn interruption(&mut self) -> f64 {
        use rand::RngExt;
        match self.rng.random_bool(self.interrupted) {
            true => self.interruption,
            false => 0.0,
        }
    }
}

/// The time per image of `full` in large batches, in seconds.
const FULL: f64 = 1.6e-3;

/// The fixed time of a batch, as a share of the time per image.
const FIXED: f64 = 0.2;

/// Costs and accuracies like those of WRN-16-4 at 32×32 on one core, for batches
/// of up to `max_batch` images. Times follow the multiply-accumulates.
///
/// The accuracies are synthetic: 94 % for `full`, decreasing with the cost.
pub fn example_costs(max_batch: usize) -> Costs {
    let network = zoo::build("wrn16-4", 10).expect("it is in the zoo");
    let size = [32, 32];
    let instances = network.instances(&Ratio::DEFAULT);
    let work = InstanceMacs::new(&network, size, instances.iter().copied());
    let work = work.expect("the network accepts the size");
    let macs = |instance| -> u64 { work.layer_macs(instance).iter().sum() };
    let full = macs(Instance::Full) as f64;
    let records: Vec<Record> = instances
        .iter()
        .map(|&instance| {
            let ratio = instance.ratio().map_or(1.0, Ratio::value);
            let saved = 1.0 - macs(instance) as f64 / full;
            Record {
                top1: Some(0.94 - 0.055 * saved.powf(1.6) - 0.002 * (1.0 - ratio)),
                ..Record::unmeasured(instance, macs(instance))
            }
        })
        .collect();
    let sizes = [1, 2, 4, 8, 16, 32];
    let tables = sizes
        .into_iter()
        .filter(|&size| size <= max_batch)
        .map(|images| {
            let profile = profile(&work, &records, images);
            (images, Arc::new(Timetable::new(&profile, &records)))
        });
    Costs::new(&tables.collect::<BTreeMap<_, _>>(), &records)
}

fn profile(work: &InstanceMacs, records: &[Record], images: usize) -> BatchProfile {
    let of_full = work.layer_macs(Instance::Full);
    let each = FULL / of_full.iter().sum::<u64>() as f64;
    let batch = images as f64 + FIXED;
    let time = |macs: &[u64]| (each * macs.iter().sum::<u64>() as f64 * batch).max(1e-9);
    let ends: Vec<usize> = work.exits().iter().map(|(_, layer)| layer.0).collect();
    let starts = [0].into_iter().chain(ends.iter().copied());
    let points = work
        .exits()
        .iter()
        .map(|&(point, _)| Some(point))
        .chain([None]);
    let stretches = starts
        .zip(ends.iter().copied().chain([of_full.len()]))
        .zip(points)
        .map(|((start, end), to)| StretchTime::new(to, time(&of_full[start..end])));
    let stretches: Vec<StretchTime> = stretches.collect();
    let instances = records.iter().map(|record| {
        let point = record.instance.point();
        let place = stretches.iter().position(|stretch| stretch.to == point);
        let place = place.expect("every point ends a stretch");
        let (before, rest) = match point {
            None => (place, stretches[place].median),
            Some(_) => {
                let own = work.layer_macs(record.instance);
                (place + 1, time(&own[ends[place]..]))
            }
        };
        let total = stretches[..before].iter().map(|s| s.median).sum::<f64>() + rest;
        let [median, p90] = [total, 1.05 * total];
        InstanceTime::new(record.instance, record.macs, median, p90, rest)
    });
    let instances = instances.collect();
    BatchProfile::new(images, stretches, instances)
}
