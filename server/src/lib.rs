//! The SQLRsync server: keys, replicas and their versions, over WebSocket and HTTP.
//!
//! ```text
//! listener   accepts, TLS, time limits            gate      counts connections
//! http       routes and thin handlers             access    who may do what
//! backend    what the server does, without HTTP   catalog   namespaces, replicas, key hashes
//! session    a WebSocket from upgrade to close   sessions  all of them, and how they are told to end
//! server     starts and stops it all              cli       what can be typed
//! settings, size, tls, logging                    refused   why a peer does not get what it asks for
//! data_folder, first_start, new_key               revocations, sweeper   what is done from time to time
//! allocator, descriptors                          what is set for the whole process
//! ```
//!
//! Async code is at the edge only: whatever reads or writes a disk runs on threads of its own.
//! [`server::Server::start`] runs a server inside another program, as the tests do.

pub mod access;
pub mod allocator;
pub mod backend;
pub mod catalog;
pub mod cli;
pub mod data_folder;
pub mod descriptors;
pub mod first_start;
pub mod gate;
pub mod http;
pub mod linger;
pub mod listener;
pub mod logging;
pub mod new_key;
pub mod refused;
pub mod revocations;
pub mod server;
pub mod session;
pub mod sessions;
pub mod settings;
pub mod size;
pub mod sweeper;
pub mod tls;
