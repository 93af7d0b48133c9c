//! The names that a training script gave to the network, saved beside the weights.

use super::pickle::{Id, Value, Values};
use super::{numpy, option_text};

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
/// of these. In options, the [`PARTS`] may have the name as `name`, too.
const OPTIONS: [&str; 11] = [
    "hyper_parameters",
    "hparams",
    "args",
    "config",
    "cfg",
    "opt",
    "options",
    "model",
    "backbone",
    "network",
    "net",
];

/// The keys in [`OPTIONS`] of a network or of a part of one.
const PARTS: [&str; 4] = ["model", "backbone", "network", "net"];

/// Keys of the name in one of [`PARTS`].
const NAMES_OF_PART: [&str; 4] = ["name", "arch", "architecture", "model_name"];

/// The most levels of options.
pub(super) const MAX_DEPTH: usize = 5;

/// The most places that are searched.
const MAX_PLACES: usize = 1000;

/// The most items of a level that are searched.
const MAX_ITEMS: usize = 256;

/// The longest name, in bytes.
const MAX_NAME: usize = 100;

/// The most names that are taken.
const MAX_NAMES: usize = 16;

/// The names of the network in the object of a file, at the top level and among the
/// options of the training script, the most specific first.
pub(super) fn architectures(values: &Values<'_>, top: Id, file: &[u8]) -> Vec<String> {
    let mut search = Search {
        values,
        file,
        places: 0,
        found: Vec::new(),
    };
    search.collect(top, &NAMES, 0);
    search.found
}

/// The keys of names under one of the [`OPTIONS`].
pub(super) fn names_under(key: &str) -> &'static [&'static str] {
    match is_one_of(key, &PARTS) {
        true => &NAMES_OF_PART,
        false => &NAMES,
    }
}

/// Whether a path of keys in options is that of a name.
pub(super) fn is_path_of_name(path: &[String]) -> bool {
    let Some((name, levels)) = path.split_last() else {
        return false;
    };
    let names = levels.last().map_or(&NAMES[..], |key| names_under(key));
    is_one_of(name, names) && levels.iter().all(|key| is_one_of(key, &OPTIONS))
}

/// Whether a key is one of these; some libraries write their options in capitals.
fn is_one_of(key: &str, known: &[&str]) -> bool {
    known.iter().any(|known| known.eq_ignore_ascii_case(key))
}

struct Search<'v, 'a> {
    values: &'v Values<'a>,
    file: &'v [u8],
    /// The number of places searched.
    places: usize,
    found: Vec<String>,
}

impl Search<'_, '_> {
    /// Adds the names at a level, and those in its options.
    fn collect(&mut self, id: Id, names: &[&str], depth: usize) {
        let values = self.values;
        self.places += 1;
        if self.places > MAX_PLACES {
            return;
        }
        for value in names.iter().flat_map(|name| values_of(values, id, name)) {
            // Of several candidates, some scripts keep a list.
            let items = match values.get(value) {
                Value::List(items) | Value::Tuple(items) => &items[..items.len().min(MAX_NAMES)],
                _ => &[value],
            };
            for item in items {
                match *values.get(*item) {
                    Value::Text(text) => self.add(text),
                    _ => {
                        let text = numpy::text(values, *item, self.file, MAX_NAME);
                        self.add(&text.unwrap_or_default());
                    }
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
            for value in values_of(values, id, key) {
                match *values.get(value) {
                    // A file of options as it is.
                    Value::Text(text) => {
                        for name in option_text::names(text) {
                            self.add(&name);
                        }
                    }
                    _ => self.collect(value, names_under(key), depth + 1),
                }
            }
        }
    }

    /// Adds a text, if it can be a name and is new.
    fn add(&mut self, text: &str) {
        if is_name(text)
            && self.found.len() < MAX_NAMES
            && !self.found.iter().any(|known| known == text)
        {
            self.found.push(text.to_owned());
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
