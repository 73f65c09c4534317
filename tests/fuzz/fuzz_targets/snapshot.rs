#![no_main]

#[path = "../entry/log_files.rs"]
#[allow(dead_code)]
mod entry;

libfuzzer_sys::fuzz_target!(|data: &[u8]| entry::snapshot(data));
