//! Finds the classifier of a checkpoint, under any name.

use super::names::{Named, Names};
use crate::checkpoint::StoredTensor;

/// Names of classifiers, the most common first.
const USUAL: [&str; 10] = [
    "fc",
    "classifier",
    "head",
    "last_linear",
    "linear",
    "logits",
    "output",
    "out",
    "cls_head",
    "clf",
];

/// The linear layer that computes the logits.
pub(super) struct Classifier<'n, 'c> {
    pub weight: &'n Named<'c>,
    pub bias: Option<&'n Named<'c>>,
    pub outputs: usize,
}

/// Why the classifier is not unambiguous.
pub(super) enum Unclear {
    Missing,
    /// Several layers could be it.
    Several(Vec<String>),
    /// It has more than one layer.
    Layers(Vec<String>),
}

/// Finds the classifier for `features` input features. The other tensors have
/// names with `prefix`, and `is_body` tells which; `own` is the classifier's
/// name in the network.
pub(super) fn find<'n, 'c>(
    names: &'n Names<'c>,
    prefix: &str,
    own: &str,
    features: usize,
    is_body: impl Fn(&str) -> bool,
) -> Result<Classifier<'n, 'c>, Unclear> {
    let stem = match names.get(&format!("{prefix}{own}.weight")) {
        Some(_) => format!("{prefix}{own}"),
        None => searched(names, prefix, own, features, is_body)?,
    };
    let Some(weight) = names.get(&format!("{stem}.weight")) else {
        return Err(Unclear::Missing);
    };
    let bias_name = format!("{stem}.bias");
    let bias = names.get(&bias_name);
    let outputs = tensor(weight).and_then(|tensor| tensor.shape().first().copied());
    let outputs = outputs.unwrap_or(0);
    let others = beside(names, &stem, own, prefix, outputs);
    if !others.is_empty() {
        return Err(Unclear::Layers(others));
    }
    Ok(Classifier {
        weight,
        bias,
        outputs,
    })
}

fn tensor<'c>(named: &Named<'c>) -> Option<&'c StoredTensor> {
    named.entry.as_ref().ok()
}

/// The name of the only linear layer whose input is the features.
fn searched(
    names: &Names<'_>,
    prefix: &str,
    own: &str,
    features: usize,
    is_body: impl Fn(&str) -> bool,
) -> Result<String, Unclear> {
    let mut found: Vec<&str> = names
        .all
        .iter()
        .filter(|named| !is_body(&named.plain) && takes(named, features))
        .filter_map(|named| named.plain.strip_suffix(".weight"))
        .collect();
    if found.len() > 1 {
        // Of several, those with the most common name, preferably with the prefix.
        let rank = |stem: &&str| {
            let within = stem.strip_prefix(prefix);
            let name = within.unwrap_or(stem);
            let mut usual = std::iter::once(own).chain(USUAL);
            let place = usual.position(|usual| name.split('.').any(|part| part == usual));
            (place.unwrap_or(usize::MAX), within.is_none())
        };
        found.sort_by_key(rank);
        let best = found.first().map(rank);
        found.retain(|stem| Some(rank(stem)) == best);
    }
    match found[..] {
        [] => Err(Unclear::Missing),
        [one] => Ok(one.to_owned()),
        _ => {
            // Layers of one sequence are one classifier.
            let container = |stem: &str| stem.rsplit_once('.').map(|(head, _)| head.to_owned());
            let first = container(found[0]);
            let names = found.iter().map(|stem| format!("{stem}.weight")).collect();
            if first.is_some() && found.iter().all(|stem| container(stem) == first) {
                Err(Unclear::Layers(names))
            } else {
                Err(Unclear::Several(names))
            }
        }
    }
}

/// Whether it is the weight of a linear layer with `features` inputs, or of a
/// 1×1 convolution, which is equivalent after global pooling.
fn takes(named: &Named<'_>, features: usize) -> bool {
    tensor(named).is_some_and(|tensor| match *tensor.shape() {
        [outputs, inputs] | [outputs, inputs, 1, 1] => {
            outputs > 0 && inputs == features && tensor.is_float()
        }
        _ => false,
    })
}

/// Other tensors of the classifier, if it is more than a linear layer: those in
/// the same container, and layers that take its outputs as inputs.
fn beside(names: &Names<'_>, stem: &str, own: &str, prefix: &str, outputs: usize) -> Vec<String> {
    let root = stem.strip_prefix(prefix).unwrap_or(stem);
    let container = match root.split_once('.') {
        // The container of a name such as `backbone.fc` is not the classifier's.
        Some((head, _)) if head == own || USUAL.contains(&head) => {
            let length = stem.len() - root.len() + head.len() + 1;
            Some(&stem[..length])
        }
        _ => stem.rfind('.').map(|dot| &stem[..=dot]),
    };
    let container = container.filter(|&container| container != prefix);
    let is_own = |name: &str| {
        name.strip_prefix(stem)
            .is_some_and(|rest| rest == ".weight" || rest == ".bias")
    };
    let belongs = |named: &&Named<'_>| {
        let name = &named.plain;
        !is_own(name)
            && (container.is_some_and(|container| name.starts_with(container))
                || (outputs > 1 && name.ends_with(".weight") && is_linear(named, outputs)))
    };
    let others = names.all.iter().filter(belongs);
    others.map(|named| named.original.to_owned()).collect()
}

fn is_linear(named: &Named<'_>, inputs: usize) -> bool {
    tensor(named)
        .is_some_and(|tensor| tensor.is_float() && matches!(*tensor.shape(), [_, i] if i == inputs))
}
