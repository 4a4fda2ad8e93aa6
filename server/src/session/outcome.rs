//! How a transfer ended, told to the peer and to the log.

use std::time::Instant;

use sqlrsync_protocol::conversation::ExchangeError;
use sqlrsync_protocol::exchange::{Fault, Refusal};
use sqlrsync_protocol::message::{Side, error_bytes};
use sqlrsync_protocol::page::VersionNumber;
use sqlrsync_protocol::text::{Config, ServerText};

use super::end::End;
use super::transfer::Parts;
use super::wire::{SocketWire, WireError};
use super::writer::{Outbox, Outgoing};
use crate::catalog::ReplicaRecord;

/// What becomes of the session of a failed transfer.
#[derive(Clone, Copy, Debug)]
pub struct Failure {
    /// How the session ends.
    pub end: End,
    /// The connection was cut, as opposed to one side having given up: the peer may come back.
    pub cut: bool,
}

/// Tells the peer why the transfer failed, where the conversation has not done so, and how the
/// session ends.
pub fn failed<P: Fault>(
    error: &ExchangeError<P, WireError>,
    side: Side,
    wire: &mut SocketWire<'_>,
) -> Failure {
    let cut = matches!(error, ExchangeError::Wire(_) | ExchangeError::Closed);
    let ended_by = match (error, wire.refused()) {
        (ExchangeError::Wire(error), _) => *error,
        (ExchangeError::Closed, _) => WireError::Gone,
        // The conversation said farewell, and the wire did not take it any more.
        (_, Some(refused)) => refused,
        (ExchangeError::Protocol(_), None) => return Failure { end: End::Invalid, cut },
        (ExchangeError::Local(_) | ExchangeError::Peer { .. }, None) => {
            return Failure { end: End::Done, cut };
        }
    };
    let (end, refusal, text) = match ended_by {
        WireError::Gone => return Failure { end: End::Done, cut },
        WireError::Uncuttable(error) => (End::Done, Refusal::Failed, error.to_string()),
        WireError::Ended(end) => (end, end.refusal(), end.reason().into_owned()),
        WireError::Idle => (End::Idle, End::Idle.refusal(), End::Idle.reason().into_owned()),
        WireError::InTheWay => (End::InTheWay, End::InTheWay.refusal(), End::InTheWay.reason().into_owned()),
        WireError::Slow => (End::Slow, End::Slow.refusal(), End::Slow.reason().into_owned()),
    };
    let refusal = wire.knows_refusals().then_some(refusal);
    // What the wire refused was never begun, so the stream stands between two messages.
    let _ = wire.put(Outgoing::Binary(error_bytes(side, refusal, &text)));
    Failure { end, cut }
}

/// The fields of CONFIG that say what a replica is.
pub fn config_of(record: &ReplicaRecord, version: Option<VersionNumber>) -> Config {
    Config {
        replica_id: record.id.parse().ok(),
        replica_path: record.name().parse().ok(),
        committed_version: version,
        ..Config::default()
    }
}

/// Sends a text at the beginning of a session, when its queue is empty.
pub fn say(outbox: &Outbox, text: &ServerText) {
    let text = text.to_string();
    let len = text.len();
    outbox.try_send(Outgoing::Text(text), len);
}

/// One line in the log. The texts of peers in it are printable and bounded.
pub fn log_failure<P: Fault>(
    what: &str,
    replica: &str,
    parts: &Parts,
    error: &ExchangeError<P, WireError>,
    started: Instant,
) {
    let seconds = started.elapsed().as_secs_f64();
    let session = parts.session;
    match error {
        ExchangeError::Local(error) if matches!(error.refusal(), Refusal::Failed | Refusal::Integrity) => {
            tracing::error!(session, replica, %error, seconds, "{what}");
        }
        // A disk that is full, or another limit of this server: nothing that the peer could mend.
        ExchangeError::Local(error) if error.refusal() == Refusal::TryLater => {
            tracing::warn!(session, replica, %error, seconds, "{what}");
        }
        error => tracing::info!(session, replica, %error, seconds, "{what}"),
    }
}
