//! What a publisher (`sqlrsync LOCAL REMOTE --subscribe`) is made of.
//!
//! | module | what it is for |
//! |---|---|
//! | [`schedule`] | when to push and what to announce: a state machine without a clock |
//!
//! [`crate::run`] joins them.

pub mod schedule;
