//! Checks that every request passes before its protocol: origin, token, length and
//! deadline.

use std::convert::Infallible;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::http::{Request, Version, header};
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use sdpoint::core::words::plural;
use tonic::Status;
use tower_service::Service;

use super::body::{Guarded, Watched};
use super::connection::{Activity, Busy};
use super::origin::{Pages, name_origin, preflight};
use super::token::Tokens;
use crate::app::{App, Call};
use crate::clients::{Clients, Share};
use crate::delivery::Sending;
use crate::page;
use crate::protocol::error::{ApiError, Kind};
use crate::protocol::grpc::deadline;

/// The protocol of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    Rest,
    /// gRPC, on HTTP/2.
    Grpc,
}

/// The future of a response.
pub type Answering = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

/// Handles the requests of one listener; shared by its connections.
#[derive(Clone)]
pub struct Front {
    /// The server.
    pub app: Arc<App>,
    /// The accepted tokens.
    pub tokens: Arc<Tokens>,
    /// The web pages that may use it.
    pub pages: Arc<Pages>,
    /// The connections with requests in progress by client.
    pub busy: Arc<Clients>,
    /// The protocol.
    pub protocol: Protocol,
    /// The router of the protocol.
    pub router: Router,
}

impl Front {
    /// Answers a request of `client`. `activity` counts the requests of the connection.
    pub fn call(
        &self,
        request: Request<Incoming>,
        client: IpAddr,
        activity: &Arc<Activity>,
    ) -> Answering {
        let mut busy = Busy::new(activity);
        let outcome = match self.share(&request, client, activity) {
            Ok(share) => {
                busy.share = share;
                self.admit(request, client)
            }
            Err(error) => Admitted::Refused(error, None),
        };
        let mut router = self.router.clone();
        let protocol = self.protocol;
        Box::pin(async move {
            let mut sending = None;
            let (mut response, origin) = match outcome {
                Admitted::Answered(response) => (response, None),
                Admitted::Refused(error, origin) => (refuse(error, protocol), origin),
                Admitted::Let(request, origin) => {
                    let call = request.extensions().get::<Call>();
                    sending = call.map(|call| Sending(call.delivery.clone()));
                    (router.call(*request).await?, origin)
                }
            };
            if let Some(origin) = origin {
                name_origin(&mut response, origin);
            }
            busy.answered();
            // The request is in progress until the response body is sent.
            Ok(response.map(|body| {
                Body::new(Watched {
                    body,
                    _busy: busy,
                    _sending: sending,
                })
            }))
        })
    }

    /// Takes one of the client's connections for a request. An idle connection is closed when
    /// another needs its place, so only one with a request counts. Probes do not: they must get
    /// through, and end at once.
    fn share(
        &self,
        request: &Request<Incoming>,
        client: IpAddr,
        activity: &Arc<Activity>,
    ) -> Result<Option<Arc<Share>>, ApiError> {
        if is_probe(request.uri().path()) {
            return Ok(None);
        }
        let most = self.app.limits.busy_per_client;
        let share = activity.share(|| self.busy.take(client, 1, most));
        share.map(Some).map_err(|used| {
            let used = plural(used, "connection", "connections");
            ApiError::new(
                Kind::Quota,
                format!("this client has requests on {used}; the limit is {most}"),
            )
        })
    }

    fn admit(&self, request: Request<Incoming>, client: IpAddr) -> Admitted {
        let arrival = Instant::now();
        let origin = match self.pages.check(request.headers()) {
            Ok(origin) => origin,
            Err(error) => return Admitted::Refused(error, None),
        };
        if let (Some(origin), Some(mut response)) =
            (&origin, preflight(request.method(), request.headers()))
        {
            name_origin(&mut response, origin.clone());
            return Admitted::Answered(response);
        }
        match self.check(&request, arrival) {
            Err(error) => Admitted::Refused(error, origin),
            Ok(deadline) => {
                let memory = self.app.memory.begin();
                let call = Call {
                    client,
                    arrival,
                    deadline,
                    memory,
                    delivery: Arc::default(),
                };
                Admitted::Let(Box::new(self.guard(request, call)), origin)
            }
        }
    }

    /// Checks a request by its header, and returns the deadline in it.
    fn check(
        &self,
        request: &Request<Incoming>,
        arrival: Instant,
    ) -> Result<Option<Instant>, ApiError> {
        self.check_host(request)?;
        if page::shows(request.uri().path()) {
            self.pages.check_host(request.headers())?;
        }
        if !self.is_open(request.uri().path()) && !self.tokens.allow(request.headers()) {
            self.app.metrics.unauthenticated.inc();
            return Err(ApiError::new(
                Kind::Unauthenticated,
                "this server requires a token: Authorization: Bearer TOKEN",
            ));
        }
        let most = self.app.limits.body;
        if request.body().size_hint().lower() > most as u64 {
            return Err(ApiError::too_long(most));
        }
        match (self.protocol, request.headers().get("grpc-timeout")) {
            (Protocol::Grpc, Some(timeout)) => {
                let time = timeout.to_str().ok().and_then(deadline::parse);
                let time = time.ok_or_else(|| ApiError::invalid("grpc-timeout is not valid"))?;
                Ok(Some(arrival + time))
            }
            _ => Ok(None),
        }
    }

    /// Checks that a request of HTTP/1.1 names its host once, as RFC 9112 requires: a proxy may
    /// take another of several names than the server.
    fn check_host(&self, request: &Request<Incoming>) -> Result<(), ApiError> {
        let hosts = request.headers().get_all(header::HOST).iter().count();
        if self.protocol == Protocol::Rest && request.version() == Version::HTTP_11 && hosts != 1 {
            return Err(ApiError::invalid(format!(
                "the request has {}; HTTP/1.1 requires exactly one",
                plural(hosts, "Host header", "Host headers")
            )));
        }
        Ok(())
    }

    /// Whether a path needs no token. The page needs none, because it is what asks for one.
    fn is_open(&self, path: &str) -> bool {
        is_probe(path) || self.protocol == Protocol::Rest && page::is_file(path)
    }

    /// Limits a request's body, and attaches the [`Call`].
    fn guard(&self, request: Request<Incoming>, call: Call) -> Request<Body> {
        let limits = &self.app.limits;
        let (mut parts, body) = request.into_parts();
        // REST counts what it allocates.
        let memory = (self.protocol == Protocol::Grpc).then(|| call.memory.clone());
        let body = Guarded::new(body, limits.body, limits.body_time, memory);
        let body = match self.protocol {
            Protocol::Rest => Body::new(body),
            // tonic expects its own error type.
            Protocol::Grpc => Body::new(body.map_err(Status::from)),
        };
        parts.extensions.insert(call);
        Request::from_parts(parts, body)
    }
}

/// The result of the checks.
enum Admitted {
    Answered(Response),
    Refused(ApiError, Option<axum::http::HeaderValue>),
    Let(Box<Request<Body>>, Option<axum::http::HeaderValue>),
}

/// Whether a path is one of probes, which send no token.
fn is_probe(path: &str) -> bool {
    matches!(
        path,
        "/v2/health/live"
            | "/v2/health/ready"
            | "/grpc.health.v1.Health/Check"
            | "/grpc.health.v1.Health/Watch"
            | "/inference.GRPCInferenceService/ServerLive"
            | "/inference.GRPCInferenceService/ServerReady"
    )
}

fn refuse(error: ApiError, protocol: Protocol) -> Response {
    match protocol {
        Protocol::Rest => {
            let close = matches!(error.kind, Kind::TooLarge | Kind::Quota);
            let mut response = error.into_response();
            if close {
                // The unread body would be parsed as the next request, and wait for its rest.
                let value = axum::http::HeaderValue::from_static("close");
                response.headers_mut().insert(header::CONNECTION, value);
            }
            response
        }
        Protocol::Grpc => Status::from(error).into_http(),
    }
}
