//! What people and programs are told of a subscription: a line an event on stderr, or with `--json` an
//! object an event on stdout, beside the outcomes of the pulls. Trouble of one kind is said once, until
//! all is well again; the service manager is told the same.

use std::io::Write;
use std::mem::{Discriminant, discriminant};
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use serde_json::{Value, json};
use sqlrsync_protocol::exchange::Refusal;
use sqlrsync_protocol::page::VersionNumber;
use sqlrsync_protocol::text::printable;

use super::exec::Ran;
use crate::error::Error;
use crate::outcome::print_json;
use crate::plan::{Output, Pull};
use crate::service;

/// What makes two errors the same trouble.
type Kind = (Discriminant<Error>, Option<Discriminant<sqlrsync_database::Error>>, Option<Refusal>);

/// What comes after trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Another try after so long, and later ones less often.
    Again(Duration),
    /// Another try when the file has changed, or a new version comes.
    FileChanged,
    /// A pull when there is something to pull.
    FirstVersion,
}

/// Tells what happens between the pulls.
#[derive(Debug)]
pub struct Reporter {
    output: Output,
    remote: String,
    server: String,
    said: Vec<Kind>,
    /// Whether the connection has stood before.
    connected: bool,
    ready: bool,
}

impl Reporter {
    /// For a replica that follows.
    pub fn new(output: Output, pull: &Pull) -> Reporter {
        let (remote, server) = (pull.remote.to_string(), pull.access.server.to_string());
        Reporter { output, remote, server, said: Vec::new(), connected: false, ready: false }
    }

    /// New versions will be told from now on.
    pub fn connected(&mut self) {
        let again = self.connected || !self.said.is_empty();
        self.connected = true;
        self.said.retain(|(_, database, _)| database.is_some());
        let (remote, server) = (&self.remote, &self.server);
        let text = match again {
            true => format!("connected to {server} again"),
            false => format!("following {remote} on {server}"),
        };
        let event = json!({"event": "connected", "remote": remote, "server": server});
        tell(self.output, &text, &event);
        service::status(&text);
    }

    /// Something is in the way that may pass.
    pub fn trouble(&mut self, error: &Error, next: Next) {
        let kind = kind(error);
        if !self.said.contains(&kind) {
            self.said.push(kind);
            self.say_trouble(error, next);
        }
        self.ready();
    }

    fn say_trouble(&self, error: &Error, next: Next) {
        let text = printable(&error.to_string());
        let (then, again_in) = match next {
            Next::Again(wait) => {
                let wait = wait.as_secs_f64();
                (format!("trying again in {wait:.1} s, and then less often"), Some(wait))
            }
            Next::FileChanged => ("waiting until the file has changed".to_owned(), None),
            Next::FirstVersion => ("waiting for the first version".to_owned(), None),
        };
        let event = json!({
            "event": "waiting", "error": text, "exit_code": error.exit_code(),
            "again_in": again_in,
        });
        service::status(&format!("waiting: {text}"));
        // Not for `--quiet` to hide: it is an error, if one that may pass.
        tell(Output { quiet: false, ..self.output }, &format!("{text}; {then}"), &event);
    }

    /// The file is that version.
    pub fn in_step(&mut self, version: Option<VersionNumber>) {
        self.said.clear();
        let version = version.map(|version| format!("version {version} of ")).unwrap_or_default();
        service::status(&format!("following: {version}{}", self.remote));
        self.ready();
    }

    /// The first pull is done, or has to wait: either way the service runs.
    fn ready(&mut self) {
        if !self.ready {
            self.ready = true;
            service::ready();
        }
    }
}

fn kind(error: &Error) -> Kind {
    match error {
        Error::Database(inner) => (discriminant(error), Some(discriminant(inner)), None),
        Error::Refused { refusal, .. } => (discriminant(error), None, Some(*refusal)),
        _ => (discriminant(error), None, None),
    }
}

/// A command has ended.
pub fn ran(output: Output, ran: &Ran) {
    let version = ran.version.map(|version| format!(" for version {version}")).unwrap_or_default();
    let (how, error) = match &ran.status {
        Ok(status) => match (status.code(), status.signal()) {
            (Some(code), _) => (format!("ended with exit code {code}"), None),
            (None, signal) => (format!("was ended by signal {}", signal.unwrap_or(0)), None),
        },
        Err(error) => (format!("could not be run: {error}"), Some(printable(&error.to_string()))),
    };
    let status = ran.status.as_ref().ok();
    let event = json!({
        "event": "exec", "version": ran.version.map(VersionNumber::get),
        "exit_code": status.and_then(|status| status.code()),
        "signal": status.and_then(|status| status.signal()),
        "error": error, "seconds": ran.took.as_secs_f64(),
    });
    let succeeded = status.is_some_and(|status| status.success());
    let output = Output { quiet: output.quiet && succeeded, ..output };
    tell(output, &format!("the command{version} {how}"), &event);
}

/// A subscription outlives whoever reads its output: that nobody can be told is no reason to stop.
fn tell(output: Output, text: &str, event: &Value) {
    if output.json {
        let _ = print_json(event);
    } else if !output.quiet {
        let _ = writeln!(std::io::stderr(), "sqlrsync: {}", printable(text));
    }
}
