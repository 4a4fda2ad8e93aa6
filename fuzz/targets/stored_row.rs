#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| sqlrsync_database::fuzzing::stored_row(data));
