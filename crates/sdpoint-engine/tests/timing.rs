//! Timed runs: results are unchanged, and the work of every layer is reported
//! once.

mod support;

use sdpoint_core::{Instance, Network};
use sdpoint_engine::{InferenceEngine, Pass, StepInput, StepTime, Target, TrainingEngine};
use support::networks::NAMES;
use support::{Oracle, context};

fn macs(steps: &[StepTime], pass: Pass) -> u64 {
    let steps = steps.iter().filter(|step| step.pass == pass);
    steps.map(|step| step.macs).sum()
}

/// The multiply-accumulates of each convolution and linear layer for a batch.
fn expected(network: &Network, size: [usize; 2], batch: usize, instance: Instance) -> Vec<u64> {
    let cost = network.cost(size, instance).unwrap();
    let layers = cost.layer_macs.iter().map(|macs| macs * batch as u64);
    layers.filter(|&macs| macs > 0).collect()
}

#[test]
fn inference_reports_every_layer() {
    for name in NAMES {
        let oracle = Oracle::open(name);
        let input = oracle.input();
        let instances = oracle.instances("logits");
        let statistics = oracle.running_statistics(&instances);
        let network = oracle.network.clone();
        let engine =
            InferenceEngine::new(context(), network.clone(), &oracle.weights(), &statistics)
                .unwrap();
        for instance in instances {
            let plain = engine.run(input.images(), instance).unwrap();
            let (logits, steps) = engine.run_timed(input.images(), instance).unwrap();
            assert_eq!(logits, plain, "{name} {instance}");
            let expected = expected(&network, input.size, input.batch, instance);
            let reported: Vec<u64> = steps.iter().map(|s| s.macs).filter(|&m| m > 0).collect();
            assert_eq!(reported.len(), expected.len(), "{name} {instance}");
            assert_eq!(reported.iter().sum::<u64>(), expected.iter().sum::<u64>());
            for norm in network.norms() {
                let short = norm.name.rsplit('.').next().unwrap();
                let at =
                    |step: &StepTime| step.name.split('+').any(|n| n == norm.name || n == short);
                assert!(steps.iter().any(at), "{name} {instance} {}", norm.name);
            }
        }
    }
}

#[test]
fn names_list_the_fused_layers() {
    let oracle = Oracle::open("resnet-mini");
    let statistics = oracle.running_statistics(&[Instance::Full]);
    let network = oracle.network.clone();
    let engine = InferenceEngine::new(context(), network, &oracle.weights(), &statistics).unwrap();
    let (_, steps) = engine
        .run_timed(oracle.input().images(), Instance::Full)
        .unwrap();
    let names: Vec<&str> = steps.iter().map(|step| &*step.name).collect();
    assert_eq!(names[..2], ["conv1+bn1+relu", "maxpool"]);
    assert!(names.contains(&"layer1.0.conv2+bn2+relu"), "{names:?}");
    assert!(
        names.contains(&"layer1.0.downsample.0+1+add+relu"),
        "{names:?}"
    );
}

#[test]
fn a_training_step_reports_both_passes() {
    for name in NAMES {
        let oracle = Oracle::open(name);
        let (input, labels, weights) = (oracle.input(), oracle.labels(), oracle.weights());
        let network = oracle.network.clone();
        let mut engine = TrainingEngine::new(context(), network.clone());
        for instance in oracle.instances("loss") {
            let images = input.images();
            let step = StepInput {
                weights: &weights,
                images,
                target: Target::labels(&labels),
                instance,
            };
            let plain = engine.step(step).unwrap();
            let gradients = engine.gradients().clone();
            let (timed, steps) = engine.step_timed(step).unwrap();
            assert_eq!(timed, plain);
            assert_eq!(*engine.gradients(), gradients);
            let layers = expected(&network, input.size, input.batch, instance);
            let all: u64 = layers.iter().sum();
            assert_eq!(macs(&steps, Pass::Forward), all);
            assert_eq!(macs(&steps, Pass::BackwardWeights), all);
            // The images need no gradient.
            assert_eq!(macs(&steps, Pass::BackwardData), all - layers[0]);
        }
    }
}
