//! What the end to end tests, the benchmark and the demo share: the real programs, started on data of
//! their own, and the databases that they are given.
//!
//! Nothing here reaches the user's own files: every server has a data folder and every client a home
//! folder that are made for it and removed with it. A helper that cannot do its work panics, and the
//! panic is the report: a test can do nothing else about it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is a failed test, with its place")]

pub mod bridge;
pub mod chain;
pub mod client;
pub mod crowd;
pub mod events;
pub mod fake;
pub mod faults;
pub mod history;
pub mod measure;
pub mod port;
pub mod power;
pub mod process;
pub mod programs;
pub mod random;
pub mod raw;
pub mod sample;
pub mod server;
pub mod session;
pub mod stop;
pub mod subscriber;
pub mod synthetic;
pub mod table;
pub mod team;
pub mod tls;
pub mod trace;
pub mod wall_clock;
