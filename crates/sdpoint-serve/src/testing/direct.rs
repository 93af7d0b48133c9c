//! An executor that runs one job after the other, in order of arrival.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sdpoint::AnsweredBy;
use sdpoint::core::Record;
use sdpoint::{Answer, Engine, EngineError, Images, Instance, RunError};
use tokio::sync::oneshot;

use crate::{Answering, Constraints, Executor, Input, Job, Mode, Refusal, Reply};

/// Runs each job on its own, in the most accurate instance that it allows or that meets
/// its deadline, whatever the load. A job whose deadline has passed is dropped when its
/// turn comes.
#[derive(Debug)]
pub struct Direct {
    engines: Mutex<HashMap<String, Arc<Engine>>>,
    jobs: Mutex<Option<SyncSender<Task>>>,
    objective: Option<Duration>,
}

struct Task {
    engine: Arc<Engine>,
    job: Job,
    answer: oneshot::Sender<Result<Reply, Refusal>>,
}

impl Direct {
    /// Creates an executor with a default objective and a queue of at most `most` jobs.
    ///
    /// # Panics
    /// If the operating system starts no thread.
    pub fn new(objective: Option<Duration>, most: usize) -> Self {
        let (sender, receiver) = sync_channel(most);
        std::thread::Builder::new()
            .name("compute".into())
            .spawn(move || work(&receiver))
            .expect("a thread can be started");
        Self {
            engines: Mutex::default(),
            jobs: Mutex::new(Some(sender)),
            objective,
        }
    }
}

impl Executor for Direct {
    fn install(&self, name: &str, engine: Arc<Engine>) -> Result<(), EngineError> {
        engine.warm_up(1)?;
        lock(&self.engines).insert(name.to_owned(), engine);
        Ok(())
    }

    fn remove(&self, name: &str) {
        lock(&self.engines).remove(name);
    }

    fn submit(&self, name: &str, mut job: Job) -> Result<Answering, Refusal> {
        let engine = lock(&self.engines)
            .get(name)
            .cloned()
            .ok_or(Refusal::Unavailable)?;
        let objective = self.objective.map(|objective| job.arrival + objective);
        job.deadline = job.deadline.or(objective);
        let (answer, answering) = oneshot::channel();
        let jobs = lock(&self.jobs);
        let task = Task {
            engine,
            job,
            answer,
        };
        match jobs.as_ref().ok_or(Refusal::Unavailable)?.try_send(task) {
            Ok(()) => Ok(answering),
            Err(TrySendError::Full(_)) => Err(Refusal::Overloaded {
                reason: "the queue is full".into(),
                late: false,
                retry_after: Duration::from_millis(100),
            }),
            Err(TrySendError::Disconnected(_)) => Err(Refusal::Unavailable),
        }
    }

    fn waiting(&self, _: &str) -> usize {
        0
    }

    fn close(&self) {
        lock(&self.jobs).take();
    }
}

fn work(tasks: &Receiver<Task>) {
    for Task {
        engine,
        job,
        answer,
    } in tasks
    {
        if answer.is_closed() {
            continue;
        }
        let late = job
            .deadline
            .is_some_and(|deadline| deadline <= Instant::now());
        let result = if late && !job.late {
            Err(Refusal::Expired)
        } else {
            run(&engine, &job).map_err(|error| Refusal::Failed(error.to_string()))
        };
        // Fails if the caller has gone.
        let _ = answer.send(result);
    }
}

fn run(engine: &Engine, job: &Job) -> Result<Reply, RunError> {
    let start = Instant::now();
    let data = nhwc(engine, job);
    let images = Images {
        data: &data,
        batch: job.images,
        size: engine.preprocessing().size,
    };
    let answer = match job.mode {
        Mode::Combination(index) => {
            engine.run_combination(images, &engine.combinations()[index].combination)?
        }
        Mode::Instance => match job.deadline {
            Some(deadline) if job.constraints == Constraints::default() => {
                engine.run_by(images, deadline)?
            }
            _ => engine.run(images, best(engine, job))?,
        },
    };
    Ok(reply(engine, job, &answer, start))
}

fn reply(engine: &Engine, job: &Job, answer: &Answer, start: Instant) -> Reply {
    let predictions = &answer.predictions;
    let mut logits = Vec::with_capacity(job.images * engine.classes().len());
    let mut probabilities = Vec::with_capacity(logits.capacity());
    for image in 0..predictions.len() {
        logits.extend(predictions.logits(image));
        probabilities.extend(predictions.probabilities(image));
    }
    let images = 0..predictions.len();
    let instances: Vec<Instance> = images.map(|i| answer.instances.image(i)[0]).collect();
    let accuracy = match job.mode {
        Mode::Instance => engine.record(instances[0]).and_then(|record| record.top1),
        Mode::Combination(index) => Some(engine.combinations()[index].top1),
    };
    Reply {
        logits,
        probabilities,
        ensemble: matches!(answer.instances, AnsweredBy::Ensemble(_))
            .then(|| answer.instances.to_string()),
        instances,
        macs: answer.macs.round() as u64,
        accuracy,
        queued: start.duration_since(job.arrival),
        computed: start.elapsed(),
        batch: job.images,
        ended: Instant::now(),
        promised: job.deadline.filter(|_| !job.late),
    }
}

/// The most accurate instance that a job allows; the costliest where none was measured.
fn best(engine: &Engine, job: &Job) -> Instance {
    let allowed = engine
        .records()
        .iter()
        .filter(|record| job.constraints.allow(record));
    let worth = |record: &&Record| (record.top1.unwrap_or(0.0), record.macs);
    let best = allowed.max_by(|a, b| worth(a).partial_cmp(&worth(b)).expect("numbers"));
    best.map_or(Instance::Full, |record| record.instance)
}

/// The images of a job as the engine takes them.
fn nhwc(engine: &Engine, job: &Job) -> Vec<f32> {
    let preprocessing = engine.preprocessing();
    let [height, width] = preprocessing.size;
    let channels = preprocessing.mean.len();
    match &job.input {
        Input::Prepared(values) => values.clone(),
        Input::Pixels(pixels) => {
            let value = |(at, &pixel): (usize, &u8)| {
                let channel = at % channels;
                (f32::from(pixel) / 255.0 - preprocessing.mean[channel])
                    / preprocessing.std[channel]
            };
            pixels.iter().enumerate().map(value).collect()
        }
        Input::Planes(planes) => {
            let (planes, _) = planes.as_chunks::<4>();
            let mut values = vec![0.0; planes.len()];
            let area = height * width;
            for (image, plane) in planes.chunks_exact(area * channels).enumerate() {
                for (at, &value) in plane.iter().enumerate() {
                    let (channel, cell) = (at / area, at % area);
                    values[(image * area + cell) * channels + channel] = f32::from_le_bytes(value);
                }
            }
            values
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
