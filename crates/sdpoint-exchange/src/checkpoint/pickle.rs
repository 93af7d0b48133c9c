//! A reader for the pickles that PyTorch writes, which runs nothing.
//!
//! A pickle is a program for a small machine that may call any function by
//! name. This machine follows every instruction, but looks nothing up: calls
//! of the few names that tensors are made by become plain values, and a call
//! of any other name becomes an [`Object`] that remembers what would have been
//! called. So a checkpoint may hold whatever its author kept beside the
//! weights, and only a weight that comes out of an object is refused.

mod call;
mod change;
mod machine;
mod names;

use std::num::NonZeroU32;
use std::ops::Range;

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
    /// Bytes, by their place in the file.
    Bytes(Range<usize>),
    Tuple(Vec<Id>),
    /// A list or a set.
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Global(Box<Global<'a>>),
    Storage(Storage),
    /// A storage in a file of `torch.save` that lies within this one.
    StorageFile(Range<usize>),
    Tensor(Tensor),
    Object(Object),
    /// Something that no weight depends on, such as a float.
    Opaque,
}

/// The place of a value among all of a pickle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Id(NonZeroU32);

impl Id {
    /// The id of the value with this index.
    fn new(index: usize) -> Self {
        // The machine makes fewer values than 32 bits count.
        Self(NonZeroU32::MIN.saturating_add(index as u32))
    }

    pub fn index(self) -> usize {
        self.0.get() as usize - 1
    }
}

/// A class or function by its name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Global<'a> {
    pub module: &'a str,
    pub name: &'a str,
}

/// What a name means to the reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    Dict,
    /// A list, set or tuple of the items of its argument.
    Collection,
    /// A view of a storage; with a type of elements of its own or without.
    RebuildTensor {
        typed: bool,
    },
    /// Gives its first argument, a tensor, in another form.
    Wrapper,
    /// Calls its first argument, and gives the result attributes.
    RebuildFromType,
    /// A storage from the bytes of a file of `torch.save`.
    LoadFromBytes,
    /// The class of a storage.
    Storage(Element),
    /// The type of a tensor's elements.
    Dtype(Element),
    /// A plain value, such as a date, of which no weight is made.
    Plain,
    /// Anything else: what comes out of it is an [`Object`].
    Unknown,
}

/// What a call of an unknown name would have made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Object {
    /// What would have been called.
    pub class: Id,
    /// The tuple of its arguments.
    pub arguments: Id,
    /// What it would have been given by `__setstate__`, its attributes mostly.
    pub state: Option<Id>,
    /// The dictionary of the items that were set in it.
    pub items: Option<Id>,
    /// The list of the items that were appended to it.
    pub list: Option<Id>,
}

/// A reference to a block of elements that lies outside of the pickle. Its
/// parts stay where the pickle has them, as many storages can share them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Storage {
    pub class: Id,
    pub key: Id,
    /// In older files, of which part of the key's storage it is a view.
    pub view: Option<Id>,
}

/// What a [`Storage`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StorageParts<'a> {
    pub element: Element,
    pub key: &'a str,
    /// Where this storage begins within that of its key, in elements.
    pub start: usize,
}

/// A tensor: a strided view of a storage, in elements. Its numbers stay where
/// the pickle has them, as many tensors can share them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tensor {
    pub storage: Id,
    pub offset: Id,
    pub shape: Id,
    pub strides: Id,
    /// The type of its elements, where it is not the storage's.
    pub dtype: Option<Id>,
    /// What else the values depend on: a dictionary that says whether they
    /// are yet to be conjugated or negated.
    pub pending: Option<Id>,
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
        &self.all[id.index()]
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// All storages that are mentioned and sound.
    pub fn storages(&self) -> impl Iterator<Item = StorageParts<'a>> {
        self.all.iter().filter_map(|value| match value {
            Value::Storage(storage) => self.parts(storage),
            _ => None,
        })
    }

    /// What a storage says, if it is what a storage can say.
    pub fn parts(&self, storage: &Storage) -> Option<StorageParts<'a>> {
        let (Value::Global(class), &Value::Text(key)) =
            (self.get(storage.class), self.get(storage.key))
        else {
            return None;
        };
        let Meaning::Storage(element) = class.meaning() else {
            return None;
        };
        // The view's key, its offset and its length.
        let start = match storage.view.map(|view| self.get(view)) {
            None | Some(Value::None) => 0,
            Some(Value::Tuple(view)) => self.get(*view.get(1)?).size()?,
            Some(_) => return None,
        };
        Some(StorageParts {
            element,
            key,
            start,
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

    /// The items of a dictionary, or of an object that is one.
    pub fn items(&self, id: Id) -> Option<&[(Id, Id)]> {
        match self.get(id) {
            Value::Dict(items) => Some(items),
            Value::Object(object) => match self.get(object.items?) {
                Value::Dict(items) => Some(items),
                _ => None,
            },
            _ => None,
        }
    }

    /// The name that an object comes from, directly or by calls of calls.
    pub fn class(&self, object: &Object) -> Option<&Global<'a>> {
        let mut class = object.class;
        // Deeper than anything that is no riddle.
        for _ in 0..8 {
            match self.get(class) {
                Value::Global(global) => return Some(global),
                Value::Object(object) => class = object.class,
                _ => return None,
            }
        }
        None
    }
}

/// Why a pickle could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PickleFault {
    /// It is damaged or no pickle.
    Malformed(String),
    /// It describes more than a checkpoint holds.
    TooMuch,
}
