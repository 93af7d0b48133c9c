//! Decodes inference requests whose values take little more memory than their bytes.
//!
//! Two bytes of a message can be an empty tensor, for which the decoder takes 300. So the fields
//! are counted before a message is decoded.

use prost::bytes::Buf;
use prost::encoding::{WireType, decode_key, decode_varint};
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder};
use tonic_prost::ProstCodec;

use super::super::error::ApiError;
use super::inference::{ModelInferRequest, ModelInferResponse};

/// Fields of a message, or of a tensor in it: a few times what `convert` accepts.
const MOST_FIELDS: usize = 256;

/// Bytes of a tensor's shape: 64 dimensions of ten.
const LONGEST_SHAPE: usize = 640;

/// Image files in a tensor's contents.
const MOST_FILES: usize = 1 << 12;

/// Bytes of contents that take several times as many in memory.
const MOST_WIDENED: usize = 16 << 20;

/// The fields of Triton's `ModelInferRequest`, `InferInputTensor` and `InferTensorContents`.
mod tag {
    pub const INPUTS: u32 = 5;
    pub const SHAPE: u32 = 3;
    pub const CONTENTS: u32 = 5;
    pub const FP32: u32 = 6;
    pub const FILES: u32 = 8;
}

/// The codec that tonic generates.
type Inner = ProstCodec<ModelInferResponse, ModelInferRequest>;

/// The codec of inference.
#[derive(Default)]
pub struct Bounded(Inner);

impl Codec for Bounded {
    type Encode = ModelInferResponse;
    type Decode = ModelInferRequest;
    type Encoder = <Inner as Codec>::Encoder;
    type Decoder = BoundedDecoder;

    fn encoder(&mut self) -> Self::Encoder {
        self.0.encoder()
    }

    fn decoder(&mut self) -> Self::Decoder {
        BoundedDecoder(self.0.decoder())
    }
}

/// Checks requests before it decodes them.
pub struct BoundedDecoder(<Inner as Codec>::Decoder);

impl Decoder for BoundedDecoder {
    type Item = ModelInferRequest;
    type Error = Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<Self::Item>, Status> {
        check(source.chunk())?;
        self.0.decode(source)
    }

    fn buffer_settings(&self) -> BufferSettings {
        self.0.buffer_settings()
    }
}

/// Checks the number and the length of a request's fields.
fn check(message: &[u8]) -> Result<(), ApiError> {
    each_field(message, MOST_FIELDS, |tag, value| match tag {
        tag::INPUTS => check_input(value),
        _ => Ok(()),
    })
}

fn check_input(input: &[u8]) -> Result<(), ApiError> {
    each_field(input, MOST_FIELDS, |tag, value| match tag {
        tag::SHAPE if value.len() > LONGEST_SHAPE => Err(too_many("dimensions")),
        tag::CONTENTS => check_contents(value),
        _ => Ok(()),
    })
}

fn check_contents(contents: &[u8]) -> Result<(), ApiError> {
    let (mut files, mut widened) = (0, 0);
    each_field(contents, usize::MAX, |tag, value| {
        match tag {
            tag::FP32 => {}
            tag::FILES => files += 1,
            // A value may be a field of its own, whose number takes a byte.
            _ => widened += value.len().max(1),
        }
        if files > MOST_FILES {
            return Err(too_many("files"));
        }
        if widened > MOST_WIDENED {
            return Err(ApiError::invalid(format!(
                "an input has more than {MOST_WIDENED} bytes of integers as contents; send them as \
                 raw_input_contents"
            )));
        }
        Ok(())
    })
}

fn too_many(what: &str) -> ApiError {
    ApiError::invalid(format!("the request has too many {what}"))
}

/// Calls `each` with the number of each field and, if it has a length, its bytes.
fn each_field(
    mut message: &[u8],
    most: usize,
    mut each: impl FnMut(u32, &[u8]) -> Result<(), ApiError>,
) -> Result<(), ApiError> {
    let damaged = || ApiError::invalid("the message is damaged");
    let mut fields = 0;
    while !message.is_empty() {
        fields += 1;
        if fields > most {
            return Err(too_many("fields"));
        }
        let (tag, kind) = decode_key(&mut message).map_err(|_| damaged())?;
        let length = match kind {
            WireType::Varint => {
                decode_varint(&mut message).map_err(|_| damaged())?;
                each(tag, &[])?;
                continue;
            }
            WireType::ThirtyTwoBit => 4,
            WireType::SixtyFourBit => 8,
            WireType::LengthDelimited => decode_varint(&mut message).map_err(|_| damaged())?,
            // No message has groups.
            WireType::StartGroup | WireType::EndGroup => return Err(damaged()),
        };
        let length = usize::try_from(length).map_err(|_| damaged())?;
        let (value, rest) = message.split_at_checked(length).ok_or_else(damaged)?;
        each(tag, value)?;
        message = rest;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use axum::body::Bytes;
    use prost::Message;

    use super::super::inference::InferTensorContents;
    use super::super::inference::model_infer_request::InferInputTensor;
    use super::*;

    fn with(input: InferInputTensor) -> ModelInferRequest {
        ModelInferRequest {
            inputs: vec![input],
            ..ModelInferRequest::default()
        }
    }

    fn holding(contents: InferTensorContents) -> ModelInferRequest {
        with(InferInputTensor {
            contents: Some(contents),
            ..InferInputTensor::default()
        })
    }

    #[track_caller]
    fn refused(message: &ModelInferRequest, text: &str) {
        let error = check(&message.encode_to_vec()).unwrap_err().message;
        assert!(error.contains(text), "'{text}' is not in: {error}");
    }

    #[test]
    fn usual_messages_pass() {
        let message = ModelInferRequest {
            raw_input_contents: vec![Bytes::from(vec![0; 1 << 20])],
            ..with(InferInputTensor {
                name: "images".into(),
                shape: vec![1, 3, 224, 224],
                ..InferInputTensor::default()
            })
        };
        check(&message.encode_to_vec()).unwrap();
        for contents in [
            InferTensorContents {
                fp32_contents: vec![0.5; 1 << 20],
                ..InferTensorContents::default()
            },
            InferTensorContents {
                uint_contents: vec![255; 1 << 20],
                ..InferTensorContents::default()
            },
            InferTensorContents {
                bytes_contents: vec![Bytes::from(vec![0; 1 << 10]); 256],
                ..InferTensorContents::default()
            },
        ] {
            check(&holding(contents).encode_to_vec()).unwrap();
        }
        check(&[]).unwrap();
    }

    #[test]
    fn what_would_take_many_times_its_bytes_is_refused() {
        let many = ModelInferRequest {
            inputs: vec![InferInputTensor::default(); MOST_FIELDS + 1],
            ..ModelInferRequest::default()
        };
        refused(&many, "fields");
        let many = ModelInferRequest {
            raw_input_contents: vec![Bytes::new(); MOST_FIELDS + 1],
            ..ModelInferRequest::default()
        };
        refused(&many, "fields");
        let shape = vec![1; LONGEST_SHAPE + 1];
        let long = InferInputTensor {
            shape,
            ..InferInputTensor::default()
        };
        refused(&with(long), "dimensions");
        let files = InferTensorContents {
            bytes_contents: vec![Bytes::new(); MOST_FILES + 1],
            ..InferTensorContents::default()
        };
        refused(&holding(files), "files");
        let wide = InferTensorContents {
            uint64_contents: vec![0; MOST_WIDENED + 1],
            ..InferTensorContents::default()
        };
        refused(&holding(wide), "raw_input_contents");
    }

    #[test]
    fn damaged_messages_are_refused() {
        for damaged in [&b"\x0a"[..], b"\x0a\x05abc", b"\x0b", b"\x08\xff", b"\xff"] {
            assert!(check(damaged).is_err(), "{damaged:?}");
        }
    }
}
