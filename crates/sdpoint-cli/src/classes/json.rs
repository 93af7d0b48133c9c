//! Class names in JSON, in the forms of common libraries.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};

use super::in_order;
use crate::output::name;

/// The forms, for the end of a message; those of `docs/import.md`.
const FORMS: &str = r#"a list of names; an object of names by number, {"0": "cat"}, or of numbers by name, {"cat": 0}; Keras's {"0": ["n01440764", "tench"]}; or an object with one of these as id2label, label_names, class_names, classes, names, labels or categories, or with numbers by name as label2id or class_to_idx"#;

/// Keys under which configurations and data sets have the names.
const KEYS: [&str; 7] = [
    "id2label",
    "label_names",
    "class_names",
    "classes",
    "names",
    "labels",
    "categories",
];

/// Keys under which they have the number of each name.
const INVERSE_KEYS: [&str; 2] = ["label2id", "class_to_idx"];

/// A value of JSON, as far as names need it.
enum Json {
    Text(String),
    Number(u64),
    List(Vec<Json>),
    /// The entries in order, also those of the same key.
    Object(Vec<(String, Json)>),
    Other,
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Json;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }

            fn visit_str<E>(self, text: &str) -> Result<Json, E> {
                Ok(Json::Text(text.to_owned()))
            }

            fn visit_u64<E>(self, number: u64) -> Result<Json, E> {
                Ok(Json::Number(number))
            }

            fn visit_i64<E>(self, _: i64) -> Result<Json, E> {
                Ok(Json::Other)
            }

            fn visit_f64<E>(self, _: f64) -> Result<Json, E> {
                Ok(Json::Other)
            }

            fn visit_bool<E>(self, _: bool) -> Result<Json, E> {
                Ok(Json::Other)
            }

            fn visit_unit<E>(self) -> Result<Json, E> {
                Ok(Json::Other)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Json, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = list.next_element()? {
                    items.push(item);
                }
                Ok(Json::List(items))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Json::Object(entries))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

/// Whether a text is a tuple of strings in Python, which JSON has not.
pub(super) fn is_python_tuple(text: &str) -> bool {
    let items = text.strip_prefix('(').map(str::trim_start);
    items.is_some_and(|items| items.starts_with(['\'', '"'])) && text.ends_with(')')
}

/// What a text is in Python, if that is probably what wrote it.
fn python(text: &str) -> Option<&'static str> {
    let rest = text.get(1..)?.trim_start();
    if text.starts_with('(') {
        Some("tuple")
    } else if text.starts_with('[') {
        rest.starts_with('\'').then_some("list")
    } else {
        let is_python = rest.starts_with(|c: char| c == '\'' || c.is_ascii_digit());
        is_python.then_some("dictionary")
    }
}

/// The names in a text that starts like JSON.
pub(super) fn parse(text: &str) -> Result<Vec<String>, String> {
    let value = serde_json::from_str(text).map_err(|_| match python(text) {
        Some(what) => format!(
            "it is a Python {what}, not JSON, which has strings and keys in double quotes: write it \
             with json.dump"
        ),
        None => format!("it starts like JSON, but is not: names in JSON are {FORMS}"),
    })?;
    names(value, true)
}

/// The names in a value; at the top, they may be under one of [`KEYS`].
fn names(value: Json, top: bool) -> Result<Vec<String>, String> {
    let unknown = || format!("its JSON has another form than {FORMS}");
    match value {
        Json::List(items) => {
            let items: Option<_> = items.into_iter().map(name_of).collect();
            items.ok_or_else(unknown)
        }
        Json::Object(entries) if top => match take(entries) {
            Taken::Names(value) => names(value, false),
            Taken::Numbers(Json::Object(entries)) => inverse(entries).ok_or_else(unknown)?,
            Taken::Numbers(_) => Err(unknown()),
            Taken::Nothing(entries) => by_id(entries).ok_or_else(unknown)?,
        },
        Json::Object(entries) => by_id(entries).ok_or_else(unknown)?,
        _ => Err(unknown()),
    }
}

/// What a configuration has under a known key.
enum Taken {
    Names(Json),
    Numbers(Json),
    /// The entries, which have no such key.
    Nothing(Vec<(String, Json)>),
}

fn take(mut entries: Vec<(String, Json)>) -> Taken {
    let mut find = |keys: &[&str]| {
        let is_found = |key: &str, (own, value): &(String, Json)| {
            own == key && matches!(value, Json::List(_) | Json::Object(_))
        };
        let place = keys
            .iter()
            .find_map(|key| entries.iter().position(|entry| is_found(key, entry)))?;
        Some(entries.swap_remove(place).1)
    };
    if let Some(value) = find(&KEYS) {
        Taken::Names(value)
    } else if let Some(value) = find(&INVERSE_KEYS) {
        Taken::Numbers(value)
    } else {
        Taken::Nothing(entries)
    }
}

/// A name, or the second of an identifier and a name, as Keras has them.
fn name_of(value: Json) -> Option<String> {
    match value {
        Json::Text(text) => Some(text),
        Json::List(items) => match <[Json; 2]>::try_from(items).ok()? {
            [Json::Text(_), Json::Text(name)] => Some(name),
            _ => None,
        },
        _ => None,
    }
}

/// The names of an object with one for each number, or a number for each name.
fn by_id(entries: Vec<(String, Json)>) -> Option<Result<Vec<String>, String>> {
    if entries
        .iter()
        .all(|(_, value)| matches!(value, Json::Number(_)))
    {
        return inverse(entries);
    }
    let mut names = BTreeMap::new();
    for (id, value) in entries {
        let number = id.parse::<usize>().ok().filter(|n| n.to_string() == id)?;
        let class = name_of(value)?;
        if let Some(other) = names.insert(number, class) {
            let (id, other) = (name(&id), name(&other));
            return Some(Err(format!(
                "it has the key '{id}' twice, first for '{other}'"
            )));
        }
    }
    Some(in_order(names))
}

/// The names of an object with a number for each.
fn inverse(entries: Vec<(String, Json)>) -> Option<Result<Vec<String>, String>> {
    let mut names = BTreeMap::new();
    for (class, value) in entries {
        let Json::Number(number) = value else {
            return None;
        };
        let number = usize::try_from(number).ok()?;
        if let Some(other) = names.insert(number, class.clone()) {
            let (class, other) = (name(&class), name(&other));
            return Some(Err(format!(
                "it has the number {number} twice, for '{other}' and '{class}'"
            )));
        }
    }
    Some(in_order(names))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_and_docs_have_the_same_forms() {
        let docs = include_str!("../../../../docs/import.md");
        for key in KEYS.iter().chain(&INVERSE_KEYS) {
            assert!(
                FORMS.contains(key) && docs.contains(&format!("`{key}`")),
                "{key}"
            );
        }
        for form in [
            r#"{"0": "cat""#,
            r#"{"cat": 0"#,
            r#"{"0": ["n01440764", "tench"]}"#,
        ] {
            assert!(FORMS.contains(form) && docs.contains(form), "{form}");
        }
    }
}
