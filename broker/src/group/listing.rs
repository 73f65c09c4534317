//! What administrators see of all groups: the real ones, and model topics' positions.

use std::sync::{Arc, PoisonError};

use super::coordinator::{GroupCoordinator, lock};
use super::machine::{ShownMember, State};

/// A group in the list of all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedGroup {
    /// Its name.
    pub group: String,
    /// Such as `consumer`; empty where it never had members.
    pub protocol_type: String,
    /// Where it stands.
    pub state: State,
}

/// A group, with its members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedGroup {
    /// Where it stands.
    pub state: State,
    /// Such as `consumer`; empty where it never had members.
    pub protocol_type: String,
    /// The protocol of a stable group; empty otherwise.
    pub protocol: String,
    /// Its members, by id.
    pub members: Vec<ShownMember>,
}

impl GroupCoordinator {
    /// Every group, in no order. A model topic's positions look like a group that never had
    /// members.
    pub fn list(&self) -> Vec<ListedGroup> {
        let slots: Vec<_> = {
            let groups = self.groups.read().unwrap_or_else(PoisonError::into_inner);
            let slots = groups.iter();
            slots
                .map(|(name, slot)| (name.clone(), Arc::clone(slot)))
                .collect()
        };
        let shown = self.read_only_names().into_iter().map(|group| ListedGroup {
            group,
            protocol_type: String::new(),
            state: State::Empty,
        });
        let real = slots.into_iter().filter_map(|(group, slot)| {
            let machine = &lock(&slot).machine;
            (machine.state() != State::Dead).then(|| ListedGroup {
                group,
                protocol_type: machine.protocol_type().unwrap_or_default().to_owned(),
                state: machine.state(),
            })
        });
        real.chain(shown).collect()
    }

    /// One group. `None` where there is none of that name.
    pub fn describe(&self, group: &str) -> Option<DescribedGroup> {
        if self.positions(group).is_some() {
            return Some(DescribedGroup {
                state: State::Empty,
                protocol_type: String::new(),
                protocol: String::new(),
                members: Vec::new(),
            });
        }
        let slot = self.slot(group)?;
        let machine = &lock(&slot).machine;
        let state = machine.state();
        let protocol = machine.protocol().filter(|_| state == State::Stable);
        (state != State::Dead).then(|| DescribedGroup {
            state,
            protocol_type: machine.protocol_type().unwrap_or_default().to_owned(),
            protocol: protocol.unwrap_or_default().to_owned(),
            members: machine.shown_members().collect(),
        })
    }
}
