//! Whole runs of a small network on few images.

use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sdpoint_core::{
    Combination, Instance, Model, Preprocessing, Ratio, TrainTransform, Weights, zoo,
};
use sdpoint_data::{Dataset, Epoch, Loader, OpenOptions, Source, open_pair};
use sdpoint_engine::{
    Context, Images, NormSource, Sgd, SgdStep, StepInput, Target, TrainingEngine, initial_weights,
    softmax,
};
use sdpoint_train::{
    CalibrateOptions, Checkpoint, EpochMetrics, EvaluateOptions, Feed, Finished, FitOptions, Init,
    Method, Observer, Optimizer, Outcome, Preset, Progress, Run, Silent, StatisticsFrom,
    TrainError, TrainPlan, Trained, VAL_SHARE, calibrate, calibrate_model, evaluate, fine_tune,
    fit_combinations, folder,
};

/// Steps in an epoch of [`plan`] on [`data`]: six full ones and a rest.
const AN_EPOCH: u64 = 7;

fn data() -> (Dataset, Dataset) {
    let mut options = OpenOptions::default();
    options.shapes_train = 104;
    options.shapes_test = 40;
    open_pair(&Source::Shapes, &options).unwrap()
}

fn plan(data: &Dataset) -> TrainPlan {
    let network = zoo::build("preresnet8", data.classes().len()).unwrap();
    let preprocessing = Preprocessing {
        train: TrainTransform::PadCrop {
            padding: 2,
            flip: true,
        },
        ..Preprocessing::new([16, 16], vec![0.5; 3], vec![0.25; 3])
    };
    let mut plan = TrainPlan::with_preprocessing(network, data, preprocessing)
        .with_recipe(Preset::CifarCosine.recipe().with_epochs(3))
        .with_val_share(0.0)
        .with_seed(5);
    plan.recipe.batch_size = 16;
    plan.calibration_images = 48;
    plan
}

/// A plan with another setting or two.
fn changed(mut plan: TrainPlan, change: impl FnOnce(&mut TrainPlan)) -> TrainPlan {
    change(&mut plan);
    plan
}

fn context(threads: usize) -> Arc<Context> {
    Arc::new(Context::new(NonZeroUsize::new(threads)).unwrap())
}

/// Everything that runs of one test share.
struct Bench {
    ctx: Arc<Context>,
    train: Dataset,
    test: Dataset,
}

impl Bench {
    fn new(threads: usize) -> Self {
        let (train, test) = data();
        Self {
            ctx: context(threads),
            train,
            test,
        }
    }

    fn run<'a>(&'a self, folder: &'a Path) -> Run<'a> {
        Run::new(&self.ctx, &self.train, &self.test, folder)
    }

    fn plan(&self) -> TrainPlan {
        plan(&self.train)
    }

    /// A run from beginning to end.
    fn finish(&self, plan: TrainPlan, folder: &Path) -> Finished {
        finished(self.run(folder).start(plan, &mut Silent))
    }
}

fn finished(outcome: Result<Outcome, TrainError>) -> Finished {
    match outcome.unwrap() {
        Outcome::Finished(finished) => *finished,
        Outcome::Stopped { step, .. } => panic!("stopped at step {step}"),
    }
}

fn metrics(folder: &Path) -> Vec<EpochMetrics> {
    let text = fs::read_to_string(folder.join(folder::METRICS)).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// What must not depend on interruptions and threads: the bytes of the model
/// and the curve, and the metrics without times.
fn results(folder: &Path) -> (Vec<Vec<u8>>, Vec<EpochMetrics>) {
    let files = [folder::MODEL, folder::CURVE_CSV, folder::CURVE_SVG];
    let bytes = files.map(|file| fs::read(folder.join(file)).unwrap());
    let without_times = metrics(folder).into_iter().map(|mut metrics| {
        metrics.seconds = 0.0;
        metrics.images_per_second = 0.0;
        metrics.data_wait_seconds = 0.0;
        metrics
    });
    (bytes.into(), without_times.collect())
}

/// Stops after so many steps, or in an evaluation.
struct StopAt {
    step: u64,
    stop: bool,
    in_evaluation: bool,
}

impl StopAt {
    fn step(step: u64) -> Self {
        Self {
            step,
            stop: false,
            in_evaluation: false,
        }
    }
}

impl Observer for StopAt {
    fn stop_requested(&self) -> bool {
        self.stop
    }

    fn step(&mut self, progress: &Progress) {
        self.stop = progress.step == self.step;
    }

    fn evaluating(&mut self, _done: usize, _images: usize) {
        self.stop = self.in_evaluation;
    }
}

#[test]
fn training_learns_and_leaves_all_that_it_promises() {
    let bench = Bench::new(2);
    let folder = tempfile::tempdir().unwrap();
    let mut plan = bench.plan();
    plan.recipe = plan.recipe.with_epochs(8);
    let finished = bench.finish(plan, folder.path());

    let events = fs::read(folder.path().join(folder::EVENTS)).unwrap();
    let shown = |text: &[u8]| events.windows(text.len()).filter(|w| *w == text).count();
    assert_eq!((shown(b"brain.Event:2"), shown(b"loss/train")), (1, 8));
    let metrics = metrics(folder.path());
    assert_eq!(metrics.len(), 8);
    let (first, last) = (metrics[0].train_loss, metrics[7].train_loss);
    assert!(first > 2.0 && last < first - 0.3, "loss {first} to {last}");
    assert!(metrics[7].train_accuracy > metrics[0].train_accuracy);
    assert_eq!(metrics[7].step, 8 * AN_EPOCH);

    let model = Model::load(folder.path().join(folder::MODEL)).unwrap();
    assert_eq!(model, finished.model);
    let names: Vec<String> = model
        .instances
        .iter()
        .map(|r| r.instance.to_string())
        .collect();
    assert_eq!(
        names,
        [
            "full", "0@0.5", "0@0.75", "1@0.5", "1@0.75", "2@0.5", "2@0.75"
        ]
    );
    assert!(
        model
            .instances
            .iter()
            .all(|r| r.top1.is_some() && r.loss.is_some())
    );
    assert_eq!(model.training["recipe"]["epochs"], 8);
    assert!(finished.evaluation.work.shared < finished.evaluation.work.separate);
    let steps: u64 = finished.drawn.iter().map(|&(_, count)| count).sum();
    assert_eq!(steps, 8 * AN_EPOCH);
    assert!(
        finished
            .drawn
            .iter()
            .filter(|&&(_, count)| count > 0)
            .count()
            > 4
    );
    let svg = fs::read_to_string(folder.path().join(folder::CURVE_SVG)).unwrap();
    assert!(svg.starts_with("<svg") && svg.contains("preresnet8 on shapes"));
}

#[test]
fn neither_threads_nor_repetition_change_a_bit() {
    let mut first = None;
    for threads in [1, 1, 3] {
        let bench = Bench::new(threads);
        let folder = tempfile::tempdir().unwrap();
        bench.finish(bench.plan(), folder.path());
        let results = results(folder.path());
        assert!(
            *first.get_or_insert_with(|| results.clone()) == results,
            "{threads} threads"
        );
    }
    let bench = Bench::new(1);
    let folder = tempfile::tempdir().unwrap();
    bench.finish(bench.plan().with_seed(6), folder.path());
    assert!(first.unwrap() != results(folder.path()), "another seed");
}

#[test]
fn a_run_stopped_anywhere_goes_on_as_if_nothing_had_happened() {
    let bench = Bench::new(2);
    let whole = tempfile::tempdir().unwrap();
    bench.finish(bench.plan(), whole.path());

    let folder = tempfile::tempdir().unwrap();
    let run = bench.run(folder.path());
    let mut outcome = run.start(bench.plan(), &mut StopAt::step(1));
    for (at, next) in [
        (1, 4),
        (4, AN_EPOCH),
        (AN_EPOCH, 2 * AN_EPOCH + 3),
        (2 * AN_EPOCH + 3, 21),
    ] {
        let Ok(Outcome::Stopped { step, steps: 21 }) = outcome else {
            panic!("{outcome:?}");
        };
        assert_eq!(step, at);
        let checkpoint = Checkpoint::read(folder.path()).unwrap();
        assert_eq!(checkpoint.counters.step, at);
        outcome = run.resume(checkpoint, &mut StopAt::step(next));
    }
    // The last step is done; what is left is to calibrate and evaluate.
    assert!(matches!(outcome, Ok(Outcome::Stopped { step: 21, .. })));
    let mut in_evaluation = StopAt::step(u64::MAX);
    in_evaluation.in_evaluation = true;
    let outcome = run.resume(Checkpoint::read(folder.path()).unwrap(), &mut in_evaluation);
    assert!(matches!(outcome, Ok(Outcome::Stopped { step: 21, .. })));
    assert!(!folder.path().join(folder::MODEL).exists());
    finished(run.resume(Checkpoint::read(folder.path()).unwrap(), &mut Silent));
    assert!(results(folder.path()) == results(whole.path()));
}

#[test]
fn a_crash_costs_the_steps_since_the_checkpoint_and_nothing_else() {
    let bench = Bench::new(2);
    let folder = tempfile::tempdir().unwrap();
    bench.finish(bench.plan(), folder.path());
    let expected = results(folder.path());

    // As if the machine had stopped in the second epoch, with metrics of the
    // third on disk and half a file written aside.
    let other = tempfile::tempdir().unwrap();
    let run = bench.run(other.path());
    run.start(bench.plan(), &mut StopAt::step(AN_EPOCH + 2))
        .unwrap();
    let lines = fs::read_to_string(folder.path().join(folder::METRICS)).unwrap();
    fs::write(
        other.path().join(folder::METRICS),
        &lines[..lines.len() - 9],
    )
    .unwrap();
    let half = other.path().join(".checkpoint.safetensors.q7.tmp");
    fs::write(&half, "half").unwrap();
    finished(run.resume(Checkpoint::read(other.path()).unwrap(), &mut Silent));
    assert!(results(other.path()) == expected);
    assert!(!half.exists());

    // A run that is complete can be resumed too, and stays as it is.
    finished(run.resume(Checkpoint::read(other.path()).unwrap(), &mut Silent));
    assert!(results(other.path()) == expected);
}

#[test]
fn divergence_stops_the_run_and_spares_the_checkpoint() {
    let bench = Bench::new(2);
    let folder = tempfile::tempdir().unwrap();
    let mut plan = bench.plan();
    plan.recipe.rate = 1e30;
    plan.recipe.warm_up = 0.0;
    let run = bench
        .run(folder.path())
        .with_checkpoint_every(Duration::ZERO);
    let error = run.start(plan, &mut Silent).unwrap_err();
    let TrainError::Diverged { step, kept, .. } = error else {
        panic!("{error}");
    };
    assert!(
        kept <= step && step < AN_EPOCH,
        "step {step}, checkpoint {kept}"
    );
    let message = error.to_string();
    assert!(
        message.contains("lower learning rate") && message.contains("epoch 1"),
        "{message}"
    );
    let checkpoint = Checkpoint::read(folder.path()).unwrap();
    assert_eq!(checkpoint.counters.step, kept);
    assert!(
        checkpoint
            .weights
            .0
            .iter()
            .flatten()
            .all(|value| value.is_finite())
    );
}

#[test]
fn checkpoints_come_as_often_as_asked() {
    struct Count(Vec<u64>);
    impl Observer for Count {
        fn checkpoint(&mut self, step: u64) {
            self.0.push(step);
        }
    }
    let bench = Bench::new(2);
    for (every, expected) in [
        (Duration::ZERO, (0..=7).collect::<Vec<u64>>()),
        (Duration::MAX, vec![0, 7]),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let run = bench.run(folder.path()).with_checkpoint_every(every);
        let mut plan = bench.plan();
        plan.recipe = plan.recipe.with_epochs(1);
        let mut count = Count(Vec::new());
        finished(run.start(plan, &mut count));
        assert_eq!(count.0, expected);
    }
}

#[test]
fn a_folder_with_a_run_is_not_overwritten_by_accident() {
    let bench = Bench::new(2);
    let folder = tempfile::tempdir().unwrap();
    let run = bench.run(folder.path());
    run.start(bench.plan(), &mut StopAt::step(1)).unwrap();
    let error = run.start(bench.plan(), &mut Silent).unwrap_err();
    assert!(matches!(error, TrainError::RunExists { .. }), "{error}");
    assert_eq!(Checkpoint::read(folder.path()).unwrap().counters.step, 1);
    run.with_overwrite(true)
        .start(bench.plan(), &mut StopAt::step(2))
        .unwrap();
    assert_eq!(Checkpoint::read(folder.path()).unwrap().counters.step, 2);
}

#[test]
fn a_run_does_not_go_on_with_other_data() {
    let bench = Bench::new(2);
    let folder = tempfile::tempdir().unwrap();
    let run = bench.run(folder.path());
    run.start(bench.plan(), &mut StopAt::step(1)).unwrap();
    let fewer = bench.train.select(&(0..90).collect::<Vec<_>>()).unwrap();
    let other = Run::new(&bench.ctx, &fewer, &bench.test, folder.path());
    let checkpoint = Checkpoint::read(folder.path()).unwrap();
    let error = other.resume(checkpoint, &mut Silent).unwrap_err();
    assert!(
        error.to_string().contains("90") && error.to_string().contains("104"),
        "{error}"
    );
}

/// Everything that a plan can ask for at once.
fn elaborate(bench: &Bench) -> TrainPlan {
    let mut plan = bench.plan().with_method(Method::Sandwich);
    plan.distill = 0.75;
    plan.dropout = 0.2;
    plan.stochastic_depth = 0.3;
    plan.scales = vec![[12, 12]];
    plan.measure_every = 2;
    plan.val_share = 0.03;
    plan
}

#[test]
fn early_exits_leave_models_that_share_their_layers() {
    let bench = Bench::new(2);
    let plan = changed(bench.plan().with_method(Method::Plain), |plan| {
        plan.exits = true
    });
    let whole = tempfile::tempdir().unwrap();
    let trained = bench.finish(plan.clone(), whole.path());
    assert_eq!(trained.model.network, plan.network);
    assert_eq!(trained.exits.len(), 2);
    for (number, end) in (1..).zip(&trained.exits) {
        let file = whole.path().join(folder::exit(number));
        let read = Model::load(&file).unwrap();
        assert_eq!(read.weights, end.weights);
        assert_eq!(
            read.network.name(),
            format!("{}-exit{number}", plan.network.name())
        );
        assert_eq!(read.weights.0[0], trained.model.weights.0[0], "conv1");
        assert!(read.instances[0].macs < trained.model.instances[0].macs);
        assert!(read.instances[0].top1.is_some());
    }
    // Every classifier learns something.
    let last = metrics(whole.path()).pop().unwrap();
    assert!(last.train_loss < (10.0_f64).ln(), "{last:?}");

    let folder = tempfile::tempdir().unwrap();
    let run = bench.run(folder.path());
    run.start(plan.clone(), &mut StopAt::step(10)).unwrap();
    let checkpoint = Checkpoint::read(folder.path()).unwrap();
    finished_run(
        run.resume(checkpoint, &mut Silent),
        whole.path(),
        folder.path(),
    );
    // Another run in the folder leaves no exit of this one.
    let other = bench.run(folder.path()).with_overwrite(true);
    let plain = changed(plan.clone(), |plan| plan.exits = false);
    finished(other.start(plain, &mut Silent));
    assert!(!folder.path().join(folder::exit(1)).exists());

    for refused in [
        plan.clone().with_method(Method::SdPoint),
        changed(plan, |plan| plan.measure_every = 1),
    ] {
        let error = other.start(refused, &mut Silent).unwrap_err();
        assert!(error.to_string().contains("exits"), "{error}");
    }
}

#[test]
fn variants_of_training_depend_on_their_plan_alone() {
    let bench = Bench::new(1);
    let whole = tempfile::tempdir().unwrap();
    let finished = bench.finish(elaborate(&bench), whole.path());
    let counts: Vec<u64> = finished.drawn.iter().map(|&(_, count)| count).collect();
    assert_eq!(counts[..2], [21, 21], "full and 0@0.5 in every step");
    let drawn: u64 = counts[2..].iter().sum();
    assert!((5..=21).contains(&drawn), "{counts:?}");
    let measured: Vec<bool> = metrics(whole.path())
        .iter()
        .map(|m| m.full.is_some())
        .collect();
    assert_eq!(measured, [false, true, false]);
    assert_eq!(finished.model.training["distill"], 0.75);
    assert_eq!(finished.model.training["scales"][0][0], 12);

    let bench = Bench::new(3);
    let folder = tempfile::tempdir().unwrap();
    let run = bench.run(folder.path());
    run.start(elaborate(&bench), &mut StopAt::step(10)).unwrap();
    let checkpoint = Checkpoint::read(folder.path()).unwrap();
    assert_eq!(checkpoint.plan, elaborate(&bench));
    finished_run(
        run.resume(checkpoint, &mut Silent),
        whole.path(),
        folder.path(),
    );

    // Each of them changes the run.
    let whole = results(whole.path());
    let without: [fn(&mut TrainPlan); 5] = [
        |plan| (plan.method, plan.distill) = (Method::SdPoint, 0.0),
        |plan| plan.distill = 0.0,
        |plan| plan.dropout = 0.0,
        |plan| plan.stochastic_depth = 0.0,
        |plan| plan.scales.clear(),
    ];
    for change in without {
        let folder = tempfile::tempdir().unwrap();
        let mut plan = elaborate(&bench);
        change(&mut plan);
        bench.finish(plan, folder.path());
        assert!(results(folder.path()) != whole);
    }
}

#[test]
fn every_optimiser_resumes_bit_for_bit_and_changes_the_run() {
    let settings: [fn(&mut TrainPlan); 4] = [
        |plan| plan.recipe = plan.recipe.clone().with_optimizer(Optimizer::ADAMW),
        |plan| plan.recipe.clip_norm = Some(0.1),
        |plan| plan.recipe.ema = Some(0.9),
        |plan| {
            plan.recipe = plan.recipe.clone().with_optimizer(Optimizer::ADAMW);
            plan.recipe.clip_norm = Some(0.5);
            plan.recipe.ema = Some(0.8);
            plan.measure_every = 1;
        },
    ];
    let usual = tempfile::tempdir().unwrap();
    let bench = Bench::new(1);
    let shorter = |bench: &Bench| bench.plan().with_epochs(2);
    bench.finish(shorter(&bench), usual.path());
    let usual = results(usual.path());
    for setting in settings {
        let whole = tempfile::tempdir().unwrap();
        let plan = changed(shorter(&bench), setting);
        let trained = bench.finish(plan.clone(), whole.path());
        assert!(results(whole.path()).0 != usual.0);
        let state = Checkpoint::read(whole.path()).unwrap();
        match &state.average {
            Some(average) => assert!(trained.model.weights == *average),
            None => assert!(trained.model.weights == state.weights),
        }
        let bench = Bench::new(3);
        let folder = tempfile::tempdir().unwrap();
        let run = bench.run(folder.path());
        run.start(plan, &mut StopAt::step(AN_EPOCH + 2)).unwrap();
        let checkpoint = Checkpoint::read(folder.path()).unwrap();
        finished_run(
            run.resume(checkpoint, &mut Silent),
            whole.path(),
            folder.path(),
        );
    }
}

#[test]
fn augmented_runs_resume_bit_for_bit() {
    let bench = Bench::new(1);
    let usual = tempfile::tempdir().unwrap();
    bench.finish(bench.plan().with_epochs(2), usual.path());
    let usual = results(usual.path());
    for (text, method) in [
        ("trivial,jitter:0.3,erase:0.5,cutout:4", Method::SdPoint),
        ("mixup:0.4,cutmix:1", Method::SdPoint),
        ("mixup:0.4", Method::Sandwich),
    ] {
        let bench = Bench::new(1);
        let mut plan = bench.plan().with_method(method).with_epochs(2);
        plan.augmentation = text.parse().unwrap();
        plan.recipe.label_smoothing = 0.1;
        let whole = tempfile::tempdir().unwrap();
        let trained = bench.finish(plan.clone(), whole.path());
        assert!(results(whole.path()).0 != usual.0, "{text}");
        assert!(trained.model.training["augmentation"].is_object());
        let bench = Bench::new(3);
        let folder = tempfile::tempdir().unwrap();
        let run = bench.run(folder.path());
        run.start(plan, &mut StopAt::step(AN_EPOCH + 3)).unwrap();
        let checkpoint = Checkpoint::read(folder.path()).unwrap();
        finished_run(
            run.resume(checkpoint, &mut Silent),
            whole.path(),
            folder.path(),
        );
    }
    let mut plan = bench.plan().with_method(Method::Plain);
    plan.exits = true;
    plan.augmentation = "cutmix:1".parse().unwrap();
    let error = plan.check().unwrap_err().to_string();
    assert!(error.contains("cutmix"), "{error}");
    plan.augmentation.cutmix = 7.0;
    let error = plan.check().unwrap_err().to_string();
    assert!(error.contains("cutmix is 7"), "{error}");
}

#[test]
fn the_modern_preset_of_each_size_is_complete() {
    let bench = Bench::new(1);
    for (size, preset) in [
        ([32, 32], Preset::ModernSmall),
        ([224, 224], Preset::ModernLarge),
    ] {
        assert_eq!(Preset::modern(size), preset);
        let plan = bench.plan().with_preset(preset);
        plan.check().unwrap();
        assert!(plan.augmentation.trivial && plan.recipe.ema.is_some());
    }
    let plan = bench.plan().with_preset(Preset::Cifar);
    assert_eq!(plan.augmentation, Default::default());
}

/// A run that is done, with the same results as another.
fn finished_run(outcome: Result<Outcome, TrainError>, expected: &Path, folder: &Path) {
    finished(outcome);
    assert!(results(folder) == results(expected));
}

#[test]
fn a_step_of_the_sandwich_is_the_mean_of_its_parts() {
    let bench = Bench::new(1);
    let mut plan = bench.plan();
    plan = plan.with_method(Method::Sandwich);
    assert_eq!(plan.distill, 1.0);
    let folder = tempfile::tempdir().unwrap();
    bench
        .run(folder.path())
        .start(plan.clone(), &mut StopAt::step(1))
        .unwrap();

    let first = Epoch {
        seed: plan.seed,
        number: 0,
        first_batch: 0,
    };
    let mut loader = Loader::train(&bench.train, &plan.preprocessing, 16, 1, first).unwrap();
    let batch = loader.next().unwrap().unwrap();
    let images = Images {
        data: &batch.images,
        batch: batch.len(),
        size: batch.size,
    };
    let network = Arc::new(plan.network.clone());
    let mut engine = TrainingEngine::new(bench.ctx.clone(), network.clone());
    let mut weights = initial_weights(&network, plan.seed);
    let sampler = plan.sampler(0).unwrap();
    let instances: Vec<Instance> = sampler
        .of_step(0)
        .iter()
        .map(|&index| sampler.probabilities()[index].0)
        .collect();
    assert!(instances.len() >= 2 && instances[0] == Instance::Full);
    let labels = Target::labels(&batch.labels);
    let step = StepInput {
        weights: &weights,
        images,
        target: labels,
        instance: Instance::Full,
    };
    engine.step(step).unwrap();
    let mut teacher = engine.logits().to_vec();
    softmax(&mut teacher, network.classes());
    let mut mean = engine.gradients().clone();
    for &instance in &instances[1..] {
        let target = Target {
            soft: Some((&teacher, 1.0)),
            ..labels
        };
        let step = StepInput {
            target,
            instance,
            ..step
        };
        engine.step(step).unwrap();
        for (mean, gradient) in mean.0.iter_mut().zip(&engine.gradients().0) {
            for (mean, gradient) in mean.iter_mut().zip(gradient) {
                *mean += gradient;
            }
        }
    }
    for value in mean.0.iter_mut().flatten() {
        *value /= instances.len() as f32;
    }
    let recipe = &plan.recipe;
    let options = recipe.sgd_options();
    let rate = recipe.rate_at(0, AN_EPOCH as usize) as f32;
    let step = SgdStep {
        weights: &mut weights,
        momentum: &mut Weights::zeros(&network),
        gradients: &mean,
        rate,
    };
    Sgd::new(&network, options).step(&bench.ctx, step);
    let trained = Checkpoint::read(folder.path()).unwrap().weights;
    for (got, expected) in trained.0.iter().flatten().zip(weights.0.iter().flatten()) {
        assert!(
            (got - expected).abs() <= 1e-6 * (1.0 + expected.abs()),
            "{got} {expected}"
        );
    }
}

#[test]
fn plans_whose_parts_do_not_fit_are_refused_before_anything_is_written() {
    let bench = Bench::new(1);
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("run");
    let plan = bench.plan();
    let with = |change: &dyn Fn(&mut TrainPlan)| changed(plan.clone(), change);
    let seven = zoo::build("preresnet8", 7).unwrap();
    for (plan, word) in [
        (with(&|plan| plan.network = seven.clone()), "7"),
        (with(&|plan| plan.classes = vec!["x".into(); 10]), "classes"),
        (with(&|plan| plan.preprocessing.size = [0, 16]), "0×16"),
        (with(&|plan| plan.recipe.epochs = 0), "epochs"),
        (with(&|plan| plan.dropout = 1.0), "dropout"),
        (with(&|plan| plan.stochastic_depth = f64::NAN), "depth"),
        (with(&|plan| plan.distill = 0.5), "sandwich"),
        (with(&|plan| plan.scales = vec![[16, 0]]), "16×0"),
    ] {
        let error = bench.run(&folder).start(plan, &mut Silent).unwrap_err();
        assert!(error.to_string().contains(word), "{error}");
    }
    assert!(!folder.exists());
}

#[test]
fn measuring_in_the_middle_says_what_the_end_will_say_and_changes_nothing() {
    let bench = Bench::new(2);
    let [folder, other] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let mut plan = bench.plan();
    bench.finish(plan.clone(), other.path());
    plan.measure_every = 3;
    let finished = bench.finish(plan, folder.path());
    let full = metrics(folder.path())[2].full.unwrap();
    let record = &finished.evaluation.records[0];
    assert_eq!(Some(full.test_loss), record.loss);
    assert_eq!(Some(full.test_accuracy), record.top1);
    assert!(full.train_loss.is_finite() && full.train_loss != full.test_loss);
    let (with, without) = (results(folder.path()).0, results(other.path()).0);
    assert!(
        with == without,
        "the model does not know that it was watched"
    );
}

#[test]
fn plain_training_stays_in_full_but_calibrates_every_instance() {
    let bench = Bench::new(2);
    let folder = tempfile::tempdir().unwrap();
    let mut plan = bench.plan();
    plan.method = Method::Plain;
    plan.recipe = plan.recipe.with_epochs(1);
    let finished = bench.finish(plan, folder.path());
    assert_eq!(finished.drawn[0], (Instance::Full, AN_EPOCH));
    assert!(finished.drawn[1..].iter().all(|&(_, count)| count == 0));
    assert_eq!(finished.model.statistics.instances().count(), 7);
}

#[test]
fn a_trained_model_gets_new_instances_without_training() {
    let bench = Bench::new(2);
    let folder = tempfile::tempdir().unwrap();
    let mut plan = bench.plan();
    plan.recipe = plan.recipe.with_epochs(1);
    let model = bench.finish(plan, folder.path()).model;

    let network = Arc::new(model.network.clone());
    let instances = ["full", "1@0.35", "2@0.6"].map(|name| name.parse::<Instance>().unwrap());
    let feed = |data| Feed {
        data,
        preprocessing: &model.preprocessing,
        batch_size: 16,
    };
    let (ctx, weights) = (&bench.ctx, &model.weights);
    let options = CalibrateOptions::new(&instances)
        .with_images(48)
        .with_seed(5);
    let train = feed(&bench.train);
    let statistics = calibrate(ctx, &network, weights, train, options, &mut Silent).unwrap();
    assert!(statistics.own(Instance::Full) == model.statistics.own(Instance::Full));
    let trained = Trained {
        network: &network,
        weights,
        statistics: &statistics,
    };
    let evaluated = |norms| {
        let options = EvaluateOptions::new(&instances).with_norms(norms);
        evaluate(ctx, trained, feed(&bench.test), options, &mut Silent).unwrap()
    };
    let own = evaluated(NormSource::Own);
    assert_eq!(own.images, 40);
    assert_eq!(own.records[0], model.instances[0]);
    let shared = evaluated(NormSource::Shared);
    assert_eq!(shared.records[0], own.records[0]);
    assert_ne!(shared.records[1].loss, own.records[1].loss);
}

#[test]
fn statistics_come_from_the_transform_that_the_plan_names() {
    let bench = Bench::new(2);
    let from = |from| {
        let folder = tempfile::tempdir().unwrap();
        let mut plan = bench.plan().with_epochs(1);
        assert_eq!(plan.statistics_from, StatisticsFrom::Training);
        plan.statistics_from = from;
        bench.finish(plan, folder.path()).model
    };
    let training = from(StatisticsFrom::Training);
    let evaluation = from(StatisticsFrom::Evaluation);
    assert_eq!(training.weights, evaluation.weights);
    assert!(training.statistics != evaluation.statistics);
    assert_eq!(StatisticsFrom::of(&training), StatisticsFrom::Training);
    assert_eq!(evaluation.training["statistics_from"], "evaluation");

    let calibrated = |model: &Model, instances: &[Instance], given| {
        let mut model = model.clone();
        let mut options = CalibrateOptions::new(instances)
            .with_images(48)
            .with_seed(5);
        options.statistics_from = given;
        calibrate_model(&bench.ctx, &mut model, &bench.train, options, &mut Silent).unwrap();
        model
    };
    // All anew: by default as is usual for the preprocessing, and noted.
    let all: Vec<Instance> = evaluation.instances.iter().map(|r| r.instance).collect();
    let anew = calibrated(&evaluation, &all, None);
    assert!(anew.statistics != evaluation.statistics);
    assert_eq!(StatisticsFrom::of(&anew), StatisticsFrom::Training);
    let kept = calibrated(&evaluation, &all, Some(StatisticsFrom::Evaluation));
    assert_eq!(StatisticsFrom::of(&kept), StatisticsFrom::Evaluation);
    // Added instances follow those that stay.
    let new = ["1@0.35".parse::<Instance>().unwrap()];
    for (model, default) in [
        (&training, StatisticsFrom::Training),
        (&evaluation, StatisticsFrom::Evaluation),
    ] {
        let own = |model: &Model| model.statistics.own(new[0]).unwrap().1.to_vec();
        let added = own(&calibrated(model, &new, None));
        assert_eq!(added, own(&calibrated(model, &new, Some(default))));
        let other = match default {
            StatisticsFrom::Training => StatisticsFrom::Evaluation,
            StatisticsFrom::Evaluation => StatisticsFrom::Training,
        };
        assert_ne!(added, own(&calibrated(model, &new, Some(other))));
    }
    // What does not say it: older models, and imported ones.
    let mut older = evaluation.clone();
    older.training = serde_json::Value::Null;
    assert_eq!(StatisticsFrom::of(&older), StatisticsFrom::Evaluation);
    older.instances.truncate(1);
    assert_eq!(StatisticsFrom::of(&older), StatisticsFrom::Training);
    older.preprocessing.train = TrainTransform::RandomResizedCrop {
        area: [0.08, 1.0],
        aspect: [0.75, 1.33],
        flip: true,
    };
    assert_eq!(StatisticsFrom::of(&older), StatisticsFrom::Evaluation);
}

#[test]
fn choices_come_from_images_held_out_of_training() {
    let bench = Bench::new(2);
    let folder = tempfile::tempdir().unwrap();
    let plan = bench.plan().with_epochs(2).with_val_share(0.25);
    let how = plan.held_out().unwrap();
    let parts = bench.train.hold_out(&how).unwrap();
    let held_out = parts.held_out.len();
    assert!((14..38).contains(&held_out), "{held_out}");
    assert_eq!(parts.train.len() + held_out, 104);

    let finished = bench.finish(plan.clone(), folder.path());
    let model = Model::load(folder.path().join(folder::MODEL)).unwrap();
    assert_eq!(model, finished.model);
    assert_eq!(model.held_out, Some(how));
    let checkpoint = Checkpoint::read(folder.path()).unwrap();
    assert_eq!(checkpoint.counters.held_out, held_out);
    let steps = parts.train.len().div_ceil(16);
    assert_eq!(checkpoint.counters.steps_per_epoch, steps);

    // The recorded accuracies are those on the held-out images.
    let network = Arc::new(model.network.clone());
    let instances: Vec<Instance> = model.instances.iter().map(|r| r.instance).collect();
    let measured = |data: &Dataset| {
        let trained = Trained {
            network: &network,
            weights: &model.weights,
            statistics: &model.statistics,
        };
        let feed = Feed {
            data,
            preprocessing: &model.preprocessing,
            batch_size: 16,
        };
        let options = EvaluateOptions::new(&instances);
        evaluate(&bench.ctx, trained, feed, options, &mut Silent).unwrap()
    };
    let (chosen_by, reported) = (measured(&parts.held_out), measured(&bench.test));
    assert_eq!(finished.evaluation, reported);
    for (record, (val, test)) in std::iter::zip(
        &model.instances,
        std::iter::zip(&chosen_by.records, &reported.records),
    ) {
        assert_eq!(record.scores(), val.scores());
        assert_eq!(record.test, test.scores());
        assert_eq!(record.reported(), test.scores());
    }
    let csv = fs::read_to_string(folder.path().join(folder::CURVE_CSV)).unwrap();
    assert!(csv.contains("loss,val_top1,val_top5,val_loss\n"), "{csv}");

    // Training on the other images alone, with none held out, is the same.
    let other = tempfile::tempdir().unwrap();
    let run = Run::new(&bench.ctx, &parts.train, &bench.test, other.path());
    let alone = self::finished(run.start(plan.clone().with_val_share(0.0), &mut Silent));
    assert_eq!(alone.model.weights, model.weights);
    assert_eq!(alone.model.statistics, model.statistics);
    assert_eq!(alone.model.held_out, None);
    for record in &alone.model.instances {
        assert_eq!(record.test, None);
        assert_eq!(record.scores(), model.record(record.instance).unwrap().test);
    }

    // Another seed of the choice alone.
    let mut other = plan.clone();
    other.val_seed = Some(plan.seed + 1);
    assert_ne!(other.held_out(), Some(how));
    other.seed += 1;
    other.val_seed = Some(plan.seed);
    assert_eq!(other.held_out(), Some(how));

    // Interrupted, with other threads, it ends with the same bytes.
    let bench = Bench::new(1);
    let again = tempfile::tempdir().unwrap();
    let run = bench.run(again.path());
    run.start(plan.clone(), &mut StopAt::step(3)).unwrap();
    let checkpoint = Checkpoint::read(again.path()).unwrap();
    finished_run(
        run.resume(checkpoint, &mut Silent),
        folder.path(),
        again.path(),
    );
    for share in [-0.1, 0.6, f64::NAN] {
        let plan = plan.clone().with_val_share(share);
        let error = run.with_overwrite(true).start(plan, &mut Silent);
        let error = error.unwrap_err().to_string();
        assert!(error.contains("held out of training"), "{error}");
    }
}

/// Images that changed under the same number of them are noticed, and a run
/// of an older version goes on without.
#[test]
fn other_images_are_refused_when_a_run_goes_on() {
    let bench = Bench::new(2);
    let folder = tempfile::tempdir().unwrap();
    let run = bench.run(folder.path());
    run.start(bench.plan(), &mut StopAt::step(3)).unwrap();
    let checkpoint = || Checkpoint::read(folder.path()).unwrap();

    let options = |seed, test| {
        let mut options = OpenOptions::default();
        options.shapes_seed = seed;
        options.shapes_train = 104;
        options.shapes_test = test;
        options
    };
    let other = |seed, test| open_pair(&Source::Shapes, &options(seed, test)).unwrap();
    for (changed, what) in [
        (other(1, 40), "the training and the test images"),
        ((other(1, 40).0, other(0, 40).1), "the training images"),
        ((other(0, 40).0, other(0, 50).1), "the test images"),
    ] {
        let run = Run::new(&bench.ctx, &changed.0, &changed.1, folder.path());
        let error = run.resume(checkpoint(), &mut Silent).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, TrainError::ImagesChanged(_)), "{text}");
        assert!(text.contains(what), "{what}: {text}");
    }
    // A run of an older version has no digest; once it went on, it has one.
    let changed = other(1, 40);
    let other = Run::new(&bench.ctx, &changed.0, &changed.1, folder.path());
    let mut older = checkpoint();
    older.counters.data = None;
    other.resume(older, &mut StopAt::step(4)).unwrap();
    assert!(run.resume(checkpoint(), &mut Silent).is_err());
    assert!(other.resume(checkpoint(), &mut Silent).is_ok());
}

#[test]
fn a_plan_has_the_usual_settings_for_its_data() {
    let (train, _) = data();
    let network = zoo::build("preresnet8", train.classes().len()).unwrap();
    let plan = TrainPlan::new(network.clone(), &train).unwrap();
    plan.check().unwrap();
    assert_eq!(plan.data, "shapes");
    assert_eq!(plan.classes, train.classes());
    assert_eq!(plan.preprocessing.size, [32, 32]);
    assert_eq!(plan.recipe, Preset::CifarCosine.recipe().with_epochs(12));
    assert_eq!(plan.ratios, Ratio::DEFAULT);
    assert_eq!(plan.val_share, VAL_SHARE);
    assert_eq!((plan.method, plan.seed), (Method::SdPoint, 0));

    let large = plan.preprocessing.clone().with_size([224, 224]);
    let plan = TrainPlan::with_preprocessing(network, &train, large);
    assert_eq!(plan.recipe, Preset::Imagenet.recipe().with_epochs(12));
    let plan = plan.with_method(Method::Sandwich);
    assert_eq!(plan.distill, 1.0);
    assert_eq!(plan.with_method(Method::Plain).distill, 0.0);
}

#[test]
fn a_model_keeps_what_calibrating_other_instances_does_not_touch() {
    let bench = Bench::new(2);
    let folder = tempfile::tempdir().unwrap();
    let plan = bench.plan().with_epochs(1);
    let trained = bench.finish(plan, folder.path()).model;
    let mut model = trained.clone();

    // A combination fitted to the instances that are there.
    let members: Vec<Instance> = model.instances.iter().map(|r| r.instance).collect();
    let network = Arc::new(model.network.clone());
    let feed = Feed::for_model(&model, &bench.test).unwrap();
    assert!(feed.batch_size >= 1 && feed.batch_size <= 128);
    let options = FitOptions::new(&members)
        .with_ensembles(&[9.0])
        .with_seed(1);
    let view = Trained {
        network: &network,
        weights: &model.weights,
        statistics: &model.statistics,
    };
    let fitted = fit_combinations(&bench.ctx, view, feed, options, &mut Silent).unwrap();
    assert_eq!((fitted.images, fitted.skipped), (40, 0));
    model.combinations = fitted.records;
    let combined = model.combinations.clone();

    let calibrated = |mut model: Model, instances: &[Instance]| {
        let options = CalibrateOptions::new(instances).with_images(48);
        calibrate_model(&bench.ctx, &mut model, &bench.train, options, &mut Silent).unwrap();
        model
    };
    let new = model.network.instances(&["0.35".parse().unwrap()]);
    let added = calibrated(model.clone(), &new[1..]);
    assert_eq!(added.combinations, combined);
    for record in &trained.instances {
        assert_eq!(added.record(record.instance), Some(record));
        let own = |model: &Model| model.statistics.own(record.instance).unwrap().1.to_vec();
        assert_eq!(own(&added), own(&trained));
    }
    for &instance in &new[1..] {
        let record = added.record(instance).unwrap();
        assert!(record.top1.is_none() && record.macs > 0);
        assert!(added.statistics.contains(instance));
    }
    assert!(added.instances.is_sorted_by_key(|record| record.instance));

    // Calibrating an instance anew makes its accuracy and its combinations void.
    let again = calibrated(model.clone(), &members[1..2]);
    assert_eq!(again.record(members[1]).unwrap().top1, None);
    assert_eq!(again.record(members[2]), trained.record(members[2]));
    let has = |c: &Combination| c.members().contains(&members[1]);
    assert!(
        !again
            .combinations
            .iter()
            .any(|record| has(&record.combination))
    );

    // An error leaves the model as it was.
    let absent: Instance = "9@0.5".parse().unwrap();
    let mut same = model.clone();
    let options = CalibrateOptions::new(std::slice::from_ref(&absent));
    let result = calibrate_model(&bench.ctx, &mut same, &bench.train, options, &mut Silent);
    assert!(matches!(result, Err(TrainError::Shape(_))), "{result:?}");
    assert_eq!(same, model);
}

#[test]
fn a_run_can_start_from_a_model() {
    let bench = Bench::new(2);
    let [first, second] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let model = bench
        .finish(bench.plan().with_epochs(1), first.path())
        .model;
    let (network, weights) = fine_tune(&model, model.classes.len(), 0).unwrap();
    let mut plan =
        TrainPlan::with_preprocessing(network, &bench.train, model.preprocessing.clone())
            .with_epochs(1);
    plan.recipe.batch_size = 16;
    plan.init = Some(Init::new("model.safetensors", &model));
    let run = bench.run(second.path());
    let outcome = run.start_from(plan.clone(), weights, &mut Silent).unwrap();
    let finished = outcome.finished().expect("nothing stopped it");
    assert_eq!(
        finished.model.training["init"]["model"],
        "model.safetensors"
    );

    let other = initial_weights(&zoo::build("preresnet8", 7).unwrap(), 0);
    let run = run.with_overwrite(true);
    let error = run.start_from(plan, other, &mut Silent).unwrap_err();
    assert!(error.to_string().contains("initial weights"), "{error}");
}
