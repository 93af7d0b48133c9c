//! Training methods: what a run says, and which settings it refuses.

mod common;

use std::fs;
use std::path::PathBuf;

use common::{fail, json, photos, run, stderr, stdout, succeed};
use serde_json::Value;
use tempfile::TempDir;

/// Small photos, and folders of runs.
struct Bench(TempDir);

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        photos(&folder.path().join("photos"));
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Arguments of a run of five steps an epoch.
    fn arguments(&self, out: &str, more: &[&str]) -> Vec<String> {
        let data = format!("folder:{}", self.path("photos").display());
        let out = self.path(out).display().to_string();
        let mut arguments = vec!["train", "--data", &data, "--batch", "8", "--out", &out];
        // The photos are few.
        arguments.extend(["--val-share", "0", "--statistics-from", "evaluation"]);
        arguments.extend(more);
        arguments.into_iter().map(str::to_owned).collect()
    }

    /// A run, with what it printed as results and as notes.
    fn train(&self, out: &str, more: &[&str]) -> (String, String) {
        let output = run(&self.arguments(out, more));
        assert!(output.status.success(), "{}", stderr(&output));
        (stdout(&output).to_owned(), stderr(&output).to_owned())
    }

    /// A field of each line of a run's metrics.
    fn metrics(&self, out: &str, field: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.path(out).join("metrics.jsonl")).unwrap();
        let line = |line: &str| serde_json::from_str::<Value>(line).unwrap()[field].clone();
        text.lines().map(line).collect()
    }

    /// The multiply-accumulates of a run.
    fn macs(&self, out: &str) -> u64 {
        let epochs = self.metrics(out, "macs");
        epochs.iter().map(|macs| macs.as_u64().unwrap()).sum()
    }
}

const SMALL: [&str; 4] = ["--network", "preresnet8", "--epochs", "2"];

/// The number after `cost: ` in a run's introduction.
fn predicted(notes: &str) -> f64 {
    let (_, after) = notes.split_once("cost: ").expect("the cost is predicted");
    let (number, _) = after.split_once(" multiply-accumulates").unwrap();
    number.parse().unwrap()
}

#[test]
fn the_cost_of_a_run_is_predicted_and_counted() {
    let bench = Bench::new();
    let mut plain = 0;
    for (out, method, epochs) in [
        ("plain", "plain", "2.00 epochs of full"),
        ("sdpoint", "sdpoint", "epochs of full"),
        ("plus", "sdpoint+", "epochs of full"),
        ("branched", "branched", "epochs of full"),
    ] {
        let (_, notes) = bench.train(out, &[&SMALL[..], &["--method", method]].concat());
        assert!(notes.contains(epochs), "{notes}");
        let counted = bench.macs(out);
        // It is printed with five digits.
        let off = predicted(&notes) / counted as f64 - 1.0;
        assert!(off.abs() < 1e-4, "{method}: {counted} counted: {notes}");
        match method {
            "plain" => plain = counted,
            "branched" => assert!((plain..plain * 3 / 2).contains(&counted), "{counted}"),
            _ => assert!(counted < plain),
        }
    }
}

#[test]
fn the_preset_draws_from_a_menu() {
    let bench = Bench::new();
    let (text, notes) = bench.train("plus", &[&SMALL[..], &["--method", "sdpoint+"]].concat());
    let menu = "(menu:full=0.16,0@0.5=0.16,0@0.6=0.16,0@0.75=0.16,1@0.75=0.16)";
    for words in [menu, "10 instances"] {
        assert!(notes.contains(words), "{notes}");
    }
    assert!(!notes.contains("branches"), "{notes}");
    assert!(text.contains("Of 10 steps, "), "{text}");

    let more = ["--method", "sdpoint+", "--ratios", "0.4,0.8"];
    let (_, notes) = bench.train("ratios", &[&SMALL[..], &more].concat());
    assert!(
        notes.contains("(menu:full=0.2,0@0.4=0.2,0@0.8=0.2,1@0.8=0.2)"),
        "{notes}"
    );
}

#[test]
fn branches_are_reported() {
    let bench = Bench::new();
    let (text, notes) = bench.train(
        "branched",
        &[&SMALL[..], &["--method", "branched"]].concat(),
    );
    let words = "full, and 4 branches on parts of the batch";
    assert!(notes.contains(words), "{notes}");
    // A batch of 8 images has two branches of 4.
    assert!(text.contains("Of 30 passes, 10 ("), "{text}");

    let more = ["--method", "branched", "--shrink-after", "50%"];
    let (text, notes) = bench.train("late", &[&SMALL[..], &more].concat());
    assert!(notes.contains("first 50.0% of the steps"), "{notes}");
    assert!(text.contains("Of 20 passes, 10 ("), "{text}");
    let drawn = bench.metrics("late", "drawn");
    let full_alone = drawn[0].as_object().unwrap();
    let trained = full_alone
        .values()
        .filter(|count| count.as_u64() != Some(0));
    assert_eq!(trained.count(), 1, "{full_alone:?}");
}

#[test]
fn a_menu_decides_what_is_drawn() {
    let bench = Bench::new();
    let more = ["--menu", "0@0.5=0.5,full=0.5", "--full-at-end", "100%"];
    let (text, notes) = bench.train("menu", &[&SMALL[..], &more].concat());
    assert!(notes.contains("(menu:0@0.5=0.5,full=0.5)"), "{notes}");
    assert!(
        notes.contains("full with probability 1 at the end"),
        "{notes}"
    );
    assert!(text.contains("0 in"), "{text}");
}

#[test]
fn a_run_starts_from_a_checkpoint_as_from_a_model() {
    let bench = Bench::new();
    bench.train("plain", &[&SMALL[..], &["--method", "plain"]].concat());
    let file = |name: &str| bench.path("plain").join(name).display().to_string();
    let more = ["--epochs", "1", "--method", "branched", "--init"];
    let outs = [
        ("model", "model.safetensors"),
        ("state", "checkpoint.safetensors"),
    ];
    for (out, name) in outs {
        let (_, notes) = bench.train(out, &[&more[..], &[&file(name)]].concat());
        assert!(notes.contains("starting from"), "{notes}");
    }
    let results = |out: &str| fs::read(bench.path(out).join("curve.csv")).unwrap();
    assert_eq!(results("model"), results("state"));
    let damaged = bench.path("damaged.safetensors");
    fs::write(&damaged, b"{}").unwrap();
    let damaged = damaged.display().to_string();
    fail(
        4,
        &["damaged.safetensors"],
        &bench.arguments("none", &["--init", &damaged]),
    );
}

#[test]
fn settings_that_do_not_fit_are_usage_errors() {
    let bench = Bench::new();
    for (words, more) in [
        (
            &["sdpoint+", "branched"][..],
            &["--method", "sdpoint-plus"][..],
        ),
        (&["branched"], &["--branches", "2"]),
        (
            &["branches is 0"],
            &["--method", "branched", "--branches", "0"],
        ),
        (
            &["temperature is 0"],
            &["--method", "branched", "--temperature", "0"],
        ),
        (&["50%?"], &["--shrink-after", "50"]),
        (&["plain"], &["--method", "plain", "--shrink-after", "0.5"]),
        (&["0@0.6", "preresnet8"], &["--menu", "0@0.6=0.5"]),
        (&["more than 1"], &["--menu", "0@0.5=0.5,0@0.75=0.6"]),
        (
            &["'0@0.5' is not INSTANCE=PROBABILITY"],
            &["--menu", "0@0.5"],
        ),
        (&["--menu"], &["--menu", "0@0.5=1", "--draw", "uniform"]),
        (
            &["full at the end"],
            &["--method", "branched", "--full-at-end", "0.5"],
        ),
        (&["exits"], &["--method", "branched", "--exits"]),
    ] {
        let more = [&SMALL[..2], more].concat();
        fail(2, words, &bench.arguments("none", &more));
        assert!(!bench.path("none").exists(), "{more:?}");
    }
    let resume = bench.path("none").display().to_string();
    fail(
        2,
        &["--branches"],
        &["train", "--resume", &resume, "--branches", "2"],
    );
}

#[test]
fn instances_get_scales_of_their_own_that_travel_everywhere() {
    let bench = Bench::new();
    bench.train("run", &[&SMALL[..], &["--method", "plain"]].concat());
    let place = |name: &str| bench.path(name).display().to_string();
    let data = format!("folder:{}", place("photos"));
    let calibrate = |more: &[&str]| {
        let run = place("run");
        let first = ["calibrate", &run, "--data", &data].map(str::to_owned);
        let more = more.iter().map(|argument| (*argument).to_owned());
        first.into_iter().chain(more).collect::<Vec<String>>()
    };
    let out = place("tuned.safetensors");
    let text = succeed(&calibrate(&["--own-scale", "0@0.5,1@0.5", "-o", &out]));
    assert!(text.contains("Calibrated 2 of 7 instances"), "{text}");
    let model = sdpoint::Model::load(&out).unwrap();
    let tuned: Vec<String> = model.statistics.tuned().map(|i| i.to_string()).collect();
    assert_eq!(tuned, ["0@0.5", "1@0.5"]);

    let rows = |model: &str| json(&["evaluate", model, "--data", &data, "--json"]);
    for (tuned, plain) in rows(&out).iter().zip(&rows(&place("run"))) {
        let is_tuned = ["0@0.5", "1@0.5"].contains(&tuned["instance"].as_str().unwrap());
        assert_eq!(tuned["loss"] != plain["loss"], is_tuned, "{tuned} {plain}");
        assert_eq!(tuned["macs"], plain["macs"]);
    }
    // Without a list, all that can be: all but full, which uses the shared ones.
    let all = place("all.safetensors");
    let more = ["--own-scale", "all", "--tuning-images", "20", "-o", &all];
    assert!(succeed(&calibrate(&more)).contains("Calibrated 6 of 7"));

    for (code, words, more) in [
        (2, "full", &["--own-scale", "full"][..]),
        (5, "3@0.5", &["--own-scale", "3@0.5"]),
        (2, "--ratios", &["--own-scale", "all", "--ratios", "0.25"]),
        (2, "rate", &["--own-scale", "all", "--tuning-rate", "0"]),
        (2, "--own-scale", &["--tuning-rate", "0.1"]),
    ] {
        let none = place("none.safetensors");
        fail(code, &[words], &calibrate(&[more, &["-o", &none]].concat()));
    }
}

#[test]
fn cascades_may_average_their_answers() {
    let bench = Bench::new();
    let place = |name: &str| bench.path(name).display().to_string();
    let data = format!("folder:{}", place("photos"));
    let (run_folder, out) = (place("run"), place("blended.safetensors"));
    // Undertrained, so that instances err, and not on the same images.
    let fitted = ["1", "2", "3"].into_iter().any(|epochs| {
        let more = ["--network", "preresnet8", "--epochs", epochs, "--overwrite"];
        bench.train("run", &more);
        let more = ["--cascade", "95%", "--blend", "--force", "-o", &out];
        let arguments = [&["calibrate", &run_folder, "--data", &data][..], &more].concat();
        run(&arguments).status.success()
    });
    assert!(fitted, "no cascade helped");
    let model = sdpoint::Model::load(&out).unwrap();
    let record = &model.combinations[0];
    let sdpoint::core::Combination::BlendedCascade(cascade) = &record.combination else {
        panic!("{record:?}")
    };
    let name = cascade.to_string();
    let rows = json(&["evaluate", &out, "--data", &data, "--json"]);
    let row = rows.last().unwrap();
    assert_eq!(row["combination"], name.as_str());
    assert!(row["share"].as_f64().unwrap() < 1.0, "{row}");
    let image = place("photos/test/lying/3.png");
    let row = &json(&["predict", &out, &image, "--cascade", "95%", "--json"])[0];
    assert!(name.split('>').any(|part| part == row["instance"]), "{row}");
    fail(
        2,
        &["--cascade"],
        &["calibrate", &run_folder, "--data", &data, "--blend"],
    );
}
