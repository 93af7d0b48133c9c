//! Finds the elements of a pickle's tensors in the file.

use std::collections::HashMap;
use std::ops::Range;

use super::bytes::Bytes;
use super::element::Element;
use super::numpy;
use super::pickle::{Global, Id, Meaning, Object, TensorView, Value, Values};
use super::torch::Legacy;
use super::{Entry, Obstacle, StoredTensor};

/// Finds the tensors of a pickle.
pub(super) struct TensorFinder<'f, 'v> {
    file: &'f [u8],
    values: &'v Values<'f>,
    /// The range of the storage with a key in the file.
    find: &'v dyn Fn(&str) -> Option<Range<usize>>,
    /// Whether the elements of the file's storages are big-endian.
    big_endian: bool,
    /// Storages in files embedded in this one, by the start of the embedded file.
    nested: HashMap<usize, Option<(Element, Range<usize>)>>,
}

impl<'f, 'v> TensorFinder<'f, 'v> {
    pub fn new(
        file: &'f [u8],
        values: &'v Values<'f>,
        find: &'v dyn Fn(&str) -> Option<Range<usize>>,
    ) -> Self {
        Self {
            file,
            values,
            find,
            big_endian: false,
            nested: HashMap::new(),
        }
    }

    /// The same for storages in this byte order. NumPy's arrays and embedded files
    /// have their own.
    pub fn with_byte_order(mut self, big_endian: bool) -> Self {
        self.big_endian = big_endian;
        self
    }

    /// The tensor that a value is or would have become when unpickled, or why
    /// it cannot be read.
    pub fn tensor(&mut self, id: Id) -> Option<Entry> {
        let values = self.values;
        match values.get(id) {
            Value::Tensor(tensor) => Some(self.stored(tensor).map_err(Obstacle::tensor)),
            Value::Object(object) => Some(match numpy::array(values, object) {
                Some(array) => array.stored().map_err(Obstacle::tensor),
                None => Err(obstacle(values, object)),
            }),
            _ => None,
        }
    }

    fn stored(&mut self, tensor: &TensorView) -> Result<StoredTensor, String> {
        let values = self.values;
        let pending = tensor.pending.and_then(|id| values.items(id));
        if pending.is_some_and(|items| !items.is_empty()) {
            return Err(
                "is a view that is yet to be negated; save its resolve_neg().resolve_conj()".into(),
            );
        }
        let (element, data, start) = self.storage(tensor.storage)?;
        let element = match tensor.dtype.map(|id| values.get(id)) {
            None => element,
            Some(Value::Global(global)) => match global.meaning() {
                Meaning::Dtype(element) => element,
                _ => Element::Other("an unknown type", 1),
            },
            Some(_) => return Err("has elements of a type that does not exist".into()),
        };
        let offset = values.get(tensor.offset).size();
        let sides = (values.sizes(tensor.shape), values.sizes(tensor.strides));
        let (Some(offset), (Some(shape), Some(strides))) = (offset, sides) else {
            return Err("has sizes or strides that no tensor has".into());
        };
        if shape.len() != strides.len() {
            return Err("has strides for other sides than its own".into());
        }
        let offset = offset.saturating_add(start);
        let is_own = matches!(values.get(tensor.storage), Value::Storage(_));
        let stored = StoredTensor::new(element, shape, strides, offset, data)?;
        Ok(stored.with_byte_order(is_own && self.big_endian))
    }

    /// The type of a storage's elements, their range in the file, and the index
    /// among them of the storage's first element.
    fn storage(&mut self, id: Id) -> Result<(Element, Range<usize>, usize), String> {
        let values = self.values;
        match values.get(id) {
            Value::Storage(storage) => {
                let parts = values
                    .parts(storage)
                    .ok_or("has a storage of an unknown type")?;
                let data = (self.find)(parts.key).ok_or("has no data in the file")?;
                Ok((parts.element, data, parts.start))
            }
            Value::StorageFile(place) => {
                let file = self.file;
                let nested = self
                    .nested
                    .entry(place.start)
                    .or_insert_with(|| nested(file, place.clone()));
                let (element, data) = nested.clone().ok_or("has a storage that is damaged")?;
                Ok((element, data, 0))
            }
            _ => Err("has no storage".into()),
        }
    }
}

/// The only storage of a file of `torch.save` that is embedded in the file.
fn nested(file: &[u8], place: Range<usize>) -> Option<(Element, Range<usize>)> {
    let legacy = Legacy::read(&mut Bytes::within(file, place)).ok()?;
    let Value::Storage(storage) = legacy.values.get(legacy.top) else {
        return None;
    };
    let parts = legacy.values.parts(storage)?;
    let data = legacy.storages.get(parts.key)?.clone();
    (parts.start == 0).then_some((parts.element, data))
}

/// Why an object is not a readable tensor.
fn obstacle(values: &Values<'_>, object: &Object) -> Obstacle {
    let Some(&Global { module, name }) = values.class(object) else {
        return Obstacle {
            problem: "is the result of an object of no known class".into(),
            is_tensor: false,
        };
    };
    let problem = match (module, name) {
        ("torch._utils", "_rebuild_sparse_tensor" | "_rebuild_sparse_csr_tensor") => {
            "is a sparse tensor; save its to_dense()".into()
        }
        ("torch._utils", "_rebuild_qtensor") => {
            "is a quantised tensor; save its dequantize(), or the weights before quantisation"
                .into()
        }
        ("torch._utils", "_rebuild_meta_tensor_no_storage") => {
            "was on the meta device, so that it has no values".into()
        }
        ("torch._utils", "_rebuild_nested_tensor") => "is a nested tensor".into(),
        ("torch._utils", "_rebuild_wrapper_subclass") => {
            "is of a subclass of tensors without values of its own".into()
        }
        ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => {
            "has a storage in an unsupported form, such as pickle.dump writes in old \
             protocols; save it with torch.save"
                .into()
        }
        _ if module.starts_with("numpy") => {
            "is a NumPy array of a type or in a form that is not read; save \
             torch.from_numpy(array.astype('float32')) of it"
                .into()
        }
        _ => format!(
            "is the result of {}.{}, which is not run",
            short(module),
            short(name)
        ),
    };
    Obstacle {
        problem,
        is_tensor: module == "torch._utils" || name == "_reconstruct" || name == "_frombuffer",
    }
}

/// A name from a file, shortened for messages.
pub(super) fn short(name: &str) -> String {
    const MOST: usize = 80;
    match name.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_owned(),
    }
}
