//! The protocol over REST, and `/predict`.

mod binary;
mod body;
mod json;
mod models;
mod predict;
pub mod repository;
mod respond;
pub mod router;
pub mod triton;

pub use router::router;
