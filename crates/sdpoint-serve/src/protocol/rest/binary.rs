//! The binary extension: tensors as bytes after the JSON.

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderValue};

use super::super::datatype::DataType;
use super::super::error::ApiError;
use super::super::request::{Data, InferRequest, Tensor};
use super::super::signature::ENCODED;
use super::body::aside;
use super::json::JsonRequest;
use crate::memory::Reservation;

/// The header with the length of the JSON, in requests and responses.
pub const HEADER_LENGTH: &str = "inference-header-content-length";

/// Parses a request, in `memory` beside its body; also returns whether outputs are binary by
/// default.
///
/// # Errors
/// If the header is not a length, or the JSON or the tensors do not follow the protocol, or the
/// memory is full.
pub fn read(
    headers: &HeaderMap,
    mut body: Bytes,
    memory: &Reservation,
) -> Result<(InferRequest, bool), ApiError> {
    let Some(length) = headers.get(HEADER_LENGTH) else {
        return Ok((parse(&body, Bytes::new(), memory)?, false));
    };
    let json = match parse_length(length) {
        Some(0) => return Ok((raw(body), true)),
        Some(length) if length <= body.len() => body.split_to(length),
        Some(length) => {
            return Err(ApiError::invalid(format!(
                "Inference-Header-Content-Length is {length}, but the body has {} bytes",
                body.len()
            )));
        }
        None => {
            return Err(ApiError::invalid(
                "Inference-Header-Content-Length must be a whole number of at least 0",
            ));
        }
    };
    Ok((parse(&json, body, memory)?, false))
}

/// Bytes of JSON to be parsed, as far as a request is valid.
pub fn json_length(headers: &HeaderMap, body: &Bytes) -> usize {
    let length = headers.get(HEADER_LENGTH).and_then(parse_length);
    length.map_or(body.len(), |length| length.min(body.len()))
}

/// Bytes of values and files that a byte of JSON can contain: a number has two characters at least,
/// and a file is kept beside its base64.
const EXPANSION: usize = 2;

fn parse(json: &[u8], tensors: Bytes, memory: &Reservation) -> Result<InferRequest, ApiError> {
    memory.add(EXPANSION * json.len())?;
    aside(json.len(), || {
        JsonRequest::parse(json)?.into_request(tensors)
    })
}

fn parse_length(value: &HeaderValue) -> Option<usize> {
    let text = value.to_str().ok()?;
    // `parse` accepts a sign, which the header must not have.
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

/// A body without JSON is one image file.
fn raw(body: Bytes) -> InferRequest {
    InferRequest {
        inputs: vec![Tensor {
            name: ENCODED.to_owned(),
            datatype: DataType::Bytes,
            shape: vec![1],
            data: Data::Strings(vec![body]),
        }],
        ..InferRequest::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Memory;
    use crate::protocol::error::Kind;

    fn read_with(length: &str, body: &'static [u8]) -> Result<(InferRequest, bool), ApiError> {
        let mut headers = HeaderMap::new();
        headers.insert(HEADER_LENGTH, HeaderValue::from_str(length).unwrap());
        read(
            &headers,
            Bytes::from_static(body),
            &Memory::new(1 << 10).begin(),
        )
    }

    #[test]
    fn the_header_divides_the_body() {
        let body = br#"{"inputs":[{"name":"a","shape":[3],"datatype":"UINT8","parameters":{"binary_data_size":3}}]}xyz"#;
        let length = (body.len() - 3).to_string();
        let (request, binary) = read_with(&length, body).unwrap();
        assert_eq!(
            request.inputs[0].data,
            Data::Raw(Bytes::from_static(b"xyz"))
        );
        assert!(!binary);
        for length in [
            "1000",
            "3",
            "-1",
            "+3",
            "x",
            "1e3",
            "",
            "99999999999999999999999",
        ] {
            let error = read_with(length, body).unwrap_err();
            assert!(!error.message.is_empty());
        }
        // Without the header, anything after the JSON is an error.
        let memory = Memory::new(1 << 10).begin();
        assert!(read(&HeaderMap::new(), Bytes::from_static(body), &memory).is_err());
        let full = Memory::new(body.len()).begin();
        let error = read(&HeaderMap::new(), Bytes::from_static(body), &full).unwrap_err();
        assert_eq!(error.kind, Kind::Overloaded);
    }

    #[test]
    fn a_body_without_json_is_an_image_file() {
        let (request, binary) = read_with("0", b"\xff\xd8").unwrap();
        assert_eq!(request.inputs[0].name, ENCODED);
        assert_eq!(
            request.inputs[0].data,
            Data::Strings(vec![Bytes::from_static(b"\xff\xd8")])
        );
        assert!(binary);
    }
}
