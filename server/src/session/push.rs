//! `/sapi/push`: a client that pushes, now or later or never.
//!
//! ```text
//! open → CONFIG with keyType
//! (CHANGED, COMMITMESSAGE, CONFIG, KEYREQUEST)*   no thread, for days if need be
//!                                             → NEWREPLICAVERSION: see [`stream_notices`]
//! first piece of the stream → wait for the turn → run_replica on a thread
//! committed → CONFIG with id, path, version (and keys) → MESSAGE → close 1000
//! refused → REPLICA_ERROR in the stream → close
//! ```
//!
//! A PULL key is let in, because a client that only means to report changes learns here that it
//! cannot push: it gets `keyType` PULL, and a push on it is refused with REPLICA_ERROR. (Our own client
//! is refused with 403 before the upgrade, unless it says that it only announces.)
//!
//! [`stream_notices`]: super::stream_notices

use std::sync::Arc;
use std::time::Instant;

use axum::extract::ws::WebSocket;
use bytes::Bytes;
use futures_util::StreamExt;
use sqlrsync_protocol::control::{self, Direction};
use sqlrsync_protocol::conversation::{ExchangeError, Quiet, ReplicaOptions, Summary, run_replica};
use sqlrsync_protocol::exchange::Refusal;
use sqlrsync_protocol::message::{Side, error_bytes};
use sqlrsync_protocol::text::{Abort, Config, KeyType, ServerText};

use super::end::End;
use super::outcome::{self, failed};
use super::queue::Receiver;
use super::reader::{Read, Reader};
use super::stream_notices::StreamNotices;
use super::transfer::{self, Transfer};
use super::wire::{Incoming, SocketWire};
use super::writer::{Outbox, Outgoing, Writer};
use super::{Common, Heartbeat};
use crate::access::PushRight;
use crate::backend::{Backend, Doing, PushPlan, PushTurn};
use crate::catalog::ReplicaRecord;
use crate::refused::Refused;
use crate::sessions::{Signal, told};

/// A push connection.
pub struct PushSession {
    /// What all sessions have.
    pub common: Common,
    /// What was decided before the upgrade.
    pub plan: PushPlan,
}

/// What a client did that did not push yet.
enum Before {
    /// It begins to push.
    Push { first: Bytes, message: String },
    /// It ended, or has to.
    End(End),
}

impl PushSession {
    /// Runs the session to its end.
    pub async fn run(self, socket: WebSocket) {
        let limits = self.common.limits;
        let (sink, stream) = socket.split();
        let (outbox, writer) = Writer::start(sink, limits.queue_bytes_max, limits.idle);
        let mut reader = Reader::new(stream, Direction::Push);
        let key_type = match self.plan.right {
            PushRight::Push => KeyType::Push,
            PushRight::PullOnly => KeyType::Pull,
        };
        outcome::say(&outbox, &ServerText::Config(Config { key_type: Some(key_type), ..Config::default() }));
        let end = match self.before(&mut reader, &outbox).await {
            Before::End(end) => end,
            Before::Push { first, message } => self.push(&mut reader, &outbox, first, message).await,
        };
        self.common.end(end, outbox, writer, reader).await;
    }

    /// Waits for the first piece of the stream.
    async fn before(&self, reader: &mut Reader, outbox: &Outbox) -> Before {
        let mut signal = self.common.session.signal();
        let mut heartbeat = Heartbeat::new(self.common.limits.ping);
        let mut notices = StreamNotices::new(&self.common.backend, &self.plan);
        let mut message = String::new();
        loop {
            let read = tokio::select! {
                biased;
                signal = told(&mut signal, |signal| signal != Signal::Go) => return Before::End(End::of(signal)),
                read = reader.next() => read,
                () = notices.next() => {
                    // Where there is no room there is one already that nobody has read.
                    outbox.try_send(Outgoing::Binary(control::new_replica_version()), 1);
                    continue;
                }
                alive = heartbeat.beat(outbox) => {
                    if alive {
                        continue;
                    }
                    return Before::End(End::Idle);
                }
            };
            heartbeat.heard();
            match read {
                Read::Stream(first) => return Before::Push { first, message },
                Read::CommitMessage(text) => message = text,
                Read::Changed(seconds) => {
                    notices.stays();
                    self.note_changed(seconds).await;
                }
                Read::Alive => {}
                Read::Gone => return Before::End(End::Done),
                Read::Invalid(error) => {
                    self.refuse(outbox, &error.to_string());
                    return Before::End(End::Invalid);
                }
                Read::TooLong => {
                    let end = End::TooLong { max: self.common.limits.message_bytes_max };
                    self.refuse(outbox, &end.reason());
                    return Before::End(end);
                }
            }
        }
    }

    /// Says what was wrong with what came before the stream.
    fn refuse(&self, outbox: &Outbox, text: &str) {
        let refusal = self.plan.says.own_client.then_some(Refusal::Invalid);
        let bytes = error_bytes(Side::Replica, refusal, text);
        let len = bytes.len();
        outbox.try_send(Outgoing::Binary(bytes), len);
    }

    /// The client announces a push. What becomes of the note is nothing for the client.
    async fn note_changed(&self, seconds: u32) {
        tracing::debug!(session = self.common.session.id(), seconds, "a push is to follow");
        let plan = self.plan.clone();
        let noted = self.common.backend.blocking(move |backend| backend.note_changed(&plan, seconds));
        // A failure is in the log already.
        let _ = noted.await;
    }

    /// Runs the transfer on a thread and hands it the stream.
    async fn push(&self, reader: &mut Reader, outbox: &Outbox, first: Bytes, message: String) -> End {
        let asked = reader.asked();
        let (plan, common) = (self.plan.clone(), self.common.parts());
        let address = self.common.peer.permit.address();
        let thread_outbox = outbox.clone();
        let transfer = Transfer::start("push", self.common.limits, |inbox| async move {
            let turn = common.backend.begin_push(&plan, address, common.limits.busy_wait).await;
            move || {
                let push = Push { plan, message, common, asked };
                push.run(turn, thread_outbox, inbox)
            }
        });
        transfer.feed(first, reader, outbox).await
    }
}

/// A push on its thread.
struct Push {
    plan: PushPlan,
    message: String,
    common: transfer::Parts,
    asked: tokio::sync::watch::Receiver<super::reader::Asked>,
}

impl Push {
    fn run(self, turn: Result<PushTurn, Refused>, outbox: Outbox, inbox: Receiver<Incoming>) -> End {
        let started = Instant::now();
        let backend: Arc<Backend> = self.common.backend.clone();
        let name = turn.as_ref().map(|turn| turn.name.to_string()).unwrap_or_default();
        let _pushing = turn.as_ref().ok().map(|turn| {
            let replica = turn.replica().id().to_string();
            backend.activity.enter(&replica, self.plan.says.name(), Doing::Pushing)
        });
        let waited_for = turn.as_ref().ok().map(PushTurn::waiting);
        let mut pages = backend.push_pages(&self.plan, self.message.clone(), turn);
        let own_client = self.plan.says.own_client;
        let mut wire = SocketWire::new(&self.common, outbox, inbox, own_client);
        if let Some(by) = waited_for {
            wire.waited_for(by);
        }
        let options = ReplicaOptions { knows_refusals: own_client, ..ReplicaOptions::default() };
        match run_replica(options, &mut pages, &mut wire, &mut Quiet) {
            Ok(summary) => {
                let record = pages.record().cloned();
                // The turn ends here: the next push need not wait until this client has read its answer.
                drop(pages);
                if let Some(record) = record {
                    self.acknowledge(&record, &summary, &mut wire);
                    log(&record, &summary, started);
                }
                End::Done
            }
            Err(error) => {
                let failure = failed(&error, Side::Replica, &mut wire);
                if let ExchangeError::Local(refused) = &error
                    && let Some(latest) = refused.rejected_for()
                {
                    // After the error: the public client takes this alone for a push that went well.
                    let text = ServerText::Abort(Abort::VersionConflict(latest)).to_string();
                    let _ = wire.put(Outgoing::Text(text));
                }
                pages.abandon(failure.cut && wire.version() >= 3);
                outcome::log_failure("push failed", &name, &self.common, &error, started);
                failure.end
            }
        }
    }

    /// CONFIG first: the public client may read only one text more.
    fn acknowledge(&self, record: &ReplicaRecord, summary: &Summary, wire: &mut SocketWire<'_>) {
        let mut config = outcome::config_of(record, summary.committed.version);
        config.key_type = Some(KeyType::Push);
        if self.asked.borrow().keys {
            let host = &self.plan.says.host;
            let given = self.common.backend.give_keys(&self.plan.caller, record, true, host);
            config.new_push_key = given.push.as_ref().map(Into::into);
            config.new_pull_key = given.pull.as_ref().map(Into::into);
        }
        // A client that is gone by now has pushed all the same.
        let _ = wire.put(Outgoing::Text(ServerText::Config(config).to_string()));
        let _ = wire.put(Outgoing::Text(ServerText::Message(message(record, summary)).to_string()));
    }
}

fn message(record: &ReplicaRecord, summary: &Summary) -> String {
    let name = record.name();
    let version = summary.committed.version.map_or(0, |version| version.get());
    if let Some(conflict) = summary.committed.conflict {
        format!(
            "kept as conflict {conflict} of {name}: rows that this changes were changed by others as well"
        )
    } else if summary.committed.merged && summary.committed.unchanged {
        format!("nothing to publish: version {version} of {name} has all that this changes")
    } else if summary.committed.merged {
        format!("merged as version {version} of {name}, with what others pushed meanwhile")
    } else if summary.committed.unchanged {
        format!("nothing changed: version {version} of {name} is this database")
    } else if summary.committed.overtook {
        format!("version {version} of {name}; what others pushed meanwhile is in the versions before it")
    } else {
        format!("version {version} of {name}")
    }
}

fn log(record: &ReplicaRecord, summary: &Summary, started: Instant) {
    tracing::info!(
        replica = record.name(),
        version = summary.committed.version.map(|version| version.get()),
        unchanged = summary.committed.unchanged,
        merged = summary.committed.merged,
        conflict = summary.committed.conflict.map(|conflict| conflict.get()),
        pages = summary.pages_received,
        bytes_received = summary.bytes_received,
        bytes_sent = summary.bytes_sent,
        protocol = summary.version,
        seconds = started.elapsed().as_secs_f64(),
        "pushed"
    );
}
