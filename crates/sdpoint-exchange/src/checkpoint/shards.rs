//! Weights in several safetensors files, which an index lists.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use sdpoint_core::file::{self, FileError};
use serde::Deserialize;

use super::storage::short;
use super::{
    Checkpoint, CheckpointError, Content, Fault, TensorSet, read, safetensors, unreadable,
};

/// The end of the name of an index.
const INDEX: &str = ".index.json";

/// The longest index: those of the largest networks have some hundred kilobytes.
const MAX_INDEX: u64 = 16 << 20;

/// The file of each tensor.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// Whether a file is an index, by its name.
pub(super) fn is_index(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.ends_with(INDEX))
}

/// Reads the tensors that an index lists from the files beside it.
pub(super) fn open(path: &Path) -> Result<Checkpoint, CheckpointError> {
    let unusable = |path: &Path, fault: Fault| CheckpointError::Unusable {
        path: path.to_owned(),
        fault,
    };
    let invalid = |problem: String| {
        let format = "index of shards";
        unusable(path, Fault::Malformed { format, problem })
    };
    let index = match file::read(path, MAX_INDEX) {
        Ok(index) => serde_json::from_slice(&index).ok(),
        Err(FileError::TooLarge(_)) => None,
        Err(error) => return Err(unreadable(path)(error)),
    };
    let index: Index =
        index.ok_or_else(|| invalid("it has no weight_map from tensors to files".into()))?;
    let shards: BTreeSet<&str> = index.weight_map.values().map(String::as_str).collect();
    let mut file = Vec::new();
    let mut entries = BTreeMap::new();
    for name in shards {
        // Only files beside it.
        let is_name = Path::new(name).file_name().is_some_and(|own| own == name);
        if !is_name {
            return Err(invalid(format!(
                "it lists '{}', which is no file name",
                short(name)
            )));
        }
        if !name.ends_with(".safetensors") {
            let fault = "it lists several files of torch.save, of which only a single one is \
                         read; load them in PyTorch and save one: \
                         torch.save(model.state_dict(), path)";
            return Err(unusable(path, Fault::Foreign(fault.into())));
        }
        let shard = path.with_file_name(name);
        let content = read(&shard)?;
        let tensors = safetensors::tensors(&content, file.len());
        let mut tensors = tensors.map_err(|fault| unusable(&shard, fault))?;
        let listed = |(_, file): &(&String, &String)| *file == name;
        for (tensor, _) in index.weight_map.iter().filter(listed) {
            let found = tensors.remove_entry(tensor);
            let missing = || invalid(format!("'{name}' has no tensor '{}'", short(tensor)));
            entries.extend([found.ok_or_else(missing)?]);
        }
        file.extend(content);
    }
    if entries.is_empty() {
        return Err(unusable(path, Fault::NoStateDict));
    }
    Ok(Checkpoint {
        file,
        content: Content {
            sets: vec![TensorSet::at_top(entries)],
            architectures: Vec::new(),
        },
    })
}
