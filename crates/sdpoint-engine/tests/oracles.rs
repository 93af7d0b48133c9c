//! The engine, compared with results recorded from PyTorch with the same
//! weights.

mod support;

use sdpoint_core::{Instance, Statistics};
use sdpoint_engine::{Calibrator, InferenceEngine, NormSource, StepInput, Target, TrainingEngine};
use support::networks::NAMES;
use support::{Oracle, assert_close, assert_gradients, context};

#[test]
fn logits_of_every_instance() {
    for name in NAMES {
        let oracle = Oracle::open(name);
        let input = oracle.input();
        let instances = oracle.instances("logits");
        assert!(instances.len() > 6, "{name}");
        let statistics = oracle.running_statistics(&instances);
        let weights = oracle.weights();
        let engine =
            InferenceEngine::new(context(), oracle.network.clone(), &weights, &statistics).unwrap();
        let together = engine
            .run_all(input.images(), &instances, NormSource::Own)
            .unwrap();
        for (&instance, together) in instances.iter().zip(&together) {
            let expected = oracle.tensor(&format!("logits/{instance}"));
            let alone = engine.run(input.images(), instance).unwrap();
            assert_close(&alone, &expected, 2e-5, &format!("{name} {instance}"));
            assert_close(
                together,
                &expected,
                2e-5,
                &format!("{name} {instance}, shared"),
            );
        }
    }
}

#[test]
fn loss_and_gradients_of_a_training_step() {
    for name in NAMES {
        let oracle = Oracle::open(name);
        let input = oracle.input();
        let labels = oracle.labels();
        let weights = oracle.weights();
        let mut engine = TrainingEngine::new(context(), oracle.network.clone());
        for instance in oracle.instances("loss") {
            let outcome = engine
                .step(StepInput {
                    weights: &weights,
                    images: input.images(),
                    target: Target::labels(&labels),
                    instance,
                })
                .unwrap();
            let expected = oracle.tensor(&format!("loss/{instance}"));
            let what = format!("{name} {instance} loss");
            assert_close(&[outcome.loss as f32], &expected, 1e-5, &what);
            let what = format!("{name} {instance}");
            assert_gradients(&oracle, &engine.gradients().0, &what, |parameter| {
                oracle.tensor(&format!("grad/{instance}/{parameter}"))
            });
        }
    }
}

#[test]
fn statistics_and_logits_after_calibration() {
    for name in NAMES {
        let oracle = Oracle::open(name);
        let input = oracle.input();
        let weights = oracle.weights();
        let instances = oracle.instances("calibrated");
        let mut calibrator =
            Calibrator::new(context(), oracle.network.clone(), &weights, &instances).unwrap();
        // The batches of the recorded calibration.
        let half = input.batch / 2;
        calibrator.add_batch(input.part(0..half)).unwrap();
        calibrator.add_batch(input.part(half..input.batch)).unwrap();
        let statistics: Statistics = calibrator.finish().unwrap();
        let engine =
            InferenceEngine::new(context(), oracle.network.clone(), &weights, &statistics).unwrap();
        for instance in instances {
            let recorded = oracle.moments(&format!("calibrated/{instance}"));
            for (norm, expected) in recorded.iter().enumerate() {
                let found = statistics.get(instance, norm).unwrap();
                let what = format!("{name} {instance} norm {norm}");
                assert_close(&found.mean, &expected.mean, 1e-4, &what);
                assert_close(&found.var, &expected.var, 1e-4, &what);
            }
            let expected = oracle.tensor(&format!("calibrated/{instance}/logits"));
            let logits = engine.run(input.images(), instance).unwrap();
            // The last batch norms have two pixels per batch and divide by
            // small variances, which amplifies rounding fiftyfold.
            assert_close(&logits, &expected, 1e-3, &format!("{name} {instance}"));
        }
    }
}

#[test]
fn shared_norms_use_the_statistics_of_full() {
    let oracle = Oracle::open("preresnet8");
    let input = oracle.input();
    let weights = oracle.weights();
    let instance: Instance = "1@0.75".parse().unwrap();
    let mut calibrator =
        Calibrator::new(context(), oracle.network.clone(), &weights, &[instance]).unwrap();
    calibrator.add_batch(input.images()).unwrap();
    let own = calibrator.finish().unwrap();
    let mut shared = own.clone();
    let full: Vec<_> = oracle
        .network
        .own_norms(instance)
        .map(|norm| own.get(Instance::Full, norm).unwrap().clone())
        .collect();
    shared.set(&oracle.network, instance, full);

    let engine = |statistics| {
        InferenceEngine::new(context(), oracle.network.clone(), &weights, statistics).unwrap()
    };
    let (own, shared) = (engine(&own), engine(&shared));
    let expected = shared.run(input.images(), instance).unwrap();
    let run = |source| {
        own.run_all(input.images(), &[instance], source)
            .unwrap()
            .remove(0)
    };
    assert_eq!(run(NormSource::Shared), expected);
    assert_ne!(run(NormSource::Own), expected);
}
