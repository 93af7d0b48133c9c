//! WebDataset: samples whose members share a key, `KEY.jpg` and `KEY.cls`.
//!
//! By WebDataset's own rule, a key ends at the first dot of the file's name, so
//! that the key of `img.001.jpg` is `img`. Here, the members with classes define
//! the keys: everything before `.cls`, including dots, is a key, and an image
//! belongs to the longest key that is a prefix of its name.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use super::links::Place;
use crate::error::DataError;
use crate::folder::is_image;
use crate::names::quoted;
use crate::options::OpenOptions;
use crate::tree::ClassTree;

/// The longest member with a class, in bytes.
const MAX_CLASS_NAME: usize = 1024;

/// The longest `.json` member, in bytes.
const MAX_JSON: usize = 16 << 20;

/// How names of members that hold a class end, in upper or lower case.
const CLASS_ENDS: [&str; 2] = [".cls", ".cls.txt"];

/// How names of members with metadata end, in upper or lower case.
const JSON_END: &str = ".json";

/// A shard's files by their paths, with what reads their bytes.
pub(super) struct Shard<'a> {
    pub archive: &'a Path,
    pub files: &'a [(String, Place)],
    /// Paths that came more than once.
    pub replaced: &'a BTreeSet<String>,
    pub options: &'a OpenOptions,
    pub bytes: &'a dyn Fn(Place, usize) -> Result<Vec<u8>, DataError>,
}

/// Whether a file's bytes are needed to tell classes or images.
pub(super) fn may_matter(path: &str, options: &OpenOptions) -> bool {
    let image_key = options.image_key.as_deref();
    is_image(path)
        || label_key(path, options).is_some()
        || without_end(path, JSON_END).is_some()
        || image_key.is_some_and(|end| without_end(path, end).is_some())
}

/// The part of a path before an end, which may be in upper or lower case.
fn without_end<'a>(path: &'a str, end: &str) -> Option<&'a str> {
    let (before, found) = path.split_at_checked(path.len().checked_sub(end.len())?)?;
    found.eq_ignore_ascii_case(end).then_some(before)
}

/// A member's key, if the member holds a class.
fn label_key<'a>(path: &'a str, options: &OpenOptions) -> Option<&'a str> {
    let key = match options.label_key {
        Some(_) => without_end(path, JSON_END),
        None => CLASS_ENDS.iter().find_map(|end| without_end(path, end)),
    };
    key.filter(|key| !key.is_empty() && !key.ends_with('/'))
}

impl Shard<'_> {
    /// Whether the archive is one of samples instead of class folders.
    pub fn has_samples(&self) -> bool {
        let mut files = self.files.iter();
        files.any(|(path, _)| label_key(path, self.options).is_some())
    }

    /// A hint for images without classes: how to read labels from `.json`
    /// members, if there are any.
    pub fn hint(&self) -> Option<String> {
        let (key, place) = self
            .files
            .iter()
            .find_map(|(path, place)| Some((without_end(path, JSON_END)?, place)))?;
        let beside = self.files.iter().any(|(image, _)| {
            let rest = image.strip_prefix(key);
            is_image(image) && rest.is_some_and(|rest| rest.starts_with('.'))
        });
        if !beside || self.options.label_key.is_some() {
            return None;
        }
        let bytes = (self.bytes)(*place, MAX_JSON).ok()?;
        let value: serde_json::Value = serde_json::from_slice(&bytes).ok()?;
        let names: Vec<&String> = value.as_object()?.keys().collect();
        Some(format!(
            "if the .json members hold the classes, say which of their keys does: \
             --label-key NAME, of {}",
            quoted(&names)
        ))
    }

    /// The images by class.
    pub fn read(&self) -> Result<ClassTree<usize>, DataError> {
        let mut tree = ClassTree::default();
        let labels = self.labels()?;
        let mut images: BTreeMap<&str, Vec<(&str, usize)>> = BTreeMap::new();
        for (file, (path, _)) in self.files.iter().enumerate() {
            if label_key(path, self.options).is_some() {
                continue;
            }
            let key = key_of(path, |key| labels.contains_key(key));
            match key {
                Some(key) if is_image(path) || self.is_image_key(path, key) => {
                    images.entry(key).or_default().push((path, file));
                }
                None if is_image(path) => return Err(self.no_label(path)),
                Some(key) => tree.left_out.in_sample(&path[key.len() + 1..]),
                None => tree.left_out.other_kind(path),
            }
        }
        for (key, label) in labels {
            let Some(candidates) = images.get(key) else {
                tree.left_out.without_image.add(key);
                continue;
            };
            let Some((path, file)) = self.image(key, candidates)? else {
                tree.left_out.without_image.add(key);
                continue;
            };
            // A sample whose class or image alone was appended again was
            // corrected; if both were, two samples have the same key.
            if self.replaced.contains(path) && self.replaced.contains(label.path) {
                return Err(self.malformed(
                    path,
                    format!(
                        "the archive has two samples of the key `{key}`; keys must differ, or one \
                         of the two would be lost"
                    ),
                ));
            }
            for (other, _) in candidates.iter().filter(|(other, _)| *other != path) {
                tree.left_out.in_sample(&other[key.len() + 1..]);
            }
            let class = self.class_name(&label)?;
            tree.add_image(&class, file);
        }
        Ok(tree)
    }

    /// The member with the class of each key.
    fn labels(&self) -> Result<BTreeMap<&str, Label<'_>>, DataError> {
        let mut labels: BTreeMap<&str, Label> = BTreeMap::new();
        for (path, place) in self.files {
            let Some(key) = label_key(path, self.options) else {
                continue;
            };
            let label = Label {
                path,
                place: *place,
            };
            if let Some(other) = labels.insert(key, label) {
                let problem = format!("`{}` holds a class of the same sample", other.path);
                return Err(self.malformed(path, problem));
            }
        }
        Ok(labels)
    }

    fn is_image_key(&self, path: &str, key: &str) -> bool {
        let end = &path[key.len() + 1..];
        let wanted = self.options.image_key.as_deref();
        wanted.is_some_and(|wanted| wanted.trim_start_matches('.').eq_ignore_ascii_case(end))
    }

    /// The one image among those of a sample.
    fn image<'a>(
        &self,
        key: &str,
        candidates: &[(&'a str, usize)],
    ) -> Result<Option<(&'a str, usize)>, DataError> {
        if self.options.image_key.is_some() {
            let mut wanted = candidates.iter();
            return Ok(wanted
                .find(|(path, _)| self.is_image_key(path, key))
                .copied());
        }
        let end = |path: &'a str| &path[key.len() + 1..];
        // `KEY.jpg` comes before `KEY.seg.png` and `KEY.thumb.jpg`.
        let plain: Vec<_> = candidates
            .iter()
            .filter(|(path, _)| !end(path).contains('.'))
            .collect();
        let meant = match (&plain[..], candidates) {
            ([one], _) => **one,
            ([], [one]) => *one,
            _ => {
                let ends: Vec<&str> = candidates.iter().map(|(path, _)| end(path)).collect();
                let problem = format!(
                    "the sample `{key}` has several images, {}: say which one to read with \
                     --image-key, such as --image-key {}",
                    quoted(&ends),
                    ends[0]
                );
                return Err(self.malformed(candidates[0].0, problem));
            }
        };
        Ok(Some(meant))
    }

    /// The class in a member: a name, or a number without leading zeros.
    fn class_name(&self, label: &Label) -> Result<String, DataError> {
        let malformed = |problem: &str| self.malformed(label.path, problem.to_owned());
        let Some(name) = &self.options.label_key else {
            let bytes = (self.bytes)(label.place, MAX_CLASS_NAME)
                .map_err(|_| malformed("a class is a number or a short name"))?;
            let text =
                std::str::from_utf8(&bytes).map_err(|_| malformed("the class is not text"))?;
            let text = text.trim_start_matches('\u{feff}').trim();
            return plain_class(text)
                .ok_or_else(|| malformed("a class is a number or a short name"));
        };
        let bytes = (self.bytes)(label.place, MAX_JSON)?;
        let value: serde_json::Value = serde_json::from_slice(&bytes)
            .map_err(|error| malformed(&format!("it is not sound JSON: {error}")))?;
        let found = value.get(name).or_else(|| {
            // `annotation.label` is `label` in `annotation`.
            name.split('.')
                .try_fold(&value, |value, part| value.get(part))
        });
        let keys = || match value.as_object() {
            Some(object) => quoted(&object.keys().collect::<Vec<_>>()),
            None => "no keys".to_owned(),
        };
        let class = match found {
            Some(serde_json::Value::String(text)) => plain_class(text.trim()),
            Some(serde_json::Value::Number(number)) => number.as_u64().map(|n| n.to_string()),
            Some(_) => None,
            None => {
                return Err(malformed(&format!("it has no key `{name}` but {}", keys())));
            }
        };
        class.ok_or_else(|| {
            malformed(&format!(
                "its `{name}` is no class: neither a number nor a short name"
            ))
        })
    }

    fn no_label(&self, path: &str) -> DataError {
        let file = path.rfind('/').map_or(0, |slash| slash + 1);
        let key = path[file..]
            .find('.')
            .map_or(path, |dot| &path[..file + dot]);
        let end = if self.options.label_key.is_some() {
            "json"
        } else {
            "cls"
        };
        self.malformed(path, format!("there is no `{key}.{end}` with its class"))
    }

    fn malformed(&self, path: &str, problem: String) -> DataError {
        DataError::Malformed {
            path: self.archive.join(path),
            problem,
        }
    }
}

/// The member that holds a sample's class.
struct Label<'a> {
    path: &'a str,
    place: Place,
}

/// The longest key, among those that are known, of the member at a path.
fn key_of(path: &str, known: impl Fn(&str) -> bool) -> Option<&str> {
    let file = path.rfind('/').map_or(0, |slash| slash + 1);
    let dots = path[file..].rmatch_indices('.');
    let mut keys = dots.map(|(dot, _)| &path[..file + dot]);
    keys.find(|key| known(key))
}

/// A class as a name; a number, as such.
fn plain_class(text: &str) -> Option<String> {
    if text.is_empty() || text.len() > MAX_CLASS_NAME {
        return None;
    }
    let number = text.parse::<u32>();
    Some(number.map_or_else(|_| text.to_owned(), |number| number.to_string()))
}

/// The classes as numbers if all are, so that they sort by value.
pub(super) fn numbers<'a>(
    classes: impl Iterator<Item = &'a String>,
) -> Option<HashMap<&'a str, u64>> {
    classes
        .map(|class| Some((class.as_str(), class.parse().ok()?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_belongs_to_the_longest_key() {
        let known = |key: &str| ["x/a", "x/a.b", "x/c.d"].contains(&key);
        assert_eq!(key_of("x/a.jpg", known), Some("x/a"));
        assert_eq!(key_of("x/a.b.jpg", known), Some("x/a.b"));
        assert_eq!(key_of("x/a.seg.png", known), Some("x/a"));
        assert_eq!(key_of("x/c.jpg", known), None);
        assert_eq!(key_of("x.y/z.jpg", |key| key == "x"), None);
    }
}
