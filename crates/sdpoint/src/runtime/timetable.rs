//! Expected times of a run at its points.

use std::time::Duration;

use sdpoint_core::{Instance, PointId, Record, Times};

use super::pace::Pace;
use super::profile::{BatchProfile, InstanceTime};

/// The expected times of a batch in every instance, whole and from point to
/// point.
#[derive(Clone, Debug, PartialEq)]
pub struct Timetable {
    /// The points that have instances, in execution order.
    pub(super) stops: Vec<Stop>,
    /// The time of `full`, in seconds.
    pub(super) full: f64,
    /// The relative standard deviation of a run's time.
    pub(super) spread: f64,
    /// The worth of `full`; see [`Branch::worth`].
    pub(super) worth: f64,
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
    /// Builds the timetable of the instances in `records`, as far as `profile`
    /// has them.
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

    /// The points at which a run can branch into an instance.
    pub fn stops(&self) -> usize {
        self.stops.len()
    }

    /// The expected time from the start of a run to one of its
    /// [`Timetable::stops`], in seconds.
    ///
    /// # Panics
    /// If there is no such stop.
    pub fn at(&self, stop: usize) -> f64 {
        self.stops[stop].at
    }

    /// The stop at which an instance branches off; none for `full`, and for
    /// instances that the timetable lacks.
    pub fn stop_of(&self, instance: Instance) -> Option<usize> {
        self.branch(instance).map(|(stop, _)| stop)
    }

    /// The expected time of a run in an instance, in seconds, if the timetable
    /// has it.
    pub fn expected(&self, instance: Instance) -> Option<f64> {
        if instance == Instance::Full {
            return Some(self.full);
        }
        let (stop, branch) = self.branch(instance)?;
        Some(self.at(stop) + branch.rest)
    }

    /// The worth of an instance, as in [`Way::worth`](super::Way::worth), if the
    /// timetable has it.
    pub fn worth(&self, instance: Instance) -> Option<f64> {
        if instance == Instance::Full {
            return Some(self.worth);
        }
        self.branch(instance).map(|(_, branch)| branch.worth)
    }

    /// The branch into an instance, and the index of its stop.
    fn branch(&self, instance: Instance) -> Option<(usize, &Branch)> {
        let stops = self.stops.iter().enumerate();
        let mut branches =
            stops.flat_map(|(stop, at)| at.branches.iter().map(move |branch| (stop, branch)));
        branches.find(|(_, branch)| branch.instance == instance)
    }

    /// An upper bound, at a pace, on the time of a run that is expected to take
    /// `expected` seconds. It holds for nearly all runs.
    pub fn bound(&self, expected: f64, pace: &Pace) -> f64 {
        pace.bound(expected, self.full, self.spread)
    }

    /// The timetable of a batch size between two measured ones, by linear
    /// interpolation. `share` is 0 for the times of `self`, 1 for those of
    /// `larger`.
    ///
    /// # Panics
    /// If the two are of different instances.
    pub fn between(&self, larger: &Self, share: f64) -> Self {
        let mix = |a: f64, b: f64| a + share * (b - a);
        let mut mixed = self.clone();
        mixed.full = mix(self.full, larger.full);
        mixed.spread = mix(self.spread, larger.spread);
        assert_eq!(self.stops.len(), larger.stops.len(), "points differ");
        for (stop, other) in std::iter::zip(&mut mixed.stops, &larger.stops) {
            stop.at = mix(stop.at, other.at);
            assert_eq!(
                stop.branches.len(),
                other.branches.len(),
                "instances differ"
            );
            for (branch, other) in std::iter::zip(&mut stop.branches, &other.branches) {
                assert_eq!(branch.instance, other.instance, "instances differ");
                branch.rest = mix(branch.rest, other.rest);
            }
        }
        for (instance, time) in &mut mixed.times {
            let other = larger.times[instance].as_secs_f64();
            *time = Duration::from_secs_f64(mix(time.as_secs_f64(), other));
        }
        mixed
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
