//! The parts of a replica that follows: `run::follow` joins them.
//!
//! | module | what it is for |
//! |---|---|
//! | [`notices`] | the connection on which a server tells of new versions; reconnects for ever |
//! | [`steps`] | when to pull: a state machine without a clock |
//! | [`backoff`] | how long to wait before the next try: the same |
//! | [`exec`] | the command that runs after each new version |
//! | [`report`] | what people, programs and the service manager are told |
//! | [`clock`] | time that goes on while the machine sleeps |
//!
//! A notice is a hint: what counts is the version that a pull ends with. One that is lost, doubled or
//! late changes nothing, since a server names its newest version after every connect.

pub mod backoff;
pub mod clock;
pub mod exec;
pub mod notices;
pub mod report;
pub mod steps;
