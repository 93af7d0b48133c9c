//! What the command says where something is not as it should be: in words of
//! users, and always as text that cannot deceive.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{fail, fixture, json, photos, png, stderr, stdout, succeed};
use sdpoint::Model;
use tempfile::TempDir;

struct Desk(TempDir);

impl Desk {
    /// A folder with a model, `m.safetensors`, and an image, `i.png`.
    fn new() -> Self {
        let desk = Self(tempfile::tempdir().unwrap());
        fs::copy(fixture("v2.safetensors"), desk.path("m.safetensors")).unwrap();
        png(&desk.path("i.png"), "lying", 3);
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn at(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn predict(&self, options: &[&str]) -> Vec<String> {
        let mut arguments = vec!["predict".into(), self.at("m.safetensors"), self.at("i.png")];
        arguments.extend(options.iter().map(|&option| option.to_owned()));
        arguments
    }

    /// The model with other names for its first classes.
    fn rename(&self, names: &[&str]) {
        let mut model = Model::load(self.path("m.safetensors")).unwrap();
        for (class, name) in model.classes.iter_mut().zip(names) {
            *class = (*name).to_owned();
        }
        model.save(self.path("m.safetensors")).unwrap();
    }
}

#[test]
fn a_percentage_without_its_sign_is_asked_about() {
    let desk = Desk::new();
    for (option, value, meant) in [
        ("--budget", "50", "did you mean 50%"),
        ("--budget", "12.5", "did you mean 12.5%"),
        ("--budget", "100", "did you mean 100%"),
        ("--min-accuracy", "80", "did you mean 80%?"),
        ("--cascade", "40", "did you mean 40%?"),
        ("--ensemble", "150", "did you mean 150%?"),
        ("--macs", "50", "50M, or --budget 50%"),
        ("--macs", "50%", "--budget 50%"),
        ("--latency", "8", "did you mean 8ms?"),
        ("--deadline", "8", "did you mean 8ms?"),
    ] {
        fail(2, &[option, meant], &desk.predict(&[option, value]));
    }
    for (option, value, words) in [
        ("--budget", "-5%", "share"),
        ("--macs", "-20M", "-20M"),
        ("--latency", "-1ms", "8ms"),
        ("--deadline", "-1ms", "8ms"),
        ("--min-accuracy", "-0.5", "share"),
        ("--cascade", "-40%", "share"),
        ("--ensemble", "-1.5", "share"),
        ("--top", "0", "at least 1"),
        ("--top", "-3", "at least 1"),
        ("--threads", "-1", "from 1 to 1024"),
    ] {
        let errors = fail(2, &[option, value, words], &desk.predict(&[option, value]));
        assert!(!errors.contains("unexpected argument"), "{errors}");
    }
    let calibrate = |option, value| {
        let model = desk.at("m.safetensors");
        ["calibrate", &model, "--data", "shapes", option, value].map(str::to_owned)
    };
    for (option, value, meant) in [
        ("--cascade", "40", "did you mean 40%?"),
        ("--ensemble", "150", "did you mean 150%?"),
        ("--ratios", "50", "did you mean 0.5?"),
        ("--ratios", "50%", "did you mean 0.5?"),
        ("--ratios", "-0.5", "-0.5"),
        ("--cascade", "-40%", "share"),
        ("--images", "-1", "give a whole number of at least 0"),
        ("--images", "some", "give a whole number of at least 0"),
        ("--images", "99999999999999999999", "too large"),
    ] {
        fail(2, &[option, meant], &calibrate(option, value));
    }
    // What is meant is understood.
    succeed(&desk.predict(&["--budget", "0.9"]));
    succeed(&desk.predict(&["--ensemble", "4"]));
    fail(5, &["200 MACs"], &desk.predict(&["--budget", "200"]));
}

#[test]
fn a_budget_that_nearly_fits_is_shown_in_digits_that_differ() {
    let desk = Desk::new();
    let rows = json(&["instances", &desk.at("m.safetensors"), "--json"]);
    let cheapest = rows.iter().map(|row| row["macs"].as_u64().unwrap()).min();
    let almost = (cheapest.unwrap() - 1).to_string();
    let errors = fail(5, &["cheapest"], &desk.predict(&["--macs", &almost]));
    let (short, needed) = errors.split_once("a budget of ").unwrap();
    let needed = needed.lines().next().unwrap();
    assert!(!short.contains(needed), "{errors}");
    succeed(&desk.predict(&["--macs", needed]));

    let errors = fail(5, &["no cascade"], &desk.predict(&["--cascade", "75.36%"]));
    let shares: Vec<&str> = errors
        .split(' ')
        .filter(|word| word.ends_with('%'))
        .collect();
    assert_ne!(shares[0], shares[1], "{errors}");
}

#[test]
fn threads_that_cannot_be_have_words_of_ours() {
    for threads in ["0", "1025", "20000", "99999999999999999999", "-1", "many"] {
        let threads = format!("--threads={threads}");
        let errors = fail(2, &["from 1 to 1024"], &["networks", &threads]);
        assert!(!errors.contains("non-zero type"), "{errors}");
    }
    let desk = Desk::new();
    succeed(&desk.predict(&["--threads", "40"]));
}

#[test]
fn a_file_that_is_no_model_is_named_with_the_way_out() {
    let desk = Desk::new();
    let model = desk.at("m.safetensors");
    let run = desk.path("run");
    fs::create_dir(&run).unwrap();
    let checkpoint = fixture("run-v1").join("checkpoint.safetensors");
    fs::copy(checkpoint, run.join("checkpoint.safetensors")).unwrap();
    let refused = |file: &Path, code: i32, words: &[&str]| {
        let file = file.to_str().unwrap();
        fail(code, words, &["predict", file, &desk.at("i.png")]);
        fail(code, words, &["evaluate", file, "--data", "shapes"]);
        fail(
            code,
            words,
            &["export", file, "--python", "-o", &desk.at("x.py")],
        );
        // Training starts from a checkpoint as from a model.
        if !file.ends_with("checkpoint.safetensors") {
            fail(code, words, &["train", "--init", file]);
        }
        fail(code, words, &["instances", file]);
    };
    let checkpoint = run.join("checkpoint.safetensors");
    refused(
        &checkpoint,
        4,
        &["checkpoint of a training run", "train --resume"],
    );
    refused(&run, 7, &["has no model yet", "train --resume"]);
    fs::copy(&model, run.join("model.safetensors")).unwrap();
    refused(
        &checkpoint,
        4,
        &["the run's model is", "run/model.safetensors"],
    );
    fs::create_dir(desk.path("empty")).unwrap();
    refused(&desk.path("empty"), 7, &["holds no model"]);

    succeed(&[
        "export",
        &model,
        "--instance",
        "full",
        "-o",
        &desk.at("full.onnx"),
    ]);
    let weights = desk.at("w.safetensors");
    let export = [
        "export",
        &model,
        "--format",
        "safetensors",
        "--instance",
        "full",
    ];
    succeed(&[&export[..], &["-o", &weights]].concat());
    for (name, content) in [
        ("zip.pth", &b"PK\x03\x04\0\0archive/data.pkl"[..]),
        ("old.pth", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."),
        ("foreign.onnx", b"\x08\x0a\x12\x07pytorch:\0"),
        ("empty.safetensors", b""),
        ("a.tar.gz", b"\x1f\x8b\x08\0"),
        (
            "curve.csv",
            b"instance,point,ratio,macs,share,top1,top5,loss\nfull,,,1,1,0.5,1,0.2\n",
        ),
        (
            "metrics.jsonl",
            b"{\"epoch\":1,\"step\":2,\"train_loss\":0.5}\n",
        ),
        ("notes.txt", b"some notes of mine\n"),
    ] {
        fs::write(desk.path(name), content).unwrap();
    }
    #[cfg(unix)]
    {
        // Waiting for what somebody may write into it would be waiting for ever.
        let made = std::process::Command::new("mkfifo")
            .arg(desk.path("pipe"))
            .status();
        assert!(made.unwrap().success());
        refused(&desk.path("pipe"), 4, &["is a named pipe, not a file"]);
    }
    for (name, words) in [
        ("full.onnx", "ONNX"),
        ("foreign.onnx", "ONNX"),
        ("w.safetensors", "sdpoint import"),
        ("zip.pth", "sdpoint import"),
        ("old.pth", "sdpoint import"),
        ("i.png", "the model comes first"),
        ("empty.safetensors", "an empty file"),
        ("a.tar.gz", "gzip archive"),
        ("curve.csv", "a table of accuracies, not a model"),
        (
            "metrics.jsonl",
            "the metrics of a training run, not a model",
        ),
        ("notes.txt", "a text file"),
    ] {
        refused(&desk.path(name), 4, &[name, words]);
    }
}

/// Imports weights with these bytes as the file of class names.
fn import(desk: &Desk, names: &[u8]) -> Vec<String> {
    let weights = desk.at("w.safetensors");
    if !desk.path("w.safetensors").exists() {
        let model = desk.at("m.safetensors");
        let export = [
            "export",
            &model,
            "--format",
            "safetensors",
            "--instance",
            "full",
        ];
        succeed(&[&export[..], &["-o", &weights]].concat());
    }
    fs::write(desk.path("names"), names).unwrap();
    let (out, names) = (desk.at("new.safetensors"), desk.at("names"));
    ["import", &weights, "--network", "preresnet8-w2", "-o", &out]
        .into_iter()
        .chain(["--classes", &names])
        .map(str::to_owned)
        .collect()
}

#[test]
fn names_of_classes_are_read_as_people_keep_them() {
    let desk = Desk::new();
    let names: Vec<String> = (0..10).map(|class| format!("class {class}, é")).collect();
    let lines = names.join("\n");
    let json = serde_json::to_string_pretty(&names).unwrap();
    for text in [
        lines.clone(),
        format!("{lines}\n\n\n"),
        format!("\u{feff}{lines}\r\n").replace('\n', "\r\n"),
        json.clone(),
        format!("\u{feff}{json}\n"),
    ] {
        succeed(&import(&desk, text.as_bytes()));
        let model = Model::load(desk.path("new.safetensors")).unwrap();
        assert_eq!(model.classes, names, "{text:?}");
    }
    for (bytes, words) in [
        (&b"a\n\nc\n"[..], "line 2 is empty"),
        (b"a\nb\n", "2 classes"),
        (b"[1, 2]", "list of names"),
        (b"\xe9\n", "UTF-8"),
    ] {
        fail(2, &["names", words], &import(&desk, bytes));
    }
    let mut arguments = import(&desk, b"");
    *arguments.last_mut().unwrap() = "no-such-file.txt".into();
    fail(2, &["no-such-file.txt", "neither a file"], &arguments);
}

#[test]
fn a_name_of_any_length_is_a_name() {
    let desk = Desk::new();
    let long = "é".repeat(70_000);
    let names: Vec<String> = (0..10).map(|class| format!("{class}{long}")).collect();
    succeed(&import(&desk, names.join("\n").as_bytes()));
    let model = desk.at("new.safetensors");
    let image = desk.at("i.png");
    let text = succeed(&["predict", &model, &image]);
    assert!(
        text.lines().all(|line| line.chars().count() < 400),
        "{text}"
    );
    let rows = json(&["predict", &model, &image, "--json", "--top", "1"]);
    let class = rows[0]["top"][0]["class"].as_str().unwrap();
    assert!(names.iter().any(|name| name == class));
    for what in [
        &["--instance", "full"][..],
        &["--instances", "all"],
        &["--python"],
    ] {
        let out = desk.at(what[0]);
        succeed(&[&["export", &model], what, &["-o", &out]].concat());
    }
    let errors = fail(3, &["one is `0"], &["evaluate", &model, "--data", "shapes"]);
    assert!(errors.len() < 1500, "{} bytes", errors.len());
    let long = "x".repeat(70_000);
    let errors = fail(7, &["cannot read"], &["predict", &long, &image]);
    assert!(errors.len() < 1500, "{} bytes", errors.len());
}

#[test]
fn names_cannot_pretend_to_be_lines_or_to_run_backwards() {
    let desk = Desk::new();
    let names = [
        "two\nlines",
        "gpj.\u{202e}elif",
        "a\u{200b}b",
        "tab\tbed",
        "\u{1b}[2J",
    ];
    desk.rename(&names);
    let output = common::run(&desk.predict(&["--top", "10"]));
    let text = stdout(&output);
    for escaped in [
        "two\\nlines",
        "gpj.\\u{202e}elif",
        "a\\u{200b}b",
        "tab\\tbed",
        "\\u{1b}[2J",
    ] {
        assert!(text.contains(escaped), "{escaped}: {text}");
    }
    for name in names {
        assert!(!text.contains(name), "{name:?}: {text}");
    }
    let rows = json(&desk.predict(&["--top", "10", "--json"]));
    let classes: Vec<&str> = rows[0]["top"]
        .as_array()
        .unwrap()
        .iter()
        .map(|guess| guess["class"].as_str().unwrap())
        .collect();
    assert!(
        names.iter().all(|name| classes.contains(name)),
        "{classes:?}"
    );

    let output = common::run(&["evaluate", &desk.at("m.safetensors"), "--data", "shapes"]);
    let errors = stderr(&output);
    assert!(errors.contains("`two\\nlines`"), "{errors}");
    // Files are named by whoever made them.
    let image = desk.path("a\nerror: b\u{202e}.png");
    if fs::copy(desk.path("i.png"), &image).is_ok() {
        let image = image.to_str().unwrap();
        let text = succeed(&["predict", &desk.at("m.safetensors"), image]);
        assert!(text.contains("a\\nerror: b\\u{202e}.png"), "{text}");
        fs::write(image, "no image").unwrap();
        let errors = fail(
            3,
            &["a\\nerror: b"],
            &["predict", &desk.at("m.safetensors"), image],
        );
        assert_eq!(errors.lines().count(), 1, "{errors}");
    }
}

#[cfg(unix)]
#[test]
fn names_of_skipped_images_stay_on_their_lines() {
    let desk = Desk::new();
    photos(&desk.path("photos"));
    let name = "photos/train/lying/a\nerror: all is lost\u{202e}.png";
    fs::write(desk.path(name), "no image").unwrap();
    let data = format!("folder:{}", desk.at("photos"));
    let out = desk.at("run");
    let train = ["train", "--data", &data, "--out", &out, "--epochs", "1"];
    let network = ["--network", "preresnet8-w2", "--ratios", "0.5"];
    let output = common::run(&[&train[..], &network].concat());
    let errors = stderr(&output);
    assert!(output.status.success(), "{errors}");
    assert!(
        errors.contains("a\\nerror: all is lost\\u{202e}"),
        "{errors}"
    );
    assert!(
        !errors.lines().any(|line| line.starts_with("error")),
        "{errors}"
    );
}

#[test]
fn an_accuracy_that_no_instance_has_is_compared_in_its_own_words() {
    let desk = Desk::new();
    let errors = fail(5, &[], &desk.predict(&["--min-accuracy", "99.9%"]));
    assert!(
        errors.contains("no instance has an accuracy of 99.9%: the most accurate is"),
        "{errors}"
    );
    assert!(
        !errors.contains("budget") && !errors.contains(">="),
        "{errors}"
    );
}
