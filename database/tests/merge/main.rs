//! Merging, shown case by case: `docs/merging.md` points here.
//!
//! - `rows`: rows of ordinary tables, of every kind of key
//! - `constraints`: UNIQUE, CHECK, NOT NULL and foreign keys on the result
//! - `schema`: migrations on one side and on both, views, triggers, the numbers of the header
//! - `virtual_tables`: FTS5, FTS4, R-tree and their shadow tables
//! - `settle`: choosing, by row and for all
//! - `options`: `cells` and `renumber`
//! - `migrations`: the same migration on both sides of random histories
//! - `property`: random histories, by `random`, judged by `oracle`

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod constraints;
mod migrations;
mod options;
mod oracle;
mod property;
mod random;
mod rows;
mod schema;
mod settle;
mod support;
mod virtual_tables;
