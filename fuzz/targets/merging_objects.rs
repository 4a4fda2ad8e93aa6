#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| sqlrsync_repository::fuzzing::merging_objects(data));
