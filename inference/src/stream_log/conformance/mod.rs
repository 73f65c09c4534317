//! What every [`StreamLog`] is held to: one suite, run by each implementation's own tests.
//!
//! An implementation provides a [`Harness`]: a model topic with [`INPUTS`] inputs and outputs of
//! [`PARTITIONS`] partitions, into which records can be appended, whose outputs can be read as a consumer
//! reads them, and which can be crashed and opened again. Then, in its tests,
//!
//! ```ignore
//! inference::stream_log_conformance!(MyHarness::create);
//! ```
//!
//! makes one test of each function here; `MyHarness::create` is an `async fn(Start) -> MyHarness`. The
//! functions panic where a promise is broken.

mod committing;
mod reader;
mod reading;

use std::future::Future;

pub use committing::*;
pub use reading::*;

use super::memory::{CommitFault, NewRecord};
use super::{Output, OutputTopic, StreamLog};

/// Inputs of the model topic under test.
pub const INPUTS: usize = 2;
/// Partitions of its inputs and of both its outputs.
pub const PARTITIONS: i32 = 2;

/// A log under test, and the world around it.
pub trait Harness: Send {
    /// The implementation.
    type Log: StreamLog;

    /// Opens the log, for the first time or after a [`Self::crash`].
    fn open(&mut self) -> impl Future<Output = Self::Log> + Send;

    /// Ends the log without letting it finish anything.
    fn crash(&mut self, log: Self::Log) -> impl Future<Output = ()> + Send;

    /// Appends to an input as a producer does.
    fn append(
        &mut self,
        input: usize,
        partition: i32,
        records: Vec<NewRecord>,
    ) -> impl Future<Output = ()> + Send;

    /// Deletes an input's records below an offset, wholly where batches allow it.
    fn delete_records(
        &mut self,
        input: usize,
        partition: i32,
        before: i64,
    ) -> impl Future<Output = ()> + Send;

    /// All that a consumer sees of an output.
    fn outputs(
        &mut self,
        topic: OutputTopic,
        partition: i32,
    ) -> impl Future<Output = Vec<Output>> + Send;

    /// Lets the next commit fail; `false` where that can't be done, and the test is left out.
    fn fail_next_commit(&mut self, fault: CommitFault) -> bool;
}

/// One test for each promise, of a harness made by `$create`, an `async fn(Start) -> impl Harness`.
#[macro_export]
macro_rules! stream_log_conformance {
    ($create:expr) => {
        $crate::stream_log_conformance! { $create;
            Earliest: assigns_before_it_delivers,
            Earliest: delivers_in_order_and_once,
            Earliest: wakes_a_waiting_poll,
            Earliest: delivers_at_any_size,
            Earliest: loses_nothing_with_a_cancelled_poll,
            Earliest: publishes_in_the_order_of_commits,
            Earliest: commits_many_outputs,
            Earliest: commits_tasks_together,
            Earliest: restores_state_and_positions,
            Earliest: goes_on_from_the_committed_position,
            Earliest: polls_and_commits_together,
            Earliest: did_nothing_where_it_says_retry,
            Earliest: knows_after_restore_what_was_not_done,
            Earliest: knows_after_restore_what_was_done,
            Earliest: tells_a_gap,
            Earliest: keeps_a_paused_task_silent,
            Earliest: knows_its_surroundings,
            Latest: starts_at_the_latest,
        }
    };
    ($create:expr; $($start:ident: $test:ident,)*) => {
        $(
            #[tokio::test]
            async fn $test() {
                let harness = $create($crate::spec::Start::$start).await;
                $crate::stream_log::conformance::$test(harness).await;
            }
        )*
    };
}
