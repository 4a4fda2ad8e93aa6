//! Tests of rows over ordinary databases.

mod diff;
mod export;
mod property;
mod random;
mod schema;
mod schema_changes;
mod session;
mod sqldiff;
mod support;
mod versions;
