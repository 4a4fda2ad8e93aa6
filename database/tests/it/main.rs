//! Live files, read and written while others read and write them. What is shown where:
//!
//! - `exchange`: whole exchanges between a live file and a file, every version, size and ground
//! - `odd_files`: what is no database, or an unusual one
//! - `fingerprint`: nothing that changed is taken for unchanged
//! - `wal`: a push reads what the WAL says, and everything where the WAL does not say it for certain
//! - `content_now`: a write that changes nothing is known for one, without reading the file
//! - `live`: writers and readers at work during snapshot and apply
//! - `beside`: a version pulled beside a file, which stays as it is
//! - `rules`: one test for each rule of applying pages
//! - `in_use`: others who have the file open meanwhile
//! - `resume`: continuing a cut push
//! - `crash`: a process killed in the middle, a disk that fills up
//! - `vectors`: recorded sessions of `sqlite3_rsync`

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod beside;
mod content_now;
mod crash;
mod exchange;
mod fingerprint;
mod in_use;
mod live;
mod meanwhile;
mod odd_files;
mod resume;
mod rules;
mod support;
mod vectors;
mod wal;
