//! Runs with a deadline, which select the instance while running.

use std::time::{Duration, Instant};

use sdpoint_engine::{EngineError, Images};

use super::deciding::RunOutcome;
use super::progress::{Crossing, Decision, Way};
use super::timetable::Timetable;
use super::{Answer, Engine, RunError};

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
        now: impl FnMut() -> f64,
    ) -> Result<RunOutcome, EngineError> {
        let decide = |crossing: &Crossing<'_>| decide(crossing, deadline);
        let outcome = self.run_on_clock(images, table, now, decide)?;
        Ok(outcome.expect("it is never abandoned"))
    }
}

/// The decision at a point, if the run has to end `deadline` seconds after its
/// start.
fn decide(crossing: &Crossing<'_>, deadline: f64) -> Decision {
    let left = deadline - crossing.elapsed();
    // Instances that meet the deadline rank above those that miss it; the
    // former by worth, the latter by time. Of equals, one that branches off
    // here ends the run sooner.
    let rank = |way: &Way| {
        if way.bound <= left {
            (true, way.worth, way.here)
        } else {
            (false, -way.bound, way.here)
        }
    };
    let best = crossing
        .ways()
        .max_by(|a, b| {
            let order = rank(a).partial_cmp(&rank(b));
            order.expect("times and worths are numbers")
        })
        .expect("it can always go on");
    if best.here {
        Decision::Become(best.instance)
    } else {
        Decision::Continue
    }
}
