//! The files of a checkpoint: weights, and the configuration next to them.

use std::fs;
use std::path::{Path, PathBuf};

use sdpoint::exchange::Checkpoint;

use super::config::Config;
use crate::failure::{Class, Failure};

/// The name of the configuration of timm and the Hugging Face Hub.
const CONFIG: &str = "config.json";

/// The names of weights next to it, in order of preference.
const WEIGHTS: [&str; 5] = [
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "model.pth",
];

/// A checkpoint and its configuration.
pub struct Found {
    /// The file of weights.
    pub weights: PathBuf,
    /// The contents of `config.json`.
    pub config: Option<Config>,
}

impl Found {
    /// Whether the weights are in several files, which an index lists.
    pub fn is_index(&self) -> bool {
        Checkpoint::is_index(&self.weights)
    }
}

/// The index beside a file of weights with a name such as
/// `model-00001-of-00002.safetensors`.
pub fn index_of_shard(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    let (stem, end) = name.rsplit_once('.')?;
    let (before, _) = stem.split_once("-of-")?;
    let (stem, number) = before.rsplit_once('-')?;
    let is_shard = number.bytes().all(|byte| byte.is_ascii_digit());
    let index = path.with_file_name(format!("{stem}.{end}.index.json"));
    (is_shard && index.is_file()).then_some(index)
}

/// Finds weights and configuration, given the file or the folder.
pub fn find(path: &Path, read_config: bool) -> Result<Found, Failure> {
    let weights = match path.is_dir() {
        true => in_folder(path)?,
        false => path.to_owned(),
    };
    let beside = weights.with_file_name(CONFIG);
    // Anything of this name is read or refused: a pipe, a folder or a broken link
    // must not pass for a missing configuration.
    let config = match read_config && beside != weights && beside.symlink_metadata().is_ok() {
        true => Config::read(&beside)?,
        false => None,
    };
    Ok(Found { weights, config })
}

fn in_folder(folder: &Path) -> Result<PathBuf, Failure> {
    let usual = WEIGHTS.iter().map(|name| folder.join(name));
    if let Some(path) = usual.into_iter().find(|path| path.is_file()) {
        return Ok(path);
    }
    let cannot = |error: std::io::Error| {
        let path = folder.display();
        Failure::io(format!("cannot read '{path}': {error}"), error.kind())
    };
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(cannot)? {
        let path = entry.map_err(cannot)?.path();
        let extension = path.extension().and_then(|extension| extension.to_str());
        if matches!(
            extension,
            Some("safetensors" | "pth" | "pt" | "bin" | "ckpt" | "tar")
        ) && path.is_file()
        {
            found.push(path);
        }
    }
    let folder = folder.display();
    match &found[..] {
        [one] => Ok(one.clone()),
        [] => Err(Failure::new(
            Class::Model,
            format!("'{folder}' holds no weights"),
        )),
        several => Err(Failure::new(
            Class::Usage,
            format!(
                "'{folder}' holds {} files of weights: give one of them",
                several.len()
            ),
        )),
    }
}
