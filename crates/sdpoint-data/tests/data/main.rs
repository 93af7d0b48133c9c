//! The crate as its users see it, on files that the tests write.

mod archives;
mod common;
mod decode;
mod folders;
mod loading;
