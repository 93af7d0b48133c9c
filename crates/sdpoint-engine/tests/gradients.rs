//! Gradients of every kind of layer, compared with finite differences of the
//! loss.

mod support;

use std::sync::Arc;

use chacha20::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use sdpoint_core::{
    Conv, Instance, LayerId, Network, NetworkBuilder, Op, PointId, Weights, Window, zoo,
};
use sdpoint_engine::{
    EngineError, Images, Noise, StepInput, Target, TrainingEngine, initial_weights, softmax,
};
use support::context;

const BATCH: usize = 8;
const SIZE: [usize; 2] = [9, 7];
const CLASSES: usize = 5;

/// A network of a convolution with batch norm, `middle`, and a classifier.
fn network(middle: impl FnOnce(&mut NetworkBuilder, LayerId) -> LayerId) -> Network {
    let mut b = NetworkBuilder::new("net", 3);
    let x = b.conv("conv", b.input(), Conv::square(3, 6, 3, 1));
    let x = b.batch_norm("bn", x, 6);
    let x = middle(&mut b, x);
    let channels = 6;
    let x = b.batch_norm("last", x, channels);
    let x = b.layer("gap", Op::GlobalAvgPool, &[x]);
    let op = Op::Linear {
        in_features: channels,
        out_features: CLASSES,
        bias: true,
    };
    b.layer("fc", op, &[x]);
    b.finish().unwrap()
}

/// Compares directional derivatives of the loss by finite differences with
/// those from the gradients. For each parameter, the directions are its
/// gradient and a random one.
fn check(network: Network, instance: &str) {
    check_with(network, instance, None, None);
}

/// As [`check`], with noise, and with soft targets of weight `soft`.
fn check_with(network: Network, instance: &str, noise: Option<Noise>, soft: Option<f32>) {
    let network = Arc::new(network);
    let instance = instance.parse().unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let mut draw = |n: usize| -> Vec<f32> { (0..n).map(|_| rng.random_range(-1.0..1.0)).collect() };
    let data = draw(BATCH * SIZE[0] * SIZE[1] * 3);
    let labels: Vec<u32> = (0..BATCH).map(|i| (i % CLASSES) as u32).collect();
    let mut weights = initial_weights(&network, 3);
    for weight in weights.0.iter_mut().flatten() {
        *weight += 0.2 * draw(1)[0];
    }
    let mut targets = draw(BATCH * CLASSES);
    softmax(&mut targets, CLASSES);
    let mut engine = TrainingEngine::new(context(), network.clone());
    if let Some(noise) = noise {
        engine = engine.with_noise(noise, 9);
        engine.set_noise_step(4);
    }
    let images = Images {
        data: &data,
        batch: BATCH,
        size: SIZE,
    };
    let target = Target {
        labels: &labels,
        smoothing: 0.1,
        soft: soft.map(|share| (&targets[..], share)),
    };
    let mut loss = |weights: &Weights| {
        let outcome = engine
            .step(StepInput {
                weights,
                images,
                target,
                instance,
            })
            .unwrap();
        (outcome.loss, engine.gradients().clone())
    };
    let (_, gradients) = loss(&weights);
    let largest = gradients.0.iter().map(|g| norm(g)).fold(0.0, f64::max);
    for (index, parameter) in network.parameters().iter().enumerate() {
        let gradient = &gradients.0[index];
        // The gradient of a shift before a batch norm is zero up to rounding.
        if norm(gradient) < 1e-4 * largest {
            continue;
        }
        for direction in [gradient.clone(), draw(gradient.len())] {
            let length = norm(&direction);
            let expected: f64 = std::iter::zip(gradient, &direction)
                .map(|(&g, &d)| f64::from(g) * f64::from(d))
                .sum::<f64>()
                / length;
            let step = 5e-4;
            let mut at = |sign: f64| {
                let mut moved = weights.clone();
                for (weight, &d) in moved.0[index].iter_mut().zip(&direction) {
                    *weight += (sign * step * f64::from(d) / length) as f32;
                }
                loss(&moved).0
            };
            let slope = (at(1.0) - at(-1.0)) / (2.0 * step);
            // The loss is rounded to f32, and ReLU and max are not smooth.
            let allowed = 0.05 * norm(gradient) + 2e-4;
            assert!(
                (slope - expected).abs() < allowed,
                "{} in {instance}: slope {slope:.5}, gradient says {expected:.5}",
                parameter.name
            );
        }
    }
}

fn norm(v: &[f32]) -> f64 {
    v.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt()
}

#[test]
fn convolutions() {
    let stride = Conv {
        stride: [2, 1],
        padding: [0, 2],
        kernel: [2, 3],
        bias: true,
        ..Conv::square(6, 6, 3, 1)
    };
    for conv in [
        Conv::square(6, 6, 3, 1),
        Conv::square(6, 6, 1, 2),
        Conv::square(6, 6, 3, 1).grouped(2),
        Conv::square(6, 6, 5, 2).grouped(6),
        stride,
    ] {
        check(network(|b, x| b.conv("middle", x, conv)), "full");
    }
}

#[test]
fn batch_norm_with_and_without_relu() {
    check(network(|b, x| b.batch_norm("middle", x, 6)), "full");
    let with_relu = |b: &mut NetworkBuilder, x| {
        let x = b.batch_norm("middle", x, 6);
        b.relu("relu", x)
    };
    check(network(with_relu), "full");
}

#[test]
fn relu_alone() {
    check(
        network(|b, x| {
            let x = b.conv("middle", x, Conv::square(6, 6, 1, 1));
            b.relu("relu", x)
        }),
        "full",
    );
}

/// Sums bring values beyond both bounds; alone, and behind a batch norm.
#[test]
fn relu6_with_and_without_batch_norm() {
    for normed in [false, true] {
        let layers = |b: &mut NetworkBuilder, mut x| {
            x = b.conv("middle", x, Conv::square(6, 6, 1, 1));
            for i in 0..4 {
                x = b.add(format!("double{i}"), x, x);
            }
            if normed {
                x = b.batch_norm("norm", x, 6);
            }
            b.relu6("relu6", x)
        };
        check(network(layers), "full");
    }
}

#[test]
fn pools() {
    let window = Window {
        kernel: [3, 2],
        stride: [2, 1],
        padding: [1, 0],
    };
    check(
        network(|b, x| b.layer("pool", Op::MaxPool(window), &[x])),
        "full",
    );
    check(
        network(|b, x| b.layer("pool", Op::AvgPool(window), &[x])),
        "full",
    );
}

#[test]
fn sums_and_concatenations() {
    // A tensor with three consumers, one of which reads it twice.
    check(
        network(|b, x| {
            let y = b.conv("left", x, Conv::square(6, 6, 3, 1));
            let twice = b.add("twice", x, x);
            let sum = b.add("sum", y, twice);
            b.add("again", sum, x)
        }),
        "full",
    );
    check(
        network(|b, x| {
            let y = b.conv("left", x, Conv::square(6, 2, 3, 1));
            let all = b.layer("concat", Op::Concat, &[y, x, y, x]);
            let all = b.relu("relu", all);
            b.conv("join", all, Conv::square(16, 6, 1, 1))
        }),
        "full",
    );
}

#[test]
fn residual_blocks_of_both_kinds() {
    check(
        network(|b, x| {
            let y = b.conv("a", x, Conv::square(6, 6, 3, 1));
            let y = b.batch_norm("bn_a", y, 6);
            let sum = b.add("sum", y, x);
            let x = b.relu("relu", sum);
            let y = b.conv("c", x, Conv::square(6, 6, 3, 1));
            let y = b.batch_norm("bn_c", y, 6);
            let x = b.add("sum2", y, x);
            b.relu("relu2", x)
        }),
        "full",
    );
    check(
        network(|b, x| {
            let a = b.batch_norm("bn_a", x, 6);
            let a = b.relu("relu", a);
            let y = b.conv("a", a, Conv::square(6, 6, 3, 2));
            let shortcut = b.conv("shortcut", a, Conv::square(6, 6, 1, 2));
            let x = b.add("sum", y, shortcut);
            let y = b.batch_norm("bn_b", x, 6);
            let y = b.conv("b", y, Conv::square(6, 6, 3, 1));
            b.add("sum2", x, y)
        }),
        "full",
    );
}

/// A network with a block of each kind and a point.
fn blocks() -> Network {
    network(|b, x| {
        let y = b.conv("a", x, Conv::square(6, 6, 3, 1));
        let y = b.batch_norm("bn_a", y, 6);
        let sum = b.add("sum", y, x);
        b.point(PointId::Block(0), sum);
        let x = b.relu("relu", sum);
        let y = b.conv("b", x, Conv::square(6, 6, 3, 1));
        b.add("sum2", y, x)
    })
}

#[test]
fn dropout_and_stochastic_depth() {
    for [dropout, depth] in [[0.5, 0.0], [0.0, 0.5], [0.3, 0.4]] {
        let noise = Some(Noise { dropout, depth });
        check_with(blocks(), "full", noise, None);
        check_with(blocks(), "0@0.5", noise, None);
    }
}

#[test]
fn soft_targets() {
    check_with(blocks(), "full", None, Some(1.0));
    check_with(blocks(), "0@0.5", None, Some(0.4));
}

#[test]
fn a_target_is_a_mean_of_labels_and_soft_targets() {
    let network = Arc::new(blocks());
    let weights = initial_weights(&network, 3);
    let data: Vec<f32> = (0..BATCH * SIZE[0] * SIZE[1] * 3)
        .map(|i| (i as f32 * 0.7).sin())
        .collect();
    let images = Images {
        data: &data,
        batch: BATCH,
        size: SIZE,
    };
    let labels: Vec<u32> = (0..BATCH).map(|i| (i % CLASSES) as u32).collect();
    let mut targets: Vec<f32> = (0..BATCH * CLASSES).map(|i| (i as f32).cos()).collect();
    softmax(&mut targets, CLASSES);
    let mut engine = TrainingEngine::new(context(), network);
    let mut step = |soft| {
        let target = Target {
            soft,
            ..Target::labels(&labels)
        };
        let instance = "0@0.5".parse().unwrap();
        let outcome = engine
            .step(StepInput {
                weights: &weights,
                images,
                target,
                instance,
            })
            .unwrap();
        (outcome, engine.gradients().0.concat())
    };
    let (hard, soft) = (step(None), step(Some((&targets[..], 1.0))));
    let (outcome, gradients) = step(Some((&targets[..], 0.25)));
    let mean = |hard: f64, soft: f64| 0.75 * hard + 0.25 * soft;
    assert!((outcome.loss - mean(hard.0.loss, soft.0.loss)).abs() < 1e-5);
    assert_eq!(
        outcome.correct, hard.0.correct,
        "the labels define what is correct"
    );
    for ((got, hard), soft) in gradients.iter().zip(&hard.1).zip(&soft.1) {
        let expected = mean(f64::from(*hard), f64::from(*soft));
        assert!(
            (f64::from(*got) - expected).abs() < 1e-5,
            "{got} {expected}"
        );
    }
    let short = step_error(&targets[1..]);
    assert!(short.contains("soft targets"), "{short}");
}

/// The error of a step with soft targets of the wrong length.
fn step_error(targets: &[f32]) -> String {
    let network = Arc::new(blocks());
    let weights = initial_weights(&network, 3);
    let data = vec![0.0; BATCH * SIZE[0] * SIZE[1] * 3];
    let images = Images {
        data: &data,
        batch: BATCH,
        size: SIZE,
    };
    let target = Target {
        soft: Some((targets, 1.0)),
        ..Target::labels(&[0; BATCH])
    };
    let mut engine = TrainingEngine::new(context(), network);
    let outcome = engine.step(StepInput {
        weights: &weights,
        images,
        target,
        instance: Instance::Full,
    });
    outcome.unwrap_err().to_string()
}

#[test]
fn downsampling_at_a_block_and_at_the_stem() {
    let build = || {
        network(|b, x| {
            let x = b.layer("pool", Op::MaxPool(Window::square(3, 2, 1)), &[x]);
            b.point(PointId::Stem, x);
            let y = b.conv("a", x, Conv::square(6, 6, 3, 1));
            let x = b.add("sum", y, x);
            b.point(PointId::Block(0), x);
            let x = b.relu("relu", x);
            b.conv("b", x, Conv::square(6, 6, 3, 1))
        })
    };
    for instance in ["full", "stem@0.5", "stem@0.75", "0@0.5", "0@0.75"] {
        check(build(), instance);
    }
}

/// The gradients of jointly trained classifiers are the sum of each one's own.
#[test]
fn early_exits_add_up() {
    let network = zoo::build("preresnet8", CLASSES).unwrap();
    let joint = network.with_exits().unwrap();
    let mut alone = network.exits().unwrap();
    alone.push(network);
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let side = 8;
    let data: Vec<f32> = (0..BATCH * side * side * 3)
        .map(|_| rng.random_range(-1.0..1.0))
        .collect();
    let labels: Vec<u32> = (0..BATCH).map(|i| (i % CLASSES) as u32).collect();
    let images = Images {
        data: &data,
        batch: BATCH,
        size: [side; 2],
    };
    let weights = initial_weights(&joint, 3);
    let mut engine =
        TrainingEngine::new(context(), Arc::new(joint.clone())).with_classifiers(alone.len());
    let step = StepInput {
        weights: &weights,
        images,
        target: Target::labels(&labels).with_smoothing(0.1),
        instance: Instance::Full,
    };
    // Soft targets would have to be given for each classifier.
    let soft = vec![0.1; BATCH * CLASSES];
    let target = Target {
        soft: Some((&soft, 0.5)),
        ..step.target
    };
    let error = engine.step(StepInput { target, ..step });
    assert_eq!(error, Err(EngineError::SoftTargets));
    let outcome = engine.step(step).unwrap();
    let mut sum = Weights::zeros(&joint);
    let (mut loss, names) = (0.0, joint.parameters());
    for network in &alone {
        let own = weights.select(&joint, network).unwrap();
        let mut engine = TrainingEngine::new(context(), Arc::new(network.clone()));
        let weights = &own;
        loss += engine.step(StepInput { weights, ..step }).unwrap().loss;
        for (parameter, gradient) in std::iter::zip(network.parameters(), &engine.gradients().0) {
            let place = names.iter().position(|p| p.name == parameter.name).unwrap();
            for (sum, part) in std::iter::zip(&mut sum.0[place], gradient) {
                *sum += part;
            }
        }
    }
    assert!((outcome.loss - loss / alone.len() as f64).abs() < 1e-5);
    for (name, (ours, theirs)) in
        std::iter::zip(names, std::iter::zip(&engine.gradients().0, &sum.0))
    {
        let largest = theirs.iter().fold(1e-3_f32, |a, b| a.max(b.abs()));
        for (a, b) in std::iter::zip(ours, theirs) {
            assert!((a - b).abs() < 1e-3 * largest, "{}: {a} {b}", name.name);
        }
    }
}
