//! What a service manager is told (`sd_notify(3)`), where one asked for it: systemd with `Type=notify`
//! says so by NOTIFY_SOCKET in the environment, and without it nothing here does anything.
//!
//! A status is shown to people and read line by line, so that it passes through `printable`: what a
//! server says cannot become a message of its own.

use sd_notify::NotifyState;
use sqlrsync_protocol::text::printable;

/// The work has begun: whatever was waiting for this service may start.
pub fn ready() {
    notify(&[NotifyState::Ready]);
}

/// What is going on, for `systemctl status`.
pub fn status(text: &str) {
    notify(&[NotifyState::Status(&printable(text))]);
}

/// We were told to stop, and do.
pub fn stopping() {
    notify(&[NotifyState::Stopping]);
}

fn notify(states: &[NotifyState<'_>]) {
    // A manager that does not listen is not worth failing for.
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager cannot be told");
    }
}
