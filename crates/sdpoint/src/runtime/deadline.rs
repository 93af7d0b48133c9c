//! Runs that must end in time, and decide on the way what they become.

use std::time::{Duration, Instant};

use sdpoint_core::Instance;
use sdpoint_engine::{EngineError, Images};

use super::pace::Pace;
use super::timetable::{Branch, Timetable};
use super::{Answer, Engine, Predictions, RunError, lock};

impl Engine {
    /// Classifies a batch by a deadline.
    ///
    /// Every instance is the same computation as `full` up to its point, so
    /// the run starts undecided. At each point it compares the time that is
    /// left with what each instance that can still be reached would take,
    /// at the pace of this very run. It goes on at full resolution as long as
    /// a later point still allows the deadline to be met by a better answer,
    /// and otherwise downsamples, by the ratio that gives the most accurate
    /// instance that still fits. Where nothing fits any more, it ends as soon
    /// as it can.
    ///
    /// The first run of a batch size may measure some instances before it
    /// begins; [`Engine::times`] does that ahead.
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
        let flown = self.fly(images, &table, allowed, || start.elapsed().as_secs_f64())?;
        Ok(Answer {
            predictions: Predictions::new(flown.logits, self.classes.clone()),
            instance: flown.instance,
            time: Duration::from_secs_f64(flown.time),
        })
    }

    /// Runs until `deadline`, in seconds on a clock that reads `now`.
    pub(super) fn fly(
        &self,
        images: Images<'_>,
        table: &Timetable,
        deadline: f64,
        mut now: impl FnMut() -> f64,
    ) -> Result<Flown, EngineError> {
        let mut flight = self.inference.start(images)?;
        let mut pilot = Pilot::new(table, *lock(&self.pace));
        let mut instance = Instance::Full;
        for stop in &table.stops {
            flight.go_to(stop.branches[0].instance)?;
            if let Some(chosen) = pilot.decide(now(), deadline) {
                instance = chosen.instance;
                break;
            }
        }
        let logits = flight.branch(instance)?;
        let time = now();
        lock(&self.pace).learn(time, pilot.expected(instance));
        Ok(Flown {
            logits,
            instance,
            time,
        })
    }
}

/// Where a flight ended, and when.
pub(super) struct Flown {
    pub logits: Vec<f32>,
    pub instance: Instance,
    pub time: f64,
}

/// Decides at each stop whether to go on.
struct Pilot<'a> {
    table: &'a Timetable,
    pace: Pace,
    /// The next stop.
    stop: usize,
    /// When the last stop was reached, and when that was expected.
    last: [f64; 2],
}

impl<'a> Pilot<'a> {
    fn new(table: &'a Timetable, pace: Pace) -> Self {
        Self {
            table,
            pace,
            stop: 0,
            last: [0.0; 2],
        }
    }

    /// At the next stop, at the time `now`: the instance to become, or none
    /// to go on.
    fn decide(&mut self, now: f64, deadline: f64) -> Option<Branch> {
        let Timetable { stops, full, .. } = self.table;
        let here = &stops[self.stop];
        let [last, expected] = self.last;
        self.pace.note(now - last, here.at - expected, *full);
        self.last = [now, here.at];
        self.stop += 1;

        let left = deadline - now;
        let bound = |expected| self.pace.bound(expected, *full, self.table.spread);
        // Worth of what fits, or how soon it ends where nothing fits.
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

    /// How long an instance was expected to take.
    fn expected(&self, instance: Instance) -> f64 {
        let stops = self.table.stops.iter();
        let mut ways = stops.flat_map(|stop| stop.branches.iter().map(move |b| (stop.at, b)));
        let found = ways.find(|(_, branch)| branch.instance == instance);
        found.map_or(self.table.full, |(at, branch)| at + branch.rest)
    }
}
