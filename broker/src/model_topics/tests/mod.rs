//! The embedded log over a real data folder: the promises of every log, and what faults and crashes
//! do to a commit.

mod commit;
mod compaction;
mod conformance;
mod crash;
mod crash_points;
mod reading;
mod recovery;
mod start;
mod stateful_crashes;
mod world;
