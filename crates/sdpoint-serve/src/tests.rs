//! The server as clients see it, through real connections.

mod cost;
mod grpc;
mod hostile;
mod operations;
mod page;
mod recorded;
mod rest;
mod safety;
mod support;
