//! The Open Inference Protocol, and what is said in it whatever carries it: REST, gRPC,
//! or a form in a browser.

pub mod answer;
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
