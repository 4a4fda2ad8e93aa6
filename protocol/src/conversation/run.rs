//! The one loop that joins a conversation with pages and a wire: pushes, pulls, local copies,
//! stdin/stdout and the tests all go through it.

use bytes::Bytes;

use super::io::{Conversation, Event, Step, Stop};
use super::{
    Facts, Origin, OriginAnswer, OriginOptions, OriginRequest, Replica, ReplicaAnswer, ReplicaOptions,
    ReplicaRequest, Violation,
};
use crate::exchange::{Committed, Fault, Form, OriginPages, Refusal, ReplicaPages};
use crate::message::{Side, error_bytes};

/// How many bytes are looked through for the peer's error once the wire takes nothing any more.
const LAST_WORDS_LEN_MAX: usize = 1 << 20;

/// What carries the bytes of the page stream. Both calls block.
pub trait Wire {
    /// Why it failed.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Sends a run of whole messages; the wire may cut it as it likes.
    fn send(&mut self, bytes: Bytes) -> Result<(), Self::Error>;

    /// The next bytes, of any length; `None` once the peer has closed.
    fn receive(&mut self) -> Result<Option<Bytes>, Self::Error>;

    /// The protocol version is settled: called once, before anything of that version is sent.
    fn agreed(&mut self, version: u8) {
        let _ = version;
    }
}

/// Hears how a transfer goes on.
pub trait Observer {
    /// So many pages more were sent or taken, in so many bytes.
    fn page_progress(&mut self, pages: u64, bytes: u64) {
        let _ = (pages, bytes);
    }

    /// How many pages will be sent or taken in all, once that is known. Versions 1 and 2 never tell a replica.
    fn total(&mut self, pages: u64) {
        let _ = pages;
    }

    /// The peer has a text for the user. It is one line without control characters.
    fn message(&mut self, text: &str) {
        let _ = text;
    }
}

/// An observer that does not care.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quiet;

impl Observer for Quiet {}

/// What a transfer came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Summary {
    /// The version that was spoken.
    pub version: u8,
    /// Pages sent.
    pub pages_sent: u64,
    /// Pages taken from the wire.
    pub pages_received: u64,
    /// Bytes of the page stream sent.
    pub bytes_sent: u64,
    /// Bytes of the page stream received.
    pub bytes_received: u64,
    /// How often hashes were exchanged.
    pub hash_rounds: u32,
    /// How it ended at the replica. In versions 1 and 2 an origin is not told, and has the default here.
    pub committed: Committed,
}

/// Why a transfer failed, by whose fault it was. `P` is this side's pages' error, `W` the wire's.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError<P: std::error::Error + 'static, W: std::error::Error + 'static> {
    /// This side's pages; the peer was told.
    #[error(transparent)]
    Local(P),
    /// The wire.
    #[error("the connection failed: {0}")]
    Wire(#[source] W),
    /// The peer gave up and said why.
    #[error("{text}")]
    Peer {
        /// What kind of error; [`Refusal::Failed`] where it did not say.
        refusal: Refusal,
        /// Its words, fit to be shown.
        text: String,
    },
    /// The peer sent what it may not send; it was told.
    #[error("{0}")]
    Protocol(Violation),
    /// The peer closed the connection in the middle.
    #[error("the other side closed the connection before the transfer was over")]
    Closed,
}

impl<P: Fault, W: std::error::Error + 'static> ExchangeError<P, W> {
    /// What kind of refusal it is, for an exit code: a wire that fails may do better later.
    pub fn refusal(&self) -> Refusal {
        match self {
            ExchangeError::Local(error) => error.refusal(),
            ExchangeError::Peer { refusal, .. } => *refusal,
            ExchangeError::Protocol(violation) => violation.refusal(),
            ExchangeError::Wire(_) | ExchangeError::Closed => Refusal::TryLater,
        }
    }
}

/// Sends what `pages` has to the replica at the other end of `wire`.
///
/// # Errors
/// See [`ExchangeError`]; the replica has then changed nothing, unless the error comes after all was
/// sent: a lost answer. What is pushed again under the same push id makes no second version.
pub fn run_origin<P: OriginPages, W: Wire>(
    options: OriginOptions,
    pages: &mut P,
    wire: &mut W,
    observer: &mut dyn Observer,
) -> Result<Summary, ExchangeError<P::Error, W::Error>> {
    let facts = match facts(pages) {
        Ok(facts) => facts,
        Err(error) => {
            let refusal = options.knows_refusals.then(|| error.refusal());
            let _ = wire.send(error_bytes(Side::Origin, refusal, &error.public_text()));
            return Err(ExchangeError::Local(error));
        }
    };
    let mut page = vec![0; facts.geometry.page_size.bytes()];
    let mut origin = Origin::new(options, facts);
    let mut sent = 0;
    drive(&mut origin, wire, observer, |origin, request, observer| {
        sent += answer_origin(origin, request, pages, &mut page, observer)?;
        Ok(())
    })?;
    Ok(Summary { pages_sent: sent, ..summary(&origin) })
}

fn facts<P: OriginPages>(pages: &mut P) -> Result<Facts, P::Error> {
    Ok(Facts { geometry: pages.geometry()?, base: pages.base()?, push_id: pages.push_id()? })
}

/// Has the pages do it and hands on the answer. Returns how many pages go out with it.
fn answer_origin<P: OriginPages>(
    origin: &mut Origin,
    request: OriginRequest,
    pages: &mut P,
    page: &mut [u8],
    observer: &mut dyn Observer,
) -> Result<u64, P::Error> {
    let mut sent = 0;
    match request {
        OriginRequest::Knows(base) => origin.answer(OriginAnswer::Knows(pages.knows(&base)?)),
        OriginRequest::GroupHash { first, count } => {
            origin.answer(OriginAnswer::GroupHash(pages.group_hash(first, count)?));
        }
        OriginRequest::Node(node) => origin.answer(OriginAnswer::Node(pages.node(node)?)),
        OriginRequest::Begin(wanted) => {
            let asks = wanted.form == Form::Blocks && !wanted.staged.is_empty();
            pages.begin(wanted)?;
            let reused = if asks { pages.reused()? } else { Vec::new() };
            let pages = pages.pages_to_send()?;
            if let Some(pages) = pages {
                observer.total(pages.into());
            }
            origin.answer(OriginAnswer::Begun { reused, pages });
        }
        OriginRequest::NextPage => match pages.next_page(page)? {
            Some(number) => {
                observer.page_progress(1, page.len() as u64);
                sent = 1;
                origin.answer(OriginAnswer::Page(Some((number, page))));
            }
            None => origin.answer(OriginAnswer::Page(None)),
        },
        OriginRequest::NextBlock => {
            let block = pages.next_block()?;
            if let Some(block) = &block {
                sent = block.page_count().into();
                observer.page_progress(sent, block.as_bytes().len() as u64);
            }
            origin.answer(OriginAnswer::Block(block));
        }
        OriginRequest::Proof => origin.answer(OriginAnswer::Proof(pages.proof()?)),
        OriginRequest::Acknowledge(committed) => {
            pages.acknowledged(committed)?;
            origin.answer(OriginAnswer::Acknowledged);
        }
    }
    Ok(sent)
}

/// Has `pages` become a copy of what the origin at the other end of `wire` has.
///
/// # Errors
/// See [`ExchangeError`]; nothing has changed, unless the wire failed after `pages` finished, when the
/// origin could not be told.
pub fn run_replica<P: ReplicaPages, W: Wire>(
    options: ReplicaOptions,
    pages: &mut P,
    wire: &mut W,
    observer: &mut dyn Observer,
) -> Result<Summary, ExchangeError<P::Error, W::Error>> {
    let mut replica = Replica::new(options);
    let mut taken = 0;
    drive(&mut replica, wire, observer, |replica, request, observer| {
        taken += answer_replica(replica, request, pages, observer)?;
        Ok(())
    })?;
    Ok(Summary { pages_received: taken, ..summary(&replica) })
}

/// Has the pages do it and hands on the answer. Returns how many pages were taken.
fn answer_replica<P: ReplicaPages>(
    replica: &mut Replica,
    request: ReplicaRequest,
    pages: &mut P,
    observer: &mut dyn Observer,
) -> Result<u64, P::Error> {
    let mut taken = 0;
    let answer = match request {
        ReplicaRequest::Begin { origin, version } => ReplicaAnswer::Held(pages.begin(origin, version)?),
        ReplicaRequest::Staged => ReplicaAnswer::Staged(pages.staged()?),
        ReplicaRequest::GroupHash { first, count } => {
            ReplicaAnswer::GroupHash(pages.group_hash(first, count)?)
        }
        ReplicaRequest::Node(node) => ReplicaAnswer::Node(pages.node(node)?),
        ReplicaRequest::Accept { ground, push } => ReplicaAnswer::Accepted(pages.accept(ground, push)?),
        ReplicaRequest::Reuse(staged) => {
            pages.reuse(&staged)?;
            ReplicaAnswer::Taken
        }
        ReplicaRequest::TakePage { number, page } => {
            pages.take_page(number, &page)?;
            observer.page_progress(1, page.len() as u64);
            taken = 1;
            ReplicaAnswer::Taken
        }
        ReplicaRequest::TakeBlock(block) => {
            taken = block.page_count().into();
            let bytes = block.as_bytes().len() as u64;
            pages.take_block(block)?;
            observer.page_progress(taken, bytes);
            ReplicaAnswer::Taken
        }
        ReplicaRequest::Finish(end) => ReplicaAnswer::Finished(pages.finish(end)?),
    };
    replica.answer(answer);
    Ok(taken)
}

fn summary(side: &impl Conversation) -> Summary {
    let counts = side.counts();
    Summary {
        version: counts.version,
        bytes_sent: counts.bytes_sent,
        bytes_received: counts.bytes_received,
        hash_rounds: counts.hash_rounds,
        committed: side.committed(),
        ..Summary::default()
    }
}

/// Drives a side until it is done; `answer` does what it asks of its pages.
fn drive<S: Conversation, W: Wire, P: Fault>(
    side: &mut S,
    wire: &mut W,
    observer: &mut dyn Observer,
    mut answer: impl FnMut(&mut S, S::Request, &mut dyn Observer) -> Result<(), P>,
) -> Result<(), ExchangeError<P, W::Error>> {
    loop {
        match side.poll() {
            Ok(Step::Send(bytes)) => {
                if let Err(error) = wire.send(bytes) {
                    return Err(last_words(side, wire, error));
                }
            }
            Ok(Step::Need(request)) => {
                if let Err(error) = answer(side, request, observer) {
                    let _ = wire.send(side.farewell(error.refusal(), &error.public_text()));
                    return Err(ExchangeError::Local(error));
                }
            }
            Ok(Step::NeedInput) => match wire.receive().map_err(ExchangeError::Wire)? {
                Some(bytes) => side.handle_input(bytes),
                None => side.handle_closed(),
            },
            Ok(Step::Event(Event::Agreed(version))) => wire.agreed(version),
            Ok(Step::Event(Event::Message(text))) => observer.message(&text),
            Ok(Step::Event(Event::Total(pages))) => observer.total(pages),
            Ok(Step::Done) => return Ok(()),
            Err(Stop::Violation(violation)) => {
                let _ = wire.send(side.farewell(violation.refusal(), &violation.to_string()));
                return Err(ExchangeError::Protocol(violation));
            }
            Err(stop) => return Err(stopped(stop)),
        }
    }
}

fn stopped<P: Fault, W: std::error::Error + 'static>(stop: Stop) -> ExchangeError<P, W> {
    match stop {
        Stop::Peer { refusal, text } => ExchangeError::Peer { refusal, text },
        Stop::Violation(violation) => ExchangeError::Protocol(violation),
        Stop::Closed => ExchangeError::Closed,
    }
}

/// The wire takes nothing any more: most often because the peer gave up and closed it. Then its error
/// is among what was received, and says more than the wire's.
fn last_words<S: Conversation, W: Wire, P: Fault>(
    side: &mut S,
    wire: &mut W,
    error: W::Error,
) -> ExchangeError<P, W::Error> {
    let mut len = 0;
    loop {
        if let Some(stop) = side.last_words() {
            return stopped(stop);
        }
        match wire.receive() {
            Ok(Some(bytes)) if len < LAST_WORDS_LEN_MAX => {
                len += bytes.len();
                side.handle_input(bytes);
            }
            _ => return ExchangeError::Wire(error),
        }
    }
}
