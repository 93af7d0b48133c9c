//! The few ONNX messages that a network needs, in the encoding of protocol
//! buffers.
//!
//! Field numbers are those of `onnx.proto3` (ONNX 1.12). A protobuf library would
//! cost more build time than these few lines are worth.

/// A message under construction.
#[derive(Clone, Debug, Default)]
pub(super) struct Message(Vec<u8>);

/// `TensorProto.DataType` of single precision and of 64-bit integers.
const FLOAT: u64 = 1;
const INT64: u64 = 7;

/// `AttributeProto.AttributeType`.
const ATTRIBUTE_FLOAT: u64 = 1;
const ATTRIBUTE_INT: u64 = 2;
const ATTRIBUTE_INTS: u64 = 7;

impl Message {
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    /// An integer field; negative values are encoded with 64 bits.
    pub fn int(&mut self, field: u64, value: u64) {
        self.varint(field << 3);
        self.varint(value);
    }

    fn float(&mut self, field: u64, value: f32) {
        self.varint(field << 3 | 5);
        self.0.extend(value.to_le_bytes());
    }

    pub fn bytes(&mut self, field: u64, value: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
    }

    pub fn text(&mut self, field: u64, value: &str) {
        self.bytes(field, value.as_bytes());
    }

    pub fn message(&mut self, field: u64, value: &Message) {
        self.bytes(field, &value.0);
    }
}

/// An attribute of a node.
#[derive(Clone, Copy, Debug)]
pub(super) enum Attribute<'a> {
    Int(&'static str, i64),
    Ints(&'static str, &'a [i64]),
    Float(&'static str, f32),
}

impl Attribute<'_> {
    fn message(&self) -> Message {
        let mut message = Message::default();
        match *self {
            Self::Int(name, value) => {
                message.text(1, name);
                message.int(3, value as u64);
                message.int(20, ATTRIBUTE_INT);
            }
            Self::Ints(name, values) => {
                message.text(1, name);
                for &value in values {
                    message.int(8, value as u64);
                }
                message.int(20, ATTRIBUTE_INTS);
            }
            Self::Float(name, value) => {
                message.text(1, name);
                message.float(2, value);
                message.int(20, ATTRIBUTE_FLOAT);
            }
        }
        message
    }
}

/// `NodeProto`: an operator of ONNX's own domain, named after its output.
pub(super) fn node(
    operator: &str,
    inputs: &[&str],
    output: &str,
    attributes: &[Attribute<'_>],
) -> Message {
    let mut message = Message::default();
    for input in inputs {
        message.text(1, input);
    }
    message.text(2, output);
    message.text(3, output);
    message.text(4, operator);
    for attribute in attributes {
        message.message(5, &attribute.message());
    }
    message
}

/// `TensorProto` in single precision.
pub(super) fn floats(name: &str, shape: &[usize], values: &[f32]) -> Message {
    let bytes: Vec<u8> = values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    tensor(name, shape, FLOAT, &bytes)
}

/// `TensorProto` of a vector of integers.
pub(super) fn integers(name: &str, values: &[i64]) -> Message {
    let bytes: Vec<u8> = values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    tensor(name, &[values.len()], INT64, &bytes)
}

fn tensor(name: &str, shape: &[usize], data_type: u64, bytes: &[u8]) -> Message {
    let mut message = Message::default();
    for &side in shape {
        message.int(1, side as u64);
    }
    message.int(2, data_type);
    message.text(8, name);
    message.bytes(9, bytes);
    message
}

/// `ValueInfoProto` of a tensor in single precision whose first dimension is the
/// dynamic batch size.
pub(super) fn batch_of(name: &str, sides: &[usize]) -> Message {
    let mut shape = Message::default();
    let mut batch = Message::default();
    batch.text(2, "batch");
    shape.message(1, &batch);
    for &side in sides {
        let mut dimension = Message::default();
        dimension.int(1, side as u64);
        shape.message(1, &dimension);
    }
    let mut tensor = Message::default();
    tensor.int(1, FLOAT);
    tensor.message(2, &shape);
    let mut kind = Message::default();
    kind.message(1, &tensor);
    let mut message = Message::default();
    message.text(1, name);
    message.message(2, &kind);
    message
}

/// `StringStringEntryProto`.
pub(super) fn entry(key: &str, value: &str) -> Message {
    let mut message = Message::default();
    message.text(1, key);
    message.text(2, value);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_those_of_the_encoding() {
        // The examples of the protocol buffers' documentation of their encoding.
        let mut message = Message::default();
        message.int(1, 150);
        assert_eq!(message.0, [0x08, 0x96, 0x01]);
        let mut message = Message::default();
        message.text(2, "testing");
        assert_eq!(message.0, b"\x12\x07testing");
        let mut message = Message::default();
        message.int(1, -2i64 as u64);
        assert_eq!(
            message.0[1..],
            [0xfe, 255, 255, 255, 255, 255, 255, 255, 255, 1]
        );
        let mut message = Message::default();
        message.float(2, 1.0);
        assert_eq!(message.0, [0x15, 0, 0, 0x80, 0x3f]);
    }
}
