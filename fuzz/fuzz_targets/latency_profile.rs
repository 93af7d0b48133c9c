//! A latency profile from anywhere: refused or read, never a panic.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sdpoint::Profile;

fuzz_target!(|data: &[u8]| {
    let _ = Profile::parse(data);
});
