//! Parameters of instances' own, trained after the network.

use std::num::NonZeroUsize;
use std::sync::Arc;

use sdpoint_core::{Cascade, Combination, CombinedRecord, Instance, Model, zoo};
use sdpoint_data::{Dataset, OpenOptions, Source, open_pair};
use sdpoint_engine::Context;
use sdpoint_train::{
    CalibrateOptions, EvaluateOptions, Feed, Method, Observer, Preset, Run, Silent, StatisticsFrom,
    TrainError, TrainPlan, Trained, TuneOptions, calibrate_model, evaluate, tune_model,
};

struct Bench {
    ctx: Arc<Context>,
    train: Dataset,
    test: Dataset,
}

impl Bench {
    fn new(threads: usize) -> Self {
        let mut options = OpenOptions::default();
        options.shapes_train = 1500;
        options.shapes_test = 300;
        let (train, test) = open_pair(&Source::Shapes, &options).unwrap();
        Self {
            ctx: Arc::new(Context::new(NonZeroUsize::new(threads)).unwrap()),
            train,
            test,
        }
    }

    /// A network that was trained in full alone, so that its other instances have
    /// much to gain.
    fn plain(&self) -> Model {
        let folder = tempfile::tempdir().unwrap();
        let network = zoo::build("preresnet8", self.train.classes().len()).unwrap();
        let mut plan = TrainPlan::new(network, &self.train)
            .unwrap()
            .with_recipe(Preset::CifarCosine.recipe().with_epochs(5))
            .with_method(Method::Plain);
        plan.recipe.batch_size = 32;
        plan.calibration_images = 300;
        plan.val_share = 0.0;
        plan.statistics_from = StatisticsFrom::Evaluation;
        let run = Run::new(&self.ctx, &self.train, &self.test, folder.path());
        let outcome = run.start(plan, &mut Silent).unwrap();
        outcome.finished().unwrap().model
    }

    /// The losses of instances on the test images.
    fn losses(&self, model: &Model, instances: &[Instance]) -> Vec<f64> {
        let trained = Trained {
            network: &Arc::new(model.network.clone()),
            weights: &model.weights,
            statistics: &model.statistics,
        };
        let feed = Feed::for_model(model, &self.test).unwrap();
        let options = EvaluateOptions::new(instances);
        let evaluation = evaluate(&self.ctx, trained, feed, options, &mut Silent).unwrap();
        evaluation.records.iter().map(|r| r.loss.unwrap()).collect()
    }
}

fn instances(names: &[&str]) -> Vec<Instance> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

#[test]
fn tuned_instances_get_better_and_the_others_stay() {
    let bench = Bench::new(2);
    let mut model = bench.plain();
    let tuned = instances(&["0@0.5", "1@0.5"]);
    model.combinations = [["full", "1@0.75"], ["0@0.5", "full"]]
        .map(|members| CombinedRecord {
            combination: Combination::Cascade(Cascade {
                first: members[0].parse().unwrap(),
                second: members[1].parse().unwrap(),
                threshold: 0.5,
            }),
            macs: 1,
            top1: 0.5,
            top5: 0.5,
            loss: 1.0,
            test: None,
        })
        .into();
    let before = model.clone();
    let options = TuneOptions::new(&tuned)
        .with_images(1500)
        .with_rate(0.1)
        .with_calibration_images(300);
    tune_model(&bench.ctx, &mut model, &bench.train, options, &mut Silent).unwrap();

    let (was, is) = (bench.losses(&before, &tuned), bench.losses(&model, &tuned));
    // Twelve steps, with a teacher that has only begun to learn.
    for (was, is) in std::iter::zip(&was, &is) {
        assert!(is < was, "{was} before, {is} after");
    }
    let sum = |losses: &[f64]| losses.iter().sum::<f64>();
    assert!(sum(&is) < 0.985 * sum(&was), "{was:?} before, {is:?} after");
    assert_eq!(model.weights, before.weights);
    assert_eq!(model.statistics.tuned().collect::<Vec<_>>(), tuned);
    for record in &before.instances {
        let instance = record.instance;
        if tuned.contains(&instance) {
            assert_eq!(model.record(instance).unwrap().top1, None);
            assert_ne!(
                model.statistics.own(instance),
                before.statistics.own(instance)
            );
        } else {
            assert_eq!(model.record(instance), Some(record));
            assert_eq!(
                model.statistics.own(instance),
                before.statistics.own(instance)
            );
        }
    }
    assert_eq!(model.combinations, before.combinations[..1]);

    // The number of threads makes no difference.
    let other = Bench::new(1);
    let mut again = before.clone();
    tune_model(&other.ctx, &mut again, &other.train, options, &mut Silent).unwrap();
    assert_eq!(again, model);

    // Another pass starts from the parameters that are there; new statistics of
    // the shared parameters leave none.
    tune_model(&bench.ctx, &mut again, &bench.train, options, &mut Silent).unwrap();
    assert_ne!(again.statistics, model.statistics);
    let options = CalibrateOptions::new(&tuned).with_images(300);
    calibrate_model(&bench.ctx, &mut again, &bench.train, options, &mut Silent).unwrap();
    assert_eq!(again.statistics.tuned().count(), 0);
    let mut fresh = before;
    calibrate_model(&bench.ctx, &mut fresh, &bench.train, options, &mut Silent).unwrap();
    assert_eq!(again.statistics, fresh.statistics);
}

struct Impatient;

impl Observer for Impatient {
    fn stop_requested(&self) -> bool {
        true
    }
}

#[test]
fn what_cannot_be_tuned_leaves_the_model_as_it_was() {
    let bench = Bench::new(1);
    let mut model = bench.plain();
    let before = model.clone();
    let mut refused = |names: &[&str], change: fn(&mut TuneOptions<'_>), part: &str| {
        let instances = instances(names);
        let mut options = TuneOptions::new(&instances).with_images(64);
        change(&mut options);
        let tuned = tune_model(&bench.ctx, &mut model, &bench.train, options, &mut Silent);
        let error = tuned.unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
        assert_eq!(model, before);
    };
    refused(&["0@0.5", "full"], |_| {}, "full");
    refused(&["0@0.6"], |_| {}, "0@0.6");
    refused(&["0@0.5"], |o| o.images = 0, "one image");
    refused(&["0@0.5"], |o| o.rate = 0.0, "rate");
    refused(&["0@0.5"], |o| o.distill = 1.5, "distillation");
    refused(&["0@0.5"], |o| o.rate = 1e30, "lower learning rate");
    let tuned = instances(&["0@0.5"]);
    let options = TuneOptions::new(&tuned);
    let error = tune_model(
        &bench.ctx,
        &mut model,
        &bench.train,
        options,
        &mut Impatient,
    );
    assert!(matches!(error, Err(TrainError::Stopped)));
    assert_eq!(model, before);
}
