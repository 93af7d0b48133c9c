//! The Open Inference Protocol: what its transports have in common, REST with `/predict`,
//! and gRPC.

pub mod answer;
pub mod combination;
pub mod datatype;
pub mod error;
pub mod grpc;
pub mod images;
pub mod metrics;
pub mod parameters;
pub mod request;
pub mod rest;
pub mod signature;
pub mod terms;
