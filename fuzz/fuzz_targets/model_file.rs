//! A model file from anywhere: refused or read, never a panic, and no more
//! memory than the file is long. What is read can be written and read again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sdpoint::Model;
use sha2::{Digest, Sha256};

/// What stands before the digest, in the header's JSON within JSON.
const BEFORE: &[u8] = b"\\\"sha256\\\":\\\"";

/// Gives the bytes the digest that they should have, so that what lies behind
/// that check is reached.
fn seal(bytes: &mut [u8]) {
    let found = bytes.windows(BEFORE.len()).position(|part| part == BEFORE);
    let Some(start) = found.map(|place| place + BEFORE.len()) else {
        return;
    };
    let Some(place) = bytes.get_mut(start..start + 64) else {
        return;
    };
    place.fill(b'0');
    let digest: String = Sha256::digest(&*bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    bytes[start..start + 64].copy_from_slice(digest.as_bytes());
}

fuzz_target!(|data: &[u8]| {
    let _ = Model::from_bytes(data);
    let mut sealed = data.to_vec();
    seal(&mut sealed);
    if let Ok(model) = Model::from_bytes(&sealed) {
        for record in &model.instances {
            let cost = model
                .network
                .cost(model.preprocessing.size, record.instance);
            assert!(cost.is_ok(), "a model's instances run on its own images");
        }
    }
});
