//! The server over real sockets, in this process and as a program.
//!
//! - `transfers`: pushes and pulls by a client that is as strict as the public one, and by version 3
//! - `access`: who may do what, with which status
//! - `revoked`: keys that are revoked while connections are open
//! - `hostile`: peers that send what they may not, slowly, or not at all
//! - `hang_up`: peers that ask for much and go away
//! - `limits`: connections, time, sizes, turns
//! - `merges`: pushes that were not made from the latest version, conflicts and their settlement
//! - `possible_bases`: pushes of a client that does not say what they were made from
//! - `said_bases`: pushes of our own client that says what they may have been made from
//! - `subscriptions`: notices of new versions
//! - `api`: what is read over HTTP
//! - `rules`: the policy, the audit log, the OpenAPI document
//! - `status`: what clients did, announced and reported, and who is told of it
//! - `too_long`: messages over the limit
//! - `tls`: certificates
//! - `program`: the program itself: first start, keys while it runs, signals, check

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "what a test does not expect fails it")]

mod access;
mod api;
mod hang_up;
mod hostile;
mod limits;
mod merges;
mod possible_bases;
mod program;
mod public_client;
mod revoked;
mod rules;
mod said_bases;
mod status;
mod subscriptions;
mod support;
mod tls;
mod too_long;
mod transfers;
