//! The tensors of a safetensors file.

use std::collections::BTreeMap;

use safetensors::{Dtype, SafeTensorError, SafeTensors};

use super::bytes::Bytes;
use super::element::Element;
use super::{Entry, Fault, MAX_SIDES, StoredTensor};

/// The longest header; those of networks are shorter. Parsing a header takes
/// about twenty times its length in memory.
const MAX_HEADER: u64 = 2 << 20;

/// The metadata keys of sdpoint's own models and training runs.
const MODEL: &str = "sdpoint";
const RUN: &str = "sdpoint_checkpoint";

pub(super) fn tensors(file: &[u8]) -> Result<BTreeMap<String, Entry>, Fault> {
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
        SafeTensors::read_metadata(file).map_err(|error| malformed(problem(&error)))?;
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
            Some(end) => start + from..end,
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

fn problem(error: &SafeTensorError) -> String {
    match error {
        SafeTensorError::MetadataIncompleteBuffer => {
            "its tensors are not as long as the file is: it is truncated, or was appended to".into()
        }
        error => error.to_string(),
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
