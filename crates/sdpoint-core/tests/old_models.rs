//! Model files of earlier versions keep their meaning. What the program that
//! wrote them made of them is in `fixtures/models/record.json`.

use std::fs;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use sdpoint_core::Model;
use serde_json::Value;
use sha2::{Digest, Sha256};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fixtures/models")
        .join(name)
}

/// SHA-256 over the names and values of a file's tensors, in the order of
/// their names.
fn digest(bytes: &[u8]) -> String {
    let file = SafeTensors::deserialize(bytes).unwrap();
    let mut names = file.names();
    names.sort();
    let mut hasher = Sha256::new();
    for name in names {
        hasher.update(name);
        hasher.update(file.tensor(name).unwrap().data());
    }
    let digest = hasher.finalize();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn version(bytes: &[u8]) -> u64 {
    let (_, header) = SafeTensors::read_metadata(bytes).unwrap();
    let metadata = header.metadata().as_ref().unwrap();
    let document: Value = serde_json::from_str(&metadata["sdpoint"]).unwrap();
    document["version"].as_u64().unwrap()
}

#[test]
fn old_files_are_read_and_written_anew_without_a_change() {
    let record = fs::read(fixture("record.json")).unwrap();
    let record: Value = serde_json::from_slice(&record).unwrap();
    let models = record["models"].as_object().unwrap();
    assert_eq!(models.len(), 2);
    for (name, expected) in models {
        let path = fixture(&format!("{name}.safetensors"));
        let old = fs::read(&path).unwrap();
        assert_eq!(version(&old), expected["version"].as_u64().unwrap());
        assert_eq!(digest(&old), expected["tensors_sha256"], "{name}");

        let model = Model::load(&path).unwrap();
        assert_eq!(model.network.name(), expected["network"]);
        let json = |value: Result<Value, serde_json::Error>| value.unwrap();
        assert_eq!(
            json(serde_json::to_value(&model.instances)),
            expected["instances"]
        );
        assert_eq!(
            json(serde_json::to_value(&model.combinations)),
            expected["combinations"]
        );
        assert_eq!(
            json(serde_json::to_value(&model.classes)),
            expected["classes"]
        );

        // What was read is what was in the file: it is written again.
        let folder = tempfile::tempdir().unwrap();
        let anew = folder.path().join("model.safetensors");
        model.save(&anew).unwrap();
        let new = fs::read(&anew).unwrap();
        assert_eq!(version(&new), 3);
        assert_eq!(digest(&new), expected["tensors_sha256"], "{name}");
        assert_eq!(Model::load(&anew).unwrap(), model);
    }
}
