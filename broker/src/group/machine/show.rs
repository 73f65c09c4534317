//! What administrators see of a group.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::{Group, State};
use crate::group::subscription;

/// The protocol type of consumer groups, whose subscriptions the broker can read.
const CONSUMER: &str = "consumer";

/// A member, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownMember {
    /// Its id.
    pub member_id: String,
    /// A static member's own name.
    pub instance_id: Option<String>,
    /// The client's name for itself.
    pub client_id: String,
    /// The address it joined from.
    pub client_host: String,
    /// Its subscription under the chosen protocol; empty unless the group is stable.
    pub metadata: Bytes,
    /// Its assignment.
    pub assignment: Bytes,
}

impl State {
    /// Kafka's name for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Stable => "Stable",
            Self::Dead => "Dead",
        }
    }
}

impl Group {
    /// The members, by id.
    pub fn shown_members(&self) -> impl Iterator<Item = ShownMember> {
        let protocol = self.protocol.as_deref();
        let protocol = protocol.filter(|_| self.state == State::Stable);
        self.members.iter().map(move |(id, member)| ShownMember {
            member_id: id.clone(),
            instance_id: member.instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            metadata: protocol.map_or_else(Bytes::new, |name| member.metadata(name)),
            assignment: member.assignment.clone(),
        })
    }

    /// It is, or was, a group of consumers.
    pub fn is_of_consumers(&self) -> bool {
        self.protocol_type.as_deref() == Some(CONSUMER)
    }

    /// The topics that the members have subscribed to. `None` where that can't be known: it is not
    /// a group of consumers, no protocol is chosen yet, or a subscription can't be read.
    pub fn subscribed_topics(&self) -> Option<BTreeSet<String>> {
        if !self.is_of_consumers() {
            return None;
        }
        if self.members.is_empty() {
            return Some(BTreeSet::new());
        }
        let protocol = self.protocol.as_deref()?;
        let mut topics = BTreeSet::new();
        for member in self.members.values() {
            for topic in subscription::topics(&member.metadata(protocol))? {
                if !topics.contains(topic) {
                    topics.insert(topic.to_owned());
                }
            }
        }
        Some(topics)
    }
}
