//! The structure of a database: which pages belong to which table, and which rows a set of changed pages may
//! concern. Pages are decoded no further than that: what is in a row is asked of SQLite.
//!
//! Every page here may come from a hostile file.

mod touched;

pub use touched::{Ranges, TableRoot, Touched};
