//! The names that a training script gave to the network, saved beside the weights.

use super::pickle::{Id, Value, Values};

/// Keys of the name, the most specific first.
const NAMES: [&str; 6] = [
    "arch",
    "architecture",
    "model_name",
    "model",
    "backbone",
    "network",
];

/// Keys of dictionaries or objects of options, which may have the name, or others
/// of these. In options, `model` and `backbone` may have the name as `name`, too.
const OPTIONS: [&str; 9] = [
    "hyper_parameters",
    "hparams",
    "args",
    "config",
    "cfg",
    "opt",
    "options",
    "model",
    "backbone",
];

/// The keys in [`OPTIONS`] of a single part of a network.
const PARTS: [&str; 2] = ["model", "backbone"];

/// The most levels of options.
const MAX_DEPTH: usize = 3;

/// The most items of a level that are searched.
const MAX_ITEMS: usize = 256;

/// The longest name, in bytes.
const MAX_NAME: usize = 100;

/// The most names that are taken.
const MAX_NAMES: usize = 16;

/// The names of the network in the object of a file, at the top level and among the
/// options of the training script, the most specific first.
pub(super) fn architectures(values: &Values<'_>, top: Id) -> Vec<String> {
    let mut found = Vec::new();
    collect(values, top, &NAMES, 0, &mut found);
    found
}

/// Adds the names at a level, and those in its options.
fn collect(values: &Values<'_>, id: Id, names: &[&str], depth: usize, found: &mut Vec<String>) {
    for value in names.iter().flat_map(|name| values_of(values, id, name)) {
        // Of several candidates, some scripts keep a list.
        let items = match values.get(value) {
            Value::List(items) | Value::Tuple(items) => &items[..items.len().min(MAX_NAMES)],
            _ => &[value],
        };
        for item in items {
            if let Value::Text(text) = *values.get(*item)
                && is_name(text)
                && found.len() < MAX_NAMES
                && !found.iter().any(|known| known == text)
            {
                found.push(text.to_owned());
            }
        }
    }
    if depth == MAX_DEPTH {
        return;
    }
    // The weights themselves are often under a part's key at the top.
    for key in OPTIONS
        .iter()
        .filter(|key| depth > 0 || !PARTS.contains(key))
    {
        let names = match PARTS.contains(key) {
            true => &["name", "arch", "architecture", "model_name"][..],
            false => &NAMES[..],
        };
        for value in values_of(values, id, key) {
            collect(values, value, names, depth + 1, found);
        }
    }
}

/// The value of a key in a dictionary or in the items of an object, and that of the
/// attribute of this name.
fn values_of<'v>(values: &'v Values<'_>, id: Id, key: &str) -> impl Iterator<Item = Id> + use<'v> {
    let attributes = match values.get(id) {
        Value::Object(object) => object.state.and_then(|state| values.items(state)),
        _ => None,
    };
    // The first only: a hostile file may have the same key many times.
    let find = |items: &[(Id, Id)]| {
        let mut items = items.iter().take(MAX_ITEMS);
        // Some libraries write their options in capitals.
        let found = items.find(
            |(name, _)| matches!(*values.get(*name), Value::Text(text) if text.eq_ignore_ascii_case(key)),
        );
        found.map(|&(_, value)| value)
    };
    [values.items(id), attributes]
        .map(|items| items.and_then(find))
        .into_iter()
        .flatten()
}

/// Whether a text can be the name of a network, not a description or a path of a
/// file.
fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= MAX_NAME
        && text
            .chars()
            .all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | ':'))
}
