//! When a run is expected where.

use std::time::Duration;

use sdpoint_core::{Instance, PointId, Record, Times};

use super::BatchProfile;

/// The expected times of a batch, in the form that decisions need.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Timetable {
    /// The points that have instances, in the order of the run.
    pub stops: Vec<Stop>,
    /// How long `full` takes, in seconds.
    pub full: f64,
    /// The standard deviation of a run's time, as a share of it.
    pub spread: f64,
    /// What `full` is worth; see [`Branch::worth`].
    pub worth: f64,
    times: Times,
}

/// A point at which a run may become an instance.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Stop {
    /// Seconds from the start.
    pub at: f64,
    /// The instances of the point.
    pub branches: Vec<Branch>,
}

/// An instance as seen from its point.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Branch {
    pub instance: Instance,
    /// Seconds from the point to the logits.
    pub rest: f64,
    /// Orders instances by how good their answers are.
    pub worth: f64,
}

impl Timetable {
    /// The timetable of the instances in `records`, all of which were timed.
    pub fn new(profile: &BatchProfile, records: &[Record]) -> Self {
        let mut stops = Vec::new();
        let mut at = 0.0;
        for stretch in &profile.stretches {
            at += stretch.median;
            let there = |time: &&super::InstanceTime| {
                stretch.to.is_some() && time.instance.point() == stretch.to
            };
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
        // Nine tenths of a normal distribution lie below 1.28 deviations.
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

    /// What nine of ten runs of each instance stay under.
    pub fn times(&self) -> &Times {
        &self.times
    }
}

/// How good an instance's answers are: its accuracy; those that were not
/// measured come after those that were, by cost.
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

/// The middle of some numbers, if there are any.
pub(super) fn median(mut values: Vec<f64>) -> Option<f64> {
    quantile(&mut values, 0.5)
}

/// The number below which a share of the numbers lies.
pub(super) fn quantile(values: &mut [f64], share: f64) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let last = values.len().checked_sub(1)?;
    Some(values[(last as f64 * share).round() as usize])
}

/// Any instance of a point: where it parts from `full` depends on the point
/// alone.
pub(super) fn any_at(point: PointId) -> Instance {
    Instance::At(point, sdpoint_core::Ratio::DEFAULT[0])
}
