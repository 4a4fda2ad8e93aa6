//! What a replica sends.

use bytes::{BufMut, Bytes, BytesMut};

use super::decoder::Incoming;
use super::limits::{SHORT_HASH_LEN, STAGED_LEN_MAX};
use super::origin::node_id;
use super::{Fields, MessageError, Side, put_long, put_text};
use super::{
    REPLICA_BASE, REPLICA_BEGIN, REPLICA_CONFIG, REPLICA_DONE, REPLICA_END, REPLICA_ERROR, REPLICA_HASH,
    REPLICA_MSG, REPLICA_NODE, REPLICA_OPEN, REPLICA_READY, REPLICA_STAGED,
};
use crate::block::RUNS_MAX;
use crate::exchange::{Base, Committed, Refusal, StagedBlock};
use crate::hash::{PageHash, Root};
use crate::page::{ConflictNumber, Geometry, PageCount, PageNumber, PageSize, VersionNumber};
use crate::sponge::Hash20;
use crate::tree::{FANOUT, NodeId};

/// What a replica of version 3 has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Opening {
    /// Page size and count; `None` where there is nothing.
    pub geometry: Option<Geometry>,
    /// Version (where known) and root; `None` where there is nothing or the root is not known.
    pub base: Option<Base>,
    /// How many staged blocks follow.
    pub staged: u32,
}

/// A message of a replica.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReplicaMessage {
    /// It speaks no higher version than this.
    Begin(u8),
    /// The replica gives up.
    Error {
        /// What kind of error; [`Refusal::Failed`] in versions 1 and 2.
        refusal: Refusal,
        /// Why, fit to be shown.
        text: String,
    },
    /// The replica leaves.
    End,
    /// The hash of the next page or group.
    Hash(Hash20),
    /// The end of the hashes.
    Ready,
    /// A text for the user.
    Message(String),
    /// What the next hashes are of.
    Config {
        /// The first page.
        first: PageNumber,
        /// Pages a hash.
        count: u32,
    },
    /// Version 3 is agreed on.
    Open(Opening),
    /// Blocks left by a cut push, in order.
    Staged(Vec<StagedBlock>),
    /// The children of a node.
    Node {
        /// The node.
        node: NodeId,
        /// The first bytes of each child's hash.
        children: Vec<[u8; SHORT_HASH_LEN]>,
    },
    /// Whether it has the base proposed.
    Base(bool),
    /// Proved and committed.
    Done(Committed),
}

const HAS_GEOMETRY: u8 = 1;
const HAS_ROOT: u8 = 2;
const UNCHANGED: u8 = 1;
const OVERTOOK: u8 = 2;
const MERGED: u8 = 4;
/// The number of the conflict follows.
const CONFLICT: u8 = 8;

impl ReplicaMessage {
    /// Its name, as in the table of codes.
    pub fn name(&self) -> &'static str {
        super::code(self.code()).map_or("", |code| code.name)
    }

    fn code(&self) -> u8 {
        match self {
            ReplicaMessage::Begin(_) => REPLICA_BEGIN,
            ReplicaMessage::Error { .. } => REPLICA_ERROR,
            ReplicaMessage::End => REPLICA_END,
            ReplicaMessage::Hash(_) => REPLICA_HASH,
            ReplicaMessage::Ready => REPLICA_READY,
            ReplicaMessage::Message(_) => REPLICA_MSG,
            ReplicaMessage::Config { .. } => REPLICA_CONFIG,
            ReplicaMessage::Open(_) => REPLICA_OPEN,
            ReplicaMessage::Staged(_) => REPLICA_STAGED,
            ReplicaMessage::Node { .. } => REPLICA_NODE,
            ReplicaMessage::Base(_) => REPLICA_BASE,
            ReplicaMessage::Done(_) => REPLICA_DONE,
        }
    }

    /// Appends its bytes. An error is written with its refusal, as in version 3; staged blocks are
    /// written as many frames as they need.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            ReplicaMessage::Begin(version) => out.put_slice(&[REPLICA_BEGIN, *version]),
            ReplicaMessage::End | ReplicaMessage::Ready => out.put_u8(self.code()),
            ReplicaMessage::Hash(hash) => put_hash(out, hash),
            ReplicaMessage::Config { first, count } => {
                out.put_u8(REPLICA_CONFIG);
                out.put_u32(first.get());
                out.put_u32(*count);
            }
            ReplicaMessage::Staged(blocks) => put_staged(out, blocks),
            long => put_long(out, self.code(), |out| long.put_payload(out)),
        }
    }

    fn put_payload(&self, out: &mut BytesMut) {
        match self {
            ReplicaMessage::Error { refusal, text } => {
                out.put_u8(*refusal as u8);
                put_text(out, text);
            }
            ReplicaMessage::Message(text) => put_text(out, text),
            ReplicaMessage::Open(opening) => put_opening(out, opening),
            ReplicaMessage::Node { node, children } => {
                out.put_u8(node.level);
                out.put_u32(node.index);
                children.iter().for_each(|child| out.put_slice(child));
            }
            ReplicaMessage::Base(accepted) => out.put_u8(u8::from(*accepted)),
            ReplicaMessage::Done(committed) => {
                out.put_u64(committed.version.map_or(0, VersionNumber::get));
                let unchanged = if committed.unchanged { UNCHANGED } else { 0 };
                let overtook = if committed.overtook { OVERTOOK } else { 0 };
                let merged = if committed.merged { MERGED } else { 0 };
                let conflict = if committed.conflict.is_some() { CONFLICT } else { 0 };
                out.put_u8(unchanged | overtook | merged | conflict);
                if let Some(number) = committed.conflict {
                    out.put_u64(number.get());
                }
            }
            // The others have no payload of their own; `encode` does not come here with them.
            _ => {}
        }
    }
}

/// Appends REPLICA_HASH.
pub fn put_hash(out: &mut BytesMut, hash: &Hash20) {
    out.put_u8(REPLICA_HASH);
    out.put_slice(&hash.0);
}

/// Appends REPLICA_NODE, with the children's hashes cut to what travels.
pub fn put_node(out: &mut BytesMut, node: NodeId, children: &[PageHash]) {
    put_long(out, REPLICA_NODE, |out| {
        out.put_u8(node.level);
        out.put_u32(node.index);
        children.iter().for_each(|child| out.put_slice(&child.0[..SHORT_HASH_LEN]));
    });
}

fn put_opening(out: &mut BytesMut, opening: &Opening) {
    let geometry = if opening.geometry.is_some() { HAS_GEOMETRY } else { 0 };
    let root = if opening.base.is_some() { HAS_ROOT } else { 0 };
    out.put_u8(geometry | root);
    out.put_u8(opening.geometry.map_or(0, |geometry| geometry.page_size.log2()));
    out.put_u32(opening.geometry.map_or(0, |geometry| geometry.page_count.get()));
    out.put_u64(opening.base.and_then(|base| base.version).map_or(0, VersionNumber::get));
    out.put_slice(&opening.base.map_or([0; Root::LEN], |base| base.root.0));
    out.put_u32(opening.staged);
}

fn put_staged(out: &mut BytesMut, mut blocks: &[StagedBlock]) {
    let len = |block: &StagedBlock| 32 + 2 + 6 * block.runs.len();
    while !blocks.is_empty() {
        let mut total = 0;
        let fit = blocks.iter().take_while(|block| {
            total += len(block);
            total <= STAGED_LEN_MAX
        });
        let (frame, rest) = blocks.split_at(fit.count().max(1));
        put_long(out, REPLICA_STAGED, |out| {
            for block in frame {
                out.put_slice(&block.hash.0);
                out.put_u16(block.runs.len() as u16);
                for (first, count) in &block.runs {
                    out.put_u32(first.get());
                    out.put_u16(*count);
                }
            }
        });
        blocks = rest;
    }
}

impl Incoming for ReplicaMessage {
    const SENDER: Side = Side::Replica;

    fn decode(code: u8, bytes: Bytes, _: Option<PageSize>) -> Result<Self, MessageError> {
        let mut fields = Fields::new(code, bytes)?;
        let fields = &mut fields;
        let message = match code {
            REPLICA_BEGIN => ReplicaMessage::Begin(fields.u8()?),
            REPLICA_ERROR => {
                let (refusal, text) = fields.error();
                ReplicaMessage::Error { refusal, text }
            }
            REPLICA_END => ReplicaMessage::End,
            REPLICA_HASH => ReplicaMessage::Hash(Hash20(fields.array()?)),
            REPLICA_READY => ReplicaMessage::Ready,
            REPLICA_MSG => ReplicaMessage::Message(fields.text()),
            REPLICA_CONFIG => config(fields)?,
            REPLICA_OPEN => ReplicaMessage::Open(opening(fields)?),
            REPLICA_STAGED => ReplicaMessage::Staged(staged(fields)?),
            REPLICA_NODE => node(fields)?,
            REPLICA_BASE => match fields.u8()? {
                0 => ReplicaMessage::Base(false),
                1 => ReplicaMessage::Base(true),
                _ => return Err(fields.wrong("answer")),
            },
            REPLICA_DONE => done(fields)?,
            other => return Err(MessageError::UnknownCode(other)),
        };
        fields.end()?;
        Ok(message)
    }
}

fn config(fields: &mut Fields) -> Result<ReplicaMessage, MessageError> {
    let first = fields.u32()?;
    let first = PageNumber::new(first).ok_or_else(|| fields.wrong("page number"))?;
    let count = fields.u32()?;
    if count == 0 {
        return Err(fields.wrong("number of pages"));
    }
    Ok(ReplicaMessage::Config { first, count })
}

fn opening(fields: &mut Fields) -> Result<Opening, MessageError> {
    let flags = fields.u8()?;
    let log2 = fields.u8()?;
    let page_count = PageCount(fields.u32()?);
    let version = fields.u64()?;
    let root = Root(fields.array()?);
    let staged = fields.u32()?;
    // A root is of something, so the flags are 0, 1 or 3; what is absent is zeros.
    if flags > 3 || flags == HAS_ROOT {
        return Err(fields.wrong("flags"));
    }
    let geometry = match PageSize::from_log2(log2) {
        Some(page_size) if flags & HAS_GEOMETRY != 0 => Some(Geometry { page_size, page_count }),
        None if flags & HAS_GEOMETRY == 0 && log2 == 0 && page_count == PageCount::ZERO => None,
        _ => return Err(fields.wrong("page size")),
    };
    let base = match flags & HAS_ROOT {
        0 if version == 0 && root == Root([0; Root::LEN]) => None,
        0 => return Err(fields.wrong("root")),
        _ => Some(Base { version: VersionNumber::new(version), root }),
    };
    if staged as usize > super::limits::STAGED_BLOCKS_MAX {
        return Err(fields.wrong("number of staged blocks"));
    }
    Ok(Opening { geometry, base, staged })
}

fn staged(fields: &mut Fields) -> Result<Vec<StagedBlock>, MessageError> {
    let mut blocks = Vec::new();
    while !fields.bytes.is_empty() {
        let hash = PageHash(fields.array()?);
        let count = usize::from(fields.u16()?);
        // A count above what the frame still holds ends in a wrong length, before it takes memory.
        if count == 0 || count > RUNS_MAX || fields.bytes.len() < count * 6 {
            return Err(fields.wrong("number of runs"));
        }
        let mut runs = Vec::with_capacity(count);
        let mut free = 1u64;
        for _ in 0..count {
            let first = fields.u32()?;
            let len = fields.u16()?;
            let past = u64::from(first) + u64::from(len);
            match PageNumber::new(first) {
                Some(number) if len > 0 && u64::from(first) >= free && past <= 1 << 32 => {
                    runs.push((number, len))
                }
                _ => return Err(fields.wrong("page list")),
            }
            free = past;
        }
        blocks.push(StagedBlock { runs, hash });
    }
    if blocks.is_empty() { Err(fields.wrong("length")) } else { Ok(blocks) }
}

fn node(fields: &mut Fields) -> Result<ReplicaMessage, MessageError> {
    let node = node_id(fields)?;
    let rest = fields.rest();
    let (children, odd) = rest.as_chunks::<SHORT_HASH_LEN>();
    if !odd.is_empty() || children.len() > FANOUT as usize {
        return Err(fields.wrong("length"));
    }
    Ok(ReplicaMessage::Node { node, children: children.to_vec() })
}

fn done(fields: &mut Fields) -> Result<ReplicaMessage, MessageError> {
    let version = VersionNumber::new(fields.u64()?);
    let flags = fields.u8()?;
    if flags & !(UNCHANGED | OVERTOOK | MERGED | CONFLICT) != 0 {
        return Err(fields.wrong("flags"));
    }
    let conflict = match flags & CONFLICT {
        0 => None,
        _ => Some(ConflictNumber::new(fields.u64()?).ok_or_else(|| fields.wrong("conflict"))?),
    };
    Ok(ReplicaMessage::Done(Committed {
        version,
        unchanged: flags & UNCHANGED != 0,
        overtook: flags & OVERTOOK != 0,
        merged: flags & MERGED != 0,
        conflict,
    }))
}
