//! What both sides have in common: bytes in, bytes out, and one request at a time.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::Violation;
use crate::exchange::{Committed, Refusal};
use crate::message::{self, Decoder, Incoming, MessageError, Side};

/// Output is handed out when there is this much of it, or when the side has nothing else to do. Large
/// enough that a message of a WebSocket, or a write to a pipe, is worth its while.
const RUN_LEN: usize = 64 * 1024;

/// What a side wants next.
#[derive(Debug)]
pub enum Step<Request> {
    /// A run of whole messages for the wire.
    Send(Bytes),
    /// Something that only the pages can answer; the answer comes next.
    Need(Request),
    /// Bytes from the wire, or that it was closed.
    NeedInput,
    /// Something worth knowing.
    Event(Event),
    /// The conversation is over; nothing is left to send.
    Done,
}

/// What a conversation tells beside its work.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// The protocol version is settled.
    Agreed(u8),
    /// The peer's text for the user, fit to be shown.
    Message(String),
    /// How many pages will come.
    Total(u64),
}

/// Why a conversation ended before it was over.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Stop {
    /// The peer gave up and said why.
    Peer {
        /// What kind of error.
        refusal: Refusal,
        /// Its words, fit to be shown.
        text: String,
    },
    /// The peer does not keep to the protocol.
    Violation(Violation),
    /// The wire was closed in the middle.
    Closed,
}

impl From<Violation> for Stop {
    fn from(violation: Violation) -> Self {
        Stop::Violation(violation)
    }
}

impl From<MessageError> for Stop {
    fn from(error: MessageError) -> Self {
        Stop::Violation(Violation::Message(error))
    }
}

/// One side of a conversation.
pub trait Conversation {
    /// What it asks of its pages.
    type Request;

    /// Takes bytes that came from the wire, cut anywhere.
    fn handle_input(&mut self, bytes: Bytes);

    /// The peer closed the wire.
    fn handle_closed(&mut self);

    /// What to do next.
    fn poll(&mut self) -> Result<Step<Self::Request>, Stop>;

    /// The bytes that tell the peer that this side gives up.
    fn farewell(&self, refusal: Refusal, text: &str) -> Bytes;

    /// The error of the peer, if one lies in what was received; everything before it is dropped. For
    /// when the wire no longer takes what the conversation wants to send.
    fn last_words(&mut self) -> Option<Stop>;

    /// The version agreed on, bytes sent, bytes received, and rounds of hashes.
    fn counts(&self) -> Counts;

    /// How it ended, once it is done.
    fn committed(&self) -> Committed;
}

/// Counts of a conversation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// The version agreed on; 0 before that.
    pub version: u8,
    /// Bytes handed out to be sent.
    pub bytes_sent: u64,
    /// Bytes taken in.
    pub bytes_received: u64,
    /// How often one side waited for hashes of the other.
    pub hash_rounds: u32,
}

/// A message that both sides know how to take, whatever they are at.
pub(super) enum Common<M> {
    Error { refusal: Refusal, text: String },
    Message(String),
    Other(M),
}

/// A message type whose errors and texts can be told apart from the rest.
pub(super) trait Sort: Incoming {
    fn sort(self) -> Common<Self>;
}

/// The part of a side that is not its state.
pub(super) struct Io<M, R> {
    decoder: Decoder<M>,
    pub(super) out: BytesMut,
    events: VecDeque<Event>,
    /// A request to hand out, and whether its beginning is worth the peer's knowing (then what there
    /// is to send is sent first).
    request: Option<(R, bool)>,
    awaiting: bool,
    failed: Option<Violation>,
    closed: bool,
    /// Whether the peer may close now, and that ends the conversation well.
    pub(super) may_close: bool,
    finished: Option<Committed>,
    pub(super) counts: Counts,
}

impl<M: Sort, R> Io<M, R> {
    pub(super) fn new() -> Self {
        Io {
            decoder: Decoder::new(),
            out: BytesMut::new(),
            events: VecDeque::new(),
            request: None,
            awaiting: false,
            failed: None,
            closed: false,
            may_close: false,
            finished: None,
            counts: Counts::default(),
        }
    }

    pub(super) fn decoder(&mut self) -> &mut Decoder<M> {
        &mut self.decoder
    }

    pub(super) fn agreed(&mut self, version: u8) {
        self.counts.version = version;
        self.decoder.agreed(version);
        self.events.push_back(Event::Agreed(version));
    }

    pub(super) fn event(&mut self, event: Event) {
        self.events.push_back(event);
    }

    /// Asks the pages.
    pub(super) fn ask(&mut self, request: R) {
        self.request = Some((request, false));
    }

    /// Asks the pages for what may take long: the peer gets first what there is to send.
    pub(super) fn ask_long(&mut self, request: R) {
        self.request = Some((request, true));
    }

    pub(super) fn answered(&mut self) {
        self.awaiting = false;
    }

    /// What an answer led to; the next poll says so.
    pub(super) fn fail(&mut self, violation: Violation) {
        self.failed = Some(violation);
    }

    pub(super) fn finish(&mut self, committed: Committed) {
        self.finished = Some(committed);
    }

    pub(super) fn committed(&self) -> Committed {
        self.finished.unwrap_or_default()
    }

    pub(super) fn handle_input(&mut self, bytes: Bytes) {
        self.counts.bytes_received += bytes.len() as u64;
        self.decoder.feed(bytes);
    }

    pub(super) fn handle_closed(&mut self) {
        self.closed = true;
    }

    /// The next step, or a message for the state.
    pub(super) fn poll(&mut self) -> Result<Polled<M, R>, Stop> {
        if let Some(violation) = self.failed.clone() {
            return Err(violation.into());
        }
        if let Some(event) = self.events.pop_front() {
            return Ok(Polled::Step(Step::Event(event)));
        }
        if self.out.len() >= RUN_LEN {
            return Ok(Polled::Step(self.send()));
        }
        if let Some((request, long)) = self.request.take() {
            if long && !self.out.is_empty() {
                self.request = Some((request, false));
                return Ok(Polled::Step(self.send()));
            }
            self.awaiting = true;
            return Ok(Polled::Step(Step::Need(request)));
        }
        if self.awaiting {
            return Err(Violation::Misused("a request was not answered").into());
        }
        if self.finished.is_some() {
            return Ok(Polled::Step(if self.out.is_empty() { Step::Done } else { self.send() }));
        }
        self.receive()
    }

    fn receive(&mut self) -> Result<Polled<M, R>, Stop> {
        match self.decoder.next_message()?.map(Sort::sort) {
            Some(Common::Error { refusal, text }) => Err(Stop::Peer { refusal, text }),
            Some(Common::Message(text)) => Ok(Polled::Step(Step::Event(Event::Message(text)))),
            Some(Common::Other(message)) => Ok(Polled::Message(message)),
            None if !self.out.is_empty() => Ok(Polled::Step(self.send())),
            None if self.closed && self.may_close && self.decoder.is_empty() => Ok(Polled::Step(Step::Done)),
            None if self.closed => Err(Stop::Closed),
            None => Ok(Polled::Step(Step::NeedInput)),
        }
    }

    fn send(&mut self) -> Step<R> {
        self.counts.bytes_sent += self.out.len() as u64;
        Step::Send(self.out.split().freeze())
    }

    pub(super) fn last_words(&mut self) -> Option<Stop> {
        while let Ok(Some(message)) = self.decoder.next_message() {
            if let Common::Error { refusal, text } = message.sort() {
                return Some(Stop::Peer { refusal, text });
            }
        }
        None
    }

    pub(super) fn farewell(&self, side: Side, knows_refusals: bool, refusal: Refusal, text: &str) -> Bytes {
        let refusal = (knows_refusals || self.counts.version >= 3).then_some(refusal);
        message::error_bytes(side, refusal, text)
    }
}

/// What [`Io::poll`] found.
pub(super) enum Polled<M, R> {
    Step(Step<R>),
    Message(M),
}
