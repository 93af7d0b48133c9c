//! Expected times of a run at its points.

use std::time::Duration;

use sdpoint_core::{Instance, PointId, Record, Times};

use super::profile::{BatchProfile, InstanceTime};

/// The expected times of a batch, arranged by point for decisions during a run.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Timetable {
    /// The points that have instances, in execution order.
    pub stops: Vec<Stop>,
    /// The time of `full`, in seconds.
    pub full: f64,
    /// The relative standard deviation of a run's time.
    pub spread: f64,
    /// The worth of `full`; see [`Branch::worth`].
    pub worth: f64,
    times: Times,
}

/// A point at which a run can branch into an instance.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Stop {
    /// The time from the start of the run, in seconds.
    pub at: f64,
    /// The instances of the point.
    pub branches: Vec<Branch>,
}

/// An instance that branches off at a stop.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Branch {
    pub instance: Instance,
    /// The time from the point to the logits, in seconds.
    pub rest: f64,
    /// A score that orders instances by the quality of their predictions.
    pub worth: f64,
}

impl Timetable {
    /// Builds the timetable of the instances in `records`. `profile` must have
    /// all of them.
    pub fn new(profile: &BatchProfile, records: &[Record]) -> Self {
        let mut stops = Vec::new();
        let mut at = 0.0;
        for stretch in &profile.stretches {
            at += stretch.median;
            let there =
                |time: &&InstanceTime| stretch.to.is_some() && time.instance.point() == stretch.to;
            let branches: Vec<Branch> = profile
                .instances
                .iter()
                .filter(there)
                .filter_map(|time| {
                    Some(Branch {
                        instance: time.instance,
                        rest: time.rest,
                        worth: worth(records, time.instance)?,
                    })
                })
                .collect();
            if !branches.is_empty() {
                stops.push(Stop { at, branches });
            }
        }
        let times = profile.instances.iter().map(|time| {
            let p90 = time.p90.max(time.median);
            (time.instance, Duration::from_secs_f64(p90))
        });
        // The 90th percentile of a normal distribution is at 1.28 deviations.
        let spreads = profile
            .instances
            .iter()
            .map(|t| (t.p90 / t.median - 1.0) / 1.28);
        Self {
            stops,
            full: at,
            spread: median(spreads.filter(|s| s.is_finite()).collect()).unwrap_or(0.0),
            worth: worth(records, Instance::Full).unwrap_or(0.0),
            times: times.collect(),
        }
    }

    /// The 90th percentile of each instance's latency.
    pub fn times(&self) -> &Times {
        &self.times
    }
}

/// The worth of an instance: its accuracy if it was measured, from 0 to 1.
/// Otherwise a value from -1 to 0 that rises with the cost, so that unmeasured
/// instances rank below measured ones.
fn worth(records: &[Record], instance: Instance) -> Option<f64> {
    let record = records.iter().find(|record| record.instance == instance)?;
    let most = records.iter().map(|record| record.macs).max()?.max(1);
    let unmeasured = record.macs as f64 / most as f64 - 1.0;
    Some(
        record
            .top1
            .filter(|top1| top1.is_finite())
            .unwrap_or(unmeasured),
    )
}

/// The median, if there are any values.
pub(super) fn median(mut values: Vec<f64>) -> Option<f64> {
    quantile(&mut values, 0.5)
}

/// The quantile `share`, from 0 to 1, if there are any values.
pub(super) fn quantile(values: &mut [f64], share: f64) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let last = values.len().checked_sub(1)?;
    Some(values[(last as f64 * share).round() as usize])
}

/// An instance of a point with an arbitrary ratio: where instances diverge from
/// `full` depends on the point alone.
pub(super) fn any_at(point: PointId) -> Instance {
    Instance::At(point, sdpoint_core::Ratio::DEFAULT[0])
}
