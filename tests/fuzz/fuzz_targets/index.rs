#![no_main]

#[path = "../entry/indexes.rs"]
#[allow(dead_code)]
mod entry;
#[path = "../folder.rs"]
mod folder;

libfuzzer_sys::fuzz_target!(|data: &[u8]| entry::index(data));
