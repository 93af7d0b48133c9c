//! Element types of tensors in files, and their conversion to single precision.

use std::fmt;

/// The element type of a tensor in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Element {
    F16,
    BF16,
    F32,
    F64,
    /// A type that weights do not have, with its name and its size in bytes.
    Other(&'static str, usize),
}

impl Element {
    /// The size of an element in bytes.
    pub fn size(self) -> usize {
        match self {
            Self::F16 | Self::BF16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
            Self::Other(_, size) => size,
        }
    }

    /// A function that converts a little-endian element to single precision;
    /// `None` if the type is not for weights. Values too large for single
    /// precision become infinite.
    pub fn reader(self) -> Option<fn(&[u8]) -> f32> {
        match self {
            Self::F16 => Some(|bytes| half(u16::from_le_bytes(array(bytes)))),
            Self::BF16 => {
                Some(|bytes| f32::from_bits(u32::from(u16::from_le_bytes(array(bytes))) << 16))
            }
            Self::F32 => Some(|bytes| f32::from_le_bytes(array(bytes))),
            Self::F64 => Some(|bytes| f64::from_le_bytes(array(bytes)) as f32),
            Self::Other(..) => None,
        }
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F16 => "float16",
            Self::BF16 => "bfloat16",
            Self::F32 => "float32",
            Self::F64 => "float64",
            Self::Other(name, _) => name,
        })
    }
}

/// The bytes of one element; the slice must have the element's size.
fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("an element's bytes")
}

/// IEEE 754 binary16: a sign, five bits of exponent, ten of fraction.
fn half(bits: u16) -> f32 {
    let sign = u32::from(bits & 0x8000) << 16;
    let exponent = u32::from(bits >> 10 & 0x1f);
    let fraction = u32::from(bits & 0x3ff);
    match exponent {
        // Zero and subnormal numbers: the fraction counts steps of 2^-24.
        0 => f32::from_bits(sign | (fraction as f32 / 16_777_216.0).to_bits()),
        31 => f32::from_bits(sign | 0x7f80_0000 | fraction << 13),
        _ => f32::from_bits(sign | (exponent + 112) << 23 | fraction << 13),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_has_the_value_that_its_bits_say() {
        for bits in 0..=u16::MAX {
            let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
            let exponent = i32::from(bits >> 10 & 0x1f);
            let fraction = f64::from(bits & 0x3ff) / 1024.0;
            let expected = match exponent {
                0 => sign * fraction * 2f64.powi(-14),
                31 if fraction == 0.0 => sign * f64::INFINITY,
                31 => f64::NAN,
                _ => sign * (1.0 + fraction) * 2f64.powi(exponent - 15),
            };
            let found = half(bits);
            assert!(
                f64::from(found) == expected || (found.is_nan() && expected.is_nan()),
                "{bits:#06x}: {found} for {expected}"
            );
        }
    }

    #[test]
    fn the_other_types_are_read_as_what_they_are() {
        let read = |element: Element, bytes: &[u8]| element.reader().unwrap()(bytes);
        assert_eq!(read(Element::BF16, &[0x80, 0xbf]), -1.0);
        assert_eq!(read(Element::F32, &1.5f32.to_le_bytes()), 1.5);
        assert_eq!(read(Element::F64, &(-0.1f64).to_le_bytes()), -0.1);
        assert_eq!(read(Element::F64, &1e300f64.to_le_bytes()), f32::INFINITY);
        assert!(Element::Other("int64", 8).reader().is_none());
    }
}
