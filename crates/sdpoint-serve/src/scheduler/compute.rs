//! The computing thread.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use sdpoint::{Answer, Decision, Images, Instance, RunError};

use super::pending::{Part, Piece};
use super::turnaround::Turnaround;
use super::{BatchReport, Dropped, Model, Shared, State};
use crate::control::{Batch, Shed};
use crate::cpu_quota::Pacing;
use crate::{Mode, Refusal};

/// A batch to compute.
struct Next {
    batch: Batch<Piece>,
    model: Arc<Model>,
    /// Whether no request was waiting before.
    idle: bool,
}

/// The result of a run.
struct Outcome {
    answer: Answer,
    /// The instance; none for a cascade or an ensemble.
    instance: Option<Instance>,
    /// Its recorded accuracy.
    accuracy: Option<f64>,
}

impl Shared {
    /// Computes until the scheduler is closed and all accepted jobs are answered.
    pub(super) fn compute(&self) {
        let mut values = Vec::new();
        let mut pacing = Pacing::default();
        let mut turnaround = Turnaround::default();
        while let Some(Next { batch, model, idle }) = self.next() {
            let start = Instant::now();
            turnaround.started(start, idle);
            let duty = pacing.duty(model.threads);
            let both = duty.max(turnaround.duty());
            self.lock().controller.set_duty(both);
            let pieces = || batch.requests.iter().map(|request| &request.tag);
            model.assembler.assemble(pieces(), &mut values);
            let run = || self.run(&batch, &model, &values);
            self.computing.start();
            let outcome = catch_unwind(AssertUnwindSafe(run));
            let computed = start.elapsed();
            pacing.computed(computed);
            turnaround.ended(start + computed, computed);
            let became = self.answer(&batch, &model, outcome, start, computed);
            self.computing.end();
            let waiting = {
                let mut state = self.lock();
                let now = self.seconds(Instant::now());
                state.controller.finish(now, model.engine.pace());
                state.waiting(batch.model)
            };
            let choice = batch
                .plan
                .choice
                .map(|choice| &model.costs.choices()[choice]);
            let report = BatchReport {
                images: batch.plan.images,
                planned: choice.map(|choice| choice.instance()),
                became,
                computed,
                waiting,
            };
            self.observer.batch(&model.name, &report);
            if duty > 1.0 {
                std::thread::sleep(computed.mul_f64(duty - 1.0));
            }
        }
    }

    /// Waits for the next batch; none once the scheduler is closed and the queues are
    /// empty.
    fn next(&self) -> Option<Next> {
        let mut state = self.lock();
        let mut idle = false;
        loop {
            self.drop_unwanted(&mut state);
            state.drop_idle_models();
            if let Some(batch) = state.controller.start(self.seconds(Instant::now())) {
                let model = state.models[&batch.model].clone();
                return Some(Next { batch, model, idle });
            }
            if state.closed {
                return None;
            }
            idle = true;
            let waited = self.wake.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Drops jobs whose callers have gone, and those that can no longer be in time.
    fn drop_unwanted(&self, state: &mut State) {
        let models = &state.models;
        state.controller.retain(|id, request| {
            let Piece {
                pending, images, ..
            } = &request.tag;
            let wanted = pending.is_wanted();
            if !wanted && !pending.is_answered() {
                let name = &models[&id].name;
                self.observer.dropped(name, *images, Dropped::Gone);
            }
            wanted
        });
        for Shed { model, request } in state.controller.shed(self.seconds(Instant::now())) {
            let pending = &request.tag.pending;
            let passed = pending
                .job
                .deadline
                .is_some_and(|deadline| Instant::now() >= deadline);
            pending.refuse(match passed {
                true => Refusal::Expired,
                false => Refusal::Overloaded {
                    // `bench/serve` tells it from a refusal at arrival by these words.
                    reason: "it can no longer be answered before the deadline".into(),
                    retry_after: Duration::from_millis(10),
                    late: true,
                },
            });
            let name = &state.models[&model].name;
            self.observer
                .dropped(name, request.images, Dropped::Hopeless);
        }
    }

    /// Runs a batch; none if all of its callers have gone.
    fn run(
        &self,
        batch: &Batch<Piece>,
        model: &Model,
        values: &[f32],
    ) -> Result<Option<Outcome>, RunError> {
        let engine = &model.engine;
        let images = Images {
            data: values,
            batch: batch.plan.images,
            size: engine.preprocessing().size,
        };
        if let Mode::Combination(index) = batch.plan.demand.mode {
            let record = &engine.combinations()[index];
            return Ok(Some(Outcome {
                answer: engine.run_combination(images, &record.combination)?,
                instance: None,
                accuracy: Some(record.top1),
            }));
        }
        let table = model.costs.table(batch.plan.images);
        let answer = engine.run_deciding(images, table, |crossing| {
            let mut requests = batch.requests.iter();
            if !requests.any(|request| request.tag.pending.is_wanted()) {
                return Decision::Abandon;
            }
            let now = self.seconds(Instant::now());
            self.lock().controller.decide(now, crossing)
        })?;
        Ok(answer.map(|answer| {
            let instance = answer.instances.single();
            let record = instance.and_then(|instance| engine.record(instance));
            Outcome {
                accuracy: record.and_then(|record| record.top1),
                answer,
                instance,
            }
        }))
    }

    /// Sends every caller the answers to its images, and returns the instance.
    fn answer(
        &self,
        batch: &Batch<Piece>,
        model: &Model,
        outcome: std::thread::Result<Result<Option<Outcome>, RunError>>,
        started: Instant,
        computed: Duration,
    ) -> Option<Instance> {
        let failed = match outcome {
            Ok(Ok(Some(outcome))) => {
                let mut at = 0;
                for request in &batch.requests {
                    request.tag.answer(&Part {
                        answer: &outcome.answer,
                        at,
                        accuracy: outcome.accuracy,
                        started,
                        computed,
                    });
                    at += request.images;
                }
                return outcome.instance;
            }
            Ok(Ok(None)) => {
                let dropped = |images| self.observer.dropped(&model.name, images, Dropped::Gone);
                batch
                    .requests
                    .iter()
                    .for_each(|request| dropped(request.images));
                return None;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "an internal error; the log has the details".to_owned(),
        };
        for request in &batch.requests {
            request.tag.pending.refuse(Refusal::Failed(failed.clone()));
        }
        None
    }
}

impl State {
    /// Drops models that accept no more jobs and have an empty queue.
    fn drop_idle_models(&mut self) {
        let Self {
            controller,
            models,
            names,
            ..
        } = self;
        models.retain(|id, _| {
            let needed = names.values().any(|named| named == id);
            let busy = !controller.queue(*id).is_empty();
            if !needed && !busy {
                controller.remove(*id);
            }
            needed || busy
        });
    }
}
