//! Names of networks in options that were saved as a text of YAML or JSON.

use serde_json::Value;

use super::architecture::{MAX_DEPTH, is_path_of_name};

/// The longest text that is searched, in bytes.
const MAX_TEXT: usize = 1 << 16;

/// The names in a text.
pub(super) fn names(text: &str) -> Vec<String> {
    if text.len() > MAX_TEXT {
        return Vec::new();
    }
    let mut found = Vec::new();
    match serde_json::from_str(text) {
        Ok(options @ Value::Object(_)) => in_json(&options, &mut Vec::new(), &mut found),
        _ => in_yaml(text, &mut found),
    }
    found
}

fn in_json(value: &Value, path: &mut Vec<String>, found: &mut Vec<String>) {
    match value {
        Value::String(text) if is_path_of_name(path) => found.push(text.clone()),
        Value::Object(items) if path.len() <= MAX_DEPTH => {
            for (key, value) in items {
                path.push(key.clone());
                in_json(value, path, found);
                path.pop();
            }
        }
        _ => {}
    }
}

/// Reads the mappings of YAML, in blocks or, on one line, in braces. Anything else in
/// it is skipped.
fn in_yaml(text: &str, found: &mut Vec<String>) {
    // The keys that the line is below, each with its indentation.
    let mut levels: Vec<(usize, String)> = Vec::new();
    for line in text.lines() {
        let line = line.split(" #").next().unwrap_or_default().trim_end();
        let content = line.trim_start();
        let Some((key, value)) = pair(content) else {
            continue;
        };
        let indentation = line.len() - content.len();
        while levels.last().is_some_and(|level| level.0 >= indentation) {
            levels.pop();
        }
        if levels.len() > MAX_DEPTH {
            continue;
        }
        levels.push((indentation, key.to_owned()));
        let mut path: Vec<String> = levels.iter().map(|level| level.1.clone()).collect();
        let inner = value.strip_prefix('{').and_then(|v| v.strip_suffix('}'));
        let mut add = |path: &[String], value: &str| {
            if !value.is_empty() && is_path_of_name(path) {
                found.push(unquoted(value).to_owned());
            }
        };
        match inner {
            None => add(&path, value),
            Some(inner) => {
                for (key, value) in inner.split(',').filter_map(pair) {
                    path.push(key.to_owned());
                    add(&path, value);
                    path.pop();
                }
            }
        }
    }
}

/// The key and the value of `key: value`, without quotation marks around the key.
fn pair(text: &str) -> Option<(&str, &str)> {
    let (key, value) = text.split_once(':')?;
    let is_pair = value.is_empty() || value.starts_with(' ');
    is_pair.then(|| (unquoted(key.trim()), value.trim()))
}

fn unquoted(text: &str) -> &str {
    ['\'', '"']
        .into_iter()
        .find_map(|mark| text.strip_prefix(mark)?.strip_suffix(mark))
        .unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_under_the_keys_of_options() {
        for text in [
            "MODEL:\n  NAME: resnet50d",
            "DATA:\n  NAME: cats\nMODEL:\n  # which\n  NAME: 'resnet50d' # deep\n",
            "model: resnet50d",
            "model: {depth: 50, name: \"resnet50d\"}",
            "model:\n    backbone:\n        name: resnet50d\n    name: 3\n",
            r#"{"model": {"name": "resnet50d"}}"#,
            r#"{"epochs": 3, "arch": "resnet50d"}"#,
        ] {
            let found = names(text);
            assert!(found.contains(&"resnet50d".to_owned()), "{text}: {found:?}");
        }
        for text in [
            "",
            "resnet50d",
            "DATA:\n  NAME: resnet50d",
            "optimizer:\n  model:\n    name: resnet50d",
            "- model: resnet50d",
            "http://model:resnet50d",
            r#"{"data": {"name": "resnet50d"}}"#,
            r#"["model", "resnet50d"]"#,
        ] {
            assert_eq!(names(text), Vec::<String>::new(), "{text}");
        }
        assert!(names(&"model: a\n".repeat(MAX_TEXT)).is_empty());
    }
}
