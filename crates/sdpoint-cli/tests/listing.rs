//! `sdpoint networks` and `sdpoint instances`: what there is, what it costs,
//! and what is refused.

mod common;

use std::collections::HashMap;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::Stdio;

use common::{command, fail, json, run, stdout, succeed};
use serde_json::Value;

#[test]
fn networks_are_listed_with_size_and_cost() {
    let rows = json(&["networks", "--json"]);
    let row = |name: &str| {
        let row = rows.iter().find(|row| row["name"] == name);
        row.unwrap_or_else(|| panic!("{name} is not listed"))
    };
    let resnet50 = row("resnet50");
    assert_eq!(resnet50["parameters"], 25_557_032);
    assert_eq!(resnet50["macs"], 4_089_184_256_u64);
    assert_eq!(resnet50["points"], 17);
    assert_eq!(row("preresnet20")["macs"], 40_813_184);
    assert_eq!(row("preresnet20")["points"], 9);
    row("resnext152_32x4d");
    row("preresnet200-imagenet");

    let table = succeed(&["networks"]);
    for row in &rows {
        assert!(table.contains(row["name"].as_str().unwrap()));
    }
    assert!(table.contains("wrnD-K"), "{table}");
}

#[test]
fn costs_of_all_instances_are_the_recorded_ones() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/oracles/macs.csv");
    let text = fs::read_to_string(path).unwrap();
    let mut expected: HashMap<(String, String), HashMap<String, u64>> = HashMap::new();
    for line in text.lines().skip(1) {
        let fields: Vec<&str> = line.split(',').collect();
        let [network, input, point, ratio, macs] = fields[..] else {
            panic!("{line}");
        };
        let instance = match point {
            "none" => "full".to_owned(),
            point => format!("{point}@{ratio}"),
        };
        expected
            .entry((network.into(), input.into()))
            .or_default()
            .insert(instance, macs.parse().unwrap());
    }
    assert_eq!(expected.len(), 6);
    for ((network, input), costs) in expected {
        let rows = json(&["instances", &network, "--input", &input, "--json"]);
        let full = costs["full"];
        assert_eq!(rows.len(), costs.len(), "{network}");
        for row in rows {
            let instance = row["instance"].as_str().unwrap();
            let macs = costs[instance];
            assert_eq!(row["macs"], macs, "{network} {instance}");
            let share = row["share"].as_f64().unwrap();
            assert!((share - macs as f64 / full as f64).abs() < 1e-12);
            match instance.split_once('@') {
                None => assert_eq!((&row["point"], &row["ratio"]), (&Value::Null, &Value::Null)),
                Some((point, ratio)) => {
                    let number = point.parse().map_or(Value::from(point), |n: u64| n.into());
                    assert_eq!(row["point"], number);
                    assert_eq!(row["ratio"], ratio.parse::<f64>().unwrap());
                }
            }
        }
    }
}

#[test]
fn sizes_classes_and_ratios_are_the_users() {
    let table = succeed(&[
        "instances",
        "resnet18",
        "--input",
        "64x96",
        "--classes",
        "7",
        "--ratios",
        "0.3",
    ]);
    assert!(
        table.contains("64x96") && table.contains("7 classes"),
        "{table}"
    );
    assert!(
        table.contains("stem@0.3") && !table.contains("0.5"),
        "{table}"
    );
    let rows = json(&["instances", "preresnet8", "--ratios", "0.9,0.2", "--json"]);
    let names: Vec<&str> = rows
        .iter()
        .map(|row| row["instance"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        ["full", "0@0.2", "0@0.9", "1@0.2", "1@0.9", "2@0.2", "2@0.9"]
    );
}

#[test]
fn misspelt_names_get_the_nearest_ones() {
    fail(2, &["resnet5'", "resnet50"], &["instances", "resnet5"]);
    fail(2, &["6n + 2", "preresnet20"], &["instances", "preresnet21"]);
    fail(
        2,
        &["6n + 4", "wrn16-4"],
        &["train", "--network", "wrn15-4"],
    );
    let errors = fail(2, &["hint: "], &["instances", "vgg16"]);
    assert!(errors.contains("sdpoint networks"), "{errors}");
}

#[test]
fn impossible_numbers_are_usage_errors() {
    for ratio in ["0", "1", "1.5", "-0.5", "nan", "x"] {
        let argument = format!("--ratios={ratio}");
        fail(
            2,
            &["above 0 and below 1"],
            &["instances", "resnet50", &argument],
        );
    }
    for input in ["0", "x", "12x", "1e3"] {
        fail(
            2,
            &["--input"],
            &["instances", "resnet50", "--input", input],
        );
    }
    fail(
        2,
        &["100000"],
        &["instances", "resnet50", "--input", "100000"],
    );
    fail(
        2,
        &["resnet50"],
        &["instances", "resnet50", "--classes", "0"],
    );
    fail(2, &["--threads"], &["networks", "--threads", "0"]);
    fail(2, &["unrecognized subcommand"], &["netwroks"]);
}

#[test]
fn every_command_teaches_with_examples() {
    for name in [
        "networks",
        "instances",
        "train",
        "calibrate",
        "evaluate",
        "predict",
        "profile",
        "fetch",
    ] {
        let help = succeed(&[name, "--help"]);
        assert!(help.contains("Examples:"), "{name}: {help}");
        assert!(help.contains(&format!("sdpoint {name}")), "{name}: {help}");
        assert!(help.contains("--threads"), "{name}: {help}");
    }
    let help = succeed(&["--help"]);
    assert!(
        help.contains("Exit codes:") && help.contains("130"),
        "{help}"
    );
    assert!(stdout(&run(&["--version"])).starts_with("sdpoint "));
}

#[test]
fn a_closed_pipe_is_no_error() {
    let mut child = command(&["networks"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut errors = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut errors)
        .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(errors, "");
}
