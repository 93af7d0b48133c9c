//! A model file from anywhere: refused or read, never a panic, and no more
//! memory than the file is long. What is read can be written, read again, and
//! run.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sdpoint::Model;
use sdpoint_fuzz::model::{exercise, seal};

fuzz_target!(|data: &[u8]| {
    let _ = Model::from_bytes(data);
    let mut sealed = data.to_vec();
    seal(&mut sealed);
    if let Ok(model) = Model::from_bytes(&sealed) {
        exercise(model);
    }
});
