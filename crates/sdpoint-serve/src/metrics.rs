//! Counts and histograms for Prometheus.

mod outcome;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

pub use outcome::Outcome;

use crate::Reply;
use crate::recent::Recent;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfModel {
    model: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfOutcome {
    model: String,
    outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfInstance {
    model: String,
    instance: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfDeadline {
    model: String,
    met: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfLoad {
    model: String,
    result: &'static str,
}

type Histograms = Family<OfModel, Histogram, fn() -> Histogram>;
type Sum = Counter<f64, AtomicU64>;

/// From 0.1 ms to 26 s, two buckets for each doubling.
fn times() -> Histogram {
    Histogram::new(exponential_buckets(1e-4, std::f64::consts::SQRT_2, 37))
}

/// Powers of two.
fn sizes() -> Histogram {
    Histogram::new(exponential_buckets(1.0, 2.0, 9))
}

/// All metrics of a server.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<OfOutcome, Counter>,
    latency: Histograms,
    queue: Histograms,
    compute: Histograms,
    batches: Histograms,
    images: Family<OfInstance, Counter>,
    accuracy: Family<OfModel, Sum>,
    accurate: Family<OfModel, Counter>,
    deadlines: Family<OfDeadline, Counter>,
    loads: Family<OfLoad, Counter>,
    models_ready: Family<OfModel, Gauge>,
    /// Requests in progress.
    pub in_flight: Gauge,
    /// Open connections.
    pub connections: Gauge,
    /// Bytes of request bodies in memory.
    pub memory: Gauge,
    /// Requests without a valid token.
    pub unauthenticated: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("sdpoint"),
            requests: Family::default(),
            latency: Family::new_with_constructor(times),
            queue: Family::new_with_constructor(times),
            compute: Family::new_with_constructor(times),
            batches: Family::new_with_constructor(sizes),
            images: Family::default(),
            accuracy: Family::default(),
            accurate: Family::default(),
            deadlines: Family::default(),
            loads: Family::default(),
            models_ready: Family::default(),
            in_flight: Gauge::default(),
            connections: Gauge::default(),
            memory: Gauge::default(),
            unauthenticated: Counter::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let r = &mut self.registry;
        r.register(
            "requests",
            "Inference requests by outcome",
            self.requests.clone(),
        );
        r.register(
            "request_duration_seconds",
            "Time from a request's arrival to its answer, for answered requests",
            self.latency.clone(),
        );
        r.register(
            "queue_duration_seconds",
            "Time from a request's arrival to the start of its computation",
            self.queue.clone(),
        );
        r.register(
            "compute_duration_seconds",
            "Compute time of the batch that contained a request",
            self.compute.clone(),
        );
        r.register(
            "batch_images",
            "Images in the batch that contained a request",
            self.batches.clone(),
        );
        r.register("images", "Answered images by instance", self.images.clone());
        r.register(
            "recorded_accuracy",
            "Sum over images of the recorded accuracy of the instance that answered; divided by \
             sdpoint_rated_images_total, the mean",
            self.accuracy.clone(),
        );
        r.register(
            "rated_images",
            "Images answered by an instance with a recorded accuracy",
            self.accurate.clone(),
        );
        r.register(
            "deadlines",
            "Requests by whether they met their deadline; shed and expired ones did not",
            self.deadlines.clone(),
        );
        r.register(
            "model_loads",
            "Loads and reloads of models",
            self.loads.clone(),
        );
        r.register(
            "model_ready",
            "Whether a model is ready",
            self.models_ready.clone(),
        );
        r.register(
            "in_flight_requests",
            "Inference requests in progress",
            self.in_flight.clone(),
        );
        r.register(
            "open_connections",
            "Open connections",
            self.connections.clone(),
        );
        r.register(
            "request_memory_bytes",
            "Bytes of request bodies in memory",
            self.memory.clone(),
        );
        r.register(
            "unauthenticated_requests",
            "Requests without a valid token",
            self.unauthenticated.clone(),
        );
    }

    /// All metrics as text, in OpenMetrics' format.
    pub fn text(&self) -> String {
        let mut buffer = String::new();
        // Writing to a string cannot fail.
        let _ = text::encode(&mut buffer, &self.registry);
        buffer
    }

    /// The metrics of one model.
    pub fn model(&self, name: &str) -> Arc<ModelMetrics> {
        let of_model = OfModel { model: name.into() };
        let deadline = |met| {
            let labels = OfDeadline {
                model: name.into(),
                met,
            };
            self.deadlines.get_or_create_owned(&labels)
        };
        let load = |result| {
            let labels = OfLoad {
                model: name.into(),
                result,
            };
            self.loads.get_or_create_owned(&labels)
        };
        let outcome = |outcome| {
            let labels = OfOutcome {
                model: name.into(),
                outcome,
            };
            self.requests.get_or_create_owned(&labels)
        };
        Arc::new(ModelMetrics {
            name: name.into(),
            recent: Recent::default(),
            requests: Outcome::ALL.map(outcome),
            latency: self.latency.get_or_create_owned(&of_model),
            queue: self.queue.get_or_create_owned(&of_model),
            compute: self.compute.get_or_create_owned(&of_model),
            batches: self.batches.get_or_create_owned(&of_model),
            images: self.images.clone(),
            accuracy: self.accuracy.get_or_create_owned(&of_model),
            accurate: self.accurate.get_or_create_owned(&of_model),
            met: deadline("true"),
            missed: deadline("false"),
            loads: ["ok", "failed"].map(load),
            ready: self.models_ready.get_or_create_owned(&of_model),
        })
    }
}

/// The metrics of one model.
#[derive(Debug)]
pub struct ModelMetrics {
    name: String,
    recent: Recent,
    /// In the order of [`Outcome::ALL`].
    requests: [Counter; Outcome::ALL.len()],
    latency: Histogram,
    queue: Histogram,
    compute: Histogram,
    batches: Histogram,
    images: Family<OfInstance, Counter>,
    accuracy: Sum,
    accurate: Counter,
    met: Counter,
    missed: Counter,
    loads: [Counter; 2],
    ready: Gauge,
}

impl ModelMetrics {
    /// The model's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The requests of the last two minutes, by second.
    pub fn recent(&self) -> &Recent {
        &self.recent
    }

    /// Counts an answer that took `whole`.
    pub fn answered(&self, reply: &Reply, whole: Duration, met: bool) {
        self.count(Outcome::Answered);
        self.latency.observe(whole.as_secs_f64());
        self.queue.observe(reply.queued.as_secs_f64());
        self.compute.observe(reply.computed.as_secs_f64());
        self.batches.observe(reply.batch as f64);
        for (instance, images) in reply.answered_by() {
            let labels = OfInstance {
                model: self.name.clone(),
                instance,
            };
            self.images.get_or_create(&labels).inc_by(images as u64);
        }
        if let Some(accuracy) = reply.accuracy {
            self.accuracy
                .inc_by(accuracy * reply.instances.len() as f64);
            self.accurate.inc_by(reply.instances.len() as u64);
        }
        self.deadline(met);
        self.recent.answered(reply, whole, met);
    }

    /// Counts a request with some images that failed.
    pub fn failed(&self, outcome: Outcome, images: usize) {
        self.count(outcome);
        if matches!(outcome, Outcome::Shed | Outcome::Expired) {
            self.deadline(false);
            self.recent.refused(images);
        }
    }

    fn count(&self, outcome: Outcome) {
        let at = Outcome::ALL.iter().position(|&other| other == outcome);
        self.requests[at.expect("all outcomes are listed")].inc();
    }

    fn deadline(&self, met: bool) {
        if met { &self.met } else { &self.missed }.inc();
    }

    /// Counts an attempt to load the model.
    pub fn loaded(&self, ok: bool) {
        self.loads[usize::from(!ok)].inc();
    }

    /// Sets whether the model is ready.
    pub fn ready(&self, ready: bool) {
        self.ready.set(ready.into());
    }
}

#[cfg(test)]
mod tests {
    use sdpoint::Instance;

    use super::*;

    #[test]
    fn what_happens_is_counted() {
        let metrics = Metrics::default();
        let model = metrics.model("cats");
        let reply = Reply {
            logits: vec![],
            probabilities: vec![],
            instances: vec![Instance::Full; 3],
            ensemble: None,
            macs: 1,
            accuracy: Some(0.75),
            queued: Duration::from_millis(2),
            computed: Duration::from_millis(5),
            batch: 4,
            ended: std::time::Instant::now(),
            promised: None,
        };
        model.answered(&reply, Duration::from_millis(9), true);
        model.failed(Outcome::Shed, 1);
        model.failed(Outcome::Invalid, 0);
        model.loaded(true);
        model.ready(true);
        let text = metrics.text();
        for line in [
            "sdpoint_requests_total{model=\"cats\",outcome=\"answered\"} 1",
            "sdpoint_requests_total{model=\"cats\",outcome=\"shed\"} 1",
            "sdpoint_requests_total{model=\"cats\",outcome=\"failed\"} 0",
            "sdpoint_request_duration_seconds_count{model=\"cats\"} 1",
            "sdpoint_images_total{model=\"cats\",instance=\"full\"} 3",
            "sdpoint_recorded_accuracy_total{model=\"cats\"} 2.25",
            "sdpoint_rated_images_total{model=\"cats\"} 3",
            "sdpoint_deadlines_total{model=\"cats\",met=\"true\"} 1",
            "sdpoint_deadlines_total{model=\"cats\",met=\"false\"} 1",
            "sdpoint_model_loads_total{model=\"cats\",result=\"ok\"} 1",
            "sdpoint_model_ready{model=\"cats\"} 1",
        ] {
            assert!(
                text.lines().any(|other| other == line),
                "{line} is not in\n{text}"
            );
        }
        assert!(text.ends_with("# EOF\n"));
    }
}
