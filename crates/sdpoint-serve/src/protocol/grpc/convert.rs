//! Converts between gRPC messages and requests and answers.

use axum::body::Bytes;

use super::super::answer::{Answer, Output, Values};
use super::super::datatype::DataType;
use super::super::error::{ApiError, quoted, shared_memory};
use super::super::parameters::{Parameter, Parameters};
use super::super::request::{Data, InferRequest, RequestedOutput, Tensor};
use super::inference::infer_parameter::ParameterChoice;
use super::inference::model_infer_request::InferInputTensor;
use super::inference::model_infer_response::InferOutputTensor;
use super::inference::{
    InferParameter, InferTensorContents, ModelInferRequest, ModelInferResponse,
};
use crate::app::VERSION;

/// Limits on tensors, dimensions of a tensor, and parameters, as in JSON.
const MOST: usize = 64;

/// Converts a request.
///
/// # Errors
/// If data are missing, left over or duplicated, or do not fit their datatype.
pub fn request(message: ModelInferRequest) -> Result<InferRequest, ApiError> {
    let ModelInferRequest {
        inputs,
        outputs,
        mut raw_input_contents,
        ..
    } = message;
    if inputs.len() > MOST || outputs.len() > MOST {
        return Err(ApiError::invalid("the request has too many tensors"));
    }
    let raw = !raw_input_contents.is_empty();
    if raw && raw_input_contents.len() != inputs.len() {
        return Err(ApiError::invalid(format!(
            "raw_input_contents has {} elements for {} inputs",
            raw_input_contents.len(),
            inputs.len()
        )));
    }
    raw_input_contents.resize(inputs.len(), Bytes::new());
    let tensors: Result<Vec<Tensor>, ApiError> = std::iter::zip(inputs, raw_input_contents)
        .map(|(input, contents)| tensor(input, raw.then_some(contents)))
        .collect();
    let outputs: Result<Vec<RequestedOutput>, ApiError> = outputs
        .into_iter()
        .map(|output| {
            Ok(RequestedOutput {
                name: output.name,
                parameters: parameters(output.parameters)?,
            })
        })
        .collect();
    Ok(InferRequest {
        id: (!message.id.is_empty()).then_some(message.id),
        parameters: parameters(message.parameters)?,
        inputs: tensors?,
        outputs: outputs?,
    })
}

fn tensor(input: InferInputTensor, raw: Option<Bytes>) -> Result<Tensor, ApiError> {
    let InferInputTensor {
        name,
        datatype,
        shape,
        contents,
        ..
    } = input;
    if input
        .parameters
        .keys()
        .any(|key| key.starts_with("shared_memory_"))
    {
        return Err(shared_memory());
    }
    let datatype: DataType = datatype.parse()?;
    let sides: Option<Vec<u64>> = shape.iter().map(|&side| side.try_into().ok()).collect();
    let shape = sides.ok_or_else(|| {
        ApiError::invalid(format!("input {} has a negative dimension", quoted(&name)))
    })?;
    if shape.len() > MOST {
        return Err(ApiError::invalid(format!(
            "input {} has {} dimensions",
            quoted(&name),
            shape.len()
        )));
    }
    let data = match (raw, contents) {
        (Some(_), Some(contents)) if contents != InferTensorContents::default() => {
            return Err(ApiError::invalid(format!(
                "input {} has both contents and raw_input_contents",
                quoted(&name)
            )));
        }
        (Some(raw), _) => Data::Raw(raw),
        (None, contents) => typed(contents.unwrap_or_default(), datatype, &name)?,
    };
    Ok(Tensor {
        name,
        datatype,
        shape,
        data,
    })
}

/// The elements in the field for a datatype; all other fields must be empty.
fn typed(
    mut contents: InferTensorContents,
    datatype: DataType,
    name: &str,
) -> Result<Data, ApiError> {
    let data = match datatype {
        DataType::Fp(4) => Data::Floats(std::mem::take(&mut contents.fp32_contents)),
        DataType::Uint(1) => {
            let values = std::mem::take(&mut contents.uint_contents);
            let octets: Option<Vec<u8>> = values.into_iter().map(|v| v.try_into().ok()).collect();
            Data::Octets(octets.ok_or_else(|| {
                ApiError::invalid(format!("input {} has values beyond UINT8", quoted(name)))
            })?)
        }
        DataType::Bytes => Data::Strings(std::mem::take(&mut contents.bytes_contents)),
        // No model has an input of this type; the check of the inputs reports it.
        _ => return Ok(Data::Floats(Vec::new())),
    };
    if contents != InferTensorContents::default() {
        return Err(ApiError::invalid(format!(
            "input {} is of datatype {datatype}, but has contents of another type",
            quoted(name)
        )));
    }
    Ok(data)
}

fn parameters(
    message: std::collections::HashMap<String, InferParameter>,
) -> Result<Parameters, ApiError> {
    if message.len() > MOST {
        return Err(ApiError::invalid("the request has too many parameters"));
    }
    message
        .into_iter()
        .map(|(name, parameter)| {
            let value = match parameter.parameter_choice {
                Some(ParameterChoice::BoolParam(value)) => Parameter::Bool(value),
                Some(ParameterChoice::Int64Param(value)) => Parameter::Int(value),
                Some(ParameterChoice::Uint64Param(value)) => Parameter::from(value),
                Some(ParameterChoice::DoubleParam(value)) => Parameter::Double(value),
                Some(ParameterChoice::StringParam(value)) => Parameter::Text(value),
                None => {
                    return Err(ApiError::invalid(format!(
                        "parameter {} has no value",
                        quoted(&name)
                    )));
                }
            };
            Ok((name, value))
        })
        .collect()
}

/// Converts an answer, with raw tensors.
pub fn response(answer: &Answer) -> ModelInferResponse {
    let mut raw_output_contents = Vec::new();
    let outputs = answer
        .outputs()
        .map(
            |Output {
                 name,
                 shape,
                 values,
                 ..
             }| {
                raw_output_contents.push(raw(&values));
                InferOutputTensor {
                    name: name.to_owned(),
                    datatype: values.datatype().to_string(),
                    shape: shape.map(|side| side as i64).into(),
                    ..InferOutputTensor::default()
                }
            },
        )
        .collect();
    let parameter = |(name, value)| (name, infer_parameter(value));
    ModelInferResponse {
        model_name: answer.model.name.clone(),
        model_version: VERSION.to_owned(),
        id: answer.id.clone().unwrap_or_default(),
        parameters: answer.parameters().into_iter().map(parameter).collect(),
        outputs,
        raw_output_contents,
    }
}

fn raw(values: &Values<'_>) -> Bytes {
    let mut raw = Vec::new();
    values.write_raw(&mut raw);
    raw.into()
}

fn infer_parameter(value: Parameter) -> InferParameter {
    let choice = match value {
        Parameter::Bool(value) => ParameterChoice::BoolParam(value),
        Parameter::Int(value) => ParameterChoice::Int64Param(value),
        Parameter::Uint(value) => ParameterChoice::Uint64Param(value),
        Parameter::Double(value) => ParameterChoice::DoubleParam(value),
        Parameter::Text(value) => ParameterChoice::StringParam(value),
    };
    InferParameter {
        parameter_choice: Some(choice),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(datatype: &str, contents: InferTensorContents) -> ModelInferRequest {
        ModelInferRequest {
            inputs: vec![InferInputTensor {
                name: "x".into(),
                datatype: datatype.into(),
                shape: vec![1, 2],
                contents: Some(contents),
                ..InferInputTensor::default()
            }],
            ..ModelInferRequest::default()
        }
    }

    #[track_caller]
    fn refused(message: ModelInferRequest, text: &str) {
        let error = request(message).unwrap_err().message;
        assert!(error.contains(text), "'{text}' is not in: {error}");
    }

    #[test]
    fn contents_are_typed_or_raw() {
        let floats = InferTensorContents {
            fp32_contents: vec![1.0, 2.0],
            ..InferTensorContents::default()
        };
        let typed = request(input("FP32", floats.clone())).unwrap();
        assert_eq!(typed.inputs[0].data, Data::Floats(vec![1.0, 2.0]));
        let octets = InferTensorContents {
            uint_contents: vec![1, 255],
            ..InferTensorContents::default()
        };
        let typed = request(input("UINT8", octets.clone())).unwrap();
        assert_eq!(typed.inputs[0].data, Data::Octets(vec![1, 255]));
        refused(input("FP32", octets), "another type");
        let beyond = InferTensorContents {
            uint_contents: vec![256],
            ..InferTensorContents::default()
        };
        refused(input("UINT8", beyond), "beyond UINT8");
        let mut both = input("FP32", floats);
        both.raw_input_contents = vec![Bytes::from_static(b"12345678")];
        refused(both.clone(), "both");
        both.inputs[0].contents = None;
        let raw = request(both.clone()).unwrap();
        assert_eq!(
            raw.inputs[0].data,
            Data::Raw(Bytes::from_static(b"12345678"))
        );
        both.raw_input_contents.push(Bytes::new());
        refused(both, "2 elements for 1 inputs");
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let none = InferTensorContents::default;
        let mut negative = input("FP32", none());
        negative.inputs[0].shape = vec![-1, 2];
        refused(negative, "negative");
        refused(input("FP31", none()), "'FP31'");
        let mut empty = input("FP32", none());
        empty
            .parameters
            .insert("a".into(), InferParameter::default());
        refused(empty, "no value");
        let mut shared = input("FP32", none());
        let parameters = &mut shared.inputs[0].parameters;
        parameters.insert("shared_memory_region".into(), infer_parameter("r".into()));
        refused(shared, "shared memory");
    }

    #[test]
    fn parameters_keep_their_types() {
        let values = [
            Parameter::Bool(true),
            Parameter::Int(-3),
            Parameter::Uint(u64::MAX),
            Parameter::Double(0.5),
            Parameter::Text("3@0.5".into()),
        ];
        let named =
            |(at, value): (usize, &Parameter)| (at.to_string(), infer_parameter(value.clone()));
        let read = parameters(values.iter().enumerate().map(named).collect()).unwrap();
        assert_eq!(read.into_values().collect::<Vec<_>>(), values);
    }
}
