//! What clients and the broker say to each other, and what clients' own clocks say.

use broker::group::machine::{JoinAnswer, Protocol, SyncAnswer};
use bytes::Bytes;
use kafka_protocol::ResponseError;

/// A request on its way.
#[derive(Clone, Debug)]
pub struct Request {
    pub client: usize,
    pub incarnation: u32,
    /// Names the answer; nobody waits for a repeated request's.
    pub id: u64,
    pub body: Body,
}

#[derive(Clone, Debug)]
pub enum Body {
    Join {
        member_id: String,
        protocols: Vec<Protocol>,
    },
    Sync {
        member_id: String,
        generation: i32,
        assignments: Vec<(String, Bytes)>,
    },
    Heartbeat {
        member_id: String,
        generation: i32,
    },
    Commit {
        member_id: String,
        generation: i32,
    },
    Leave {
        member_id: String,
    },
}

impl Body {
    pub fn metadata(&self) -> Bytes {
        let protocol = match self {
            Self::Join { protocols, .. } => protocols.first(),
            _ => None,
        };
        protocol.map_or_else(Bytes::new, |protocol| protocol.metadata.clone())
    }
}

#[derive(Clone, Debug)]
pub enum Answer {
    Join(JoinAnswer),
    Sync(SyncAnswer),
    Heartbeat(Result<(), ResponseError>),
    Commit(Result<(), ResponseError>, i32),
}

/// What a client's own clocks say.
#[derive(Clone, Copy, Debug)]
pub enum Timer {
    Start,
    Rejoin,
    /// The answer to this request has not come.
    TimedOut(u64),
    Heartbeat(i32),
    /// It rejoins at last.
    Freed,
}

/// A request, short.
pub fn told(body: &Body) -> String {
    match body {
        Body::Join { member_id, .. } => format!("join as {member_id:?}"),
        Body::Sync {
            member_id,
            generation,
            assignments,
        } => {
            let given = assignments.len();
            format!("sync of {member_id:?} at {generation} with {given} assignments")
        }
        other => format!("{other:?}").to_lowercase(),
    }
}
