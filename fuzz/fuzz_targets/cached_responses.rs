#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| castling_fuzz::texts::cached_responses(data));
