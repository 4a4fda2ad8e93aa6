//! `/sapi/pull`: a client that pulls one version.
//!
//! ```text
//! open → ORIGIN_BEGIN → the conversation, on a thread
//! versions 1 and 2: CONFIG → ORIGIN_END in a message of its own → close 1000
//! version 3:        CONFIG as soon as it is agreed on, and again when keys are asked for → close 1000
//! refused: ORIGIN_ERROR in the stream → close
//! ```
//!
//! In versions 1 and 2 CONFIG waits for a KEYREQUEST that may still be on its way, since nothing can be
//! said after ORIGIN_END. In version 3 nobody has to wait: the client's last message comes after it.

use std::cell::Cell;
use std::time::{Duration, Instant};

use axum::extract::ws::WebSocket;
use bytes::Bytes;
use futures_util::StreamExt;
use sqlrsync_protocol::control::Direction;
use sqlrsync_protocol::conversation::{ExchangeError, OriginOptions, Quiet, Summary, run_origin};
use sqlrsync_protocol::exchange::{Fault, Refusal};
use sqlrsync_protocol::key::Kind;
use sqlrsync_protocol::message::{Side, error_bytes};
use sqlrsync_protocol::text::{KeyType, ServerText};
use tokio::sync::watch;
use tokio::time::timeout_at;

use super::Common;
use super::end::End;
use super::outcome::{self, failed};
use super::queue::Receiver;
use super::reader::{Asked, Reader};
use super::transfer::{Parts, Transfer};
use super::wire::{Incoming, Place, SocketWire};
use super::writer::{Outbox, Outgoing, Writer};
use crate::backend::{Delivery, PullPlan, Room};
use crate::catalog::ClientName;

/// How long after the last of its messages a client's CONFIG and KEYREQUEST may come.
const REQUESTS_LATE_MAX: Duration = Duration::from_millis(250);

/// A pull connection.
pub struct PullSession {
    /// What all sessions have.
    pub common: Common,
    /// What was decided before the upgrade.
    pub plan: PullPlan,
    /// Who the client says it is.
    pub client: ClientName,
    /// The transfer's place among those that may run at once.
    pub room: Room,
}

impl PullSession {
    /// Runs the session to its end.
    pub async fn run(self, socket: WebSocket) {
        let PullSession { common, plan, client, room } = self;
        let limits = common.limits;
        let (sink, stream) = socket.split();
        let (outbox, writer) = Writer::start(sink, limits.queue_bytes_max, limits.idle);
        let mut reader = Reader::new(stream, Direction::Pull);
        let pull = Pull { plan, client, parts: common.parts(), asked: reader.asked() };
        let thread_outbox = outbox.clone();
        let transfer = Transfer::start("pull", limits, |inbox| async move {
            move || {
                let _room = room;
                pull.run(thread_outbox, inbox)
            }
        });
        let end = transfer.feed(Bytes::new(), &mut reader, &outbox).await;
        common.end(end, outbox, writer, reader).await;
    }
}

/// What the client was told already.
#[derive(Clone, Copy, Default)]
struct Said {
    config: bool,
    keys: bool,
}

/// A pull on its thread.
struct Pull {
    plan: PullPlan,
    client: ClientName,
    parts: Parts,
    asked: watch::Receiver<Asked>,
}

impl Pull {
    fn run(self, outbox: Outbox, inbox: Receiver<Incoming>) -> End {
        let started = Instant::now();
        let name = self.plan.record.name();
        let said = Cell::new(Said::default());
        let own_client = self.plan.own_client;
        let mut wire = SocketWire::new(&self.parts, outbox, inbox, own_client);
        let mut origin = match self.plan.replica.origin(&self.plan.version) {
            Ok(origin) => Delivery::new(origin, &self.plan, &self.client.client_id),
            Err(error) => {
                tracing::error!(replica = name, %error, "a version cannot be read");
                let refusal = own_client.then(|| error.refusal());
                let bytes = error_bytes(Side::Origin, refusal, &error.public_text());
                let _ = wire.put(Outgoing::Binary(bytes));
                return End::Done;
            }
        };
        wire.notes(|place| self.note(place, &said));
        // The client waits for the close: versions 1 and 2 have no answer to ORIGIN_END.
        let options =
            OriginOptions { await_close: false, knows_refusals: own_client, ..OriginOptions::default() };
        match run_origin(options, &mut origin, &mut wire, &mut Quiet) {
            Ok(summary) => {
                if let Some(text) = self.note(Place::Anywhere, &said).filter(|_| summary.version >= 3) {
                    let _ = wire.put(Outgoing::Text(text));
                }
                let PullPlan { caller, record, version, .. } = &self.plan;
                self.parts.backend.note_pulled(caller, record, self.client.clone(), version.number);
                self.log(&summary, started);
                End::Done
            }
            Err(error) => {
                let failure = failed(&error, Side::Origin, &mut wire);
                if let ExchangeError::Peer { refusal: Refusal::NotWanted, .. } = error {
                    origin.was_not_wanted();
                }
                outcome::log_failure("pull failed", &name, &self.parts, &error, started);
                failure.end
            }
        }
    }

    /// CONFIG, where it has not been said yet, with a key where one was asked for.
    fn note(&self, place: Place, said: &Cell<Said>) -> Option<String> {
        let before = said.get();
        let wait = place == Place::BeforeEnd;
        let may_be_given = self.plan.caller.may_be_given(&self.plan.record).is_some();
        let keys = may_be_given && !before.keys && self.keys_asked(wait);
        if before.config && !keys {
            return None;
        }
        said.set(Said { config: true, keys: before.keys || keys });
        let mut config = outcome::config_of(&self.plan.record, Some(self.plan.version.number));
        config.key_type = self.plan.caller.key().map(|key| match key.kind {
            Kind::AccountAdmin | Kind::ReplicaPush => KeyType::Push,
            Kind::AccountPull | Kind::ReplicaPull => KeyType::Pull,
        });
        if keys {
            let given =
                self.parts.backend.give_keys(&self.plan.caller, &self.plan.record, false, &self.client.host);
            config.new_pull_key = given.pull.as_ref().map(Into::into);
        }
        Some(ServerText::Config(config).to_string())
    }

    fn keys_asked(&self, wait: bool) -> bool {
        let mut asked = self.asked.clone();
        let now = *asked.borrow();
        if wait && now.open {
            let deadline = now.last + REQUESTS_LATE_MAX;
            // A client that goes away meanwhile has asked for nothing more.
            let _ = self.parts.runtime.block_on(async {
                timeout_at(deadline, asked.wait_for(|asked| !asked.open)).await.map(drop)
            });
        }
        self.asked.borrow().keys
    }

    fn log(&self, summary: &Summary, started: Instant) {
        tracing::info!(
            session = self.parts.session,
            replica = self.plan.record.name(),
            version = self.plan.version.number.get(),
            pages = summary.pages_sent,
            bytes_received = summary.bytes_received,
            bytes_sent = summary.bytes_sent,
            protocol = summary.version,
            seconds = started.elapsed().as_secs_f64(),
            "pulled"
        );
    }
}
