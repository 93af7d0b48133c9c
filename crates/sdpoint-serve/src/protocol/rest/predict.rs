//! `POST /predict`: an image as the body or in a form, for people and scripts.

use axum::body::{Body, Bytes};
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::Response;
use multer::{Constraints, Multipart, SizeLimit};
use sdpoint::core::words::plural;
use sdpoint::engine::top_k;
use serde::Serialize;

use super::super::answer::{Answer, OutputPlan};
use super::super::error::{ApiError, Kind};
use super::super::images::RequestImages;
use super::super::parameters::{Parameter, Parameters, add, query, twice};
use super::super::request::RequestedOutput;
use super::super::signature::PROBABILITIES;
use super::super::terms::check_name;
use super::router::Shared;
use super::{body, json, respond};
use crate::app::{App, Call, Question};

/// The default number of classes in an answer.
const TOP: usize = 5;

/// The limit on the length of a form's field, except for images.
const LONGEST_FIELD: u64 = 1024;

/// The limit on fields of a form besides images.
const MOST_FIELDS: usize = 64;

/// The contents of a request: of the query, and of the body or form.
#[derive(Default)]
struct Form {
    images: Vec<(Option<String>, Bytes)>,
    parameters: Parameters,
    model: Option<String>,
    top: Option<usize>,
}

#[derive(Serialize)]
struct Prediction<'a> {
    model: &'a str,
    #[serde(flatten)]
    parameters: Parameters,
    images: Vec<ImagePrediction<'a>>,
}

#[derive(Serialize)]
struct ImagePrediction<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    top: Vec<Guess<'a>>,
}

#[derive(Serialize)]
struct Guess<'a> {
    class: &'a str,
    label: usize,
    probability: f32,
}

pub async fn predict(
    State(app): Shared,
    Extension(call): Extension<Call>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let body = body::read(&app, &call, &headers, body, app.limits.body).await?;
    let mut form = Form::default();
    for (key, value) in query(&uri) {
        form.set(&key, value)?;
    }
    match boundary(&headers) {
        Some(boundary) => form.read(body, boundary, &app, &call).await?,
        None if json::is_object(&body) => {
            return Err(ApiError::invalid(
                "the body is JSON, but /predict takes an image file, or a form with image files in \
                 the field 'image'; send JSON to /v2/models/NAME/infer",
            ));
        }
        None => form.images.push((None, body)),
    }
    let answer = form.ask(&app, &call).await?;
    Ok(respond::json(StatusCode::OK, &form.prediction(&answer)))
}

/// The boundary of a multipart form, if the body is one.
fn boundary(headers: &HeaderMap) -> Option<String> {
    let kind = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    multer::parse_boundary(kind).ok()
}

impl Form {
    fn set(&mut self, key: &str, value: String) -> Result<(), ApiError> {
        match key {
            "model" if self.model.is_none() => self.model = Some(value),
            "top" if self.top.is_none() => {
                self.top = Some(Parameter::Text(value).count("top", 1)? as usize);
            }
            "model" | "top" => return Err(twice(key)),
            key => {
                check_name(key, &["model", "top"])?;
                add(&mut self.parameters, key.to_owned(), Parameter::Text(value))?;
            }
        }
        Ok(())
    }

    /// Reads the fields of a form: images and parameters.
    async fn read(
        &mut self,
        body: Bytes,
        boundary: String,
        app: &App,
        call: &Call,
    ) -> Result<(), ApiError> {
        // The fields are parts of a copy.
        call.memory.add(body.len())?;
        let bad =
            |error: multer::Error| ApiError::invalid(format!("the form is not valid: {error}"));
        let limits = SizeLimit::new().whole_stream(app.limits.body as u64);
        let constraints = Constraints::new().size_limit(limits);
        let stream = tokio_stream::once(Ok::<Bytes, std::convert::Infallible>(body));
        let mut fields = Multipart::with_constraints(stream, boundary, constraints);
        for _ in 0..MOST_FIELDS + app.limits.images {
            let Some(mut field) = fields.next_field().await.map_err(bad)? else {
                return Ok(());
            };
            let key = field.name().unwrap_or_default().to_owned();
            let file = field.file_name().map(str::to_owned);
            // All of the body is there, so a field comes in one piece.
            let value = field.chunk().await.map_err(bad)?.unwrap_or_default();
            if key == "image" || file.is_some() {
                self.images.push((file, value));
            } else if value.len() as u64 > LONGEST_FIELD {
                return Err(ApiError::invalid("a field of the form is too long"));
            } else {
                self.set(&key, String::from_utf8_lossy(&value).into_owned())?;
            }
        }
        Err(ApiError::invalid("the form has too many fields"))
    }

    async fn ask(&self, app: &App, call: &Call) -> Result<Answer, ApiError> {
        if self.images.iter().all(|(_, file)| file.is_empty()) {
            return Err(ApiError::invalid(
                "there is no image; send one as the body or in the form field 'image'",
            ));
        }
        if self.images.len() > app.limits.images {
            return Err(ApiError::new(
                Kind::TooLarge,
                format!(
                    "the limit is {} per request",
                    plural(app.limits.images, "image", "images")
                ),
            ));
        }
        let model = match &self.model {
            Some(name) => name.as_str(),
            None => only(app)?,
        };
        let output = RequestedOutput {
            name: PROBABILITIES.to_owned(),
            ..RequestedOutput::default()
        };
        let question = Question {
            images: RequestImages::Encoded(self.images.iter().map(|(_, f)| f.clone()).collect()),
            count: self.images.len(),
            parameters: self.parameters.clone(),
            plans: OutputPlan::read(&[output], false)?,
            id: None,
        };
        app.ask(call, model, question).await
    }

    fn prediction<'a>(&'a self, answer: &'a Answer) -> Prediction<'a> {
        let classes = answer.model.engine.classes();
        let top = self.top.unwrap_or(TOP);
        let rows = answer.reply.probabilities.chunks_exact(classes.len());
        let images = std::iter::zip(&self.images, rows).map(|((name, _), row)| ImagePrediction {
            name: name.as_deref(),
            top: top_k(row, top)
                .into_iter()
                .map(|label| Guess {
                    class: &classes[label],
                    label,
                    probability: row[label],
                })
                .collect(),
        });
        Prediction {
            model: &answer.model.name,
            parameters: answer.parameters(),
            images: images.collect(),
        }
    }
}

/// The only model, if there is just one.
fn only(app: &App) -> Result<&str, ApiError> {
    let mut names = app.registry.names();
    match (names.next(), names.next()) {
        (Some(name), None) => Ok(name),
        _ => {
            let names: Vec<&str> = app.registry.names().collect();
            Err(ApiError::invalid(format!(
                "choose one of the models {}, as in /predict?model=NAME",
                names.join(", ")
            )))
        }
    }
}
