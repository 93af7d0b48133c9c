//! A reader for the pickles that PyTorch writes, which runs nothing.
//!
//! Python's pickles are programs for a small machine that may call any
//! function by name. This machine knows the instructions that dictionaries of
//! tensors are made of, and a fixed list of names; any other name ends the
//! reading. Calls of the known names build plain values here, and nothing is
//! ever looked up or executed.

mod machine;
mod names;

use super::MAX_SIDES;
use super::element::Element;

pub(super) use machine::run;

/// A value that a pickle describes. Values refer to each other by [`Id`], so
/// that a value may hold itself without harm.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value<'a> {
    None,
    Int(i64),
    /// An integer of more than 64 bits, in little-endian order.
    LongInt(&'a [u8]),
    Text(&'a str),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Name(Name),
    Storage(Box<Storage<'a>>),
    Tensor(Box<Tensor>),
    /// Something that no weight depends on: a float, bytes, a set, options.
    Opaque,
}

/// The place of a value among all of a pickle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Id(u32);

/// A name that a checkpoint may mention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    /// The class of a storage.
    Storage(Element),
    /// Something of which no weight is made.
    Harmless,
}

/// A reference to a block of elements that lies outside of the pickle.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Storage<'a> {
    pub element: Element,
    pub key: &'a str,
    /// Where this storage begins within that of its key, in elements.
    pub start: usize,
}

/// A tensor: a strided view of a storage, in elements. Its numbers stay where
/// the pickle has them, as many tensors can share them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Tensor {
    pub storage: Id,
    pub offset: Id,
    pub shape: Id,
    pub strides: Id,
}

impl Value<'_> {
    /// A number that is a size, an offset or a stride.
    pub fn size(&self) -> Option<usize> {
        match *self {
            Value::Int(size) => usize::try_from(size).ok(),
            _ => None,
        }
    }
}

/// All values of a pickle.
#[derive(Debug)]
pub(super) struct Values<'a> {
    all: Vec<Value<'a>>,
}

impl<'a> Values<'a> {
    pub fn get(&self, id: Id) -> &Value<'a> {
        &self.all[id.0 as usize]
    }

    /// All storages that are mentioned.
    pub fn storages(&self) -> impl Iterator<Item = &Storage<'a>> {
        self.all.iter().filter_map(|value| match value {
            Value::Storage(storage) => Some(&**storage),
            _ => None,
        })
    }

    /// The sizes of a tensor's sides, or the strides along them.
    pub fn sizes(&self, id: Id) -> Option<Vec<usize>> {
        match self.get(id) {
            Value::Tuple(sizes) | Value::List(sizes) if sizes.len() <= MAX_SIDES => {
                sizes.iter().map(|&size| self.get(size).size()).collect()
            }
            _ => None,
        }
    }

    /// The value of a text key of a dictionary; the last counts, as in
    /// Python.
    pub fn item(&self, dict: &[(Id, Id)], key: &str) -> Option<&Value<'a>> {
        dict.iter()
            .rev()
            .find(|(k, _)| *self.get(*k) == Value::Text(key))
            .map(|&(_, value)| self.get(value))
    }
}

/// Why a pickle could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PickleFault {
    /// It is damaged or no pickle.
    Malformed(String),
    /// It names something that is not on the list.
    Call(String),
}
