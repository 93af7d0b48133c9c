//! Exported networks in another engine, against ours. `tests/peers/` does the
//! same with ONNX Runtime, OpenVINO, tract and PyTorch.

mod support;

use std::sync::Arc;

use rten::Value;
use sdpoint::engine::{Context, Images, InferenceEngine};
use sdpoint::exchange::onnx;

/// Networks of all kinds: with and without a stem, pre- and post-activation,
/// basic blocks and bottlenecks, groups, several exits. The deeper ones are
/// narrow, as the other engine is built without optimisation here.
const NAMES: [&str; 9] = [
    "preresnet8",
    "preresnet20-w8",
    "preresnet20-w8-exits",
    "preresnet20-w8-exit1",
    "wrn10-1",
    "resnet-mini",
    "resnet-mini-basic",
    "resnext-mini",
    "preresnet-mini",
];

/// Normalised images, channels last, and the same in the order of ONNX.
fn images(batch: usize, [height, width]: [usize; 2]) -> (Vec<f32>, Vec<f32>) {
    let value = |image: usize, channel: usize, place: usize| {
        let number = (image * 3 + channel) * height * width + place;
        (number * 7919 % 1999) as f32 / 999.0 - 1.0
    };
    let places = height * width;
    let last = (0..batch * places * 3).map(|i| value(i / 3 / places, i % 3, i / 3 % places));
    let first = (0..batch * places * 3).map(|i| value(i / places / 3, i / places % 3, i % places));
    (last.collect(), first.collect())
}

/// Every instance of a network, for one image and for three.
fn compare(name: &str, size: [usize; 2]) {
    let model = support::model(name, size);
    let context = Arc::new(Context::new(None).unwrap());
    let network = Arc::new(model.network.clone());
    let engine = InferenceEngine::new(context, network, &model.weights, &model.statistics).unwrap();
    for record in &model.instances {
        let instance = record.instance;
        let graph = rten::Model::load(onnx(&model, instance).unwrap()).unwrap();
        for batch in [1, 3] {
            let (ours, theirs) = images(batch, size);
            let input = Images {
                data: &ours,
                batch,
                size,
            };
            let expected = engine.run(input, instance).unwrap();
            let input = Value::from_shape(&[batch, 3, size[0], size[1]], theirs).unwrap();
            let output = graph.run_one(input.into(), None).unwrap();
            let (shape, found) = output.into_shape_vec::<f32, 2>().unwrap();
            assert_eq!(shape, [batch, model.network.classes()], "{name} {instance}");
            assert_eq!(found.len(), expected.len());
            let largest = expected.iter().fold(0f32, |a, b| a.max(b.abs()));
            for (found, expected) in std::iter::zip(found, expected) {
                assert!(
                    (found - expected).abs() <= 1e-4 * largest,
                    "{name} {instance} at {size:?}, {batch} images: {found} for {expected}"
                );
            }
        }
    }
}

#[test]
fn every_instance_at_sizes_that_divide_evenly() {
    NAMES.iter().for_each(|name| compare(name, [32, 32]));
}

#[test]
fn every_instance_at_odd_sizes() {
    NAMES.iter().for_each(|name| compare(name, [33, 33]));
}

#[test]
fn every_instance_of_images_that_are_not_square() {
    NAMES.iter().for_each(|name| compare(name, [31, 45]));
}

#[test]
fn every_instance_of_larger_images() {
    for name in ["preresnet8", "resnet-mini-basic", "preresnet-mini"] {
        compare(name, [64, 65]);
    }
}
