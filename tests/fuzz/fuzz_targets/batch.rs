#![no_main]

#[path = "../allocations.rs"]
#[allow(dead_code)]
mod allocations;
#[path = "../entry/batches.rs"]
#[allow(dead_code)]
mod entry;

libfuzzer_sys::fuzz_target!(|data: &[u8]| entry::batch(data));
