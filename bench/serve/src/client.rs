//! A gRPC client of the Open Inference Protocol.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use chacha20::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use sdpoint::Instance;
use tonic::Status;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use inference::infer_parameter::ParameterChoice;
use inference::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use inference::{InferParameter, ModelInferRequest, ModelInferResponse};

/// The server's own generated messages.
#[allow(dead_code, clippy::all)]
#[path = "../../../crates/sdpoint-serve/src/protocol/grpc/inference.rs"]
mod inference;

/// The most requests that servers usually take on a connection at a time is a few
/// hundred; under overload there are more.
const CONNECTIONS: usize = 8;

/// The images that requests cycle through.
const IMAGES: usize = 32;

/// Connections to one server.
#[derive(Clone)]
pub struct Client {
    channels: Arc<[Channel]>,
    next: Arc<AtomicUsize>,
}

impl Client {
    pub async fn connect(address: &str) -> anyhow::Result<Self> {
        let mut channels = Vec::new();
        for _ in 0..CONNECTIONS {
            let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
            channels.push(endpoint.connect().await?);
        }
        Ok(Self {
            channels: channels.into(),
            next: Arc::default(),
        })
    }

    /// Sends a request, on the next connection in turn.
    pub async fn infer(&self, request: ModelInferRequest) -> Result<Answer, Status> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let channel = self.channels[number % self.channels.len()].clone();
        let mut grpc = Grpc::new(channel);
        let ready = grpc.ready().await;
        ready.map_err(|error| Status::unavailable(error.to_string()))?;
        let path = PathAndQuery::from_static("/inference.GRPCInferenceService/ModelInfer");
        let codec = ProstCodec::<ModelInferRequest, ModelInferResponse>::default();
        let response = grpc
            .unary(tonic::Request::new(request), path, codec)
            .await?;
        Ok(Answer::of(&response.into_inner()))
    }
}

/// What an answer says of itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Answer {
    pub instance: Option<Instance>,
    /// The recorded accuracy of the instance.
    pub accuracy: Option<f64>,
    /// The time that the server computed, in seconds.
    pub computed: Option<f64>,
}

impl Answer {
    fn of(response: &ModelInferResponse) -> Self {
        let choice = |name| {
            let parameter: Option<&InferParameter> = response.parameters.get(name);
            parameter.and_then(|parameter| parameter.parameter_choice.as_ref())
        };
        let instance = match choice("instance") {
            Some(ParameterChoice::StringParam(name)) => name.parse().ok(),
            _ => None,
        };
        let accuracy = match choice("accuracy") {
            Some(&ParameterChoice::DoubleParam(accuracy)) => Some(accuracy),
            _ => None,
        };
        let computed = match choice("compute_us") {
            Some(&ParameterChoice::Int64Param(micros)) => Some(1e-6 * micros as f64),
            _ => None,
        };
        Self {
            instance,
            accuracy,
            computed,
        }
    }
}

/// The requests of a run: one image each, as pixels or as normalised values.
#[derive(Clone)]
pub struct Requests {
    images: Vec<tonic::codegen::Bytes>,
    template: ModelInferRequest,
}

/// The form of a request's image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// UINT8, in the order height, width, channel.
    Pixels,
    /// FP32, in the order channel, height, width.
    Planes,
}

impl Requests {
    /// Random images of `[height, width]` for a model.
    pub fn new(model: &str, form: Form, size: [usize; 2]) -> Self {
        let [height, width] = size;
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let mut image = || -> Vec<u8> {
            let values = 3 * height * width;
            match form {
                Form::Pixels => (0..values).map(|_| rng.random()).collect(),
                Form::Planes => (0..values)
                    .flat_map(|_| rng.random_range(-1.0f32..1.0).to_le_bytes())
                    .collect(),
            }
        };
        let images = (0..IMAGES).map(|_| image().into()).collect();
        let [height, width] = size.map(|side| side as i64);
        let (name, datatype, shape) = match form {
            Form::Pixels => ("pixels", "UINT8", vec![1, height, width, 3]),
            Form::Planes => ("images", "FP32", vec![1, 3, height, width]),
        };
        let template = ModelInferRequest {
            model_name: model.to_owned(),
            inputs: vec![InferInputTensor {
                name: name.to_owned(),
                datatype: datatype.to_owned(),
                shape,
                ..InferInputTensor::default()
            }],
            outputs: vec![InferRequestedOutputTensor {
                name: "logits".to_owned(),
                ..InferRequestedOutputTensor::default()
            }],
            ..ModelInferRequest::default()
        };
        Self { images, template }
    }

    /// The same, to be answered within `seconds`.
    pub fn within(self, seconds: f64) -> Self {
        self.with("deadline_ms", ParameterChoice::DoubleParam(1e3 * seconds))
    }

    /// The same, to be answered by an instance.
    pub fn by(self, instance: Instance) -> Self {
        self.with(
            "instance",
            ParameterChoice::StringParam(instance.to_string()),
        )
    }

    fn with(mut self, name: &str, choice: ParameterChoice) -> Self {
        let parameter = InferParameter {
            parameter_choice: Some(choice),
        };
        let parameters: &mut HashMap<String, InferParameter> = &mut self.template.parameters;
        parameters.insert(name.to_owned(), parameter);
        self
    }

    /// The request with this number.
    pub fn request(&self, number: usize) -> ModelInferRequest {
        ModelInferRequest {
            raw_input_contents: vec![self.images[number % IMAGES].clone()],
            ..self.template.clone()
        }
    }
}
