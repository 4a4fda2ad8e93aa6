//! Tests of rows over ordinary database files.

mod schema;
