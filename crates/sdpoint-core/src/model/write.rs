//! Writing a model file.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use sha2::{Digest, Sha256};

use super::document::{BLANK_DIGEST, Document, KEY, MAX_HEADER, digest_place};
use super::layout::{self, Slot};
use super::{Misfit, Model, ModelError, check};
use crate::atomic::write_atomically;
use crate::digest::hex;
use crate::instance::Instance;

pub(super) fn save(model: &Model, path: &Path) -> Result<(), ModelError> {
    let misfit = |misfit| ModelError::Misfit {
        path: path.to_owned(),
        misfit,
    };
    check::description(
        &model.network,
        &model.classes,
        &model.preprocessing,
        &model.instances,
    )
    .and_then(|()| check::combinations(&model.instances, &model.combinations))
    .and_then(|()| check::held_out(model.held_out, &model.instances, &model.combinations))
    .and_then(|()| check::tensors(model))
    .map_err(misfit)?;
    let instances: Vec<Instance> = model.instances.iter().map(|r| r.instance).collect();
    let slots: Vec<Slot> = layout::slots(&model.network, &instances).collect();
    let values: Vec<&[f32]> =
        layout::values(&model.weights, &model.statistics, &instances).collect();
    for (slot, values) in std::iter::zip(&slots, &values) {
        check::values(&slot.name, values).map_err(misfit)?;
    }
    let malformed = |problem: serde_json::Error| ModelError::Malformed {
        path: path.to_owned(),
        problem: problem.to_string(),
    };
    let document = serde_json::to_string(&Document::of(model)).map_err(malformed)?;
    // A value in `training` that is nested too deeply can be written but not read.
    serde_json::from_str::<Document>(&document).map_err(malformed)?;

    let mut start = header(&document, &slots).map_err(malformed)?;
    if (start.len() - 8) as u64 > MAX_HEADER {
        return Err(misfit(Misfit::TooManyInstances(instances.len())));
    }
    seal(&mut start, &values);
    write_atomically(path, |out| write(out, &start, &values)).map_err(ModelError::Write)
}

/// The file up to the tensors' data: the header's length and the header,
/// with a blank digest.
pub(super) fn header(document: &str, slots: &[Slot]) -> Result<Vec<u8>, serde_json::Error> {
    let mut end = 0;
    let tensors = slots
        .iter()
        .map(|slot| {
            let start = end;
            end += slot.shape.iter().product::<usize>() * size_of::<f32>();
            let info = TensorInfo {
                dtype: Dtype::F32,
                shape: slot.shape.clone(),
                data_offsets: (start, end),
            };
            (slot.name.clone(), info)
        })
        .collect();
    let metadata = HashMap::from([(KEY.to_owned(), document.to_owned())]);
    let metadata = Metadata::new(Some(metadata), tensors).map_err(serde::ser::Error::custom)?;
    let mut header = vec![0; 8];
    serde_json::to_writer(&mut header, &metadata)?;
    // The format requires writers to align the data to 8 bytes.
    header.resize(header.len().next_multiple_of(8), b' ');
    let length = (header.len() - 8) as u64;
    header[..8].copy_from_slice(&length.to_le_bytes());
    Ok(header)
}

/// Replaces the blank digest in the header by that of header and data.
pub(super) fn seal(header: &mut [u8], values: &[&[f32]]) {
    let mut hasher = Sha256::new();
    hasher.update(&*header);
    for values in values {
        in_chunks(values, |bytes| {
            hasher.update(bytes);
            Ok(())
        })
        .expect("hashing cannot fail");
    }
    let place = digest_place(header, BLANK_DIGEST).expect("the header has a blank digest");
    header[place].copy_from_slice(hex(&hasher.finalize()).as_bytes());
}

fn write(out: &mut BufWriter<File>, header: &[u8], values: &[&[f32]]) -> io::Result<()> {
    out.write_all(header)?;
    for values in values {
        in_chunks(values, |bytes| out.write_all(bytes))?;
    }
    Ok(())
}

/// Passes the values to `sink` as little-endian bytes, 64 KiB at a time.
fn in_chunks(values: &[f32], mut sink: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(1 << 16);
    for chunk in values.chunks(1 << 14) {
        bytes.clear();
        bytes.extend(chunk.iter().flat_map(|value| value.to_le_bytes()));
        sink(&bytes)?;
    }
    Ok(())
}
