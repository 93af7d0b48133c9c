//! HTTP responses for answers and errors.

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::super::answer::{Answer, Output, Values};
use super::super::error::{ApiError, Kind};
use super::super::parameters::Parameters;
use super::binary::HEADER_LENGTH;
use crate::app::VERSION;

impl Kind {
    /// The status code.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Invalid => StatusCode::BAD_REQUEST,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::MediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Slow => StatusCode::REQUEST_TIMEOUT,
            Self::Quota => StatusCode::TOO_MANY_REQUESTS,
            Self::Overloaded | Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Expired => StatusCode::GATEWAY_TIMEOUT,
            Self::Unsupported => StatusCode::NOT_IMPLEMENTED,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// The body of an error.
#[derive(Serialize)]
struct ErrorBody<'a> {
    error: &'a str,
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = ErrorBody {
            error: &self.message,
        };
        let mut response = json(self.kind.status(), &body);
        let headers = response.headers_mut();
        if self.kind == Kind::Unauthenticated {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(time) = self.retry_after {
            // The header has whole seconds.
            let seconds = time.as_millis().div_ceil(1000).max(1) as u64;
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

/// A value as JSON.
pub fn json(status: StatusCode, value: &impl Serialize) -> Response {
    let (status, text) = match serde_json::to_vec(value) {
        Ok(text) => (status, text),
        Err(_) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            br#"{"error":"the answer cannot be serialised"}"#.to_vec(),
        ),
    };
    let kind = [(header::CONTENT_TYPE, "application/json")];
    (status, kind, text).into_response()
}

/// The JSON of an answer, which binary outputs follow.
#[derive(Serialize)]
struct InferBody<'a> {
    model_name: &'a str,
    model_version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    parameters: Parameters,
    outputs: Vec<JsonOutput<'a>>,
}

#[derive(Serialize)]
struct JsonOutput<'a> {
    name: &'static str,
    datatype: String,
    shape: [usize; 2],
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<BinarySize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<JsonValues<'a>>,
}

#[derive(Serialize)]
struct BinarySize {
    binary_data_size: usize,
}

#[derive(Serialize)]
#[serde(untagged)]
enum JsonValues<'a> {
    Floats(&'a [f32]),
    Classes(Vec<String>),
}

/// An answer to an inference request.
///
/// # Errors
/// If JSON cannot represent it.
pub fn answer(answer: &Answer) -> Result<Response, ApiError> {
    let mut binary = Vec::new();
    let outputs: Result<Vec<JsonOutput<'_>>, ApiError> = answer
        .outputs()
        .map(|output| json_output(output, &mut binary))
        .collect();
    let body = InferBody {
        model_name: &answer.model.name,
        model_version: VERSION,
        id: answer.id.as_deref(),
        parameters: answer.parameters(),
        outputs: outputs?,
    };
    if !body
        .outputs
        .iter()
        .any(|output| output.parameters.is_some())
    {
        return Ok(json(StatusCode::OK, &body));
    }
    let text = serde_json::to_vec(&body);
    let mut whole =
        text.map_err(|_| ApiError::new(Kind::Internal, "the answer cannot be serialised"))?;
    let length = whole.len();
    whole.append(&mut binary);
    let mut response = Response::new(Body::from(whole));
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    headers.insert(HeaderName::from_static(HEADER_LENGTH), length.into());
    Ok(response)
}

fn json_output<'a>(output: Output<'a>, binary: &mut Vec<u8>) -> Result<JsonOutput<'a>, ApiError> {
    let datatype = output.values.datatype().to_string();
    let Output { name, shape, .. } = output;
    if output.binary {
        let before = binary.len();
        output.values.write_raw(binary);
        let size = BinarySize {
            binary_data_size: binary.len() - before,
        };
        return Ok(JsonOutput {
            name,
            datatype,
            shape,
            parameters: Some(size),
            data: None,
        });
    }
    let data = match output.values {
        Values::Classes(texts) => JsonValues::Classes(texts),
        Values::Floats(values) if values.iter().all(|value| value.is_finite()) => {
            JsonValues::Floats(values)
        }
        Values::Floats(_) => {
            return Err(ApiError::invalid(format!(
                "output '{name}' has values that are infinite or no numbers, which JSON cannot \
                 represent; request it as binary data, or look at the input"
            )));
        }
    };
    Ok(JsonOutput {
        name,
        datatype,
        shape,
        parameters: None,
        data: Some(data),
    })
}
