//! Latency measurement.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use sdpoint_core::{Instance, Ratio};
use sdpoint_engine::{EngineError, Images, InstanceMacs};

use super::profile::{BatchProfile, InstanceTime, LEAST_TIME, StretchTime};
use super::timetable::{any_at, median, quantile};
use super::{Engine, Inputs};

/// Timed runs of each instance that is measured when there is no profile.
const SAMPLED_ROUNDS: usize = 5;

/// The least number of timed runs of each instance for a profile.
const LEAST_ROUNDS: usize = 5;

/// The least relative excess of the 90th percentile over the median that is
/// assumed when there is no profile.
const UNKNOWN_SPREAD: f64 = 0.05;

/// The times of one run, in seconds.
struct Sample {
    /// From point to point, up to the instance's point.
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

    /// The 90th percentile of the ratio of a run's time to the median of its
    /// instance. Pooled over all instances, because a single one has too few
    /// runs for a percentile.
    fn slow(&self) -> f64 {
        let each = self.totals.values().flat_map(|totals| {
            let median = median(totals.clone()).unwrap_or(0.0).max(LEAST_TIME);
            totals.iter().map(move |total| total / median)
        });
        quantile(&mut each.collect::<Vec<f64>>(), 0.9).unwrap_or(1.0)
    }

    /// The median times from point to point; the last stretch ends at the
    /// logits.
    fn medians(&self) -> Vec<f64> {
        let last = self.rests.get(&Instance::Full).cloned().unwrap_or_default();
        let all = self.stretches.iter().cloned().chain([last]);
        all.map(|times| median(times).unwrap_or(0.0)).collect()
    }
}

impl Engine {
    /// Measures the latency of every instance on batches of `batch` images.
    /// After a warm-up, instances are run in turns, so that disturbances affect
    /// all equally, until `time` per instance has passed, but at least five
    /// times each.
    ///
    /// # Errors
    /// If the batch is empty, or too large for the memory.
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

    /// Measures `full` and a few other instances, and estimates the others.
    ///
    /// After its point, the time of an instance on each stretch is estimated as
    /// that of `full`, times the ratio of their MACs there, times a factor for
    /// its downsampling ratio, because small feature maps run less efficiently.
    /// The factor is the median over the measured instances of that ratio.
    pub(super) fn estimate(
        &self,
        batch: usize,
        size: [usize; 2],
    ) -> Result<BatchProfile, EngineError> {
        let inputs = self.test_inputs(batch, size)?;
        let images = Images::from(&inputs);
        let mut samples = Samples::default();
        let sampled = self.sampled_instances();
        for round in 0..=SAMPLED_ROUNDS {
            for &instance in &sampled {
                let sample = self.time_run(images, instance)?;
                // The first run builds plans and warms caches.
                if round > 0 {
                    samples.add(instance, &sample);
                }
            }
        }
        let medians = samples.medians();
        let instances = self.records.iter().map(|record| record.instance);
        let work = InstanceMacs::new(self.network(), size, instances)?;
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

    /// The instances that are measured when there is no profile: `full`, and for
    /// each ratio those of the first and the middle point.
    fn sampled_instances(&self) -> Vec<Instance> {
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

    /// Runs an instance and measures the time from point to point.
    fn time_run(&self, images: Images<'_>, instance: Instance) -> Result<Sample, EngineError> {
        let mut last = Instant::now();
        let mut lap = || {
            let now = Instant::now();
            let time = (now - last).as_secs_f64().max(LEAST_TIME);
            last = now;
            time
        };
        let mut run = self.inference.start(images)?;
        let mut stretches = Vec::new();
        for point in self.network().points() {
            if instance.point().is_some_and(|last| point.id() > last) {
                break;
            }
            run.advance_to(any_at(point.id()))?;
            stretches.push(lap());
        }
        run.branch(instance)?;
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

    /// Synthetic images for measurements; latency does not depend on the
    /// content.
    ///
    /// # Errors
    /// If the memory for them cannot be allocated.
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

/// The time from an instance's point on, if time were proportional to MACs.
fn rest_by_cost(instance: Instance, work: &InstanceMacs, medians: &[f64]) -> f64 {
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
        // A stretch of pools and sums has no MACs: 0/0.
        let share = macs(own) / macs(full);
        rest += time * if share.is_finite() { share } else { 1.0 };
    }
    rest
}
