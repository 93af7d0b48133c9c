//! Extracts images from a request's tensors. Tensors are not trusted: type, shape and
//! length are checked against the model's before memory is allocated.

use axum::body::Bytes;

use super::datatype::{elements, shape_text};
use super::error::{ApiError, quoted};
use super::request::{Data, Tensor};
use super::signature::{ENCODED, IMAGES, PIXELS, Signature, TensorMetadata};

/// The images of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum RequestImages {
    /// Normalised values, NCHW, as little-endian FP32.
    Planes(Bytes),
    /// Pixels, NHWC.
    Pixels(Bytes),
    /// Image files.
    Encoded(Vec<Bytes>),
}

/// The images of a request's single input, and their number.
///
/// # Errors
/// If there is not exactly one input, or it does not match the model's metadata.
pub fn images(
    inputs: Vec<Tensor>,
    signature: &Signature,
    most: usize,
) -> Result<(RequestImages, usize), ApiError> {
    let [tensor] = <[Tensor; 1]>::try_from(inputs).map_err(|inputs| {
        ApiError::invalid(format!(
            "the request has {} inputs; it must have exactly one of {IMAGES}, {PIXELS} and \
             {ENCODED}",
            inputs.len()
        ))
    })?;
    let known = signature.inputs();
    let Some(expected) = known.iter().find(|input| input.name == tensor.name) else {
        return Err(ApiError::invalid(format!(
            "the model has no input {}; send one of {IMAGES}, {PIXELS} and {ENCODED}",
            quoted(&tensor.name)
        )));
    };
    let count = check(&tensor, expected, most)?;
    let len = count * expected.shape[1..].iter().product::<i64>() as usize;
    let images = match expected.name {
        IMAGES => {
            let values = floats(tensor.data, len)?;
            check_finite(&values, &tensor.shape)?;
            RequestImages::Planes(values)
        }
        PIXELS => RequestImages::Pixels(octets(tensor.data, len)?),
        _ => RequestImages::Encoded(strings(tensor.data, len)?),
    };
    Ok((images, count))
}

/// Checks type and shape against the model's, and returns the number of images.
fn check(tensor: &Tensor, expected: &TensorMetadata, most: usize) -> Result<usize, ApiError> {
    let name = expected.name;
    if tensor.datatype != expected.datatype {
        return Err(ApiError::invalid(format!(
            "input '{name}' is of datatype {}; it must be {}",
            tensor.datatype, expected.datatype
        )));
    }
    let fits = tensor.shape.len() == expected.shape.len()
        && std::iter::zip(&tensor.shape, &expected.shape)
            .all(|(&side, &expected)| u64::try_from(expected).is_err() || side == expected as u64);
    if !fits {
        return Err(ApiError::invalid(format!(
            "input '{name}' has shape {}; it must be {}, where -1 is the number of images",
            shape_text(&tensor.shape),
            shape_text(&expected.shape)
        )));
    }
    let count = tensor.shape[0];
    let countable = elements(&tensor.shape).is_some();
    match usize::try_from(count) {
        Ok(0) => Err(ApiError::invalid(format!("input '{name}' has no images"))),
        Ok(count) if count <= most && countable => Ok(count),
        _ => Err(ApiError::invalid(format!(
            "input '{name}' has {count} images; the limit is {most}"
        ))),
    }
}

fn floats(data: Data, len: usize) -> Result<Bytes, ApiError> {
    let values = match data {
        Data::Raw(raw) => {
            check_bytes(raw.len(), 4 * len)?;
            return Ok(raw);
        }
        Data::Floats(values) => values,
        Data::Octets(values) => values.into_iter().map(f32::from).collect(),
        Data::Strings(_) => return Err(wrong_elements("numbers")),
    };
    check_len(values.len(), len)?;
    let bytes: Vec<u8> = values.into_iter().flat_map(f32::to_le_bytes).collect();
    Ok(bytes.into())
}

/// Checks that little-endian values are neither NaN nor infinite, of which the network would make
/// plausible probabilities.
fn check_finite(values: &[u8], shape: &[u64]) -> Result<(), ApiError> {
    // A block is tested without a branch for each value, so that the compiler uses SIMD.
    const BLOCK: usize = 1024;
    let (values, _) = values.as_chunks::<4>();
    let finite = |&bytes: &[u8; 4]| f32::from_le_bytes(bytes).is_finite();
    let all_finite = |block: &[[u8; 4]]| block.iter().fold(true, |all, value| all & finite(value));
    let mut blocks = values.chunks(BLOCK).enumerate();
    let first = blocks.find_map(|(number, block)| match all_finite(block) {
        true => None,
        false => Some(number * BLOCK + block.iter().position(|value| !finite(value))?),
    });
    let Some(number) = first else { return Ok(()) };
    Err(ApiError::invalid(format!(
        "input '{IMAGES}' has the value {} at index {}; all values must be finite",
        f32::from_le_bytes(values[number]),
        shape_text(&index(number, shape))
    )))
}

/// The index in every dimension of the element with this number.
fn index(number: usize, shape: &[u64]) -> Vec<u64> {
    let mut rest = number as u64;
    let mut index: Vec<u64> = shape
        .iter()
        .rev()
        .map(|side| {
            let here = rest % side;
            rest /= side;
            here
        })
        .collect();
    index.reverse();
    index
}

fn octets(data: Data, len: usize) -> Result<Bytes, ApiError> {
    let values = match data {
        Data::Raw(raw) => {
            check_bytes(raw.len(), len)?;
            return Ok(raw);
        }
        Data::Octets(values) => values,
        Data::Floats(values) => {
            check_len(values.len(), len)?;
            let octet = |value: f32| {
                let whole = (0.0..=255.0).contains(&value) && value.fract() == 0.0;
                whole.then_some(value as u8)
            };
            let octets: Option<Vec<u8>> = values.into_iter().map(octet).collect();
            octets.ok_or_else(|| wrong_elements("whole numbers from 0 to 255"))?
        }
        Data::Strings(_) => return Err(wrong_elements("numbers")),
    };
    check_len(values.len(), len)?;
    Ok(values.into())
}

fn strings(data: Data, len: usize) -> Result<Vec<Bytes>, ApiError> {
    let strings = match data {
        Data::Raw(raw) => split(&raw, len)?,
        Data::Strings(strings) => strings,
        Data::Floats(_) | Data::Octets(_) => return Err(wrong_elements("byte strings")),
    };
    check_len(strings.len(), len)?;
    Ok(strings)
}

/// Byte strings, each preceded by its length in 4 bytes.
fn split(raw: &Bytes, most: usize) -> Result<Vec<Bytes>, ApiError> {
    let mut strings = Vec::new();
    let mut at = 0;
    while at < raw.len() {
        let number = strings.len() + 1;
        if strings.len() == most {
            return Err(ApiError::invalid(format!(
                "a BYTES tensor has {} bytes after its {most} elements",
                raw.len() - at
            )));
        }
        let rest = &raw[at..];
        let cut = || {
            ApiError::invalid(format!(
                "element {number} of a BYTES tensor extends beyond the end of the tensor"
            ))
        };
        let length = rest.first_chunk().ok_or_else(cut)?;
        let length = u32::from_le_bytes(*length) as usize;
        if rest.len() - 4 < length {
            return Err(cut());
        }
        strings.push(raw.slice(at + 4..at + 4 + length));
        at += 4 + length;
    }
    Ok(strings)
}

fn check_len(actual: usize, expected: usize) -> Result<(), ApiError> {
    if actual == expected {
        return Ok(());
    }
    Err(ApiError::invalid(format!(
        "the input has {actual} elements, but its shape has {expected}"
    )))
}

fn check_bytes(actual: usize, expected: usize) -> Result<(), ApiError> {
    if actual == expected {
        return Ok(());
    }
    Err(ApiError::invalid(format!(
        "the input has {actual} bytes, but its shape and datatype need {expected}"
    )))
}

fn wrong_elements(expected: &str) -> ApiError {
    ApiError::invalid(format!("the input's elements must be {expected}"))
}

#[cfg(test)]
mod tests;
