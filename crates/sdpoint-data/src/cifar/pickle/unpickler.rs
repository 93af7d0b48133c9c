//! The stack machine that executes a pickle's instructions.

use std::borrow::Cow;
use std::collections::HashMap;

use super::{Dtype, Id, Name, Value};

/// The most values of a pickle; CIFAR-100's largest file has some 200,000.
const MAX_VALUES: usize = 2_000_000;

/// Executes a pickle's instructions.
pub(super) struct ArrayUnpickler<'a> {
    bytes: &'a [u8],
    at: usize,
    pub values: Vec<Value<'a>>,
    stack: Vec<Id>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
}

impl<'a> ArrayUnpickler<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            at: 0,
            values: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
        }
    }

    /// Executes one instruction. Returns false if it was the last.
    pub fn step(&mut self) -> Result<bool, String> {
        match self.take(1)?[0] {
            0x80 => drop(self.take(1)?),
            // A frame's length matters for streams only.
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
        let taken = rest.get(..len).ok_or("it ends early: it is truncated")?;
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

    pub fn pop(&mut self) -> Result<Id, String> {
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
