//! The dictionaries of tensors in a file.

use std::collections::BTreeMap;

use super::StoredTensor;

/// A tensor, or why it cannot be read.
pub(crate) type Entry = Result<StoredTensor, String>;

/// What was found in a file.
#[derive(Debug)]
pub(super) struct Content {
    pub sets: Vec<TensorSet>,
    pub big_endian: bool,
    /// What the file calls its network, under `arch`.
    pub architecture: Option<String>,
}

/// A dictionary of tensors in a file, or the tensors of a module that was
/// saved whole.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorSet {
    pub(super) key: String,
    pub(super) entries: BTreeMap<String, Entry>,
    pub(super) module: Option<String>,
    pub(super) joined: bool,
}

/// Words in the keys of weights that were averaged while training went on.
const AVERAGED: [&str; 6] = ["ema", "swa", "averaged", "average", "polyak", "shadow"];

/// The counter of `torch.optim.swa_utils.AveragedModel`.
pub(crate) const AVERAGES: &str = "n_averaged";

impl TensorSet {
    /// The tensors that are all of a file.
    pub(super) fn at_top(entries: BTreeMap<String, Entry>) -> Self {
        Self {
            key: String::new(),
            entries,
            module: None,
            joined: false,
        }
    }

    /// The keys that lead to it from the file's top, with dots between them;
    /// empty at the top itself.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The class of the module that it was saved as, if it was one.
    pub fn module(&self) -> Option<&str> {
        self.module.as_deref()
    }

    /// Whether it was made of several dictionaries, which may be a network's
    /// parts.
    pub(crate) fn is_joined(&self) -> bool {
        self.joined
    }

    /// Whether its weights are averages over a training, as its key or a
    /// counter in it says.
    pub fn is_averaged(&self) -> bool {
        says_averaged(&self.key) || self.entries.contains_key(AVERAGES)
    }

    /// The names of its tensors in order, those that cannot be read included.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// How many tensors it has.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it has no tensors.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// A tensor's place and shape, if it has one of that name that can be
    /// read.
    pub fn get(&self, name: &str) -> Option<&StoredTensor> {
        self.entries.get(name)?.as_ref().ok()
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.entries.iter().map(|(name, entry)| (&name[..], entry))
    }
}

/// Whether a key or a prefix names averaged weights.
pub(crate) fn says_averaged(name: &str) -> bool {
    name.split(|c: char| !c.is_ascii_alphanumeric())
        .any(|word| AVERAGED.contains(&word.to_ascii_lowercase().as_str()))
}
