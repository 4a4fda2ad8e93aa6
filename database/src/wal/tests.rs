//! The WAL rule.
