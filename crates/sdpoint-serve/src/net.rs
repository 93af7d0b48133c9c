//! Accepts, limits and closes connections, and checks requests before they reach their
//! protocol.

mod body;
pub mod connection;
mod front;
pub mod listener;
pub mod open_files;
pub mod origin;
mod timed;
pub mod token;

pub use front::{Front, Protocol};
