//! What `torch.save` writes: a zip archive since PyTorch 1.6, and a sequence
//! of pickles and raw storages before.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use super::bytes::Bytes;
use super::pickle::{Id, PickleFault, Tensor, Value, Values, run};
use super::zip::{self, Directory};
use super::{Fault, StoredTensor};

/// The first bytes of a zip archive.
pub(super) const ZIP: &[u8] = b"PK\x03\x04";

/// The first instruction of a pickle, which says its version.
pub(super) const PICKLE: u8 = 0x80;

/// The number 0x1950a86a20f9469cfc6c, which an old file's first pickle holds.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

/// The version of old files that was in use from PyTorch 0.1 to 1.5.
const OLD_VERSION: i64 = 1001;

/// Where training scripts put the weights beside other things.
const STATE_DICTS: [&str; 4] = ["state_dict", "model_state_dict", "model", "state_dict_ema"];

/// More tensors than a network has, with all that an optimiser keeps.
const MAX_TENSORS: usize = 1 << 16;

type Tensors = BTreeMap<String, StoredTensor>;

/// The tensors of a zip archive.
pub(super) fn zipped(file: &[u8]) -> Result<Tensors, Fault> {
    let damaged = |problem| Fault::Malformed {
        format: "zip archive",
        problem,
    };
    let files = zip::directory(file).map_err(damaged)?;
    let (root, pickle) = pickle_of(&files)
        .ok_or_else(|| damaged("it has no data.pkl, so that torch.save did not write it".into()))?;
    let read = |name: &str| files.get(format!("{root}{name}").as_str()).cloned();
    if let Some(order) = read("byteorder")
        && &file[order.clone()] != b"little"
    {
        return Err(damaged("it was written by a big-endian machine".into()));
    }
    let (values, top) = run(&mut Bytes::new(&file[pickle]))?;
    tensors(&values, top, |key| read(&format!("data/{key}")))
}

/// The folder that everything is in, and the pickle.
fn pickle_of<'a>(files: &Directory<'a>) -> Option<(&'a str, Range<usize>)> {
    let mut found: Vec<_> = files
        .iter()
        .filter_map(|(name, range)| Some((name.strip_suffix("data.pkl")?, range.clone())))
        .filter(|(root, _)| root.is_empty() || root.ends_with('/'))
        .collect();
    found.sort_by_key(|(root, _)| root.len());
    found.into_iter().next()
}

/// The tensors of an old file: pickles with a magic number, a version, facts
/// about the machine, the object itself and the keys of its storages, and
/// then the storages, each behind its number of elements.
pub(super) fn legacy(file: &[u8]) -> Result<Tensors, Fault> {
    let damaged = |problem: &str| Fault::Malformed {
        format: "file of torch.save",
        problem: problem.into(),
    };
    let mut input = Bytes::new(file);
    let (values, magic) = run(&mut input)?;
    if *values.get(magic) != Value::LongInt(&MAGIC) {
        return Err(damaged("it is a pickle of something else"));
    }
    let (values, version) = run(&mut input)?;
    if *values.get(version) != Value::Int(OLD_VERSION) {
        return Err(damaged("it has an unknown version"));
    }
    run(&mut input)?;
    let (values, top) = run(&mut input)?;
    let (listed, keys) = run(&mut input)?;
    let Value::List(keys) = listed.get(keys) else {
        return Err(damaged("the list of its storages is missing"));
    };
    let elements = elements_by_key(&values);
    let mut storages = HashMap::new();
    for &key in keys {
        let Value::Text(key) = *listed.get(key) else {
            return Err(damaged("the list of its storages is damaged"));
        };
        let element = elements
            .get(key)
            .ok_or_else(|| damaged("it has a storage that no tensor uses"))?;
        let truncated = || damaged("it ends within its storages: it is truncated");
        let length = input.u64().ok_or_else(truncated)?;
        let start = input.place();
        let bytes = length.checked_mul(*element as u64).ok_or_else(truncated)?;
        input.take(bytes).ok_or_else(truncated)?;
        storages.insert(key, start..input.place());
    }
    tensors(&values, top, |key| storages.get(key).cloned())
}

/// The size of the elements of each storage.
fn elements_by_key<'a>(values: &Values<'a>) -> HashMap<&'a str, usize> {
    values
        .storages()
        .map(|storage| (storage.key, storage.element.size()))
        .collect()
}

/// The tensors of the dictionary that holds the weights.
fn tensors(
    values: &Values<'_>,
    top: Id,
    find: impl Fn(&str) -> Option<Range<usize>>,
) -> Result<Tensors, Fault> {
    let Value::Dict(top) = values.get(top) else {
        return Err(Fault::NoStateDict);
    };
    let has_tensors = |dict: &[(Id, Id)]| {
        dict.iter()
            .any(|&(_, value)| matches!(values.get(value), Value::Tensor(_)))
    };
    let within = |key: &&str| match values.item(top, key) {
        Some(Value::Dict(inner)) if has_tensors(inner) => Some(inner),
        _ => None,
    };
    let dict = STATE_DICTS
        .iter()
        .find_map(within)
        .or_else(|| has_tensors(top).then_some(top))
        .ok_or(Fault::NoStateDict)?;
    let mut tensors = Tensors::new();
    for &(name, value) in dict {
        if let (&Value::Text(name), Value::Tensor(tensor)) = (values.get(name), values.get(value)) {
            let stored = stored(values, tensor, &find).map_err(|problem| Fault::Malformed {
                format: "file of torch.save",
                problem: format!("tensor '{name}' {problem}"),
            })?;
            tensors.insert(name.to_owned(), stored);
        }
        if tensors.len() > MAX_TENSORS {
            return Err(Fault::Malformed {
                format: "file of torch.save",
                problem: format!("it has more than {MAX_TENSORS} tensors"),
            });
        }
    }
    Ok(tensors)
}

/// Where the elements of a tensor lie.
fn stored(
    values: &Values<'_>,
    tensor: &Tensor,
    find: impl Fn(&str) -> Option<Range<usize>>,
) -> Result<StoredTensor, String> {
    let Value::Storage(storage) = values.get(tensor.storage) else {
        return Err("has no storage".into());
    };
    let offset = values.get(tensor.offset).size();
    let sides = (values.sizes(tensor.shape), values.sizes(tensor.strides));
    let (Some(offset), (Some(shape), Some(strides))) = (offset, sides) else {
        return Err("has sizes or strides that no tensor has".into());
    };
    if shape.len() != strides.len() {
        return Err("has strides for other sides than its own".into());
    }
    let data = find(storage.key).ok_or("has no data")?;
    let offset = offset.saturating_add(storage.start);
    StoredTensor::new(storage.element, shape, strides, offset, data)
}

impl From<PickleFault> for Fault {
    fn from(fault: PickleFault) -> Self {
        match fault {
            PickleFault::Malformed(problem) => Self::Malformed {
                format: "pickle",
                problem,
            },
            PickleFault::Call(name) => Self::Call { name },
        }
    }
}
