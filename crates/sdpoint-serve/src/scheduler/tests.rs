//! The scheduler on a small network with random weights.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use chacha20::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use sdpoint::core::{
    BlendedCascade, Cascade, Combination, CombinedRecord, EvalTransform, Preprocessing, Ratio,
    Stage, TrainTransform,
};
use sdpoint::engine::initial_weights;
use sdpoint::{Context, Images, Instance, zoo};

use super::*;
use crate::{Constraints, Input, Mode, Reply};

const SIZE: [usize; 2] = [16, 16];
const AREA: usize = SIZE[0] * SIZE[1];
const MINUTE: Duration = Duration::from_secs(60);

/// A model of ten classes whose recorded accuracies rise with the cost.
fn engine(seed: u64) -> Arc<Engine> {
    let network = zoo::build("preresnet8", 10).unwrap();
    let instances = network.instances(&Ratio::DEFAULT);
    let weights = initial_weights(&network, seed);
    let preprocessing = Preprocessing {
        train: TrainTransform::None,
        evaluate: EvalTransform::Resize,
        ..Preprocessing::new(SIZE, vec![0.5, 0.4, 0.3], vec![0.25; 3])
    };
    let mut model = sdpoint::Model::new(network, weights, preprocessing, &instances).unwrap();
    for record in &mut model.instances {
        let ratio = record.instance.ratio().map_or(1.0, Ratio::value);
        record.top1 = Some(0.5 + 0.01 * ratio + record.macs as f64 * 1e-8);
    }
    model.combinations = combinations(&instances);
    let context = Context::new(std::num::NonZeroUsize::new(1)).unwrap();
    Arc::new(Engine::new(Arc::new(context), model).unwrap())
}

/// A cascade, one with another threshold, and one that averages.
fn combinations(instances: &[Instance]) -> Vec<CombinedRecord> {
    let cascade = |first, threshold| {
        Combination::Cascade(Cascade {
            first,
            second: Instance::Full,
            threshold,
        })
    };
    let stage = |name: &str, weight: f64| Stage {
        instance: name.parse().unwrap(),
        temperature: 1.5,
        weight,
        margin: 0.02,
    };
    let blended = BlendedCascade {
        first: stage("0@0.5", 1.0),
        second: stage("1@0.75", 0.5),
        third: Some(stage("full", 0.75)),
    };
    let all = [
        cascade(instances[1], 0.2),
        cascade("0@0.5".parse().unwrap(), 0.11),
        Combination::BlendedCascade(blended),
    ];
    let record = |(index, combination)| CombinedRecord {
        combination,
        macs: 1000,
        top1: 0.5 + 0.1 * index as f64,
        top5: 1.0,
        loss: 1.0,
        test: None,
    };
    all.into_iter().enumerate().map(record).collect()
}

fn scheduler(engine: &Arc<Engine>, options: SchedulerOptions) -> Scheduler {
    let scheduler = Scheduler::start(options).unwrap();
    scheduler.install("model", engine.clone()).unwrap();
    scheduler
}

fn patient() -> SchedulerOptions {
    SchedulerOptions {
        objective: MINUTE,
        max_batch: 4,
        ..SchedulerOptions::default()
    }
}

fn pixels(images: usize, seed: u64) -> Vec<u8> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..images * AREA * 3).map(|_| rng.random()).collect()
}

/// The pixels as the engine takes them.
fn prepared(pixels: &[u8]) -> Vec<f32> {
    let mean = [0.5, 0.4, 0.3];
    let values = pixels.iter().enumerate();
    values
        .map(|(at, &byte)| (f32::from(byte) / 255.0 - mean[at % 3]) / 0.25)
        .collect()
}

/// The values channel by channel, as a request has them.
fn planes(prepared: &[f32]) -> Bytes {
    let images = prepared.chunks_exact(3 * AREA);
    let plane = |image: &[f32], channel: usize| -> Vec<f32> {
        image.iter().skip(channel).step_by(3).copied().collect()
    };
    images
        .flat_map(|image| (0..3).flat_map(move |channel| plane(image, channel)))
        .flat_map(f32::to_le_bytes)
        .collect()
}

fn job(input: Input, images: usize) -> Job {
    Job {
        input,
        images,
        arrival: Instant::now(),
        deadline: None,
        late: false,
        constraints: Constraints::default(),
        mode: Mode::Instance,
    }
}

fn simple() -> Job {
    job(Input::Pixels(pixels(1, 0).into()), 1)
}

/// Whether a reply has the logits that the engine gives for the images, in the
/// instances that it says.
fn assert_true(reply: &Reply, engine: &Engine, values: &[f32]) {
    for (image, values) in values.chunks_exact(3 * AREA).enumerate() {
        let images = Images {
            data: values,
            batch: 1,
            size: SIZE,
        };
        let alone = engine
            .run(images, reply.instances[image])
            .unwrap()
            .predictions;
        let row = image * 10..(image + 1) * 10;
        let largest = alone.logits(0).iter().fold(0.0f32, |a, b| a.max(b.abs()));
        for (a, b) in std::iter::zip(alone.logits(0), &reply.logits[row.clone()]) {
            assert!((a - b).abs() <= 1e-4 * largest, "{a} and {b}");
        }
        let sum: f32 = reply.probabilities[row].iter().sum();
        assert!((sum - 1.0).abs() < 1e-4, "{sum}");
    }
}

#[test]
fn every_caller_gets_the_answer_to_its_own_images() {
    let engine = engine(1);
    let scheduler = scheduler(&engine, patient());
    let instances: Vec<Instance> = engine.records().iter().map(|r| r.instance).collect();
    std::thread::scope(|scope| {
        for caller in 0..4 {
            let (engine, scheduler, instances) = (&engine, &scheduler, &instances);
            scope.spawn(move || {
                let mut rng = ChaCha8Rng::seed_from_u64(caller);
                let mut open = Vec::new();
                for number in 0..80 {
                    let images = rng.random_range(1..=6);
                    let bytes = pixels(images, caller * 1000 + number);
                    let values = prepared(&bytes);
                    let input = match number % 3 {
                        0 => Input::Pixels(bytes.into()),
                        1 => Input::Prepared(values.clone()),
                        _ => Input::Planes(planes(&values)),
                    };
                    let mut job = job(input, images);
                    let picked = instances[rng.random_range(0..instances.len())];
                    match rng.random_range(0..4) {
                        0 => job.constraints.instance = Some(picked),
                        1 => job.constraints.min_accuracy = engine.record(picked).unwrap().top1,
                        2 => job.mode = Mode::Combination(0),
                        _ => {}
                    }
                    let constraints = job.constraints;
                    let answering = scheduler.submit("model", job).unwrap();
                    // Some callers go away.
                    if rng.random_bool(0.1) {
                        continue;
                    }
                    open.push((answering, values, constraints));
                    if open.len() > 20 {
                        check(open.drain(..10), engine);
                    }
                }
                check(open.drain(..), engine);
            });
        }
    });

    fn check(open: impl Iterator<Item = (Answering, Vec<f32>, Constraints)>, engine: &Engine) {
        for (answering, values, constraints) in open {
            let reply = answering.blocking_recv().unwrap().unwrap();
            assert_true(&reply, engine, &values);
            let allowed = |&i: &Instance| constraints.allow(engine.record(i).unwrap());
            assert!(reply.instances.iter().all(allowed), "{reply:?}");
        }
    }
}

#[test]
fn a_reply_has_its_cost() {
    let engine = engine(1);
    let scheduler = scheduler(&engine, patient());
    let reply = scheduler.submit("model", simple()).unwrap();
    let reply = reply.blocking_recv().unwrap().unwrap();
    assert_eq!(reply.instances, [Instance::Full]);
    let record = engine.record(Instance::Full).unwrap();
    assert_eq!((reply.macs, reply.accuracy), (record.macs, record.top1));
    assert!(reply.computed > Duration::ZERO && reply.computed < MINUTE);
    assert_eq!(reply.batch, 1);
}

#[test]
fn a_job_larger_than_a_batch_is_answered_as_one() {
    let engine = engine(1);
    let scheduler = scheduler(&engine, patient());
    let bytes = pixels(11, 3);
    let values = prepared(&bytes);
    let answering = scheduler
        .submit("model", job(Input::Pixels(bytes.into()), 11))
        .unwrap();
    let reply = answering.blocking_recv().unwrap().unwrap();
    assert_eq!((reply.instances.len(), reply.logits.len()), (11, 110));
    assert_true(&reply, &engine, &values);
}

#[test]
fn a_cascade_answers_image_by_image() {
    let engine = engine(1);
    let scheduler = scheduler(&engine, patient());
    let bytes = pixels(4, 5);
    let values = prepared(&bytes);
    let images = Images {
        data: &values,
        batch: 4,
        size: SIZE,
    };
    let Combination::Cascade(cascade) = engine.combinations()[1].combination else {
        panic!("it is a cascade")
    };
    let expected = engine.run_cascade(images, &cascade).unwrap();
    let mut job = job(Input::Pixels(bytes.into()), 4);
    job.mode = Mode::Combination(1);
    let reply = scheduler
        .submit("model", job)
        .unwrap()
        .blocking_recv()
        .unwrap()
        .unwrap();
    let expected_instances = (0..4).map(|image| expected.instances.image(image)[0]);
    assert!(reply.instances.iter().copied().eq(expected_instances));
    assert_eq!(reply.macs, expected.macs.round() as u64);
    assert_eq!(reply.accuracy, Some(0.6));
}

#[test]
fn a_blended_cascade_answers_with_averages() {
    let engine = engine(1);
    let scheduler = scheduler(&engine, patient());
    let bytes = pixels(4, 5);
    let values = prepared(&bytes);
    let images = Images {
        data: &values,
        batch: 4,
        size: SIZE,
    };
    let Combination::BlendedCascade(cascade) = engine.combinations()[2].combination else {
        panic!("it is a cascade that averages")
    };
    let expected = engine.run_blended_cascade(images, &cascade).unwrap();
    let mut job = job(Input::Pixels(bytes.into()), 4);
    job.mode = Mode::Combination(2);
    let reply = scheduler
        .submit("model", job)
        .unwrap()
        .blocking_recv()
        .unwrap()
        .unwrap();
    let classes = reply.logits.len() / 4;
    for (image, logits) in reply.logits.chunks(classes).enumerate() {
        for (a, b) in std::iter::zip(logits, expected.predictions.logits(image)) {
            assert!((a - b).abs() < 1e-5, "{a} {b}");
        }
        assert_eq!([reply.instances[image]], expected.instances.image(image));
    }
    assert_eq!(reply.macs, expected.macs.round() as u64);
}

#[derive(Default)]
struct Counter {
    computed: AtomicUsize,
    gone: AtomicUsize,
}

impl Observer for Counter {
    fn batch(&self, _: &str, report: &BatchReport) {
        self.computed.fetch_add(report.images, Ordering::Relaxed);
    }

    fn dropped(&self, _: &str, images: usize, why: Dropped) {
        assert_eq!(why, Dropped::Gone);
        self.gone.fetch_add(images, Ordering::Relaxed);
    }
}

#[test]
fn cancelled_jobs_are_not_computed() {
    let engine = engine(1);
    let counter = Arc::new(Counter::default());
    let options = SchedulerOptions {
        objective: 60 * MINUTE,
        ..patient()
    };
    let scheduler = Scheduler::observed(options, counter.clone()).unwrap();
    scheduler.install("model", engine.clone()).unwrap();
    let answers: Vec<Answering> = (0..2000)
        .map(|_| scheduler.submit("model", simple()).unwrap())
        .collect();
    drop(answers);
    let last = scheduler.submit("model", simple()).unwrap();
    assert!(last.blocking_recv().unwrap().is_ok());
    let (computed, gone) = (&counter.computed, &counter.gone);
    drop(scheduler);
    let [computed, gone] = [computed, gone].map(|n| n.load(Ordering::Relaxed));
    assert!(gone > 0, "{computed} computed");
    // A batch may be computed, or abandoned, for callers that have just gone.
    assert!(
        (2001..=2001 + 8).contains(&(computed + gone)),
        "{computed} and {gone}"
    );
}

#[test]
fn hopeless_jobs_are_refused_quickly() {
    let engine = engine(1);
    let scheduler = scheduler(&engine, patient());
    let mut past = simple();
    past.deadline = Some(past.arrival);
    assert!(matches!(
        scheduler.submit("model", past),
        Err(Refusal::Expired)
    ));
    let mut answers = Vec::new();
    let mut refused = 0;
    for _ in 0..3000 {
        let mut soon = simple();
        let start = soon.arrival;
        soon.deadline = Some(start + Duration::from_millis(5));
        match scheduler.submit("model", soon) {
            Ok(answering) => answers.push(answering),
            Err(Refusal::Overloaded { retry_after, .. }) => {
                assert!(retry_after > Duration::ZERO && start.elapsed() < MINUTE);
                refused += 1;
            }
            // The test itself was kept waiting.
            Err(Refusal::Expired | Refusal::TooShort { .. }) => {}
            Err(other) => panic!("{other:?}"),
        }
    }
    assert!(refused > 0 && !answers.is_empty());
    for answering in answers {
        match answering.blocking_recv().unwrap() {
            Ok(_) | Err(Refusal::Expired | Refusal::Overloaded { .. }) => {}
            Err(other) => panic!("{other:?}"),
        }
    }
}

#[test]
fn deadlines_that_no_machine_could_meet_are_named() {
    let engine = engine(1);
    let scheduler = scheduler(&engine, patient());
    let refused = |job: Job| {
        let deadline = Some(Instant::now() + Duration::from_micros(1));
        let job = Job { deadline, ..job };
        match scheduler.submit("model", job) {
            Err(Refusal::TooShort { by, left, shortest }) => {
                assert!(left < shortest);
                (by, shortest)
            }
            // The test was interrupted for longer than that.
            Err(Refusal::Expired) => ("".into(), Duration::ZERO),
            other => panic!("{other:?}"),
        }
    };
    let named = |change: fn(&mut Job)| {
        let attempt = || {
            let mut job = simple();
            change(&mut job);
            refused(job)
        };
        let mut attempts = std::iter::repeat_with(attempt);
        attempts.find(|(by, _)| !by.is_empty()).unwrap()
    };
    let (by, cheapest) = named(|_| {});
    assert_eq!(by, "the cheapest instance");
    let (by, full) = named(|job| job.constraints.instance = Some(Instance::Full));
    assert_eq!(by, "instance full");
    assert!(full >= cheapest);
    let (by, _) = named(|job| job.constraints.max_macs = Some(u64::MAX));
    assert!(by.contains("allows"), "{by}");
    let (by, _) = named(|job| job.mode = Mode::Combination(0));
    assert!(by.contains('>'), "{by}");
    // Batches add up, each of which could meet the deadline.
    let (_, many) = named(|job| {
        job.images = 40;
        job.input = Input::Pixels(pixels(40, 3).into());
    });
    assert!(many > 5 * cheapest, "{many:?} {cheapest:?}");
}

#[test]
fn late_answers_are_given_if_accepted() {
    let engine = engine(1);
    let scheduler = scheduler(&engine, patient());
    let late = Job {
        deadline: Some(Instant::now()),
        late: true,
        ..simple()
    };
    let reply = scheduler.submit("model", late).unwrap();
    assert!(reply.blocking_recv().unwrap().is_ok());
}

#[test]
fn without_load_every_job_without_a_deadline_is_answered() {
    let engine = engine(1);
    let options = SchedulerOptions {
        objective: Duration::from_nanos(1),
        ..patient()
    };
    let scheduler = scheduler(&engine, options);
    for images in [1, 11] {
        // It was received and decoded long after its arrival.
        let arrival = Instant::now() - MINUTE;
        let job = Job {
            arrival,
            ..job(Input::Pixels(pixels(images, 3).into()), images)
        };
        let reply = scheduler.submit("model", job).unwrap();
        let reply = reply.blocking_recv().unwrap().unwrap();
        assert_eq!(reply.instances.len(), images);
        assert_eq!(reply.promised, None);
    }
}

#[test]
fn an_objective_sheds_load() {
    let engine = engine(1);
    let options = SchedulerOptions {
        objective: Duration::from_millis(5),
        ..patient()
    };
    let scheduler = scheduler(&engine, options);
    let mut refused = 0;
    let mut answers = Vec::new();
    for _ in 0..3000 {
        match scheduler.submit("model", simple()) {
            Ok(answering) => answers.push(answering),
            Err(Refusal::Overloaded { .. }) => refused += 1,
            Err(other) => panic!("{other:?}"),
        }
    }
    assert!(refused > 0 && !answers.is_empty());
    for answering in answers {
        match answering.blocking_recv().unwrap() {
            Ok(_) | Err(Refusal::Overloaded { .. }) => {}
            Err(other) => panic!("{other:?}"),
        }
    }
}

#[test]
fn bad_jobs_are_refused_with_the_reason() {
    let engine = engine(1);
    let scheduler = scheduler(&engine, patient());
    let refused = |job| scheduler.submit("model", job).unwrap_err().to_string();
    let short = refused(job(Input::Pixels(vec![0; 5].into()), 1));
    assert!(
        short.contains("5 values") && short.contains("768"),
        "{short}"
    );
    let cut = refused(job(Input::Planes(vec![0; 4 * 768 - 1].into()), 1));
    assert!(cut.contains("3071 bytes") && cut.contains("3072"), "{cut}");
    let huge = refused(job(Input::Planes(vec![0; 4 * 768].into()), usize::MAX));
    assert!(huge.contains("3072"), "{huge}");
    let none = refused(job(Input::Planes(Bytes::new()), 0));
    assert!(none.contains("no images"), "{none}");
    let mut impossible = simple();
    impossible.constraints.max_macs = Some(1);
    assert!(matches!(
        scheduler.submit("model", impossible),
        Err(Refusal::NoInstance(_))
    ));
    assert!(matches!(
        scheduler.submit("other", simple()),
        Err(Refusal::Unavailable)
    ));
}

#[test]
fn closing_answers_accepted_jobs() {
    let engine = engine(1);
    let scheduler = scheduler(&engine, patient());
    let answers: Vec<Answering> = (0..100)
        .map(|_| scheduler.submit("model", simple()).unwrap())
        .collect();
    scheduler.close();
    assert!(matches!(
        scheduler.submit("model", simple()),
        Err(Refusal::Unavailable)
    ));
    for answering in answers {
        assert!(answering.blocking_recv().unwrap().is_ok());
    }
}

#[test]
fn a_model_is_replaced_under_load_without_losing_a_job() {
    let [old, new] = [1, 2].map(engine);
    let scheduler = scheduler(&old, patient());
    let bytes = pixels(1, 9);
    let values = prepared(&bytes);
    let submit = |name: &str| scheduler.submit(name, job(Input::Pixels(bytes.clone().into()), 1));
    let before: Vec<Answering> = (0..200).map(|_| submit("model").unwrap()).collect();
    scheduler.install("model again", new.clone()).unwrap();
    scheduler.remove("model");
    assert!(matches!(submit("model"), Err(Refusal::Unavailable)));
    let after: Vec<Answering> = (0..50).map(|_| submit("model again").unwrap()).collect();
    for (answers, engine) in [(before, &old), (after, &new)] {
        for answering in answers {
            assert_true(
                &answering.blocking_recv().unwrap().unwrap(),
                engine,
                &values,
            );
        }
    }
    // Nothing keeps the old model any more.
    let freed = (0..1000).any(|_| {
        std::thread::sleep(Duration::from_millis(5));
        Arc::strong_count(&old) == 1
    });
    assert!(freed);
}
