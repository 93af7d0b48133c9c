//! Timing instances.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use sdpoint_core::{Instance, Ratio};
use sdpoint_engine::{EngineError, Images, InstanceWork};

use super::profile::LEAST_TIME;
use super::timetable::{any_at, median, quantile};
use super::{BatchProfile, Engine, Inputs, InstanceTime, StretchTime};

/// Runs of `full`, and of each other instance that is looked at, where there
/// is no profile.
const FIRST_LOOK: usize = 5;

/// Runs of each instance in a profile, at the least.
const LEAST_ROUNDS: usize = 5;

/// The least by which the 90th percentile is taken to exceed the median
/// where it was not measured.
const UNKNOWN_SPREAD: f64 = 0.05;

/// The times of one run, in seconds.
struct Sample {
    /// From point to point, as far as the instance is `full`.
    stretches: Vec<f64>,
    /// From the instance's point to the logits.
    rest: f64,
}

/// The times of many runs.
#[derive(Default)]
struct Samples {
    stretches: Vec<Vec<f64>>,
    totals: BTreeMap<Instance, Vec<f64>>,
    rests: BTreeMap<Instance, Vec<f64>>,
}

impl Samples {
    fn add(&mut self, instance: Instance, sample: &Sample) {
        for (index, &time) in sample.stretches.iter().enumerate() {
            if self.stretches.len() <= index {
                self.stretches.push(Vec::new());
            }
            self.stretches[index].push(time);
        }
        let total = sample.stretches.iter().sum::<f64>() + sample.rest;
        self.totals.entry(instance).or_default().push(total);
        self.rests.entry(instance).or_default().push(sample.rest);
    }

    /// How many medians nine of ten runs stay under, over all instances: each
    /// alone has too few runs to tell.
    fn slow(&self) -> f64 {
        let each = self.totals.values().flat_map(|totals| {
            let middle = median(totals.clone()).unwrap_or(0.0).max(LEAST_TIME);
            totals.iter().map(move |total| total / middle)
        });
        quantile(&mut each.collect::<Vec<f64>>(), 0.9).unwrap_or(1.0)
    }

    /// The medians from point to point, the last ending at the logits.
    fn medians(&self) -> Vec<f64> {
        let last = self.rests.get(&Instance::Full).cloned().unwrap_or_default();
        let all = self.stretches.iter().cloned().chain([last]);
        all.map(|times| median(times).unwrap_or(0.0)).collect()
    }
}

impl Engine {
    /// Times every instance on batches of `batch` images: after a warm-up,
    /// all of them in turns, so that a disturbance meets all alike, until
    /// `time` has passed for each, and at least five times.
    ///
    /// # Errors
    /// If the batch is empty.
    pub fn measure(&self, batch: usize, time: Duration) -> Result<BatchProfile, EngineError> {
        let size = self.preprocessing.size;
        let instances: Vec<Instance> = self.records.iter().map(|r| r.instance).collect();
        let inputs = self.test_inputs(batch, size)?;
        let images = Images::from(&inputs);
        let mut samples = Samples::default();
        for &instance in &instances {
            self.time_run(images, instance)?;
        }
        let start = Instant::now();
        let all = time.as_secs_f64() * instances.len() as f64;
        for round in 1.. {
            for &instance in &instances {
                samples.add(instance, &self.time_run(images, instance)?);
            }
            let spent = start.elapsed().as_secs_f64();
            if round >= LEAST_ROUNDS && spent >= all {
                break;
            }
        }
        let times = self.records.iter().map(|record| {
            let totals = samples.totals.get_mut(&record.instance);
            let totals = totals.expect("every instance ran");
            InstanceTime {
                instance: record.instance,
                macs: record.macs,
                median: quantile(totals, 0.5).unwrap_or(0.0),
                p90: quantile(totals, 0.9).unwrap_or(0.0),
                rest: median(samples.rests[&record.instance].clone()).unwrap_or(0.0),
            }
        });
        Ok(BatchProfile {
            batch,
            instances: times.collect(),
            stretches: self.stretches(&samples.medians()),
        })
    }

    /// Times `full` and a few other instances, and estimates the rest.
    ///
    /// Behind its point, an instance is taken to spend on each stretch what
    /// `full` does there, times its share of the multiply-accumulates, times
    /// a factor for its ratio: small maps run less efficiently. The factor is
    /// the one of two measured instances of that ratio.
    pub(super) fn estimate(
        &self,
        batch: usize,
        size: [usize; 2],
    ) -> Result<BatchProfile, EngineError> {
        let inputs = self.test_inputs(batch, size)?;
        let images = Images::from(&inputs);
        let mut samples = Samples::default();
        let looked_at = self.looked_at();
        for round in 0..=FIRST_LOOK {
            for &instance in &looked_at {
                let sample = self.time_run(images, instance)?;
                // The first run makes plans and fills caches.
                if round > 0 {
                    samples.add(instance, &sample);
                }
            }
        }
        let medians = samples.medians();
        let instances = self.records.iter().map(|record| record.instance);
        let work = InstanceWork::new(self.network(), size, instances)?;
        let by_cost = |instance| rest_by_cost(instance, &work, &medians);
        let mut factors: BTreeMap<Ratio, Vec<f64>> = BTreeMap::new();
        for (&instance, rests) in &samples.rests {
            if let Some(ratio) = instance.ratio() {
                let measured = median(rests.clone()).unwrap_or(0.0);
                let factor = measured / by_cost(instance).max(1e-9);
                factors.entry(ratio).or_default().push(factor);
            }
        }
        let slow = samples.slow();
        let instances = self.records.iter().map(|record| {
            let instance = record.instance;
            let before = work
                .exits()
                .iter()
                .take_while(|(point, _)| Some(*point) < instance.point());
            let stretches = match instance.point() {
                Some(_) => before.count() + 1,
                None => work.exits().len(),
            };
            let ratio = instance.ratio();
            let factor = ratio.and_then(|ratio| median(factors.get(&ratio)?.clone()));
            let rest = (by_cost(instance) * factor.unwrap_or(1.0)).max(LEAST_TIME);
            let total = medians[..stretches].iter().sum::<f64>() + rest;
            InstanceTime {
                instance,
                macs: record.macs,
                median: total,
                p90: total * slow.max(1.0 + UNKNOWN_SPREAD),
                rest,
            }
        });
        Ok(BatchProfile {
            batch,
            instances: instances.collect(),
            stretches: self.stretches(&medians),
        })
    }

    /// The instances that are timed where there is no profile: `full`, and
    /// for each ratio those of the first point and of the middle one.
    fn looked_at(&self) -> Vec<Instance> {
        let mut by_ratio: BTreeMap<Ratio, Vec<Instance>> = BTreeMap::new();
        for record in &self.records {
            if let Some(ratio) = record.instance.ratio() {
                by_ratio.entry(ratio).or_default().push(record.instance);
            }
        }
        let mut chosen = vec![Instance::Full];
        for instances in by_ratio.values_mut() {
            instances.sort();
            chosen.push(instances[0]);
            chosen.push(instances[instances.len() / 2]);
        }
        chosen.dedup();
        chosen
    }

    /// Runs an instance and takes the time at each point on its way.
    fn time_run(&self, images: Images<'_>, instance: Instance) -> Result<Sample, EngineError> {
        let mut last = Instant::now();
        let mut lap = || {
            let now = Instant::now();
            let time = (now - last).as_secs_f64().max(LEAST_TIME);
            last = now;
            time
        };
        let mut flight = self.inference.start(images)?;
        let mut stretches = Vec::new();
        for point in self.network().points() {
            if instance.point().is_some_and(|last| point.id() > last) {
                break;
            }
            flight.go_to(any_at(point.id()))?;
            stretches.push(lap());
        }
        flight.branch(instance)?;
        Ok(Sample {
            stretches,
            rest: lap(),
        })
    }

    fn stretches(&self, medians: &[f64]) -> Vec<StretchTime> {
        let points = self.network().points().iter().map(|point| Some(point.id()));
        std::iter::zip(points.chain([None]), medians)
            .map(|(to, &median)| StretchTime { to, median })
            .collect()
    }

    /// Images to measure with: time does not depend on what is on them.
    ///
    /// # Errors
    /// If there is no memory for them.
    pub(super) fn test_inputs(
        &self,
        batch: usize,
        size: [usize; 2],
    ) -> Result<Inputs, EngineError> {
        let image = [size[0], size[1], self.network().input_channels()];
        let len = image.into_iter().fold(batch, usize::saturating_mul);
        let mut data = Vec::new();
        data.try_reserve_exact(len)
            .map_err(|_| EngineError::TooLarge {
                what: "a batch of images",
                bytes: len.saturating_mul(size_of::<f32>()),
            })?;
        data.extend((0..len).map(|i| (i * 31 % 251) as f32 / 125.0 - 1.0));
        Ok(Inputs::of(data, batch, size))
    }
}

/// The time from an instance's point on, if time went as cost does.
fn rest_by_cost(instance: Instance, work: &InstanceWork, medians: &[f64]) -> f64 {
    let Some(first) = instance.point() else {
        return medians.last().copied().unwrap_or(0.0);
    };
    let own = work.layer_macs(instance);
    let full = work.layer_macs(Instance::Full);
    let starts = work.exits().iter().map(|&(point, layer)| (point, layer.0));
    let ends = work.exits().iter().skip(1).map(|(_, layer)| layer.0);
    let ends = ends.chain([own.len()]);
    let mut rest = 0.0;
    for (((point, start), end), time) in starts.zip(ends).zip(medians.iter().skip(1)) {
        if point < first {
            continue;
        }
        let macs = |layers: &[u64]| layers[start..end].iter().sum::<u64>() as f64;
        // Pools and sums have no multiply-accumulates.
        let share = macs(own) / macs(full);
        rest += time * if share.is_finite() { share } else { 1.0 };
    }
    rest
}
