//! The results of calls.

use super::unpickler::{MAX_VALUES, Step, Stop, Unpickler};
use super::{Id, Meaning, Object, Storage, TensorView, Value};

/// The most arguments of a known function.
const MAX_ARGUMENTS: usize = 16;

impl<'a> Unpickler<'_, 'a> {
    /// The result of calling a value with a tuple of arguments.
    pub(super) fn call(&mut self, callee: Id, arguments: Id) -> Step<Id> {
        let meaning = self.meaning(callee);
        match self.known(meaning, arguments)? {
            Some(made) => Ok(made),
            None => self.object_of(callee, arguments),
        }
    }

    fn meaning(&self, callee: Id) -> Meaning {
        match self.value(callee) {
            Value::Global(global) => global.meaning(),
            _ => Meaning::Unknown,
        }
    }

    fn object_of(&mut self, class: Id, arguments: Id) -> Step<Id> {
        self.make(Value::Object(Object {
            class,
            arguments,
            state: None,
            items: None,
            list: None,
        }))
    }

    /// The result of calling a known name, if its arguments are well formed.
    fn known(&mut self, meaning: Meaning, arguments: Id) -> Step<Option<Id>> {
        let parts: Vec<Id> = match self.value(arguments) {
            Value::Tuple(parts) if parts.len() <= MAX_ARGUMENTS => parts.clone(),
            _ => return Ok(None),
        };
        let made = match meaning {
            Meaning::Dict => self.dict(&parts)?,
            Meaning::Collection => match parts.first() {
                Some(&items) if matches!(self.value(items), Value::List(_) | Value::Tuple(_)) => {
                    return Ok(Some(items));
                }
                _ => Value::List(Vec::new()),
            },
            Meaning::RebuildTensor { typed } => match self.tensor(&parts, typed) {
                Some(tensor) => Value::Tensor(tensor),
                None => return Ok(None),
            },
            // An object is passed on, as its class says why it is not a tensor.
            Meaning::Wrapper => {
                let first = parts.first().copied();
                let is_tensor =
                    |&id: &Id| matches!(self.value(id), Value::Tensor(_) | Value::Object(_));
                return Ok(first.filter(is_tensor));
            }
            Meaning::RebuildFromType => return self.with_attributes(&parts),
            Meaning::LoadFromBytes => match parts.first().map(|&id| self.value(id)) {
                Some(Value::Bytes(file)) => Value::StorageFile(file.clone()),
                _ => return Ok(None),
            },
            Meaning::Encode => match self.encoded(&parts)? {
                Some(bytes) => bytes,
                None => return Ok(Some(Self::OPAQUE)),
            },
            Meaning::Plain => return Ok(Some(Self::OPAQUE)),
            _ => return Ok(None),
        };
        self.make(made).map(Some)
    }

    /// Bytes from their text in Latin-1; the arguments are the text and the name
    /// of the encoding.
    fn encoded(&mut self, parts: &[Id]) -> Step<Option<Value<'a>>> {
        let &[text, encoding] = parts else {
            return Ok(None);
        };
        let (&Value::Text(text), &Value::Text("latin1")) = (self.value(text), self.value(encoding))
        else {
            return Ok(None);
        };
        // Many calls may encode the same text, so limit the bytes in total: files of
        // `torch.save` have each text once.
        self.encoded += text.len();
        if self.encoded > self.input.len() {
            return Err(Stop::TooMuch);
        }
        let length = text.chars().count();
        let range = self.input.range_of(text.as_bytes());
        Ok(range
            .filter(|_| text.chars().all(|c| c <= '\u{ff}'))
            .map(|text| Value::EncodedBytes { text, length }))
    }

    /// A tensor with attributes. The arguments are the function that creates
    /// it, its class, the function's arguments, and the attributes.
    fn with_attributes(&mut self, parts: &[Id]) -> Step<Option<Id>> {
        let &[function, _, arguments, ..] = parts else {
            return Ok(None);
        };
        let meaning = self.meaning(function);
        let made = match meaning {
            Meaning::RebuildTensor { .. } | Meaning::Wrapper => self.known(meaning, arguments)?,
            _ => None,
        };
        // The function's name tells what kind of tensor it would be.
        let tensor = made.map_or_else(|| self.object_of(function, arguments), Ok);
        tensor.map(Some)
    }

    /// An empty dictionary, or one from a list of pairs.
    fn dict(&mut self, arguments: &[Id]) -> Step<Value<'a>> {
        let empty = Ok(Value::Dict(Vec::new()));
        let Some(&first) = arguments.first() else {
            return empty;
        };
        let Value::List(pairs) = &self.values[first.index()] else {
            return empty;
        };
        // Many calls may copy the same list, so limit the pairs in total.
        self.copied += pairs.len();
        if self.copied > MAX_VALUES {
            return Err(Stop::TooMuch);
        }
        let pairs = pairs.iter().filter_map(|&pair| match self.value(pair) {
            Value::Tuple(pair) | Value::List(pair) => match pair[..] {
                [key, value] => Some((key, value)),
                _ => None,
            },
            _ => None,
        });
        Ok(Value::Dict(pairs.collect()))
    }

    /// The arguments are storage, offset, shape, strides, `requires_grad`,
    /// backward hooks, the type of the elements if `typed`, and pending
    /// operations.
    fn tensor(&self, arguments: &[Id], typed: bool) -> Option<TensorView> {
        let &[storage, offset, shape, strides, ref rest @ ..] = arguments else {
            return None;
        };
        let after_hooks = rest.get(2).copied();
        let (dtype, pending) = match typed {
            true => (after_hooks, rest.get(3).copied()),
            false => (None, after_hooks),
        };
        let is_storage = matches!(
            self.value(storage),
            Value::Storage(_) | Value::StorageFile(_)
        );
        is_storage.then_some(TensorView {
            storage,
            offset,
            shape,
            strides,
            dtype,
            pending,
        })
    }

    /// The value of a persistent id as protocol 0 writes it: Python's text of the
    /// tuple that [`Self::persistent`] has as a value.
    pub(super) fn persistent_text(&mut self, text: &'a str) -> Step<Id> {
        let Some((class, key)) = storage_of(text) else {
            return Ok(Self::OPAQUE);
        };
        let Some((module, name)) = class.rsplit_once('.') else {
            return Ok(Self::OPAQUE);
        };
        let class = self.named(module, name)?;
        let key = self.make(Value::Text(key))?;
        self.make(Value::Storage(Storage {
            class,
            key,
            view: None,
        }))
    }

    /// The value of a persistent id, a reference to something outside of the
    /// pickle: `("storage", class, key, device, length)`, in older files with a
    /// view of another storage, `(its key, offset, length)`; or `("module",
    /// class, its source file, its source)`.
    pub(super) fn persistent(&mut self, reference: Id) -> Step<Id> {
        let Value::Tuple(parts) = self.value(reference) else {
            return Ok(Self::OPAQUE);
        };
        match parts[..] {
            [tag, class, ..] if matches!(self.value(tag), Value::Text("module")) => Ok(class),
            [tag, class, key, _, _, ref view @ ..]
                if matches!(self.value(tag), Value::Text("storage")) =>
            {
                let view = view.first().copied();
                self.make(Value::Storage(Storage { class, key, view }))
            }
            _ => Ok(Self::OPAQUE),
        }
    }
}

/// The class and the key in Python's text of a storage's persistent id, such as
/// `('storage', <class 'torch.FloatStorage'>, '0', 'cpu', 64)`; older files have
/// `None` as a sixth part. Views of other storages are not supported.
fn storage_of(text: &str) -> Option<(&str, &str)> {
    let rest = text.strip_prefix("('storage', <class '")?;
    let (class, rest) = rest.split_once("'>, '")?;
    let (key, rest) = rest.split_once("', '")?;
    let (_device, rest) = rest.split_once("', ")?;
    let length = rest.strip_suffix(')')?;
    let length = length.strip_suffix(", None").unwrap_or(length);
    length
        .bytes()
        .all(|b| b.is_ascii_digit())
        .then_some((class, key))
}
