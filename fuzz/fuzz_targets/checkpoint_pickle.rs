//! Any pickle, within an archive that is sound, beside a storage of 64 bytes.

#![no_main]

#[path = "../../crates/sdpoint-exchange/tests/support/archive.rs"]
mod archive;

libfuzzer_sys::fuzz_target!(|pickle: &[u8]| {
    let files = [("data.pkl", pickle), ("data/0", &[1; 64])];
    sdpoint_fuzz::checkpoint(archive::zip(&files));
});
