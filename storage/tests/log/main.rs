//! The log from the outside: on real files, and on a disk that fails when it is told to.

mod append_and_read;
mod commit;
mod compaction;
mod compression;
mod damage;
mod delete_records;
mod derived;
mod fixture;
mod flush;
mod folder;
mod full_disk;
mod lost_files;
mod power_cut;
mod preallocate;
mod restart;
mod retention;
mod rolling;
mod start;
mod timestamps;
mod transactions;
