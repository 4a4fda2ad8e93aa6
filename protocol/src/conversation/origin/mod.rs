//! The side that has the content.
//!
//! # What it may receive, and what it does with each
//!
//! | message | when | what it does |
//! |---|---|---|
//! | REPLICA_BEGIN | first, with a lower version | opens again with that version |
//! | REPLICA_CONFIG | comparing (2) | the next hash is of that page and as many |
//! | REPLICA_HASH | comparing | compares it with its own; remembers what differs |
//! | REPLICA_READY | comparing | asks for details of groups that differ (2), or sends the pages |
//! | REPLICA_END | after ORIGIN_END | is done |
//! | REPLICA_OPEN | first (3) | settles what the batches are a difference to |
//! | REPLICA_STAGED | after REPLICA_OPEN (3) | keeps them for its pages to look at |
//! | REPLICA_NODE | after ORIGIN_NODES (3) | compares, and opens the nodes below that differ |
//! | REPLICA_BASE | after a base was proposed (3) | sends the difference to it, or compares trees |
//! | REPLICA_DONE | after ORIGIN_PROOF (3) | tells its pages and is done |
//! | REPLICA_MSG | always | hands on the text |
//! | REPLICA_ERROR | always | ends |

mod batches;
mod compare;
mod settle;
mod trees;

use bytes::Bytes;

use super::io::{Common, Conversation, Counts, Io, Polled, Sort, Step, Stop};
use super::{OriginOptions, Violation};
use crate::block::Block;
use crate::exchange::{Base, Committed, Form, Proof, PushId, Refusal, Wanted};
use crate::hash::PageHash;
use crate::message::{OriginMessage, ReplicaMessage, Side, VERSION_MAX, put_page};
use crate::page::{Geometry, PageNumber};
use crate::sponge::Hash20;
use crate::tree::NodeId;

/// What an origin knows from the start.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// Its page size and count.
    pub geometry: Geometry,
    /// The base that it last agreed on with this replica.
    pub base: Option<Base>,
    /// What the replica is to commit under.
    pub push_id: Option<PushId>,
}

/// What an origin asks of its pages: the calls of [`crate::exchange::OriginPages`].
#[derive(Clone, Debug)]
pub enum OriginRequest {
    /// `knows`; answered with [`OriginAnswer::Knows`].
    Knows(Base),
    /// `group_hash`; answered with [`OriginAnswer::GroupHash`].
    GroupHash {
        /// The first page.
        first: PageNumber,
        /// How many pages.
        count: u32,
    },
    /// `node`; answered with [`OriginAnswer::Node`].
    Node(NodeId),
    /// `begin`, then `reused` where something was staged, then `pages_to_send`; answered with
    /// [`OriginAnswer::Begun`].
    Begin(Wanted),
    /// `next_page`; answered with [`OriginAnswer::Page`].
    NextPage,
    /// `next_block`; answered with [`OriginAnswer::Block`].
    NextBlock,
    /// `proof`; answered with [`OriginAnswer::Proof`].
    Proof,
    /// `acknowledged`; answered with [`OriginAnswer::Acknowledged`].
    Acknowledge(Committed),
}

/// The answer to an [`OriginRequest`].
#[derive(Clone, Debug)]
pub enum OriginAnswer<'a> {
    /// Whether it knows the content.
    Knows(bool),
    /// The hash.
    GroupHash(Hash20),
    /// The children.
    Node(Vec<PageHash>),
    /// It has begun.
    Begun {
        /// The places of staged blocks that are not sent again.
        reused: Vec<u32>,
        /// How many pages will be sent, where that is known.
        pages: Option<u32>,
    },
    /// The next page; `None` after the last.
    Page(Option<(PageNumber, &'a [u8])>),
    /// The next block; `None` after the last.
    Block(Option<Block>),
    /// The proof.
    Proof(Proof),
    /// It has taken note.
    Acknowledged,
}

type OriginIo = Io<ReplicaMessage, OriginRequest>;

/// An origin's side of a conversation.
pub struct Origin {
    io: OriginIo,
    facts: Facts,
    options: OriginOptions,
    state: State,
}

/// What it is at. Each state has what it needs and no more.
enum State {
    Opening { offered: u8 },
    Comparing(compare::Comparing),
    Sending,
    AwaitingClose,
    Staging(settle::Staging),
    Judging(settle::Judging),
    Proposing(settle::Proposing),
    Trees(trees::Trees),
    Batches(batches::Batches),
    AwaitingDone,
    Acknowledging(Committed),
    Over,
}

impl State {
    fn name(&self) -> &'static str {
        match self {
            State::Opening { .. } => "where REPLICA_BEGIN, hashes or REPLICA_OPEN are expected",
            State::Comparing(_) => "where hashes are expected",
            State::Sending | State::Batches(_) => "while pages are sent",
            State::AwaitingClose => "after ORIGIN_END",
            State::Staging(_) | State::Judging(_) => "where REPLICA_STAGED is expected",
            State::Proposing(_) => "where REPLICA_BASE is expected",
            State::Trees(_) => "where REPLICA_NODE is expected",
            State::AwaitingDone => "where REPLICA_DONE is expected",
            State::Acknowledging(_) | State::Over => "after the end",
        }
    }
}

impl Origin {
    /// An origin that is about to open.
    pub fn new(options: OriginOptions, facts: Facts) -> Origin {
        let offered = options.version_max.clamp(1, VERSION_MAX);
        let mut origin = Origin { io: Io::new(), facts, options, state: State::Opening { offered } };
        origin.open(offered);
        origin
    }

    /// Takes the answer to the request that [`Conversation::poll`] gave last.
    pub fn answer(&mut self, answer: OriginAnswer<'_>) {
        self.io.answered();
        let state = std::mem::replace(&mut self.state, State::Over);
        match self.on_answer(state, answer) {
            Ok(state) => self.state = state,
            Err(what) => self.io.fail(Violation::Misused(what)),
        }
    }

    fn open(&mut self, version: u8) {
        OriginMessage::Begin { version, geometry: self.facts.geometry }.encode(&mut self.io.out);
    }

    fn on_message(&mut self, state: State, message: ReplicaMessage) -> Result<State, Stop> {
        match (state, message) {
            (State::Opening { offered }, message) => self.on_opening(offered, message),
            (State::Comparing(comparing), message) => comparing.on_message(message, &mut self.io),
            (State::AwaitingClose, ReplicaMessage::End) => {
                self.io.finish(Committed::default());
                Ok(State::Over)
            }
            (State::Staging(staging), ReplicaMessage::Staged(blocks)) => {
                staging.on_staged(blocks, &self.facts, &mut self.io)
            }
            (State::Proposing(proposing), ReplicaMessage::Base(accepted)) => {
                proposing.on_base(accepted, &self.facts, &mut self.io)
            }
            (State::Trees(trees), ReplicaMessage::Node { node, children }) => {
                trees.on_node(node, children, &mut self.io)
            }
            (State::AwaitingDone, ReplicaMessage::Done(committed)) => {
                self.io.ask(OriginRequest::Acknowledge(committed));
                Ok(State::Acknowledging(committed))
            }
            (state, message) => Err(unexpected(&state, &message)),
        }
    }

    /// The first message settles the version.
    fn on_opening(&mut self, offered: u8, message: ReplicaMessage) -> Result<State, Stop> {
        match message {
            ReplicaMessage::Begin(version) if (1..offered).contains(&version) => {
                self.open(version);
                Ok(State::Opening { offered: version })
            }
            ReplicaMessage::Begin(theirs) => Err(Violation::Version { theirs, ours: offered }.into()),
            ReplicaMessage::Open(opening) if offered == 3 => {
                self.io.agreed(3);
                settle::Staging::new(opening).next(&self.facts, &mut self.io)
            }
            message if offered < 3 => {
                self.io.agreed(offered);
                let comparing = compare::Comparing::new(self.facts.geometry, offered, self.options.fidelity);
                comparing.on_message(message, &mut self.io)
            }
            message => Err(unexpected(&State::Opening { offered }, &message)),
        }
    }

    fn on_answer(&mut self, state: State, answer: OriginAnswer<'_>) -> Result<State, &'static str> {
        match (state, answer) {
            (State::Comparing(comparing), OriginAnswer::GroupHash(hash)) => comparing.on_hash(hash),
            (State::Comparing(_), OriginAnswer::Begun { .. }) => {
                self.io.ask(OriginRequest::NextPage);
                Ok(State::Sending)
            }
            (State::Sending, OriginAnswer::Page(Some((number, page)))) => {
                if page.len() != self.facts.geometry.page_size.bytes() {
                    return Err("a page of another size than was announced");
                }
                put_page(&mut self.io.out, number, page);
                self.io.ask(OriginRequest::NextPage);
                Ok(State::Sending)
            }
            (State::Sending, OriginAnswer::Page(None)) => {
                self.io.ask(OriginRequest::Proof);
                Ok(State::Sending)
            }
            (State::Sending, OriginAnswer::Proof(proof)) => Ok(self.end(&proof)),
            (State::Judging(judging), OriginAnswer::Knows(known)) => {
                Ok(judging.on_known(known, &self.facts, &mut self.io))
            }
            (State::Trees(trees), OriginAnswer::Node(children)) => {
                trees.on_own(&children, &self.facts, &mut self.io)
            }
            (State::Batches(batches), answer) => batches.on_answer(answer, &self.facts, &mut self.io),
            (State::Acknowledging(committed), OriginAnswer::Acknowledged) => {
                self.io.finish(committed);
                Ok(State::Over)
            }
            _ => Err("an answer that nobody asked for"),
        }
    }

    /// All pages of versions 1 and 2 are out.
    fn end(&mut self, proof: &Proof) -> State {
        OriginMessage::Txn(proof.page_count).encode(&mut self.io.out);
        OriginMessage::End.encode(&mut self.io.out);
        if self.options.await_close {
            self.io.may_close = true;
            return State::AwaitingClose;
        }
        self.io.finish(Committed::default());
        State::Over
    }
}

fn unexpected(state: &State, message: &ReplicaMessage) -> Stop {
    Violation::OutOfOrder { message: message.name(), at: state.name() }.into()
}

/// In which form a version of the protocol has the pages.
const fn form(version: u8) -> Form {
    if version == 3 { Form::Blocks } else { Form::Pages }
}

impl Sort for ReplicaMessage {
    fn sort(self) -> Common<Self> {
        match self {
            ReplicaMessage::Error { refusal, text } => Common::Error { refusal, text },
            ReplicaMessage::Message(text) => Common::Message(text),
            other => Common::Other(other),
        }
    }
}

impl Conversation for Origin {
    type Request = OriginRequest;

    fn handle_input(&mut self, bytes: Bytes) {
        self.io.handle_input(bytes);
    }

    fn handle_closed(&mut self) {
        self.io.handle_closed();
    }

    fn poll(&mut self) -> Result<Step<OriginRequest>, Stop> {
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
        self.io.farewell(Side::Origin, self.options.knows_refusals, refusal, text)
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
