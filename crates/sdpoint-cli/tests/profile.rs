//! `sdpoint profile`: the times it gives fit together, and what cannot be is refused.

mod common;

use common::{command, fail, json, run, stderr, stdout, succeed, trained};
use serde_json::Value;

const QUICK: [&str; 2] = ["--seconds", "0"];

fn profile(arguments: &[&str]) -> Vec<Value> {
    json(&[&["profile"], arguments, &QUICK, &["--json"]].concat())
}

fn number(row: &Value, key: &str) -> f64 {
    row[key].as_f64().unwrap_or_else(|| panic!("{key}: {row}"))
}

#[test]
fn rates_are_work_over_time() {
    let arguments = ["--network", "preresnet8", "--batch", "3", "--threads", "2"];
    let rows = profile(&[&arguments[..], &["--instances", "full,0@0.5"]].concat());
    let costs = json(&["instances", "preresnet8", "--json"]);
    assert_eq!(rows.len(), 2);
    for (row, name) in rows.iter().zip(["full", "0@0.5"]) {
        assert_eq!(row["instance"], name);
        assert_eq!((&row["batch"], &row["threads"]), (&3.into(), &2.into()));
        let cost = costs.iter().find(|cost| cost["instance"] == name).unwrap();
        assert_eq!(row["macs"], cost["macs"]);
        let (median, p99) = (number(row, "median_ms"), number(row, "p99_ms"));
        assert!(median > 0.0 && p99 >= median, "{row}");
        let expected = 2e-6 * 3.0 * number(row, "macs") / median;
        assert!((number(row, "gflops") / expected - 1.0).abs() < 1e-9);
        assert!(number(row, "runs") >= 5.0);
        assert!(row.get("layers").is_none());
    }
}

#[test]
fn training_takes_more_work_and_more_memory() {
    let arguments = ["--network", "preresnet8", "--batch", "2"];
    let inference = &profile(&arguments)[0];
    let training = &profile(&[&arguments[..], &["--train"]].concat())[0];
    // All but the first convolution, of 32 · 32 · 16 · 27, are computed three times.
    let first = 32.0 * 32.0 * 16.0 * 27.0;
    let expected = 3.0 * number(inference, "macs") - first;
    assert_eq!(number(training, "macs"), expected);
    // Weights, their gradients and the momentum at the least.
    let memory = |row| number(row, "peak_memory_bytes");
    let parameters = 75_290.0;
    assert!(memory(inference) > 4.0 * parameters);
    assert!(memory(training) > memory(inference) + 8.0 * parameters);
}

#[test]
fn layers_add_up() {
    for train in [false, true] {
        let mut arguments = vec![
            "--network",
            "preresnet8",
            "--layers",
            "--instances",
            "1@0.5",
        ];
        if train {
            arguments.push("--train");
        }
        let row = &profile(&arguments)[0];
        let layers = row["layers"].as_array().unwrap();
        let macs: f64 = layers.iter().map(|layer| number(layer, "macs")).sum();
        assert_eq!(macs, number(row, "macs"));
        let passes: Vec<&str> = layers.iter().map(|l| l["pass"].as_str().unwrap()).collect();
        for pass in ["pack", "loss", "to weights", "to data", "update"] {
            assert_eq!(passes.contains(&pass), train, "{pass}");
        }
        let down = layers
            .iter()
            .find(|layer| layer["name"] == "blocks.1.add downsampled");
        let down = down.unwrap_or_else(|| panic!("{layers:?}"));
        assert_eq!(down["input"], serde_json::json!([16, 16, 32]));
        assert_eq!(down["output"], serde_json::json!([8, 8, 32]));
    }
}

/// The algorithms of a network's kernel calls, by layer and pass, with one of them forced.
fn algorithms(forced: &str, more: &[&str]) -> Vec<(String, String, Option<String>)> {
    let arguments = ["profile", "--network", "preresnet8", "--layers", "--json"];
    let output = command(&[&arguments, more, &QUICK].concat())
        .env("SDPOINT_CONV", forced)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let rows: Vec<Value> = serde_json::from_str(stdout(&output)).unwrap();
    let text = |layer: &Value, key: &str| layer[key].as_str().map(str::to_owned);
    let layers = rows[0]["layers"].as_array().unwrap().iter();
    let layers = layers.map(|layer| {
        let [name, pass] = ["name", "pass"].map(|key| text(layer, key).unwrap());
        (name, pass, text(layer, "algorithm"))
    });
    layers.collect()
}

#[test]
fn layers_tell_their_algorithm_and_it_can_be_forced() {
    let of = |layers: &[(String, String, Option<String>)], name: &str, pass: &str| {
        let mut layers = layers.iter();
        let found = layers.find(|layer| layer.0.starts_with(name) && layer.1 == pass);
        let (.., algorithm) = found.unwrap_or_else(|| panic!("no {name} {pass}"));
        algorithm.clone()
    };
    let second = "blocks.0.conv2";
    let batch = ["--batch", "4", "--train"];
    let chosen = algorithms("", &batch);
    let forced = algorithms("direct", &batch);
    for pass in ["forward", "to data", "to weights"] {
        assert_eq!(of(&chosen, second, pass).as_deref(), Some("winograd4"));
        assert_eq!(of(&forced, second, pass).as_deref(), Some("direct"));
    }
    assert_eq!(of(&chosen, "fc", "forward").as_deref(), Some("direct"));
    assert_eq!(of(&chosen, "pack", "pack"), None);
    // What an algorithm cannot compute is computed by the one that is chosen without it.
    let small = algorithms("winograd2", &batch);
    assert_eq!(of(&small, second, "forward").as_deref(), Some("winograd2"));
    assert_eq!(
        of(&small, second, "to weights").as_deref(),
        Some("winograd4")
    );
    assert_eq!(of(&small, "fc", "forward").as_deref(), Some("direct"));
    let table = ["profile", "--network", "preresnet8", "--layers"];
    let table = succeed(&[&table[..], &QUICK].concat());
    assert!(
        table.contains("algorithm") && table.contains("winograd4"),
        "{table}"
    );
}

#[test]
fn an_unknown_algorithm_is_refused() {
    let arguments = ["profile", "--network", "preresnet8"];
    let output = command(&[&arguments[..], &QUICK].concat())
        .env("SDPOINT_CONV", "fft")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    for part in ["SDPOINT_CONV", "'fft'", "winograd4", "direct"] {
        assert!(stderr(&output).contains(part), "{}", stderr(&output));
    }
}

#[test]
fn tables_name_the_machine_and_every_call() {
    let arguments = [
        "profile",
        "--network",
        "resnet18",
        "--input",
        "32x64",
        "--layers",
    ];
    let text = succeed(&[&arguments[..], &QUICK].concat());
    for part in [
        "resnet18: inference, batch 1 of 32x64",
        "peak",
        "GFLOP/s",
        "conv1+bn1+relu",
        "7x7/2",
        "layer4.1.conv2+bn2+add+relu",
        "total",
    ] {
        assert!(text.contains(part), "'{part}' is not in\n{text}");
    }
}

#[test]
fn a_models_own_instances_are_timed() {
    let model = trained().model();
    let arguments = ["--instances", "all"];
    let rows = profile(&[&[&*model], &arguments[..]].concat());
    let names = |rows: &[Value]| -> Vec<String> {
        rows.iter().map(|row| row["instance"].to_string()).collect()
    };
    assert_eq!(names(&rows), names(&json(&["instances", &model, "--json"])));
    let refused = ["profile", &model, "--instances", "7@0.5"];
    fail(5, &["7@0.5"], &refused);
}

#[test]
fn what_cannot_be_timed_is_refused() {
    let network = ["profile", "--network"];
    let with = |more: &[&'static str]| [&network[..], more].concat();
    fail(2, &["MODEL", "--network"], &["profile"]);
    fail(
        2,
        &["cannot be used with"],
        &with(&["resnet18", "model.safetensors"]),
    );
    fail(2, &["resnet50"], &with(&["resnet5"]));
    fail(2, &["--batch"], &with(&["resnet18", "--batch", "0"]));
    fail(2, &["--seconds"], &with(&["resnet18", "--seconds=-1"]));
    fail(2, &["--seconds"], &with(&["resnet18", "--seconds", "nan"]));
    fail(
        2,
        &["does not fit into memory"],
        &with(&["preresnet8", "--input", "16384", "--batch", "65536"]),
    );
    fail(
        5,
        &["no point 99"],
        &with(&["preresnet8", "--instances", "99@0.5"]),
    );
    let output = run(&[&with(&["preresnet8", "--json"])[..], &QUICK].concat());
    assert!(stderr(&output).contains("timing 1 instance"));
}
