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
    let data = data_of(values, data)?;
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
    let (name, big_endian) = dtype_name(values, dtype)?;
    let element = match *values.get(name) {
        Value::Text("f2") => Element::F16,
        Value::Text("f4") => Element::F32,
        Value::Text("f8") => Element::F64,
        Value::Text("c8") => Element::Other("complex64", 8),
        Value::Text("c16") => Element::Other("complex128", 16),
        Value::Text("i8") => Element::Other("int64", 8),
        Value::Text("i4") => Element::Other("int32", 4),
        Value::Text("i2") => Element::Other("int16", 2),
        Value::Text("i1") => Element::Other("int8", 1),
        Value::Text("u8") => Element::Other("uint64", 8),
        Value::Text("u4") => Element::Other("uint32", 4),
        Value::Text("u2") => Element::Other("uint16", 2),
        Value::Text("u1") => Element::Other("uint8", 1),
        Value::Text("b1") => Element::Other("bool", 1),
        _ => return None,
    };
    Some((element, big_endian))
}

/// The name of a type, such as `f4`, and whether it is big-endian.
fn dtype_name(values: &Values<'_>, dtype: Id) -> Option<(Id, bool)> {
    let Value::Object(dtype) = values.get(dtype) else {
        return None;
    };
    let &name = parts(values, dtype.arguments)?.first()?;
    let order = dtype.state.and_then(|state| parts(values, state)?.get(1));
    let big_endian = order.is_some_and(|&order| *values.get(order) == Value::Text(">"));
    Some((name, big_endian))
}

/// A string of NumPy (`numpy.str_`) of at most `most` characters.
pub(super) fn text(values: &Values<'_>, id: Id, file: &[u8], most: usize) -> Option<String> {
    const WIDTH: usize = size_of::<u32>();
    let Value::Object(object) = values.get(id) else {
        return None;
    };
    let class = values.class(object)?;
    if !class.module.starts_with("numpy.") || class.name != "scalar" {
        return None;
    }
    let &[dtype, data] = parts(values, object.arguments)? else {
        return None;
    };
    let (name, big_endian) = dtype_name(values, dtype)?;
    let is_text = matches!(*values.get(name), Value::Text(name) if name.starts_with('U'));
    let data = data_of(values, data).filter(|data| is_text && data.len() <= most * WIDTH)?;
    let bytes = data.read(file)?;
    let (units, []) = bytes.as_chunks::<WIDTH>() else {
        return None;
    };
    let code = match big_endian {
        true => u32::from_be_bytes,
        false => u32::from_le_bytes,
    };
    let text: Option<String> = units
        .iter()
        .map(|&unit| char::from_u32(code(unit)))
        .collect();
    // Shorter strings are filled up.
    Some(text?.trim_end_matches('\0').to_owned())
}

fn data_of(values: &Values<'_>, data: Id) -> Option<Data> {
    match values.get(data) {
        Value::Bytes(range) => Some(range.clone().into()),
        Value::EncodedBytes { text, length } => Some(Data::encoded(text.clone(), *length)),
        _ => None,
    }
}

fn parts<'v>(values: &'v Values<'_>, id: Id) -> Option<&'v [Id]> {
    match values.get(id) {
        Value::Tuple(parts) => Some(parts),
        _ => None,
    }
}
