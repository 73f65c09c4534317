//! Consumer groups and their offsets: a real server, raw frames, restarts.

mod admin;
#[allow(dead_code)] // The other tests use the rest of it.
#[path = "../wire/client.rs"]
mod client;
mod expiry;
mod members;
mod offsets;
mod read_only;
mod requests;
mod rules;
