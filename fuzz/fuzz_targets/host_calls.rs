#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| castling_fuzz::host_calls::run(data));
