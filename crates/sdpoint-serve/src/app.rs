//! What every protocol does with a request: find the model, check the request, decode
//! images, submit it, wait for the answer and count the outcome.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sdpoint::core::words::plural;
use tokio::sync::Semaphore;

use crate::clients::Clients;
use crate::decode::{Decoders, Patience};
use crate::delivery::Delivery;
use crate::limits::Limits;
use crate::memory::{Memory, Reservation};
use crate::metrics::{Metrics, ModelMetrics, Outcome};
use crate::models::{Model, ModelError, Registry, State, UNLOADED, without_path};
use crate::protocol::answer::{Answer, OutputPlan};
use crate::protocol::error::{ApiError, Kind, quoted};
use crate::protocol::images::{RequestImages, images};
use crate::protocol::parameters::Parameters;
use crate::protocol::request::InferRequest;
use crate::protocol::terms::Terms;
use crate::statistics::Statistics;
use crate::{Executor, Input, Job, Refusal, Reply};

/// The one version that every model has.
pub const VERSION: &str = "1";

/// The state of the server, without its connections.
pub struct App {
    /// The models.
    pub registry: Registry,
    /// Whether clients may load and unload models.
    pub admin: bool,
    /// Limits on requests.
    pub limits: Limits,
    /// Counts for Prometheus.
    pub metrics: Arc<Metrics>,
    /// Bytes of requests.
    pub memory: Arc<Memory>,
    /// The turns to parse and decompress long bodies.
    pub parsers: Semaphore,
    /// The time that a request without a deadline has once it was received and decoded.
    pub objective: Duration,
    executor: Arc<dyn Executor>,
    decoders: Decoders,
    clients: Arc<Clients>,
    stopping: AtomicBool,
}

/// Where and when a request arrived. Every HTTP request has one in its extensions.
#[derive(Clone, Debug)]
pub struct Call {
    /// The client's address.
    pub client: IpAddr,
    /// When its header was read.
    pub arrival: Instant,
    /// The deadline of the protocol itself (`grpc-timeout`), after which nobody waits.
    pub deadline: Option<Instant>,
    /// The memory that its body uses.
    pub memory: Arc<Reservation>,
    /// Whether its answer is sent in time.
    pub delivery: Arc<Delivery>,
}

/// The images of a request, and the form of the answer.
pub struct Question {
    /// The images.
    pub images: RequestImages,
    /// The number of images.
    pub count: usize,
    /// The request's parameters.
    pub parameters: Parameters,
    /// The outputs to return.
    pub plans: Vec<OutputPlan>,
    /// The request's id.
    pub id: Option<String>,
}

impl App {
    /// Creates the state of a server. Requests without a deadline get `objective`.
    pub fn new(
        registry: Registry,
        executor: Arc<dyn Executor>,
        metrics: Arc<Metrics>,
        limits: Limits,
        objective: Duration,
        admin: bool,
    ) -> Self {
        Self {
            registry,
            admin,
            metrics,
            memory: Memory::new(limits.memory),
            parsers: Semaphore::new(limits.parsers.max(1)),
            executor,
            decoders: Decoders::new(&limits),
            clients: Arc::default(),
            limits,
            objective,
            stopping: AtomicBool::new(false),
        }
    }

    /// Whether all models are loaded and the server is not shutting down.
    pub fn ready(&self) -> bool {
        !self.stopping.load(Ordering::Relaxed) && self.registry.ready()
    }

    /// Marks the server as not ready; requests are still answered.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// The number of images that are queued for a model.
    pub fn waiting(&self, model: &Model) -> usize {
        self.executor.waiting(model.installed.key())
    }

    /// Closes the executor, once no request is left.
    pub fn close(&self) {
        self.executor.close();
    }

    /// The model with a name and version.
    ///
    /// # Errors
    /// If there is no such model, or it is not ready.
    pub fn model(&self, name: &str, version: Option<&str>) -> Result<Arc<Model>, ApiError> {
        let state = self.registry.state(name)?;
        if version.is_some_and(|version| !version.is_empty() && version != VERSION) {
            return Err(ApiError::new(
                Kind::NotFound,
                format!(
                    "model '{name}' has version {VERSION}, not {}",
                    quoted(version.unwrap_or_default())
                ),
            ));
        }
        match state {
            State::Ready(model) => Ok(model),
            State::Loading => Err(ApiError::new(
                Kind::Unavailable,
                format!("model '{name}' is being loaded"),
            )),
            State::Unloaded => Err(unavailable(name, UNLOADED)),
            State::Unavailable(reason) => Err(unavailable(name, &reason)),
        }
    }

    /// Answers an inference request, once it has arrived. With it comes the form of outputs for
    /// which it does not choose one: whether they are binary.
    ///
    /// # Errors
    /// If the request does not arrive, is invalid, refused, or not answered in time.
    pub async fn infer(
        &self,
        call: &Call,
        name: &str,
        version: Option<&str>,
        request: impl Future<Output = Result<(InferRequest, bool), ApiError>>,
    ) -> Result<Answer, ApiError> {
        self.tracked(call, name, async |tracked| {
            let (request, binary) = request.await?;
            let model = self.model(name, version)?;
            let binary = match request.parameters.get("binary_data_output") {
                Some(value) => value.truth("binary_data_output")?,
                None => binary,
            };
            let plans = OutputPlan::read(&request.outputs, binary)?;
            let most = self.limits.images;
            let (images, count) = images(request.inputs, &model.signature, most)?;
            let question = Question {
                images,
                count,
                parameters: request.parameters,
                plans,
                id: request.id,
            };
            self.answer(call, model, question, tracked).await
        })
        .await
    }

    /// Answers a request that another protocol has parsed.
    ///
    /// # Errors
    /// As for [`App::infer`].
    pub async fn ask(
        &self,
        call: &Call,
        name: &str,
        question: Question,
    ) -> Result<Answer, ApiError> {
        self.tracked(call, name, async |tracked| {
            let model = self.model(name, None)?;
            self.answer(call, model, question, tracked).await
        })
        .await
    }

    /// Loads or reloads a model on behalf of a client.
    ///
    /// # Errors
    /// If model control is off, no model has this name, or it cannot be loaded.
    pub async fn load(self: &Arc<Self>, name: &str) -> Result<(), ApiError> {
        self.change(name, Registry::load).await
    }

    /// Unloads a model on behalf of a client.
    ///
    /// # Errors
    /// If model control is off, or no model has this name.
    pub async fn unload(self: &Arc<Self>, name: &str) -> Result<(), ApiError> {
        self.change(name, Registry::unload).await
    }

    async fn change(
        self: &Arc<Self>,
        name: &str,
        change: fn(&Registry, &str) -> Result<(), ModelError>,
    ) -> Result<(), ApiError> {
        if !self.admin {
            return Err(ApiError::new(
                Kind::Forbidden,
                "model control is off; start the server with --admin",
            ));
        }
        let (app, name) = (self.clone(), name.to_owned());
        let work = tokio::task::spawn_blocking(move || change(&app.registry, &name));
        let done = work.await;
        done.map_err(|_| ApiError::new(Kind::Internal, "loading the model failed"))??;
        Ok(())
    }

    /// Runs a request and counts its outcome, also if the future is dropped.
    async fn tracked(
        &self,
        call: &Call,
        name: &str,
        run: impl AsyncFnOnce(&mut Tracked) -> Result<Answer, ApiError>,
    ) -> Result<Answer, ApiError> {
        let mut tracked = Tracked {
            arrival: call.arrival,
            metrics: self.registry.metrics(name)?,
            statistics: self.registry.statistics(name)?,
            server: self.metrics.clone(),
            deadline: None,
            submitted: call.arrival,
            images: 0,
            finished: false,
        };
        self.metrics.in_flight.inc();
        let result = run(&mut tracked).await;
        match &result {
            Ok(answer) => tracked.answered(&answer.reply),
            Err(error) => tracked.failed(Outcome::of(error.kind)),
        }
        result
    }

    async fn answer(
        &self,
        call: &Call,
        model: Arc<Model>,
        question: Question,
        tracked: &mut Tracked,
    ) -> Result<Answer, ApiError> {
        let Question {
            images,
            count,
            parameters,
            plans,
            id,
        } = question;
        let terms = Terms::new(&parameters, &model.engine, call.arrival, call.deadline)?;
        tracked.deadline = terms.deadline;
        let own = terms.deadline.filter(|_| !terms.late);
        let end = call.deadline.into_iter().chain(own).min();
        tracked.images = count;
        let most = self.limits.per_client;
        let share = self.clients.take(call.client, count, most);
        let _share = share.map_err(|used| {
            let used = plural(used, "image", "images");
            ApiError::new(
                Kind::Quota,
                format!("this client has {used} in flight; the limit is {most}"),
            )
        })?;
        let input = match images {
            RequestImages::Planes(values) => Input::Planes(values),
            RequestImages::Pixels(pixels) => Input::Pixels(pixels),
            RequestImages::Encoded(files) => {
                let patience = match (terms.late, own) {
                    (true, _) => Patience::Endless,
                    (false, Some(deadline)) => Patience::Until(deadline),
                    (false, None) => Patience::While(Instant::now() + self.objective),
                };
                call.memory.add(model.prepared_bytes(count))?;
                let work = self.decoders.decode(files, model.clone(), patience);
                Input::Prepared(within(end, work).await??)
            }
        };
        let job = Job {
            input,
            images: count,
            arrival: call.arrival,
            deadline: terms.deadline,
            late: terms.late,
            constraints: terms.constraints,
            mode: terms.mode,
        };
        tracked.submitted = Instant::now();
        let due = tracked.submitted + self.objective;
        tracked.deadline.get_or_insert(due);
        let answering = self.executor.submit(model.installed.key(), job)?;
        let reply = within(end, answering).await.and_then(|reply| {
            // The sender is only dropped without an answer when the executor closes.
            Ok(reply.unwrap_or(Err(Refusal::Unavailable))?)
        });
        let dropped = |error: &ApiError| matches!(error.kind, Kind::Expired | Kind::Overloaded);
        if !terms.late && reply.as_ref().err().is_none_or(dropped) {
            let answer = reply.as_ref().ok();
            call.delivery.expect(&self.executor, &model, answer);
        }
        let reply = reply?;
        Ok(Answer {
            model,
            id,
            plans,
            reply,
        })
    }
}

fn unavailable(name: &str, reason: &str) -> ApiError {
    ApiError::new(
        Kind::Unavailable,
        format!("model '{name}' is not available: {reason}"),
    )
}

/// Waits until a deadline of the client's own, after which it does not want the answer any more.
async fn within<T>(end: Option<Instant>, work: impl Future<Output = T>) -> Result<T, ApiError> {
    match end {
        None => Ok(work.await),
        Some(end) => tokio::time::timeout_at(end.into(), work)
            .await
            .map_err(|_| ApiError::expired()),
    }
}

impl From<ModelError> for ApiError {
    fn from(error: ModelError) -> Self {
        let kind = match &error {
            ModelError::Unknown(_) => Kind::NotFound,
            ModelError::Load { name, file, source } => {
                let reason = without_path(source, file);
                let message = format!("model '{name}' cannot be loaded: {reason}");
                return Self::new(Kind::Internal, message);
            }
            ModelError::Name(_) | ModelError::Twice { .. } => Kind::Invalid,
        };
        Self::new(kind, error.to_string())
    }
}

/// Counts the outcome of a request.
struct Tracked {
    arrival: Instant,
    /// Its own, or else that of the objective, from when it is submitted.
    deadline: Option<Instant>,
    /// When it was submitted to the executor.
    submitted: Instant,
    metrics: Arc<ModelMetrics>,
    statistics: Arc<Statistics>,
    server: Arc<Metrics>,
    /// The number of images, once the request is known to be valid.
    images: usize,
    finished: bool,
}

impl Tracked {
    fn answered(&mut self, reply: &Reply) {
        let now = Instant::now();
        let whole = now.duration_since(self.arrival);
        let input = self.submitted.duration_since(self.arrival);
        let met = self.deadline.is_none_or(|deadline| now <= deadline);
        tracing::debug!(
            model = self.metrics.name(),
            instance = %reply.instances.first().map_or(String::new(), ToString::to_string),
            images = reply.instances.len(),
            batch = reply.batch,
            queue_us = reply.queued.as_micros() as u64,
            compute_us = reply.computed.as_micros() as u64,
            whole_us = whole.as_micros() as u64,
            met,
            "answered"
        );
        self.metrics.answered(reply, whole, met);
        self.statistics.answered(reply, input, whole);
        self.finished = true;
    }

    fn failed(&mut self, outcome: Outcome) {
        let whole_us = self.arrival.elapsed().as_micros() as u64;
        tracing::debug!(
            model = self.metrics.name(),
            whole_us,
            outcome = outcome.name(),
            "not answered"
        );
        self.metrics.failed(outcome, self.images);
        self.statistics.failed(self.arrival.elapsed());
        self.finished = true;
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        if !self.finished {
            self.failed(Outcome::Cancelled);
        }
        self.server.in_flight.dec();
    }
}
