//! Consumer groups and their committed offsets.

pub mod machine;
pub mod records;

/// Groups that are shown but not kept here: model topics' positions.
pub trait ReadOnlyGroups: Send + Sync + std::fmt::Debug {
    /// Topic, partition and next offset of each position; `None` where the group is not of this kind.
    fn positions(&self, group: &str) -> Option<Vec<(String, i32, i64)>>;
}

/// The coordinator of every group.
#[derive(Debug)]
pub struct GroupCoordinator {}
