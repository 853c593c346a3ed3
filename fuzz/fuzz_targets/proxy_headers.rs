#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| castling_fuzz::messages::proxy_headers(data));
