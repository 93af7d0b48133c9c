//! The machine that a pickle is a program for
//! (`Lib/pickletools.py` of CPython describes its instructions).

use std::collections::HashMap;

use super::super::bytes::Bytes;
use super::names::known;
use super::{Id, Name, PickleFault, Storage, Tensor, Value, Values};

/// More instructions than any checkpoint has: ResNet-152 with all of an
/// optimiser's state takes some hundred thousand. As each keeps a fixed amount
/// at most, they bound the memory that a pickle can ask for.
const MAX_STEPS: usize = 1 << 19;

/// More arguments than any known name takes.
const MAX_ARGUMENTS: usize = 16;

/// Runs one pickle to its end and returns what it describes.
pub(in super::super) fn run<'a>(pickle: &mut Bytes<'a>) -> Result<(Values<'a>, Id), PickleFault> {
    let mut machine = Machine {
        input: pickle,
        values: Vec::new(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        steps: 0,
    };
    let top = loop {
        let place = machine.input.place();
        let stopped = machine.step().map_err(|stop| match stop {
            Stop::Truncated => PickleFault::Malformed("it ends too early".into()),
            Stop::Malformed(what) => PickleFault::Malformed(format!("{what} at byte {place}")),
            Stop::Call(name) => PickleFault::Call(name),
        })?;
        if let Some(top) = stopped {
            break top;
        }
    };
    let all = machine.values;
    Ok((Values { all }, top))
}

struct Machine<'m, 'a> {
    input: &'m mut Bytes<'a>,
    values: Vec<Value<'a>>,
    stack: Vec<Id>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
    /// Instructions done, and pairs that calls copied from lists, which one
    /// list can feed to many.
    steps: usize,
}

/// Why the machine cannot go on.
enum Stop {
    Truncated,
    Malformed(&'static str),
    Call(String),
}

type Step<T> = Result<T, Stop>;

impl<'a> Machine<'_, 'a> {
    /// Does one instruction. The last one gives the value of the whole.
    fn step(&mut self) -> Step<Option<Id>> {
        self.steps += 1;
        if self.steps > MAX_STEPS {
            return Err(Stop::Malformed("more instructions than a checkpoint has"));
        }
        let input = &mut *self.input;
        match have(input.u8())? {
            // PROTO, FRAME
            0x80 => drop(have(input.u8())?),
            0x95 => drop(have(input.u64())?),
            b'.' => return self.pop().map(Some),

            b'(' => self.marks.push(self.stack.len()),
            b'0' => drop(self.pop()?),
            b'1' => drop(self.pop_mark()?),
            b'2' => {
                let top = *self.stack.last().ok_or(EMPTY)?;
                self.stack.push(top);
            }

            b'N' => self.push(Value::None)?,
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
                have(input.u64())?;
                self.push(Value::Opaque)?;
            }

            // BINUNICODE, SHORT_BINUNICODE, BINUNICODE8; Python 2's strings
            b'X' | b'T' => self.text(|input| input.u32().map(u64::from))?,
            0x8c | b'U' => self.text(|input| input.u8().map(u64::from))?,
            0x8d => self.text(|input| input.u64())?,
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
            0x8f => self.push(Value::Opaque)?,
            0x90 => drop(self.pop_mark()?),
            0x91 => {
                self.pop_mark()?;
                self.push(Value::Opaque)?;
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
            b'h' => {
                let key = u32::from(have(input.u8())?);
                self.recall(key)?;
            }
            b'j' => {
                let key = have(input.u32())?;
                self.recall(key)?;
            }

            b'c' => {
                let module = utf8(have(input.line())?)?;
                let name = utf8(have(input.line())?)?;
                self.name(module, name)?;
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                match (self.value(module), self.value(name)) {
                    (&Value::Text(module), &Value::Text(name)) => self.name(module, name)?,
                    _ => return Err(Stop::Malformed("a name that is no text")),
                }
            }
            // REDUCE, NEWOBJ
            b'R' | 0x81 => {
                let (arguments, callee) = (self.pop()?, self.pop()?);
                self.call(callee, arguments)?;
            }
            // NEWOBJ_EX, which has keyword arguments besides
            0x92 => {
                self.pop()?;
                let (arguments, callee) = (self.pop()?, self.pop()?);
                self.call(callee, arguments)?;
            }
            // BUILD: attributes of an object, on which no weight depends.
            b'b' => drop(self.pop()?),
            b'Q' => {
                let reference = self.pop()?;
                let storage = self.storage(reference).ok_or(Stop::Malformed(
                    "a reference that is not one to a tensor's storage",
                ))?;
                self.push(Value::Storage(Box::new(storage)))?;
            }
            _ => return Err(Stop::Malformed("an instruction that no checkpoint needs")),
        }
        Ok(None)
    }

    fn push(&mut self, value: Value<'a>) -> Step<()> {
        self.stack.push(Id(self.values.len() as u32));
        self.values.push(value);
        Ok(())
    }

    /// Takes the topmost value, which must lie above the last mark.
    fn pop(&mut self) -> Step<Id> {
        self.base(1)?;
        self.stack.pop().ok_or(EMPTY)
    }

    /// Where the topmost `count` values begin; they lie above the last mark.
    fn base(&self, count: usize) -> Step<usize> {
        let floor = self.marks.last().copied().unwrap_or(0);
        let base = self.stack.len().checked_sub(count).ok_or(EMPTY)?;
        if base < floor {
            return Err(EMPTY);
        }
        Ok(base)
    }

    /// Takes all values above the last mark, and the mark.
    fn pop_mark(&mut self) -> Step<Vec<Id>> {
        let mark = self.marks.pop().ok_or(EMPTY)?;
        Ok(self.stack.split_off(mark))
    }

    fn value(&self, id: Id) -> &Value<'a> {
        &self.values[id.0 as usize]
    }

    fn top(&mut self) -> Step<&mut Value<'a>> {
        let id = *self.stack.last().ok_or(EMPTY)?;
        Ok(&mut self.values[id.0 as usize])
    }

    fn integer(&mut self, read: impl FnOnce(&mut Bytes<'a>) -> Option<i64>) -> Step<()> {
        let value = have(read(self.input))?;
        self.push(Value::Int(value))
    }

    /// The bytes behind their length.
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
        self.counted(length)?;
        self.push(Value::Opaque)
    }

    /// Appends to the list on top.
    fn extend(&mut self, items: Vec<Id>) -> Step<()> {
        match self.top()? {
            Value::List(list) => list.extend(items),
            Value::Opaque => {}
            _ => return Err(Stop::Malformed("items for what is no list")),
        }
        Ok(())
    }

    /// Sets keys and values in the dictionary on top.
    fn set(&mut self, items: &[Id]) -> Step<()> {
        let (pairs, []) = items.as_chunks::<2>() else {
            return Err(Stop::Malformed("a key without a value"));
        };
        match self.top()? {
            Value::Dict(dict) => dict.extend(pairs.iter().map(|&[key, value]| (key, value))),
            Value::Opaque => {}
            _ => return Err(Stop::Malformed("keys for what is no dictionary")),
        }
        Ok(())
    }

    fn remember(&mut self, key: u32) -> Step<()> {
        let top = *self.stack.last().ok_or(EMPTY)?;
        self.memo.insert(key, top);
        Ok(())
    }

    fn recall(&mut self, key: u32) -> Step<()> {
        let id = *self.memo.get(&key).ok_or(Stop::Malformed(
            "a reference to a value that was not remembered",
        ))?;
        self.stack.push(id);
        Ok(())
    }

    fn name(&mut self, module: &str, name: &str) -> Step<()> {
        match known(module, name) {
            Some(name) => self.push(Value::Name(name)),
            None => Err(Stop::Call(format!("{module}.{name}"))),
        }
    }

    /// Pushes what a call of a known name gives.
    fn call(&mut self, callee: Id, arguments: Id) -> Step<()> {
        let &Value::Name(name) = self.value(callee) else {
            return Err(Stop::Malformed("a call of what is no name"));
        };
        let Value::Tuple(arguments) = self.value(arguments) else {
            return Err(Stop::Malformed("a call without arguments"));
        };
        if arguments.len() > MAX_ARGUMENTS {
            return Err(Stop::Malformed("a call with too many arguments"));
        }
        let arguments = arguments.clone();
        let result = match name {
            Name::OrderedDict => self.dict(&arguments),
            Name::RebuildTensor => self.tensor(&arguments).map(Box::new).map(Value::Tensor),
            // The first argument is the parameter's tensor.
            Name::RebuildParameter => match arguments.first().map(|&id| self.value(id)) {
                Some(tensor @ Value::Tensor(_)) => Some(tensor.clone()),
                _ => None,
            },
            Name::Storage(_) => None,
            Name::Harmless => Some(Value::Opaque),
        };
        self.push(result.ok_or(Stop::Malformed("a call with wrong arguments"))?)
    }

    /// A dictionary from nothing or from a list of pairs.
    fn dict(&mut self, arguments: &[Id]) -> Option<Value<'a>> {
        let &[list] = arguments else {
            return arguments.is_empty().then(|| Value::Dict(Vec::new()));
        };
        let Value::List(pairs) = &self.values[list.0 as usize] else {
            return None;
        };
        self.steps += pairs.len();
        if self.steps > MAX_STEPS {
            return None;
        }
        let pairs = pairs.iter().map(|&pair| match self.value(pair) {
            Value::Tuple(pair) | Value::List(pair) => match pair[..] {
                [key, value] => Some((key, value)),
                _ => None,
            },
            _ => None,
        });
        pairs.collect::<Option<_>>().map(Value::Dict)
    }

    /// Storage, offset, shape, strides; what follows is of no interest.
    fn tensor(&self, arguments: &[Id]) -> Option<Tensor> {
        let &[storage, offset, shape, strides, ..] = arguments else {
            return None;
        };
        matches!(self.value(storage), Value::Storage(_)).then_some(Tensor {
            storage,
            offset,
            shape,
            strides,
        })
    }

    /// `("storage", class, key, device, length)`, and in older files a view
    /// of another storage: `(its key, offset, length)`.
    fn storage(&self, reference: Id) -> Option<Storage<'a>> {
        let Value::Tuple(parts) = self.value(reference) else {
            return None;
        };
        let &[tag, class, key, _, _, ref view @ ..] = &parts[..] else {
            return None;
        };
        let (Value::Text("storage"), &Value::Name(Name::Storage(element)), &Value::Text(key)) =
            (self.value(tag), self.value(class), self.value(key))
        else {
            return None;
        };
        let start = match view.first().map(|&view| self.value(view)) {
            None | Some(Value::None) => 0,
            Some(Value::Tuple(view)) => self.value(*view.get(1)?).size()?,
            Some(_) => return None,
        };
        Some(Storage {
            element,
            key,
            start,
        })
    }
}

const EMPTY: Stop = Stop::Malformed("an instruction that finds too few values");

fn have<T>(value: Option<T>) -> Step<T> {
    value.ok_or(Stop::Truncated)
}

fn utf8(bytes: &[u8]) -> Step<&str> {
    std::str::from_utf8(bytes).map_err(|_| Stop::Malformed("a name that is no text"))
}
