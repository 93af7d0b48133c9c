//! Exported instances in another engine, against what PyTorch computed.

mod support;

use rten::{Dimension, Value};
use sdpoint_core::{Instance, Model};
use sdpoint_exchange::{ExportError, ONNX_INPUT, ONNX_OUTPUT, onnx};
use support::oracle::networks::NAMES;
use support::oracle::{Oracle, replaced, tuned};

fn run(model: &Model, instance: Instance, shape: &[usize], images: Vec<f32>) -> Vec<f32> {
    let graph = rten::Model::load(onnx(model, instance).unwrap()).unwrap();
    let input = Value::from_shape(shape, images).unwrap();
    let output = graph.run_one(input.into(), None).unwrap();
    output.into_shape_vec::<f32, 2>().unwrap().1
}

#[test]
fn every_instance_computes_what_pytorch_did() {
    std::thread::scope(|threads| {
        for name in NAMES {
            threads.spawn(move || compare_all(name));
        }
    });
}

fn compare_all(name: &str) {
    let oracle = Oracle::open(name);
    let (shape, images) = oracle.tensor("input");
    for calibrated in [false, true] {
        let model = oracle.model(calibrated);
        assert!(calibrated || model.instances.len() >= 7);
        // Where statistics are of two pixels, rounding grows fiftyfold.
        let tolerance = if calibrated { 1e-3 } else { 1e-4 };
        for record in &model.instances {
            let instance = record.instance;
            let found = run(&model, instance, &shape, images.clone());
            let expected = oracle.logits(instance, calibrated);
            assert_eq!(found.len(), expected.len());
            let largest = expected.iter().fold(0f32, |a, b| a.max(b.abs()));
            for (found, expected) in std::iter::zip(found, expected) {
                assert!(
                    (found - expected).abs() <= tolerance * largest,
                    "{name} {instance}: {found} for {expected}"
                );
            }
        }
    }
}

/// An instance with parameters of its own is that of a model which shares them.
#[test]
fn an_instance_has_its_own_parameters() {
    for name in ["preresnet8", "resnet-mini-basic"] {
        let oracle = Oracle::open(name);
        let (shape, images) = oracle.tensor("input");
        let model = oracle.model(false);
        let instances = [model.instances[1].instance, model.instances[4].instance];
        let own = tuned(&model, &instances, |v| 0.8 * v + 0.1);
        for record in [0, 1, 4].map(|index| &model.instances[index]) {
            let instance = record.instance;
            let run = |model: &Model| run(model, instance, &shape, images.clone());
            assert_eq!(
                run(&own),
                run(&replaced(&own, instance)),
                "{name} {instance}"
            );
            let differs = run(&own) != run(&model);
            assert_eq!(differs, instances.contains(&instance), "{name} {instance}");
        }
    }
}

#[test]
fn any_number_of_images_goes_in() {
    let oracle = Oracle::open("preresnet8");
    let model = oracle.model(false);
    let (mut shape, images) = oracle.tensor("input");
    let instance = "1@0.75".parse().unwrap();
    let all = run(&model, instance, &shape, images.clone());
    let one = images.len() / shape[0];
    shape[0] = 1;
    let first = run(&model, instance, &shape, images[..one].to_vec());
    for (found, expected) in std::iter::zip(&first, &all) {
        assert!((found - expected).abs() < 1e-5, "{found} for {expected}");
    }
    let graph = rten::Model::load(onnx(&model, instance).unwrap()).unwrap();
    let expected = [
        Dimension::Symbolic("batch".into()),
        Dimension::Fixed(3),
        Dimension::Fixed(shape[2]),
        Dimension::Fixed(shape[3]),
    ];
    assert_eq!(graph.input_shape(0).unwrap(), expected);
    assert!(graph.node_id(ONNX_INPUT).is_ok() && graph.node_id(ONNX_OUTPUT).is_ok());
}

#[test]
fn metadata_is_in_the_file_and_a_missing_instance_is_named() {
    let model = Oracle::open("preresnet8").model(false);
    let file = onnx(&model, Instance::Full).unwrap();
    let text = String::from_utf8_lossy(&file);
    for part in [
        r#""interpolation":"bilinear","exif_orientation":"ignore""#,
        r#"["class 0","class 1","#,
        r#""mean":[0.5,0.5,0.5]"#,
        "preresnet8-full",
    ] {
        assert!(text.contains(part), "{part}");
    }
    let error = onnx(&model, "1@0.3".parse().unwrap()).unwrap_err();
    assert!(matches!(error, ExportError::NoInstance(_)), "{error}");
}
