//! A reader for the pickles that CIFAR's Python files are, which runs nothing.
//!
//! A pickle is a program for a small machine that may call any function by
//! name. This machine knows the instructions that dictionaries of numbers,
//! texts and arrays are made of, and the handful of names by which numpy's
//! arrays and Python 2's bytes are written; any other name ends the reading.
//! Calls of those names build plain values here.

use std::borrow::Cow;
use std::collections::HashMap;

/// The most values of a pickle; CIFAR-100's largest file has some 200,000.
const MAX_VALUES: usize = 2_000_000;

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
    let mut machine = Machine {
        bytes,
        at: 0,
        values: Vec::new(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
    };
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

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    values: Vec<Value<'a>>,
    stack: Vec<Id>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
}

impl<'a> Machine<'a> {
    /// Carries out an instruction. False if it was the last.
    fn step(&mut self) -> Result<bool, String> {
        match self.take(1)?[0] {
            0x80 => drop(self.take(1)?),
            // A frame's length is of use to streams alone.
            0x95 => drop(self.take(8)?),
            b'.' => return Ok(false),
            b'(' => self.marks.push(self.stack.len()),
            b'0' => drop(self.pop()?),
            b'1' => drop(self.popped_mark()?),
            b'2' => {
                let top = *self.stack.last().ok_or_else(broken)?;
                self.stack.push(top);
            }
            b'N' => self.push(Value::None)?,
            0x88 => self.push(Value::Int(1))?,
            0x89 => self.push(Value::Int(0))?,
            b'J' => {
                let value = self.number(4)? as u32 as i32;
                self.push(Value::Int(value.into()))?;
            }
            b'K' => self.integer(1)?,
            b'M' => self.integer(2)?,
            b'G' => {
                self.take(8)?;
                self.push(Value::Opaque)?;
            }
            0x8a => {
                let len = self.number(1)? as usize;
                let bytes = self.take(len)?;
                let wide = Dtype {
                    signed: true,
                    bytes: 8,
                };
                self.push(match len {
                    0..=8 => Value::Int(wide.integer(bytes)),
                    _ => Value::Opaque,
                })?;
            }
            b'U' | b'C' | 0x8c => self.bytes_of(1)?,
            b'T' | b'B' | b'X' => self.bytes_of(4)?,
            0x8d | 0x8e | 0x96 => self.bytes_of(8)?,
            b')' => self.push(Value::Tuple(Vec::new()))?,
            b']' => self.push(Value::List(Vec::new()))?,
            b'}' => self.push(Value::Dict(Vec::new()))?,
            0x85 => self.tuple(1)?,
            0x86 => self.tuple(2)?,
            0x87 => self.tuple(3)?,
            b't' => {
                let items = self.popped_mark()?;
                self.push(Value::Tuple(items))?;
            }
            b'l' => {
                let items = self.popped_mark()?;
                self.push(Value::List(items))?;
            }
            b'a' => {
                let item = self.pop()?;
                self.append(vec![item])?;
            }
            b'e' => {
                let items = self.popped_mark()?;
                self.append(items)?;
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.set(vec![key, value])?;
            }
            b'u' => {
                let items = self.popped_mark()?;
                self.set(items)?;
            }
            b'q' => self.remember(1)?,
            b'r' => self.remember(4)?,
            0x94 => {
                let top = *self.stack.last().ok_or_else(broken)?;
                self.memo.insert(self.memo.len() as u64, top);
            }
            b'h' => self.recall(1)?,
            b'j' => self.recall(4)?,
            b'c' => {
                let module = self.line()?;
                let name = self.line()?;
                let name = known(module, name)?;
                self.push(Value::Name(name))?;
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let name = known(self.data(module)?, self.data(name)?)?;
                self.push(Value::Name(name))?;
            }
            b'R' => self.call()?,
            b'b' => self.build()?,
            other => {
                return Err(format!(
                    "it has the instruction {other:#04x}, which CIFAR's files do not need"
                ));
            }
        }
        Ok(true)
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], String> {
        let rest = &self.bytes[self.at..];
        let taken = rest.get(..len).ok_or("it ends early: it was cut")?;
        self.at += len;
        Ok(taken)
    }

    fn line(&mut self) -> Result<&'a [u8], String> {
        let rest = &self.bytes[self.at..];
        let end = rest.iter().position(|&b| b == b'\n').ok_or_else(broken)?;
        self.at += end + 1;
        Ok(&rest[..end])
    }

    fn number(&mut self, bytes: usize) -> Result<u64, String> {
        let mut wide = [0; 8];
        wide[..bytes].copy_from_slice(self.take(bytes)?);
        Ok(u64::from_le_bytes(wide))
    }

    fn push(&mut self, value: Value<'a>) -> Result<(), String> {
        if self.values.len() >= MAX_VALUES {
            return Err("it has more values than CIFAR's files".into());
        }
        self.stack.push(self.values.len());
        self.values.push(value);
        Ok(())
    }

    fn pop(&mut self) -> Result<Id, String> {
        self.stack.pop().ok_or_else(broken)
    }

    fn popped_mark(&mut self) -> Result<Vec<Id>, String> {
        let mark = self.marks.pop().ok_or_else(broken)?;
        if mark > self.stack.len() {
            return Err(broken());
        }
        Ok(self.stack.split_off(mark))
    }

    fn integer(&mut self, bytes: usize) -> Result<(), String> {
        let value = self.number(bytes)?;
        self.push(Value::Int(value as i64))
    }

    fn bytes_of(&mut self, length_bytes: usize) -> Result<(), String> {
        let len = usize::try_from(self.number(length_bytes)?).map_err(|_| broken())?;
        let bytes = self.take(len)?;
        self.push(Value::Bytes(bytes.into()))
    }

    fn tuple(&mut self, len: usize) -> Result<(), String> {
        let at = self.stack.len().checked_sub(len).ok_or_else(broken)?;
        let items = self.stack.split_off(at);
        self.push(Value::Tuple(items))
    }

    fn top(&mut self) -> Result<&mut Value<'a>, String> {
        let top = *self.stack.last().ok_or_else(broken)?;
        Ok(&mut self.values[top])
    }

    fn append(&mut self, mut items: Vec<Id>) -> Result<(), String> {
        match self.top()? {
            Value::List(list) => list.append(&mut items),
            _ => return Err(broken()),
        }
        Ok(())
    }

    fn set(&mut self, items: Vec<Id>) -> Result<(), String> {
        let (pairs, rest) = items.as_chunks::<2>();
        match self.top()? {
            Value::Dict(entries) if rest.is_empty() => {
                entries.extend(pairs.iter().map(|&[key, value]| (key, value)));
                Ok(())
            }
            _ => Err(broken()),
        }
    }

    fn remember(&mut self, bytes: usize) -> Result<(), String> {
        let place = self.number(bytes)?;
        let top = *self.stack.last().ok_or_else(broken)?;
        self.memo.insert(place, top);
        Ok(())
    }

    fn recall(&mut self, bytes: usize) -> Result<(), String> {
        let place = self.number(bytes)?;
        self.stack.push(*self.memo.get(&place).ok_or_else(broken)?);
        Ok(())
    }

    fn data(&self, id: Id) -> Result<&[u8], String> {
        match &self.values[id] {
            Value::Bytes(bytes) => Ok(bytes),
            _ => Err(broken()),
        }
    }

    fn items(&self, id: Id) -> Result<&[Id], String> {
        match &self.values[id] {
            Value::Tuple(items) => Ok(items),
            _ => Err(broken()),
        }
    }

    fn dtype(&self, id: Id) -> Result<Dtype, String> {
        match self.values[id] {
            Value::Dtype(dtype) => Ok(dtype),
            _ => Err(broken()),
        }
    }

    fn call(&mut self) -> Result<(), String> {
        let (arguments, name) = (self.pop()?, self.pop()?);
        let Value::Name(name) = self.values[name] else {
            return Err(broken());
        };
        let arguments = self.items(arguments)?.to_vec();
        let value = match (name, &arguments[..]) {
            (Name::Reconstruct, _) => Value::Array(None),
            (Name::Dtype, [text, ..]) => {
                let dtype = Dtype::parse(self.data(*text)?);
                Value::Dtype(dtype.ok_or("its numbers are no integers")?)
            }
            (Name::Encode, [text, encoding]) if self.data(*encoding)? == b"latin1" => {
                Value::Bytes(Cow::Owned(latin1(self.data(*text)?)?))
            }
            (Name::Scalar, [dtype, data]) => {
                let (dtype, data) = (self.dtype(*dtype)?, self.data(*data)?);
                if data.len() != dtype.bytes {
                    return Err(broken());
                }
                Value::Int(dtype.integer(data))
            }
            (Name::FromBuffer, [data, dtype, shape, order]) => {
                if self.data(*order)? != b"C" {
                    return Err("its array is stored by columns".into());
                }
                Value::Array(Some((self.shape(*shape)?, self.dtype(*dtype)?, *data)))
            }
            _ => return Err(broken()),
        };
        self.push(value)
    }

    /// Gives the value below the top its state.
    fn build(&mut self) -> Result<(), String> {
        let state = self.pop()?;
        let state = self.items(state)?.to_vec();
        let target = *self.stack.last().ok_or_else(broken)?;
        match (&self.values[target], &state[..]) {
            (Value::Array(None), [_, shape, dtype, by_columns, data]) => {
                if !matches!(self.values[*by_columns], Value::Int(0)) {
                    return Err("its array is stored by columns".into());
                }
                let array = (self.shape(*shape)?, self.dtype(*dtype)?, *data);
                self.values[target] = Value::Array(Some(array));
            }
            (Value::Dtype(_), [_, order, ..]) => {
                if self.data(*order)? == b">" {
                    return Err("its numbers are in big-endian order".into());
                }
            }
            _ => return Err(broken()),
        }
        Ok(())
    }

    fn shape(&self, id: Id) -> Result<Vec<i64>, String> {
        let side = |&id: &Id| match self.values[id] {
            Value::Int(side) => Ok(side),
            _ => Err(broken()),
        };
        self.items(id)?.iter().map(side).collect()
    }
}

fn broken() -> String {
    "it is not a sound pickle".to_owned()
}

fn known(module: &[u8], name: &[u8]) -> Result<Name, String> {
    match (module, name) {
        (b"numpy.core.multiarray" | b"numpy._core.multiarray", b"_reconstruct") => {
            Ok(Name::Reconstruct)
        }
        (b"numpy.core.multiarray" | b"numpy._core.multiarray", b"scalar") => Ok(Name::Scalar),
        (b"numpy.core.numeric" | b"numpy._core.numeric", b"_frombuffer") => Ok(Name::FromBuffer),
        (b"numpy", b"ndarray") => Ok(Name::Ndarray),
        (b"numpy", b"dtype") => Ok(Name::Dtype),
        (b"_codecs", b"encode") => Ok(Name::Encode),
        _ => Err(format!(
            "it names `{}.{}`, which CIFAR's files do not need and which is not run",
            String::from_utf8_lossy(module),
            String::from_utf8_lossy(name)
        )),
    }
}

/// The bytes that a text stands for, a character each.
fn latin1(text: &[u8]) -> Result<Vec<u8>, String> {
    let text = std::str::from_utf8(text).map_err(|_| broken())?;
    let byte = |c: char| u8::try_from(c).map_err(|_| broken());
    text.chars().map(byte).collect()
}
