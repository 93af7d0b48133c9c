//! Tests of the runtime on a small network with random weights.

use std::time::{Duration, Instant};

use sdpoint_core::{
    BlendedCascade, Cascade, Combination, EvalTransform, Moments, Preprocessing, Ratio, Stage,
    TrainTransform, select, zoo,
};
use sdpoint_engine::{InstanceMacs, Isa, blend, initial_weights, log_softmax, margins};

use super::profile::{InstanceTime, StretchTime};
use super::timetable::any_at;
use super::*;

const SIZE: [usize; 2] = [16, 16];

/// A model of ten classes whose recorded accuracies rise with the cost.
pub(super) fn model() -> Model {
    let network = zoo::build("preresnet8", 10).unwrap();
    let weights = initial_weights(&network, 1);
    let instances = network.instances(&Ratio::DEFAULT);
    let preprocessing = Preprocessing {
        train: TrainTransform::None,
        evaluate: EvalTransform::Resize,
        ..Preprocessing::new(SIZE, vec![0.5; 3], vec![0.25; 3])
    };
    let mut model = Model::new(network, weights, preprocessing, &instances).unwrap();
    let most = model.instances.iter().map(|record| record.macs).max();
    for (number, record) in model.instances.iter_mut().enumerate() {
        let (network, instance) = (&model.network, record.instance);
        // Statistics that differ from instance to instance.
        let own = network.norms()[network.own_norms(instance)].iter();
        let own = own.map(|norm| {
            let mut moments = Moments::identity(norm.channels);
            moments.mean.fill(0.01 * number as f32);
            moments
        });
        model.statistics.set(network, instance, own.collect());
        // Points after the last convolution save no MACs and only lose
        // resolution, so the ratio breaks the tie.
        let share = record.macs as f64 / most.unwrap() as f64;
        let ratio = instance.ratio().map_or(1.0, Ratio::value);
        record.top1 = Some(0.5 + 0.4 * share + 0.01 * ratio);
    }
    model.classes = (0..10).map(|class| format!("class {class}")).collect();
    model
}

pub(super) fn engine() -> Engine {
    let threads = std::num::NonZeroUsize::new(2);
    let context = Context::with_isa(threads, Isa::available()[0]).unwrap();
    Engine::new(Arc::new(context), model()).unwrap()
}

pub(super) fn tensor(batch: usize) -> Vec<f32> {
    let len = batch * SIZE[0] * SIZE[1] * 3;
    (0..len)
        .map(|i| (i * 7919 % 1999) as f32 / 999.0 - 1.0)
        .collect()
}

pub(super) fn images(data: &[f32]) -> Images<'_> {
    Images {
        data,
        batch: data.len() / (SIZE[0] * SIZE[1] * 3),
        size: SIZE,
    }
}

/// A profile in which every stretch of `full` takes a second, and every stretch
/// after an instance's point its ratio squared of that.
fn steady(engine: &Engine) -> BatchProfile {
    let points: Vec<_> = engine
        .network()
        .points()
        .iter()
        .map(|point| point.id())
        .collect();
    let ends = points.iter().map(|&point| Some(point)).chain([None]);
    let instances = engine.records().iter().map(|record| {
        let place = points
            .iter()
            .position(|&point| Some(point) == record.instance.point());
        let done = place.map_or(points.len(), |place| place + 1) as f64;
        let ahead = (points.len() + 1) as f64 - done;
        let ratio = record.instance.ratio().map_or(1.0, Ratio::value);
        let rest = ahead * ratio * ratio;
        InstanceTime {
            instance: record.instance,
            macs: record.macs,
            median: done + rest,
            p90: done + rest,
            rest,
        }
    });
    BatchProfile {
        batch: 1,
        instances: instances.collect(),
        stretches: ends.map(|to| StretchTime { to, median: 1.0 }).collect(),
    }
}

#[test]
fn engines_can_be_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Engine>();
    shared::<Inputs>();
    shared::<Predictions>();
    shared::<RunError>();
}

#[test]
fn every_instance_agrees_with_evaluation() {
    let (engine, model) = (engine(), model());
    let data = tensor(3);
    let context = Arc::new(Context::new(None).unwrap());
    let network = Arc::new(model.network);
    let other = InferenceEngine::new(context, network, &model.weights, &model.statistics).unwrap();
    let instances: Vec<Instance> = model.instances.iter().map(|r| r.instance).collect();
    let evaluated = other
        .run_all(images(&data), &instances, NormSource::Own)
        .unwrap();
    for (&instance, expected) in std::iter::zip(&instances, &evaluated) {
        let answer = engine.run(images(&data), instance).unwrap();
        assert_eq!(answer.instances, AnsweredBy::Instance(instance));
        assert_eq!(answer.macs, engine.record(instance).unwrap().macs as f64);
        let largest = expected.iter().fold(0.0f32, |a, b| a.max(b.abs()));
        for image in 0..3 {
            let row = &expected[10 * image..][..10];
            for (a, b) in std::iter::zip(answer.predictions.logits(image), row) {
                assert!((a - b).abs() <= 1e-4 * largest, "{instance}: {a} and {b}");
            }
            let best = sdpoint_engine::top_k(row, 1)[0];
            assert_eq!(answer.predictions.top(image, 1)[0].label, best);
        }
    }
}

#[test]
fn an_engine_from_a_file_answers_as_one_from_its_model() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let model = model();
    model.save(&path).unwrap();
    let context = Arc::new(Context::new(None).unwrap());
    let engines = [
        Engine::new(context.clone(), model).unwrap(),
        Engine::load_with(context, &path).unwrap(),
    ];
    let data = tensor(2);
    for record in engines[0].records() {
        let [a, b] = [0, 1].map(|i| engines[i].run(images(&data), record.instance).unwrap());
        assert_eq!(
            a.predictions.logits(1),
            b.predictions.logits(1),
            "{}",
            record.instance
        );
    }
}

#[test]
fn batches_too_large_for_the_memory_are_refused() {
    let engine = engine();
    for batch in [1 << 40, usize::MAX] {
        let refused = [engine.times(batch).map(drop), engine.warm_up(batch)];
        for error in refused.map(Result::unwrap_err) {
            let text = error.to_string();
            assert!(text.contains("memory"), "{text}");
        }
    }
    // Preprocessing accepts images of 16384 pixels a side, but their feature
    // maps exceed the memory of any machine.
    let mut model = model();
    model.preprocessing.size = [1 << 14; 2];
    let engine = Engine::new(engine.inference.context().clone(), model).unwrap();
    let result = engine
        .inference
        .memory_bytes([1 << 14; 2], 1 << 12, Instance::Full);
    assert!(
        matches!(result, Err(EngineError::TooLarge { .. })),
        "{result:?}"
    );
}

#[test]
fn files_images_and_tensors_agree() {
    let engine = engine();
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, 16, 16);
    encoder.set_color(png::ColorType::Rgb);
    let pixels: Vec<u8> = (0..16 * 16 * 3).map(|i| (i * 37 % 256) as u8).collect();
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&pixels).unwrap();
    writer.finish().unwrap();
    let image = sdpoint_data::decode(&file).unwrap();
    let by_file = engine.decode([&file, &file]).unwrap();
    assert_eq!(by_file, engine.prepare([&image, &image]).unwrap());
    let data: Vec<f32> = pixels
        .iter()
        .map(|&value| (f32::from(value) / 255.0 - 0.5) / 0.25)
        .collect();
    let full = |input: Images<'_>| engine.run(input, Instance::Full).unwrap().predictions;
    let (files, tensor) = (full((&by_file).into()), full(images(&data)));
    assert_eq!(files.len(), 2);
    for (a, b) in std::iter::zip(files.logits(1), tensor.logits(0)) {
        assert!((a - b).abs() < 1e-3, "{a} and {b}");
    }
    let error = engine.decode([&file[..], b"no image"]).unwrap_err();
    assert!(
        error.to_string().contains("image 2 of the batch is not"),
        "{error}"
    );
    assert!(matches!(
        engine.run(&engine.decode([[0u8; 0]; 0]).unwrap(), Instance::Full),
        Err(RunError::Engine(EngineError::EmptyBatch))
    ));
}

#[test]
fn budgets_choose_as_the_table_does() {
    let engine = engine();
    for budget in ["50%", "1", "full", "0@0.5", "1.5M", ">=80%"] {
        let budget: Budget = budget.parse().unwrap();
        let expected = select(engine.records(), budget);
        match (engine.choose(budget), expected) {
            (Ok(choice), Ok(expected)) => assert_eq!(choice.instance, expected.instance),
            (Err(RunError::Select(error)), Err(expected)) => assert_eq!(error, expected),
            (found, expected) => panic!("{found:?} and {expected:?}"),
        }
    }
    let choice = engine.choose(Instance::Full).unwrap();
    let data = tensor(1);
    assert_eq!(
        engine.run(images(&data), &choice).unwrap().instances,
        AnsweredBy::Instance(Instance::Full)
    );
}

#[test]
fn latency_budgets_use_measured_times() {
    let mut engine = engine();
    engine.profile = vec![steady(&engine)];
    let at_most = |seconds: f64| Budget::Latency(Duration::from_secs_f64(seconds));
    // Five stretches: preresnet8 has three blocks, and the stem's comes first.
    let full = engine.times(1).unwrap()[&Instance::Full];
    let stretches = engine.network().points().len() as f64 + 1.0;
    assert_eq!(full, Duration::from_secs_f64(stretches));
    let choice = engine.choose(at_most(stretches)).unwrap();
    assert_eq!(choice.instance, Instance::Full);
    assert!(choice.to_string().contains("4.00 s"), "{choice}");
    let choice = engine.choose(at_most(3.2)).unwrap();
    assert!(choice.time.unwrap() <= Duration::from_secs_f64(3.2));
    let better = engine.records().iter().filter(|r| r.top1 > choice.top1);
    for record in better {
        let time = engine.times(1).unwrap()[&record.instance];
        assert!(time > Duration::from_secs_f64(3.2), "{}", record.instance);
    }
    let error = engine.choose(at_most(0.5)).unwrap_err().to_string();
    assert!(error.contains("fastest is 0@0.5"), "{error}");
    assert!(error.contains("1.75 s"), "{error}");
}

#[test]
fn without_a_profile_times_are_estimated_from_a_few() {
    let engine = engine();
    assert_eq!(*engine.time_source(), TimeSource::NoProfile);
    assert_eq!(engine.choose(Instance::Full).unwrap().time, None);
    let times = engine.times(2).unwrap();
    assert_eq!(times.len(), engine.records().len());
    assert!(times.values().all(|time| !time.is_zero()), "{times:?}");
    // Measured times are cached.
    assert_eq!(engine.times(2).unwrap(), times);
    assert!(engine.times(0).is_err());
}

/// Runs by a deadline on a simulated clock on which stretch number `i` takes
/// `stretches[i]` seconds, and everything after a branch one second.
fn run_by_clock(engine: &Engine, deadline: f64, stretches: &[f64]) -> Instance {
    *lock(&engine.pace) = Pace::default();
    let table = Timetable::new(&steady(engine), engine.records());
    let data = tensor(1);
    let mut time = 0.0;
    let mut stop = 0;
    let clock = || {
        time += stretches.get(stop).copied().unwrap_or(1.0);
        stop += 1;
        time
    };
    let outcome = engine
        .run_until(images(&data), &table, deadline, clock)
        .unwrap();
    let alone = engine.run(images(&data), outcome.instance).unwrap();
    let alone = alone.predictions;
    assert_eq!(outcome.logits, alone.logits(0), "it is that instance");
    outcome.instance
}

#[test]
fn ample_time_gives_full_and_no_time_the_cheapest_instance() {
    let engine = engine();
    assert_eq!(run_by_clock(&engine, 100.0, &[]), Instance::Full);
    assert_eq!(run_by_clock(&engine, 4.5, &[]), Instance::Full);
    let cheapest: Instance = "0@0.5".parse().unwrap();
    assert_eq!(run_by_clock(&engine, 0.0, &[]), cheapest);
    assert_eq!(run_by_clock(&engine, 1.9, &[]), cheapest);
}

#[test]
fn a_run_becomes_the_best_instance_that_fits() {
    let engine = engine();
    let table = Timetable::new(&steady(&engine), engine.records());
    let times = table.times();
    for step in 20..45 {
        let deadline = f64::from(step) / 10.0;
        let became = run_by_clock(&engine, deadline, &[]);
        let worth = |instance| engine.record(instance).unwrap().top1.unwrap();
        let took = times[&became].as_secs_f64();
        assert!(took <= deadline, "{became} by {deadline}");
        // The controller keeps a safety margin, even on a steady clock.
        let fits = times
            .iter()
            .filter(|(_, t)| t.as_secs_f64() * 1.1 <= deadline);
        let best = fits.map(|(&i, _)| worth(i)).fold(0.0, f64::max);
        assert!(worth(became) >= best, "{became} by {deadline}");
    }
}

#[test]
fn a_slow_layer_makes_the_same_run_downsample_later_on() {
    let engine = engine();
    let deadline = 4.6;
    assert_eq!(
        run_by_clock(&engine, deadline, &[1.0, 1.0, 1.0]),
        Instance::Full
    );
    // The second stretch takes 0.7 s longer: the rest must be cheaper.
    let became = run_by_clock(&engine, deadline, &[1.0, 1.7, 1.0]);
    let point = became.point().expect("it downsampled");
    assert!(point >= engine.network().points()[1].id(), "{became}");
    // It takes 2 s longer: the run downsamples at once.
    let became = run_by_clock(&engine, deadline, &[1.0, 3.0, 1.0]);
    assert_eq!(became.point(), Some(engine.network().points()[1].id()));
    assert_eq!(became.ratio(), Some(Ratio::DEFAULT[0]));
}

/// The layer at which each point's instances diverge from `full`, and a time for
/// each layer of `full`: proportional to its MACs, plus a constant.
fn layer_times(engine: &Engine) -> (Vec<usize>, Vec<f64>) {
    let instances = engine.records().iter().map(|record| record.instance);
    let work = InstanceMacs::new(engine.network(), SIZE, instances).unwrap();
    let exits = work.exits().iter().map(|(_, layer)| layer.0).collect();
    let macs = work.layer_macs(Instance::Full);
    let times = macs.iter().map(|&macs| 1e-6 * macs as f64 + 1e-3);
    (exits, times.collect())
}

/// A profile of a machine on which the layers of `full` take `times`, and those
/// after an instance's point its ratio squared of that.
fn layered(engine: &Engine, exits: &[usize], times: &[f64]) -> BatchProfile {
    let ends: Vec<usize> = exits.iter().copied().chain([times.len()]).collect();
    let starts = [0].into_iter().chain(exits.iter().copied());
    let mut profile = steady(engine);
    for ((stretch, start), &end) in profile.stretches.iter_mut().zip(starts).zip(&ends) {
        stretch.median = times[start..end].iter().sum();
    }
    for time in &mut profile.instances {
        let points = engine.network().points().iter();
        let place = points
            .clone()
            .position(|p| Some(p.id()) == time.instance.point());
        let exit = ends[place.unwrap_or(exits.len() - 1)];
        let ratio = time.instance.ratio().map_or(1.0, Ratio::value);
        time.rest = ratio * ratio * times[exit..].iter().sum::<f64>();
        time.median = times[..exit].iter().sum::<f64>() + time.rest;
        time.p90 = time.median;
    }
    profile
}

#[test]
fn a_slow_layer_anywhere_makes_the_run_downsample_after_it() {
    let engine = engine();
    let (exits, times) = layer_times(&engine);
    let table = Timetable::new(&layered(&engine, &exits, &times), engine.records());
    let data = tensor(1);
    let total: f64 = times.iter().sum();
    // Enough time for `full` with the safety margin.
    let deadline = 1.15 * total;
    let run_by_clock = |times: &[f64]| {
        *lock(&engine.pace) = Pace::default();
        let ends = exits.iter().copied().chain([times.len()]);
        let mut at = ends.map(|end| times[..end].iter().sum());
        let clock = || at.next().unwrap_or(total);
        engine
            .run_until(images(&data), &table, deadline, clock)
            .unwrap()
    };
    assert_eq!(run_by_clock(&times).instance, Instance::Full);
    let before = |exit: usize| times[..exit].iter().sum::<f64>();
    for slow in 0..*exits.last().unwrap() {
        // Too long for `full`, and too long for any instance.
        for delay in [0.5 * total, 1.2 * total] {
            let mut slowed = times.clone();
            slowed[slow] += delay;
            let outcome = run_by_clock(&slowed);
            let became = outcome.instance;
            let point = became.point().expect("full cannot be done in time");
            let points = engine.network().points();
            let place = points.iter().position(|p| p.id() == point).unwrap();
            // The delay cannot be foreseen: the run is `full` up to the slow
            // layer and downsamples at a point after it.
            assert!(exits[place] > slow, "{became} before slow layer {slow}");
            let first = exits.iter().position(|&exit| exit > slow).unwrap();
            if before(exits[first]) + delay > deadline {
                assert_eq!(place, first, "{became} though layer {slow} is slow");
                assert_eq!(became.ratio(), Some(Ratio::DEFAULT[0]), "{slow}");
            }
        }
    }
}

#[test]
fn a_delay_on_a_real_clock_makes_the_same_run_downsample_later_on() {
    let engine = engine();
    engine.warm_up(1).unwrap();
    let data = tensor(1);
    let table = engine.timetable((1, SIZE)).unwrap();
    let deadline = Duration::from_millis(400);
    let run_by_clock = |delayed: usize| {
        *lock(&engine.pace) = Pace::default();
        let start = Instant::now();
        let mut stop = 0;
        let clock = || {
            if stop == delayed {
                std::thread::sleep(deadline);
            }
            stop += 1;
            start.elapsed().as_secs_f64()
        };
        let outcome = engine.run_until(images(&data), &table, deadline.as_secs_f64(), clock);
        outcome.unwrap().instance
    };
    let points = engine.network().points();
    assert_eq!(
        run_by_clock(points.len()),
        Instance::Full,
        "nothing delays it"
    );
    // No convolution follows the last point, so `full` may end as soon.
    let (_, points) = points.split_last().unwrap();
    for (stop, point) in points.iter().enumerate() {
        // At that point, or a later one if that finishes sooner.
        let became = run_by_clock(stop).point();
        assert!(became >= Some(point.id()), "{became:?} after {stop}");
    }
}

#[test]
fn persistent_slowness_lowers_the_instance() {
    let engine = engine();
    let table = Timetable::new(&steady(&engine), engine.records());
    let data = tensor(1);
    let run_by_clock = |pace: f64| {
        let mut calls = 0.0;
        let clock = || {
            calls += pace;
            calls
        };
        let outcome = engine.run_until(images(&data), &table, 4.6, clock);
        outcome.unwrap().instance
    };
    assert_eq!(run_by_clock(1.0), Instance::Full);
    for _ in 0..20 {
        run_by_clock(2.0);
    }
    // At half the speed, `full` is out of reach from the first point on.
    let first = engine.network().points()[0].id();
    assert_eq!(run_by_clock(2.0).point(), Some(first));
}

#[test]
fn deadlines_on_a_real_clock() {
    let engine = engine();
    engine.warm_up(2).unwrap();
    let data = tensor(2);
    let answer = engine
        .run_by(images(&data), Instant::now() + Duration::from_secs(60))
        .unwrap();
    assert_eq!(answer.instances, AnsweredBy::Instance(Instance::Full));
    assert!(answer.time > Duration::ZERO && answer.time < Duration::from_secs(60));
    let late = engine.run_by(images(&data), Instant::now()).unwrap();
    let became = late.instances.single().unwrap();
    assert_ne!(became, Instance::Full);
    assert_eq!(late.macs, engine.record(became).unwrap().macs as f64);
    assert_eq!(late.predictions.len(), 2);
}

#[test]
fn a_cascade_runs_the_second_instance_where_the_first_is_unsure() {
    let engine = engine();
    let data = tensor(5);
    let run = |instance| engine.run(images(&data), instance).unwrap().predictions;
    let instances: Vec<Instance> = engine.records().iter().map(|r| r.instance).collect();
    let macs = |instance| engine.record(instance).unwrap().macs as f64;
    for &first in &instances {
        let sure = run(first).confidences();
        let mut sorted = sure.clone();
        sorted.sort_by(f64::total_cmp);
        for &second in instances.iter().filter(|&&second| second != first) {
            for threshold in [0.0, sorted[2], 2.0] {
                let cascade = Cascade {
                    first,
                    second,
                    threshold,
                };
                let answer = engine.run_cascade(images(&data), &cascade).unwrap();
                let combination = Combination::Cascade(cascade);
                let again = engine.run_combination(images(&data), &combination);
                assert_eq!(again.unwrap().predictions, answer.predictions);
                for (image, &sure) in sure.iter().enumerate() {
                    let instance = if sure < threshold { second } else { first };
                    assert_eq!(answer.instances.image(image), [instance], "{cascade:?}");
                    let expected = run(instance);
                    let found = answer.predictions.probabilities(image);
                    for (a, b) in std::iter::zip(found, expected.probabilities(image)) {
                        assert!((a - b).abs() < 1e-5, "{cascade:?} {image}");
                    }
                }
                let again = sure.iter().filter(|&&sure| sure < threshold).count();
                let most = macs(first) + again as f64 / 5.0 * macs(second);
                assert!(
                    answer.macs <= most && answer.macs >= macs(first),
                    "{cascade:?}"
                );
                assert!(again == 0 || answer.macs < most, "something is shared");
            }
        }
    }
}

/// Every order of the stages' points, and every way to divide the images.
#[test]
fn a_blended_cascade_averages_the_answers_of_its_stages() {
    let engine = engine();
    let data = tensor(5);
    let classes = engine.classes().len();
    let logits = |instance| -> Vec<f32> {
        let predictions = engine.run(images(&data), instance).unwrap().predictions;
        (0..5)
            .flat_map(|image| predictions.logits(image).to_vec())
            .collect()
    };
    let instances: Vec<Instance> = engine.records().iter().map(|r| r.instance).collect();
    let stage = |instance, weight, margin| Stage {
        instance,
        temperature: 1.5,
        weight,
        margin,
    };
    let answers = |instance| {
        let mut answers = logits(instance);
        log_softmax(&mut answers, classes, 1.5);
        answers
    };
    let mut shared = 0;
    for &first in &instances {
        let sure = margins(&answers(first), classes);
        let mut sorted = sure.clone();
        sorted.sort_by(f64::total_cmp);
        for &second in instances.iter().filter(|&&second| second != first) {
            for third in [
                None,
                instances
                    .iter()
                    .copied()
                    .find(|i| ![first, second].contains(i)),
            ] {
                for [m1, m2] in [[0.0, 0.0], [sorted[3], 0.3], [2.0, 2.0], [sorted[2], 2.0]] {
                    let cascade = BlendedCascade {
                        first: stage(first, 1.0, m1),
                        second: stage(second, 0.75, m2),
                        third: third.map(|third| stage(third, 0.5, 0.0)),
                    };
                    let answer = engine.run_blended_cascade(images(&data), &cascade).unwrap();
                    let combination = Combination::BlendedCascade(cascade);
                    let again = engine.run_combination(images(&data), &combination);
                    assert_eq!(again.unwrap().predictions, answer.predictions);
                    let mut work = 0.0;
                    let macs = |instance| engine.record(instance).unwrap().macs as f64 / 5.0;
                    for image in 0..5 {
                        let row = image * classes..(image + 1) * classes;
                        let mut expected = answers(first)[row.clone()].to_vec();
                        let mut last = first;
                        work += macs(first);
                        for (stage, margin) in [(Some(cascade.second), m1), (cascade.third, m2)] {
                            let Some(stage) = stage else { break };
                            if margins(&expected, classes)[0] >= margin {
                                break;
                            }
                            let others = answers(stage.instance);
                            blend(&mut expected, &others[row.clone()], classes, stage.weight);
                            last = stage.instance;
                            work += macs(stage.instance);
                        }
                        assert_eq!(answer.instances.image(image), [last], "{cascade:?}");
                        for (a, b) in std::iter::zip(answer.predictions.logits(image), &expected) {
                            assert!((a - b).abs() < 1e-4, "{cascade:?}: {a} {b}");
                        }
                    }
                    assert!(answer.macs <= work + 1.0 && answer.macs >= 5.0 * macs(first) - 1.0);
                    shared += usize::from(answer.macs < work - 1.0);
                }
            }
        }
    }
    assert!(shared > 100, "the layers before the points are shared");
    let none = Instance::At(engine.network().points()[0].id(), Ratio::new(0.3).unwrap());
    let missing = BlendedCascade {
        first: stage(Instance::Full, 1.0, 2.0),
        second: stage(none, 0.5, 0.0),
        third: None,
    };
    assert!(engine.run_blended_cascade(images(&data), &missing).is_err());
}

#[test]
fn an_ensemble_averages_probabilities() {
    let engine = engine();
    let data = tensor(2);
    let members = [Instance::Full, any_at(engine.network().points()[1].id())];
    let answer = engine.run_ensemble(images(&data), &members).unwrap();
    assert_eq!(answer.instances, AnsweredBy::Ensemble(members.to_vec()));
    let macs = members.map(|member| engine.record(member).unwrap().macs as f64);
    assert!(answer.macs > macs[0] && answer.macs < macs[0] + macs[1]);
    assert!(answer.time > Duration::ZERO);
    let combination = Combination::Ensemble(members.to_vec());
    let again = engine.run_combination(images(&data), &combination).unwrap();
    assert_eq!(
        (again.predictions, again.macs),
        (answer.predictions.clone(), answer.macs)
    );
    let both = answer.predictions;
    let one = |instance| engine.run(images(&data), instance).unwrap().predictions;
    let (a, b) = (one(members[0]), one(members[1]));
    for image in 0..2 {
        let alone = std::iter::zip(a.probabilities(image), b.probabilities(image));
        for (p, (a, b)) in std::iter::zip(both.probabilities(image), alone) {
            assert!((p - (a + b) / 2.0).abs() < 1e-6);
        }
    }
    assert!(engine.run_ensemble(images(&data), &[]).is_err());
}

#[test]
fn many_callers_get_what_one_gets() {
    let engine = engine();
    let data = tensor(2);
    let instances: Vec<Instance> = engine.records().iter().map(|r| r.instance).collect();
    let run = |instance| engine.run(images(&data), instance).unwrap().predictions;
    let expected: Vec<Predictions> = instances.iter().map(|&i| run(i)).collect();
    engine.warm_up(2).unwrap();
    std::thread::scope(|scope| {
        for caller in 0..4u64 {
            let (instances, expected, data, engine) = (&instances, &expected, &data, &engine);
            scope.spawn(move || {
                for round in 0..40 {
                    let soon = Duration::from_micros(caller * 100 + round * 20);
                    let answer = match round % 3 {
                        0 => engine.run_by(images(data), Instant::now() + soon),
                        1 => engine.run(images(data), Budget::Share(0.6)),
                        _ => engine.run(images(data), instances[round as usize % instances.len()]),
                    };
                    let answer = answer.unwrap();
                    let single = answer.instances.single();
                    let place = instances.iter().position(|i| Some(*i) == single);
                    assert_eq!(answer.predictions, expected[place.unwrap()]);
                }
            });
        }
    });
}

#[test]
fn a_profile_is_kept_beside_the_model() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.safetensors");
    model().save(&file).unwrap();
    let load = || Engine::load(&file).unwrap();
    assert_eq!(*load().time_source(), TimeSource::NoProfile);

    let engine = load();
    let measured = engine.measure(1, Duration::ZERO).unwrap();
    let kept = Profile::save_beside(&file, &engine, measured.clone()).unwrap();
    assert_eq!(kept, folder.path().join("model.profile.json"));
    let larger = BatchProfile {
        batch: 4,
        ..measured.clone()
    };
    Profile::save_beside(&file, &engine, larger).unwrap();
    let engine = load();
    assert_eq!(*engine.time_source(), TimeSource::Profile);
    assert_eq!(engine.profile.len(), 2);
    let full = engine.times(1).unwrap()[&Instance::Full].as_secs_f64();
    assert!((full - measured.instances[0].p90).abs() < 1e-6);

    let text = std::fs::read_to_string(&kept).unwrap();
    let with = |from: &str, to: &str| {
        std::fs::write(&kept, text.replacen(from, to, 1)).unwrap();
        let engine = load();
        assert!(engine.profile.is_empty());
        assert_eq!(engine.times(1).unwrap().len(), engine.records().len());
        engine.time_source().clone()
    };
    let processor = format!("\"processor\": \"{}", engine.machine().processor);
    let moved = with(&processor, "\"processor\": \"another ");
    assert!(
        matches!(&moved, TimeSource::OtherMachine { profiled } if profiled.len() == 1),
        "{moved:?}"
    );
    assert!(moved.to_string().contains("not of this machine"), "{moved}");
    for (from, to) in [
        ("preresnet8", "preresnet14"),
        ("\"0@0.5\"", "\"9@0.5\""),
        ("\"to\": \"0\"", "\"to\": \"1\""),
        ("\"version\": 1", "\"version\": 7"),
        ("\"median\": ", "\"median\": -"),
        ("\"rest\": ", "\"rest\": 0, \"was\": "),
        ("\"median\"", "\"mean\""),
        ("{", "["),
    ] {
        let source = with(from, to);
        assert!(
            matches!(source, TimeSource::Unusable(_)),
            "{from}: {source:?}"
        );
    }
    std::fs::remove_file(&kept).unwrap();
    std::fs::create_dir(&kept).unwrap();
    let source = load().time_source().to_string();
    assert!(source.contains("is a folder, not a file"), "{source}");
    std::fs::remove_dir(&kept).unwrap();
    std::fs::write(&kept, "nothing").unwrap();
    // An unusable profile is replaced.
    Profile::save_beside(&file, &engine, measured).unwrap();
    assert_eq!(*load().time_source(), TimeSource::Profile);
}
