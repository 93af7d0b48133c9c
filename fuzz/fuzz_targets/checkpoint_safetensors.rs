//! A safetensors file.

#![no_main]

libfuzzer_sys::fuzz_target!(|file: &[u8]| sdpoint_fuzz::checkpoint(file.to_vec()));
