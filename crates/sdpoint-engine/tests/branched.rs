//! Training steps of `full` and of branches, compared with separate steps, with
//! finite differences, and with the predicted work.

mod support;

use std::num::NonZeroUsize;
use std::sync::Arc;

use chacha20::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use sdpoint_core::{
    Conv, Instance, Network, NetworkBuilder, Op, PointId, Ratio, Weights, Window, zoo,
};
use sdpoint_engine::{
    Branch, BranchedInput, BranchedOutcome, Context, Distillation, EngineError, Images,
    InstanceMacs, Isa, Noise, Pass, StepInput, StepOutcome, StepTime, Target, TrainingEngine,
    initial_weights, softmax,
};
use support::networks::{NAMES, network};
use support::{Oracle, assert_close, assert_gradients, context};

const CLASSES: usize = 10;

/// A batch of random images with labels, for a network with random weights.
struct Bench {
    network: Arc<Network>,
    weights: Weights,
    data: Vec<f32>,
    labels: Vec<u32>,
    size: [usize; 2],
}

impl Bench {
    fn new(network: Network, batch: usize, side: usize) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(11);
        let mut weights = initial_weights(&network, 4);
        for weight in weights.0.iter_mut().flatten() {
            *weight += rng.random_range(-0.05..0.05);
        }
        let values = batch * side * side * network.input_channels();
        Self {
            data: (0..values).map(|_| rng.random_range(-1.0..1.0)).collect(),
            labels: (0..batch).map(|i| (i * 7 % CLASSES) as u32).collect(),
            size: [side; 2],
            network: Arc::new(network),
            weights,
        }
    }

    fn images(&self) -> Images<'_> {
        Images {
            data: &self.data,
            batch: self.labels.len(),
            size: self.size,
        }
    }

    fn target(&self) -> Target<'_> {
        Target::labels(&self.labels).with_smoothing(0.1)
    }

    fn input<'a>(
        &'a self,
        branches: &'a [Branch],
        distillation: Distillation,
    ) -> BranchedInput<'a> {
        BranchedInput {
            weights: &self.weights,
            images: self.images(),
            target: self.target(),
            branches,
            distillation,
        }
    }

    /// A step of a single instance.
    fn alone(
        &self,
        engine: &mut TrainingEngine,
        target: Target<'_>,
        instance: Instance,
    ) -> (StepOutcome, Weights) {
        let outcome = engine.step(StepInput {
            weights: &self.weights,
            images: self.images(),
            target,
            instance,
        });
        (outcome.unwrap(), engine.gradients().clone())
    }

    /// An instance of each point and a second one of some, each with all images.
    fn whole_batches(&self) -> Vec<Branch> {
        let instances = self.network.instances(&Ratio::DEFAULT);
        let branches = instances[1..].iter().copied();
        branches
            .enumerate()
            .filter(|(index, _)| index % 2 == 0 || index % 6 == 1)
            .map(|(_, instance)| instance)
            .map(|instance| Branch {
                instance,
                images: 0..self.labels.len(),
            })
            .collect()
    }

    /// A different instance for each of four parts of the batch.
    fn shards(&self) -> Vec<Branch> {
        let instances = self.network.instances(&Ratio::DEFAULT);
        let batch = self.labels.len();
        let shard = |s: usize| Branch {
            instance: instances[1 + (s * 7) % (instances.len() - 1)],
            images: s * batch / 4..(s + 1) * batch / 4,
        };
        (0..4).map(shard).collect()
    }
}

const HARD: Distillation = Distillation {
    weight: 1.0,
    share: 0.0,
    temperature: 1.0,
};

const WARM: Distillation = Distillation {
    weight: 0.7,
    share: 0.4,
    temperature: 2.5,
};

fn instance(name: &str) -> Instance {
    name.parse().unwrap()
}

/// The gradient of the cross-entropy with these targets is that of a branch's
/// loss: what the labels and the teacher's distribution pull towards, written as
/// a distribution for a step of the instance alone.
fn equivalent_targets(
    logits: &[f32],
    teacher: &[f32],
    target: Target<'_>,
    distillation: Distillation,
) -> Vec<f32> {
    let Distillation {
        share, temperature, ..
    } = distillation;
    let at = |logits: &[f32], temperature: f32| {
        let mut p: Vec<f32> = logits.iter().map(|z| z / temperature).collect();
        softmax(&mut p, CLASSES);
        p
    };
    let own = at(logits, 1.0);
    let (warm, taught) = (at(logits, temperature), at(teacher, temperature));
    let label = |row: usize, class: usize| {
        let hit = target.labels[row] as usize == class;
        target.smoothing / CLASSES as f32 + if hit { 1.0 - target.smoothing } else { 0.0 }
    };
    (0..logits.len())
        .map(|i| {
            let hard = own[i] - label(i / CLASSES, i % CLASSES);
            let soft = temperature * (warm[i] - taught[i]);
            own[i] - ((1.0 - share) * hard + share * soft)
        })
        .collect()
}

/// The loss of a branch by its definition.
fn branch_loss(
    logits: &[f32],
    teacher: &[f32],
    target: Target<'_>,
    distillation: Distillation,
) -> f64 {
    let Distillation {
        share, temperature, ..
    } = distillation;
    let t = f64::from(temperature);
    let log_softmax = |row: &[f32], t: f64| -> Vec<f64> {
        let sum: f64 = row.iter().map(|&z| (f64::from(z) / t).exp()).sum();
        row.iter().map(|&z| f64::from(z) / t - sum.ln()).collect()
    };
    let smoothing = f64::from(target.smoothing);
    let mut loss = 0.0;
    let rows = std::iter::zip(logits.chunks(CLASSES), teacher.chunks(CLASSES));
    for ((row, taught), &label) in std::iter::zip(rows, target.labels) {
        let own = log_softmax(row, 1.0);
        let mean: f64 = own.iter().sum::<f64>() / CLASSES as f64;
        let hard = -(1.0 - smoothing) * own[label as usize] - smoothing * mean;
        let pairs = std::iter::zip(log_softmax(taught, t), log_softmax(row, t));
        let divergence: f64 = pairs.map(|(p, q)| p.exp() * (p - q)).sum();
        loss += (1.0 - f64::from(share)) * hard + f64::from(share) * t * t * divergence;
    }
    loss / target.labels.len() as f64
}

/// With all images in every branch, the prefix is the same computation as in a
/// step of the instance alone, so the gradients are the weighted sum of those of
/// separate steps; for every kind of network and every instruction set.
#[test]
fn gradients_are_the_sum_of_separate_steps() {
    for isa in Isa::available() {
        let ctx = Arc::new(Context::with_isa(NonZeroUsize::new(2), isa).unwrap());
        for name in NAMES {
            let bench = Bench::new(network(name), 4, if name == "preresnet8" { 16 } else { 33 });
            let branches = bench.whole_batches();
            let mut engine = TrainingEngine::new(ctx.clone(), bench.network.clone());
            for distillation in [HARD, WARM] {
                let outcome = engine
                    .step_branched(bench.input(&branches, distillation))
                    .unwrap();
                let found = engine.gradients().0.concat();
                let teacher = engine.logits().to_vec();

                let (full, mut sum) = bench.alone(&mut engine, bench.target(), Instance::Full);
                assert_eq!(outcome.full, full, "{name} {isa}");
                for (branch, outcome) in std::iter::zip(&branches, &outcome.branches) {
                    let (alone, _) = bench.alone(&mut engine, bench.target(), branch.instance);
                    let logits = engine.logits().to_vec();
                    let loss = branch_loss(&logits, &teacher, bench.target(), distillation);
                    let what = format!("{name} {isa} {}", branch.instance);
                    assert!((outcome.loss - loss).abs() < 2e-5 * loss.max(1.0), "{what}");
                    assert_eq!(outcome.correct, alone.correct, "{what}");
                    let targets =
                        equivalent_targets(&logits, &teacher, bench.target(), distillation);
                    let target = Target {
                        soft: Some((&targets, 1.0)),
                        ..bench.target()
                    };
                    let (_, gradients) = bench.alone(&mut engine, target, branch.instance);
                    let share = distillation.weight / branches.len() as f32;
                    for (sum, part) in std::iter::zip(&mut sum.0, &gradients.0) {
                        for (sum, part) in std::iter::zip(sum, part) {
                            *sum += share * part;
                        }
                    }
                }
                assert_close(&found, &sum.0.concat(), 2e-4, &format!("{name} {isa}"));
            }
        }
    }
}

/// A network with a point of each kind: a stem pool, a block's sum, and a batch
/// norm with a ReLU behind it; convolutions and a classifier with biases.
fn every_kind() -> Network {
    let mut b = NetworkBuilder::new("net", 3);
    let x = b.conv("conv", b.input(), Conv::square(3, 6, 3, 1));
    let x = b.batch_norm("bn", x, 6);
    let x = b.relu("relu", x);
    let x = b.layer("pool", Op::MaxPool(Window::square(3, 2, 1)), &[x]);
    b.point(PointId::Stem, x);
    let y = b.conv("a", x, Conv::square(6, 6, 3, 1));
    let y = b.batch_norm("bn_a", y, 6);
    let x = b.add("sum", y, x);
    b.point(PointId::Block(0), x);
    let x = b.relu("relu_a", x);
    let biased = Conv {
        bias: true,
        ..Conv::square(6, 6, 3, 1)
    };
    let x = b.conv("b", x, biased);
    let x = b.batch_norm("bn_b", x, 6);
    b.point(PointId::Block(1), x);
    let x = b.relu("relu_b", x);
    let y = b.conv("c", x, biased);
    let x = b.add("sum_c", y, x);
    let x = b.layer("gap", Op::GlobalAvgPool, &[x]);
    let fc = Op::Linear {
        in_features: 6,
        out_features: CLASSES,
        bias: true,
    };
    b.layer("fc", fc, &[x]);
    b.finish().unwrap()
}

/// The total loss.
fn total(outcome: &BranchedOutcome, branches: &[Branch], weight: f32) -> f64 {
    let images: usize = branches.iter().map(|branch| branch.images.len()).sum();
    let parts = std::iter::zip(&outcome.branches, branches);
    let sum: f64 = parts
        .map(|(outcome, branch)| outcome.loss * branch.images.len() as f64)
        .sum();
    outcome.full.loss + f64::from(weight) * sum / images as f64
}

/// Each branch on its own part of the batch: gradients by finite differences of
/// the total loss, which hold without a teacher, as no gradient flows through
/// its predictions.
fn check_differences(noise: Option<Noise>) {
    let bench = Bench::new(every_kind(), 13, 12);
    let branches: Vec<Branch> = [
        ("1@0.5", 0..4),
        ("stem@0.75", 4..6),
        ("0@0.5", 6..10),
        ("0@0.75", 10..12),
    ]
    .map(|(name, images)| Branch {
        instance: instance(name),
        images,
    })
    .into();
    let distillation = Distillation {
        weight: 0.8,
        ..HARD
    };
    let mut engine = TrainingEngine::new(context(), bench.network.clone());
    if let Some(noise) = noise {
        engine = engine.with_noise(noise, 9);
        engine.set_noise_step(4);
    }
    let mut step = |weights: &Weights| {
        let outcome = engine
            .step_branched(BranchedInput {
                weights,
                ..bench.input(&branches, distillation)
            })
            .unwrap();
        let loss = total(&outcome, &branches, distillation.weight);
        (loss, engine.gradients().clone())
    };
    let (_, gradients) = step(&bench.weights);
    let norm = |v: &[f32]| v.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    let largest = gradients.0.iter().map(|g| norm(g)).fold(0.0, f64::max);
    let mut compared = 0;
    for (index, parameter) in bench.network.parameters().iter().enumerate() {
        let gradient = &gradients.0[index];
        let length = norm(gradient);
        // The gradient of a bias before a batch norm is zero up to rounding.
        if length < 1e-3 * largest {
            continue;
        }
        let distance = 2e-3;
        let mut at = |sign: f64| {
            let mut moved = bench.weights.clone();
            for (weight, &g) in moved.0[index].iter_mut().zip(gradient) {
                *weight += (sign * distance * f64::from(g) / length) as f32;
            }
            step(&moved).0
        };
        let slope = (at(1.0) - at(-1.0)) / (2.0 * distance);
        assert!(
            (slope - length).abs() < 0.03 * length + 1e-4,
            "{}: slope {slope:.5}, gradient says {length:.5}",
            parameter.name
        );
        compared += 1;
    }
    assert!(compared > 8, "only {compared} parameters");
}

#[test]
fn gradients_of_parts_of_the_batch() {
    check_differences(None);
}

#[test]
fn noise_in_branches() {
    check_differences(Some(Noise {
        dropout: 0.3,
        depth: 0.4,
    }));
}

#[test]
fn without_branches_it_is_a_step_of_full() {
    let bench = Bench::new(zoo::build("preresnet8", CLASSES).unwrap(), 8, 16);
    let mut engine = TrainingEngine::new(context(), bench.network.clone());
    let (alone, gradients) = bench.alone(&mut engine, bench.target(), Instance::Full);
    let logits = engine.logits().to_vec();
    let with_branches = engine.step_branched(bench.input(&bench.shards(), WARM));
    assert_eq!(with_branches.unwrap().full, alone);
    assert_eq!(engine.logits(), logits);
    let outcome = engine.step_branched(bench.input(&[], WARM)).unwrap();
    assert_eq!(outcome.full, alone);
    assert_eq!(*engine.gradients(), gradients);
    // A later step of a single instance does not notice.
    let again = bench.alone(&mut engine, bench.target(), Instance::Full);
    assert_eq!(again, (alone, gradients));
}

#[test]
fn the_number_of_threads_does_not_matter() {
    let bench = Bench::new(zoo::build("preresnet20", CLASSES).unwrap(), 16, 32);
    let branches = bench.shards();
    let results = [1, 2, 3].map(|threads| {
        let ctx = Arc::new(Context::new(NonZeroUsize::new(threads)).unwrap());
        let mut engine = TrainingEngine::new(ctx, bench.network.clone());
        let outcome = engine.step_branched(bench.input(&branches, WARM)).unwrap();
        (outcome, engine.gradients().clone())
    });
    assert_eq!(results[0], results[1]);
    assert_eq!(results[0], results[2]);
}

/// Multiply-accumulates of a pass, of the trunk or of the branches.
fn macs(steps: &[StepTime], pass: Pass, branches: bool) -> u64 {
    let of_branch = |step: &&StepTime| step.name.contains('@') == branches;
    let steps = steps.iter().filter(|step| step.pass == pass);
    steps.filter(of_branch).map(|step| step.macs).sum()
}

/// The profile of a step has every layer of `full` once, and of a branch the
/// layers after its point alone, for its own images: its sum is the predicted
/// work.
#[test]
fn common_layers_are_computed_once() {
    for name in NAMES {
        let bench = Bench::new(network(name), 8, if name == "preresnet8" { 16 } else { 33 });
        let branches = bench.shards();
        let mut engine = TrainingEngine::new(context(), bench.network.clone());
        let plain = engine.step_branched(bench.input(&branches, WARM)).unwrap();
        let gradients = engine.gradients().clone();
        let (outcome, steps) = engine
            .step_branched_timed(bench.input(&branches, WARM))
            .unwrap();
        assert_eq!(outcome, plain, "{name}");
        assert_eq!(*engine.gradients(), gradients, "{name}");

        let instances = branches.iter().map(|branch| branch.instance);
        let work = InstanceMacs::new(&bench.network, bench.size, instances).unwrap();
        let batch = bench.labels.len() as u64;
        assert_eq!(
            macs(&steps, Pass::Forward, false),
            batch * work.macs(Instance::Full)
        );
        let mut predicted = batch * work.training(Instance::Full);
        for Branch { instance, images } in &branches {
            let start = format!("{instance}: ");
            let own: Vec<&StepTime> = steps
                .iter()
                .filter(|step| step.name.starts_with(&start) && step.pass == Pass::Forward)
                .collect();
            let point = bench.network.point(instance.point().unwrap()).unwrap();
            // Downsampling has the layer of the point.
            assert!(own.iter().all(|step| step.layer >= point.layer()), "{name}");
            let predicted_own = images.len() as u64 * work.branch_training(*instance);
            assert_eq!(
                3 * own.iter().map(|step| step.macs).sum::<u64>(),
                predicted_own,
                "{name} {instance}"
            );
            predicted += predicted_own;
        }
        let counted: u64 = [Pass::Forward, Pass::BackwardWeights, Pass::BackwardData]
            .into_iter()
            .flat_map(|pass| [macs(&steps, pass, false), macs(&steps, pass, true)])
            .sum();
        assert_eq!(counted, predicted, "{name}");
    }
}

#[test]
fn what_cannot_be_a_branch_is_an_error() {
    let bench = Bench::new(zoo::build("preresnet8", CLASSES).unwrap(), 4, 16);
    let mut engine = TrainingEngine::new(context(), bench.network.clone());
    let mut refused = |name: &str, images: std::ops::Range<usize>| {
        let branch = Branch {
            instance: instance(name),
            images,
        };
        engine
            .step_branched(bench.input(&[branch], HARD))
            .unwrap_err()
    };
    assert_eq!(refused("full", 0..4), EngineError::BranchOfFull);
    for images in [2..2, 2..5, 7..9] {
        let error = refused("0@0.5", images.clone());
        assert!(
            matches!(error, EngineError::BranchImages { .. }),
            "{images:?}"
        );
        assert!(error.to_string().contains("0@0.5"), "{error}");
    }
    assert!(matches!(refused("9@0.5", 0..4), EngineError::Shape(_)));
}

/// Steps recorded from `sdpoint.torch`, by `python/tests/record_branched.py`.
#[test]
fn gradients_are_those_of_pytorch() {
    let recorded = [
        ("preresnet8", &["0@0.5", "1@0.75"][..]),
        ("resnet-mini-basic", &["stem@0.5"]),
    ];
    for (name, instances) in recorded {
        let oracle = Oracle::open(name);
        let step = Oracle::open_for(name, &format!("branched-{name}"));
        let (weights, input, labels) = (oracle.weights(), oracle.input(), oracle.labels());
        let images = input.batch / instances.len();
        let branches: Vec<Branch> = (instances.iter().enumerate())
            .map(|(part, instance)| Branch {
                instance: instance.parse().unwrap(),
                images: part * images..(part + 1) * images,
            })
            .collect();
        let mut engine = TrainingEngine::new(context(), oracle.network.clone());
        let outcome = engine
            .step_branched(BranchedInput {
                weights: &weights,
                images: input.images(),
                target: Target::labels(&labels).with_smoothing(0.1),
                branches: &branches,
                distillation: Distillation {
                    weight: 0.8,
                    share: 0.4,
                    temperature: 1.5,
                },
            })
            .unwrap();
        let mut loss = outcome.full.loss;
        for (branch, outcome) in branches.iter().zip(&outcome.branches) {
            loss += 0.8 * branch.images.len() as f64 / input.batch as f64 * outcome.loss;
        }
        assert_close(&[loss as f32], &step.tensor("loss"), 1e-5, name);
        assert_gradients(&oracle, &engine.gradients().0, name, |parameter| {
            step.tensor(&format!("grad/{parameter}"))
        });
    }
}
