//! What clients can't make the broker do: the real binary against clients that are many, slow,
//! silent, greedy or wrong.

mod amplification;
mod connections;
mod hostile;
mod many;
mod raw;
mod soak;
