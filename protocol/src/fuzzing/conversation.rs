//! Targets for the page stream: the decoders, each side of a conversation against a peer that says
//! anything, and the two sides against each other.

use bytes::{Bytes, BytesMut};

use super::database::{Database, PAGE_SIZE};
use super::input::Input;
use super::{pairing, pieces};
use crate::conversation::{
    Conversation, Facts, Fidelity, Origin, OriginAnswer, OriginOptions, OriginRequest, Replica,
    ReplicaAnswer, ReplicaOptions, ReplicaRequest, Step, Stop, Violation,
};
use crate::exchange::{Form, Held, Proof, PushId};
use crate::message::{Decoder, Incoming, MessageError, OriginMessage, ReplicaMessage};
use crate::tree;

/// More steps than any input of a target leads to.
pub(super) const STEPS_MAX: usize = 200_000;

/// An origin's messages out of any bytes, cut anywhere.
pub fn origin_stream(data: &[u8]) {
    stream::<OriginMessage>(data, OriginMessage::encode);
}

/// A replica's messages out of any bytes, cut anywhere.
pub fn replica_stream(data: &[u8]) {
    stream::<ReplicaMessage>(data, ReplicaMessage::encode);
}

/// Pieces or whole, the messages are the same; and each is written and read again as the same.
fn stream<M: Incoming>(data: &[u8], encode: fn(&M, &mut BytesMut)) {
    let mut input = Input(data);
    let version = input.u8() % 4;
    let new = || {
        let mut decoder = Decoder::<M>::new();
        if version > 0 {
            decoder.agreed(version);
            decoder.set_page_size(PAGE_SIZE);
        }
        decoder
    };
    let mut whole = new();
    whole.feed(pieces(input.0).flatten().copied().collect::<Vec<u8>>().into());
    let (messages, error) = read(&mut whole, encode);
    let mut cut = new();
    let (mut messages_cut, mut error_cut) = (Vec::new(), None);
    for piece in pieces(input.0) {
        cut.feed(Bytes::copy_from_slice(piece));
        let (some, error) = read(&mut cut, encode);
        messages_cut.extend(some);
        error_cut = error;
        if error_cut.is_some() {
            break;
        }
    }
    assert_eq!((&messages, &error), (&messages_cut, &error_cut));
    let mut again = new();
    again.feed(messages.concat().into());
    let (messages_again, error) = read(&mut again, encode);
    assert_eq!((messages_again, error), (messages, None));
}

/// What is there, each message written again.
fn read<M: Incoming>(
    decoder: &mut Decoder<M>,
    encode: fn(&M, &mut BytesMut),
) -> (Vec<BytesMut>, Option<MessageError>) {
    let mut messages = Vec::new();
    loop {
        match decoder.next_message() {
            Ok(Some(message)) => {
                let mut bytes = BytesMut::new();
                encode(&message, &mut bytes);
                messages.push(bytes);
            }
            Ok(None) => return (messages, None),
            Err(error) => return (messages, Some(error)),
        }
    }
}

/// An origin against a replica that says anything. What the origin asks of its pages is what they can
/// do, what it sends can be read, and it comes to an end.
pub fn origin_conversation(data: &[u8]) {
    let mut input = Input(data);
    let database = Database::new(&mut input);
    let facts = Facts {
        geometry: database.geometry(),
        base: input.base(),
        push_id: input.flag().then_some(PushId([7; 16])),
    };
    let options = OriginOptions {
        version_max: input.u8() % 3 + 1,
        await_close: input.flag(),
        fidelity: if input.flag() { Fidelity::AsRecorded } else { Fidelity::Whole },
        knows_refusals: false,
    };
    let mut origin = Origin::new(options, facts);
    let mut sent = Decoder::<OriginMessage>::new();
    sent.set_page_size(PAGE_SIZE);
    let mut next_page = 0;
    for _ in 0..STEPS_MAX {
        match origin.poll() {
            Ok(Step::Send(bytes)) => check_sent(&mut sent, bytes),
            Ok(Step::Need(request)) => {
                answer_origin(&mut origin, request, &database, &mut next_page, &mut input)
            }
            Ok(Step::NeedInput) => match next_bytes(&mut input, |input, out| input.replica_message(out)) {
                Some(bytes) => origin.handle_input(bytes),
                None => origin.handle_closed(),
            },
            Ok(Step::Event(_)) => {}
            Ok(Step::Done) => return assert!(sent.is_empty()),
            Err(stop) => return check_stop(&stop),
        }
    }
    panic!("no end");
}

fn answer_origin(
    origin: &mut Origin,
    request: OriginRequest,
    database: &Database,
    next_page: &mut usize,
    input: &mut Input<'_>,
) {
    match request {
        OriginRequest::Knows(_) => origin.answer(OriginAnswer::Knows(input.flag())),
        OriginRequest::GroupHash { first, count } => {
            origin.answer(OriginAnswer::GroupHash(database.group_hash(first, count)));
        }
        OriginRequest::Node(node) => origin.answer(OriginAnswer::Node(database.node(node))),
        OriginRequest::Begin(wanted) => {
            let staged = wanted.staged.len() as u32;
            *next_page = usize::from(input.u8());
            if wanted.form == Form::Blocks {
                let reused = (0..staged).filter(|_| input.flag()).collect();
                origin.answer(OriginAnswer::Begun { reused, pages: None });
            } else {
                origin.answer(OriginAnswer::Begun { reused: Vec::new(), pages: None });
            }
        }
        OriginRequest::NextPage => {
            let number = crate::page::PageNumber::from_index(*next_page as u32);
            let page = number.and_then(|number| database.page(number).map(|page| (number, page)));
            *next_page += 1;
            origin.answer(OriginAnswer::Page(page.as_ref().map(|(number, page)| (*number, &page[..]))));
        }
        OriginRequest::NextBlock => {
            let block = pairing::block(database, next_page, |_| true);
            origin.answer(OriginAnswer::Block(block));
        }
        OriginRequest::Proof => origin.answer(OriginAnswer::Proof(pairing::proof(database))),
        OriginRequest::Acknowledge(_) => origin.answer(OriginAnswer::Acknowledged),
    }
}

/// A replica against an origin that says anything.
pub fn replica_conversation(data: &[u8]) {
    let mut input = Input(data);
    let database = Database::new(&mut input);
    let held = Held { geometry: input.flag().then(|| database.geometry()), base: input.base() };
    let options = ReplicaOptions {
        version_max: input.u8() % 3 + 1,
        fidelity: if input.flag() { Fidelity::AsRecorded } else { Fidelity::Whole },
        knows_refusals: false,
    };
    let mut replica = Replica::new(options);
    let mut sent = Decoder::<ReplicaMessage>::new();
    let mut taking = Taking::default();
    for _ in 0..STEPS_MAX {
        match replica.poll() {
            Ok(Step::Send(bytes)) => check_sent(&mut sent, bytes),
            Ok(Step::Need(request)) => {
                let answer = taking.answer(request, &database, held, &mut input);
                replica.answer(answer);
            }
            Ok(Step::NeedInput) => {
                match next_bytes(&mut input, |input, out| input.origin_message(PAGE_SIZE, out)) {
                    Some(bytes) => replica.handle_input(bytes),
                    None => replica.handle_closed(),
                }
            }
            Ok(Step::Event(_)) => {}
            Ok(Step::Done) => return assert!(sent.is_empty() && taking.finished),
            Err(stop) => return check_stop(&stop),
        }
    }
    panic!("no end");
}

/// What the replica's pages were told so far, to check the order in which they are called.
#[derive(Default)]
struct Taking {
    version: u8,
    staged: usize,
    last: u32,
    accepted: bool,
    finished: bool,
}

impl Taking {
    fn answer(
        &mut self,
        request: ReplicaRequest,
        database: &Database,
        held: Held,
        input: &mut Input<'_>,
    ) -> ReplicaAnswer {
        assert!(!self.finished, "asked after the end");
        match request {
            ReplicaRequest::Begin { version, .. } => {
                self.version = version;
                ReplicaAnswer::Held(held)
            }
            ReplicaRequest::Staged => {
                let staged = input.staged();
                self.staged = staged.len();
                ReplicaAnswer::Staged(staged)
            }
            ReplicaRequest::GroupHash { first, count } => {
                ReplicaAnswer::GroupHash(database.group_hash(first, count))
            }
            ReplicaRequest::Node(node) => {
                assert!(tree::children(database.geometry().page_count, node) > 0, "{node:?}");
                ReplicaAnswer::Node(database.node(node))
            }
            ReplicaRequest::Accept { ground, .. } => {
                let proposed = matches!(ground, crate::exchange::Ground::Proposed(_));
                self.accepted = !proposed || input.flag();
                ReplicaAnswer::Accepted(self.accepted)
            }
            ReplicaRequest::Reuse(places) => {
                assert!(places.is_sorted() && places.iter().all(|place| (*place as usize) < self.staged));
                ReplicaAnswer::Taken
            }
            ReplicaRequest::TakePage { page, .. } => {
                assert!(self.accepted && self.version < 3 && page.len().is_power_of_two());
                ReplicaAnswer::Taken
            }
            ReplicaRequest::TakeBlock(block) => {
                assert!(self.accepted && self.version == 3 && block.first().get() > self.last);
                self.last = block.last().get();
                ReplicaAnswer::Taken
            }
            ReplicaRequest::Finish(end) => {
                let fits = match end {
                    crate::exchange::End::Proof(Proof { page_count, .. }) => page_count.get() >= self.last,
                    crate::exchange::End::PageCount(_) => self.version < 3,
                };
                assert!(self.accepted && fits);
                self.finished = true;
                ReplicaAnswer::Finished(input.committed())
            }
        }
    }
}

/// Some messages of the peer; `None` where the input ends.
fn next_bytes(input: &mut Input<'_>, message: impl Fn(&mut Input<'_>, &mut BytesMut)) -> Option<Bytes> {
    let mut out = BytesMut::new();
    while out.is_empty() {
        if input.is_empty() {
            return None;
        }
        for _ in 0..=input.u8() % 4 {
            message(input, &mut out);
        }
    }
    Some(out.freeze())
}

/// What a side sends is whole messages that the other side can read.
fn check_sent<M: Incoming>(decoder: &mut Decoder<M>, bytes: Bytes) {
    assert!(!bytes.is_empty());
    decoder.feed(bytes);
    while let Some(_message) = decoder.next_message().unwrap() {}
    assert!(decoder.is_empty(), "a run ends within a message");
}

/// Whatever a peer says is its fault and not this side's.
fn check_stop(stop: &Stop) {
    assert!(!matches!(stop, Stop::Violation(Violation::Misused(_))), "{stop:?}");
}
