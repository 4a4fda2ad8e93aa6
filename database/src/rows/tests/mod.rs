//! Tests of rows over ordinary databases.

mod diff;
mod schema;
mod schema_changes;
mod support;
