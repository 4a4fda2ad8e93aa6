//! What an origin sends.

use bytes::{BufMut, Bytes, BytesMut};

use super::decoder::Incoming;
use super::{Fields, MessageError, Side, put_long, put_text};
use super::{
    ORIGIN_BASE, ORIGIN_BATCH, ORIGIN_BEGIN, ORIGIN_DETAIL, ORIGIN_END, ORIGIN_ERROR, ORIGIN_MSG,
    ORIGIN_NODES, ORIGIN_PAGE, ORIGIN_PLAN, ORIGIN_PROOF, ORIGIN_READY, ORIGIN_TXN,
};
use crate::block::Block;
use crate::canonical::HeaderFields;
use crate::exchange::{Base, Ground, Proof, PushId, Refusal};
use crate::hash::Root;
use crate::page::{Geometry, PageCount, PageNumber, PageSize, VersionNumber};
use crate::tree::{MAX_HEIGHT, NodeId};

/// A message of an origin.
#[derive(Clone, Debug)]
pub enum OriginMessage {
    /// Opens the conversation.
    Begin {
        /// The highest version that the origin speaks.
        version: u8,
        /// Its page size and page count.
        geometry: Geometry,
    },
    /// All is sent.
    End,
    /// The origin gives up.
    Error {
        /// What kind of error; [`Refusal::Failed`] in versions 1 and 2.
        refusal: Refusal,
        /// Why, fit to be shown.
        text: String,
    },
    /// A page as it is in the file.
    Page {
        /// Its number.
        number: PageNumber,
        /// Its bytes.
        page: Bytes,
    },
    /// The page count of the whole.
    Txn(PageCount),
    /// A text for the user.
    Message(String),
    /// A group that differs.
    Detail {
        /// Its first page.
        first: PageNumber,
        /// How many pages it has.
        count: u32,
    },
    /// The end of the details.
    Ready,
    /// Nodes that are wanted: at least one, and at most [`super::limits::NODES_MAX`].
    Nodes(Vec<NodeId>),
    /// What the batches are a difference to.
    Base {
        /// The ground.
        ground: Ground,
        /// The id to commit under.
        push_id: Option<PushId>,
    },
    /// What comes.
    Plan {
        /// How many pages, where that is known.
        pages: Option<u32>,
        /// Which staged blocks count as received: places, ascending.
        reused: Vec<u32>,
    },
    /// A block of pages.
    Batch(Block),
    /// All is sent, and what it is.
    Proof(Proof),
}

/// What stands for "not known" in ORIGIN_PLAN: no database has as many pages.
const PAGES_UNKNOWN: u32 = u32::MAX;

impl OriginMessage {
    /// Its name, as in the table of codes.
    pub fn name(&self) -> &'static str {
        super::code(self.code()).map_or("", |code| code.name)
    }

    fn code(&self) -> u8 {
        match self {
            OriginMessage::Begin { .. } => ORIGIN_BEGIN,
            OriginMessage::End => ORIGIN_END,
            OriginMessage::Error { .. } => ORIGIN_ERROR,
            OriginMessage::Page { .. } => ORIGIN_PAGE,
            OriginMessage::Txn(_) => ORIGIN_TXN,
            OriginMessage::Message(_) => ORIGIN_MSG,
            OriginMessage::Detail { .. } => ORIGIN_DETAIL,
            OriginMessage::Ready => ORIGIN_READY,
            OriginMessage::Nodes(_) => ORIGIN_NODES,
            OriginMessage::Base { .. } => ORIGIN_BASE,
            OriginMessage::Plan { .. } => ORIGIN_PLAN,
            OriginMessage::Batch(_) => ORIGIN_BATCH,
            OriginMessage::Proof(_) => ORIGIN_PROOF,
        }
    }

    /// Appends its bytes. An error is written with its refusal, as in version 3.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            OriginMessage::Page { number, page } => return put_page(out, *number, page),
            OriginMessage::Batch(block) => return put_block(out, block),
            OriginMessage::Begin { .. }
            | OriginMessage::End
            | OriginMessage::Txn(_)
            | OriginMessage::Detail { .. }
            | OriginMessage::Ready => out.put_u8(self.code()),
            _ => {}
        }
        match self {
            OriginMessage::Begin { version, geometry } => {
                out.put_u8(*version);
                out.put_u8(geometry.page_size.log2());
                out.put_u32(geometry.page_count.get());
            }
            OriginMessage::Txn(page_count) => out.put_u32(page_count.get()),
            OriginMessage::Detail { first, count } => {
                out.put_u32(first.get());
                out.put_u32(*count);
            }
            OriginMessage::End | OriginMessage::Ready => {}
            long => put_long(out, self.code(), |out| long.put_payload(out)),
        }
    }

    fn put_payload(&self, out: &mut BytesMut) {
        match self {
            OriginMessage::Error { refusal, text } => {
                out.put_u8(*refusal as u8);
                put_text(out, text);
            }
            OriginMessage::Message(text) => put_text(out, text),
            OriginMessage::Nodes(nodes) => {
                for node in nodes {
                    out.put_u8(node.level);
                    out.put_u32(node.index);
                }
            }
            OriginMessage::Base { ground, push_id } => put_ground(out, *ground, *push_id),
            OriginMessage::Plan { pages, reused } => {
                out.put_u32(pages.unwrap_or(PAGES_UNKNOWN));
                reused.iter().for_each(|place| out.put_u32(*place));
            }
            OriginMessage::Proof(proof) => {
                out.put_u32(proof.page_count.get());
                out.put_slice(&proof.root.0);
                out.put_slice(&proof.fields.to_bytes());
            }
            // The others have no payload of their own; `encode` does not come here with them.
            _ => {}
        }
    }
}

/// Appends ORIGIN_PAGE.
pub fn put_page(out: &mut BytesMut, number: PageNumber, page: &[u8]) {
    out.reserve(5 + page.len());
    out.put_u8(ORIGIN_PAGE);
    out.put_u32(number.get());
    out.put_slice(page);
}

/// Appends ORIGIN_BATCH.
pub fn put_block(out: &mut BytesMut, block: &Block) {
    out.reserve(5 + block.as_bytes().len());
    put_long(out, ORIGIN_BATCH, |out| out.put_slice(block.as_bytes()));
}

const NOTHING: u8 = 0;
const NOTHING_RECOGNISED: u8 = 1;
const HELD: u8 = 2;
const PROPOSED: u8 = 3;
const COMPARED: u8 = 4;

fn put_ground(out: &mut BytesMut, ground: Ground, push_id: Option<PushId>) {
    out.put_u8(match ground {
        Ground::Nothing { recognised: false } => NOTHING,
        Ground::Nothing { recognised: true } => NOTHING_RECOGNISED,
        Ground::Held => HELD,
        Ground::Proposed(_) => PROPOSED,
        Ground::Compared => COMPARED,
    });
    out.put_u8(u8::from(push_id.is_some()));
    out.put_slice(&push_id.map_or([0; 16], |id| id.0));
    let base = match ground {
        Ground::Proposed(base) => Some(base),
        _ => None,
    };
    out.put_u64(base.and_then(|base| base.version).map_or(0, VersionNumber::get));
    out.put_slice(&base.map_or([0; Root::LEN], |base| base.root.0));
}

impl Incoming for OriginMessage {
    const SENDER: Side = Side::Origin;

    fn decode(code: u8, bytes: Bytes, page_size: Option<PageSize>) -> Result<Self, MessageError> {
        let mut fields = Fields::new(code, bytes)?;
        let fields = &mut fields;
        let message = match code {
            ORIGIN_BEGIN => begin(fields)?,
            ORIGIN_END => OriginMessage::End,
            ORIGIN_ERROR => {
                let (refusal, text) = fields.error();
                OriginMessage::Error { refusal, text }
            }
            ORIGIN_PAGE => OriginMessage::Page { number: page_number(fields)?, page: fields.rest() },
            ORIGIN_TXN => OriginMessage::Txn(PageCount(fields.u32()?)),
            ORIGIN_MSG => OriginMessage::Message(fields.text()),
            ORIGIN_DETAIL => detail(fields)?,
            ORIGIN_READY => OriginMessage::Ready,
            ORIGIN_NODES => nodes(fields)?,
            ORIGIN_BASE => base(fields)?,
            ORIGIN_PLAN => plan(fields)?,
            ORIGIN_BATCH => {
                let page_size = page_size.ok_or(MessageError::PageBeforeBegin)?;
                OriginMessage::Batch(Block::parse(fields.rest(), page_size)?)
            }
            ORIGIN_PROOF => OriginMessage::Proof(Proof {
                page_count: PageCount(fields.u32()?),
                root: Root(fields.array()?),
                fields: HeaderFields::from_bytes(fields.array()?),
            }),
            other => return Err(MessageError::UnknownCode(other)),
        };
        fields.end()?;
        Ok(message)
    }
}

fn page_number(fields: &mut Fields) -> Result<PageNumber, MessageError> {
    let number = fields.u32()?;
    PageNumber::new(number).ok_or_else(|| fields.wrong("page number"))
}

fn begin(fields: &mut Fields) -> Result<OriginMessage, MessageError> {
    let version = fields.u8()?;
    let log2 = fields.u8()?;
    let page_size = PageSize::from_log2(log2).ok_or_else(|| fields.wrong("page size"))?;
    let page_count = PageCount(fields.u32()?);
    Ok(OriginMessage::Begin { version, geometry: Geometry { page_size, page_count } })
}

fn detail(fields: &mut Fields) -> Result<OriginMessage, MessageError> {
    let first = page_number(fields)?;
    let count = fields.u32()?;
    if count == 0 {
        return Err(fields.wrong("number of pages"));
    }
    Ok(OriginMessage::Detail { first, count })
}

fn nodes(fields: &mut Fields) -> Result<OriginMessage, MessageError> {
    let mut nodes = Vec::new();
    while !fields.bytes.is_empty() {
        nodes.push(node_id(fields)?);
    }
    if nodes.is_empty() { Err(fields.wrong("length")) } else { Ok(OriginMessage::Nodes(nodes)) }
}

pub(super) fn node_id(fields: &mut Fields) -> Result<NodeId, MessageError> {
    let node = NodeId { level: fields.u8()?, index: fields.u32()? };
    if node.level == 0 || node.level > MAX_HEIGHT { Err(fields.wrong("node level")) } else { Ok(node) }
}

fn base(fields: &mut Fields) -> Result<OriginMessage, MessageError> {
    let kind = fields.u8()?;
    let has_push_id = fields.u8()?;
    let push_id = fields.array()?;
    let version = fields.u64()?;
    let root = fields.array()?;
    let push_id = match has_push_id {
        0 if push_id == [0; 16] => None,
        1 => Some(PushId(push_id)),
        _ => return Err(fields.wrong("push id")),
    };
    if kind != PROPOSED && (version != 0 || root != [0; Root::LEN]) {
        return Err(fields.wrong("base"));
    }
    let ground = match kind {
        NOTHING => Ground::Nothing { recognised: false },
        NOTHING_RECOGNISED => Ground::Nothing { recognised: true },
        HELD => Ground::Held,
        PROPOSED => Ground::Proposed(Base { version: VersionNumber::new(version), root: Root(root) }),
        COMPARED => Ground::Compared,
        _ => return Err(fields.wrong("kind")),
    };
    Ok(OriginMessage::Base { ground, push_id })
}

fn plan(fields: &mut Fields) -> Result<OriginMessage, MessageError> {
    let pages = fields.u32()?;
    let pages = (pages != PAGES_UNKNOWN).then_some(pages);
    let mut reused = Vec::new();
    while !fields.bytes.is_empty() {
        let place = fields.u32()?;
        if reused.last().is_some_and(|last| *last >= place) {
            return Err(fields.wrong("order of staged blocks"));
        }
        reused.push(place);
    }
    Ok(OriginMessage::Plan { pages, reused })
}
