//! Takes structured values from a fuzzer's bytes; where they end, zeros go on.

use bytes::BytesMut;

use crate::block::{Block, BlockBuilder, Effort};
use crate::canonical::HeaderFields;
use crate::exchange::{Base, Committed, Ground, Proof, PushId, Refusal, StagedBlock};
use crate::hash::{PageHash, Root};
use crate::message::{Opening, OriginMessage, ReplicaMessage};
use crate::page::{ConflictNumber, Geometry, PageCount, PageNumber, PageSize, VersionNumber};
use crate::sponge::Hash20;
use crate::tree::NodeId;

/// The most pages that a database of a target has: enough for a page tree of two levels and for groups.
pub(super) const PAGES_MAX: u16 = 700;

pub(super) struct Input<'a>(pub(super) &'a [u8]);

impl<'a> Input<'a> {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn u8(&mut self) -> u8 {
        let Some((&byte, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        byte
    }

    pub(super) fn flag(&mut self) -> bool {
        self.u8() & 1 == 1
    }

    pub(super) fn u16(&mut self) -> u16 {
        u16::from_be_bytes([self.u8(), self.u8()])
    }

    pub(super) fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// Mostly a page that is there or nearly so; now and then one from the far end.
    pub(super) fn page_number(&mut self) -> PageNumber {
        let number = match self.u16() {
            far @ 0xff00.. => u32::MAX - u32::from(far & 0xff),
            near => u32::from(near % (PAGES_MAX + 2)),
        };
        PageNumber::new(number).unwrap_or(PageNumber::FIRST)
    }

    pub(super) fn page_count(&mut self) -> PageCount {
        PageCount(self.page_number().index())
    }

    pub(super) fn geometry(&mut self) -> Geometry {
        let page_size = if self.u8() == 0xff { PageSize::from_log2(10) } else { None };
        Geometry { page_size: page_size.unwrap_or(PageSize::MIN), page_count: self.page_count() }
    }

    fn node(&mut self) -> NodeId {
        NodeId { level: self.u8() % 4 + 1, index: u32::from(self.u8()) }
    }

    /// One of a few roots, so that two can be the same.
    pub(super) fn root(&mut self) -> Root {
        Root([self.u8() % 4; Root::LEN])
    }

    pub(super) fn base(&mut self) -> Option<Base> {
        let version = VersionNumber::new(self.u8().into());
        self.flag().then(|| Base { version, root: self.root() })
    }

    fn block(&mut self, page_size: PageSize) -> Block {
        let mut builder = BlockBuilder::new(page_size);
        let mut number = self.page_number();
        for _ in 0..=self.u8() % 8 {
            builder.push(number, &vec![self.u8(); page_size.bytes()]);
            let after = number.get().saturating_add(1 + u32::from(self.u8() % 4));
            match PageNumber::new(after) {
                Some(after) if after > number => number = after,
                _ => break,
            }
        }
        builder.finish(Effort::Fast).unwrap()
    }

    pub(super) fn staged(&mut self) -> Vec<StagedBlock> {
        let mut staged = Vec::new();
        for _ in 0..self.u8() % 4 {
            // Whoever says so has these pages, so they are not past the last there can be.
            let first = PageNumber::new(u32::from(self.u16()) + 1).unwrap();
            let run = (first, u16::from(self.u8() % 3) + 1);
            let hash = PageHash([self.u8() % 2; PageHash::LEN]);
            staged.push(StagedBlock { runs: vec![run], hash });
        }
        staged
    }

    pub(super) fn committed(&mut self) -> Committed {
        let version = VersionNumber::new(self.u8().into());
        let (unchanged, overtook, merged) = (self.flag(), self.flag(), self.flag());
        let conflict = if self.flag() { ConflictNumber::new(self.u8().into()) } else { None };
        Committed { version, unchanged, overtook, merged, conflict }
    }

    fn text(&mut self) -> String {
        let len = self.u8().into();
        String::from_utf8_lossy(self.take(len)).into_owned()
    }

    /// Appends a message of an origin, or bytes that need not be one.
    pub(super) fn origin_message(&mut self, page_size: PageSize, out: &mut BytesMut) {
        let message = match self.u8() % 16 {
            0 => OriginMessage::Begin { version: self.u8() % 5, geometry: self.geometry() },
            1 => OriginMessage::End,
            2 => OriginMessage::Txn(self.page_count()),
            3 => OriginMessage::Page {
                number: self.page_number(),
                page: vec![self.u8(); page_size.bytes()].into(),
            },
            4 => OriginMessage::Detail { first: self.page_number(), count: self.u16().into() },
            5 => OriginMessage::Ready,
            6 => OriginMessage::Nodes((0..=self.u8() % 4).map(|_| self.node()).collect()),
            7 => {
                OriginMessage::Base { ground: self.ground(), push_id: self.flag().then_some(PushId([1; 16])) }
            }
            8 => {
                let reused = (0..u32::from(self.u8() % 4)).collect();
                OriginMessage::Plan { pages: self.flag().then_some(9), reused }
            }
            9 | 10 => OriginMessage::Batch(self.block(page_size)),
            11 => OriginMessage::Proof(Proof {
                page_count: self.page_count(),
                root: self.root(),
                fields: HeaderFields::default(),
            }),
            12 => OriginMessage::Message(self.text()),
            13 if self.u8() > 200 => {
                OriginMessage::Error { refusal: Refusal::from_u8(self.u8()), text: self.text() }
            }
            _ => return self.raw(out),
        };
        message.encode(out);
    }

    fn ground(&mut self) -> Ground {
        match self.u8() % 6 {
            0 | 1 => Ground::Nothing { recognised: self.flag() },
            2 => Ground::Held,
            3 => Ground::Compared,
            _ => Ground::Proposed(self.base().unwrap_or(Base { version: None, root: Root([0; Root::LEN]) })),
        }
    }

    /// Appends a message of a replica, or bytes that need not be one.
    pub(super) fn replica_message(&mut self, out: &mut BytesMut) {
        let message = match self.u8() % 16 {
            0 => ReplicaMessage::Begin(self.u8() % 5),
            1 => ReplicaMessage::End,
            2 | 3 => ReplicaMessage::Hash(Hash20([self.u8(); Hash20::LEN])),
            4 => ReplicaMessage::Ready,
            5 => ReplicaMessage::Config { first: self.page_number(), count: self.u16().into() },
            6 | 7 => {
                let geometry = self.flag().then(|| self.geometry());
                let base = self.base().filter(|_| geometry.is_some());
                ReplicaMessage::Open(Opening { geometry, base, staged: u32::from(self.u8() % 4) })
            }
            8 => ReplicaMessage::Staged(self.staged()),
            9 | 10 => {
                let children = usize::from(self.u16() % 257);
                ReplicaMessage::Node { node: self.node(), children: vec![[self.u8(); 16]; children] }
            }
            11 => ReplicaMessage::Base(self.flag()),
            12 => ReplicaMessage::Done(self.committed()),
            13 => ReplicaMessage::Message(self.text()),
            14 if self.u8() > 200 => {
                ReplicaMessage::Error { refusal: Refusal::from_u8(self.u8()), text: self.text() }
            }
            _ => return self.raw(out),
        };
        message.encode(out);
    }

    fn raw(&mut self, out: &mut BytesMut) {
        let len = self.u8().into();
        out.extend_from_slice(self.take(len));
    }
}
