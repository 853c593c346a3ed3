#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| castling_fuzz::messages::http2_heads(data));
