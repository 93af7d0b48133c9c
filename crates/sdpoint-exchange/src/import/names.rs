//! The names of a dictionary's tensors, without the parts added by wrappers.

use std::borrow::Cow;
use std::collections::HashMap;

use super::mobilenet::MobileNet;
use crate::checkpoint::{AVERAGES, Entry, TensorSet};

/// PyTorch's counter of batches, which has no effect on a trained network.
const COUNTER: &str = "num_batches_tracked";

/// The components that `torch.compile`, FSDP, activation checkpointing and
/// Lightning's Fabric insert into the names of wrapped modules, at any level.
const WRAPPERS: [&str; 4] = [
    "_orig_mod.",
    "_fsdp_wrapped_module.",
    "_checkpoint_wrapped_module.",
    "_forward_module.",
];

/// The most components of a prefix.
const MAX_PREFIX: usize = 8;

/// A tensor and its name without wrappers.
pub(super) struct Named<'c> {
    pub plain: Cow<'c, str>,
    pub original: &'c str,
    pub entry: &'c Entry,
}

/// The tensors of a dictionary, except for counters.
pub(super) struct Names<'c> {
    pub all: Vec<Named<'c>>,
    by_name: HashMap<String, usize>,
}

impl<'c> Names<'c> {
    pub fn of(set: &'c TensorSet) -> Self {
        let counts = |name: &str| name == AVERAGES || name.rsplit('.').next() == Some(COUNTER);
        let mut all: Vec<Named<'c>> = set
            .entries()
            .filter(|(name, _)| !counts(name))
            .map(|(original, entry)| Named {
                plain: unwrapped(original),
                original,
                entry,
            })
            .collect();
        translate(&mut all);
        let index = |all: &[Named<'c>]| -> HashMap<String, usize> {
            let names = all.iter().map(|named| named.plain.to_string());
            names.zip(0..).collect()
        };
        let mut by_name = index(&all);
        // If that makes two names equal, keep the wrappers' components.
        if by_name.len() < all.len() {
            for named in &mut all {
                named.plain = named.original.into();
            }
            by_name = index(&all);
        }
        Self { all, by_name }
    }

    pub fn get(&self, name: &str) -> Option<&Named<'c>> {
        self.by_name.get(name).map(|&index| &self.all[index])
    }

    /// For each prefix, how well the names under it match those of a network,
    /// given the shapes of its tensors by name.
    pub fn prefixes<'n>(&'n self, needed: &HashMap<&str, &[usize]>) -> HashMap<&'n str, Score> {
        let mut scores: HashMap<&str, Score> = HashMap::new();
        for named in &self.all {
            let name = &named.plain;
            let starts = name.match_indices('.').map(|(dot, _)| dot + 1);
            for start in std::iter::once(0).chain(starts).take(MAX_PREFIX + 1) {
                let Some(&shape) = needed.get(&name[start..]) else {
                    continue;
                };
                let score = scores.entry(&name[..start]).or_default();
                score.names += 1;
                let fits = |entry: &Entry| match entry {
                    Ok(tensor) => tensor.shape() == shape,
                    Err(_) => false,
                };
                score.shapes += usize::from(fits(named.entry));
            }
        }
        scores
    }
}

/// Gives the tensors of networks that the description knows under other names
/// those names.
fn translate(all: &mut [Named<'_>]) {
    let names = all.iter().map(|named| &*named.plain);
    let Some(timm) = MobileNet::of(names) else {
        return;
    };
    let names: Vec<Option<String>> = all
        .iter()
        .map(|named| timm.torchvision(&named.plain))
        .collect();
    for (named, name) in all.iter_mut().zip(names) {
        if let Some(name) = name {
            named.plain = name.into();
        }
    }
}

/// The number of matching tensors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Score {
    /// With their shapes.
    pub shapes: usize,
    /// By their names.
    pub names: usize,
}

/// A name without the components inserted by wrappers.
pub(super) fn unwrapped(name: &str) -> Cow<'_, str> {
    if !WRAPPERS.iter().any(|wrapper| name.contains(wrapper)) {
        return name.into();
    }
    let is_wrapper = |part: &&str| WRAPPERS.iter().any(|w| w.trim_end_matches('.') == *part);
    let parts: Vec<&str> = name.split('.').filter(|part| !is_wrapper(part)).collect();
    parts.join(".").into()
}
