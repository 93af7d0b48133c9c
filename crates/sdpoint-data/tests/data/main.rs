//! The crate as its users see it, on files that the tests write.

mod archives;
mod cifar;
mod common;
mod decode;
mod digests;
mod folders;
mod holding_out;
mod jpeg;
mod jpegs;
#[cfg(unix)]
mod left_out;
mod loading;
mod misplaced;
mod samples;
mod skipping;
