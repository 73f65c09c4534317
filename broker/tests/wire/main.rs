//! A real server and clients that speak raw frames to it: what is served, and what closes a connection.

mod client;
mod lifecycle;
mod malformed;
mod records;
mod versions;
