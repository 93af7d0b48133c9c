use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::document::Document;
use super::layout::Slot;
use super::*;
use crate::PointId;
use crate::combination::{BlendedCascade, Cascade, Combination, Stage};
use crate::layer::{Conv, LayerId, Op, Window};
use crate::network::NetworkBuilder;
use crate::preprocessing::{EvalTransform, ExifOrientation, Interpolation, TrainTransform};
use crate::ratio::Ratio;
use crate::record::Scores;
use crate::weights::Moments;

/// input → conv → norm → max pool (stem) → conv (block 0) → norm → mean → fc
fn network() -> Network {
    network_with(|_, x| x)
}

/// The same with something more before the mean.
fn network_with(more: impl FnOnce(&mut NetworkBuilder, LayerId) -> LayerId) -> Network {
    let mut b = NetworkBuilder::new("tiny", 1);
    let x = b.conv("conv1", b.input(), Conv::square(1, 2, 3, 1));
    let x = b.batch_norm("bn1", x, 2);
    let x = b.layer("maxpool", Op::MaxPool(Window::square(2, 2, 0)), &[x]);
    b.point(PointId::Stem, x);
    let x = b.conv("conv2", x, Conv::square(2, 3, 1, 1));
    b.point(PointId::Block(0), x);
    let x = b.batch_norm("bn2", x, 3);
    let x = more(&mut b, x);
    let x = b.layer("avgpool", Op::GlobalAvgPool, &[x]);
    let op = Op::Linear {
        in_features: 3,
        out_features: 2,
        bias: true,
    };
    b.layer("fc", op, &[x]);
    b.finish().unwrap()
}

fn model() -> Model {
    let network = network();
    let mut weights = Weights::zeros(&network);
    for (index, value) in weights.0.iter_mut().flatten().enumerate() {
        *value = (index as f32).sin();
    }
    let preprocessing = Preprocessing {
        train: TrainTransform::None,
        evaluate: EvalTransform::CenterCrop { resize: 9 },
        ..Preprocessing::new([8, 6], vec![0.1], vec![0.3])
    };
    let instances = network.instances(&Ratio::DEFAULT);
    let mut model = Model::new(network, weights, preprocessing, &instances).unwrap();
    for (index, record) in model.instances.iter_mut().enumerate() {
        let network = &model.network;
        let own = network.norms()[network.own_norms(record.instance)]
            .iter()
            .map(|norm| Moments {
                mean: vec![index as f32 / 3.0; norm.channels],
                var: vec![1.0 + index as f32; norm.channels],
            })
            .collect();
        model.statistics.set(network, record.instance, own);
        record.top1 = Some(0.1 + index as f64 / 7.0);
    }
    model.classes = vec!["cat".into(), "\"dog\"\n猫".into()];
    model.training = json!({ "method": "sdpoint", "seed": u64::MAX, "rate": 0.1 });
    model
}

/// The same model with parameters of its own for some instances.
fn tuned() -> Model {
    let mut model = model();
    for (part, name) in (1..).zip(["0@0.75", "stem@0.5"]) {
        let instance = name.parse().unwrap();
        let own = model.network.own_parameters(instance).into_iter();
        let own = own.map(|index| {
            let len = model.network.parameters()[index].len();
            (index, vec![index as f32 + part as f32 / 8.0; len])
        });
        let own = own.collect();
        model
            .statistics
            .set_parameters(&model.network, instance, own);
    }
    model
}

/// A model file in a folder of its own.
fn saved(model: &Model) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    model.save(&path).unwrap();
    (folder, path)
}

/// Loads bytes as if they were in a file.
fn load_bytes(bytes: &[u8]) -> Result<Model, ModelError> {
    read::read(
        Path::new("some/model"),
        bytes.len() as u64,
        bytes,
        &mut |_, _, _| false,
    )
}

/// The bytes of a model file whose digest is right but whose content was
/// changed before it was written.
fn forged(change: impl FnOnce(&mut Value, &mut Vec<(Slot, Vec<f32>)>)) -> Vec<u8> {
    forged_from(&model(), change)
}

fn forged_from(
    model: &Model,
    change: impl FnOnce(&mut Value, &mut Vec<(Slot, Vec<f32>)>),
) -> Vec<u8> {
    let tuned: Vec<Instance> = model.statistics.tuned().collect();
    let instances: Vec<Instance> = model.instances.iter().map(|r| r.instance).collect();
    let mut document = serde_json::to_value(Document::of(model)).unwrap();
    let mut tensors: Vec<(Slot, Vec<f32>)> = std::iter::zip(
        layout::slots(&model.network, &instances, &tuned),
        layout::values(&model.weights, &model.statistics, &instances, &tuned).map(<[f32]>::to_vec),
    )
    .collect();
    change(&mut document, &mut tensors);
    let (slots, values): (Vec<Slot>, Vec<Vec<f32>>) = tensors.into_iter().unzip();
    let values: Vec<&[f32]> = values.iter().map(Vec::as_slice).collect();
    let mut bytes = write::header(&document.to_string(), &slots).unwrap();
    write::seal(&mut bytes, &values);
    bytes.extend(values.concat().iter().flat_map(|value| value.to_le_bytes()));
    bytes
}

fn forged_error(change: impl FnOnce(&mut Value, &mut Vec<(Slot, Vec<f32>)>)) -> ModelError {
    load_bytes(&forged(change)).unwrap_err()
}

/// The bytes of a safetensors file with this header and data.
fn file(header: &str, data: &[u8]) -> Vec<u8> {
    let length = header.len() as u64;
    [&length.to_le_bytes(), header.as_bytes(), data].concat()
}

#[test]
fn a_model_comes_back_as_it_was_and_always_in_the_same_bytes() {
    let model = model();
    let (_folder, path) = saved(&model);
    assert_eq!(Model::load(&path).unwrap(), model);
    let first = fs::read(&path).unwrap();
    model.save(&path).unwrap();
    assert_eq!(fs::read(&path).unwrap(), first);
    assert_eq!(load_bytes(&forged(|_, _| {})).unwrap(), model);
}

#[test]
fn parameters_that_are_taken_while_reading_are_not_kept() {
    let model = model();
    let (_folder, path) = saved(&model);
    let mut taken = vec![Vec::new(); model.weights.0.len()];
    let loaded = Model::load_passing(&path, |network, index, values| {
        assert_eq!(*network, model.network);
        assert_eq!(values, model.weights.0[index]);
        let wanted = index.is_multiple_of(2);
        if wanted {
            taken[index] = values.to_vec();
        }
        wanted
    });
    let mut loaded = loaded.unwrap();
    for (index, taken) in taken.into_iter().enumerate() {
        if index.is_multiple_of(2) {
            assert!(loaded.weights.0[index].is_empty());
            loaded.weights.0[index] = taken;
        }
    }
    assert_eq!(loaded, model);

    // What was passed of an altered file is of no use.
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, bytes).unwrap();
    let mut passed = 0;
    let error = Model::load_passing(&path, |_, _, _| {
        passed += 1;
        true
    });
    assert!(matches!(error, Err(ModelError::Altered { .. })));
    assert!(passed > 0);
}

#[test]
fn any_reader_of_safetensors_finds_pytorchs_names() {
    let (_folder, path) = saved(&model());
    let bytes = fs::read(path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut names = file.names();
    names.retain(|name| !name.starts_with("instances/"));
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "bn1.bias",
            "bn1.running_mean",
            "bn1.running_var",
            "bn1.weight",
            "bn2.bias",
            "bn2.running_mean",
            "bn2.running_var",
            "bn2.weight",
            "conv1.weight",
            "conv2.weight",
            "fc.bias",
            "fc.weight",
        ]
    );
    // Only norms behind a point have statistics of their own.
    assert!(file.tensor("instances/0@0.5/bn2.running_var").is_ok());
    assert!(file.tensor("instances/0@0.5/bn1.running_var").is_err());
    let conv = file.tensor("conv1.weight").unwrap();
    assert_eq!(conv.shape(), [2, 1, 3, 3]);
    assert_eq!(conv.data()[4..8], 1f32.sin().to_le_bytes());
}

#[test]
fn a_file_cut_anywhere_is_called_truncated() {
    let (_folder, path) = saved(&model());
    let bytes = fs::read(path).unwrap();
    for length in 0..bytes.len() {
        let error = load_bytes(&bytes[..length]).unwrap_err();
        let ModelError::Truncated { size, .. } = error else {
            panic!("cut to {length}: {error}");
        };
        assert_eq!(size, length as u64);
    }
    let error = load_bytes(&[&bytes[..], b"\n"].concat()).unwrap_err();
    assert!(error.to_string().contains("1 bytes follow"), "{error}");
}

#[test]
fn a_changed_byte_is_found_wherever_it_is() {
    let (_folder, path) = saved(&model());
    let bytes = fs::read(&path).unwrap();
    for place in 0..bytes.len() {
        let mut bytes = bytes.clone();
        // Turns letters into the other case and spaces into zeros.
        bytes[place] ^= 0x20;
        assert!(load_bytes(&bytes).is_err(), "byte {place}");
    }
    let mut bytes = bytes;
    *bytes.last_mut().unwrap() ^= 1;
    let error = load_bytes(&bytes).unwrap_err();
    assert!(matches!(error, ModelError::Altered { .. }), "{error}");
}

proptest! {
    #[test]
    fn damage_is_always_an_error_and_never_a_panic(
        damage in prop::collection::vec((any::<prop::sample::Index>(), 1u8..), 1..6)
    ) {
        let original = forged(|_, _| {});
        let mut bytes = original.clone();
        for (place, flip) in damage {
            let place = place.index(bytes.len());
            bytes[place] ^= flip;
        }
        prop_assume!(bytes != original);
        prop_assert!(load_bytes(&bytes).is_err());
    }

    #[test]
    fn any_header_is_survived(header in "\\{[\\PC{}\\[\\]\":,0-9]{0,40}\\}", data in ".{0,9}") {
        prop_assert!(load_bytes(&file(&header, data.as_bytes())).is_err());
    }
}

#[test]
fn what_is_no_model_is_told_apart() {
    let error = Model::load("/no/such/model").unwrap_err().to_string();
    assert!(error.contains("/no/such/model"), "{error}");
    let folder = tempfile::tempdir().unwrap();
    let error = Model::load(folder.path()).unwrap_err().to_string();
    assert!(error.contains("is a folder, not a file"), "{error}");
    for bytes in [
        &b"\xff\xd8\xff\xe0\0\x10JFIF\0 and so on"[..],
        b"PK\x03\x04\0\0\0\0 a zip file",
        b"\0\0\0\0\0\0\0\0",
        b"\x02\0\0\0\0\0\0\0[]",
        b"\x08\0\0\0\0\0\0\0{ broken",
    ] {
        let error = load_bytes(bytes).unwrap_err();
        assert!(
            matches!(error, ModelError::NotSafetensors { .. }),
            "{error}"
        );
    }
    for plain in [
        r#"{"fc.bias":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}"#,
        r#"{"__metadata__":{"format":"pt"}}"#,
        "{}",
    ] {
        let error = load_bytes(&file(plain, &[0; 4])).unwrap_err();
        assert!(matches!(error, ModelError::Foreign { .. }), "{error}");
        assert!(error.to_string().contains("import"), "{error}");
    }
}

#[test]
fn a_newer_format_asks_for_an_update() {
    let error = forged_error(|document, _| {
        document["version"] = json!(4);
        document["instances"] = json!("something new");
    });
    assert!(
        matches!(error, ModelError::Newer { version: 4, .. }),
        "{error}"
    );
    let error = forged_error(|document, _| document["version"] = json!(0));
    assert!(matches!(error, ModelError::Malformed { .. }), "{error}");
}

#[test]
fn a_description_out_of_form_is_malformed() {
    let deep = format!("{}{}", "[".repeat(300), "]".repeat(300));
    type Change = dyn Fn(&mut Value);
    let changes: [(&Change, &str); 5] = [
        (&|d| d["classes"] = json!(3), "sequence"),
        (&|d| d["extra"] = json!(3), "extra"),
        (&|d| d["network"]["layers"] = json!([]), "no layers"),
        (&|d| d["instances"][1]["instance"] = json!("0@7"), "0@7"),
        (
            &|d| *d = json!({ "version": 1, "sha256": document::BLANK_DIGEST }),
            "network",
        ),
    ];
    for (change, part) in changes {
        let error = forged_error(|document, _| change(document));
        assert!(matches!(error, ModelError::Malformed { .. }), "{error}");
        assert!(error.to_string().contains(part), "{error}");
    }
    let mut model = model();
    for _ in 0..200 {
        model.training = json!([model.training]);
    }
    let folder = tempfile::tempdir().unwrap();
    let error = model.save(folder.path().join("model")).unwrap_err();
    assert!(matches!(error, ModelError::Malformed { .. }), "{error}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    let document = format!(r#"{{"version":1,"sha256":"","training":{deep}}}"#);
    let header = json!({ "__metadata__": { "sdpoint": document } }).to_string();
    assert!(load_bytes(&file(&header, &[])).is_err());
    assert!(load_bytes(&file(&format!(r#"{{"a":{deep}}}"#), &[])).is_err());
}

#[test]
fn parts_that_do_not_fit_are_named() {
    type Change = dyn Fn(&mut Value, &mut Vec<(Slot, Vec<f32>)>);
    fn find(tensors: &[(Slot, Vec<f32>)], name: &str) -> usize {
        tensors
            .iter()
            .position(|(slot, _)| slot.name == name)
            .unwrap()
    }
    let changes: [(&Change, &str); 14] = [
        (&|_, t| drop(t.remove(0)), "'conv1.weight' is missing"),
        (
            &|_, t| {
                let index = find(t, "instances/stem@0.5/bn2.running_var");
                t.remove(index);
            },
            "'instances/stem@0.5/bn2.running_var' is missing",
        ),
        (
            &|_, t| t.retain(|(slot, _)| !slot.name.starts_with("instances/0@0.75/")),
            "0@0.75 has no batch-norm statistics",
        ),
        (
            &|_, t| t[0].0.name = "a".into(),
            "'conv1.weight' is missing",
        ),
        (
            &|_, t| {
                for name in ["left", "over"] {
                    let shape = vec![0];
                    let name = name.into();
                    t.push((Slot { name, shape }, Vec::new()));
                }
            },
            "'left' does not belong to the network (2 such",
        ),
        (
            &|_, t| t[0].0.shape = vec![1, 2, 3, 3],
            "[1, 2, 3, 3], but the network needs [2, 1, 3, 3]",
        ),
        (&|_, t| t[0].1[3] = f32::NAN, "'conv1.weight' holds values"),
        (
            &|_, t| {
                let index = find(t, "bn1.running_var");
                t[index].1[1] = -0.5;
            },
            "'bn1.running_var' holds variances below zero",
        ),
        (&|d, _| d["classes"] = json!(["cat"]), "1 classes"),
        (
            &|d, _| d["preprocessing"]["std"] = json!([0.0]),
            "deviations",
        ),
        (
            &|d, _| d["instances"][1]["instance"] = json!("7@0.5"),
            "7@0.5 is at a point that tiny does not have",
        ),
        (
            &|d, _| d["instances"][1]["instance"] = json!("full"),
            "full twice",
        ),
        (
            &|d, _| drop(d["instances"].as_array_mut().unwrap().remove(0)),
            "lacks the instance full",
        ),
        (
            &|d, _| d["instances"][2]["top1"] = json!(81.8),
            "top1 of its instance",
        ),
    ];
    for (change, part) in changes {
        let error = forged_error(change);
        assert!(matches!(error, ModelError::Misfit { .. }), "{error}");
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[test]
fn what_does_not_fit_is_not_written() {
    let (_folder, path) = saved(&model());
    let before = fs::read(&path).unwrap();
    let refuse = |change: &dyn Fn(&mut Model), part: &str| {
        let mut model = model();
        change(&mut model);
        let error = model.save(&path).unwrap_err();
        assert!(matches!(error, ModelError::Misfit { .. }), "{error}");
        assert!(error.to_string().contains(part), "{error}");
    };
    refuse(&|m| drop(m.weights.0.pop()), "'fc.bias' is missing");
    refuse(&|m| m.weights.0.push(Vec::new()), "parameter 8");
    refuse(&|m| m.weights.0[0].truncate(17), "[17]");
    refuse(&|m| m.weights.0[0][0] = f32::INFINITY, "not finite");
    refuse(&|m| m.instances[0].loss = Some(f64::NAN), "loss");
    let at: Instance = "0@0.5".parse().unwrap();
    refuse(&|m| m.statistics.remove(at), "no batch-norm statistics");
    refuse(
        &|m| m.instances.retain(|record| record.instance != at),
        "does not list",
    );
    refuse(&|m| m.preprocessing.size = [1, 1], "too small");
    assert_eq!(fs::read(&path).unwrap(), before);
    let error = model().save("/no/such/folder/model").unwrap_err();
    assert!(matches!(error, ModelError::Write(_)), "{error}");
}

/// What a short file claims must not make the reader allocate or count.
#[test]
fn absurd_claims_are_refused_at_once() {
    let started = std::time::Instant::now();
    let huge = [u64::MAX.to_le_bytes().as_slice(), b"{"].concat();
    assert!(load_bytes(&huge).is_err());
    let long = [99_999_999u64.to_le_bytes().as_slice(), b"{}"].concat();
    let error = load_bytes(&long).unwrap_err();
    assert!(matches!(error, ModelError::Truncated { .. }), "{error}");

    let document = serde_json::to_string(&Document::of(&model())).unwrap();
    for (shape, offsets) in [
        (vec![1u64 << 40; 2], [0, u64::MAX]),
        (vec![1 << 61], [0, 1 << 63]),
        (vec![1 << 30], [0, 1 << 32]),
        (vec![1], [8, 12]),
        (vec![1], [4, 0]),
    ] {
        let header = json!({
            "__metadata__": { "sdpoint": document },
            "conv1.weight": { "dtype": "F32", "shape": shape, "data_offsets": offsets },
        });
        assert!(load_bytes(&file(&header.to_string(), &[])).is_err());
    }

    // A network of 2^60 weights, and as many instances as fit in a line.
    let error = forged_error(|document, _| {
        let side = 1 << 20;
        let layers = document["network"]["layers"].as_array_mut().unwrap();
        let conv = &mut layers[1]["op"]["conv"];
        conv["kernel"] = json!([1023, 1023]);
        conv["padding"] = json!([511, 511]);
        conv["out_channels"] = json!(side);
        layers[2]["op"]["batch_norm"]["channels"] = json!(side);
        layers[4]["op"]["conv"]["in_channels"] = json!(side);
        let instances = document["instances"].as_array_mut().unwrap();
        for index in 1..20_000 {
            let name = format!("stem@{}", f64::from(index) / 20_011.0);
            instances.push(json!({ "instance": name, "macs": 1 }));
        }
    });
    assert!(error.to_string().contains("1023, 1023]"), "{error}");
    assert!(started.elapsed().as_secs() < 5);
}

fn combined(combination: Combination) -> CombinedRecord {
    CombinedRecord {
        combination,
        macs: 100,
        top1: 0.5,
        top5: 1.0,
        loss: 0.7,
        test: None,
    }
}

#[test]
fn combinations_travel_with_the_model() {
    let mut model = model();
    let [first, second] = [1, 0].map(|i| model.instances[i].instance);
    model.combinations = vec![
        combined(Combination::Cascade(Cascade {
            first,
            second,
            threshold: 0.75,
        })),
        combined(Combination::Ensemble(vec![first, second])),
    ];
    let (_folder, path) = saved(&model);
    assert_eq!(Model::load(&path).unwrap(), model);
}

#[test]
fn features_are_named_exactly_where_a_model_has_them() {
    let features = |model: &Model| {
        let document = serde_json::to_value(Document::of(model)).unwrap();
        assert_eq!(document["version"], 3);
        document["features"].clone()
    };
    let mut model = model();
    assert_eq!(features(&model), json!([]));
    model.network = network_with(|b, x| b.relu6("relu6", x));
    model.preprocessing.evaluate = EvalTransform::SquashCrop { resize: [9, 9] };
    model.preprocessing.interpolation = Interpolation::Bicubic;
    model.preprocessing.exif_orientation = ExifOrientation::Apply;
    model.combinations = vec![combined(Combination::BlendedCascade(blended()))];
    model.held_out = Some(HeldOut {
        share: 0.05,
        seed: 7,
    });
    let test = Some(Scores {
        top1: 0.25,
        top5: 0.5,
        loss: 1.5,
    });
    model.instances[1].test = test;
    model.combinations[0].test = test;
    model.statistics = tuned().statistics;
    model.samples = vec![png(1, 9)];
    let all: Vec<&str> = Feature::ALL.iter().map(|feature| feature.name()).collect();
    assert_eq!(features(&model), json!(all));
    assert_eq!(serde_json::to_value(Feature::ALL).unwrap(), json!(all));
    let (_folder, path) = saved(&model);
    assert_eq!(Model::load(&path).unwrap(), model);
}

#[test]
fn held_out_images_and_accuracies_on_test_images_must_be_possible() {
    let refused = |change: fn(&mut Model), part: &str| {
        let mut model = model();
        model.held_out = Some(HeldOut {
            share: 0.1,
            seed: 0,
        });
        change(&mut model);
        let folder = tempfile::tempdir().unwrap();
        let error = model.save(folder.path().join("m")).unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    };
    fn test(top1: f64, loss: f64) -> Option<Scores> {
        Some(Scores {
            top1,
            top5: 1.0,
            loss,
        })
    }
    refused(|m| m.held_out.as_mut().unwrap().share = 0.75, "0.75");
    refused(|m| m.held_out.as_mut().unwrap().share = f64::NAN, "NaN");
    refused(|m| m.instances[1].test = test(1.5, 0.0), "top1 of ");
    refused(|m| m.instances[1].test = test(0.5, f64::NAN), "loss of ");
    refused(
        |m| {
            m.held_out = None;
            m.instances[1].test = test(0.5, 1.0);
        },
        "no images held out",
    );
    let error = forged_error(|document, _| {
        document["held_out"] = json!({ "share": 0.1, "seed": 0 });
    });
    assert!(error.to_string().contains("held_out"), "{error}");
}

#[test]
fn what_is_reported_is_the_accuracy_on_test_images() {
    let mut record = Record::unmeasured(Instance::Full, 1);
    assert_eq!((record.scores(), record.reported()), (None, None));
    (record.top1, record.top5, record.loss) = (Some(0.5), Some(0.75), Some(1.0));
    assert_eq!(record.reported(), record.scores());
    let test = Scores {
        top1: 0.25,
        top5: 0.5,
        loss: 2.0,
    };
    record.test = Some(test);
    assert_eq!(record.reported(), Some(test));
    let mut both = combined(Combination::Ensemble(vec![Instance::Full]));
    assert_eq!(both.reported(), both.scores());
    both.test = Some(test);
    assert_eq!(both.reported(), test);
}

#[test]
fn unknown_features_are_refused_by_name() {
    let error = forged_error(|document, _| {
        document["features"] = json!(["combinations", "int8", "a\u{1b}[2J", "int8"]);
        document["instances"] = json!("something new");
    });
    let ModelError::Features { features, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(features.len(), 2);
    let text = error.to_string();
    assert!(text.contains("'a\\u{1b}[2J', 'int8' that"), "{text}");
    let many: Vec<String> = (0..1000).map(|i| i.to_string().repeat(1000)).collect();
    let text = forged_error(|document, _| document["features"] = json!(many)).to_string();
    assert!(text.len() < 400 && text.contains("995 more"), "{text}");
}

#[test]
fn a_newer_version_is_told_whatever_its_features_are() {
    for features in [json!({ "int8": 1 }), json!("int8"), json!([1])] {
        let error = forged_error(|document, _| {
            document["version"] = 4.into();
            document["features"] = features.clone();
        });
        let newer = matches!(error, ModelError::Newer { version: 4, .. });
        assert!(newer, "{error}");
        let error = forged_error(|document, _| document["features"] = features.clone());
        assert!(error.to_string().contains("no list of names"), "{error}");
    }
}

#[test]
fn a_feature_that_is_not_used_or_named_twice_is_refused() {
    let error = forged_error(|document, _| document["features"] = json!(["relu6"]));
    assert!(error.to_string().contains("does not have"), "{error}");
    let error = forged_error(|document, _| {
        document["preprocessing"]["interpolation"] = "bicubic".into();
        document["features"] = json!(["interpolation", "interpolation"]);
    });
    assert!(error.to_string().contains("twice"), "{error}");
}

#[test]
fn a_feature_that_is_not_named_is_refused() {
    for version in [1, 2, 3] {
        let error = forged_error(|document, _| {
            document["version"] = version.into();
            if version < 3 {
                document.as_object_mut().unwrap().remove("features");
            }
            document["preprocessing"]["interpolation"] = "bicubic".into();
        });
        assert!(matches!(error, ModelError::Malformed { .. }), "{error}");
        assert!(error.to_string().contains("interpolation"), "{error}");
    }
    let error = forged_error(|document, _| {
        document["version"] = 2.into();
        document["features"] = json!(["combinations"]);
    });
    assert!(error.to_string().contains("names no features"), "{error}");
}

fn png(label: usize, bytes: usize) -> KeptImage {
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    png.resize(bytes, 0xa5);
    KeptImage { label, png }
}

#[test]
fn samples_travel_with_the_model() {
    let mut model = model();
    assert!(!Feature::of(&model).contains(&Feature::Samples));
    model.samples = vec![png(1, 9), png(0, KeptImage::MOST_BYTES)];
    let (_folder, path) = saved(&model);
    assert_eq!(Feature::of(&model), [Feature::Samples]);
    assert_eq!(Model::load(path).unwrap(), model);
}

#[test]
fn samples_that_cannot_be_are_refused() {
    let refused = |samples: Vec<KeptImage>, part: &str| {
        let bytes = forged(|document, _| {
            document["features"] = json!(["samples"]);
            document["samples"] = serde_json::to_value(&samples).unwrap();
        });
        let error = load_bytes(&bytes).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
        let mut model = model();
        model.samples = samples;
        let folder = tempfile::tempdir().unwrap();
        let error = model.save(folder.path().join("m")).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    };
    refused(vec![png(0, 9), png(2, 9)], "number 1 is of class 2");
    refused(
        vec![png(0, KeptImage::MOST_BYTES + 1)],
        "65537 of at most 65536 bytes",
    );
    refused(vec![png(0, 9); KeptImage::MOST + 1], "65 of at most 64");
    let text = KeptImage {
        label: 0,
        png: b"<svg onload=alert(1)>".to_vec(),
    };
    refused(vec![text], "not a PNG");
    let broken = forged(|document, _| {
        document["features"] = json!(["samples"]);
        document["samples"] = json!([{"label": 0, "png": "&"}]);
    });
    assert!(matches!(
        load_bytes(&broken),
        Err(ModelError::Malformed { .. })
    ));
    let unnamed = forged(|document, _| {
        document["samples"] = serde_json::to_value(vec![png(0, 9)]).unwrap();
    });
    let error = load_bytes(&unnamed).unwrap_err().to_string();
    assert!(
        error.contains("does not name its feature samples"),
        "{error}"
    );
}

#[test]
fn combinations_that_cannot_be_are_refused() {
    let refused = |combination: Value, part: &str| {
        let error = forged_error(|document, _| {
            document["features"] = json!(["combinations"]);
            let mut record = serde_json::to_value(combined(Combination::Ensemble(vec![]))).unwrap();
            record["combination"] = combination;
            document["combinations"] = json!([record]);
        });
        assert!(error.to_string().contains(part), "{error}");
    };
    refused(json!({ "ensemble": [] }), "has no instances");
    refused(
        json!({ "ensemble": ["77@0.5"] }),
        "has the instance 77@0.5, which",
    );
    let cascade = |threshold: f64| json!({ "cascade": { "first": "full", "second": "full", "threshold": threshold } });
    refused(cascade(-1.0), "threshold of -1");
    let error = forged_error(|document, _| {
        document["version"] = 1.into();
        document.as_object_mut().unwrap().remove("features");
        document["combinations"] =
            json!([
                serde_json::to_value(combined(Combination::Ensemble(vec![Instance::Full])))
                    .unwrap()
            ]);
    });
    assert!(error.to_string().contains("version 1 has no"), "{error}");
}

#[test]
fn parameters_of_an_instances_own_travel_with_the_model() {
    let model = tuned();
    let (_folder, path) = saved(&model);
    let read = Model::load(&path).unwrap();
    assert_eq!(read, model);
    assert_eq!(Feature::of(&read), [Feature::OwnParameters]);
    let bytes = fs::read(&path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    for (name, there) in [
        ("instances/0@0.75/bn2.weight", true),
        ("instances/0@0.75/bn2.bias", true),
        ("instances/0@0.75/fc.bias", true),
        ("instances/stem@0.5/bn2.weight", true),
        ("instances/stem@0.5/bn1.weight", false),
        ("instances/0@0.75/fc.weight", false),
        ("instances/0@0.5/fc.bias", false),
    ] {
        assert_eq!(file.tensor(name).is_ok(), there, "{name}");
    }
    let instance = "0@0.75".parse().unwrap();
    let of = |name: &str| {
        let mut parameters = model.network.parameters().iter();
        parameters
            .position(|parameter| parameter.name == name)
            .unwrap()
    };
    let value = |name: &str, instance| {
        let index = of(name);
        read.statistics.parameter(&read.weights, instance, index)[0]
    };
    assert_eq!(
        value("bn2.weight", instance),
        of("bn2.weight") as f32 + 0.125
    );
    assert_eq!(
        value("bn1.weight", instance),
        value("bn1.weight", Instance::Full)
    );
    assert_eq!(
        value("fc.bias", Instance::Full),
        model.weights.0[of("fc.bias")][0]
    );

    // New moments, and removal, leave none behind.
    let mut again = model.clone();
    let (_, moments) = again.statistics.own(instance).unwrap();
    let moments = moments.to_vec();
    again.statistics.set(&again.network, instance, moments);
    assert_eq!(again.statistics.tuned().count(), 1);
    again.statistics.remove("stem@0.5".parse().unwrap());
    assert_eq!(again.statistics.tuned().count(), 0);
}

/// A change of a file's description and tensors.
type Change<'a> = &'a dyn Fn(&mut Value, &mut Vec<(Slot, Vec<f32>)>);

#[test]
fn parameters_that_no_instance_can_have_are_refused() {
    let refused = |change: Change<'_>, part: &str| {
        let error = load_bytes(&forged_from(&tuned(), change)).unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    };
    for instance in ["full", "0@0.3", "0@0.75"] {
        let listed = json!(["0@0.75", "stem@0.5", instance]);
        refused(&|d, _| d["own_parameters"] = listed.clone(), "of its own");
    }
    refused(
        &|d, _| d["own_parameters"] = json!(["0@0.75"]),
        "does not belong",
    );
    refused(
        &|d, _| d["own_parameters"] = json!(["0@0.75", "stem@0.5", "0@0.5"]),
        "instances/0@0.5/bn2.weight' is missing",
    );
    refused(
        &|d, _| d["features"] = json!([]),
        "does not name its feature own_parameters",
    );
    refused(
        &|_, tensors| {
            let last = tensors.last_mut().unwrap();
            last.1[0] = f32::NAN;
        },
        "not finite",
    );
    refused(
        &|_, tensors| {
            let last = tensors.last_mut().unwrap();
            last.1.push(0.0);
            last.0.shape[0] += 1;
        },
        "needs [2]",
    );

    let folder = tempfile::tempdir().unwrap();
    let mut model = tuned();
    let own = crate::OwnParameters::from([(0, vec![1.0])]);
    model
        .statistics
        .insert_parameters("0@0.75".parse().unwrap(), own);
    let error = model.save(folder.path().join("x")).unwrap_err();
    assert!(error.to_string().contains("0@0.75"), "{error}");
}

fn blended() -> BlendedCascade {
    let stage = |name: &str, weight: f64, margin: f64| Stage {
        instance: name.parse().unwrap(),
        temperature: 1.25,
        weight,
        margin,
    };
    BlendedCascade {
        first: stage("stem@0.5", 1.0, 0.5),
        second: stage("0@0.75", 0.625, 0.25),
        third: Some(stage("full", 0.5, 0.0)),
    }
}

#[test]
fn blended_cascades_travel_with_the_model_as_a_feature() {
    for third in [blended().third, None] {
        let mut model = model();
        let cascade = BlendedCascade { third, ..blended() };
        model.combinations = vec![combined(Combination::BlendedCascade(cascade))];
        let (_folder, path) = saved(&model);
        let read = Model::load(&path).unwrap();
        assert_eq!(read, model);
        assert_eq!(
            Feature::of(&read),
            [Feature::BlendedCascades, Feature::Combinations]
        );
    }
}

#[test]
fn blended_cascades_that_cannot_be_are_refused() {
    let refused = |change: fn(&mut BlendedCascade), part: &str| {
        let mut cascade = blended();
        change(&mut cascade);
        let record = combined(Combination::BlendedCascade(cascade));
        let error = forged_error(|document, _| {
            document["features"] = json!(["blended_cascades", "combinations"]);
            document["combinations"] = json!([serde_json::to_value(record).unwrap()]);
        });
        assert!(error.to_string().contains(part), "{error}");
    };
    refused(|c| c.first.weight = 0.5, "first stage");
    refused(|c| c.second.weight = 1.5, "weight of 1.5");
    refused(|c| c.second.margin = -1.0, "margin of -1");
    refused(|c| c.first.temperature = 0.0, "temperature of 0");
    refused(|c| c.second.instance = c.first.instance, "twice");
    refused(|c| c.second.instance = "0@0.3".parse().unwrap(), "0@0.3");
    let record = serde_json::to_value(combined(Combination::BlendedCascade(blended()))).unwrap();
    let error = forged_error(|document, _| {
        document["features"] = json!(["combinations"]);
        document["combinations"] = json!([record]);
    });
    assert!(error.to_string().contains("blended_cascades"), "{error}");
}
