//! What a publisher (`sqlrsync LOCAL REMOTE --subscribe`) is made of.
//!
//! | module | what it is for |
//! |---|---|
//! | [`schedule`] | when to push and what to announce: a state machine without a clock |
//! | [`watch`] | whether the database was written to |
//! | [`content`] | whether a write changed anything |
//! | [`link`] | the connection on which pushes are announced |
//! | [`report`] | what people, programs and the server are told |
//!
//! `run::publish` joins them: what the watch sees goes into the schedule, and what the schedule says is
//! done. The push itself is the ordinary one.

pub mod content;
pub mod link;
pub mod report;
pub mod schedule;
pub mod watch;
