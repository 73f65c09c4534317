//! What clients and the broker say to each other.

use broker::transaction::machine::{End, Init, Producer};
use broker::transaction::records::TransactionVersion;
use kafka_protocol::ResponseError;

/// A partition of the simulation. The last one stands for `__consumer_offsets`: what is written to it has no
/// sequences.
pub type Partition = usize;

/// One record of one transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tag {
    /// Which transaction, over all clients.
    pub transaction: usize,
    /// Which of its writes.
    pub write: usize,
}

#[derive(Clone, Debug)]
pub enum Request {
    Init(Init),
    Add {
        producer: Producer,
        partition: Partition,
    },
    Write {
        producer: Producer,
        partition: Partition,
        sequence: i32,
        tag: Tag,
        version: TransactionVersion,
        /// It is acknowledged when it is on the device.
        durable: bool,
    },
    End(End),
}

/// What a request has come to: who the producer is, where it asked for that.
pub type Answer = Result<Option<Producer>, ResponseError>;

/// A client's request, or the answer to it.
#[derive(Clone, Debug)]
pub struct Message<T> {
    pub client: usize,
    /// Of the client's; asking again is another attempt.
    pub attempt: u64,
    pub body: T,
}
