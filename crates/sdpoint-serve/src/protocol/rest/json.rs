//! The JSON of an inference request. Tensors are parsed directly into flat vectors, so
//! that a request needs no more memory than a few times its text.

mod data;
pub mod words;

use std::fmt;
use std::marker::PhantomData;

use axum::body::Bytes;
use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::super::datatype::{DataType, shape_text};
use super::super::error::{ApiError, quoted, shared_memory};
use super::super::parameters::{Parameter, Parameters, add};
use super::super::request::{Data, InferRequest, RequestedOutput, Tensor};
use data::{Elements, JsonData};

/// The limit on tensors and on dimensions of a tensor.
const MOST: usize = 16;

/// The limit on parameters.
const MOST_PARAMETERS: usize = 64;

/// An inference request as JSON.
///
/// Unknown keys are refused, as unknown parameters are: in a wrong place or misspelt, a limit would
/// have no effect. tritonclient and MLServer's client send no other keys than those of the protocol.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JsonRequest {
    #[serde(default, deserialize_with = "words::id")]
    id: Option<String>,
    #[serde(default, deserialize_with = "words::parameters")]
    parameters: Option<Map>,
    #[serde(deserialize_with = "words::inputs")]
    inputs: List<JsonInput>,
    #[serde(default, deserialize_with = "words::outputs")]
    outputs: Option<List<JsonOutput>>,
    /// KServe's client repeats the name in the path.
    #[serde(default, rename = "model_name")]
    _model_name: IgnoredAny,
    #[serde(default, rename = "model_version")]
    _model_version: IgnoredAny,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields, expecting = "a list of objects")]
struct JsonInput {
    #[serde(deserialize_with = "words::name")]
    name: String,
    #[serde(deserialize_with = "words::shape")]
    shape: List<u64>,
    #[serde(deserialize_with = "words::datatype")]
    datatype: String,
    #[serde(default, deserialize_with = "words::parameters")]
    parameters: Option<Map>,
    #[serde(default, deserialize_with = "words::data")]
    data: Option<JsonData>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields, expecting = "a list of objects")]
struct JsonOutput {
    #[serde(deserialize_with = "words::name")]
    name: String,
    #[serde(default, deserialize_with = "words::parameters")]
    parameters: Option<Map>,
}

/// Whether a body looks like an object, as which no image file begins.
pub fn is_object(body: &[u8]) -> bool {
    body.trim_ascii_start().starts_with(b"{")
}

impl JsonRequest {
    /// Parses the JSON of a request.
    ///
    /// # Errors
    /// If it does not follow the protocol; the message has the position.
    pub fn parse(json: &[u8]) -> Result<Self, ApiError> {
        if !is_object(json) {
            return Err(ApiError::invalid(
                "the body must be an object in JSON with the key 'inputs'; to send an image file, \
                 set the header Inference-Header-Content-Length to 0, or use /predict",
            ));
        }
        serde_json::from_slice(json).map_err(|error| words::invalid(&error))
    }

    /// The request, with the binary tensors from `binary`, the bytes after the JSON.
    ///
    /// # Errors
    /// If data are missing, left over or duplicated, or do not fit their datatype.
    pub fn into_request(self, mut binary: Bytes) -> Result<InferRequest, ApiError> {
        let inputs: Result<Vec<Tensor>, ApiError> = self
            .inputs
            .0
            .into_iter()
            .map(|input| input.into_tensor(&mut binary))
            .collect();
        let inputs = inputs?;
        if !binary.is_empty() {
            return Err(ApiError::invalid(format!(
                "the body has {} bytes after the last binary tensor",
                binary.len()
            )));
        }
        let output = |output: JsonOutput| RequestedOutput {
            name: output.name,
            parameters: Map::parameters(output.parameters),
        };
        let outputs = self.outputs.map(|list| list.0).unwrap_or_default();
        Ok(InferRequest {
            id: self.id,
            parameters: Map::parameters(self.parameters),
            inputs,
            outputs: outputs.into_iter().map(output).collect(),
        })
    }
}

impl JsonInput {
    fn into_tensor(self, binary: &mut Bytes) -> Result<Tensor, ApiError> {
        let name = self.name;
        let datatype: DataType = self.datatype.parse()?;
        let shape = self.shape.0;
        let mut size = None;
        for (key, value) in Map::parameters(self.parameters) {
            match (key.as_str(), value) {
                ("binary_data_size", value) => size = Some(value.count(&key, 0)?),
                ("content_type", Parameter::Text(_)) => {}
                (key, _) if key.starts_with("shared_memory_") => return Err(shared_memory()),
                (key, _) => {
                    return Err(ApiError::invalid(format!(
                        "unknown parameter {} of input {}; the only one is binary_data_size",
                        quoted(key),
                        quoted(&name)
                    )));
                }
            }
        }
        let data = match (size, self.data) {
            (Some(_), Some(_)) => {
                return Err(ApiError::invalid(format!(
                    "input {} has both 'data' and 'binary_data_size'",
                    quoted(&name)
                )));
            }
            (Some(size), None) => Data::Raw(take(binary, size, &name)?),
            (None, Some(data)) => from_json(data, datatype, &shape, &name)?,
            (None, None) => {
                return Err(ApiError::invalid(format!(
                    "input {} has neither 'data' nor 'binary_data_size'",
                    quoted(&name)
                )));
            }
        };
        Ok(Tensor {
            name,
            datatype,
            shape,
            data,
        })
    }
}

/// The next `size` bytes after the JSON.
fn take(binary: &mut Bytes, size: u64, name: &str) -> Result<Bytes, ApiError> {
    match usize::try_from(size) {
        Ok(size) if size <= binary.len() => Ok(binary.split_to(size)),
        _ => Err(ApiError::invalid(format!(
            "input {} has 'binary_data_size' {size}, but only {} bytes are left after the JSON",
            quoted(name),
            binary.len()
        ))),
    }
}

fn from_json(
    data: JsonData,
    datatype: DataType,
    shape: &[u64],
    name: &str,
) -> Result<Data, ApiError> {
    if data.nesting.len() > 1 && !data.nesting.iter().eq(shape) {
        return Err(ApiError::invalid(format!(
            "'data' of input {} is nested as {}; its shape is {}",
            quoted(name),
            shape_text(&data.nesting),
            shape_text(shape)
        )));
    }
    let wrong = |expected: &str| {
        let name = quoted(name);
        ApiError::invalid(format!(
            "'data' of input {name} must be {expected} for {datatype}"
        ))
    };
    match (data.elements, datatype) {
        (Elements::None, DataType::Bytes) => Ok(Data::Strings(Vec::new())),
        (Elements::None, _) => Ok(Data::Floats(Vec::new())),
        (Elements::Texts(texts), DataType::Bytes) => {
            let files: Option<Vec<Bytes>> = texts.iter().map(|text| unbase64(text)).collect();
            files
                .map(Data::Strings)
                .ok_or_else(|| wrong("strings in base64"))
        }
        (_, DataType::Bytes) => Err(wrong("strings in base64")),
        (Elements::Numbers(values), _) => Ok(Data::Floats(values)),
        (Elements::Texts(_), _) => Err(wrong("numbers")),
    }
}

/// Decodes base64, with or without padding.
pub fn unbase64(text: &str) -> Option<Bytes> {
    const LENIENT: GeneralPurposeConfig =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    const BASE64: GeneralPurpose = GeneralPurpose::new(&base64::alphabet::STANDARD, LENIENT);
    BASE64.decode(text).ok().map(Bytes::from)
}

/// A list of limited length.
#[derive(Debug)]
struct List<T>(Vec<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bounded<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Bounded<T> {
            type Value = List<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list of at most {MOST}")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<List<T>, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = list.next_element()? {
                    if items.len() == MOST {
                        return Err(de::Error::invalid_length(MOST + 1, &self));
                    }
                    items.push(item);
                }
                Ok(List(items))
            }
        }

        deserializer.deserialize_seq(Bounded(PhantomData))
    }
}

/// A limited number of parameters.
#[derive(Debug)]
struct Map(Parameters);

impl Map {
    fn parameters(map: Option<Self>) -> Parameters {
        map.map(|map| map.0).unwrap_or_default()
    }
}

impl<'de> Deserialize<'de> for Map {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bounded;

        impl<'de> Visitor<'de> for Bounded {
            type Value = Map;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "an object of at most {MOST_PARAMETERS} parameters")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Map, A::Error> {
                let mut parameters = Parameters::new();
                while let Some(key) = map.next_key::<String>()? {
                    let value = map.next_value().map_err(|error| {
                        words::named(&format!("parameter {}", quoted(&key)), &error)
                    })?;
                    if parameters.len() == MOST_PARAMETERS {
                        return Err(de::Error::invalid_length(MOST_PARAMETERS + 1, &self));
                    }
                    add(&mut parameters, key, value).map_err(de::Error::custom)?;
                }
                Ok(Map(parameters))
            }
        }

        deserializer.deserialize_map(Bounded)
    }
}

#[cfg(test)]
mod tests;
