//! The logits of final runs, kept small for others to analyse.

use std::fs;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensorError, SafeTensors, TensorView, serialize};

use crate::results::{ResultsError, io, write_bytes};

/// The unit of the kept logits: 1/256, so that 16 bits hold those from -128 to 128. Rounding
/// changes the most likely class of an image only if two are within 1/256 of each other.
const UNITS: f32 = 256.0;

/// Writes the logits in a file of `sdpoint evaluate --logits` to another file, as `logits/INSTANCE`
/// (I16, in units of 1/256) and `labels` (I64).
///
/// # Errors
/// If a file cannot be read or written.
pub fn keep(from: &Path, to: &Path) -> Result<(), ResultsError> {
    let bytes = fs::read(from).map_err(|error| io(from, error))?;
    let invalid = |error: SafeTensorError| io(from, std::io::Error::other(error));
    let small = small(&bytes).map_err(invalid)?;
    write_bytes(to, &small)
}

fn small(bytes: &[u8]) -> Result<Vec<u8>, SafeTensorError> {
    let tensors = SafeTensors::deserialize(bytes)?;
    let mut kept = Vec::new();
    for (name, tensor) in tensors.tensors() {
        let shape = tensor.shape().to_vec();
        kept.push(match tensor.dtype() {
            Dtype::F32 => (name, Dtype::I16, shape, halved(tensor.data())),
            other => (name, other, shape, tensor.data().to_vec()),
        });
    }
    kept.sort_by(|a, b| a.0.cmp(&b.0));
    let views = kept
        .iter()
        .map(|(name, dtype, shape, data)| Ok((name, TensorView::new(*dtype, shape.clone(), data)?)))
        .collect::<Result<Vec<_>, SafeTensorError>>()?;
    let about = [("units of logits".to_owned(), "1/256".to_owned())];
    serialize(views, Some(about.into()))
}

/// F32 values as I16 in units of 1/256; larger ones saturate.
fn halved(values: &[u8]) -> Vec<u8> {
    let values = values.chunks_exact(4).map(|bytes| {
        let value = f32::from_le_bytes(bytes.try_into().expect("four bytes"));
        (value * UNITS).round() as i16
    });
    values.flat_map(i16::to_le_bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logits_are_kept_to_a_256th() {
        let values = [0.5f32, -1.25, 3.001, 1000.0];
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let labels: Vec<u8> = [1i64, 0].iter().flat_map(|v| v.to_le_bytes()).collect();
        let tensors = [
            (
                "labels",
                TensorView::new(Dtype::I64, vec![2], &labels).unwrap(),
            ),
            (
                "logits/full",
                TensorView::new(Dtype::F32, vec![2, 2], &bytes).unwrap(),
            ),
        ];
        let small = small(&serialize(tensors, None).unwrap()).unwrap();
        let read = SafeTensors::deserialize(&small).unwrap();
        let logits = read.tensor("logits/full").unwrap();
        assert_eq!((logits.dtype(), logits.shape()), (Dtype::I16, &[2, 2][..]));
        let kept: Vec<i16> = logits
            .data()
            .chunks_exact(2)
            .map(|bytes| i16::from_le_bytes(bytes.try_into().unwrap()))
            .collect();
        assert_eq!(kept, [128, -320, 768, i16::MAX]);
        assert_eq!(read.tensor("labels").unwrap().data(), labels);
    }
}
