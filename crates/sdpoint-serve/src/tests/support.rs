//! A running server, and the plainest clients.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use sdpoint::{Context, Engine, EngineError};
use serde_json::Value;
use tokio::sync::oneshot;

use crate::net::token::Tokens;
use crate::server::{Addresses, Handle, Lost, Options, Server};
use crate::{Answering, Executor, Job, Limits, Metrics, Refusal, Registry, Reply, Sent, testing};

/// A server on ports of its own, which ends when it is dropped.
pub struct Running {
    pub addresses: Addresses,
    pub handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<(), Lost>>>,
}

/// How most tests want a server.
pub fn options() -> Options {
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    Options {
        rest: any,
        grpc: Some(any),
        metrics: Some(any),
        tokens: Tokens::default(),
        origins: Vec::new(),
        admin: false,
        objective: Duration::from_secs(10),
        drain: Duration::from_secs(20),
        limits: Limits::default(),
    }
}

/// The same with other limits.
pub fn limited(limits: Limits) -> Options {
    Options {
        limits,
        ..options()
    }
}

/// A server with the model `small`, which computes what it is asked.
pub fn start(options: Options) -> Running {
    let objective = Some(options.objective);
    start_with(options, Arc::new(testing::Direct::new(objective, 100_000)))
}

/// A server with the model `small` on another executor.
pub fn start_with(options: Options, executor: Arc<dyn Executor>) -> Running {
    let running = start_unloaded(options, executor, &[("small", testing::model_file())]);
    assert!(running.handle.registry().load_all().is_empty());
    running
}

/// A server whose models are not loaded yet.
pub fn start_unloaded(
    options: Options,
    executor: Arc<dyn Executor>,
    models: &[(&str, std::path::PathBuf)],
) -> Running {
    let metrics = Arc::new(Metrics::default());
    let context = Arc::new(Context::new(std::num::NonZeroUsize::new(1)).unwrap());
    let files = models
        .iter()
        .map(|(name, file)| ((*name).to_owned(), file.clone()));
    let registry = Registry::new(files, context, executor.clone(), &metrics).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let server = runtime
        .block_on(Server::bind(options, registry, executor, metrics))
        .unwrap();
    let (addresses, handle) = (server.addresses(), server.app());
    let (stop, stopped) = oneshot::channel();
    let thread = std::thread::spawn(move || {
        let outcome = runtime.block_on(server.run(async {
            let _ = stopped.await;
        }));
        runtime.shutdown_background();
        outcome
    });
    Running {
        addresses,
        handle,
        stop: Some(stop),
        thread: Some(thread),
    }
}

impl Running {
    /// Tells the server to end; requests that have begun are answered.
    pub fn stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }

    /// Waits until the server has ended.
    pub fn join(&mut self) -> Result<(), Lost> {
        self.stop();
        let thread = self.thread.take().expect("it is joined once");
        thread.join().unwrap()
    }

    /// A connection to REST.
    pub fn connect(&self) -> TcpStream {
        connect(self.addresses.rest)
    }

    pub fn get(&self, path: &str) -> Answer {
        exchange(&mut self.connect(), &request("GET", path, &[], b""))
    }

    pub fn post(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        exchange(&mut self.connect(), &request("POST", path, headers, body))
    }

    /// An inference request in JSON.
    pub fn infer(&self, body: &Value) -> Answer {
        self.post("/v2/models/small/infer", &[], body.to_string().as_bytes())
    }

    /// The page that Prometheus reads.
    pub fn metrics(&self) -> String {
        let mut stream = connect(self.addresses.metrics.unwrap());
        let answer = exchange(&mut stream, &request("GET", "/metrics", &[], b""));
        assert_eq!(answer.status, 200);
        String::from_utf8(answer.body).unwrap()
    }

    /// The value of a metric, with its labels as they are written.
    pub fn metric(&self, name: &str) -> f64 {
        let text = self.metrics();
        let mut lines = text.lines().filter_map(|line| line.rsplit_once(' '));
        let found = lines.find(|(key, _)| *key == name);
        found
            .unwrap_or_else(|| panic!("{name} is not in\n{text}"))
            .1
            .parse()
            .unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// An answer over HTTP.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(key, _)| key == name);
        found.next().map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("no JSON: {}", String::from_utf8_lossy(&self.body)))
    }

    /// The body as JSON, of a request that succeeded.
    #[track_caller]
    pub fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{}", String::from_utf8_lossy(&self.body));
        self.json()
    }

    /// The message of a request that failed with this status.
    #[track_caller]
    pub fn error(&self, status: u16) -> String {
        assert_eq!(
            self.status,
            status,
            "{}",
            String::from_utf8_lossy(&self.body)
        );
        assert_eq!(self.header("content-type"), Some("application/json"));
        self.json()["error"]
            .as_str()
            .expect("an error has a message")
            .to_owned()
    }
}

/// A request as bytes.
pub fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
    [text.as_bytes(), body].concat()
}

pub fn exchange(stream: &mut TcpStream, request: &[u8]) -> Answer {
    // A server that refuses a long body may close before all of it was sent.
    let _ = stream.write_all(request);
    read_answer(stream).expect("the server answers")
}

/// Reads one answer; none if the connection ends.
pub fn read_answer(stream: &mut TcpStream) -> Option<Answer> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return None,
        }
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.lines();
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length = length.map_or(0, |(_, length)| length.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some(Answer {
        status,
        headers,
        body,
    })
}

/// Pixels of one 32×32 image, another for each number.
pub fn pixels(number: usize) -> Vec<u8> {
    (0..32 * 32 * 3)
        .map(|at| (at * (number + 3) * 7919 / 1000 % 256) as u8)
        .collect()
}

/// A PNG of those pixels.
pub fn png(number: usize) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, 32, 32);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&pixels(number)).unwrap();
    writer.finish().unwrap();
    file
}

/// What the library computes for an image: logits of an instance.
pub fn logits(number: usize, instance: sdpoint::Instance) -> Vec<f32> {
    let engine = testing::engine();
    let inputs = engine.decode([png(number)]).unwrap();
    engine
        .run(&inputs, instance)
        .unwrap()
        .predictions
        .logits(0)
        .to_vec()
}

/// A request for one image as pixels, in JSON.
pub fn pixels_request(number: usize, parameters: Value) -> Value {
    serde_json::json!({
        "id": number.to_string(),
        "parameters": parameters,
        "inputs": [{"name": "pixels", "datatype": "UINT8", "shape": [1, 32, 32, 3],
                    "data": pixels(number)}],
    })
}

/// The numbers of an output in JSON.
#[track_caller]
pub fn output(answer: &Value, name: &str) -> Vec<f32> {
    let outputs = answer["outputs"].as_array().unwrap();
    let output = outputs
        .iter()
        .find(|output| output["name"] == name)
        .unwrap();
    let data = output["data"].as_array().unwrap();
    data.iter()
        .map(|value| value.as_f64().unwrap() as f32)
        .collect()
}

#[track_caller]
pub fn assert_close(actual: &[f32], expected: &[f32]) {
    assert_eq!(actual.len(), expected.len());
    for (a, b) in std::iter::zip(actual, expected) {
        assert!(
            (a - b).abs() <= 1e-5 * b.abs().max(1.0),
            "{actual:?} {expected:?}"
        );
    }
}

/// Waits until something is so.
#[track_caller]
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(30), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// An executor that keeps its jobs until the test answers them.
#[derive(Default)]
pub struct Held {
    pub jobs: Mutex<Vec<HeldJob>>,
    /// What the next jobs are refused with.
    pub refusal: Mutex<Option<Refusal>>,
    /// The answers that were sent.
    pub sent: Mutex<Vec<Sent>>,
}

pub struct HeldJob {
    pub job: Job,
    pub answer: oneshot::Sender<Result<Reply, Refusal>>,
}

impl Executor for Held {
    fn install(&self, _: &str, _: Arc<Engine>) -> Result<(), EngineError> {
        Ok(())
    }

    fn remove(&self, _: &str) {}

    fn submit(&self, _: &str, job: Job) -> Result<Answering, Refusal> {
        if let Some(refusal) = &*self.refusal.lock().unwrap_or_else(PoisonError::into_inner) {
            return Err(refusal.clone());
        }
        let (answer, answering) = oneshot::channel();
        self.jobs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(HeldJob { job, answer });
        Ok(answering)
    }

    fn settle(&self, _: &str, sent: &Sent) {
        let sent_before = self.sent.lock();
        sent_before
            .unwrap_or_else(PoisonError::into_inner)
            .push(*sent);
    }

    fn waiting(&self, _: &str) -> usize {
        self.count()
    }

    fn close(&self) {}
}

impl Held {
    pub fn count(&self) -> usize {
        self.jobs.lock().unwrap().len()
    }

    /// Answers all jobs, each with the instance `full` and made-up numbers.
    pub fn answer_all(&self) {
        for HeldJob { job, answer } in self.jobs.lock().unwrap().drain(..) {
            let _ = answer.send(Ok(Reply {
                logits: vec![0.5; 10 * job.images],
                probabilities: vec![0.1; 10 * job.images],
                instances: vec![sdpoint::Instance::Full; job.images],
                ensemble: None,
                macs: 1,
                accuracy: None,
                queued: Duration::ZERO,
                computed: Duration::ZERO,
                batch: job.images,
                ended: Instant::now(),
                promised: job.deadline.filter(|_| !job.late),
            }));
        }
    }
}
