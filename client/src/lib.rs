//! The SQLRsync client: the program `sqlrsync`, as a library.
//!
//! | module | what it is for |
//! |---|---|
//! | [`program`] | from arguments to exit code: signals, logging, how an error is said |
//! | [`cli`], [`service`] | what can be typed, and how a service is told to systemd |
//! | [`settings`], [`folders`] | flags, environment and files, and which of them counts |
//! | [`plan`] | what is to be done, worked out of all that; it acts on nothing |
//! | [`run`] | doing it: push, pull, copy, ssh, log, conflicts, diff, query |
//! | [`rows`] | rows as people and programs are shown them |
//! | [`publish`] | when a publisher pushes, and what it watches and tells the server |
//! | [`follow`] | when a replica that follows pulls, and what it runs then |
//! | [`wire`], [`connect`], [`ssh`], [`server_url`] | ways to the other side |
//! | [`state`] | what was last agreed on about a file, kept between runs |
//! | [`key_file`], [`secrets`], [`client_id`] | the public client's files |
//! | [`files`], [`shell`] | small files that are whole or not there, and words for a shell |
//! | [`outcome`], [`progress`], [`prompt`], [`error`] | what people and programs are told, and asked |
//!
//! Only [`run`] acts, and only on a [`plan::Plan`]. The pages themselves are `sqlrsync-database`'s
//! affair and the conversation `sqlrsync-protocol`'s: here they are joined over a wire. Whatever comes
//! from a server or a peer passes a strict alphabet (`sqlrsync_protocol::text`, `remote`, `key`) before
//! it reaches a file or a terminal.

pub mod cli;
pub mod client_id;
pub mod connect;
pub mod error;
pub mod files;
pub mod folders;
pub mod follow;
pub mod key_file;
pub mod outcome;
pub mod plan;
pub mod program;
pub mod progress;
pub mod prompt;
pub mod publish;
pub mod rows;
pub mod run;
pub mod secrets;
pub mod server_url;
pub mod service;
pub mod settings;
pub mod shell;
pub mod ssh;
pub mod state;
pub mod wire;
