//! Python's form: pickled dictionaries of an array of pixels, a row for each
//! image, and a list of labels.

use std::borrow::Cow;

use super::{CifarKind, Form, PLANE, Part, Store, Stored, pickle};
use crate::error::DataError;
use crate::file::MAX_FILE;
use crate::split::Split;

/// The longest list of class names that is read, in bytes.
const MAX_NAMES: u64 = 1 << 20;

/// The classes' names, from the dictionary that describes the data set.
pub(super) fn names(kind: CifarKind, store: &Store) -> Result<Vec<String>, DataError> {
    let key = match kind {
        CifarKind::Cifar10 => "label_names",
        CifarKind::Cifar100 => "fine_label_names",
    };
    let file = store.file(kind.names_file(Form::Python))?;
    let bytes = file.read(MAX_NAMES)?;
    let pickle = pickle::read(&bytes).map_err(|problem| file.malformed(problem))?;
    let names = pickle.texts(key);
    let names = names.ok_or_else(|| file.malformed(format!("it has no list `{key}`")))?;
    file.check_names(kind, names)
}

pub(super) fn part(
    kind: CifarKind,
    _: Split,
    file: Stored,
    labels: &mut Vec<u32>,
) -> Result<Part, DataError> {
    let key = match kind {
        CifarKind::Cifar10 => "labels",
        CifarKind::Cifar100 => "fine_labels",
    };
    let bytes = file.read(MAX_FILE)?;
    let pickle = pickle::read(&bytes).map_err(|problem| file.malformed(problem))?;
    let numbers = pickle.integers(key);
    let numbers = numbers.ok_or_else(|| file.malformed(format!("it has no list `{key}`")))?;
    let array = pickle.array("data");
    let array =
        array.ok_or_else(|| file.malformed("it has no array `data` of bytes".to_owned()))?;
    let rows = numbers.len();
    let fits = rows > 0
        && array.shape == [rows as i64, 3 * PLANE as i64]
        && array.data.len() == rows * 3 * PLANE;
    if !fits {
        let shape: Vec<String> = array.shape.iter().map(i64::to_string).collect();
        return Err(file.malformed(format!(
            "its pixels are {} ({} bytes) where its {rows} labels need {rows}×{}; fetch it again",
            shape.join("×"),
            array.data.len(),
            3 * PLANE
        )));
    }
    for (record, &label) in numbers.iter().enumerate() {
        labels.push(file.check_label(kind, record, label)?);
    }
    let (stored, first) = match array.data {
        // The pixels stay where they are.
        Cow::Borrowed(data) => {
            let first = data.as_ptr().addr() - bytes.as_ptr().addr();
            (file.bytes.clone(), first)
        }
        Cow::Owned(data) => (Some(data.into()), 0),
    };
    Ok(Part {
        file: Stored {
            path: file.path,
            bytes: stored,
        },
        first,
        stride: 3 * PLANE,
    })
}
