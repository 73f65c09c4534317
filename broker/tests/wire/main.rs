//! A real server and clients that speak raw frames to it: what is served, and what closes a connection.

mod client;
mod configs;
mod lifecycle;
mod malformed;
mod partitions;
mod records;
mod topics;
mod versions;
