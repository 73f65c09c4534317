//! What a state is: by what records are keyed, and what is kept of them.
//!
//! It is in the changelog with the state, so that features that can't go on with it are refused, and nothing is mixed.

use serde::{Deserialize, Serialize};

use crate::feature::pane::Pane;
use crate::feature::window::Window;

/// What a state is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Definition {
    /// The field that records are keyed by; the record's key without one.
    pub key: Option<String>,
    /// In so many partitions.
    pub partitions: i32,
    /// What is kept of each key.
    pub panes: Vec<PaneDefinition>,
}

/// What is kept of a key for one window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaneDefinition {
    /// In keys of state.
    pub id: u32,
    /// The window and the field, for people.
    pub what: String,
}

/// State that can't be gone on with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Incompatible {
    /// It is of other keys.
    #[error(
        "the state was kept by {was}, and the config says {is}: set it back, or rebuild the state \
         (`milena serve --rebuild-state`)"
    )]
    Key {
        /// As it was.
        was: String,
        /// As the config says.
        is: String,
    },
    /// Keys are in other partitions.
    #[error(
        "the state was kept in {was} partitions, and there are {is}: keys are in other partitions now. Rebuild the state \
         (`milena serve --rebuild-state`)"
    )]
    Partitions {
        /// As it was.
        was: i32,
        /// As it is.
        is: i32,
    },
    /// It does not have what a feature needs.
    #[error(
        "the state has nothing for {missing}: a new window would begin empty beside others that are full. Set the features \
         back, or rebuild the state (`milena serve --rebuild-state`)"
    )]
    Missing {
        /// The window and field.
        missing: String,
    },
}

impl Definition {
    /// Of panes, with what each aggregates.
    pub fn new<'p>(
        key: Option<String>,
        partitions: i32,
        panes: impl Iterator<Item = (&'p Pane, &'p str)>,
    ) -> Self {
        let panes = panes.map(|(pane, field)| PaneDefinition {
            id: pane.id,
            what: describe(&pane.window, field),
        });
        Self {
            key,
            partitions,
            panes: panes.collect(),
        }
    }

    /// Whether it keeps a pane.
    pub fn has(&self, pane: u32) -> bool {
        self.panes.iter().any(|known| known.id == pane)
    }

    /// Whether this can go on with a state of `found`. What it does not need of that is let go.
    pub fn check(&self, found: &Self) -> Result<(), Incompatible> {
        if self.key != found.key {
            let by = |key: &Option<String>| match key {
                Some(path) => format!("the field {path}"),
                None => "the records' keys".to_owned(),
            };
            return Err(Incompatible::Key {
                was: by(&found.key),
                is: by(&self.key),
            });
        }
        if self.partitions != found.partitions {
            return Err(Incompatible::Partitions {
                was: found.partitions,
                is: self.partitions,
            });
        }
        match self.panes.iter().find(|pane| !found.has(pane.id)) {
            Some(pane) => Err(Incompatible::Missing {
                missing: pane.what.clone(),
            }),
            None => Ok(()),
        }
    }
}

fn describe(window: &Window, field: &str) -> String {
    let of = match field {
        "" => "records".to_owned(),
        field => field.to_owned(),
    };
    match window {
        Window::Sliced {
            slice_ms,
            slices: 1,
            grace_ms,
        } => format!("{of} in tumbling windows of {slice_ms} ms, grace {grace_ms} ms"),
        Window::Sliced {
            slice_ms,
            slices,
            grace_ms,
        } => format!(
            "{of} in sliding windows of {} ms by {slice_ms} ms, grace {grace_ms} ms",
            slice_ms * slices
        ),
        Window::Session { gap_ms, grace_ms } => {
            format!("{of} in sessions with gaps of {gap_ms} ms, grace {grace_ms} ms")
        }
        Window::Count { records } => format!("the last {records} {of}"),
        Window::All => format!("all {of}"),
    }
}
