#![no_main]

#[path = "../entry/broker.rs"]
#[allow(dead_code)]
mod entry;

libfuzzer_sys::fuzz_target!(|data: &[u8]| entry::group_records(data));
