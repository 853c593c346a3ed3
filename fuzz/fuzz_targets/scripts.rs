#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    castling_fuzz::scripts::run(data);
});
