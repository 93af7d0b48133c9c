//! Writes small files to start from: `model_seeds corpus` in `fuzz/`.

use std::fs;
use std::path::PathBuf;

use sdpoint::Model;
use sdpoint_fuzz::seed;
use serde_json::{Value, json};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let corpus = PathBuf::from(std::env::args().nth(1).ok_or("name the corpus's folder")?);
    let files = corpus.join("model_file");
    let descriptions = corpus.join("model_description");
    let profiles = corpus.join("latency_profile");
    for folder in [&files, &descriptions, &profiles] {
        fs::create_dir_all(folder)?;
    }
    let small = seed::small()?;
    fs::write(profiles.join("seed.json"), profile(&small).to_string())?;
    let models = [
        ("plain", small.clone()),
        ("combined", seed::combined(small)),
        ("varied", seed::combined(seed::varied()?)),
    ];
    for (name, model) in models {
        let file = files.join(name);
        model.save(&file)?;
        fs::write(descriptions.join(name), description(&fs::read(file)?)?)?;
    }
    Ok(())
}

/// What a model file says of itself, as text.
fn description(file: &[u8]) -> Result<String, Box<dyn std::error::Error>> {
    let len = u64::from_le_bytes(*file.first_chunk().ok_or("no header")?) as usize;
    let header: Value = serde_json::from_slice(&file[8..8 + len])?;
    let text = header["__metadata__"]["sdpoint"].as_str();
    Ok(text.ok_or("no description")?.to_owned())
}

/// A latency profile of a model with one point.
fn profile(model: &Model) -> Value {
    let instance = |record: &sdpoint::core::Record| {
        json!({
            "instance": record.instance, "macs": record.macs,
            "median": 0.003, "p90": 0.0031, "rest": 0.002,
        })
    };
    let instances: Vec<Value> = model.instances.iter().map(instance).collect();
    let stretches = json!([{ "to": "0", "median": 0.001 }, { "to": null, "median": 0.002 }]);
    let machine = json!({ "processor": "A", "isa": "avx512", "threads": 2 });
    let batches = json!([{ "batch": 1, "stretches": stretches, "instances": instances }]);
    json!({
        "version": 1, "network": model.network.name(), "input": model.preprocessing.size,
        "machines": [{ "machine": machine, "batches": batches }],
    })
}
