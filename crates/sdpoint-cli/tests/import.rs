//! Weights of all kinds through `sdpoint import`.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{fail, json, run, stderr, succeed};
use safetensors::tensor::{Dtype, TensorView};
use sdpoint::core::{EvalTransform, Interpolation};
use sdpoint::{Model, zoo};
use serde_json::json;
use tempfile::TempDir;

/// A folder, and an argument for each file in it.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn argument(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// Zeros for all tensors of a network, under other names.
    fn zeros(&self, file: &str, network: &str, name: impl Fn(&str) -> String) -> String {
        let network = zoo::build(network, 3).unwrap();
        let mut tensors: Vec<(String, Vec<usize>)> = network
            .parameters()
            .iter()
            .map(|parameter| (parameter.name.clone(), parameter.shape.clone()))
            .collect();
        for norm in network.norms() {
            for kind in ["mean", "var"] {
                tensors.push((format!("{}.running_{kind}", norm.name), vec![norm.channels]));
            }
        }
        let size = |shape: &Vec<usize>| 4 * shape.iter().product::<usize>();
        let largest = tensors.iter().map(|(_, shape)| size(shape)).max().unwrap();
        let data = vec![0; largest];
        let views = tensors.iter().map(|(old, shape)| {
            let view = TensorView::new(Dtype::F32, shape.clone(), &data[..size(shape)]);
            (name(old), view.unwrap())
        });
        safetensors::serialize_to_file(views, None, &self.path(file)).unwrap();
        self.argument(file)
    }
}

/// Imports zeros of preresnet8 with more arguments; what the model is then.
fn imported(arguments: &[&str]) -> Model {
    let folder = Folder::new();
    let from = folder.zeros("net.safetensors", "preresnet8", str::to_owned);
    let model = folder.argument("model.safetensors");
    let base = ["import", &from, "--network", "preresnet8", "-o", &model];
    succeed(&[&base, arguments].concat());
    Model::load(&model).unwrap()
}

/// Fails to import zeros of preresnet8 with more arguments.
fn refused(texts: &[&str], arguments: &[&str]) {
    let folder = Folder::new();
    let from = folder.zeros("net.safetensors", "preresnet8", str::to_owned);
    let model = folder.argument("model.safetensors");
    let base = ["import", &from, "--network", "preresnet8", "-o", &model];
    fail(2, texts, &[&base, arguments].concat());
    assert!(!Path::new(&model).exists());
}

#[test]
fn images_are_prepared_as_the_options_say() {
    let crop = |resize| EvalTransform::CenterCrop { resize };
    for (arguments, size, evaluate, filter) in [
        (&[][..], 32, EvalTransform::Resize, Interpolation::Bilinear),
        (
            &["--resize-mode", "short-side", "--interpolation", "bicubic"],
            32,
            crop(32),
            Interpolation::Bicubic,
        ),
        (
            &["--resize-mode", "squash", "--resize", "40"],
            32,
            EvalTransform::SquashCrop { resize: [40, 40] },
            Interpolation::Bilinear,
        ),
        (
            &["--preset", "torchvision-v2"],
            224,
            crop(232),
            Interpolation::Bilinear,
        ),
        (
            &["--preset", "timm-a1", "--interpolation", "lanczos"],
            224,
            crop(235),
            Interpolation::Lanczos,
        ),
        (
            &["--preset", "timm-a3"],
            160,
            crop(168),
            Interpolation::Bicubic,
        ),
        (
            &["--preset", "torchvision-v1", "--resize-mode", "squash"],
            224,
            EvalTransform::Resize,
            Interpolation::Bilinear,
        ),
    ] {
        let preprocessing = imported(arguments).preprocessing;
        assert_eq!(preprocessing.size, [size; 2], "{arguments:?}");
        assert_eq!(preprocessing.evaluate, evaluate, "{arguments:?}");
        assert_eq!(preprocessing.interpolation, filter, "{arguments:?}");
    }
    let preprocessing = imported(&["--mean", "0.5, 0.4, 0.3", "--std", "(0.2, 0.2, 0.1)"]);
    assert_eq!(preprocessing.preprocessing.mean, [0.5, 0.4, 0.3]);
    assert_eq!(preprocessing.preprocessing.std, [0.2, 0.2, 0.1]);
}

#[test]
fn the_crop_of_an_oblong_input_fits_into_a_square_image() {
    let preset = ["--preset", "torchvision-v1"];
    let short_side = ["--resize-mode", "short-side"];
    for (how, arguments, resize) in [
        (&preset, &["--input", "32x48"][..], 55),
        (&preset, &["--input", "48x32"], 55),
        (&preset, &["--input", "48x32", "--resize", "48"], 48),
        (&short_side, &["--input", "32x48"], 48),
    ] {
        let model = imported(&[how, arguments].concat());
        let expected = EvalTransform::CenterCrop { resize };
        assert_eq!(model.preprocessing.evaluate, expected, "{arguments:?}");
        for resize in ["47", "40", "32"] {
            let arguments = [how, &arguments[..2], &["--resize", resize]].concat();
            refused(&["crop has 48", "meant: --resize 55"], &arguments);
        }
    }
    // Of images that are squashed, each side counts.
    let squash = ["--resize-mode", "squash", "--input", "32x48"];
    imported(&[&squash[..], &["--resize", "32"]].concat());
    refused(
        &["to 31 pixels, but the crop has 32"],
        &[&squash[..], &["--resize", "31"]].concat(),
    );
}

/// A crop beyond the image was possible in earlier versions.
#[test]
fn training_does_not_start_with_a_crop_beyond_the_image() {
    let folder = Folder::new();
    let mut model = imported(&["--resize-mode", "short-side"]);
    model.preprocessing.evaluate = EvalTransform::CenterCrop { resize: 20 };
    model.save(folder.path("old.safetensors")).unwrap();
    let (from, out) = (folder.argument("old.safetensors"), folder.argument("run"));
    fail(
        2,
        &["to 20 pixels, but the crop has 32", "meant: 37"],
        &["train", "--init", &from, "--out", &out],
    );
}

#[test]
fn absurd_preprocessing_is_refused_with_what_was_meant() {
    refused(
        &[
            "mean of 123.675",
            "--mean 0.485,0.456,0.406 --std 0.229,0.224,0.225",
        ],
        &[
            "--mean",
            "123.675,116.28,103.53",
            "--std",
            "58.395,57.12,57.375",
        ],
    );
    refused(&["--std 0.229"], &["--std", "58.395,57.12,57.375"]);
    refused(&["deviation", "0.2"], &["--std", "1e-38,1e-38,1e-38"]);
    refused(&["deviation"], &["--std", "0,1,1"]);
    refused(&["deviation"], &["--std=-0.2,0.2,0.2"]);
    refused(&["not all finite"], &["--mean", "NaN,0,0"]);
    refused(&["not all finite"], &["--std", "inf,1,1"]);
    refused(&["mean of -0.5"], &["--mean", "-0.5,0.5,0.5"]);
    refused(
        &["resized to 200 pixels", "--resize 256"],
        &["--input", "224", "--resize", "200"],
    );
    refused(
        &["resized to 200 pixels"],
        &[
            "--input",
            "224",
            "--resize",
            "200",
            "--resize-mode",
            "squash",
        ],
    );
    refused(&["not a number"], &["--mean", "a,b,c"]);
    // Values of no scale: no number is made up.
    let usual = "--mean 0.485,0.456,0.406 --std 0.229,0.224,0.225";
    for (option, values) in [
        ("--std", "5,5,5"),
        ("--std", "2,2,2"),
        ("--std", "0.001,0.001,0.001"),
        ("--std", "0.00391,0.00391,0.00391"),
        ("--mean", "1.5,1.5,1.5"),
        ("--mean", "0.5,0.5,1.2"),
    ] {
        refused(&[usual], &[option, values]);
    }
    refused(&["white", "--mean 0,0,0 --std 1,1,1"], &["--mean", "1,1,1"]);
    for values in [
        "0.00392157,0.00392157,0.00392157",
        "0.00392,0.00392,0.00392",
        "1,1,1",
        "0.05,0.05,0.05",
    ] {
        imported(&["--std", values]);
    }
    refused(&["nearest", "lanczos"], &["--interpolation", "cubic"]);
    refused(&["torchvision-v2"], &["--preset", "imagenet"]);
    // What is suggested is accepted.
    refused(
        &["--std 0.00392,0.00392,0.00392"],
        &["--mean", "127.5,127.5,127.5", "--std", "1,1,1"],
    );
}

#[test]
fn published_weights_select_their_preset() {
    for (name, same) in [
        ("IMAGENET1K_V1", "torchvision-v1"),
        ("imagenet1k_v2", "torchvision-v2"),
        ("ResNet50_Weights.IMAGENET1K_V2", "torchvision-v2"),
        ("a1_in1k", "timm-a1"),
        ("resnet50.a3_in1k", "timm-a3"),
        ("racm_in1k", "timm-ra"),
        ("tv_in1k", "torchvision-v1"),
    ] {
        let of = |preset| imported(&["--preset", preset]).preprocessing;
        assert_eq!(of(name), of(same), "{name}");
    }
    let model = imported(&["--preset", "tv2_in1k", "--interpolation", "BICUBIC"]);
    assert_eq!(model.preprocessing.size, [176, 176]);
    assert_eq!(model.preprocessing.interpolation, Interpolation::Bicubic);
    for default in ["DEFAULT", "ResNet18_Weights.DEFAULT"] {
        refused(&["IMAGENET1K_V2 for some networks"], &["--preset", default]);
    }
}

#[test]
fn weights_in_several_files_are_imported_as_one() {
    let folder = Folder::new();
    let whole = folder.zeros("net.safetensors", "preresnet8", str::to_owned);
    let bytes = fs::read(&whole).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let sharded = folder.path("sharded");
    fs::create_dir(&sharded).unwrap();
    let mut map = serde_json::Map::new();
    for number in [1, 2] {
        let name = format!("model-0000{number}-of-00002.safetensors");
        let views = file.tensors().into_iter().enumerate();
        let views = views.filter(|(index, _)| index % 2 + 1 == number);
        let views: Vec<_> = views.map(|(_, view)| view).collect();
        map.extend(
            views
                .iter()
                .map(|(tensor, _)| (tensor.clone(), json!(name))),
        );
        safetensors::serialize_to_file(views, None, &sharded.join(name)).unwrap();
    }
    let index = sharded.join("model.safetensors.index.json");
    fs::write(
        &index,
        json!({"metadata": {}, "weight_map": map}).to_string(),
    )
    .unwrap();
    let argument = |path: &Path| path.to_str().unwrap().to_owned();
    let import = |from: &str, to: &str| {
        let to = folder.argument(to);
        ["import", from, "--network", "preresnet8", "-o", &to].map(str::to_owned)
    };
    for from in [argument(&sharded), argument(&index)] {
        succeed(&import(&from, "model.safetensors"));
        let inside = import(&from, "sharded/model.st");
        fail(2, &["an input of this command"], &inside);
    }
    let model = Model::load(folder.path("model.safetensors")).unwrap();
    succeed(&import(&whole, "same.safetensors"));
    assert!(
        Model::load(folder.path("same.safetensors"))
            .unwrap()
            .weights
            == model.weights
    );
    let one = argument(&sharded.join("model-00001-of-00002.safetensors"));
    fail(4, &["several files", "index.json"], &import(&one, "no.st"));
}

#[test]
fn faults_of_checkpoints_name_them() {
    let folder = Folder::new();
    let from = |name: &str| {
        let model = folder.argument("model.st");
        let from = folder.argument(name);
        ["import", &from, "--network", "preresnet8", "-o", &model].map(str::to_owned)
    };
    fs::write(folder.path("x.onnx"), b"\x08\x0a\x12\x07pytorch").unwrap();
    fail(4, &["x.onnx", "an ONNX file"], &from("x.onnx"));
    folder.zeros("net.st", "preresnet8", |name| format!("a.{name}"));
    let mut at_top = from("net.st").to_vec();
    at_top.extend(["--key", "none"].map(str::to_owned));
    fail(4, &["tensors 'none'; it has '.'"], &at_top);
    #[cfg(unix)]
    for start in [&b"\0"[..], b"\x10\0\0\0\0\0\0\0{"] {
        fs::write(folder.path("large.pth"), start).unwrap();
        let file = fs::File::options()
            .write(true)
            .open(folder.path("large.pth"));
        file.unwrap().set_len(1 << 43).unwrap();
        fail(4, &["large.pth", "cannot be imported"], &from("large.pth"));
    }
}

#[test]
fn a_crop_of_little_of_the_image_is_questioned() {
    let folder = Folder::new();
    let from = folder.zeros("net.safetensors", "preresnet8", str::to_owned);
    let model = folder.argument("model.safetensors");
    let base = [
        "import",
        &from,
        "--network",
        "preresnet8",
        "-o",
        &model,
        "--input",
        "224",
    ];
    for (resize, part) in [("2000", Some("1%")), ("448", Some("25%")), ("300", None)] {
        let output = run(&[&base[..], &["--resize", resize]].concat());
        let errors = stderr(&output);
        assert!(output.status.success(), "{errors}");
        match part {
            Some(part) => {
                for word in [part, "--resize 256"] {
                    assert!(errors.contains(word), "{resize}: {errors}");
                }
            }
            None => assert_eq!(errors, "", "{resize}"),
        }
    }
}

#[test]
fn what_was_taken_is_said() {
    let folder = Folder::new();
    let model = folder.argument("model.safetensors");
    let from = folder.zeros("net.safetensors", "preresnet8", |name| {
        match name.strip_prefix("fc.") {
            Some(rest) => format!("model.fc.1.{rest}"),
            None => format!("model.{name}"),
        }
    });
    let import = ["import", &from, "--network", "preresnet8", "-o", &model];
    let text = succeed(&import);
    for part in [
        "names with the prefix 'model.'",
        "it is 'model.fc.1'",
        "squashed to 32 (bilinear)",
        "epsilon of 1e-5",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let report = &json(&[&import[..], &["--json"]].concat())[0];
    assert_eq!(report["prefix"], "model.");
    assert_eq!(report["key"], "");
    assert_eq!(report["averaged"], false);
    assert_eq!(report["others"], json!([]));
    assert_eq!(report["outside"], json!([]));
    assert_eq!(
        report["classifier"],
        json!({"name": "model.fc.1", "bias": true, "outputs": 3})
    );
    let chosen = |more: &[&'static str]| [&import[..], more].concat();
    succeed(&chosen(&["--prefix", "model", "--key", "."]));
    fail(4, &["missing"], &chosen(&["--prefix", "net."]));
    fail(
        4,
        &["no dictionary of tensors 'ema'"],
        &chosen(&["--key", "ema"]),
    );
}

#[test]
fn a_part_of_a_listed_network_is_not_imported() {
    let folder = Folder::new();
    let model = folder.argument("model.safetensors");
    // All of resnet18's tensors are in resnet34.
    let from = folder.zeros("net.safetensors", "resnet34", str::to_owned);
    let import = ["import", &from, "--network", "resnet18", "-o", &model];
    for more in [&[][..], &["--allow-left-over"]] {
        let errors = fail(
            4,
            &["and 75 others", "--network resnet34"],
            &[&import[..], more].concat(),
        );
        assert!(!errors.contains("--allow-left-over"), "{errors}");
        assert!(errors.len() < 1500, "{errors}");
    }
}

/// A file of pickle.dump with one NumPy array, `conv1.weight` in `state_dict`, and
/// beside it `{options: {key: name}}`.
fn named_pickle(options: &str, key: &str, name: &str) -> Vec<u8> {
    let text = |text: &str| {
        [
            &b"X"[..],
            &(text.len() as u32).to_le_bytes(),
            text.as_bytes(),
        ]
        .concat()
    };
    let dtype = [
        &b"cnumpy\ndtype\n"[..],
        &text("f4"),
        b"\x89\x88\x87R(K\x03",
        &text("<"),
    ]
    .concat();
    let dtype = [&dtype[..], b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"].concat();
    let array = b"cnumpy._core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R";
    let value = [
        &array[..],
        b"(K\x01K\x01\x85",
        &dtype,
        b"\x89C\x04\x00\x00\x80?tb",
    ]
    .concat();
    let weights = [
        &text("state_dict")[..],
        b"}",
        &text("conv1.weight"),
        &value,
        b"s",
    ]
    .concat();
    let beside = [&text(options)[..], b"}", &text(key), &text(name), b"s"].concat();
    [b"\x80\x03}", &weights[..], b"s", &beside, b"s."].concat()
}

#[test]
fn without_a_network_the_probable_one_is_named() {
    let folder = Folder::new();
    let model = folder.argument("model.safetensors");
    let import = |from: &str, more: &[&str]| {
        let from = folder.argument(from);
        let all = [&["import", &from, "-o", &model], more].concat();
        all.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    // By the tensors.
    folder.zeros("net.safetensors", "resnet34", str::to_owned);
    let words = ["hint: its tensors are those of resnet34: --network resnet34"];
    fail(2, &words, &import("net.safetensors", &[]));
    // By the name in the file.
    for (options, key, name) in [
        ("hyper_parameters", "model_name", "resnet18"),
        ("hyper_parameters", "backbone", "timm/resnet18.a1_in1k"),
        ("args", "arch", "ResNet18"),
    ] {
        fs::write(folder.path("net.ckpt"), named_pickle(options, key, name)).unwrap();
        let shown = format!("the file calls its network '{name}': --network resnet18");
        fail(2, &[&shown], &import("net.ckpt", &[]));
        fail(
            4,
            &["missing", &shown],
            &import("net.ckpt", &["--network", "resnet34"]),
        );
        let errors = fail(
            2,
            &["sdpoint networks"],
            &import("net.ckpt", &["--no-config"]),
        );
        assert!(!errors.contains("resnet18"), "{errors}");
    }
    fs::write(folder.path("net.ckpt"), named_pickle("args", "arch", "net")).unwrap();
    let words = ["calls the network 'net', which sdpoint does not list"];
    fail(2, &words, &import("net.ckpt", &[]));
    let errors = fail(
        2,
        &["sdpoint networks"],
        &import("net.ckpt", &["--no-config"]),
    );
    assert!(!errors.contains("'net'"), "{errors}");
    // Another computation with the same tensors.
    let blur = named_pickle("args", "arch", "resnetblur18");
    fs::write(folder.path("net.ckpt"), blur).unwrap();
    let words = ["'resnetblur18'", "blur pooling", "--no-config"];
    fail(4, &words, &import("net.ckpt", &["--network", "resnet18"]));
    fail(4, &words, &import("net.ckpt", &[]));
    // What is no checkpoint is said first.
    fs::write(folder.path("x.onnx"), b"\x08\x0a\x12\x07pytorch").unwrap();
    fail(4, &["x.onnx", "an ONNX file"], &import("x.onnx", &[]));
}

#[test]
fn class_names_are_read_in_the_forms_of_common_files() {
    let folder = Folder::new();
    let model = folder.argument("model.safetensors");
    let from = folder.zeros("net.safetensors", "preresnet8", str::to_owned);
    let names = folder.argument("names");
    let import = [
        "import",
        &from,
        "--network",
        "preresnet8",
        "-o",
        &model,
        "--classes",
        &names,
    ];
    for (content, note) in [
        ("0 cat\n1 dog\n2 eel\n", ""),
        ("2: eel\n0: cat\n1: dog\n", ""),
        (
            r#"{"id2label": {"0": "cat", "1": "dog", "2": "eel"}, "hidden": [1, 2.5, null]}"#,
            "",
        ),
        (
            r#"{"0": ["n01", "cat"], "1": ["n02", "dog"], "2": ["n03", "eel"]}"#,
            "",
        ),
        (
            "n01440764 cat\nn01443537 dog\nn01484850 eel",
            "'cat', not n01440764",
        ),
    ] {
        fs::write(&names, content).unwrap();
        let output = run(&import);
        let errors = stderr(&output);
        assert!(output.status.success(), "{errors}");
        assert!(
            errors.contains(note) && errors.is_empty() == note.is_empty(),
            "{errors}"
        );
        assert_eq!(Model::load(&model).unwrap().classes, ["cat", "dog", "eel"]);
    }
    for (content, problem) in [
        ("1 cat\n2 dog\n3 eel\n", "numbered from 1 to 3, not from 0"),
        ("0 cat\n1 dog\n3 eel\n", "no name for class 2"),
        ("{0: 'cat', 1: 'dog', 2: 'eel'}", "a Python dictionary"),
        (
            r#"{"n01": "cat", "n02": "dog", "n03": "eel"}"#,
            "another form",
        ),
    ] {
        fs::write(&names, content).unwrap();
        fail(
            2,
            &["names' cannot be used for class names", problem],
            &import,
        );
    }
}

/// A folder as timm saves it.
fn timm(config: &serde_json::Value) -> Folder {
    let folder = Folder::new();
    folder.zeros("model.safetensors", "resnet18", str::to_owned);
    fs::write(folder.path("config.json"), config.to_string()).unwrap();
    folder
}

#[test]
fn a_folder_of_timm_is_read_with_its_configuration() {
    let config = json!({
        "architecture": "resnet18",
        "num_classes": 3,
        "global_pool": "avg",
        "label_names": ["cat", "dog", "eel"],
        "pretrained_cfg": {
            "tag": "a1_in1k",
            "input_size": [3, 192, 192],
            "interpolation": "bicubic",
            "crop_pct": 0.95,
            "crop_mode": "center",
            "mean": [0.5, 0.5, 0.5],
            "std": [0.25, 0.25, 0.25],
        },
        "model_args": {"drop_rate": 0.1},
    });
    let folder = timm(&config);
    let root = folder.0.path().to_str().unwrap().to_owned();
    let elsewhere = Folder::new();
    let out = elsewhere.argument("model.sdp");
    // The folder, and the file in it.
    for from in [root, folder.argument("model.safetensors")] {
        let report = &json(&["import", &from, "-o", &out, "--json"])[0];
        assert_eq!(report["network"], "resnet18");
        assert!(report["config"].as_str().unwrap().ends_with("config.json"));
        let model = Model::load(&out).unwrap();
        assert_eq!(model.classes, ["cat", "dog", "eel"]);
        let preprocessing = model.preprocessing;
        assert_eq!(preprocessing.size, [192, 192]);
        // floor(192 / 0.95)
        assert_eq!(
            preprocessing.evaluate,
            EvalTransform::CenterCrop { resize: 202 }
        );
        assert_eq!(preprocessing.interpolation, Interpolation::Bicubic);
        assert_eq!(preprocessing.mean, [0.5; 3]);
    }
    let from = folder.argument("model.safetensors");
    fail(
        4,
        &["of resnet18, not resnet34"],
        &["import", &from, "--network", "resnet34", "-o", &out],
    );
    let without = ["--network", "resnet18", "--no-config"];
    succeed(&[&["import", &from, "-o", &out], &without[..]].concat());
    assert_eq!(Model::load(&out).unwrap().preprocessing.size, [224, 224]);
}

#[test]
fn a_configuration_is_read_as_python_and_editors_write_it() {
    let config = r#"{"architecture": "ARCH", "num_classes": 3, "label_names": ["a \" NaN", "b", "c"],
        "pretrained_cfg": {"mean": [0.5, 0.5, 0.5], "loss": NaN, "least": -Infinity}}"#;
    let utf16 = |text: &str| -> Vec<u8> {
        let units = "\u{feff}".encode_utf16().chain(text.encode_utf16());
        units.flat_map(u16::to_le_bytes).collect()
    };
    type Encode<'a> = &'a dyn Fn(&str) -> Vec<u8>;
    let written: [Encode<'_>; 3] = [
        &|text| text.as_bytes().to_vec(),
        &|text| [b"\xef\xbb\xbf", text.as_bytes()].concat(),
        &utf16,
    ];
    for write in written {
        let folder = timm(&json!({}));
        let out = folder.argument("model.sdp");
        let from = folder.argument("model.safetensors");
        let import = ["import", &from, "-o", &out];
        let content = write(&config.replace("ARCH", "resnet18"));
        fs::write(folder.path("config.json"), content).unwrap();
        succeed(&import);
        let model = Model::load(&out).unwrap();
        assert_eq!(model.classes, ["a \" NaN", "b", "c"]);
        assert_eq!(model.preprocessing.mean, [0.5; 3]);
        let content = write(&config.replace("ARCH", "resnetblur18"));
        fs::write(folder.path("config.json"), content).unwrap();
        fail(4, &["resnetblur18"], &import);
    }
}

#[test]
fn names_of_classes_in_a_configuration_fit_or_are_refused() {
    for (names, word) in [
        (json!(["a", "b"]), "2 names"),
        (json!(["a"]), "1 name"),
        (json!([]), "0 names"),
        (json!(["a", 1, "c"]), "invalid 'label_names'"),
        (json!("a"), "invalid 'label_names'"),
    ] {
        let folder = timm(&json!({"architecture": "resnet18", "label_names": names}));
        let out = folder.argument("model.sdp");
        let from = folder.argument("model.safetensors");
        let import = ["import", &from, "-o", &out];
        fail(4, &["config.json", word, "--no-config"], &import);
        assert!(!Path::new(&out).exists());
    }
    let folder = timm(&json!({"architecture": "resnet18", "label_names": ["a", "b"]}));
    fs::write(folder.path("names.txt"), "x\ny\nx\n").unwrap();
    let out = folder.argument("model.sdp");
    let from = folder.argument("model.safetensors");
    let names = folder.argument("names.txt");
    let output = run(&["import", &from, "-o", &out, "--classes", &names]);
    let errors = stderr(&output);
    assert!(output.status.success(), "{errors}");
    assert!(
        errors.contains("Classes 0 and 2 have the same name, 'x'"),
        "{errors}"
    );
    assert_eq!(Model::load(&out).unwrap().classes, ["x", "y", "x"]);
}

#[test]
fn numbers_in_messages_count_everything() {
    let folder = Folder::new();
    let model = folder.argument("model.safetensors");
    let from = folder.zeros("net.safetensors", "resnet18", |name| format!("a.{name}"));
    let import = ["import", &from, "--network", "resnet18", "-o", &model];
    // All of the 60 weights, the 40 statistics and the classifier's two.
    let errors = fail(4, &[], &[&import[..], &["--prefix", "foo."]].concat());
    assert!(
        errors.contains("needs 102 tensors: 102 missing"),
        "{errors}"
    );
}

#[test]
fn what_a_configuration_says_and_sdpoint_does_not_compute_is_refused() {
    for (change, part) in [
        (json!({"architecture": "resnetblur18"}), "resnetblur18"),
        (json!({"architecture": "resnet18d"}), "resnet18d"),
        (json!({"model_args": {"aa_layer": "blurpool"}}), "aa_layer"),
        (json!({"model_args": {"act_layer": "silu"}}), "act_layer"),
        (
            json!({"model_args": {"output_stride": 16}}),
            "output_stride",
        ),
        (json!({"model_args": {"avg_down": true}}), "avg_down"),
        (json!({"model_args": {"stem_type": "deep"}}), "stem_type"),
        (
            json!({"model_args": {"block_args": {"attn_layer": "se"}}}),
            "block_args",
        ),
        (
            json!({"model_args": {"norm_layer": "groupnorm"}}),
            "norm_layer",
        ),
        (json!({"model_args": {"bn_eps": 0.1}}), "bn_eps"),
        (json!({"global_pool": "max"}), "global_pool"),
        (json!({"num_classes": 4}), "4 classes"),
        (json!({"pretrained_cfg": {"crop_mode": "border"}}), "border"),
        (json!({"pretrained_cfg": {"crop_pct": 0.0}}), "crop_pct"),
        (json!({"model_type": "resnet"}), "transformers"),
    ] {
        let mut config = json!({"architecture": "resnet18"});
        for (name, value) in change.as_object().unwrap() {
            config[name] = value.clone();
        }
        let folder = timm(&config);
        let out = folder.argument("model.sdp");
        let from = folder.argument("model.safetensors");
        let import = ["import", &from, "--network", "resnet18", "-o", &out];
        fail(4, &["config.json", part, "hint: "], &import);
        assert!(!Path::new(&out).exists());
    }
    // What cannot be understood is not passed over.
    let whole = json!({"architecture": "resnetblur18", "num_classes": 3}).to_string();
    for (content, word) in [
        (whole.as_bytes()[..30].to_vec(), "truncated"),
        (b"\xff\xfe{\0".to_vec(), "truncated"),
        (b"architecture: resnetblur18".to_vec(), "not JSON"),
        (b"\xe9".to_vec(), "not UTF-8"),
        (Vec::new(), "truncated"),
        (vec![b' '; 5 << 20], "bytes"),
        (b"null".to_vec(), "no JSON object"),
        (b"[1]".to_vec(), "no JSON object"),
        (b"\"resnet18\"".to_vec(), "no JSON object"),
        (b"NaN".to_vec(), "no JSON object"),
        (
            b"{\"architecture\": 5}".to_vec(),
            "invalid 'architecture': 5",
        ),
        (
            b"{\"architecture\": null}".to_vec(),
            "invalid 'architecture'",
        ),
        (
            b"{\"architecture\": [\"resnet18\"]}".to_vec(),
            "invalid 'architecture'",
        ),
        (
            b"{\"architecture\": \"\"}".to_vec(),
            "invalid 'architecture'",
        ),
    ] {
        let folder = timm(&json!({}));
        fs::write(folder.path("config.json"), content).unwrap();
        let out = folder.argument("model.sdp");
        let from = folder.argument("model.safetensors");
        let import = ["import", &from, "--network", "resnet18", "-o", &out];
        fail(4, &["config.json", word, "--no-config"], &import);
        assert!(!Path::new(&out).exists());
        succeed(&[&import[..], &["--no-config"]].concat());
    }
}

#[test]
fn numbers_of_a_configuration_that_cannot_be_right_are_refused_with_its_name() {
    for (name, value, part, way_out) in [
        (
            "mean",
            json!([123.675, 116.28, 103.53]),
            "mean of 123.675",
            "--mean 0.485,0.456,0.406",
        ),
        ("mean", json!([0.5]), "1 mean for 3", "--mean"),
        (
            "mean",
            json!([1e300, 0, 0]),
            "means are not all finite",
            "--mean",
        ),
        ("mean", json!([-0.5, 0.5, 0.5]), "mean of -0.5", "--mean"),
        ("mean", json!("0.5"), "invalid 'mean'", "--no-config"),
        (
            "std",
            json!([58.395, 57.12, 57.375]),
            "deviation of 58.395",
            "--std 0.229",
        ),
        ("std", json!([0, 0, 0]), "deviation of 0", "--std"),
        (
            "std",
            json!([0.2, 0.2]),
            "2 standard deviations for 3",
            "--std",
        ),
        ("std", json!([null, 1, 1]), "invalid 'std'", "--no-config"),
        (
            "input_size",
            json!([3, 224.5, 224]),
            "invalid 'input_size': [3,224.5,224]",
            "correct it",
        ),
        (
            "input_size",
            json!([3, "224", 224]),
            "invalid 'input_size'",
            "correct it",
        ),
        (
            "input_size",
            json!([3, -224, 224]),
            "invalid 'input_size'",
            "correct it",
        ),
        (
            "input_size",
            json!([1, 224, 224]),
            "1 channel (grey)",
            "RGB",
        ),
        ("input_size", json!([4.0, 224, 224]), "4 channels", "RGB"),
        ("in_chans", json!(1), "1 channel (grey)", "RGB"),
        ("crop_mode", json!(3), "invalid 'crop_mode'", "correct it"),
        (
            "interpolation",
            json!(3),
            "invalid 'interpolation'",
            "correct it",
        ),
        (
            "num_classes",
            json!(2.5),
            "invalid 'num_classes': 2.5",
            "correct it",
        ),
        ("input_size", json!([3, 0, 0]), "height of 0", "--input"),
        (
            "input_size",
            json!([3, 1u64 << 40, 1u64 << 40]),
            "height of",
            "--input",
        ),
        (
            "input_size",
            json!([3, u64::MAX, u64::MAX]),
            "height of",
            "--input",
        ),
        (
            "input_size",
            json!([224, 224, 3]),
            "invalid 'input_size'",
            "--no-config",
        ),
        ("crop_pct", json!(1e-9), "shorter side", "--resize"),
        (
            "crop_pct",
            json!("0.875"),
            "invalid 'crop_pct'",
            "--no-config",
        ),
    ] {
        let config = json!({"architecture": "resnet18", "pretrained_cfg": {name: value}});
        let folder = timm(&config);
        let out = folder.argument("model.sdp");
        let from = folder.argument("model.safetensors");
        let import = ["import", &from, "-o", &out];
        let words = ["config.json", part, way_out];
        let no_config = ["--no-config"];
        let is_channels = part.contains("channel");
        let words = [&words[..], if is_channels { &[] } else { &no_config }].concat();
        fail(4, &words, &import);
        assert!(!Path::new(&out).exists());
    }
    // Numbers that JSON has not.
    for (name, number) in [
        ("crop_pct", "NaN"),
        ("crop_pct", "Infinity"),
        ("crop_pct", "-Infinity"),
        ("mean", "[NaN, 0.5, 0.5]"),
        ("std", "NaN"),
        ("input_size", "[3, NaN, 224]"),
    ] {
        let folder = timm(&json!({}));
        let config =
            format!(r#"{{"architecture": "resnet18", "pretrained_cfg": {{"{name}": {number}}}}}"#);
        fs::write(folder.path("config.json"), config).unwrap();
        let out = folder.argument("model.sdp");
        let from = folder.argument("model.safetensors");
        let invalid = format!("invalid '{name}'");
        let words = ["config.json", &invalid, "--no-config"];
        fail(4, &words, &["import", &from, "-o", &out]);
    }
    // Whole numbers may be written as floats.
    let config = json!({
        "architecture": "resnet18",
        "num_classes": 3.0,
        "pretrained_cfg": {"input_size": [3.0, 192.0, 192.0], "crop_pct": 1},
    });
    let folder = timm(&config);
    let out = folder.argument("model.sdp");
    let from = folder.argument("model.safetensors");
    succeed(&["import", &from, "-o", &out]);
    assert_eq!(Model::load(&out).unwrap().preprocessing.size, [192, 192]);
    // Options replace the numbers of the file, and are named themselves.
    let wrong = json!({"mean": [2, 2, 2], "std": [0, 0, 0]});
    let folder = timm(&json!({"architecture": "resnet18", "pretrained_cfg": wrong}));
    let out = folder.argument("model.sdp");
    let from = folder.argument("model.safetensors");
    let import = |more: &[&str]| {
        let all = [&["import", &from, "-o", &out], more].concat();
        all.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let mean = ["--mean", "0.5,0.5,0.5"];
    fail(4, &["config.json", "deviation of 0"], &import(&mean));
    let errors = fail(
        2,
        &["deviation of 9"],
        &import(&[&mean[..], &["--std", "9,9,9"]].concat()),
    );
    assert!(!errors.contains("config.json"), "{errors}");
    succeed(&import(&[&mean[..], &["--std", "0.2,0.2,0.2"]].concat()));
}

/// Reading a pipe or a device would never end.
#[cfg(unix)]
#[test]
fn a_configuration_that_is_not_a_file_is_refused_with_its_name() {
    use std::os::unix::fs::symlink;
    type Put = fn(&Path);
    let put: [(&str, Put); 5] = [
        ("a named pipe", |path| {
            let status = std::process::Command::new("mkfifo").arg(path).status();
            assert!(status.unwrap().success());
        }),
        ("a device", |path| symlink("/dev/zero", path).unwrap()),
        ("a folder", |path| fs::create_dir(path).unwrap()),
        ("symbolic link to 'gone'", |path| {
            symlink("gone", path).unwrap()
        }),
        ("bytes", |path| {
            fs::File::create(path).unwrap().set_len(1 << 43).unwrap()
        }),
    ];
    for (what, put) in put {
        let folder = timm(&json!({}));
        let config = folder.path("config.json");
        fs::remove_file(&config).unwrap();
        put(&config);
        let out = folder.argument("model.sdp");
        let from = folder.argument("model.safetensors");
        let import = ["import", &from, "--network", "resnet18", "-o", &out];
        let code = if what == "bytes" { 4 } else { 7 };
        fail(code, &["config.json", what, "--no-config"], &import);
        assert!(!Path::new(&out).exists());
        succeed(&[&import[..], &["--no-config"]].concat());
    }
}

#[test]
fn other_settings_of_a_configuration_can_be_set_or_are_passed_over() {
    // Preprocessing can be set otherwise.
    let folder = timm(&json!({"architecture": "resnet18", "interpolation": "mitchell"}));
    let out = folder.argument("model.sdp");
    let from = folder.argument("model.safetensors");
    let errors = fail(
        4,
        &["mitchell", "--interpolation"],
        &["import", &from, "-o", &out],
    );
    assert!(!errors.contains("wrong predictions"), "{errors}");
    // What is about something else is passed over.
    let folder = timm(&json!({"port": 8080}));
    let out = folder.argument("model.sdp");
    let from = folder.argument("model.safetensors");
    fail(2, &["--network"], &["import", &from, "-o", &out]);
    succeed(&["import", &from, "--network", "resnet18", "-o", &out]);
}
