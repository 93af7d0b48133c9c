//! The protocol's data types and shapes.

use std::fmt;
use std::str::FromStr;

use super::error::{ApiError, quoted};

/// The type of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataType {
    /// One byte, 0 or 1.
    Bool,
    /// Unsigned integers of 1, 2, 4 or 8 bytes.
    Uint(u8),
    /// Signed integers of 1, 2, 4 or 8 bytes.
    Int(u8),
    /// Floating-point numbers of 2, 4 or 8 bytes.
    Fp(u8),
    /// Floating-point numbers of 2 bytes with the exponent of FP32.
    Bf16,
    /// Byte strings, each of its own length.
    Bytes,
}

impl DataType {
    pub const UINT8: Self = Self::Uint(1);
    pub const FP32: Self = Self::Fp(4);
}

impl fmt::Display for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool => f.write_str("BOOL"),
            Self::Uint(bytes) => write!(f, "UINT{}", 8 * bytes),
            Self::Int(bytes) => write!(f, "INT{}", 8 * bytes),
            Self::Fp(bytes) => write!(f, "FP{}", 8 * bytes),
            Self::Bf16 => f.write_str("BF16"),
            Self::Bytes => f.write_str("BYTES"),
        }
    }
}

impl FromStr for DataType {
    type Err = ApiError;

    fn from_str(name: &str) -> Result<Self, ApiError> {
        Ok(match name {
            "BOOL" => Self::Bool,
            "UINT8" => Self::Uint(1),
            "UINT16" => Self::Uint(2),
            "UINT32" => Self::Uint(4),
            "UINT64" => Self::Uint(8),
            "INT8" => Self::Int(1),
            "INT16" => Self::Int(2),
            "INT32" => Self::Int(4),
            "INT64" => Self::Int(8),
            "FP16" => Self::Fp(2),
            "FP32" => Self::Fp(4),
            "FP64" => Self::Fp(8),
            "BF16" => Self::Bf16,
            "BYTES" => Self::Bytes,
            _ => {
                return Err(ApiError::invalid(format!(
                    "unknown datatype {}: it is BOOL, INT8 to INT64, UINT8 to UINT64, FP16, FP32, \
                     FP64 or BYTES",
                    quoted(name)
                )));
            }
        })
    }
}

/// The number of elements of a shape; none on overflow.
pub fn elements(shape: &[u64]) -> Option<usize> {
    let product = shape
        .iter()
        .try_fold(1u64, |product, &side| product.checked_mul(side))?;
    usize::try_from(product).ok()
}

/// A shape as text, such as `[-1,3,224,224]`.
pub fn shape_text(shape: &[impl fmt::Display]) -> String {
    let sides: Vec<String> = shape.iter().map(ToString::to_string).collect();
    format!("[{}]", sides.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for name in [
            "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64",
            "FP16", "FP32", "FP64", "BF16", "BYTES",
        ] {
            assert_eq!(name.parse::<DataType>().unwrap().to_string(), name);
        }
        for name in ["", "fp32", "FP128", "STRING"] {
            assert!(name.parse::<DataType>().is_err(), "{name}");
        }
    }

    #[test]
    fn elements_are_counted_without_overflow() {
        assert_eq!(elements(&[2, 3, 4]), Some(24));
        assert_eq!(elements(&[]), Some(1));
        assert_eq!(elements(&[0, 1 << 63]), Some(0));
        assert_eq!(elements(&[1 << 32, 1 << 32]), None);
        assert_eq!(elements(&[u64::MAX, 2]), None);
    }
}
