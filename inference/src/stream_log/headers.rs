//! The headers of outputs, most of which many outputs have in common.

use std::sync::Arc;

use bytes::Bytes;

/// A record's header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// UTF-8 by Kafka's protocol, kept as bytes.
    pub key: Bytes,
    /// May be null.
    pub value: Option<Bytes>,
}

/// An output's headers, in order: those that it shares with others, then its own. A log can tell by
/// [`Arc::ptr_eq`] that it has encoded the shared ones before.
#[derive(Clone, Debug, Default)]
pub struct Headers {
    /// The same for many outputs.
    pub shared: Arc<[Header]>,
    /// This output's.
    pub own: Vec<Header>,
}

impl Headers {
    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Header> {
        self.shared.iter().chain(&self.own)
    }
}

impl From<Vec<Header>> for Headers {
    fn from(own: Vec<Header>) -> Self {
        Self {
            own,
            ..Self::default()
        }
    }
}

/// By what consumers see of them.
impl PartialEq for Headers {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Headers {}
