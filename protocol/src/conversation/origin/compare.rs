//! Versions 1 and 2: which pages differ, by the replica's hashes.
//!
//! The replica says what it hashes; this side follows and computes the same. A group that differs is
//! asked for again in finer pieces. What differs is a bitmap; what a later hash proves equal leaves it.

use std::collections::BTreeMap;

use roaring::RoaringBitmap;

use super::{OriginIo, OriginRequest, State, form, unexpected};
use crate::conversation::io::Stop;
use crate::conversation::{Fidelity, Violation};
use crate::exchange::{Since, Wanted};
use crate::message::limits::{COMPARED_FACTOR, COMPARED_SLACK, DETAIL_ROUNDS_MAX, GROUPS_MAX};
use crate::message::{OriginMessage, ReplicaMessage};
use crate::page::{Geometry, PageCount, PageNumber};
use crate::sponge::Hash20;

/// Comparing hashes, until the replica is ready and no group is left.
pub(super) struct Comparing {
    geometry: Geometry,
    version: u8,
    fidelity: Fidelity,
    /// What the next hash is of: first page and number of pages.
    next: u64,
    count: u32,
    /// The page after the last one that a hash was of.
    end: u64,
    /// Groups that differ and of which no details were asked for: first page and number of pages.
    groups: BTreeMap<u32, u32>,
    differing: RoaringBitmap,
    /// How many pages were gone over, against a peer without end.
    compared: u64,
    rounds: u32,
    /// The replica's hash, while this side computes its own.
    theirs: Option<Theirs>,
}

struct Theirs {
    first: PageNumber,
    count: u32,
    hash: Hash20,
}

impl Comparing {
    pub(super) fn new(geometry: Geometry, version: u8, fidelity: Fidelity) -> Self {
        Comparing {
            geometry,
            version,
            fidelity,
            next: 1,
            count: 1,
            end: 1,
            groups: BTreeMap::new(),
            differing: RoaringBitmap::new(),
            compared: 0,
            rounds: 0,
            theirs: None,
        }
    }

    pub(super) fn on_message(mut self, message: ReplicaMessage, io: &mut OriginIo) -> Result<State, Stop> {
        match message {
            ReplicaMessage::Config { first, count } if self.version >= 2 => {
                (self.next, self.count) = (u64::from(first.get()), count);
            }
            ReplicaMessage::Hash(hash) => self.take_hash(hash, io)?,
            ReplicaMessage::Ready => {
                io.counts.hash_rounds += 1;
                if self.groups.is_empty() {
                    self.begin(io);
                } else {
                    self.ask_details(io)?;
                }
            }
            message => return Err(unexpected(&State::Comparing(self), &message)),
        }
        Ok(State::Comparing(self))
    }

    fn take_hash(&mut self, hash: Hash20, io: &mut OriginIo) -> Result<(), Stop> {
        let (first, count) = (self.next, self.count);
        self.next = first + u64::from(count);
        let Some(first) = u32::try_from(first).ok().and_then(PageNumber::new) else { return Ok(()) };
        self.end = self.end.max(self.next);
        if !self.geometry.page_count.contains(first) {
            // Of pages that only the replica has nothing need be known, as it will be cut. sqlite3_rsync
            // asks for details of such groups, and so do we.
            if count > 1 && self.groups.len() < GROUPS_MAX {
                self.groups.insert(first.get(), count);
            }
            return Ok(());
        }
        // A group of two that reaches past the end is still a group; a longer one need not say by how much.
        let there = count.min((self.geometry.page_count.get() - first.index()).max(2));
        self.compared += u64::from(there);
        let compared_max = u64::from(self.geometry.page_count.get()) * COMPARED_FACTOR + COMPARED_SLACK;
        if self.compared > compared_max {
            return Err(Violation::TooMuch("hashes").into());
        }
        self.theirs = Some(Theirs { first, count, hash });
        io.ask(OriginRequest::GroupHash { first, count: there });
        Ok(())
    }

    pub(super) fn on_hash(mut self, own: Hash20) -> Result<State, &'static str> {
        let Some(Theirs { first, count, hash }) = self.theirs.take() else {
            return Err("a hash that nobody asked for");
        };
        if own == hash {
            self.differing.remove_range(range(first, count));
        } else if count > 1 && self.groups.len() < GROUPS_MAX {
            self.groups.insert(first.get(), count);
        } else {
            self.differ(first, count);
        }
        Ok(State::Comparing(self))
    }

    fn ask_details(&mut self, io: &mut OriginIo) -> Result<(), Stop> {
        self.rounds += 1;
        if self.rounds > DETAIL_ROUNDS_MAX {
            return Err(Violation::TooMuch("hashes").into());
        }
        for (first, count) in std::mem::take(&mut self.groups) {
            let Some(first) = PageNumber::new(first) else { continue };
            // Until a finer hash proves them equal, these pages differ: also those that the replica
            // leaves out of its answer because it does not have them.
            if self.fidelity == Fidelity::Whole {
                self.differ(first, count);
            }
            OriginMessage::Detail { first, count }.encode(&mut io.out);
        }
        OriginMessage::Ready.encode(&mut io.out);
        Ok(())
    }

    /// These pages differ, as far as this side has them.
    fn differ(&mut self, first: PageNumber, count: u32) {
        let last = self.geometry.page_count.get().min(*range(first, count).end());
        self.differing.insert_range(first.get()..=last);
    }

    fn begin(&mut self, io: &mut OriginIo) {
        let mut differing = std::mem::take(&mut self.differing);
        differing.remove(self.geometry.page_size.lock_page().get());
        // Past this side's own end nothing was compared: it may have grown by the time it begins.
        let end = (self.end - 1).min(u64::from(self.geometry.page_count.get()));
        let held = PageCount(end as u32);
        let since = match held {
            PageCount::ZERO => Since::Nothing,
            held => Since::Compared { differing, held },
        };
        io.ask_long(OriginRequest::Begin(Wanted { since, staged: Vec::new(), form: form(self.version) }));
    }
}

/// The numbers of `count` pages from `first` on.
fn range(first: PageNumber, count: u32) -> std::ops::RangeInclusive<u32> {
    first.get()..=first.get().saturating_add(count - 1)
}
