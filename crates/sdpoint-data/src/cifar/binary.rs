//! The binary form: records of the label (for CIFAR-100 the coarse one, then
//! the fine one) and the pixels.

use std::io::{BufReader, Cursor, Read};

use super::{CifarKind, Form, Part, Store, Stored};
use crate::error::DataError;
use crate::file::open_file;
use crate::split::Split;

/// The longest list of class names that is read, in bytes.
const MAX_TEXT: u64 = 1 << 16;

/// The classes' names, one a line.
pub(super) fn names(kind: CifarKind, store: &Store) -> Result<Vec<String>, DataError> {
    let file = store.file(kind.names_file(Form::Binary))?;
    let bytes = file.read(MAX_TEXT)?;
    let text = std::str::from_utf8(&bytes)
        .map_err(|_| file.malformed("the class names are not text".to_owned()))?;
    let names = text.lines().map(str::trim).filter(|l| !l.is_empty());
    file.check_names(kind, names.map(str::to_owned).collect())
}

pub(super) fn part(
    kind: CifarKind,
    split: Split,
    file: Stored,
    labels: &mut Vec<u32>,
) -> Result<Part, DataError> {
    let records = kind.records(split);
    let (len, expected) = (file.len()?, (records * kind.record()) as u64);
    if len != expected {
        return Err(DataError::FileSize {
            path: file.path,
            expected: format!("{expected} ({records} records of {})", kind.record()),
            actual: len,
        });
    }
    let mut reader: Box<dyn Read> = match file.bytes.clone() {
        Some(bytes) => Box::new(Cursor::new(bytes)),
        None => Box::new(BufReader::with_capacity(1 << 16, open_file(&file.path)?.0)),
    };
    let mut record = vec![0; kind.record()];
    for number in 0..records {
        reader
            .read_exact(&mut record)
            .map_err(DataError::io(&file.path))?;
        let label = i64::from(record[kind.label_bytes() - 1]);
        labels.push(file.check_label(kind, number, label)?);
    }
    Ok(Part {
        file,
        first: kind.label_bytes(),
        stride: kind.record(),
    })
}
