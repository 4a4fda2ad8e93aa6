//! Rows: what they are, which key each has, and how those of two databases differ.

mod value;

pub use value::Value;
