//! The format that torch.save had before PyTorch 1.6.

#![no_main]

libfuzzer_sys::fuzz_target!(|file: &[u8]| sdpoint_fuzz::checkpoint(file.to_vec()));
