//! Runs with a deadline, which select the instance while running.

use std::time::{Duration, Instant};

use sdpoint_core::Instance;
use sdpoint_engine::{EngineError, Images};

use super::pace::Pace;
use super::timetable::{Branch, Timetable};
use super::{Answer, Engine, RunError, lock};

impl Engine {
    /// Classifies a batch by a deadline; may measure latencies.
    ///
    /// Without a profile, the first run of a batch shape measures a few
    /// instances before it starts; call [`Engine::times`] or
    /// [`Engine::warm_up`] beforehand to avoid that.
    ///
    /// Every instance is the same computation as `full` up to its point, so
    /// the run starts without a decision. At each point it compares the time
    /// left with the expected time of each instance that it can still become,
    /// scaled by the pace of this run so far. It continues at full resolution
    /// as long as a later point allows a more accurate instance to meet the
    /// deadline. Otherwise it downsamples, by the ratio of the most accurate
    /// instance that meets the deadline. If none does, it becomes the one that
    /// finishes first.
    ///
    /// # Errors
    /// If the images do not fit the network.
    pub fn run_by<'a>(
        &self,
        images: impl Into<Images<'a>>,
        deadline: Instant,
    ) -> Result<Answer, RunError> {
        let images = images.into();
        let table = self.timetable((images.batch, images.size))?;
        let start = Instant::now();
        let allowed = deadline.saturating_duration_since(start).as_secs_f64();
        let outcome = self.run_until(images, &table, allowed, || start.elapsed().as_secs_f64())?;
        let time = Duration::from_secs_f64(outcome.time);
        self.answer(outcome.logits, outcome.instance, images.size, time)
    }

    /// Runs a batch by `deadline`, in seconds on the clock `now`.
    pub(super) fn run_until(
        &self,
        images: Images<'_>,
        table: &Timetable,
        deadline: f64,
        mut now: impl FnMut() -> f64,
    ) -> Result<RunOutcome, EngineError> {
        let mut run = self.inference.start(images)?;
        let mut controller = DeadlineController::new(table, *lock(&self.pace));
        let mut instance = Instance::Full;
        for stop in &table.stops {
            run.advance_to(stop.branches[0].instance)?;
            if let Some(chosen) = controller.decide(now(), deadline) {
                instance = chosen.instance;
                break;
            }
        }
        let logits = run.branch(instance)?;
        let time = now();
        lock(&self.pace).learn(time, controller.expected(instance));
        Ok(RunOutcome {
            logits,
            instance,
            time,
        })
    }
}

/// The result of a run with a deadline.
pub(super) struct RunOutcome {
    pub logits: Vec<f32>,
    pub instance: Instance,
    pub time: f64,
}

/// Decides at each stop whether to continue at full resolution.
struct DeadlineController<'a> {
    table: &'a Timetable,
    pace: Pace,
    /// The index of the next stop.
    stop: usize,
    /// The actual and the expected time of the last stop, in seconds.
    last: [f64; 2],
}

impl<'a> DeadlineController<'a> {
    fn new(table: &'a Timetable, pace: Pace) -> Self {
        Self {
            table,
            pace,
            stop: 0,
            last: [0.0; 2],
        }
    }

    /// The decision at the next stop, reached at the time `now`: the instance to
    /// become, or none to continue.
    fn decide(&mut self, now: f64, deadline: f64) -> Option<Branch> {
        let Timetable { stops, full, .. } = self.table;
        let here = &stops[self.stop];
        let [last, expected] = self.last;
        self.pace.note(now - last, here.at - expected, *full);
        self.last = [now, here.at];
        self.stop += 1;

        let left = deadline - now;
        let bound = |expected| self.pace.bound(expected, *full, self.table.spread);
        // Instances that meet the deadline rank above those that miss it; the
        // former by worth, the latter by time.
        let rank = |time: f64, worth: f64| {
            if time <= left {
                (true, worth)
            } else {
                (false, -time)
            }
        };
        let leaving = here
            .branches
            .iter()
            .map(|branch| (rank(bound(branch.rest), branch.worth), branch))
            .max_by(|(a, _), (b, _)| a.partial_cmp(b).expect("times and worths are numbers"))?;
        let later = stops[self.stop..].iter().flat_map(|stop| {
            let way = stop.at - here.at;
            let time = move |branch: &Branch| (way + branch.rest, branch.worth);
            stop.branches.iter().map(time)
        });
        let to_the_end = (full - here.at, self.table.worth);
        let going_on = later
            .chain([to_the_end])
            .any(|(time, worth)| rank(bound(time), worth) > leaving.0);
        (!going_on).then_some(*leaving.1)
    }

    /// The expected time of an instance, in seconds.
    fn expected(&self, instance: Instance) -> f64 {
        let stops = self.table.stops.iter();
        let mut ways = stops.flat_map(|stop| stop.branches.iter().map(move |b| (stop.at, b)));
        let found = ways.find(|(_, branch)| branch.instance == instance);
        found.map_or(self.table.full, |(at, branch)| at + branch.rest)
    }
}
