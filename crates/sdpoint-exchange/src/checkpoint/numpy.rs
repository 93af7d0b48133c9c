//! NumPy arrays in pickles.

use super::StoredTensor;
use super::data::Data;
use super::element::Element;
use super::pickle::{Id, Object, Value, Values};

/// An array whose elements are contiguous in the pickle.
pub(super) struct Array {
    element: Element,
    shape: Vec<usize>,
    /// Whether it is in column-major (Fortran) order.
    fortran: bool,
    big_endian: bool,
    data: Data,
}

impl Array {
    pub fn stored(self) -> Result<StoredTensor, String> {
        let mut strides = vec![1; self.shape.len()];
        let mut stride = 1usize;
        let mut set = |side: usize| {
            strides[side] = stride;
            stride = stride.saturating_mul(self.shape[side]);
        };
        let sides = 0..self.shape.len();
        if self.fortran {
            sides.for_each(&mut set);
        } else {
            sides.rev().for_each(&mut set);
        }
        let stored = StoredTensor::new(self.element, self.shape, strides, 0, self.data)?;
        Ok(stored.with_byte_order(self.big_endian))
    }
}

/// An object as an array of numbers, if it is one that can be read.
pub(super) fn array(values: &Values<'_>, object: &Object) -> Option<Array> {
    let class = values.class(object)?;
    if !class.module.starts_with("numpy.") {
        return None;
    }
    match class.name {
        // Its state: version, shape, type, order, bytes.
        "_reconstruct" => {
            let [_, shape, dtype, fortran, data] = parts(values, object.state?)?[..] else {
                return None;
            };
            let fortran = *values.get(fortran) == Value::Int(1);
            whole(values, data, dtype, shape, fortran)
        }
        // Its arguments: bytes, type, shape, order.
        "_frombuffer" => {
            let [data, dtype, shape, order, ..] = parts(values, object.arguments)?[..] else {
                return None;
            };
            let fortran = *values.get(order) == Value::Text("F");
            whole(values, data, dtype, shape, fortran)
        }
        _ => None,
    }
}

fn whole(values: &Values<'_>, data: Id, dtype: Id, shape: Id, fortran: bool) -> Option<Array> {
    let data = match values.get(data) {
        Value::Bytes(range) => range.clone().into(),
        Value::EncodedBytes { text, length } => Data::encoded(text.clone(), *length),
        _ => return None,
    };
    let (element, big_endian) = element(values, dtype)?;
    Some(Array {
        element,
        big_endian,
        shape: values.sizes(shape)?,
        fortran,
        data,
    })
}

/// The type of an array's elements, `numpy.dtype("f4")` with its byte order in
/// its state, and whether that is big-endian.
fn element(values: &Values<'_>, dtype: Id) -> Option<(Element, bool)> {
    let Value::Object(dtype) = values.get(dtype) else {
        return None;
    };
    let &name = parts(values, dtype.arguments)?.first()?;
    let order = dtype.state.and_then(|state| parts(values, state)?.get(1));
    let big_endian = order.is_some_and(|&order| *values.get(order) == Value::Text(">"));
    let element = match *values.get(name) {
        Value::Text("f2") => Element::F16,
        Value::Text("f4") => Element::F32,
        Value::Text("f8") => Element::F64,
        Value::Text("i8") => Element::Other("int64", 8),
        Value::Text("i4") => Element::Other("int32", 4),
        Value::Text("i2") => Element::Other("int16", 2),
        Value::Text("i1") => Element::Other("int8", 1),
        Value::Text("u1") => Element::Other("uint8", 1),
        Value::Text("b1") => Element::Other("bool", 1),
        _ => return None,
    };
    Some((element, big_endian))
}

fn parts<'v>(values: &'v Values<'_>, id: Id) -> Option<&'v [Id]> {
    match values.get(id) {
        Value::Tuple(parts) => Some(parts),
        _ => None,
    }
}
