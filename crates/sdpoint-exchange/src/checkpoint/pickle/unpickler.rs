//! The stack machine that executes a pickle's instructions, which
//! `Lib/pickletools.py` of CPython describes.

use std::collections::HashMap;

use super::super::bytes::Bytes;
use super::super::torch::{MAGIC, MAGIC_DIGITS};
use super::{Id, Object, PickleFault, Value, Values};

/// The most values of a pickle. ResNet-152 with an optimiser's state has about
/// ten thousand. As the memory per value is bounded, so is that of a pickle.
pub(super) const MAX_VALUES: usize = 1 << 19;

/// The most instructions of a pickle. Each takes a few bytes at most, besides
/// the values that it creates.
const MAX_STEPS: usize = 1 << 23;

/// The most different floats that are stored.
const MAX_FLOATS: usize = 1 << 12;

/// Runs one pickle to its end and returns what it describes.
pub(in super::super) fn run<'a>(pickle: &mut Bytes<'a>) -> Result<(Values<'a>, Id), PickleFault> {
    let mut unpickler = Unpickler {
        input: pickle,
        values: vec![Value::None, Value::Opaque],
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        steps: 0,
        copied: 0,
        encoded: 0,
        floats: HashMap::new(),
    };
    let top = loop {
        let place = unpickler.input.place();
        let stopped = unpickler.step().map_err(|stop| match stop {
            Stop::Truncated => PickleFault::Malformed("it ends too early".into()),
            Stop::Malformed(what) => PickleFault::Malformed(format!("{what} at byte {place}")),
            Stop::TooMuch => PickleFault::TooMuch,
        })?;
        if let Some(top) = stopped {
            break top;
        }
    };
    let all = unpickler.values;
    Ok((Values { all }, top))
}

pub(super) struct Unpickler<'m, 'a> {
    pub(super) input: &'m mut Bytes<'a>,
    pub(super) values: Vec<Value<'a>>,
    pub(super) stack: Vec<Id>,
    /// Heights of the stack.
    marks: Vec<u32>,
    pub(super) memo: HashMap<u32, Id>,
    steps: usize,
    /// Number of pairs copied from lists by calls.
    pub(super) copied: usize,
    /// Bytes of text encoded by calls.
    pub(super) encoded: usize,
    /// The first floats by their bits. Files may have millions, mostly of logs, so
    /// each is stored once, and those beyond [`MAX_FLOATS`] are not.
    floats: HashMap<u64, Id>,
}

/// Why execution stopped.
pub(super) enum Stop {
    Truncated,
    Malformed(&'static str),
    TooMuch,
}

pub(super) type Step<T> = Result<T, Stop>;

impl<'a> Unpickler<'_, 'a> {
    /// Executes one instruction. The last one returns the pickle's value.
    fn step(&mut self) -> Step<Option<Id>> {
        self.steps += 1;
        if self.steps > MAX_STEPS {
            return Err(Stop::TooMuch);
        }
        let input = &mut *self.input;
        match have(input.u8())? {
            // PROTO, FRAME
            0x80 => drop(have(input.u8())?),
            0x95 => drop(have(input.u64())?),
            b'.' => return self.pop().map(Some),

            b'(' => self.marks.push(self.stack.len() as u32),
            b'0' => drop(self.pop()?),
            b'1' => drop(self.pop_mark()?),
            b'2' => {
                let top = self.top()?;
                self.stack.push(top);
            }

            b'N' => self.stack.push(Self::NONE),
            // NEWTRUE, NEWFALSE
            0x88 => self.push(Value::Int(1))?,
            0x89 => self.push(Value::Int(0))?,
            b'K' => self.integer(|input| input.u8().map(i64::from))?,
            b'M' => self.integer(|input| input.u16().map(i64::from))?,
            b'J' => {
                self.integer(|input| input.array().map(|b| i64::from(i32::from_le_bytes(b))))?
            }
            // LONG1, LONG4
            0x8a => self.long(|input| input.u8().map(u64::from))?,
            0x8b => self.long(|input| input.u32().map(u64::from))?,
            b'G' => {
                let bits = u64::from_be_bytes(have(input.array())?);
                self.float(f64::from_bits(bits))?;
            }
            // INT, LONG, FLOAT: in decimal digits
            b'I' | b'L' | b'F' => {
                let digits = utf8(have(input.line())?)?.trim_end_matches('L');
                match (digits.parse(), digits.parse()) {
                    (Ok(number), _) => self.push(Value::Int(number))?,
                    _ if digits == MAGIC_DIGITS => self.push(Value::LongInt(&MAGIC))?,
                    (_, Ok(number)) => self.float(number)?,
                    _ => self.stack.push(Self::OPAQUE),
                }
            }

            // BINUNICODE, SHORT_BINUNICODE, BINUNICODE8; Python 2's strings
            b'X' | b'T' => self.text(|input| input.u32().map(u64::from))?,
            0x8c | b'U' => self.text(|input| input.u8().map(u64::from))?,
            0x8d => self.text(|input| input.u64())?,
            // UNICODE, STRING: the latter in quotes
            b'V' => {
                let line = have(input.line())?;
                self.push(std::str::from_utf8(line).map_or(Value::Opaque, Value::Text))?;
            }
            b'S' => {
                let line = have(input.line())?;
                let quoted = line.get(1..line.len().saturating_sub(1)).unwrap_or(line);
                self.push(std::str::from_utf8(quoted).map_or(Value::Opaque, Value::Text))?;
            }
            // BINBYTES, SHORT_BINBYTES, BINBYTES8, BYTEARRAY8
            b'B' => self.bytes(|input| input.u32().map(u64::from))?,
            b'C' => self.bytes(|input| input.u8().map(u64::from))?,
            0x8e | 0x96 => self.bytes(|input| input.u64())?,

            b')' => self.push(Value::Tuple(Vec::new()))?,
            b't' => {
                let items = self.pop_mark()?;
                self.push(Value::Tuple(items))?;
            }
            short @ 0x85..=0x87 => {
                let from = self.base(usize::from(short - 0x84))?;
                let items = self.stack.split_off(from);
                self.push(Value::Tuple(items))?;
            }
            b']' => self.push(Value::List(Vec::new()))?,
            b'l' => {
                let items = self.pop_mark()?;
                self.push(Value::List(items))?;
            }
            b'a' => {
                let item = self.pop()?;
                self.extend(vec![item])?;
            }
            b'e' => {
                let items = self.pop_mark()?;
                self.extend(items)?;
            }
            b'}' => self.push(Value::Dict(Vec::new()))?,
            b'd' => {
                let items = self.pop_mark()?;
                self.push(Value::Dict(Vec::new()))?;
                self.set(&items)?;
            }
            b's' => {
                let from = self.base(2)?;
                let item = self.stack.split_off(from);
                self.set(&item)?;
            }
            b'u' => {
                let items = self.pop_mark()?;
                self.set(&items)?;
            }
            // EMPTY_SET, ADDITEMS, FROZENSET
            0x8f => self.push(Value::List(Vec::new()))?,
            0x90 => {
                let items = self.pop_mark()?;
                self.extend(items)?;
            }
            0x91 => {
                let items = self.pop_mark()?;
                self.push(Value::List(items))?;
            }

            b'q' => {
                let key = u32::from(have(input.u8())?);
                self.remember(key)?;
            }
            b'r' => {
                let key = have(input.u32())?;
                self.remember(key)?;
            }
            0x94 => self.remember(self.memo.len() as u32)?,
            // PUT, GET
            b'p' => {
                let key = have(input.line().map(key))??;
                self.remember(key)?;
            }
            b'g' => {
                let key = have(input.line().map(key))??;
                self.recall(key)?;
            }
            b'h' => {
                let key = u32::from(have(input.u8())?);
                self.recall(key)?;
            }
            b'j' => {
                let key = have(input.u32())?;
                self.recall(key)?;
            }

            b'c' => {
                let global = self.global()?;
                self.stack.push(global);
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                match (self.value(module), self.value(name)) {
                    (&Value::Text(module), &Value::Text(name)) => {
                        let global = self.named(module, name)?;
                        self.stack.push(global);
                    }
                    _ => return Err(Stop::Malformed("a name that is not text")),
                }
            }
            // EXT1, EXT2, EXT4: names by numbers that a program registers
            extension @ 0x82..=0x84 => {
                have(input.take([1, 2, 4][usize::from(extension - 0x82)]))?;
                self.stack.push(Self::OPAQUE);
            }
            // REDUCE, NEWOBJ
            b'R' | 0x81 => {
                let (arguments, callee) = (self.pop()?, self.pop()?);
                let made = self.call(callee, arguments)?;
                self.stack.push(made);
            }
            // NEWOBJ_EX, which has keyword arguments besides
            0x92 => {
                self.pop()?;
                let (arguments, callee) = (self.pop()?, self.pop()?);
                let made = self.call(callee, arguments)?;
                self.stack.push(made);
            }
            // INST, OBJ: a class and its arguments, down to the mark
            b'i' => {
                let class = self.global()?;
                let arguments = self.pop_mark()?;
                self.instance(class, arguments)?;
            }
            b'o' => {
                let mut arguments = self.pop_mark()?;
                if arguments.is_empty() {
                    return Err(EMPTY);
                }
                let class = arguments.remove(0);
                self.instance(class, arguments)?;
            }
            b'b' => self.build()?,
            b'P' => {
                let line = have(input.line())?;
                let made = match std::str::from_utf8(line) {
                    Ok(text) => self.persistent_text(text)?,
                    Err(_) => Self::OPAQUE,
                };
                self.stack.push(made);
            }
            b'Q' => {
                let reference = self.pop()?;
                let made = self.persistent(reference)?;
                self.stack.push(made);
            }
            // NEXT_BUFFER, READONLY_BUFFER
            0x97 => self.stack.push(Self::OPAQUE),
            0x98 => {}
            _ => return Err(Stop::Malformed("an instruction that does not exist")),
        }
        Ok(None)
    }

    /// The one `None`.
    const NONE: Id = Id(std::num::NonZeroU32::MIN);
    /// The one opaque value.
    pub(super) const OPAQUE: Id = Id(std::num::NonZeroU32::MIN.saturating_add(1));

    pub(super) fn push(&mut self, value: Value<'a>) -> Step<()> {
        let id = self.make(value)?;
        self.stack.push(id);
        Ok(())
    }

    fn float(&mut self, number: f64) -> Step<()> {
        let id = match self.floats.get(&number.to_bits()) {
            Some(&id) => id,
            None if self.floats.len() >= MAX_FLOATS => Self::OPAQUE,
            None => {
                let id = self.make(Value::Float(number))?;
                self.floats.insert(number.to_bits(), id);
                id
            }
        };
        self.stack.push(id);
        Ok(())
    }

    /// Adds a value.
    pub(super) fn make(&mut self, value: Value<'a>) -> Step<Id> {
        if self.values.len() >= MAX_VALUES {
            return Err(Stop::TooMuch);
        }
        self.values.push(value);
        Ok(Id::new(self.values.len() - 1))
    }

    /// Pops the topmost value, which must be above the last mark.
    pub(super) fn pop(&mut self) -> Step<Id> {
        self.base(1)?;
        self.stack.pop().ok_or(EMPTY)
    }

    /// The height of the stack below the topmost `count` values, which must be
    /// above the last mark.
    fn base(&self, count: usize) -> Step<usize> {
        let floor = self.marks.last().map_or(0, |&mark| mark as usize);
        let base = self.stack.len().checked_sub(count).ok_or(EMPTY)?;
        if base < floor {
            return Err(EMPTY);
        }
        Ok(base)
    }

    /// Pops all values above the last mark, and the mark.
    fn pop_mark(&mut self) -> Step<Vec<Id>> {
        let mark = self.marks.pop().ok_or(EMPTY)?;
        Ok(self.stack.split_off(mark as usize))
    }

    pub(super) fn value(&self, id: Id) -> &Value<'a> {
        &self.values[id.index()]
    }

    pub(super) fn top(&self) -> Step<Id> {
        self.stack.last().copied().ok_or(EMPTY)
    }

    /// The object on top, if it is one.
    pub(super) fn object(&mut self) -> Step<Option<&mut Object>> {
        let top = self.top()?;
        Ok(match &mut self.values[top.index()] {
            Value::Object(object) => Some(object),
            _ => None,
        })
    }

    fn integer(&mut self, read: impl FnOnce(&mut Bytes<'a>) -> Option<i64>) -> Step<()> {
        let value = have(read(self.input))?;
        self.push(Value::Int(value))
    }

    /// Bytes preceded by their length.
    fn counted(&mut self, read: impl FnOnce(&mut Bytes<'a>) -> Option<u64>) -> Step<&'a [u8]> {
        let length = have(read(self.input))?;
        have(self.input.take(length))
    }

    /// An integer in two's complement.
    fn long(&mut self, length: impl FnOnce(&mut Bytes<'a>) -> Option<u64>) -> Step<()> {
        let bytes = self.counted(length)?;
        if bytes.len() > 8 {
            return self.push(Value::LongInt(bytes));
        }
        let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
        let mut wide = [if negative { 0xff } else { 0 }; 8];
        wide[..bytes.len()].copy_from_slice(bytes);
        self.push(Value::Int(i64::from_le_bytes(wide)))
    }

    fn text(&mut self, length: impl FnOnce(&mut Bytes<'a>) -> Option<u64>) -> Step<()> {
        let bytes = self.counted(length)?;
        // Python 2 wrote bytes as strings.
        let value = std::str::from_utf8(bytes).map_or(Value::Opaque, Value::Text);
        self.push(value)
    }

    fn bytes(&mut self, length: impl FnOnce(&mut Bytes<'a>) -> Option<u64>) -> Step<()> {
        let length = self.counted(length)?.len();
        let place = self.input.place();
        self.push(Value::Bytes(place - length..place))
    }
}

pub(super) const EMPTY: Stop = Stop::Malformed("an instruction with too few values on the stack");

pub(super) fn have<T>(value: Option<T>) -> Step<T> {
    value.ok_or(Stop::Truncated)
}

pub(super) fn utf8(bytes: &[u8]) -> Step<&str> {
    std::str::from_utf8(bytes).map_err(|_| Stop::Malformed("a name that is not text"))
}

/// A key of the memo in decimal digits.
fn key(line: &[u8]) -> Step<u32> {
    let key = utf8(line)?.parse();
    key.map_err(|_| Stop::Malformed("a reference that is not a number"))
}
