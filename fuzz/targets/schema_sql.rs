#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| sqlrsync_database::fuzzing::schema_sql(data));
