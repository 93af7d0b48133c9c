//! The protocol over gRPC.

mod client;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use hyper::client::conn::http2::Builder;
use hyper_util::rt::TokioExecutor;
use sdpoint::Instance;
use tonic::Code;
use tonic::client::Grpc;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_prost::ProstCodec;

use client::Client;

use super::support::*;
use crate::protocol::grpc::inference::infer_parameter::ParameterChoice;
use crate::protocol::grpc::inference::model_infer_request::{
    InferInputTensor, InferRequestedOutputTensor,
};
#[allow(clippy::wildcard_imports)]
use crate::protocol::grpc::inference::*;
use crate::server::Options;
use crate::{Limits, Refusal};

fn text(value: &str) -> InferParameter {
    InferParameter {
        parameter_choice: Some(ParameterChoice::StringParam(value.into())),
    }
}

fn infer_request(number: usize) -> ModelInferRequest {
    ModelInferRequest {
        model_name: "small".into(),
        id: number.to_string(),
        parameters: [("instance".into(), text("full"))].into(),
        inputs: vec![InferInputTensor {
            name: "pixels".into(),
            datatype: "UINT8".into(),
            shape: vec![1, 32, 32, 3],
            ..InferInputTensor::default()
        }],
        raw_input_contents: vec![pixels(number).into()],
        ..ModelInferRequest::default()
    }
}

fn floats(raw: &[u8]) -> Vec<f32> {
    raw.as_chunks::<4>()
        .0
        .iter()
        .map(|&bytes| f32::from_le_bytes(bytes))
        .collect()
}

#[test]
fn unsupported_methods_say_why() {
    let server = start(options());
    let client = Client::new(&server);
    let refused = |method| {
        let reply: Result<ServerLiveResponse, _> = client.call(method, ServerLiveRequest {});
        let status = reply.unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented, "{method}");
        status.message().to_owned()
    };
    let message = refused("/inference.GRPCInferenceService/ModelStreamInfer");
    assert!(message.contains("streaming"), "{message}");
    let message = refused("/inference.GRPCInferenceService/CudaSharedMemoryStatus");
    assert!(message.contains("shared memory"), "{message}");
}

#[test]
fn metadata_describes_server_and_models() {
    let server = start(options());
    let client = Client::new(&server);
    let name = || "small".to_owned();
    let version = String::new();
    let live: ServerLiveResponse = client
        .call(
            "/inference.GRPCInferenceService/ServerLive",
            ServerLiveRequest {},
        )
        .unwrap();
    let ready: ServerReadyResponse = client
        .call(
            "/inference.GRPCInferenceService/ServerReady",
            ServerReadyRequest {},
        )
        .unwrap();
    assert!(live.live && ready.ready);
    let metadata: ServerMetadataResponse = client
        .call(
            "/inference.GRPCInferenceService/ServerMetadata",
            ServerMetadataRequest {},
        )
        .unwrap();
    assert_eq!(metadata.name, "sdpoint");
    let request = ModelReadyRequest {
        name: name(),
        version: version.clone(),
    };
    let ready: ModelReadyResponse = client
        .call("/inference.GRPCInferenceService/ModelReady", request)
        .unwrap();
    assert!(ready.ready);
    let request = ModelMetadataRequest {
        name: name(),
        version: version.clone(),
    };
    let metadata: ModelMetadataResponse = client
        .call("/inference.GRPCInferenceService/ModelMetadata", request)
        .unwrap();
    assert_eq!(metadata.inputs[0].shape, [-1, 3, 32, 32]);
    assert_eq!(metadata.outputs[1].name, "probabilities");
    let request = ModelConfigRequest {
        name: name(),
        version: version.clone(),
    };
    let config: ModelConfigResponse = client
        .call("/inference.GRPCInferenceService/ModelConfig", request)
        .unwrap();
    let config = config.config.unwrap();
    assert_eq!(config.input[2].data_type(), DataType::TypeString);
    assert!(config.input.iter().all(|input| input.optional));
    let request = ModelStatisticsRequest {
        name: name(),
        version,
    };
    let statistics: ModelStatisticsResponse = client
        .call("/inference.GRPCInferenceService/ModelStatistics", request)
        .unwrap();
    assert_eq!(statistics.model_stats[0].inference_count, 0);
    for service in ["", "inference.GRPCInferenceService"] {
        client.wait_until_healthy(service);
    }
    let unknown = HealthCheckRequest {
        service: "cats".into(),
    };
    let status = client.call::<_, HealthCheckResponse>("/grpc.health.v1.Health/Check", unknown);
    assert_eq!(status.unwrap_err().code(), Code::NotFound);
}

#[test]
fn raw_and_typed_contents_give_the_same() {
    let server = start(options());
    let client = Client::new(&server);
    let expected = logits(3, Instance::Full);
    let answer = client.infer(infer_request(3)).unwrap();
    assert_eq!(
        (answer.model_name.as_str(), answer.id.as_str()),
        ("small", "3")
    );
    assert_close(&floats(&answer.raw_output_contents[0]), &expected);
    assert_eq!(answer.outputs[0].shape, [1, 10]);
    let instance = &answer.parameters["instance"].parameter_choice;
    assert_eq!(*instance, Some(ParameterChoice::StringParam("full".into())));
    let macs = &answer.parameters["macs"].parameter_choice;
    assert_eq!(*macs, Some(ParameterChoice::Int64Param(243_792)));
    let mut typed = infer_request(3);
    typed.raw_input_contents.clear();
    typed.inputs[0].contents = Some(InferTensorContents {
        uint_contents: pixels(3).into_iter().map(u32::from).collect(),
        ..InferTensorContents::default()
    });
    let answer = client.infer(typed).unwrap();
    assert_close(&floats(&answer.raw_output_contents[0]), &expected);
    let mut encoded = infer_request(3);
    encoded.inputs[0].name = "encoded".into();
    encoded.inputs[0].datatype = "BYTES".into();
    encoded.inputs[0].shape = vec![1];
    let file = png(3);
    let raw = [&(file.len() as u32).to_le_bytes()[..], &file].concat();
    encoded.raw_input_contents = vec![raw.into()];
    encoded.outputs = vec![InferRequestedOutputTensor {
        name: "probabilities".into(),
        parameters: [(
            "classification".into(),
            InferParameter {
                parameter_choice: Some(ParameterChoice::Int64Param(1)),
            },
        )]
        .into(),
    }];
    let answer = client.infer(encoded).unwrap();
    assert_eq!(answer.outputs[0].datatype, "BYTES");
    let text = String::from_utf8(answer.raw_output_contents[0][4..].to_vec()).unwrap();
    assert_eq!(text.split(':').count(), 3, "{text}");
}

#[test]
fn inputs_must_be_finite() {
    let server = start(options());
    let client = Client::new(&server);
    let mut values = vec![0.5; 3072];
    values[2 * 1024 + 32] = f32::NAN;
    let mut request = infer_request(1);
    request.inputs[0].name = "images".into();
    request.inputs[0].datatype = "FP32".into();
    request.inputs[0].shape = vec![1, 3, 32, 32];
    let raw: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    request.raw_input_contents = vec![raw.into()];
    let mut typed = request.clone();
    typed.raw_input_contents.clear();
    typed.inputs[0].contents = Some(InferTensorContents {
        fp32_contents: values,
        ..InferTensorContents::default()
    });
    for request in [request, typed] {
        let status = client.infer(request).unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        let message = status.message();
        assert!(message.contains("NaN at index [0,2,1,0]"), "{message}");
    }
}

#[test]
fn a_combination_is_chosen_by_name() {
    let server = start(options());
    let client = Client::new(&server);
    let mut request = infer_request(1);
    request.parameters = [("combination".into(), text("0@0.5+2@0.5"))].into();
    let answer = client.infer(request.clone()).unwrap();
    assert_eq!(answer.parameters["instance"], text("0@0.5+2@0.5"));
    request.parameters = [("combination".into(), text("0@0.5+full"))].into();
    let status = client.infer(request).unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("it has 0@0.5>2@0.5"), "{status}");
}

#[test]
fn errors_have_the_codes_of_grpc() {
    let held = Arc::new(Held::default());
    let server = start_with(options(), held.clone());
    let client = Client::new(&server);
    let mut unknown = infer_request(1);
    unknown.model_name = "cats".into();
    assert_eq!(client.infer(unknown).unwrap_err().code(), Code::NotFound);
    let mut other = infer_request(1);
    other.model_version = "2".into();
    assert_eq!(client.infer(other).unwrap_err().code(), Code::NotFound);
    let mut short = infer_request(1);
    short.raw_input_contents = vec![Bytes::from_static(b"x")];
    let status = client.infer(short).unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("1 bytes"), "{status}");
    let load = RepositoryModelLoadRequest {
        model_name: "small".into(),
        ..Default::default()
    };
    let path = "/inference.GRPCInferenceService/RepositoryModelLoad";
    let status = client
        .call::<_, RepositoryModelLoadResponse>(path, load)
        .unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    for path in ["/inference.GRPCInferenceService/Nothing", "/a.B/C"] {
        let status = client
            .call::<_, ServerLiveResponse>(path, ServerLiveRequest {})
            .unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented, "{path}");
    }
    *held.refusal.lock().unwrap() = Some(Refusal::Overloaded {
        reason: "too many requests wait".into(),
        late: false,
        retry_after: Duration::from_millis(12),
    });
    let status = client.infer(infer_request(1)).unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(
        status.metadata().get("grpc-retry-pushback-ms").unwrap(),
        "12"
    );
}

#[test]
fn the_deadline_of_a_call_bounds_its_answer() {
    let held = Arc::new(Held::default());
    let server = start_with(options(), held.clone());
    let client = Client::new(&server);
    let path = "/inference.GRPCInferenceService/ModelInfer";
    let start = std::time::Instant::now();
    let status = client
        .call_for::<_, ModelInferResponse>(path, infer_request(1), Some("150m"))
        .unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    assert!(start.elapsed() >= Duration::from_millis(140));
    let held_job = held.jobs.lock().unwrap().pop().unwrap();
    let time = held_job
        .job
        .deadline
        .unwrap()
        .duration_since(held_job.job.arrival);
    assert_eq!(time, Duration::from_millis(150));
    assert!(held_job.answer.is_closed());
    let status = client
        .call_for::<_, ModelInferResponse>(path, infer_request(1), Some("soon"))
        .unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
}

#[test]
fn cancelled_calls_cancel_their_jobs() {
    let held = Arc::new(Held::default());
    let server = start_with(options(), held.clone());
    let client = Client::new(&server);
    let channel = client.channel.clone();
    let call = client.runtime.spawn(async move {
        let origin = "http://localhost".parse().unwrap();
        let mut grpc = Grpc::with_origin(channel, origin);
        grpc.ready().await.unwrap();
        let path = axum::http::uri::PathAndQuery::from_static(
            "/inference.GRPCInferenceService/ModelInfer",
        );
        let codec = ProstCodec::<ModelInferRequest, ModelInferResponse>::default();
        grpc.unary(tonic::Request::new(infer_request(1)), path, codec)
            .await
    });
    eventually("the job arrives", || held.count() == 1);
    call.abort();
    eventually("the job is given up", || {
        held.jobs.lock().unwrap()[0].answer.is_closed()
    });
}

#[test]
fn messages_are_bounded_and_large_ones_are_read() {
    let limits = Limits {
        body: 5 << 20,
        ..Limits::default()
    };
    let server = start(Options {
        limits,
        ..options()
    });
    let client = Client::new(&server);
    // More than the four megabytes that are usual.
    let mut large = infer_request(1);
    large.inputs[0] = InferInputTensor {
        name: "images".into(),
        datatype: "FP32".into(),
        shape: vec![250, 3, 32, 32],
        ..InferInputTensor::default()
    };
    let zeros = vec![0; 250 * 3072 * 4];
    large.raw_input_contents = vec![[zeros.clone(), zeros].concat().into()];
    let status = client.infer(large.clone()).unwrap_err();
    assert!(
        matches!(status.code(), Code::ResourceExhausted | Code::OutOfRange),
        "{status}"
    );
    large.inputs[0].shape[0] = 400;
    large.raw_input_contents = vec![vec![0; 400 * 3072 * 4].into()];
    let status = client.infer(large.clone()).unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("the limit is 256"), "{status}");
}

#[test]
fn a_token_is_needed() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "correct-horse-battery-staple").unwrap();
    let tokens = crate::net::token::Tokens::read(file.path()).unwrap();
    let server = start(Options {
        tokens,
        ..options()
    });
    let mut client = Client::new(&server);
    assert_eq!(
        client.infer(infer_request(1)).unwrap_err().code(),
        Code::Unauthenticated
    );
    // Health is for probes, which have no token.
    client.wait_until_healthy("");
    client.token = Some("correct-horse-battery-staple");
    client.infer(infer_request(1)).unwrap();
}

#[test]
fn clients_that_hold_answers_back_are_disconnected() {
    let server = start(limited(Limits {
        write_time: Duration::from_millis(300),
        ..Limits::default()
    }));
    // The connection is alive, but the client lets no answer through.
    let mut builder = Builder::new(TokioExecutor::new());
    builder.initial_stream_window_size(0);
    let client = Client::with(&server, &builder);
    client.infer(infer_request(1)).unwrap_err();
    eventually("the connection ends", || {
        server.metric("sdpoint_in_flight_requests") as u64 == 0
            && server.metric("sdpoint_open_connections") as u64 == 1
    });
}

#[test]
fn slow_clients_are_cut_off() {
    let short = Duration::from_millis(300);
    let server = start(limited(Limits {
        header_time: short,
        body_time: short,
        idle_time: short,
        ..Limits::default()
    }));
    // The preface of HTTP/2 and empty settings.
    let opened = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    for sent in [&b""[..], &opened[..10], opened] {
        let mut stream = TcpStream::connect(server.addresses.grpc.unwrap()).unwrap();
        let patience = Duration::from_secs(20);
        stream.set_read_timeout(Some(patience)).unwrap();
        stream.write_all(sent).unwrap();
        let start = Instant::now();
        let _ = stream.read_to_end(&mut Vec::new());
        assert!(start.elapsed() < patience, "{} bytes", sent.len());
    }
    let client = Client::new(&server);
    assert_eq!(client.call_partly(), Code::DeadlineExceeded);
    eventually("idle connections end", || {
        server.metric("sdpoint_open_connections") as u64 == 1
    });
}

#[test]
fn messages_that_would_take_many_times_their_bytes_are_refused() {
    let server = start(options());
    let client = Client::new(&server);
    // Empty tensors.
    let status = client.call_raw([0x2a, 0].repeat(1 << 20).into());
    assert_eq!(status.unwrap_err().code(), Code::InvalidArgument);
    client.infer(infer_request(1)).unwrap();
}

#[test]
fn damaged_messages_are_refused() {
    use prost::Message;
    let server = start(options());
    let client = Client::new(&server);
    let good = infer_request(1).encode_to_vec();
    let mut seed: u64 = 88_172_645_463_325_252;
    let mut random = |end: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % end as u64) as usize
    };
    for _ in 0..2000 {
        let mut bytes = good.clone();
        // The tensor's own bytes are of no interest.
        let at = random(120);
        bytes[at] = random(256) as u8;
        let _ = client.call_raw(bytes.into());
    }
    client.infer(infer_request(1)).unwrap();
}
