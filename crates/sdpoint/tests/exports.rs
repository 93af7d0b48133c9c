//! Exported networks in another engine, against ours. `tests/peers/` does the
//! same with ONNX Runtime, OpenVINO, tract and PyTorch.

mod support;

use std::sync::Arc;

use rten::Value;
use sdpoint::engine::InferenceEngine;
use sdpoint::exchange::onnx;
use sdpoint::{Context, Images};

/// Networks of all kinds, small ones: with and without a stem, pre- and
/// post-activation, basic blocks and bottlenecks, groups, several exits.
/// `tests/peers/` has larger ones and more sizes.
const NAMES: [&str; 6] = [
    "preresnet8",
    "resnet-mini",
    "resnet-mini-basic",
    "resnext-mini",
    "preresnet-mini",
    "preresnet8-exits",
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

/// Every instance of a network, for two images.
fn compare(name: &str, size: [usize; 2]) {
    let model = support::model(name, size);
    let context = Arc::new(Context::new(None).unwrap());
    let network = Arc::new(model.network.clone());
    let engine = InferenceEngine::new(context, network, &model.weights, &model.statistics).unwrap();
    for record in &model.instances {
        let instance = record.instance;
        let graph = rten::Model::load(onnx(&model, instance).unwrap()).unwrap();
        let batch = 2;
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

#[test]
fn every_instance_at_sizes_that_do_not_divide_evenly() {
    NAMES.iter().for_each(|name| compare(name, [17, 22]));
}

#[test]
fn a_network_with_relu6() {
    compare("mobilenet_v2", [34, 32]);
}

#[test]
fn instances_at_sizes_that_divide_evenly() {
    ["preresnet8", "resnet-mini"]
        .iter()
        .for_each(|name| compare(name, [32, 32]));
}
