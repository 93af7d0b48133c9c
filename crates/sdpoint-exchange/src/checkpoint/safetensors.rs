//! The tensors of a safetensors file.

use std::collections::BTreeMap;

use safetensors::{Dtype, SafeTensorError, SafeTensors};
use serde_json::Value;

use super::bytes::Bytes;
use super::element::Element;
use super::storage::short;
use super::{Entry, Fault, MAX_SIDES, StoredTensor};

/// The longest header; those of networks are shorter. Parsing a header takes
/// about twenty times its length in memory.
const MAX_HEADER: u64 = 2 << 20;

/// The entry of a header that is no tensor.
const METADATA: &str = "__metadata__";

/// The metadata keys of sdpoint's own models and training runs.
const MODEL: &str = "sdpoint";
const RUN: &str = "sdpoint_checkpoint";

/// The tensors of a safetensors file. `base` is added to the offsets of their
/// data: that of the file among several in memory.
pub(super) fn tensors(file: &[u8], base: usize) -> Result<BTreeMap<String, Entry>, Fault> {
    let malformed = |problem: String| Fault::Malformed {
        format: "safetensors file",
        problem,
    };
    let length = Bytes::new(file).u64().unwrap_or(0);
    if (MAX_HEADER..=file.len() as u64).contains(&length) {
        return Err(malformed(format!(
            "its header has {length} bytes; those of networks have less than {MAX_HEADER}"
        )));
    }
    let (header, metadata) =
        SafeTensors::read_metadata(file).map_err(|error| malformed(problem(file, &error)))?;
    let about = metadata.metadata().as_ref();
    if about.is_some_and(|about| about.contains_key(MODEL)) {
        return Err(Fault::Model);
    }
    if about.is_some_and(|about| about.contains_key(RUN)) {
        return Err(Fault::Run);
    }
    // The header is preceded by its length in eight bytes.
    let start = header + 8;
    let mut tensors = BTreeMap::new();
    for (name, info) in metadata.tensors() {
        if info.shape.len() > MAX_SIDES {
            let sides = info.shape.len();
            return Err(malformed(format!("tensor '{name}' has {sides} sides")));
        }
        let (from, to) = info.data_offsets;
        let end = start.checked_add(to).filter(|&end| end <= file.len());
        let data = match end {
            Some(end) => base + start + from..base + end,
            None => {
                return Err(malformed(format!(
                    "tensor '{name}' reaches past its end: it is truncated"
                )));
            }
        };
        let tensor = StoredTensor::contiguous(element(info.dtype), info.shape.clone(), data)
            .map_err(|problem| malformed(format!("tensor '{name}' {problem}")))?;
        tensors.insert(name, Ok(tensor));
    }
    Ok(tensors)
}

/// What is wrong with a header that the library does not accept.
fn problem(file: &[u8], error: &SafeTensorError) -> String {
    match error {
        SafeTensorError::MetadataIncompleteBuffer => {
            "its tensors are not as long as the file is: it is truncated, or was appended to".into()
        }
        SafeTensorError::HeaderTooLarge | SafeTensorError::InvalidHeaderLength => {
            "its header is longer than the file: it is truncated".into()
        }
        SafeTensorError::InvalidOffset(name) => format!(
            "the data of tensor '{}' does not begin where that of the one before it ends",
            short(name)
        ),
        _ => in_header(file).unwrap_or_else(|| "its header is invalid".into()),
    }
}

/// The first entry of a header that is invalid by itself.
fn in_header(file: &[u8]) -> Option<String> {
    let mut input = Bytes::new(file);
    let length = input.u64()?;
    let header: Value = match serde_json::from_slice(input.take(length)?) {
        Ok(header) => header,
        Err(_) => return Some("its header is not JSON".into()),
    };
    let entries = header.as_object()?.iter();
    entries
        .filter_map(|(name, entry)| wrong(name, entry))
        .next()
}

fn wrong(name: &str, entry: &Value) -> Option<String> {
    if name == METADATA {
        let values = entry.as_object().map(|entries| entries.values());
        let is_text = values.is_some_and(|mut values| values.all(Value::is_string));
        return (!is_text && !entry.is_null())
            .then(|| format!("its {METADATA} has values that are not text"));
    }
    let name = short(name);
    let dtype = entry.get("dtype").and_then(Value::as_str);
    let Some(dtype) = dtype else {
        return Some(format!("tensor '{name}' has no type of elements"));
    };
    let Ok(known) = serde_json::from_value::<Dtype>(dtype.into()) else {
        let dtype = short(dtype);
        return Some(format!(
            "tensor '{name}' has elements of the unknown type '{dtype}'"
        ));
    };
    let sides = |key: &str| {
        let sides = entry.get(key)?.as_array()?.iter();
        sides.map(Value::as_u64).collect::<Option<Vec<u64>>>()
    };
    let (Some(shape), Some(place)) = (sides("shape"), sides("data_offsets")) else {
        return Some(format!("tensor '{name}' has no valid shape or place"));
    };
    let count = shape
        .iter()
        .try_fold(1u64, |count, &side| count.checked_mul(side));
    let bits = count.and_then(|count| count.checked_mul(known.bitsize() as u64));
    let held = match place[..] {
        [from, to] => to.checked_sub(from),
        _ => None,
    };
    match (bits, held) {
        (None, _) => Some(format!("the shape of tensor '{name}' is too large")),
        (Some(bits), Some(held)) if bits.div_ceil(8) == held => None,
        _ => Some(format!(
            "the data of tensor '{name}' does not have the size of its shape"
        )),
    }
}

fn element(dtype: Dtype) -> Element {
    match dtype {
        Dtype::F16 => Element::F16,
        Dtype::BF16 => Element::BF16,
        Dtype::F32 => Element::F32,
        Dtype::F64 => Element::F64,
        Dtype::I64 => Element::Other("int64", 8),
        Dtype::I32 => Element::Other("int32", 4),
        Dtype::I16 => Element::Other("int16", 2),
        Dtype::I8 => Element::Other("int8", 1),
        Dtype::U8 => Element::Other("uint8", 1),
        Dtype::BOOL => Element::Other("bool", 1),
        other => Element::Other("an unusual type", other.bitsize().div_ceil(8)),
    }
}
