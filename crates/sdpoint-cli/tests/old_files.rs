//! Models and checkpoints that earlier versions have written are used like
//! new ones. `fixtures/models/record.json` has what those versions said.

mod common;

use std::fs;

use common::{fixture, json, png, run, stderr, succeed};
use serde_json::Value;

#[test]
fn old_models_give_the_answers_that_they_gave() {
    let record = fs::read(fixture("record.json")).unwrap();
    let record: Value = serde_json::from_slice(&record).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image.png");
    png(&image, "lying", 3);
    let image = image.to_str().unwrap();
    let mut answers = 0;
    for (name, expected) in record["models"].as_object().unwrap() {
        let model = fixture(&format!("{name}.safetensors"));
        let model = model.to_str().unwrap();
        for prediction in expected["predictions"].as_array().unwrap() {
            let options = prediction["options"].as_array().unwrap().iter();
            let options = options.map(|option| option.as_str().unwrap());
            let mut arguments = vec!["predict", model, image, "--top", "10", "--json"];
            arguments.extend(options);
            let row = &json(&arguments)[0];
            assert_eq!(row["instance"], prediction["instance"], "{arguments:?}");
            assert_eq!(row["macs"], prediction["macs"], "{arguments:?}");
            let top = row["top"].as_array().unwrap();
            assert_eq!(top.len(), 10);
            for guess in top {
                let class = guess["class"].as_str().unwrap();
                let now = guess["probability"].as_f64().unwrap();
                let then = prediction["probabilities"][class].as_f64().unwrap();
                // Instruction sets round differently.
                assert!((now - then).abs() < 1e-4, "{class}: {now} for {then}");
            }
            answers += 1;
        }
    }
    assert_eq!(answers, 5);
}

#[test]
fn an_old_run_goes_on_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    for file in ["checkpoint.safetensors", "metrics.jsonl"] {
        let old = fixture("run-v1").join(file);
        fs::copy(old, folder.path().join(file)).unwrap();
    }
    let place = folder.path().to_str().unwrap();
    let output = run(&["train", "--resume", place]);
    assert!(output.status.success(), "{}", stderr(&output));
    let errors = stderr(&output);
    assert!(errors.contains("after step 30"), "{errors}");
    let metrics = fs::read_to_string(folder.path().join("metrics.jsonl")).unwrap();
    assert_eq!(metrics.lines().count(), 40);
    let text = succeed(&["instances", place]);
    assert!(text.contains("preresnet8-w2"), "{text}");
}
