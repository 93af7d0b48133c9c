//! Runs with a decision at every point.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sdpoint_core::Instance;
use sdpoint_engine::{EngineError, Images};

use super::progress::{Crossing, Decision, Progress};
use super::{Answer, Engine, Pace, RunError, Timetable, lock};

impl Engine {
    /// The expected times of a batch of images of the preprocessing's size.
    /// Without a profile, a few instances are measured, once, and the others
    /// estimated.
    ///
    /// # Errors
    /// If the batch is empty, or too large for the memory.
    pub fn timetable_for(&self, batch: usize) -> Result<Arc<Timetable>, EngineError> {
        self.timetable((batch, self.preprocessing.size))
    }

    /// The pace of recent runs, compared with their timetables.
    pub fn pace(&self) -> Pace {
        *lock(&self.pace)
    }

    /// Classifies a batch, and calls `decide` at every point.
    ///
    /// Every instance is the same computation as `full` up to its point, so the run starts
    /// undecided. At each point with instances, `decide` gets the instances that the run
    /// can still become, and their times at the pace of this run. If it never chooses one,
    /// the run ends as `full`. [`Engine::run_by`] is such a run with a deadline; a server
    /// can also consider its queue.
    ///
    /// `table` is the timetable for the batch size, from
    /// [`Engine::timetable_for`] or [`Timetable::between`].
    ///
    /// Returns none if `decide` abandons the run.
    ///
    /// ```no_run
    /// use sdpoint::{Decision, Engine};
    ///
    /// let engine = Engine::load("model.safetensors")?;
    /// let photo = engine.decode([std::fs::read("photo.jpg")?])?;
    /// let table = engine.timetable_for(1)?;
    /// // The most accurate instance that still ends within 8 ms of the start.
    /// let answer = engine.run_deciding(&photo, &table, |crossing| {
    ///     let left = 0.008 - crossing.elapsed();
    ///     let in_time = crossing.ways().filter(|way| way.bound <= left);
    ///     match in_time.max_by(|a, b| a.worth.total_cmp(&b.worth)) {
    ///         Some(best) if best.here => Decision::Become(best.instance),
    ///         Some(_) => Decision::Continue,
    ///         None => Decision::Abandon,
    ///     }
    /// })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// If the images do not fit the network, or `decide` chooses an instance
    /// that the model lacks or whose point has been passed.
    pub fn run_deciding<'a>(
        &self,
        images: impl Into<Images<'a>>,
        table: &Timetable,
        decide: impl FnMut(&Crossing<'_>) -> Decision,
    ) -> Result<Option<Answer>, RunError> {
        let images = images.into();
        let start = Instant::now();
        let now = || start.elapsed().as_secs_f64();
        let Some(outcome) = self.run_on_clock(images, table, now, decide)? else {
            return Ok(None);
        };
        let time = Duration::from_secs_f64(outcome.time);
        let answer = self.answer(outcome.logits, outcome.instance, images.size, time)?;
        Ok(Some(answer))
    }

    /// As [`Engine::run_deciding`], on the clock `now`, in seconds since the
    /// start.
    pub(super) fn run_on_clock(
        &self,
        images: Images<'_>,
        table: &Timetable,
        mut now: impl FnMut() -> f64,
        mut decide: impl FnMut(&Crossing<'_>) -> Decision,
    ) -> Result<Option<RunOutcome>, EngineError> {
        let mut run = self.inference.start(images)?;
        let mut progress = Progress::new(table, self.pace());
        let mut instance = Instance::Full;
        for stop in &table.stops {
            run.advance_to(stop.branches[0].instance)?;
            let crossing = progress.arrive(now()).expect("it has the same stops");
            match decide(&crossing) {
                Decision::Continue => {}
                Decision::Become(chosen) => {
                    instance = chosen;
                    break;
                }
                Decision::Abandon => return Ok(None),
            }
        }
        let logits = run.branch(instance)?;
        let time = now();
        if let Some(expected) = table.expected(instance) {
            lock(&self.pace).learn(time, expected);
        }
        Ok(Some(RunOutcome {
            logits,
            instance,
            time,
        }))
    }
}

/// The result of a run with decisions.
pub(super) struct RunOutcome {
    pub logits: Vec<f32>,
    pub instance: Instance,
    pub time: f64,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::tests::{engine, images, tensor};
    use super::*;

    #[test]
    fn a_run_becomes_the_chosen_instance() {
        let engine = engine();
        let data = tensor(2);
        let table = engine.timetable_for(2).unwrap();
        for record in engine.records() {
            let instance = record.instance;
            let alone = engine.run(images(&data), instance).unwrap();
            // At the first opportunity, and at the last one.
            for eager in [true, false] {
                let answer = engine.run_deciding(images(&data), &table, |crossing| {
                    let mut ways = crossing.ways();
                    match ways.find(|way| way.instance == instance) {
                        Some(way) if way.here || eager => Decision::Become(instance),
                        _ => Decision::Continue,
                    }
                });
                let answer = answer.unwrap().expect("it was not abandoned");
                assert_eq!(answer.instances.single(), Some(instance));
                assert_eq!(answer.predictions, alone.predictions);
            }
        }
    }

    #[test]
    fn a_point_offers_what_has_not_been_passed() {
        let engine = engine();
        let data = tensor(1);
        let table = engine.timetable_for(1).unwrap();
        let mut asked = 0;
        let mut last = 0.0;
        let answer = engine.run_deciding(images(&data), &table, |crossing| {
            assert!(crossing.elapsed() > last);
            last = crossing.elapsed();
            let point = crossing.ways().find(|way| way.here).unwrap().instance;
            let offered: BTreeSet<Instance> = crossing.ways().map(|way| way.instance).collect();
            let ahead = |&i: &Instance| i == Instance::Full || i.point() >= point.point();
            let records = engine.records().iter().map(|record| record.instance);
            assert_eq!(offered, records.filter(ahead).collect());
            for way in crossing.ways() {
                assert_eq!(way.here, way.instance.point() == point.point());
                assert!(way.bound > way.expected && way.expected > 0.0, "{way:?}");
            }
            asked += 1;
            Decision::Continue
        });
        let answer = answer.unwrap().unwrap();
        assert_eq!(answer.instances.single(), Some(Instance::Full));
        assert_eq!(asked, table.stops());
    }

    #[test]
    fn an_abandoned_run_has_no_answer() {
        let engine = engine();
        let data = tensor(1);
        let table = engine.timetable_for(1).unwrap();
        let nothing = engine.run_deciding(images(&data), &table, |_| Decision::Abandon);
        assert_eq!(nothing.unwrap(), None);
    }

    #[test]
    fn an_instance_of_a_passed_point_is_an_error() {
        let engine = engine();
        let data = tensor(1);
        let table = engine.timetable_for(1).unwrap();
        let mut first = None;
        let answer = engine.run_deciding(images(&data), &table, |crossing| match first {
            Some(instance) => Decision::Become(instance),
            None => {
                first = crossing.ways().next().map(|way| way.instance);
                Decision::Continue
            }
        });
        let first = first.unwrap();
        assert!(
            matches!(answer, Err(RunError::Engine(EngineError::Passed(i))) if i == first),
            "{answer:?}"
        );
    }

    #[test]
    fn a_timetable_between_two_has_times_between_theirs() {
        let engine = engine();
        let [small, large] = [1, 3].map(|batch| engine.timetable_for(batch).unwrap());
        let half = small.between(&large, 0.5);
        for record in engine.records() {
            let [a, b, mixed] =
                [&small, &large, &half].map(|table| table.expected(record.instance).unwrap());
            assert!((mixed - (a + b) / 2.0).abs() < 1e-9, "{}", record.instance);
            let [a, b, mixed] =
                [&small, &large, &half].map(|table| table.times()[&record.instance]);
            assert!(mixed.abs_diff((a + b) / 2) < std::time::Duration::from_nanos(10));
        }
        assert_eq!(small.between(&large, 0.0), *small);
    }
}
