//! A gRPC client for tests.

use axum::body::Bytes;
use axum::http::uri::PathAndQuery;
use axum::http::{Request, Response};
use http_body_util::StreamBody;
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tonic::client::Grpc;
use tonic::{Code, Status};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_prost::ProstCodec;

use super::super::support::{Running, eventually};
use crate::protocol::grpc::inference::{ModelInferRequest, ModelInferResponse};

/// A connection as the service that tonic expects.
#[derive(Clone)]
pub struct Channel(SendRequest<tonic::body::Body>);

impl tower_service::Service<Request<tonic::body::Body>> for Channel {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future =
        std::pin::Pin<Box<dyn Future<Output = Result<Response<Incoming>, hyper::Error>> + Send>>;

    fn poll_ready(
        &mut self,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<tonic::body::Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

/// A client with a runtime of its own.
pub struct Client {
    pub runtime: tokio::runtime::Runtime,
    pub channel: Channel,
    pub token: Option<&'static str>,
}

impl Client {
    pub fn new(server: &Running) -> Self {
        Self::with(server, &Builder::new(TokioExecutor::new()))
    }

    /// A client whose connection has these options.
    pub fn with(server: &Running, builder: &Builder<TokioExecutor>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let address = server.addresses.grpc.unwrap();
        let channel = runtime.block_on(async {
            let stream = tokio::net::TcpStream::connect(address).await.unwrap();
            stream.set_nodelay(true).unwrap();
            let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
            tokio::spawn(connection);
            Channel(sender)
        });
        Self {
            runtime,
            channel,
            token: None,
        }
    }

    pub fn call<Q, A>(&self, method: &'static str, message: Q) -> Result<A, Status>
    where
        Q: prost::Message + Default + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        self.call_for(method, message, None)
    }

    pub fn call_for<Q, A>(
        &self,
        method: &'static str,
        message: Q,
        timeout: Option<&'static str>,
    ) -> Result<A, Status>
    where
        Q: prost::Message + Default + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        let origin = "http://localhost".parse().unwrap();
        let mut grpc = Grpc::with_origin(self.channel.clone(), origin);
        let mut request = tonic::Request::new(message);
        if let Some(timeout) = timeout {
            request
                .metadata_mut()
                .insert("grpc-timeout", timeout.parse().unwrap());
        }
        if let Some(token) = self.token {
            let value = format!("Bearer {token}").parse().unwrap();
            request.metadata_mut().insert("authorization", value);
        }
        self.runtime.block_on(async {
            grpc.ready()
                .await
                .map_err(|error| Status::unknown(error.to_string()))?;
            let path = PathAndQuery::from_static(method);
            let answer = grpc
                .unary(request, path, ProstCodec::<Q, A>::default())
                .await;
            answer.map(tonic::Response::into_inner)
        })
    }

    pub fn wait_until_healthy(&self, service: &str) {
        eventually("the server is healthy", || {
            let request = HealthCheckRequest {
                service: service.to_owned(),
            };
            let health: HealthCheckResponse =
                self.call("/grpc.health.v1.Health/Check", request).unwrap();
            health.status == 1
        });
    }

    pub fn infer(&self, message: ModelInferRequest) -> Result<ModelInferResponse, Status> {
        self.call("/inference.GRPCInferenceService/ModelInfer", message)
    }
}

impl Client {
    /// Sends bytes as the message of an inference request.
    pub fn call_raw(&self, bytes: Bytes) -> Result<Bytes, Status> {
        let origin = "http://localhost".parse().unwrap();
        let mut grpc = Grpc::with_origin(self.channel.clone(), origin);
        self.runtime.block_on(async {
            grpc.ready()
                .await
                .map_err(|error| Status::unknown(error.to_string()))?;
            let path = PathAndQuery::from_static("/inference.GRPCInferenceService/ModelInfer");
            let answer = grpc.unary(tonic::Request::new(bytes), path, Raw).await;
            answer.map(tonic::Response::into_inner)
        })
    }
}

impl Client {
    /// Sends the beginning of a message, and never the rest; returns the status.
    pub fn call_partly(&self) -> Code {
        let beginning = Frame::data(Bytes::from_static(&[0, 0, 0, 0, 100, 1, 2, 3]));
        let frames = tokio_stream::once(Ok::<_, Status>(beginning));
        let frames = tokio_stream::StreamExt::chain(frames, tokio_stream::pending());
        let request = Request::post("http://localhost/inference.GRPCInferenceService/ModelInfer")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(tonic::body::Body::new(StreamBody::new(frames)))
            .unwrap();
        let mut channel = self.channel.clone();
        let response = self
            .runtime
            .block_on(async { channel.0.send_request(request).await });
        let response = response.unwrap();
        let status = response.headers().get("grpc-status").unwrap();
        Code::from_bytes(status.as_bytes())
    }
}

/// Messages as bytes.
struct Raw;

impl tonic::codec::Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl tonic::codec::Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(
        &mut self,
        item: Bytes,
        buffer: &mut tonic::codec::EncodeBuf<'_>,
    ) -> Result<(), Status> {
        prost::bytes::BufMut::put(buffer, item);
        Ok(())
    }
}

impl tonic::codec::Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(
        &mut self,
        buffer: &mut tonic::codec::DecodeBuf<'_>,
    ) -> Result<Option<Bytes>, Status> {
        use prost::bytes::Buf;
        let length = buffer.remaining();
        Ok(Some(buffer.copy_to_bytes(length)))
    }
}
