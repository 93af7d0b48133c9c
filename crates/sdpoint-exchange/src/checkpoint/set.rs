//! The dictionaries of tensors in a file.

use std::collections::BTreeMap;

use super::{StoredTensor, Whole};

/// A tensor, or why it cannot be read.
pub(crate) type Entry = Result<StoredTensor, Obstacle>;

/// Why a value is not a readable tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Obstacle {
    /// A predicate for an error message after its name.
    pub problem: String,
    /// Whether it is a tensor all the same, not another object.
    pub is_tensor: bool,
}

impl Obstacle {
    /// A tensor that cannot be read.
    pub fn tensor(problem: impl Into<String>) -> Self {
        Self {
            problem: problem.into(),
            is_tensor: true,
        }
    }
}

/// The content of a file.
#[derive(Debug)]
pub(super) struct Content {
    pub sets: Vec<TensorSet>,
    /// The names of the network, saved beside the weights.
    pub architectures: Vec<String>,
}

/// A dictionary of tensors in a file, or the tensors of a whole pickled module.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorSet {
    pub(super) key: String,
    pub(super) entries: BTreeMap<String, Entry>,
    pub(super) module: Option<Whole>,
    pub(super) joined: bool,
    /// For joined ones: whether the keys of the parts say that they are averages.
    pub(super) averaged_parts: bool,
}

/// Words in the keys of weights that were averaged during training.
const AVERAGED: [&str; 6] = ["ema", "swa", "averaged", "average", "polyak", "shadow"];

/// The counter of `torch.optim.swa_utils.AveragedModel`.
pub(crate) const AVERAGES: &str = "n_averaged";

impl TensorSet {
    /// The tensors of a whole file.
    pub(super) fn at_top(entries: BTreeMap<String, Entry>) -> Self {
        Self {
            key: String::new(),
            entries,
            module: None,
            joined: false,
            averaged_parts: false,
        }
    }

    /// The path to it from the file's top level, keys joined by dots; empty at
    /// the top level.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The class, if it was saved as a whole module.
    pub fn module(&self) -> Option<&str> {
        Some(&self.whole()?.root()?.class)
    }

    /// The modules, if it was saved as a whole module.
    pub(crate) fn whole(&self) -> Option<&Whole> {
        self.module.as_ref()
    }

    /// Whether it was joined from several dictionaries, which may be parts of
    /// one network.
    pub(crate) fn is_joined(&self) -> bool {
        self.joined
    }

    /// The prefix that the names of a part have in a joined set, by the part's key.
    pub(crate) fn name_of_part(&self, key: &str) -> Option<String> {
        match self.averaged_parts {
            true => without_averaged(key),
            false => Some(key.to_owned()),
        }
    }

    /// Whether its weights are averages over the course of training (EMA, SWA),
    /// according to its key or a counter in it.
    pub fn is_averaged(&self) -> bool {
        self.averaged_parts || says_averaged(&self.key) || self.entries.contains_key(AVERAGES)
    }

    /// The names of its tensors in order, including those that cannot be read.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// The number of its tensors.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it has no tensors.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The tensor of a name, if there is one and it can be read.
    pub fn get(&self, name: &str) -> Option<&StoredTensor> {
        self.entries.get(name)?.as_ref().ok()
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.entries.iter().map(|(name, entry)| (&name[..], entry))
    }
}

/// Whether a key or prefix indicates averaged weights.
pub(crate) fn says_averaged(name: &str) -> bool {
    name.split(|c: char| !c.is_ascii_alphanumeric())
        .any(|word| AVERAGED.contains(&word.to_ascii_lowercase().as_str()))
}

/// A key without the word that says that its weights are averages: `features` for
/// `features_ema` or `ema_features`. `None` if it has no such word, or no other.
pub(super) fn without_averaged(key: &str) -> Option<String> {
    let is_word = |c: char| c.is_ascii_alphanumeric();
    let words: Vec<&str> = key.split(|c| !is_word(c)).collect();
    let rest: Vec<&str> = (words.iter().copied())
        .filter(|word| !word.is_empty() && !says_averaged(word))
        .collect();
    (says_averaged(key) && !rest.is_empty()).then(|| rest.join("_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averaged_keys_are_those_of_others_with_a_word_more() {
        for (key, other) in [
            ("features_ema", Some("features")),
            ("ema_features", Some("features")),
            ("EMA.fc_head", Some("fc_head")),
            ("ema", None),
            ("features", None),
            ("schema", None),
        ] {
            assert_eq!(without_averaged(key).as_deref(), other, "{key}");
        }
    }
}
