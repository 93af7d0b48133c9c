//! An inference request, independent of the transport.

use axum::body::Bytes;

use super::datatype::DataType;
use super::parameters::Parameters;

/// An inference request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InferRequest {
    /// The client's id of the request, which the answer repeats.
    pub id: Option<String>,
    /// Parameters: cost, deadline, and those that the protocol reserves.
    pub parameters: Parameters,
    /// The input tensors.
    pub inputs: Vec<Tensor>,
    /// The requested outputs; empty for all.
    pub outputs: Vec<RequestedOutput>,
}

/// An input tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// The name of the input.
    pub name: String,
    /// The type of the elements.
    pub datatype: DataType,
    /// The shape.
    pub shape: Vec<u64>,
    /// The elements.
    pub data: Data,
}

/// The elements of a tensor as received. Their number has not been checked against the
/// shape.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// Little-endian, row-major; byte strings each preceded by a length of 4 bytes.
    Raw(Bytes),
    /// Numbers.
    Floats(Vec<f32>),
    /// Bytes.
    Octets(Vec<u8>),
    /// Byte strings.
    Strings(Vec<Bytes>),
}

/// A requested output.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RequestedOutput {
    /// The name of the output.
    pub name: String,
    /// Its parameters.
    pub parameters: Parameters,
}
