//! Weights from elsewhere through the command line.

mod common;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use common::{fail, json, stdout, succeed, trained};
use safetensors::SafeTensors;
use sdpoint::engine::InferenceEngine;
use sdpoint::{Context, Images, Instance, Model};
use tempfile::TempDir;

/// Small networks with what PyTorch computed of them.
fn oracle(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/oracles");
    std::fs::read(folder.join(format!("{name}.safetensors"))).unwrap()
}

fn floats(file: &SafeTensors, name: &str) -> Vec<f32> {
    let (values, _) = file.tensor(name).unwrap().data().as_chunks::<4>();
    values.iter().map(|&x| f32::from_le_bytes(x)).collect()
}

/// The recorded weights of preresnet8 as a file of their own, without some.
fn checkpoint(folder: &TempDir, without: &[&str]) -> String {
    let bytes = oracle("preresnet8");
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensors: HashMap<String, _> = file
        .tensors()
        .into_iter()
        .filter_map(|(name, tensor)| Some((name.strip_prefix("weights/")?.to_owned(), tensor)))
        .filter(|(name, _)| !without.contains(&name.as_str()))
        .collect();
    let path = folder.path().join("preresnet8.safetensors");
    safetensors::serialize_to_file(tensors, None, &path).unwrap();
    path.to_str().unwrap().to_owned()
}

fn path(folder: &TempDir, name: &str) -> (PathBuf, String) {
    let path = folder.path().join(name);
    let argument = path.to_str().unwrap().to_owned();
    (path, argument)
}

fn with<'a>(arguments: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    [arguments, more].concat()
}

/// The recorded input, NHWC as the engine takes it, and how many images.
fn input(file: &SafeTensors) -> (Vec<f32>, usize, [usize; 2]) {
    let values = floats(file, "input");
    let &[n, c, h, w] = file.tensor("input").unwrap().shape() else {
        panic!("four sides");
    };
    let nhwc = (0..n * h * w * c).map(|place| {
        let (image, pixel, colour) = (place / (h * w * c), place / c % (h * w), place % c);
        values[(image * c + colour) * h * w + pixel]
    });
    (nhwc.collect(), n, [h, w])
}

#[test]
fn an_imported_network_computes_what_pytorch_did() {
    let folder = tempfile::tempdir().unwrap();
    let (path, model) = path(&folder, "model.safetensors");
    let from = checkpoint(&folder, &[]);
    let text = succeed(&["import", &from, "--network", "preresnet8", "-o", &model]);
    assert!(
        text.contains("10 classes") && text.contains("calibrate"),
        "{text}"
    );

    let bytes = oracle("preresnet8");
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let (data, batch, size) = input(&file);
    let model = Model::load(path).unwrap();
    assert_eq!(model.classes[9], "9");
    assert_eq!(model.preprocessing.mean, [0.485, 0.456, 0.406]);
    let ctx = std::sync::Arc::new(Context::new(None).unwrap());
    let network = std::sync::Arc::new(model.network);
    let engine = InferenceEngine::new(ctx, network, &model.weights, &model.statistics).unwrap();
    let images = Images {
        data: &data,
        batch,
        size,
    };
    let logits = engine.run(images, Instance::Full).unwrap();
    let expected = floats(&file, "logits/full");
    let largest = expected.iter().fold(0f32, |a, b| a.max(b.abs()));
    for (found, expected) in std::iter::zip(logits, expected) {
        assert!(
            (found - expected).abs() <= 1e-4 * largest,
            "{found} for {expected}"
        );
    }
}

#[test]
fn what_does_not_fit_is_named_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let (path, model) = path(&folder, "model.safetensors");
    let from = checkpoint(&folder, &["fc.bias", "bn.running_var"]);
    let base = ["import", &from, "-o", &model];
    fail(
        4,
        &["1 missing", "bn.running_var"],
        &with(&base, &["--network", "preresnet8"]),
    );
    fail(
        4,
        &["conv1.weight [16, 3, 3, 3] for"],
        &with(&base, &["--network", "resnet18"]),
    );
    fail(
        2,
        &["no network 'resnet19'"],
        &with(&base, &["--network", "resnet19"]),
    );
    assert!(!path.exists());
}

#[test]
fn a_checkpoint_of_another_network_is_recognised() {
    let folder = tempfile::tempdir().unwrap();
    let (written, model) = path(&folder, "model.safetensors");
    let (zeros, from) = path(&folder, "zeros.safetensors");
    let network = sdpoint::zoo::build("wrn16-2", 3).unwrap();
    let parameters = network.parameters().iter();
    let parameters = parameters.map(|parameter| (parameter.name.clone(), parameter.shape.clone()));
    let norms = network.norms().iter();
    let statistics = norms.flat_map(|norm| {
        ["mean", "var"].map(|kind| (format!("{}.running_{kind}", norm.name), vec![norm.channels]))
    });
    let tensors: Vec<(String, Vec<usize>)> = parameters.chain(statistics).collect();
    let data = vec![0; 4 << 20];
    let views = tensors.iter().map(|(name, shape)| {
        let bytes = &data[..4 * shape.iter().product::<usize>()];
        let view =
            safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes);
        (name, view.unwrap())
    });
    safetensors::serialize_to_file(views, None, &zeros).unwrap();
    let import = |network| ["import", &from, "--network", network, "-o", &model];
    fail(
        4,
        &["conv1.weight", "hint: its tensors are those of wrn16-2"],
        &import("resnet18"),
    );
    assert!(!written.exists());
    succeed(&import("wrn16-2"));
}

#[test]
fn settings_of_an_import_reach_the_model() {
    let folder = tempfile::tempdir().unwrap();
    let (path, model) = path(&folder, "model.safetensors");
    let (names, names_argument) = self::path(&folder, "names.txt");
    let from = checkpoint(&folder, &[]);
    let base = ["import", &from, "--network", "preresnet8", "-o", &model];
    std::fs::write(&names, "a\nb\nc\nd\ne\nf\ng\nh\ni\n").unwrap();
    fail(
        2,
        &["9 classes", "10"],
        &with(&base, &["--classes", &names_argument]),
    );
    fail(2, &["1 mean for 3"], &with(&base, &["--mean", "0.5"]));
    std::fs::write(&names, "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n").unwrap();
    let settings = [
        "--classes",
        &names_argument,
        "--mean",
        "0.1,0.2,0.3",
        "--std",
        "0.1,0.2,1",
        "--input",
        "40x48",
        "--resize",
        "50",
        "--json",
    ];
    let report = &json(&with(&base, &settings))[0];
    assert_eq!(
        (&report["classes"], &report["network"]),
        (&10.into(), &"preresnet8".into())
    );
    let model = Model::load(path).unwrap();
    assert_eq!(model.classes[9], "j");
    assert_eq!(model.preprocessing.size, [40, 48]);
    assert_eq!(model.preprocessing.std, [0.1, 0.2, 1.0]);
    assert_eq!(report["macs"], model.instances[0].macs);
}

#[test]
fn an_imported_model_is_trained_on_for_other_classes() {
    let t = trained();
    let folder = tempfile::tempdir().unwrap();
    let (_, model) = path(&folder, "model.safetensors");
    let (run, run_argument) = path(&folder, "run");
    let from = checkpoint(&folder, &[]);
    succeed(&["import", &from, "--network", "preresnet8", "-o", &model]);
    let settings = [
        "--data",
        &t.data(),
        "--out",
        &run_argument,
        "--rate",
        "1e-9",
        "--epochs",
        "1",
    ];
    let train = with(&["train", "--init", &model], &settings);
    succeed(&train);

    // At next to no rate, it ends with what it started from.
    let (before, after) = (
        Model::load(&model).unwrap(),
        Model::load(run.join("model.safetensors")).unwrap(),
    );
    assert_eq!(after.classes, ["lying", "standing"]);
    assert_eq!(after.preprocessing, before.preprocessing);
    assert_eq!(after.instances.len(), 7);
    assert!(
        after.training["init"]["model"]
            .as_str()
            .unwrap()
            .contains("model.safetensors")
    );
    let classifier = after.weights.0.len() - 2;
    let all = |model: &Model| model.weights.0[..classifier].concat();
    for (before, after) in std::iter::zip(all(&before), all(&after)) {
        assert!((before - after).abs() < 1e-6, "{after} from {before}");
    }
    assert_eq!(after.weights.0[classifier].len(), 2 * 64);

    fail(
        2,
        &["--network"],
        &with(&train, &["--network", "preresnet8"]),
    );
    let none = common::run(&["train", "--init", "no.safetensors", "--data", &t.data()]);
    assert_eq!((none.status.code(), stdout(&none)), (Some(7), ""));
}

#[test]
fn what_is_exported_comes_back_and_gets_its_instances_again() {
    let t = trained();
    let folder = tempfile::tempdir().unwrap();
    let (_, weights) = path(&folder, "weights.safetensors");
    let (_, model) = path(&folder, "model.safetensors");
    let export = [
        "export",
        &t.model(),
        "--format",
        "safetensors",
        "-o",
        &weights,
    ];
    succeed(&with(&export, &["--instance", "full"]));
    let import = ["import", &weights, "--network", "preresnet8", "-o", &model];
    succeed(&import);
    let (before, back) = (
        Model::load(t.model()).unwrap(),
        Model::load(&model).unwrap(),
    );
    assert_eq!(back.weights, before.weights);
    assert_eq!(
        back.statistics.own(Instance::Full),
        before.statistics.own(Instance::Full)
    );
    assert_eq!(back.classes, ["0", "1"]);

    let data = t.data();
    let calibrate = ["calibrate", &model, "--data", &data, "--ratios", "0.5,0.75"];
    succeed(&calibrate);
    let calibrated = Model::load(&model).unwrap();
    assert_eq!(calibrated.classes, ["lying", "standing"]);
    assert_eq!(calibrated.instances.len(), 7);
    assert!(
        calibrated
            .instances
            .iter()
            .all(|record| record.top1.is_some())
    );

    // All statistics at once are for the exported module alone.
    succeed(&with(&export, &["--instances", "all"]));
    fail(2, &["a trained model"], &import);
    let import = with(&import, &["--force"]);
    fail(4, &["instance_mean", "no place for"], &import);
    succeed(&with(&import, &["--allow-left-over"]));
}

#[test]
fn exports_are_listed_and_wrong_instances_named() {
    let t = trained();
    let folder = tempfile::tempdir().unwrap();
    let (all, all_argument) = path(&folder, "onnx");
    let (module, module_argument) = path(&folder, "net.py");
    let model = t.model();
    let export = ["export", &model];
    let text = succeed(&with(&export, &["--instances", "all", "-o", &all_argument]));
    assert!(
        text.contains("7 files") && text.contains("manifest.json"),
        "{text}"
    );
    let manifest = std::fs::read(all.join("manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    assert_eq!(
        manifest["classes"],
        serde_json::json!(["lying", "standing"])
    );
    // The filter is named, even the usual one.
    assert_eq!(manifest["preprocessing"]["interpolation"], "bilinear");
    assert_eq!(manifest["preprocessing"]["exif_orientation"], "ignore");
    let instances = manifest["instances"].as_array().unwrap();
    assert_eq!(instances.len(), 7);
    for entry in instances {
        let file = all.join(entry["file"].as_str().unwrap());
        let size = std::fs::metadata(file).unwrap().len();
        assert_eq!(entry["bytes"], size);
        assert!(entry["macs"].is_u64() && entry["top1"].is_f64(), "{entry}");
    }

    succeed(&with(&export, &["--python", "-o", &module_argument]));
    let source = std::fs::read_to_string(&module).unwrap();
    assert!(source.contains("\"0@0.5\", \"0@0.75\""), "{source}");

    let to = ["-o", &module_argument];
    let wrong = |what: &[&str]| [&export[..], what, &to].concat().join(" ");
    for (code, what, part) in [
        (5, &["--instance", "9@0.5"][..], "9@0.5"),
        (5, &["--instances", "full,0@0.3"], "0@0.3"),
        (2, &["--instances", "most"], "most"),
        (2, &[], "--instance"),
        (
            2,
            &["--format", "safetensors", "--instances", "full,0@0.5"],
            "one instance or of all",
        ),
    ] {
        let command = wrong(what);
        fail(code, &[part], &command.split(' ').collect::<Vec<_>>());
    }
}
