//! A reader for the pickles that CIFAR's Python files are, which runs nothing.
//!
//! A pickle is a program for a small machine that may call any function by
//! name. This machine knows the instructions that dictionaries of numbers,
//! texts and arrays are made of, and the handful of names by which numpy's
//! arrays and Python 2's bytes are written; any other name ends the reading.
//! Calls of those names build plain values here.

mod machine;

use std::borrow::Cow;

use machine::Machine;

/// The place of a value among all of a pickle. Values refer to each other by
/// it, so that one may hold itself without harm.
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
    /// Something that no image depends on.
    Opaque,
}

/// A name that CIFAR's files mention.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Name {
    /// Makes an empty array.
    Reconstruct,
    /// Makes an array of bytes, in protocol 5.
    FromBuffer,
    /// Makes a number.
    Scalar,
    Ndarray,
    Dtype,
    /// Makes bytes of a text, in protocols below 3.
    Encode,
}

/// What an array is made of.
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
/// What is wrong with it, in words.
pub(super) fn read(bytes: &[u8]) -> Result<Pickle<'_>, String> {
    let mut machine = Machine::new(bytes);
    while machine.step()? {}
    let root = machine.pop()?;
    Ok(Pickle {
        values: machine.values,
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

    /// The array of bytes under a key of the dictionary.
    pub fn array(&self, key: &str) -> Option<Array<'a>> {
        match &self.values[self.get(key)?] {
            Value::Array(Some((shape, Dtype { bytes: 1, .. }, data))) => Some(Array {
                shape: shape.clone(),
                data: self.data(*data)?,
            }),
            _ => None,
        }
    }

    /// The integers under a key: a list, or an array of one dimension.
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

    /// The texts under a key.
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
    /// From numpy's text, such as `u1` or `i8`.
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
