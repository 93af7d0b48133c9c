//! A reader of the pickles of CIFAR's Python files, which executes no code.
//!
//! A pickle is a program for a stack machine that may call any function by
//! name. This reader supports the instructions that build dictionaries of
//! numbers, strings and arrays, and the few functions that build NumPy's
//! arrays and Python 2's bytes, which become plain values. Any other name is an
//! error.

mod unpickler;

use std::borrow::Cow;

use unpickler::ArrayUnpickler;

/// The index of a value in a pickle. Values refer to each other by index, so
/// that a value that contains itself does no harm.
type Id = usize;

/// A value that a pickle describes.
#[derive(Clone, Debug)]
enum Value<'a> {
    None,
    Int(i64),
    Bytes(Cow<'a, [u8]>),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Name(Name),
    Dtype(Dtype),
    Array(Option<(Vec<i64>, Dtype, Id)>),
    /// A value that no image depends on.
    Opaque,
}

/// A function or class that CIFAR's files use.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Name {
    /// Creates an empty array.
    Reconstruct,
    /// Creates an array from bytes, in protocol 5.
    FromBuffer,
    /// Creates a number.
    Scalar,
    Ndarray,
    Dtype,
    /// Converts a string to bytes, in protocols below 3.
    Encode,
}

/// The type of an array's elements.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Dtype {
    signed: bool,
    bytes: usize,
}

/// A pickle that was read.
pub(super) struct Pickle<'a> {
    values: Vec<Value<'a>>,
    root: Id,
}

/// An array of bytes.
pub(super) struct Array<'a> {
    pub shape: Vec<i64>,
    pub data: Cow<'a, [u8]>,
}

/// Reads a pickle.
///
/// # Errors
/// If it is damaged or has instructions or names that CIFAR's files do not
/// have; the message says what is wrong.
pub(super) fn read(bytes: &[u8]) -> Result<Pickle<'_>, String> {
    let mut unpickler = ArrayUnpickler::new(bytes);
    while unpickler.step()? {}
    let root = unpickler.pop()?;
    Ok(Pickle {
        values: unpickler.values,
        root,
    })
}

impl<'a> Pickle<'a> {
    fn get(&self, key: &str) -> Option<Id> {
        let Value::Dict(entries) = &self.values[self.root] else {
            return None;
        };
        let is_key = |id: Id| matches!(&self.values[id], Value::Bytes(b) if **b == *key.as_bytes());
        let found = entries.iter().rev().find(|(name, _)| is_key(*name))?;
        Some(found.1)
    }

    /// The array of bytes at a key of the root dictionary.
    pub fn array(&self, key: &str) -> Option<Array<'a>> {
        match &self.values[self.get(key)?] {
            Value::Array(Some((shape, Dtype { bytes: 1, .. }, data))) => Some(Array {
                shape: shape.clone(),
                data: self.data(*data)?,
            }),
            _ => None,
        }
    }

    /// The integers at a key: a list, or a one-dimensional array.
    pub fn integers(&self, key: &str) -> Option<Vec<i64>> {
        match &self.values[self.get(key)?] {
            Value::List(items) | Value::Tuple(items) => {
                let integer = |&id: &Id| match &self.values[id] {
                    Value::Int(value) => Some(*value),
                    _ => None,
                };
                items.iter().map(integer).collect()
            }
            Value::Array(Some((shape, dtype, data))) if shape.len() == 1 => {
                let data = self.data(*data)?;
                let numbers = data.chunks_exact(dtype.bytes);
                Some(numbers.map(|bytes| dtype.integer(bytes)).collect())
            }
            _ => None,
        }
    }

    /// The strings at a key.
    pub fn texts(&self, key: &str) -> Option<Vec<String>> {
        let (Value::List(items) | Value::Tuple(items)) = &self.values[self.get(key)?] else {
            return None;
        };
        let text = |&id: &Id| {
            let bytes = self.data(id)?;
            Some(String::from_utf8_lossy(&bytes).into_owned())
        };
        items.iter().map(text).collect()
    }

    fn data(&self, id: Id) -> Option<Cow<'a, [u8]>> {
        match &self.values[id] {
            Value::Bytes(bytes) => Some(bytes.clone()),
            _ => None,
        }
    }
}

impl Dtype {
    /// Parses NumPy's notation, such as `u1` or `i8`.
    fn parse(text: &[u8]) -> Option<Self> {
        let (signed, bytes) = match text {
            [b'u', digit] => (false, digit),
            [b'i', digit] => (true, digit),
            _ => return None,
        };
        let bytes = usize::from(bytes.checked_sub(b'0')?);
        [1, 2, 4, 8]
            .contains(&bytes)
            .then_some(Self { signed, bytes })
    }

    /// A number of at most eight bytes in little-endian order.
    fn integer(self, bytes: &[u8]) -> i64 {
        let negative = self.signed && bytes.last().is_some_and(|&b| b >= 0x80);
        let mut wide = [if negative { 0xff } else { 0 }; 8];
        wide[..bytes.len()].copy_from_slice(bytes);
        i64::from_le_bytes(wide)
    }
}
