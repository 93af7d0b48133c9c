//! The executor: it queues jobs, refuses those that cannot be answered in time, and
//! computes the others in batches on a thread of its own, as the
//! [controller](crate::control) decides.

mod assemble;
mod compute;
mod computing;
mod install;
mod pending;
#[cfg(test)]
mod tests;
mod turnaround;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use sdpoint::{Engine, EngineError};

use crate::control::{Controller, Costs, Demand, Due, ModelId, Policy, Refused, Request};
use crate::delivery::Sent;
use crate::executor::{Answering, Executor};
use crate::{Job, Mode, Refusal};
use assemble::Assembler;
pub use computing::Computing;
use pending::{Pending, Piece};

/// Computes the jobs of several models on one thread, which runs one batch at a time on
/// the kernels' threads.
///
/// Dropping it blocks until all accepted jobs are answered.
#[derive(Debug)]
pub struct Scheduler {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// Options of a [`Scheduler`].
#[derive(Clone, Debug)]
pub struct SchedulerOptions {
    /// The time from the submission of a job without a deadline of its own to its
    /// deadline, under load.
    pub objective: Duration,
    /// The maximum batch size. Smaller where larger batches are not more efficient.
    pub max_batch: usize,
    /// The parameters of the controller.
    pub policy: Policy,
}

impl Default for SchedulerOptions {
    fn default() -> Self {
        Self {
            objective: Duration::from_millis(50),
            max_batch: 32,
            policy: Policy::default(),
        }
    }
}

/// Receives reports for metrics and logs. Methods are called on the computing thread
/// and should return at once.
pub trait Observer: Send + Sync + 'static {
    /// A batch was computed.
    fn batch(&self, model: &str, report: &BatchReport) {
        let _ = (model, report);
    }

    /// A job was dropped without an answer.
    fn dropped(&self, model: &str, images: usize, why: Dropped) {
        let _ = (model, images, why);
    }
}

/// A computed batch.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct BatchReport {
    /// The number of images.
    pub images: usize,
    /// The instance that was planned at the start; none for a cascade.
    pub planned: Option<sdpoint::Instance>,
    /// The instance that it became; none for a cascade, an abandoned batch and a
    /// failed one.
    pub became: Option<sdpoint::Instance>,
    /// The compute time.
    pub computed: Duration,
    /// Images of the model that are queued when it is done.
    pub waiting: usize,
}

/// The reason why a job was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Dropped {
    /// Its caller has gone.
    Gone,
    /// No instance could answer it in time any more.
    Hopeless,
}

/// Ignores all reports.
struct Blind;

impl Observer for Blind {}

/// State shared by the scheduler and its thread.
struct Shared {
    state: Mutex<State>,
    /// Something was queued, or the scheduler closes.
    wake: Condvar,
    epoch: Instant,
    options: SchedulerOptions,
    observer: Arc<dyn Observer>,
    computing: Arc<Computing>,
}

struct State {
    controller: Controller<Piece>,
    models: BTreeMap<ModelId, Arc<Model>>,
    /// The models that accept jobs.
    names: HashMap<String, ModelId>,
    closed: bool,
}

/// An installed model.
struct Model {
    name: String,
    engine: Arc<Engine>,
    costs: Costs,
    assembler: Assembler,
    /// The number of threads that its kernels run on.
    threads: usize,
}

impl Scheduler {
    /// Starts the thread that computes.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(options: SchedulerOptions) -> std::io::Result<Self> {
        Self::observed(options, Arc::new(Blind))
    }

    /// As [`Scheduler::start`], with reports to an observer.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn observed(
        options: SchedulerOptions,
        observer: Arc<dyn Observer>,
    ) -> std::io::Result<Self> {
        let state = State {
            controller: Controller::new(options.policy),
            models: BTreeMap::new(),
            names: HashMap::new(),
            closed: false,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            wake: Condvar::new(),
            epoch: Instant::now(),
            options,
            observer,
            computing: Arc::default(),
        });
        let worker = shared.clone();
        let thread = std::thread::Builder::new()
            .name("compute".into())
            .spawn(move || {
                // A model's panic is caught and answered. After any other, nobody would
                // compute the jobs that are still accepted.
                if catch_unwind(AssertUnwindSafe(|| worker.compute())).is_err() {
                    tracing::error!("the computing thread has panicked");
                    std::process::abort();
                }
            })?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Whether a batch is being computed.
    pub fn computing(&self) -> Arc<Computing> {
        self.shared.computing.clone()
    }
}

impl Executor for Scheduler {
    fn install(&self, name: &str, engine: Arc<Engine>) -> Result<(), EngineError> {
        let model = Model::prepare(name, engine, self.shared.options.max_batch)?;
        let mut state = self.shared.lock();
        let id = state.controller.add(model.costs.clone());
        state.models.insert(id, Arc::new(model));
        state.names.insert(name.to_owned(), id);
        Ok(())
    }

    fn remove(&self, name: &str) {
        self.shared.lock().names.remove(name);
        // The thread drops the model once its queue is empty.
        self.shared.wake.notify_one();
    }

    fn submit(&self, name: &str, job: Job) -> Result<Answering, Refusal> {
        self.shared.submit(name, job)
    }

    fn settle(&self, name: &str, sent: &Sent) {
        let mut state = self.shared.lock();
        if let Some(&model) = state.names.get(name) {
            let now = self.shared.seconds(sent.at);
            let delivery = sent.delivery.map(|time| time.as_secs_f64());
            state.controller.settle(now, model, sent.missed, delivery);
        }
    }

    fn waiting(&self, name: &str) -> usize {
        let state = self.shared.lock();
        let model = state.names.get(name);
        model.map_or(0, |&model| state.waiting(model))
    }

    fn close(&self) {
        self.shared.lock().closed = true;
        self.shared.wake.notify_one();
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        self.close();
        if let Some(thread) = self.thread.take() {
            // A panic was reported when it happened.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn submit(&self, name: &str, job: Job) -> Result<Answering, Refusal> {
        let mut state = self.lock();
        let &id = state.names.get(name).ok_or(Refusal::Unavailable)?;
        if state.closed {
            return Err(Refusal::Unavailable);
        }
        let model = state.models[&id].clone();
        model.assembler.check(&job)?;
        let demand = Demand {
            constraints: job.constraints,
            mode: job.mode,
        };
        let arrival = Instant::now();
        let now = self.seconds(arrival);
        let (deadline, due) = match job.deadline {
            Some(deadline) if arrival >= deadline && !job.late => return Err(Refusal::Expired),
            Some(deadline) => {
                let left = deadline.saturating_duration_since(arrival);
                let shortest = Duration::from_secs_f64(model.costs.alone(&demand, job.images));
                if left < shortest && !job.late {
                    let by = answered_by(&demand, &model);
                    return Err(Refusal::TooShort { by, left, shortest });
                }
                (deadline, Due::Deadline(left.as_secs_f64()))
            }
            None => {
                let objective = self.options.objective;
                (arrival + objective, Due::Objective(objective.as_secs_f64()))
            }
        };
        let grace = match job.late {
            true => f64::INFINITY,
            false => state.controller.grace(now, id, job.images, &demand, due),
        };
        let promised = (grace == 0.0).then_some(deadline);
        let (pending, answering) = Pending::new(job, model.engine.classes().len(), promised);
        let pending = Arc::new(pending);
        for piece in Pending::pieces(&pending, model.costs.max_batch()) {
            let request = Request {
                images: piece.images,
                deadline: self.seconds(deadline),
                grace,
                demand,
                tag: piece,
            };
            if let Err(refused) = state.controller.submit(now, id, request) {
                // Pieces of the job that were queued are removed.
                let others = |_, other: &Request<Piece>| !Arc::ptr_eq(&other.tag.pending, &pending);
                state.controller.retain(others);
                return Err(self.refusal(refused, &demand, &model, pending.job.deadline.is_some()));
            }
        }
        drop(state);
        self.wake.notify_one();
        Ok(answering)
    }

    fn refusal(
        &self,
        refused: Refused,
        demand: &Demand,
        model: &Model,
        own_deadline: bool,
    ) -> Refusal {
        let overloaded = |reason, seconds: f64, late| Refusal::Overloaded {
            reason,
            retry_after: Duration::from_secs_f64(seconds.clamp(1e-3, 60.0)),
            late,
        };
        match refused {
            Refused::Late { by } => {
                let limit = match own_deadline {
                    true => "deadline",
                    false => "server's objective",
                };
                let answer = answered_by(demand, model);
                let reason = format!("{answer} would answer after the {limit}");
                overloaded(reason.into(), by, true)
            }
            Refused::Full { until } => overloaded("the queue is full".into(), until, false),
            Refused::NoInstance => Refusal::NoInstance(
                "no instance of the model meets the request's constraints".into(),
            ),
        }
    }

    /// A time on the controller's clock.
    fn seconds(&self, time: Instant) -> f64 {
        match time.checked_duration_since(self.epoch) {
            Some(after) => after.as_secs_f64(),
            None => -self.epoch.duration_since(time).as_secs_f64(),
        }
    }

    /// Locks the state. It is valid even after a panic, because the controller decides
    /// before it changes anything.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn waiting(&self, model: ModelId) -> usize {
        let queue = self.controller.queue(model).iter();
        queue.map(|waiting| waiting.request.images).sum()
    }
}

/// What can answer most quickly.
fn answered_by(demand: &Demand, model: &Model) -> Cow<'static, str> {
    match (demand.mode, demand.constraints.instance) {
        (Mode::Combination(index), _) => model.engine.combinations()[index]
            .combination
            .to_string()
            .into(),
        (Mode::Instance, Some(instance)) => format!("instance {instance}").into(),
        (Mode::Instance, None) if *demand == Demand::ANY => "the cheapest instance".into(),
        (Mode::Instance, None) => "the cheapest instance that the request allows".into(),
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
