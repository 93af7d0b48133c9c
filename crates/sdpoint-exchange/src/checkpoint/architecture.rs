//! The name that a training script gave to the network, saved beside the weights.

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

/// The name of the network in the object of a file, at the top level or among the
/// options of the training script.
pub(super) fn architecture(values: &Values<'_>, top: Id) -> Option<String> {
    named(values, top, &NAMES, 0).map(str::to_owned)
}

fn named<'v>(values: &'v Values<'_>, id: Id, names: &[&str], depth: usize) -> Option<&'v str> {
    let own = names.iter().find_map(|name| {
        values_of(values, id, name).find_map(|value| match *values.get(value) {
            Value::Text(text) if is_name(text) => Some(text),
            _ => None,
        })
    });
    own.or_else(|| {
        let deeper = OPTIONS.iter().filter(|key| {
            // The weights themselves are often under such a key at the top.
            depth > 0 || !PARTS.contains(key)
        });
        deeper.filter(|_| depth < MAX_DEPTH).find_map(|key| {
            let names = match PARTS.contains(key) {
                true => &["name", "arch", "architecture", "model_name"][..],
                false => &NAMES[..],
            };
            values_of(values, id, key).find_map(|value| named(values, value, names, depth + 1))
        })
    })
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
        let found = items.find(|(name, _)| *values.get(*name) == Value::Text(key));
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
