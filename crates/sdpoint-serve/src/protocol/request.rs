//! An inference request, whatever the protocol that brought it.

use axum::body::Bytes;

use super::datatype::DataType;
use super::parameters::Parameters;

/// A request for inference.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InferRequest {
    /// The client's name for the request, which the answer repeats.
    pub id: Option<String>,
    /// Cost, deadline, and what the protocol reserves.
    pub parameters: Parameters,
    /// The input tensors.
    pub inputs: Vec<Tensor>,
    /// The outputs to answer with; none stands for all.
    pub outputs: Vec<RequestedOutput>,
}

/// An input tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// The name of the input.
    pub name: String,
    /// The type of the elements.
    pub datatype: DataType,
    /// The sides.
    pub shape: Vec<u64>,
    /// The elements.
    pub data: Data,
}

/// The elements of a tensor, as the protocol carried them. Their number has not been
/// compared with the shape.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// Little-endian, row by row; byte strings each after a length of 4 bytes.
    Raw(Bytes),
    /// Numbers.
    Floats(Vec<f32>),
    /// Numbers of a byte.
    Octets(Vec<u8>),
    /// Byte strings.
    Strings(Vec<Bytes>),
}

/// An output that a request wants to have.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RequestedOutput {
    /// The name of the output.
    pub name: String,
    /// How to return it.
    pub parameters: Parameters,
}
