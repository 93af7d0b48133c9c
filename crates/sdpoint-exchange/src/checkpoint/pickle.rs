//! A reader of the pickles that PyTorch writes, which executes no code.
//!
//! A pickle is a program for a stack machine that may call any function by
//! name. This reader follows every instruction but calls nothing: calls of the
//! few functions that create tensors become plain values, and a call of any
//! other function becomes an [`Object`] that records the call. So a checkpoint
//! may contain arbitrary objects beside the weights, and only a weight that is
//! such an object is an error.

mod call;
mod change;
mod names;
mod unpickler;

use std::num::NonZeroU32;
use std::ops::Range;

use super::MAX_SIDES;
use super::element::Element;

pub(super) use unpickler::run;

/// A value that a pickle describes. Values refer to each other by [`Id`], so
/// that a value that contains itself does no harm.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value<'a> {
    None,
    Int(i64),
    Float(f64),
    /// An integer of more than 64 bits, in little-endian order.
    LongInt(&'a [u8]),
    Text(&'a str),
    /// Bytes, by their range in the file.
    Bytes(Range<usize>),
    /// Bytes as text, each of them a character of Latin-1, as protocols before 3
    /// write them. The range is that of the UTF-8 text in the file.
    EncodedBytes {
        text: Range<usize>,
        /// The number of bytes.
        length: usize,
    },
    Tuple(Vec<Id>),
    /// A list or a set.
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Global(Box<Global<'a>>),
    Storage(Storage),
    /// A storage in a file of `torch.save` that is embedded in this one.
    StorageFile(Range<usize>),
    Tensor(TensorView),
    Object(Object),
    /// A value that no weight depends on.
    Opaque,
}

/// The number of a value in a pickle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Id(NonZeroU32);

impl Id {
    /// The id of the value with this index.
    fn new(index: usize) -> Self {
        // The reader creates at most `MAX_VALUES` values.
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

/// How the reader treats a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    Dict,
    /// A list, set or tuple of the items of its argument.
    Collection,
    /// Creates a view of a storage, possibly with another element type.
    RebuildTensor {
        typed: bool,
    },
    /// Returns its first argument, a tensor, in another form.
    Wrapper,
    /// Calls its first argument, and sets attributes of the result.
    RebuildFromType,
    /// Loads a storage from the bytes of a file of `torch.save`.
    LoadFromBytes,
    /// The class of a storage.
    Storage(Element),
    /// The type of a tensor's elements.
    Dtype(Element),
    /// Encodes text as bytes.
    Encode,
    /// Creates a plain value that no weight depends on, such as a string.
    Plain,
    /// Anything else: a call results in an [`Object`].
    Unknown,
}

/// The result of a call of an unknown name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Object {
    /// The class or function called.
    pub class: Id,
    /// The tuple of its arguments.
    pub arguments: Id,
    /// The argument of `__setstate__`, usually its attributes.
    pub state: Option<Id>,
    /// The dictionary of items set in it.
    pub items: Option<Id>,
    /// The list of items appended to it.
    pub list: Option<Id>,
}

/// A reference to a block of elements outside of the pickle. Holds ids of its
/// parts rather than copies, as many storages may share them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Storage {
    pub class: Id,
    pub key: Id,
    /// In older files, the part of the key's storage that it is a view of.
    pub view: Option<Id>,
}

/// The decoded parts of a [`Storage`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StorageParts<'a> {
    pub element: Element,
    pub key: &'a str,
    /// Offset of this storage in that of its key, in elements.
    pub start: usize,
}

/// A tensor: a strided view of a storage, in elements. Holds ids of its numbers
/// rather than copies, as many tensors may share them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TensorView {
    pub storage: Id,
    pub offset: Id,
    pub shape: Id,
    pub strides: Id,
    /// The type of its elements, if it differs from the storage's.
    pub dtype: Option<Id>,
    /// A dictionary of operations that are still to be applied to the values:
    /// conjugation and negation.
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

    /// The number of values.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// All well-formed storages.
    pub fn storages(&self) -> impl Iterator<Item = StorageParts<'a>> {
        self.all.iter().filter_map(|value| match value {
            Value::Storage(storage) => self.parts(storage),
            _ => None,
        })
    }

    /// The decoded parts of a storage, if it is well formed.
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

    /// The sizes of a tensor's dimensions, or their strides.
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

    /// The class or function that an object was created by, through calls of the
    /// results of calls.
    pub fn class(&self, object: &Object) -> Option<&Global<'a>> {
        let mut class = object.class;
        // Deeper than in any legitimate file.
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
    /// It is damaged or not a pickle.
    Malformed(String),
    /// It describes more values than any checkpoint.
    TooMuch,
}
