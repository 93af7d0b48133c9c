//! Parameters of instances' own: inference, calibration and gradients.

mod support;

use std::sync::Arc;

use chacha20::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use sdpoint_core::{Instance, Network, OwnParameters, Ratio, Statistics, Weights, zoo};
use sdpoint_engine::{
    Branch, BranchedInput, Calibrator, Distillation, EngineError, Images, InferenceEngine,
    NormSource, Target, TrainingEngine, TuningInput, initial_weights,
};
use support::context;

const CLASSES: usize = 10;
const BATCH: usize = 12;
const SIDE: usize = 16;

struct Bench {
    network: Arc<Network>,
    weights: Weights,
    data: Vec<f32>,
    labels: Vec<u32>,
    instances: Vec<Instance>,
}

impl Bench {
    fn new() -> Self {
        let network = zoo::build("preresnet8", CLASSES).unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let data = (0..BATCH * SIDE * SIDE * 3).map(|_| rng.random_range(-1.0..1.0));
        Self {
            weights: initial_weights(&network, 2),
            data: data.collect(),
            labels: (0..BATCH as u32).map(|i| i * 3 % CLASSES as u32).collect(),
            instances: network.instances(&Ratio::DEFAULT),
            network: Arc::new(network),
        }
    }

    fn images(&self) -> Images<'_> {
        Images {
            data: &self.data,
            batch: BATCH,
            size: [SIDE; 2],
        }
    }

    /// Values of an instance's own, different from the network's.
    fn own(&self, instance: Instance) -> OwnParameters {
        let mut rng = ChaCha8Rng::seed_from_u64(instance.to_string().len() as u64);
        let own = self.network.own_parameters(instance).into_iter();
        let mut values = |index: usize| {
            let values = self.weights.0[index].iter();
            values.map(|v| v + rng.random_range(-0.3..0.3)).collect()
        };
        own.map(|index| (index, values(index))).collect()
    }

    /// The weights with an instance's own in their place.
    fn replaced(&self, own: &OwnParameters) -> Weights {
        let mut weights = self.weights.clone();
        for (&index, values) in own {
            weights.0[index].clone_from(values);
        }
        weights
    }

    fn statistics(&self) -> Statistics {
        let (ctx, network) = (context(), self.network.clone());
        let mut calibrator = Calibrator::new(ctx, network, &self.weights, &self.instances).unwrap();
        calibrator.add_batch(self.images()).unwrap();
        calibrator.finish().unwrap()
    }
}

/// Layers before the point have none of an instance's own, so an instance with
/// its own parameters is one of a network whose parameters they are.
#[test]
fn inference_uses_them_after_the_point() {
    let bench = Bench::new();
    let mut statistics = bench.statistics();
    let engine = |weights: &Weights, statistics: &Statistics| {
        InferenceEngine::new(context(), bench.network.clone(), weights, statistics).unwrap()
    };
    let plain = engine(&bench.weights, &statistics);
    for &instance in &bench.instances[1..] {
        let own = bench.own(instance);
        statistics.set_parameters(&bench.network, instance, own);
    }
    let tuned = engine(&bench.weights, &statistics);
    let together = tuned
        .run_all(bench.images(), &bench.instances, NormSource::Own)
        .unwrap();
    let shared = [&plain, &tuned].map(|engine| {
        engine
            .run_all(bench.images(), &bench.instances, NormSource::Shared)
            .unwrap()
    });
    assert_eq!(
        shared[0], shared[1],
        "the statistics of full go with its parameters"
    );
    for (&instance, together) in std::iter::zip(&bench.instances, &together) {
        let found = tuned.run(bench.images(), instance).unwrap();
        assert_eq!(found, *together);
        let Some(own) = statistics.parameters(instance) else {
            assert_eq!(found, plain.run(bench.images(), instance).unwrap());
            continue;
        };
        assert!(found != plain.run(bench.images(), instance).unwrap());
        let replaced = engine(&bench.replaced(own), &bench.statistics());
        assert_eq!(
            found,
            replaced.run(bench.images(), instance).unwrap(),
            "{instance}"
        );
    }
}

#[test]
fn statistics_are_those_with_the_own_parameters() {
    let bench = Bench::new();
    let instance = "0@0.5".parse().unwrap();
    let own = bench.own(instance);
    let run = |weights: &Weights, own: Option<&OwnParameters>| {
        let instances = [instance, "1@0.5".parse().unwrap()];
        let (ctx, network) = (context(), bench.network.clone());
        let mut calibrator = Calibrator::new(ctx, network, weights, &instances).unwrap();
        if let Some(own) = own {
            calibrator = calibrator.with_parameters(instance, own);
        }
        calibrator.add_batch(bench.images()).unwrap();
        calibrator.finish().unwrap()
    };
    let plain = run(&bench.weights, None);
    let found = run(&bench.weights, Some(&own));
    let replaced = run(&bench.replaced(&own), None);
    assert_eq!(found.own(instance), replaced.own(instance));
    assert_ne!(found.own(instance), plain.own(instance));
    for other in [Instance::Full, "1@0.5".parse().unwrap()] {
        assert_eq!(found.own(other), plain.own(other));
    }
}

/// The gradients are those of a branch on the whole batch, of a network with the
/// instance's own parameters; and by finite differences, without a teacher.
#[test]
fn gradients_of_own_parameters() {
    let bench = Bench::new();
    let instances: Vec<(Instance, OwnParameters)> = ["0@0.5", "0@0.75", "1@0.5", "2@0.75"]
        .map(|name| name.parse().unwrap())
        .map(|instance| (instance, bench.own(instance)))
        .into();
    let target = Target::labels(&bench.labels).with_smoothing(0.1);
    let hard = Distillation {
        weight: 1.0,
        share: 0.0,
        temperature: 1.0,
    };
    let warm = Distillation {
        share: 0.6,
        temperature: 2.0,
        ..hard
    };
    let mut engine = TrainingEngine::new(context(), bench.network.clone());
    let mut step = |instances: &[(Instance, OwnParameters)], distillation| {
        let input = TuningInput {
            weights: &bench.weights,
            images: bench.images(),
            target,
            instances,
            distillation,
        };
        engine.step_tuning(input).unwrap()
    };
    let results = step(&instances, hard);
    for (index, (instance, _)) in instances.iter().enumerate() {
        let (outcome, gradients) = &results[index];
        let length: f64 = gradients
            .values()
            .flatten()
            .map(|g| f64::from(*g).powi(2))
            .sum();
        let length = length.sqrt();
        let distance = 2e-3;
        let mut at = |sign: f64| {
            let mut moved = instances.clone();
            for (parameter, gradient) in gradients {
                let values = moved[index].1.get_mut(parameter).unwrap();
                for (value, g) in values.iter_mut().zip(gradient) {
                    *value += (sign * distance * f64::from(*g) / length) as f32;
                }
            }
            step(&moved, hard)[index].0.loss
        };
        let slope = (at(1.0) - at(-1.0)) / (2.0 * distance);
        assert!(
            (slope - length).abs() < 0.03 * length,
            "{instance} at {}: slope {slope}, gradient says {length}",
            outcome.loss
        );
    }

    let results = step(&instances, warm);
    for ((instance, own), (outcome, gradients)) in std::iter::zip(&instances, &results) {
        // The teacher has the network's parameters, so that only the first
        // branch of a network without own parameters after it can be compared.
        let unchanged = [(*instance, bench.network.own_parameters(*instance))];
        let unchanged = unchanged.map(|(instance, indices)| {
            let own = indices.into_iter().map(|i| (i, bench.weights.0[i].clone()));
            (instance, own.collect::<OwnParameters>())
        });
        let expected = step(&unchanged, warm).remove(0);
        assert!(expected.0 != *outcome && expected.1 != *gradients && !own.is_empty());
        let mut engine = TrainingEngine::new(context(), bench.network.clone());
        let branches = [Branch {
            instance: *instance,
            images: 0..BATCH,
        }];
        let of_full = |distillation| BranchedInput {
            weights: &bench.weights,
            images: bench.images(),
            target,
            branches: &branches,
            distillation,
        };
        let branched = engine.step_branched(of_full(warm)).unwrap();
        assert_eq!(branched.branches[0], expected.0);
        let both = engine.gradients().clone();
        let alone = BranchedInput {
            branches: &[],
            ..of_full(warm)
        };
        engine.step_branched(alone).unwrap();
        for (index, expected) in &expected.1 {
            let full = &engine.gradients().0[*index];
            let largest = expected.iter().fold(1e-3_f32, |a, b| a.max(b.abs()));
            for ((both, full), expected) in both.0[*index].iter().zip(full).zip(expected) {
                assert!(
                    (both - full - expected).abs() < 1e-3 * largest,
                    "{instance}: {both} - {full}, {expected}"
                );
            }
        }
    }
}

#[test]
fn what_cannot_be_tuned_is_an_error() {
    let bench = Bench::new();
    let mut engine = TrainingEngine::new(context(), bench.network.clone());
    let mut refused = |instance: Instance, own: OwnParameters| {
        let input = TuningInput {
            weights: &bench.weights,
            images: bench.images(),
            target: Target::labels(&bench.labels),
            instances: &[(instance, own)],
            distillation: Distillation {
                weight: 1.0,
                share: 0.5,
                temperature: 1.0,
            },
        };
        engine.step_tuning(input).unwrap_err()
    };
    let instance = "0@0.5".parse().unwrap();
    assert_eq!(
        refused(Instance::Full, OwnParameters::new()),
        EngineError::BranchOfFull
    );
    let mut own = bench.own(instance);
    own.pop_last();
    assert!(matches!(
        refused(instance, own),
        EngineError::Length { found: 0, .. }
    ));
    let mut own = bench.own(instance);
    own.first_entry().unwrap().get_mut().pop();
    assert!(matches!(refused(instance, own), EngineError::Length { .. }));
    let unknown = "9@0.5".parse().unwrap();
    assert!(matches!(
        refused(unknown, OwnParameters::new()),
        EngineError::Shape(_)
    ));
}
