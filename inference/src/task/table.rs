//! Tables that features look up: compacted topics, of each key the newest record, in memory.
//!
//! They are caught up with before the first record is made features of, and followed from then on. What a record finds is
//! what the table says when its features are made: the two topics have no order between them.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use crate::codec::Picker;
use crate::feature::Field;
use crate::feature::plan::{Lookup, Plan, Tables};
use crate::stream_log::TableRecord;

/// The tables of a model topic.
#[derive(Debug, Default)]
pub(super) struct TableSet {
    /// By name.
    names: Vec<String>,
    lookups: Vec<Column>,
}

/// The field of a table that a feature looks up.
#[derive(Debug)]
struct Column {
    table: usize,
    picker: Picker,
    /// By the table's keys.
    values: RwLock<HashMap<Box<[u8]>, Field<'static>>>,
}

impl TableSet {
    pub(super) fn new(plan: &Plan) -> Self {
        let mut set = Self::default();
        for lookup in plan.lookups() {
            let table = match set.names.iter().position(|known| *known == lookup.table) {
                Some(table) => table,
                None => {
                    set.names.push(lookup.table.clone());
                    set.names.len() - 1
                }
            };
            let mut picker = Picker::default();
            picker.add(&lookup.path, lookup.path.as_str());
            set.lookups.push(Column {
                table,
                picker,
                values: RwLock::default(),
            });
        }
        set
    }

    /// The topics, in the order of the numbers that [`TableSet::take`] gets.
    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    /// Takes records of a table; how many of them can't be read, and count as if they had no such field.
    pub(super) fn take(&self, table: usize, records: &[TableRecord]) -> usize {
        let mut unread = 0;
        for column in &self.lookups {
            if column.table != table {
                continue;
            }
            let mut values = column
                .values
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            for (key, value) in records {
                let Some(key) = key else { continue };
                let field = match value.as_ref().map(|value| column.picker.pick(value)) {
                    None => Field::Absent,
                    Some(Ok(mut fields)) => {
                        crate::feature::plan::owned(fields.pop().unwrap_or_default())
                    }
                    Some(Err(_)) => {
                        unread += 1;
                        Field::Absent
                    }
                };
                match field {
                    Field::Absent | Field::Null => drop(values.remove(&**key)),
                    field => drop(values.insert((&**key).into(), field)),
                }
            }
        }
        unread
    }
}

impl Tables for TableSet {
    fn get(&self, lookup: usize, _: &Lookup, key: &str) -> Field<'static> {
        let Some(column) = self.lookups.get(lookup) else {
            return Field::Absent;
        };
        let values = column.values.read().unwrap_or_else(PoisonError::into_inner);
        values.get(key.as_bytes()).cloned().unwrap_or_default()
    }
}
