//! The progress of a run: which instances it can still become, and their times.

use sdpoint_core::Instance;

use super::pace::Pace;
use super::timetable::Timetable;

/// Follows a run of `full` from point to point, and compares its times with those of
/// the timetable.
///
/// [`Engine::run_deciding`](super::Engine::run_deciding) uses one for each run. Use it
/// directly to simulate runs.
#[derive(Clone, Debug)]
pub struct Progress<'a> {
    table: &'a Timetable,
    pace: Pace,
    /// The index of the next stop.
    next: usize,
    /// The actual and the expected time of the last stop, in seconds.
    last: [f64; 2],
}

impl<'a> Progress<'a> {
    /// Starts to follow a run. `pace` is that of earlier runs.
    pub fn new(table: &'a Timetable, pace: Pace) -> Self {
        Self {
            table,
            pace,
            next: 0,
            last: [0.0; 2],
        }
    }

    /// Notes that the run reached its next point `elapsed` seconds after its start.
    /// Returns none after the last point with instances.
    pub fn arrive(&mut self, elapsed: f64) -> Option<Crossing<'_>> {
        let here = self.table.stops.get(self.next)?;
        let [last, expected] = self.last;
        self.pace
            .note(elapsed - last, here.at - expected, self.table.full);
        self.last = [elapsed, here.at];
        self.next += 1;
        Some(Crossing {
            table: self.table,
            pace: &self.pace,
            stop: self.next - 1,
            elapsed,
        })
    }
}

/// A point that a run has reached. It can continue at full resolution or downsample
/// here.
#[derive(Clone, Copy, Debug)]
pub struct Crossing<'a> {
    table: &'a Timetable,
    pace: &'a Pace,
    /// The index of the point's stop.
    stop: usize,
    elapsed: f64,
}

/// An instance that a run can still become.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Way {
    /// The instance.
    pub instance: Instance,
    /// Whether it branches off here. Otherwise the run has to continue, and can decide
    /// again at later points.
    pub here: bool,
    /// The expected time from here to the logits at the pace of this run, in
    /// seconds.
    pub expected: f64,
    /// An upper bound on that time, in seconds, which holds for nearly all runs.
    pub bound: f64,
    /// A score that orders instances by the quality of their predictions: the
    /// recorded accuracy from 0 to 1 if there is one. Otherwise it lies between
    /// -1 and 0 and rises with the cost.
    pub worth: f64,
}

impl<'a> Crossing<'a> {
    /// The time since the start of the run, in seconds.
    pub fn elapsed(&self) -> f64 {
        self.elapsed
    }

    /// Every instance that the run can still become: those of this point, those of later
    /// points, and `full`.
    pub fn ways(&self) -> impl Iterator<Item = Way> + use<'a> {
        let Self {
            table, pace, stop, ..
        } = *self;
        let at = table.stops[stop].at;
        let way = move |instance, here, rest, worth| Way {
            instance,
            here,
            expected: pace.expected(rest),
            bound: pace.bound(rest, table.full, table.spread),
            worth,
        };
        let stops = table.stops[stop..].iter().enumerate();
        let branches = stops.flat_map(move |(ahead, stop)| {
            stop.branches.iter().map(move |branch| {
                let rest = stop.at - at + branch.rest;
                way(branch.instance, ahead == 0, rest, branch.worth)
            })
        });
        let full = way(Instance::Full, false, table.full - at, table.worth);
        branches.chain([full])
    }
}

/// A decision at a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Continue at full resolution to the next point, or to the end as `full`.
    Continue,
    /// Become this instance, without further decisions. Its point must not have
    /// been passed.
    Become(Instance),
    /// Stop the run without a result.
    Abandon,
}
