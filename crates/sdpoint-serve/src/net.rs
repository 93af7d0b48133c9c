//! Connections: accepting, bounding and closing them, and what every request passes
//! before its protocol sees it.

mod body;
pub mod connection;
mod front;
pub mod listener;
pub mod origin;
mod timed;
pub mod token;

pub use front::{Front, Protocol};
