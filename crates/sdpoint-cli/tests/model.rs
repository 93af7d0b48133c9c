//! A trained model through the commands that use it.

mod common;

use std::collections::BTreeMap;
use std::fs;

use common::{SIDE, fail, json, png, run, stderr, stdout, succeed, trained};
use safetensors::SafeTensors;
use serde_json::Value;

fn by_instance(rows: &[Value]) -> BTreeMap<String, Value> {
    let name = |row: &Value| row["instance"].as_str().unwrap().to_owned();
    rows.iter().map(|row| (name(row), row.clone())).collect()
}

#[test]
fn a_run_leaves_model_curve_and_metrics_and_says_so() {
    let t = trained();
    for file in [
        "model.safetensors",
        "curve.csv",
        "curve.svg",
        "metrics.jsonl",
    ] {
        assert!(t.text.contains(file), "{}", t.text);
        assert!(t.path("run").join(file).is_file(), "{file}");
    }
    for words in [
        "Of 40 steps",
        "trained the full network",
        "saved",
        "Next:",
        "frontier",
    ] {
        assert!(t.text.contains(words), "'{words}': {}", t.text);
    }
    let lines = fs::read_to_string(t.path("run/metrics.jsonl")).unwrap();
    let epochs: Vec<Value> = lines
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert_eq!(epochs.len(), 8);
    assert!(epochs[7]["train_loss"].as_f64().unwrap() < epochs[0]["train_loss"].as_f64().unwrap());
    let svg = fs::read_to_string(t.path("run/curve.svg")).unwrap();
    assert!(
        svg.contains("</svg>") && svg.contains("multiply-accumulates"),
        "{svg}"
    );
}

#[test]
fn evaluation_agrees_with_the_run_to_the_last_digit() {
    let t = trained();
    let rows = json(&["evaluate", &t.model(), "--data", &t.data(), "--json"]);
    let listed = by_instance(&json(&["instances", &t.model(), "--json"]));
    let csv = fs::read_to_string(t.path("run/curve.csv")).unwrap();
    let mut lines = csv.lines();
    assert_eq!(
        lines.next(),
        Some("instance,point,ratio,macs,share,top1,top5,loss,val_top1,val_top5,val_loss")
    );
    assert_eq!(rows.len(), 7);
    for (row, line) in rows.iter().zip(lines) {
        let fields: Vec<&str> = line.split(',').collect();
        let name = row["instance"].as_str().unwrap();
        assert_eq!(name, fields[0]);
        assert_eq!(row["macs"].to_string(), fields[3]);
        for (key, field) in [
            ("share", 4),
            ("top1", 5),
            ("top5", 6),
            ("val_top1", 8),
            ("val_top5", 9),
            ("val_loss", 10),
        ] {
            let written: f64 = fields[field].parse().unwrap();
            assert_eq!(row[key].as_f64(), Some(written), "{name} {key}");
        }
        let loss: f64 = fields[7].parse().unwrap();
        assert!(
            (row["loss"].as_f64().unwrap() - loss).abs() < 1e-6,
            "{name}"
        );
        for key in ["point", "ratio", "macs", "share"] {
            assert_eq!(row[key], listed[name][key], "{name} {key}");
        }
    }
    assert!(
        rows[0]["top1"].as_f64().unwrap() > 0.8,
        "stripes are easy: {rows:?}"
    );
}

#[test]
fn some_instances_shared_statistics_and_a_picture() {
    let t = trained();
    let svg = t.argument("shared.svg");
    let rows = json(&[
        "evaluate",
        &t.model(),
        "--data",
        &t.data(),
        "--bn",
        "shared",
        "--instances",
        "0@0.5,full",
        "--svg",
        &svg,
        "--json",
    ]);
    let names: Vec<&Value> = rows.iter().map(|row| &row["instance"]).collect();
    assert_eq!(names, ["0@0.5", "full"]);
    let own = by_instance(&json(&[
        "evaluate",
        &t.model(),
        "--data",
        &t.data(),
        "--json",
    ]));
    for key in ["instance", "macs", "top1", "top5", "loss", "ece"] {
        assert_eq!(
            rows[1][key], own["full"][key],
            "full's statistics are its own"
        );
    }
    assert!(
        rows[1].get("val_top1").is_none(),
        "recorded with own statistics"
    );
    assert_ne!(rows[0]["loss"], own["0@0.5"]["loss"]);
    assert!(fs::read_to_string(svg).unwrap().contains("</svg>"));
    let table = succeed(&["evaluate", &t.model(), "--data", &t.data()]);
    assert!(
        table.contains("top-1") && table.contains("saved"),
        "{table}"
    );
}

#[test]
fn new_ratios_need_no_training() {
    let t = trained();
    let out = t.argument("more.safetensors");
    let text = succeed(&[
        "calibrate",
        &t.model(),
        "--data",
        &t.data(),
        "--ratios",
        "0.25,0.5",
        "-o",
        &out,
    ]);
    assert!(text.contains("Calibrated 3 of 10 instances"), "{text}");
    let evaluate =
        |model: &str| by_instance(&json(&["evaluate", model, "--data", &t.data(), "--json"]));
    let (before, after) = (evaluate(&t.model()), evaluate(&out));
    assert_eq!(after.len(), 10);
    for (name, row) in &before {
        assert_eq!(*row, after[name], "what was there stays as it was");
    }
    assert!(after["0@0.25"]["macs"].as_u64() < after["0@0.5"]["macs"].as_u64());
    let chosen = json(&[
        "predict",
        &out,
        &image("lying"),
        "--instance",
        "0@0.25",
        "--json",
    ]);
    assert_eq!(chosen[0]["instance"], "0@0.25");
    fail(
        2,
        &["already"],
        &["calibrate", &out, "--data", &t.data(), "--ratios", "0.25"],
    );
}

/// A test image, as an argument.
/// A run of a variant, on the data of [`trained`], with what it printed.
fn variant(out: &std::path::Path, more: &[&str]) -> (String, String) {
    let t = trained();
    let data = t.data();
    let out = out.to_str().unwrap().to_owned();
    let mut arguments = vec!["train", "--data", &data, "--network", "preresnet8"];
    arguments.extend(["--epochs", "2", "--batch", "8", "--out", &out]);
    arguments.extend(more);
    let output = run(&arguments);
    assert!(output.status.success(), "{}", stderr(&output));
    (stdout(&output).to_owned(), stderr(&output).to_owned())
}

#[test]
fn the_sandwich_rule_says_what_it_trained() {
    let folder = tempfile::tempdir().unwrap();
    let more = [
        "--method",
        "sandwich",
        "--dropout",
        "0.1",
        "--stochastic-depth",
        "0.2",
    ];
    let (text, errors) = variant(&folder.path().join("run"), &more);
    assert!(text.contains(" passes, 10 ("), "{text}");
    for words in [
        "the cheapest instance",
        "dropout 0.1",
        "stochastic depth 0.2",
    ] {
        assert!(errors.contains(words), "{errors}");
    }
    let out = folder.path().join("other");
    let out = out.to_str().unwrap();
    fail(
        2,
        &["sandwich"],
        &["train", "--distill", "0.5", "--out", out],
    );
    fail(
        2,
        &["dropout is 1"],
        &["train", "--dropout", "1", "--out", out],
    );
    fail(
        2,
        &["tower", "thrifty"],
        &["train", "--method", "tower", "--out", out],
    );
}

#[test]
fn the_thrifty_method_draws_cheap_instances_unless_told_otherwise() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("run");
    let (_, errors) = variant(&place, &["--method", "thrifty"]);
    assert!(errors.contains("drawn at random (cost:-1)"), "{errors}");
    let place = folder.path().join("other");
    let (_, errors) = variant(&place, &["--method", "thrifty", "--draw", "full:0.5"]);
    assert!(errors.contains("drawn at random (full:0.5)"), "{errors}");
}

#[test]
fn a_model_of_several_scales_becomes_one_for_another_size() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("run");
    let (_, errors) = variant(&place, &["--method", "plain", "--scales", "12,8"]);
    assert!(
        errors.contains("also at 12x12 pixels, 8x8 pixels"),
        "{errors}"
    );
    let small = folder.path().join("small.safetensors");
    let place = place.join("model.safetensors");
    let [place, small] = [&place, &small].map(|path| path.to_str().unwrap());
    let data = trained().data();
    let text = succeed(&[
        "calibrate",
        place,
        "--data",
        &data,
        "--input",
        "8",
        "-o",
        small,
    ]);
    assert!(text.contains("Calibrated 7 of 7"), "{text}");
    let of = |model: &str| by_instance(&json(&["instances", model, "--json"]));
    let (large, other) = (of(place), of(small));
    let macs = |rows: &BTreeMap<String, Value>| rows["full"]["macs"].as_u64().unwrap();
    let share = macs(&other) as f64 / macs(&large) as f64;
    assert!((0.24..0.27).contains(&share), "{share}");
    let rows = json(&["evaluate", small, "--data", &data, "--json"]);
    assert_eq!(rows.len(), 7);
    assert_eq!(rows[0]["macs"].as_u64().unwrap(), macs(&other));
    fail(
        2,
        &["--input", "--ratios"],
        &[
            "calibrate",
            place,
            "--data",
            &data,
            "--input",
            "8",
            "--ratios",
            "0.25",
        ],
    );
}

fn image(class: &str) -> String {
    trained().argument(&format!("photos/test/{class}/3.png"))
}

#[test]
fn predictions_name_the_class_and_say_why_this_instance() {
    let t = trained();
    let rows = json(&[
        "predict",
        &t.model(),
        &image("lying"),
        &image("standing"),
        "--instance",
        "full",
        "--json",
    ]);
    assert_eq!(rows.len(), 2);
    for (row, class) in rows.iter().zip(["lying", "standing"]) {
        assert_eq!(row["instance"], "full");
        assert_eq!(row["image"], image(class));
        let top = row["top"].as_array().unwrap();
        assert_eq!(top[0]["class"], class, "{row}");
        let sum: f64 = top
            .iter()
            .map(|guess| guess["probability"].as_f64().unwrap())
            .sum();
        assert!(
            (sum - 1.0).abs() < 1e-4,
            "both classes are in the top five: {row}"
        );
    }
    let text = succeed(&["predict", &t.model(), &image("lying"), "--top", "1"]);
    assert!(text.contains("most accurate of the 7 that fit"), "{text}");
    assert!(
        text.contains("lying") && !text.contains("standing "),
        "{text}"
    );
}

#[test]
fn a_budget_is_met_and_an_impossible_one_names_the_cheapest() {
    let t = trained();
    let (model, image) = (t.model(), image("lying"));
    let macs = by_instance(&json(&["instances", &model, "--json"]));
    let full = macs["full"]["macs"].as_u64().unwrap();
    for budget in ["100%", "80%", "0.6"] {
        let row = &json(&["predict", &model, &image, "--budget", budget, "--json"])[0];
        let limit = match budget.strip_suffix('%') {
            Some(percent) => percent.parse::<f64>().unwrap() / 100.0,
            None => budget.parse().unwrap(),
        };
        assert!(row["share"].as_f64().unwrap() <= limit, "{budget}: {row}");
    }
    let row = &json(&[
        "predict",
        &model,
        &image,
        "--macs",
        &(full - 1).to_string(),
        "--json",
    ])[0];
    assert!(row["macs"].as_u64().unwrap() < full);
    fail(
        5,
        &["cheapest is 0@0.5", "hint: "],
        &["predict", &model, &image, "--budget", "10%"],
    );
    fail(
        5,
        &["cheapest is 0@0.5"],
        &["predict", &model, &image, "--macs", "1k"],
    );
    fail(
        5,
        &["9@0.5", "0@0.5"],
        &["predict", &model, &image, "--instance", "9@0.5"],
    );
    fail(
        5,
        &["0@0.6", "0@0.5"],
        &[
            "evaluate",
            &model,
            "--data",
            "shapes",
            "--instances",
            "full,0@0.6",
        ],
    );
    fail(
        2,
        &["POINT@RATIO"],
        &["predict", &model, &image, "--instance", "half"],
    );
    fail(
        2,
        &["above 0%"],
        &["predict", &model, &image, "--budget", "0%"],
    );
    fail(
        2,
        &["cannot be used with"],
        &["predict", &model, &image, "--budget", "50%", "--macs", "1M"],
    );
}

#[test]
fn time_and_accuracy_are_budgets_too() {
    let t = trained();
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model.safetensors");
    fs::copy(t.model(), &model).unwrap();
    let (model, image) = (model.to_str().unwrap(), image("lying"));
    let predict = |options: &[&str]| {
        let row = json(&[&["predict", model, &image, "--json"], options].concat()).remove(0);
        assert!(row["time_ms"].as_f64().unwrap() > 0.0, "{row}");
        row
    };
    let output = run(&["predict", model, &image, "--latency", "60s"]);
    assert!(stderr(&output).contains("no latency profile"), "{output:?}");
    assert!(stdout(&output).contains("of the 7 that fit"), "{output:?}");

    let text = succeed(&["profile", model, "--save", "--seconds", "0"]);
    assert!(text.contains("model.profile.json"), "{text}");
    let rows = json(&[
        "profile",
        model,
        "--save",
        "--seconds",
        "0",
        "--batch",
        "2",
        "--json",
    ]);
    assert_eq!((rows.len(), &rows[0]["batch"]), (7, &2.into()));
    // Any instance may be the fastest in one measurement of each on a busy machine: here
    // it is the cheapest one, at 2 us.
    let profile = folder.path().join("model.profile.json");
    let mut times: Value = serde_json::from_slice(&fs::read(&profile).unwrap()).unwrap();
    for batch in times["machines"][0]["batches"].as_array_mut().unwrap() {
        let instances = batch["instances"].as_array_mut().unwrap();
        let cheapest = instances.iter_mut().find(|row| row["instance"] == "0@0.5");
        let cheapest = cheapest.expect("it is measured");
        for time in ["median", "p90", "rest"] {
            cheapest[time] = 2e-6.into();
        }
    }
    fs::write(&profile, times.to_string()).unwrap();
    let output = run(&["predict", model, &image, "--latency", "60s"]);
    assert_eq!(stderr(&output), "", "times are known now");
    fail(
        5,
        &["fastest is", "us"],
        &["predict", model, &image, "--latency", "1us"],
    );

    let in_time = predict(&["--deadline", "60s"]);
    assert_eq!(in_time["met"], true);
    let late = predict(&["--deadline", "1us"]);
    assert_eq!(late["met"], false);
    assert_eq!(late["instance"], "0@0.5", "the fastest");
    let text = succeed(&["predict", model, &image, "--deadline", "1us"]);
    assert!(
        text.contains("too late") && text.contains("during the run"),
        "{text}"
    );

    let row = predict(&["--min-accuracy", "1%"]);
    assert_eq!(
        row["instance"], "0@0.5",
        "the cheapest that is right at times"
    );
    let table = by_instance(&json(&["evaluate", model, "--data", &t.data(), "--json"]));
    let best = table.values().map(|row| row["val_top1"].as_f64().unwrap());
    if best.fold(0.0, f64::max) < 1.0 {
        fail(
            5,
            &["most accurate is"],
            &["predict", model, &image, "--min-accuracy", "100%"],
        );
    }
    fail(
        2,
        &["not a time"],
        &["predict", model, &image, "--deadline", "8"],
    );

    let csv = t.argument("deadlines.csv");
    let evaluate = [
        "evaluate",
        model,
        "--data",
        &t.data(),
        "--deadline",
        "60s,1us,90%",
        "--csv",
        &csv,
    ];
    let rows = json(&[&evaluate[..], &["--json"]].concat());
    assert_eq!(rows.len(), 3);
    assert_eq!(
        (&rows[0]["in_time"], &rows[1]["in_time"]),
        (&1.0.into(), &0.0.into())
    );
    assert_eq!(rows[0]["top1"], table["full"]["top1"]);
    assert_eq!(rows[1]["top1"], 0.0, "late answers are no answers");
    assert!(rows[1]["macs"].as_u64() < rows[0]["macs"].as_u64());
    assert_eq!(rows[2]["deadline"], "90%");
    let written = fs::read_to_string(&csv).unwrap();
    assert!(
        written.starts_with("instance,macs,") && written.contains("\nby 90%,"),
        "{written}"
    );
    let text = succeed(&evaluate);
    assert!(
        text.contains("during the run") && text.contains("90%"),
        "{text}"
    );
    fail(
        2,
        &["'8' is not a deadline", "60%"],
        &["evaluate", model, "--data", &t.data(), "--deadline", "8"],
    );
}

#[test]
fn cascades_and_ensembles_are_fitted_shown_and_used() {
    // Undertrained, so that instances err, and not on the same images.
    let data = format!("folder:{}", trained().argument("photos"));
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (model, image) = (at("model.safetensors"), image("lying"));
    let mut fitted = false;
    for epochs in ["1", "2", "3"] {
        succeed(&[
            "train",
            "--data",
            &data,
            "--network",
            "preresnet8",
            "--epochs",
            epochs,
            "--batch",
            "8",
            "--val-share",
            "0",
            "--samples",
            "5",
            "--out",
            &at("run"),
            "--overwrite",
        ]);
        fs::copy(at("run/model.safetensors"), &model).unwrap();
        let output = run(&[
            "calibrate",
            &model,
            "--data",
            &data,
            "--cascade",
            "95%",
            "--ensemble",
            "300%",
        ]);
        if output.status.success() {
            let text = stdout(&output);
            assert!(text.contains("measured on the other"), "{text}");
            fitted |= text.contains('>') && text.contains('+');
        } else {
            assert_eq!(output.status.code(), Some(5), "{}", stderr(&output));
        }
        if fitted {
            break;
        }
    }
    assert!(fitted, "no combination helped");
    // The test images that training kept are still there.
    let kept = sdpoint::Model::load(&model).unwrap().samples;
    let labels: Vec<usize> = kept.iter().map(|image| image.label).collect();
    assert_eq!(labels.len(), 5);
    assert!(labels.contains(&0) && labels.contains(&1), "{labels:?}");
    for image in kept {
        let sides = sdpoint::data::image_size(&image.png).unwrap();
        assert!(sides.iter().all(|&side| side <= 128), "{sides:?}");
    }
    let (csv, svg, html) = (at("curve.csv"), at("curve.svg"), at("curve.html"));
    let rows = json(&[
        "evaluate", &model, "--data", &data, "--csv", &csv, "--svg", &svg, "--html", &html,
        "--json",
    ]);
    let combined: Vec<&Value> = rows
        .iter()
        .filter(|row| row.get("combination").is_some())
        .collect();
    assert_eq!((rows.len(), combined.len()), (9, 2));
    assert!(combined[0]["share"].as_f64().unwrap() > 0.3, "{combined:?}");
    assert!(
        combined[1]["share"].as_f64().unwrap() <= 3.0,
        "{combined:?}"
    );
    let table = fs::read_to_string(csv).unwrap();
    assert!(
        table.contains(combined[0]["combination"].as_str().unwrap()),
        "{table}"
    );
    assert!(
        fs::read_to_string(svg)
            .unwrap()
            .contains("cascade (&gt;) or ensemble (+)")
    );
    let page = fs::read_to_string(&html).unwrap();
    let (_, text) = page.split_once("id=\"data\">").unwrap();
    let (text, _) = text.split_once("</script>").unwrap();
    let shown: Value = serde_json::from_str(text).unwrap();
    let shown = shown["rows"].as_array().unwrap();
    assert_eq!(shown.len(), rows.len());
    for (row, shown) in std::iter::zip(&rows, shown) {
        assert_eq!(row["macs"], shown["macs"]);
        assert_eq!(row["top1"], shown["top1"]);
    }
    // A page of its own is replaced, unless someone edited it.
    succeed(&["evaluate", &model, "--data", &data, "--html", &html]);
    fs::write(&html, page.replace("accuracy over cost", "mine")).unwrap();
    let refused = &["evaluate", &model, "--data", &data, "--html", &html];
    fail(2, &["edited", "--force"], refused);

    let row = &json(&["predict", &model, &image, "--cascade", "95%", "--json"])[0];
    let name = combined[0]["combination"].as_str().unwrap();
    assert!(name.split('>').any(|part| part == row["instance"]), "{row}");
    let row = &json(&["predict", &model, &image, "--ensemble", "300%", "--json"])[0];
    assert_eq!(row["instance"], combined[1]["combination"]);
    let text = succeed(&["predict", &model, &image, "--cascade", "95%"]);
    assert!(text.contains(name) && text.contains("held-out"), "{text}");
    fail(
        5,
        &["no cascade", "the cheapest costs", "--cascade 1%"],
        &["predict", &model, &image, "--cascade", "1%"],
    );
    fail(
        5,
        &["no ensemble", "calibrate"],
        &["predict", &trained().model(), &image, "--ensemble", "200%"],
    );
    // New statistics make the thresholds meaningless.
    succeed(&["calibrate", &model, "--data", &data]);
    fail(
        5,
        &["no cascade"],
        &["predict", &model, &image, "--cascade", "95%"],
    );
}

/// A run with half of the images held out of training, as the folder of a model.
fn half_held_out() -> &'static str {
    static RUN: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    RUN.get_or_init(|| {
        let t = trained();
        let out = t.argument("half");
        let data = t.data();
        let mut train = vec!["train", "--data", &data, "--network", "preresnet8"];
        train.extend([
            "--epochs",
            "2",
            "--batch",
            "8",
            "--val-share",
            "50%",
            "--out",
            &out,
        ]);
        let output = run(&train);
        let errors = stderr(&output);
        assert!(output.status.success(), "{errors}");
        assert!(
            errors.contains("held out to choose instances by"),
            "{errors}"
        );
        assert!(
            errors.contains("--val-share sets a larger share"),
            "{errors}"
        );
        let text = stdout(&output);
        assert!(
            text.contains("val top-1") && text.contains("by val top-1"),
            "{text}"
        );
        out
    })
}

#[test]
fn instances_are_chosen_by_held_out_images_and_judged_by_test_images() {
    let t = trained();
    let (model, data) = (half_held_out(), t.data());
    let rows = json(&["evaluate", model, "--data", &data, "--json"]);
    for row in &rows {
        assert_eq!(row["images"], 20);
        assert!(row["val_top1"].is_f64() && row["top1"].is_f64(), "{row}");
        assert!(
            row["ece"]
                .as_f64()
                .is_some_and(|error| (0.0..=1.0).contains(&error))
        );
    }
    // A budget chooses by the recorded accuracy.
    let key = |row: &Value| {
        let (val, macs) = (
            row["val_top1"].as_f64().unwrap(),
            row["macs"].as_u64().unwrap(),
        );
        (val, std::cmp::Reverse(macs))
    };
    let best = rows
        .iter()
        .max_by(|a, b| key(a).partial_cmp(&key(b)).unwrap())
        .unwrap();
    let predicted = &json(&["predict", model, &image("lying"), "--json"])[0];
    assert_eq!(predicted["instance"], best["instance"], "{rows:?}");
    let text = succeed(&["predict", model, &image("lying")]);
    assert!(text.contains("accurate on held-out images"), "{text}");
    // Without them, there is only what the test images say.
    let shared = &json(&[
        "evaluate", model, "--data", &data, "--bn", "shared", "--json",
    ])[1];
    assert!(shared.get("val_top1").is_none(), "{shared}");

    // The same images are found again for new instances.
    let out = t.argument("half-more.safetensors");
    let more = [
        "calibrate",
        model,
        "--data",
        &data,
        "--ratios",
        "0.6",
        "-o",
        &out,
    ];
    let text = succeed(&more);
    assert!(text.contains("val top-1"), "{text}");
    let again = json(&["evaluate", &out, "--data", &data, "--json"]);
    for row in &rows {
        let mut again = again.iter();
        let same = again.find(|other| other["instance"] == row["instance"]);
        for key in ["top1", "loss", "val_top1", "val_top5"] {
            assert_eq!(same.unwrap()[key], row[key], "{key}");
        }
    }
    assert!(again.iter().all(|row| row["val_top1"].is_f64()));

    // Cascades are fitted on them.
    let out = t.argument("half-combined.safetensors");
    let combine = [
        "calibrate",
        model,
        "--data",
        &data,
        "--cascade",
        "99%",
        "-o",
        &out,
    ];
    let output = run(&[&combine[..], &["--ensemble", "300%"]].concat());
    match output.status.code() {
        Some(0) => {
            let text = stdout(&output);
            assert!(
                text.contains(" held-out images and measured on the other"),
                "{text}"
            );
            let rows = json(&["evaluate", &out, "--data", &data, "--json"]);
            let combined = rows.iter().find(|row| row.get("combination").is_some());
            assert!(combined.unwrap()["val_top1"].is_f64(), "{rows:?}");
        }
        code => assert_eq!(code, Some(5), "{}", stderr(&output)),
    }
    // Further training holds out the same images, whatever its seed.
    let out = t.argument("half-further");
    let mut further = vec!["train", "--init", model, "--data", &data, "--epochs", "1"];
    further.extend(["--batch", "8", "--seed", "9", "--out", &out]);
    succeed(&further);
    let further = fs::read(format!("{out}/model.safetensors")).unwrap();
    let expected = r#"\"held_out\":{\"share\":0.5,\"seed\":0}"#;
    assert!(String::from_utf8_lossy(&further).contains(expected));
    for (share, words) in [("60%", "from 0 to 50%"), ("10", "did you mean 10%")] {
        fail(2, &[words], &["train", "--val-share", share]);
    }
}

#[test]
fn classes_and_confusions_are_shown() {
    let t = trained();
    let data = t.data();
    fn on<'a>(data: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        [&["evaluate", half_held_out(), "--data", data][..], more].concat()
    }
    let text = succeed(&on(&data, &["--per-class"]));
    assert!(text.contains("ECE") && text.contains("lying"), "{text}");
    assert!(text.contains("of each class that is recognised"), "{text}");
    let rows = json(&on(&data, &["--per-class", "--json"]));
    for row in &rows {
        let classes = row["per_class"].as_array().unwrap();
        let sum = |key: &str| {
            classes
                .iter()
                .map(|c| c[key].as_u64().unwrap())
                .sum::<u64>()
        };
        assert_eq!((sum("images"), sum("predicted")), (20, 20));
        let top1 = row["top1"].as_f64().unwrap();
        assert!((sum("correct") as f64 / 20.0 - top1).abs() < 1e-9, "{row}");
        assert_eq!(classes[0]["class"], "lying");
        assert!((classes[0]["recall"].as_f64().unwrap()) <= 1.0);
    }
    let [csv, svg] = ["confusion.csv", "confusion.svg"].map(|name| t.argument(name));
    succeed(&on(&data, &["--confusion", &csv, "--instances", "0@0.5"]));
    let table = fs::read_to_string(&csv).unwrap();
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines[0], "true class,images,lying,standing");
    assert!(lines[1].starts_with("lying,10,") && lines[2].starts_with("standing,10,"));
    let row = rows.iter().find(|row| row["instance"] == "0@0.5").unwrap();
    let correct = row["per_class"][1]["correct"].to_string();
    assert!(lines[2].ends_with(&format!(",{correct}")), "{table}");
    // Written again, but not over anything else.
    succeed(&on(&data, &["--confusion", &csv]));
    succeed(&on(&data, &["--confusion", &svg]));
    succeed(&on(&data, &["--confusion", &svg]));
    assert!(
        fs::read_to_string(&svg)
            .unwrap()
            .contains("confusion matrix")
    );
    fail(2, &["a table of confusions"], &on(&data, &["--csv", &csv]));
    fail(
        2,
        &[".csv or .svg"],
        &on(&data, &["--confusion", "matrix.png"]),
    );
    let several = ["--confusion", &csv, "--instances", "full,0@0.5"];
    fail(2, &["one instance"], &on(&data, &several));
}

#[test]
fn logits_are_kept_for_analyses() {
    let t = trained();
    let (data, file) = (t.data(), t.argument("logits.safetensors"));
    let on = ["evaluate", half_held_out(), "--data", &data];
    let rows = json(&[&on[..], &["--logits", &file, "--json"]].concat());
    let bytes = fs::read(&file).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let labels = tensors.tensor("labels").unwrap();
    let labels: Vec<i64> = (labels.data().as_chunks::<8>().0.iter())
        .map(|&label| i64::from_le_bytes(label))
        .collect();
    let instances = rows.iter().filter_map(|row| row["instance"].as_str());
    for (instance, row) in instances.zip(&rows) {
        let logits = tensors.tensor(&format!("logits/{instance}")).unwrap();
        assert_eq!(logits.shape(), [20, 2]);
        let values = logits.data().as_chunks::<4>().0.iter();
        let values: Vec<f32> = values.map(|&value| f32::from_le_bytes(value)).collect();
        let images = values.as_chunks::<2>().0.iter().zip(&labels);
        let right = images.filter(|([a, b], label)| i64::from(b > a) == **label);
        assert_eq!(row["top1"], right.count() as f64 / 20.0, "{instance}");
    }
    assert_eq!(tensors.names().len(), 1 + rows.len());
    // Written again, but not over anything else, nor taken for a model.
    succeed(&[&on[..], &["--logits", &file, "--instances", "full"]].concat());
    fail(
        2,
        &["a file of logits"],
        &[&on[..], &["--csv", &file]].concat(),
    );
    fail(
        4,
        &["is a file of logits, not a model"],
        &["instances", &file],
    );
}

#[test]
fn optimisers_and_augmentation_are_options_of_training() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("run");
    let options = [
        "--optimizer",
        "adamw",
        "--clip-norm",
        "1",
        "--ema",
        "0.9",
        "--augment",
        "none,trivial,erase:0.2,mixup:0.2",
        "--statistics-from",
        "evaluation",
    ];
    let (_, errors) = variant(&place, &options);
    for words in [
        "adamw, gradients clipped at 1, weights averaged with decay 0.9, learning rate 0.001",
        "augmentation trivial,erase:0.2,mixup:0.2",
    ] {
        assert!(errors.contains(words), "{words}: {errors}");
    }
    let bytes = fs::read(place.join("model.safetensors")).unwrap();
    let text = String::from_utf8_lossy(&bytes);
    for part in [
        r#"\"train\":\"none\""#,
        r#"\"statistics_from\":\"evaluation\""#,
        "adamw",
    ] {
        assert!(text.contains(part), "{part}");
    }
    let place = folder.path().join("modern");
    let (_, errors) = variant(&place, &["--recipe", "modern"]);
    assert!(
        errors.contains("augmentation trivial,erase:0.1"),
        "{errors}"
    );
    for (option, value, words) in [
        ("--optimizer", "lion", "sgd or adamw"),
        ("--augment", "rotate", "cutmix:ALPHA, and none"),
        ("--augment", "mixup:9", "from 0 to 4"),
        ("--recipe", "modem", "modern-large"),
        ("--ema", "1", "averaged weights"),
        ("--clip-norm", "0", "norm of the gradients"),
        ("--statistics-from", "both", "training nor evaluation"),
    ] {
        let out = folder.path().join("none");
        fail(
            2,
            &[words],
            &["train", option, value, "--out", out.to_str().unwrap()],
        );
    }
    let run = place.to_str().unwrap();
    for option in [
        ["--ema", "0.9"],
        ["--augment", "none"],
        ["--val-share", "0"],
    ] {
        fail(
            2,
            &["cannot be used with"],
            &["train", "--resume", run, option[0], option[1]],
        );
    }
}

#[test]
fn an_unreadable_image_does_not_stop_the_others() {
    let t = trained();
    let (bad, gone) = (t.argument("bad.png"), t.argument("gone.png"));
    fs::write(&bad, b"no image").unwrap();
    let output = run(&["predict", &t.model(), &bad, &image("lying"), "--top", "1"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(stderr(&output).contains("bad.png"), "{}", stderr(&output));
    assert!(stdout(&output).contains("lying"), "{}", stdout(&output));
    fail(7, &["gone.png"], &["predict", &t.model(), &gone]);
}

#[test]
fn prediction_takes_images_of_any_size() {
    let t = trained();
    let path = t.argument("wide.png");
    let file = fs::File::create(&path).unwrap();
    let mut encoder = png::Encoder::new(file, 3 * SIDE as u32, SIDE as u32 / 2);
    encoder.set_color(png::ColorType::Grayscale);
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&[90; 3 * SIDE * SIDE / 2]).unwrap();
    writer.finish().unwrap();
    assert_eq!(json(&["predict", &t.model(), &path, "--json"]).len(), 1);
}

#[test]
fn damaged_and_foreign_model_files_are_refused() {
    let t = trained();
    let whole = fs::read(t.model()).unwrap();
    let path = t.argument("damaged.safetensors");
    let image = image("lying");
    let refused = |bytes: &[u8], word: &str| {
        fs::write(&path, bytes).unwrap();
        fail(
            4,
            &["damaged.safetensors", word],
            &["predict", &path, &image],
        );
        fail(4, &[word], &["evaluate", &path, "--data", "shapes"]);
    };
    refused(&whole[..whole.len() / 2], "truncated");
    refused(b"hello, this is some text", "is a text file");
    let mut altered = whole.clone();
    *altered.last_mut().unwrap() ^= 1;
    refused(&altered, "altered");
    let newer = String::from_utf8_lossy(&whole[8..]).find(r#"\"version\":3"#);
    let place = 8 + newer.expect("the metadata has a version") + r#"\"version\":"#.len();
    altered = whole.clone();
    altered[place] = b'9';
    refused(&altered, "version 9");
    fail(
        7,
        &["gone.safetensors"],
        &["predict", &t.argument("gone.safetensors"), &image],
    );
}

#[test]
fn data_with_other_classes_is_refused() {
    let t = trained();
    fail(
        3,
        &["classes", "shapes"],
        &["evaluate", &t.model(), "--data", "shapes"],
    );
    let root = tempfile::tempdir().unwrap();
    for class in ["lying", "upright"] {
        let folder = root.path().join("test").join(class);
        fs::create_dir_all(&folder).unwrap();
        png(&folder.join("a.png"), class, 0);
    }
    let data = format!("folder:{}", root.path().display());
    fail(
        3,
        &["`standing`", "`upright`"],
        &["evaluate", &t.model(), "--data", &data],
    );
}
