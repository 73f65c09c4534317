#![no_main]

use std::panic::{catch_unwind, resume_unwind, set_hook};
use std::sync::{Mutex, PoisonError};

#[path = "../entry/models.rs"]
#[allow(dead_code)]
mod entry;
#[path = "../folder.rs"]
mod folder;

static LAST_PANIC: Mutex<String> = Mutex::new(String::new());

fn last_panic() -> std::sync::MutexGuard<'static, String> {
    LAST_PANIC.lock().unwrap_or_else(PoisonError::into_inner)
}

libfuzzer_sys::fuzz_target!(
    // libFuzzer's hook ends the process, and the loader survives the panics of a tokenizer.
    init: set_hook(Box::new(|panic| *last_panic() = panic.to_string())),
    |data: &[u8]| {
        if let Err(panic) = catch_unwind(|| entry::model_folder(data)) {
            eprintln!("{}", last_panic());
            resume_unwind(panic);
        }
    }
);
