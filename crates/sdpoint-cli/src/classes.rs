//! Class names from a file: one per line, or JSON.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use sdpoint::core::file::{self, FileError};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};

use crate::failure::{Class, Failure};
use crate::output::{name, note};
use crate::text;

/// The maximum size of a file of names, in bytes.
const MAX_FILE: u64 = 64 << 20;

/// The JSON forms of class names.
#[derive(Deserialize)]
#[serde(untagged)]
enum Names {
    /// `["cat", "dog"]`
    List(Vec<String>),
    /// `{"0": "cat", "1": "dog"}`, like `id2label`.
    ById(Entries),
}

/// The entries of a JSON object in order, also those of the same key.
struct Entries(Vec<(String, String)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Entries;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

/// Reads the names in a file, in the order of the logits.
///
/// # Errors
/// If the file cannot be read or has none of these forms.
pub fn read(path: &Path) -> Result<Vec<String>, Failure> {
    let unreadable = |error: std::io::Error| {
        let message = format!("cannot read '{}': {error}", path.display());
        Failure::io(message, error.kind())
    };
    let refuse = |problem: &str| {
        let message = format!(
            "'{}' cannot be used for class names: {problem}",
            path.display()
        );
        Failure::new(Class::Usage, message)
    };
    let bytes = file::read(path, MAX_FILE).map_err(|error| match error {
        FileError::TooLarge(_) => refuse("it is too large"),
        error => unreadable(error.into()),
    })?;
    text::decode(&bytes)
        .and_then(|text| parse(&text))
        .map_err(|problem| refuse(&problem))
}

/// Reports names that several classes have: mostly mistakes, but ImageNet has two
/// cranes.
pub fn note_repeated(names: &[String]) {
    let mut classes: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (class, name) in names.iter().enumerate() {
        classes.entry(name).or_default().push(class);
    }
    let mut repeated = classes.iter().filter(|(_, classes)| classes.len() > 1);
    let Some((first, same)) = repeated.next() else {
        return;
    };
    let others = match repeated.count() {
        0 => String::new(),
        others => format!("; {others} more names are repeated"),
    };
    note(&format!(
        "Classes {} and {} have the same name, '{}'{others}.",
        same[0],
        same[1],
        name(first)
    ));
}

fn parse(text: &str) -> Result<Vec<String>, String> {
    let text = text.trim();
    if text.starts_with(['[', '{']) {
        let names = serde_json::from_str(text).map_err(|_| {
            "it starts like JSON, but is neither a list of strings nor an object with a string for \
             each of 0, 1, 2 and so on"
        })?;
        return match names {
            Names::List(names) => Ok(names),
            Names::ById(Entries(entries)) => by_id(entries),
        };
    }
    // Lines end in LF, CR LF or CR.
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let names: Vec<String> = text.lines().map(|line| line.trim().to_owned()).collect();
    // An empty line is more likely a mistake than a class without a name.
    match names.iter().position(String::is_empty) {
        Some(line) => Err(format!("line {} is empty", line + 1)),
        None => Ok(names),
    }
}

fn by_id(entries: Vec<(String, String)>) -> Result<Vec<String>, String> {
    let mut names = BTreeMap::new();
    for (id, class) in entries {
        if let Some(other) = names.insert(id.clone(), class) {
            let (id, other) = (name(&id), name(&other));
            return Err(format!("it has the key '{id}' twice, first for '{other}'"));
        }
    }
    (0..names.len())
        .map(|id| {
            let name = names.remove(&id.to_string());
            name.ok_or_else(|| format!("it has no name for class {id}"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: &[u8]) -> Result<Vec<String>, String> {
        parse(&text::decode(bytes)?)
    }

    #[test]
    fn names_are_read_in_every_common_form() {
        let utf16: Vec<u8> = "\u{feff}cat\r\ndog, big"
            .encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect();
        for bytes in [
            &b"cat\ndog, big"[..],
            b"cat\ndog, big\n",
            b"cat\r\ndog, big\r\n\r\n\n",
            b"cat\rdog, big\r",
            b"\xef\xbb\xbfcat\n dog, big \n",
            &utf16,
            b"[\"cat\", \"dog, big\"]\n",
            b"\xef\xbb\xbf[\n\"cat\",\n\"dog, big\"\n]",
            b"{\"1\": \"dog, big\", \"0\": \"cat\"}",
        ] {
            let names = of(bytes).unwrap_or_else(|e| panic!("{}: {e}", bytes.escape_ascii()));
            assert_eq!(names, ["cat", "dog, big"], "{}", bytes.escape_ascii());
        }
        assert_eq!(of(b"\n\n").unwrap(), Vec::<String>::new());
    }

    #[test]
    fn other_content_is_refused() {
        for (bytes, words) in [
            (&b"cat\n\ndog"[..], "line 2 is empty"),
            (b"[\"cat\", 1]", "list of strings"),
            (b"{0: 'cat'}", "list of strings"),
            (b"{\"1\": \"cat\"}", "no name for class 0"),
            (
                b"{\"0\": \"cat\", \"0\": \"dog\"}",
                "the key '0' twice, first for 'cat'",
            ),
            (b"\xff\xfea", "not UTF-16"),
            (b"caf\xe9", "not UTF-8"),
            (b"c\0a\0t\0\n\0", "UTF-16 without"),
        ] {
            let error = of(bytes).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }
}
