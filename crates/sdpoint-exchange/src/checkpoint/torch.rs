//! The formats of `torch.save`: a zip archive since PyTorch 1.6, and a sequence
//! of pickles and raw storages before.

use std::collections::HashMap;
use std::ops::Range;

use super::architecture::architectures;
use super::bytes::Bytes;
use super::find::sets;
use super::foreign;
use super::pickle::{Id, PickleFault, Value, Values, run};
use super::storage::TensorFinder;
use super::zip::{self, Directory};
use super::{Content, Fault};

/// The first bytes of a zip archive.
pub(super) const ZIP: &[u8] = b"PK\x03\x04";

/// The first instruction of a pickle, which states its protocol.
pub(super) const PICKLE: u8 = 0x80;

/// The number 0x1950a86a20f9469cfc6c, the first pickle of a legacy file.
pub(super) static MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

/// The same number in decimal digits, as protocols 0 and 1 write it.
pub(super) const MAGIC_DIGITS: &str = "119547037146038801333356";

/// Whether this is the start of a legacy file in protocol 0 or 1, which have no
/// instruction that states the protocol.
pub(super) fn is_old_pickle(file: &[u8]) -> bool {
    let rest = file.strip_prefix(b"L");
    rest.is_some_and(|rest| rest.starts_with(MAGIC_DIGITS.as_bytes()))
}

/// The version of the legacy format, used from PyTorch 0.1 to 1.5.
const OLD_VERSION: i64 = 1001;

/// The tensors of a zip archive.
pub(super) fn zipped(file: &[u8]) -> Result<Content, Fault> {
    let damaged = |problem| Fault::Malformed {
        format: "zip archive",
        problem,
    };
    let files = zip::directory(file).map_err(damaged)?;
    let (root, pickle) = pickle_of(&files).ok_or_else(|| foreign::archive(&files))?;
    let read = |name: &str| files.get(format!("{root}{name}").as_str()).cloned();
    let big_endian = match read("byteorder").map(|order| &file[order]) {
        None | Some(b"little") => false,
        Some(b"big") => true,
        Some(_) => return Err(damaged("its 'byteorder' is neither little nor big".into())),
    };
    let (values, top) = run(&mut Bytes::within(file, pickle))?;
    let find = |key: &str| read(&format!("data/{key}"));
    let mut finder = TensorFinder::new(file, &values, &find).with_byte_order(big_endian);
    Ok(Content {
        sets: sets(&values, top, &mut finder)?,
        architectures: architectures(&values, top, file),
    })
}

/// The archive's root folder, and the range of its pickle.
fn pickle_of<'a>(files: &Directory<'a>) -> Option<(&'a str, Range<usize>)> {
    let mut found: Vec<_> = files
        .iter()
        .filter_map(|(name, range)| Some((name.strip_suffix("data.pkl")?, range.clone())))
        .filter(|(root, _)| root.is_empty() || root.ends_with('/'))
        .collect();
    found.sort_by_key(|(root, _)| root.len());
    found.into_iter().next()
}

/// The tensors of a file that starts with a pickle: of the legacy format of
/// `torch.save`, or written by `pickle.dump`.
pub(super) fn pickled(file: &[u8]) -> Result<Content, Fault> {
    let mut input = Bytes::new(file);
    let (values, top) = run(&mut input)?;
    let whole = if is_magic(&values, top) {
        Legacy::behind_magic(&mut input)?
    } else {
        Legacy {
            values,
            top,
            storages: HashMap::new(),
        }
    };
    let (values, top) = (&whole.values, whole.top);
    let find = |key: &str| whole.storages.get(key).cloned();
    Ok(Content {
        // Legacy files are little-endian on all machines.
        sets: sets(values, top, &mut TensorFinder::new(file, values, &find))?,
        architectures: architectures(values, top, file),
    })
}

fn is_magic(values: &Values<'_>, top: Id) -> bool {
    *values.get(top) == Value::LongInt(&MAGIC)
}

/// A file in the legacy format of `torch.save`: five pickles (a magic number, a
/// version, properties of the machine, the object itself, and the keys of its
/// storages), followed by the storages, each preceded by its number of elements.
pub(super) struct Legacy<'a> {
    pub values: Values<'a>,
    pub top: Id,
    pub storages: HashMap<&'a str, Range<usize>>,
}

impl<'a> Legacy<'a> {
    /// Reads a file from its start.
    pub fn read(input: &mut Bytes<'a>) -> Result<Self, Fault> {
        let (values, magic) = run(input)?;
        if !is_magic(&values, magic) {
            return Err(damaged("it is a pickle of something else"));
        }
        Self::behind_magic(input)
    }

    fn behind_magic(input: &mut Bytes<'a>) -> Result<Self, Fault> {
        let (values, version) = run(input)?;
        if *values.get(version) != Value::Int(OLD_VERSION) {
            return Err(damaged("it has an unknown version"));
        }
        run(input)?;
        let (values, top) = run(input)?;
        let (listed, keys) = run(input)?;
        let Value::List(keys) = listed.get(keys) else {
            return Err(damaged("the list of its storages is missing"));
        };
        let elements: HashMap<&str, usize> = values
            .storages()
            .map(|storage| (storage.key, storage.element.size()))
            .collect();
        let mut storages = HashMap::new();
        for &key in keys {
            let Value::Text(key) = *listed.get(key) else {
                return Err(damaged("the list of its storages is damaged"));
            };
            let element = elements
                .get(key)
                .ok_or_else(|| damaged("it has a storage whose type is unknown"))?;
            let truncated = || damaged("it ends within its storages: it is truncated");
            let length = input.u64().ok_or_else(truncated)?;
            let start = input.place();
            let bytes = length.checked_mul(*element as u64).ok_or_else(truncated)?;
            input.take(bytes).ok_or_else(truncated)?;
            storages.insert(key, start..input.place());
        }
        Ok(Self {
            values,
            top,
            storages,
        })
    }
}

fn damaged(problem: &str) -> Fault {
    Fault::Malformed {
        format: "file of torch.save",
        problem: problem.into(),
    }
}

impl From<PickleFault> for Fault {
    fn from(fault: PickleFault) -> Self {
        match fault {
            PickleFault::Malformed(problem) => Self::Malformed {
                format: "pickle",
                problem,
            },
            PickleFault::TooMuch => Self::TooMuch,
        }
    }
}
