//! Runs whose steps train several instances, or other ones in the course of the
//! run.

use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use sdpoint_core::{Instance, Preprocessing, TrainTransform, Weights, zoo};
use sdpoint_data::{Dataset, Epoch, Loader, OpenOptions, Source, open_pair};
use sdpoint_engine::{
    Branch, BranchedInput, Context, Distillation, Images, InstanceMacs, Sgd, SgdStep, Target,
    TrainingEngine, initial_weights,
};
use sdpoint_train::{
    Branching, Checkpoint, Draw, EpochMetrics, Method, Observer, Outcome, Phases, Preset, Progress,
    Run, Silent, TrainPlan, folder,
};

/// Steps in an epoch of 104 images: six of 16 and a rest of 8.
const AN_EPOCH: u64 = 7;

struct Bench {
    ctx: Arc<Context>,
    train: Dataset,
    test: Dataset,
}

impl Bench {
    fn new(threads: usize) -> Self {
        let mut options = OpenOptions::default();
        options.shapes_train = 104;
        options.shapes_test = 40;
        let (train, test) = open_pair(&Source::Shapes, &options).unwrap();
        Self {
            ctx: Arc::new(Context::new(NonZeroUsize::new(threads)).unwrap()),
            train,
            test,
        }
    }

    fn plan(&self, method: Method) -> TrainPlan {
        let network = zoo::build("preresnet8", self.train.classes().len()).unwrap();
        let preprocessing = Preprocessing {
            train: TrainTransform::PadCrop {
                padding: 2,
                flip: true,
            },
            ..Preprocessing::new([16, 16], vec![0.5; 3], vec![0.25; 3])
        };
        let mut plan = TrainPlan::with_preprocessing(network, &self.train, preprocessing)
            .with_recipe(Preset::CifarCosine.recipe().with_epochs(3))
            .with_method(method)
            .with_seed(5);
        plan.recipe.batch_size = 16;
        plan.calibration_images = 48;
        plan.val_share = 0.0;
        plan
    }

    fn run<'a>(&'a self, folder: &'a Path) -> Run<'a> {
        Run::new(&self.ctx, &self.train, &self.test, folder)
    }

    fn finish(&self, plan: TrainPlan) -> Results {
        let folder = tempfile::tempdir().unwrap();
        let outcome = self.run(folder.path()).start(plan, &mut Silent).unwrap();
        assert!(outcome.finished().is_some());
        Results::read(folder.path())
    }
}

/// What must not depend on interruptions and threads.
#[derive(Debug, PartialEq)]
struct Results {
    model: Vec<u8>,
    metrics: Vec<EpochMetrics>,
}

impl Results {
    fn read(folder: &Path) -> Self {
        let text = fs::read_to_string(folder.join(folder::METRICS)).unwrap();
        let metrics = text.lines().map(|line| {
            let mut metrics: EpochMetrics = serde_json::from_str(line).unwrap();
            metrics.seconds = 0.0;
            metrics.images_per_second = 0.0;
            metrics.data_wait_seconds = 0.0;
            metrics
        });
        Self {
            model: fs::read(folder.join(folder::MODEL)).unwrap(),
            metrics: metrics.collect(),
        }
    }
}

/// Stops after some steps.
struct StopAt(u64, bool);

impl Observer for StopAt {
    fn step(&mut self, progress: &Progress) {
        self.1 |= progress.step >= self.0;
    }

    fn stop_requested(&self) -> bool {
        self.1
    }
}

/// A plan with every setting of this kind.
fn elaborate(bench: &Bench) -> TrainPlan {
    let mut plan = bench.plan(Method::Branched);
    plan.draw = "menu:0@0.5=0.3,1@0.75=0.5".parse().unwrap();
    plan.phases = Phases::default().with_shrink_after(0.2);
    plan.branching.branches = 3;
    plan.branching.weight = 0.8;
    plan.branching.temperature = 2.0;
    plan.branching.ramp = 0.5;
    plan.distill = 0.4;
    plan.dropout = 0.2;
    plan.stochastic_depth = 0.3;
    plan.scales = vec![[12, 12]];
    plan
}

#[test]
fn a_branched_run_depends_on_its_plan_alone() {
    let bench = Bench::new(1);
    let whole = bench.finish(elaborate(&bench));

    let bench = Bench::new(3);
    let folder = tempfile::tempdir().unwrap();
    let run = bench.run(folder.path());
    run.start(elaborate(&bench), &mut StopAt(10, false))
        .unwrap();
    let checkpoint = Checkpoint::read(folder.path()).unwrap();
    assert_eq!(checkpoint.plan, elaborate(&bench));
    let outcome = run.resume(checkpoint, &mut Silent).unwrap();
    assert!(outcome.finished().is_some());
    assert!(Results::read(folder.path()) == whole);

    // Each setting changes the run.
    let without: [fn(&mut TrainPlan); 9] = [
        |plan| plan.draw = Draw::Uniform,
        |plan| plan.phases.shrink_after = 0.0,
        |plan| plan.branching.branches = 2,
        |plan| plan.branching.weight = 1.0,
        |plan| plan.branching.temperature = 1.0,
        |plan| plan.branching.ramp = 0.0,
        |plan| plan.distill = 0.0,
        |plan| plan.dropout = 0.0,
        |plan| plan.stochastic_depth = 0.0,
    ];
    for (index, change) in without.into_iter().enumerate() {
        let mut plan = elaborate(&bench);
        change(&mut plan);
        assert!(bench.finish(plan).model != whole.model, "setting {index}");
    }
}

#[test]
fn a_branched_step_updates_with_the_gradients_of_its_loss() {
    let bench = Bench::new(1);
    let mut plan = bench.plan(Method::Branched);
    assert_eq!((plan.distill, plan.branching), (0.5, Branching::default()));
    plan.recipe.label_smoothing = 0.1;
    let folder = tempfile::tempdir().unwrap();
    let run = bench.run(folder.path());
    run.start(plan.clone(), &mut StopAt(1, false)).unwrap();

    let first = Epoch {
        seed: plan.seed,
        number: 0,
        first_batch: 0,
    };
    let mut loader = Loader::train(&bench.train, &plan.preprocessing, 16, 1, first).unwrap();
    let batch = loader.next().unwrap().unwrap();
    let network = Arc::new(plan.network.clone());
    let sampler = plan.sampler(3 * AN_EPOCH).unwrap();
    let drawn = sampler.of_step(0);
    assert_eq!(drawn.len(), 5);
    let branches: Vec<Branch> = (drawn[1..].iter().enumerate())
        .map(|(part, &index)| Branch {
            instance: sampler.probabilities()[index].0,
            images: 4 * part..4 * (part + 1),
        })
        .collect();
    let mut weights = initial_weights(&network, plan.seed);
    let mut engine = TrainingEngine::new(bench.ctx.clone(), network.clone());
    let outcome = engine
        .step_branched(BranchedInput {
            weights: &weights,
            images: Images {
                data: &batch.images,
                batch: batch.len(),
                size: batch.size,
            },
            target: Target::labels(&batch.labels).with_smoothing(0.1),
            branches: &branches,
            distillation: Distillation {
                weight: 1.0,
                // The first of 7 steps of the ramp.
                share: (0.5 / 7.0) as f32,
                temperature: 1.0,
            },
        })
        .unwrap();
    let mut momentum = Weights::zeros(&network);
    Sgd::new(&network, plan.recipe.sgd_options()).step(
        &bench.ctx,
        SgdStep {
            weights: &mut weights,
            momentum: &mut momentum,
            gradients: engine.gradients(),
            rate: plan.recipe.rate_at(0, AN_EPOCH as usize) as f32,
        },
    );
    let checkpoint = Checkpoint::read(folder.path()).unwrap();
    assert_eq!(checkpoint.weights, weights);
    let loss = outcome.full.loss * batch.len() as f64;
    assert_eq!(checkpoint.counters.epoch.loss, loss);
    let work = InstanceMacs::new(&network, [16, 16], branches.iter().map(|b| b.instance)).unwrap();
    let macs = branches
        .iter()
        .map(|b| 4 * work.branch_training(b.instance));
    let macs = 16 * work.training(Instance::Full) + macs.sum::<u64>();
    assert_eq!(checkpoint.counters.macs, macs);
}

/// The metrics have the work of every step; a step of late shrinking is one of
/// plain training.
#[test]
fn work_is_counted_and_shrinking_begins_late() {
    let bench = Bench::new(2);
    let images = 104;
    for method in [
        Method::Plain,
        Method::SdPoint,
        Method::Sandwich,
        Method::Branched,
    ] {
        let mut plan = bench.plan(method);
        if method != Method::Plain {
            plan.phases = Phases::default().with_shrink_after(1.0 / 3.0);
        }
        let results = bench.finish(plan.clone());
        let sampler = plan.sampler(3 * AN_EPOCH).unwrap();
        let instances: Vec<Instance> = sampler.instances().collect();
        let work = InstanceMacs::new(&plan.network, [16, 16], instances.clone()).unwrap();
        for (epoch, metrics) in results.metrics.iter().enumerate() {
            let mut macs = 0;
            for step in 0..AN_EPOCH {
                let batch = if step == 6 { 8 } else { 16 };
                let indices = sampler.of_step(epoch as u64 * AN_EPOCH + step);
                let mut drawn = indices.iter().map(|&index| instances[index]);
                if method == Method::Branched {
                    macs += batch * work.training(drawn.next().unwrap());
                    // The rest of an epoch has two branches of four images.
                    let parts = indices.len().min(batch as usize / 4 + 1) - 1;
                    let all = drawn.take(parts).map(|i| work.branch_training(i));
                    macs += batch / parts.max(1) as u64 * all.sum::<u64>();
                } else {
                    macs += batch * drawn.map(|i| work.training(i)).sum::<u64>();
                }
            }
            assert_eq!(metrics.macs, macs, "{method} epoch {}", epoch + 1);
            if epoch == 0 {
                assert_eq!(macs, images * work.training(Instance::Full), "{method}");
                assert_eq!(metrics.drawn[&Instance::Full], AN_EPOCH);
            }
        }
        let last: u64 = results.metrics[2].drawn.values().sum();
        match method {
            Method::Branched => assert_eq!(last, 6 * 5 + 3),
            Method::Sandwich => assert!(last > 2 * AN_EPOCH),
            _ => assert_eq!(last, AN_EPOCH),
        }
    }
}

/// An instance for each part of the batch: the same as a step for each part, with
/// the mean of the gradients over all images.
#[test]
fn every_part_of_a_batch_may_have_its_instance() {
    let bench = Bench::new(1);
    let plan = changed(bench.plan(Method::SdPoint), |plan| plan.parts = 4);
    let results = bench.finish(plan.clone());
    let threads = Bench::new(3);
    let folder = tempfile::tempdir().unwrap();
    let run = threads.run(folder.path());
    run.start(plan.clone(), &mut StopAt(9, false)).unwrap();
    let checkpoint = Checkpoint::read(folder.path()).unwrap();
    run.resume(checkpoint, &mut Silent).unwrap();
    assert!(Results::read(folder.path()) == results);
    let counted: u64 = results.metrics.iter().map(|metrics| metrics.macs).sum();
    assert_eq!(counted, plan.training_macs(104).unwrap());
    // Six batches of four parts, and one of eight images in two.
    let drawn: u64 = results.metrics[0].drawn.values().sum();
    assert_eq!(drawn, 6 * 4 + 2);

    // With one instance alone, only the statistics of the parts differ from a step
    // on the whole batch; with its parts' outcomes, the loss is that of all images.
    let only = |parts: usize| {
        let mut plan = bench.plan(Method::SdPoint);
        plan.draw = "menu:0@0.5=1".parse().unwrap();
        plan.parts = parts;
        bench.finish(plan).metrics[0].train_loss
    };
    let (whole, parts) = (only(1), only(2));
    assert!(
        whole != parts && (whole - parts).abs() < 0.2 * whole,
        "{whole} {parts}"
    );
}

/// Branches on smaller images are full steps of their own, with the mean of their
/// gradients added.
#[test]
fn branches_may_be_smaller_images() {
    let bench = Bench::new(1);
    let mut plan = bench.plan(Method::Branched);
    plan.branch_scales = vec![[8, 8], [12, 12]];
    plan.branching.branches = 2;
    let results = bench.finish(plan.clone());
    let threads = Bench::new(3);
    let folder = tempfile::tempdir().unwrap();
    let run = threads.run(folder.path());
    run.start(plan.clone(), &mut StopAt(9, false)).unwrap();
    let checkpoint = Checkpoint::read(folder.path()).unwrap();
    let outcome = run.resume(checkpoint, &mut Silent).unwrap();
    let finished = outcome.finished().unwrap();
    assert!(Results::read(folder.path()) == results);
    assert_eq!(finished.model.training["branch_scales"][1][0], 12);
    assert_eq!(finished.drawn[0].1, 3 * AN_EPOCH, "full in every step");
    assert!(finished.drawn[1..].iter().all(|drawn| drawn.1 == 0));
    let counted: u64 = results.metrics.iter().map(|metrics| metrics.macs).sum();
    assert_eq!(counted, plan.training_macs(104).unwrap());
    let labels_alone = bench.finish(changed(plan.clone(), |plan| plan.distill = 0.0));
    assert!(labels_alone.model != results.model);
    let lighter = bench.finish(changed(plan, |plan| plan.branching.weight = 0.5));
    assert!(lighter.model != results.model);
}

fn changed(mut plan: TrainPlan, change: impl FnOnce(&mut TrainPlan)) -> TrainPlan {
    change(&mut plan);
    plan
}

#[test]
fn settings_that_do_not_fit_are_refused() {
    let bench = Bench::new(1);
    let refused = |method: Method, part: &str, change: fn(&mut TrainPlan)| {
        let mut plan = bench.plan(method);
        plan.check().unwrap();
        change(&mut plan);
        let error = plan.check().unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    };
    let branched = Method::Branched;
    refused(branched, "branches", |p| p.branching.branches = 0);
    refused(branched, "branches", |p| p.branching.branches = 65);
    refused(branched, "weight of the branches", |p| {
        p.branching.weight = f64::NAN;
    });
    refused(branched, "temperature", |p| p.branching.temperature = 0.0);
    refused(branched, "ramp", |p| p.branching.ramp = 1.5);
    refused(branched, "distillation", |p| p.distill = 1.5);
    refused(branched, "sdpoint", |p| p.phases.full_at_end = Some(0.5));
    refused(branched, "exits", |p| p.exits = true);
    refused(Method::SdPoint, "branched", |p| p.branching.branches = 2);
    refused(Method::SdPoint, "before shrinking", |p| {
        p.phases.shrink_after = 1.0;
    });
    refused(Method::SdPoint, "from 0 to 1", |p| {
        p.phases.full_at_end = Some(1.5);
    });
    refused(branched, "needs the method sdpoint", |p| p.parts = 2);
    refused(Method::SdPoint, "parts of a batch is 0", |p| p.parts = 0);
    refused(Method::SdPoint, "branched", |p| {
        p.branch_scales = vec![[8, 8]];
    });
    refused(branched, "larger than the input", |p| {
        p.branch_scales = vec![[8, 17]];
    });
    refused(branched, "temperature must be 1", |p| {
        p.branch_scales = vec![[8, 8]];
        p.branching.temperature = 2.0;
    });
    refused(Method::Plain, "plain", |p| p.phases.shrink_after = 0.5);
    refused(Method::SdPoint, "0@0.6", |p| {
        p.draw = "menu:0@0.6=0.5".parse().unwrap();
    });
}

#[test]
fn the_recommended_method_is_a_plan_like_any_other() {
    let bench = Bench::new(2);
    let plan = bench.plan(Method::SdPoint).with_sdpoint_plus().unwrap();
    assert_eq!(plan.method, Method::SdPoint);
    let menu = "menu:full=0.16,0@0.5=0.16,0@0.6=0.16,0@0.75=0.16,1@0.75=0.16";
    assert_eq!(plan.draw.to_string(), menu);
    plan.check().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let outcome = bench.run(folder.path()).start(plan, &mut Silent).unwrap();
    let Outcome::Finished(finished) = outcome else {
        panic!("nothing stops it")
    };
    assert_eq!(finished.model.training["method"], "sdpoint");
    assert_eq!(finished.model.training["draw"], menu);
    let drawn = |name: &str| {
        let instance = name.parse().unwrap();
        let found = finished.drawn.iter().find(|entry| entry.0 == instance);
        found.unwrap().1
    };
    let all: u64 = finished.drawn.iter().map(|entry| entry.1).sum();
    assert_eq!(all, 3 * AN_EPOCH);
    assert_eq!(drawn("2@0.5"), 0, "the last point costs as much as full");
}
