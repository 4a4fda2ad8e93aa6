//! The side that becomes a copy.
//!
//! # What it may receive, and what it does with each
//!
//! | message | when | what it does |
//! |---|---|---|
//! | ORIGIN_BEGIN | first; again after REPLICA_BEGIN | answers with a lower version, with hashes (1, 2) or with what it has (3) |
//! | ORIGIN_DETAIL | after its hashes (2) | remembers the range |
//! | ORIGIN_READY | after ORIGIN_DETAILs (2) | sends finer hashes |
//! | ORIGIN_PAGE | after its hashes | hands the page on |
//! | ORIGIN_TXN | after the pages | remembers the page count |
//! | ORIGIN_END | after ORIGIN_TXN | has its pages finish, and is done |
//! | ORIGIN_NODES | after it opened (3) | sends each node |
//! | ORIGIN_BASE | after it opened (3) | asks its pages; answers where the base is not what it named |
//! | ORIGIN_PLAN | after ORIGIN_BASE (3) | counts the staged blocks named as received |
//! | ORIGIN_BATCH | after ORIGIN_PLAN (3) | hands the block on |
//! | ORIGIN_PROOF | after the batches (3) | has its pages prove and finish, says so, and is done |
//! | ORIGIN_MSG | always | hands on the text |
//! | ORIGIN_ERROR | always | ends |

mod batches;
mod hashes;
mod receive;
mod settle;

use bytes::Bytes;

use super::io::{Common, Conversation, Counts, Io, Polled, Sort, Step, Stop};
use super::{ReplicaOptions, Violation};
use crate::block::Block;
use crate::exchange::{Committed, End, Ground, Held, PushId, Refusal, StagedBlock};
use crate::hash::PageHash;
use crate::message::{OriginMessage, ReplicaMessage, Side, VERSION_MAX};
use crate::page::{Geometry, PageNumber};
use crate::sponge::Hash20;
use crate::tree::NodeId;

/// What a replica asks of its pages: the calls of [`crate::exchange::ReplicaPages`].
#[derive(Clone, Debug)]
pub enum ReplicaRequest {
    /// `begin`; answered with [`ReplicaAnswer::Held`].
    Begin {
        /// What the origin has.
        origin: Geometry,
        /// The version agreed on.
        version: u8,
    },
    /// `staged`; answered with [`ReplicaAnswer::Staged`].
    Staged,
    /// `group_hash`; answered with [`ReplicaAnswer::GroupHash`].
    GroupHash {
        /// The first page.
        first: PageNumber,
        /// How many pages.
        count: u32,
    },
    /// `node`; answered with [`ReplicaAnswer::Node`].
    Node(NodeId),
    /// `accept`; answered with [`ReplicaAnswer::Accepted`].
    Accept {
        /// What the pages will be a difference to.
        ground: Ground,
        /// What to commit under.
        push: Option<PushId>,
    },
    /// `reuse`; answered with [`ReplicaAnswer::Taken`].
    Reuse(Vec<u32>),
    /// `take_page`; answered with [`ReplicaAnswer::Taken`].
    TakePage {
        /// Its number.
        number: PageNumber,
        /// Its bytes, as in the origin's file.
        page: Bytes,
    },
    /// `take_block`; answered with [`ReplicaAnswer::Taken`].
    TakeBlock(Block),
    /// `finish`; answered with [`ReplicaAnswer::Finished`].
    Finish(End),
}

/// The answer to a [`ReplicaRequest`].
#[derive(Clone, Debug)]
pub enum ReplicaAnswer {
    /// What is there.
    Held(Held),
    /// What a cut push left.
    Staged(Vec<StagedBlock>),
    /// The hash.
    GroupHash(Hash20),
    /// The children.
    Node(Vec<PageHash>),
    /// Whether it has that base.
    Accepted(bool),
    /// It has them.
    Taken,
    /// How it ended.
    Finished(Committed),
}

type ReplicaIo = Io<OriginMessage, ReplicaRequest>;

/// A replica's side of a conversation.
pub struct Replica {
    io: ReplicaIo,
    options: ReplicaOptions,
    state: State,
}

/// What it is at. Each state has what it needs and no more.
enum State {
    Opening { lowered: bool },
    Beginning(Beginning),
    Hashing(hashes::Hashing),
    Waiting(hashes::Waiting),
    Receiving(receive::Receiving),
    Opened(settle::Opened),
    Settling(settle::Settling),
    Answering(settle::Answering),
    Accepting(settle::Accepting),
    Planning(batches::Planning),
    Batches(batches::Batches),
    Over,
}

/// The origin has opened; its page size and count.
#[derive(Clone, Copy)]
struct Beginning {
    origin: Geometry,
    version: u8,
}

impl State {
    fn name(&self) -> &'static str {
        match self {
            State::Opening { .. } => "where ORIGIN_BEGIN is expected",
            State::Beginning(_) | State::Hashing(_) | State::Opened(_) => "before the replica answered",
            State::Waiting(_) => "where ORIGIN_DETAIL or pages are expected",
            State::Receiving(_) => "where pages, ORIGIN_TXN or ORIGIN_END are expected",
            State::Settling(_) | State::Answering(_) | State::Accepting(_) => {
                "where ORIGIN_NODES or ORIGIN_BASE is expected"
            }
            State::Planning(_) => "where ORIGIN_PLAN is expected",
            State::Batches(_) => "where batches or ORIGIN_PROOF are expected",
            State::Over => "after the end",
        }
    }
}

impl Replica {
    /// A replica that waits for the origin to open.
    pub fn new(options: ReplicaOptions) -> Replica {
        Replica { io: Io::new(), options, state: State::Opening { lowered: false } }
    }

    /// Takes the answer to the request that [`Conversation::poll`] gave last.
    pub fn answer(&mut self, answer: ReplicaAnswer) {
        self.io.answered();
        let state = std::mem::replace(&mut self.state, State::Over);
        match self.on_answer(state, answer) {
            Ok(state) => self.state = state,
            Err(violation) => self.io.fail(violation),
        }
    }

    fn on_message(&mut self, state: State, message: OriginMessage) -> Result<State, Stop> {
        match (state, message) {
            (State::Opening { lowered }, OriginMessage::Begin { version, geometry }) => {
                self.on_begin(lowered, version, geometry)
            }
            (State::Waiting(waiting), message) => waiting.on_message(message, &mut self.io),
            (State::Receiving(receiving), message) => receiving.on_message(message, &mut self.io),
            (State::Settling(settling), message) => settling.on_message(message, &mut self.io),
            (State::Planning(planning), OriginMessage::Plan { pages, reused }) => {
                planning.on_plan(pages, reused, &mut self.io)
            }
            (State::Batches(batches), message) => batches.on_message(message, &mut self.io),
            (state, message) => Err(unexpected(&state, &message)),
        }
    }

    fn on_begin(&mut self, lowered: bool, version: u8, origin: Geometry) -> Result<State, Stop> {
        let ours = self.options.version_max.clamp(1, VERSION_MAX);
        if version == 0 || (version > ours && lowered) {
            return Err(Violation::Version { theirs: version, ours }.into());
        }
        if version > ours {
            ReplicaMessage::Begin(ours).encode(&mut self.io.out);
            return Ok(State::Opening { lowered: true });
        }
        self.io.agreed(version);
        self.io.decoder().set_page_size(origin.page_size);
        self.io.ask(ReplicaRequest::Begin { origin, version });
        Ok(State::Beginning(Beginning { origin, version }))
    }

    fn on_answer(&mut self, state: State, answer: ReplicaAnswer) -> Result<State, Violation> {
        match (state, answer) {
            (State::Beginning(begun), ReplicaAnswer::Held(held)) => self.on_held(begun, held),
            (State::Hashing(hashing), ReplicaAnswer::GroupHash(hash)) => {
                Ok(hashing.on_hash(hash, &mut self.io))
            }
            (State::Receiving(receiving), answer) => receiving.on_answer(answer, &mut self.io),
            (State::Opened(opened), ReplicaAnswer::Staged(staged)) => {
                Ok(opened.on_staged(staged, &mut self.io))
            }
            (State::Answering(answering), ReplicaAnswer::Node(children)) => {
                answering.on_node(&children, &mut self.io)
            }
            (State::Accepting(accepting), ReplicaAnswer::Accepted(accepted)) => {
                accepting.on_accepted(accepted, &mut self.io)
            }
            (State::Batches(batches), answer) => batches.on_answer(answer, &mut self.io),
            _ => Err(Violation::Misused("an answer that nobody asked for")),
        }
    }

    fn on_held(&mut self, begun: Beginning, held: Held) -> Result<State, Violation> {
        let Beginning { origin, version } = begun;
        if version == 3 {
            self.io.ask(ReplicaRequest::Staged);
            return Ok(State::Opened(settle::Opened::new(origin.page_size, held)));
        }
        match held.geometry {
            Some(held) if held.page_size != origin.page_size => {
                Err(Violation::PageSize { origin: origin.page_size, replica: held.page_size })
            }
            _ => Ok(hashes::Hashing::start(begun, held, self.options.fidelity, &mut self.io)),
        }
    }
}

fn unexpected(state: &State, message: &OriginMessage) -> Stop {
    Violation::OutOfOrder { message: message.name(), at: state.name() }.into()
}

impl Sort for OriginMessage {
    fn sort(self) -> Common<Self> {
        match self {
            OriginMessage::Error { refusal, text } => Common::Error { refusal, text },
            OriginMessage::Message(text) => Common::Message(text),
            other => Common::Other(other),
        }
    }
}

impl Conversation for Replica {
    type Request = ReplicaRequest;

    fn handle_input(&mut self, bytes: Bytes) {
        self.io.handle_input(bytes);
    }

    fn handle_closed(&mut self) {
        self.io.handle_closed();
    }

    fn poll(&mut self) -> Result<Step<ReplicaRequest>, Stop> {
        loop {
            match self.io.poll()? {
                Polled::Step(step) => return Ok(step),
                Polled::Message(message) => {
                    let state = std::mem::replace(&mut self.state, State::Over);
                    self.state = self.on_message(state, message)?;
                }
            }
        }
    }

    fn farewell(&self, refusal: Refusal, text: &str) -> Bytes {
        self.io.farewell(Side::Replica, self.options.knows_refusals, refusal, text)
    }

    fn last_words(&mut self) -> Option<Stop> {
        self.io.last_words()
    }

    fn counts(&self) -> Counts {
        self.io.counts
    }

    fn committed(&self) -> Committed {
        self.io.committed()
    }
}
