//! Consumer groups and their offsets: a real server, raw frames, restarts.

#[allow(dead_code)] // The other tests use the rest of it.
#[path = "../wire/client.rs"]
mod client;
mod members;
mod offsets;
mod read_only;
mod requests;
