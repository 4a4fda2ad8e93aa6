//! Rows: what they are, which key each has, and how those of two databases differ.
//!
//! - [`Schema`]: what tables a database has, read without running anything that its schema brings along.
//! - [`diff()`]: how the rows of two databases differ, as a stream.
//! - [`JsonLines`], [`SqlScript`], [`Changeset`]: its exports.
//! - [`Value`], [`Key`], [`Row`], [`RowChange`], [`SchemaChange`]: what a difference is made of.

mod diff;
pub(crate) mod error;
mod export;
pub(crate) mod fuzzing;
mod key;
mod reader;
mod schema;
mod sql_text;
mod statement;
mod table;
mod value;

#[cfg(test)]
mod tests;

pub use diff::{Counts, Go, LeftOut, Summary, diff, diff_of};
pub use error::Error;
pub use export::{Changeset, JsonLines, SqlScript, row_json, value_json};
pub use key::{Key, MAX_VALUES, Op, Row, RowChange};
pub use schema::{
    Change, Column, Encoding, KeyPart, Object, ObjectKind, Schema, SchemaChange, Table, TableKind,
};
pub(crate) use sql_text::names_in;
pub use sql_text::quoted;
pub use statement::Statement;
pub use value::Value;
