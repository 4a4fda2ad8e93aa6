#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| sqlrsync_database::fuzzing::pages_that_differ(data));
