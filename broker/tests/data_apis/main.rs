//! Produce, Fetch, ListOffsets and InitProducerId, handled over a real catalog and real logs in a
//! temporary folder.

mod delete_records;
mod fetch;
mod init_producer_id;
mod list_offsets;
mod produce;
mod support;
