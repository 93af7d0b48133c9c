//! A model file that says anything of its network, and has the tensors for
//! what it says: what `model_file` hardly reaches, because there a change of
//! the description mostly leaves tensors that do not fit it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sdpoint::Model;
use sdpoint_fuzz::model::{described, exercise};

fuzz_target!(|description: &str| {
    if let Some(file) = described(description)
        && let Ok(model) = Model::from_bytes(&file)
    {
        exercise(model);
    }
});
