//! Versions 1 and 2: the hashes of what the replica has, in sqlite3_rsync's groups.
//!
//! Version 1, and version 2 up to [`SINGLE_MAX`] pages: one hash a page. Else page 1 alone (it always
//! differs) and the rest in groups, 1,000 pages each where there are more than 1,000, else 30. Asked
//! for details, it divides each range in the same way. A group of which the replica has no page has
//! no hash, and the counters move on all the same.

use std::collections::{BTreeMap, VecDeque};

use super::receive::Receiving;
use super::{Beginning, ReplicaIo, ReplicaRequest, State, unexpected};
use crate::canonical::empty_database;
use crate::conversation::io::Stop;
use crate::conversation::{Fidelity, Violation};
use crate::exchange::Held;
use crate::message::limits::DETAIL_ROUNDS_MAX;
use crate::message::{OriginMessage, ReplicaMessage, put_hash};
use crate::page::{Geometry, PageCount, PageNumber};
use crate::sponge::{Hash20, hash20};

/// The most pages of which version 2 sends single hashes at first.
const SINGLE_MAX: u32 = 100;

/// A range of pages, divided into groups as it is gone through.
struct Groups {
    next: u64,
    end: u64,
    size: u32,
}

impl Groups {
    fn singles(count: u32) -> Groups {
        Groups { next: 1, end: 1 + u64::from(count), size: 1 }
    }

    fn divide(first: u32, count: u32) -> Groups {
        let size = match count {
            0..=30 => 1,
            31..=1000 => 30,
            _ => 1000,
        };
        Groups { next: u64::from(first), end: u64::from(first) + u64::from(count), size }
    }
}

impl Iterator for Groups {
    type Item = (u64, u32);

    fn next(&mut self) -> Option<(u64, u32)> {
        let left = self.end.checked_sub(self.next).filter(|left| *left > 0)?;
        let count = u64::from(self.size).min(left) as u32;
        let first = self.next;
        self.next += u64::from(count);
        Some((first, count))
    }
}

/// What stays the same while hashes are exchanged.
#[derive(Clone, Copy)]
pub(super) struct Common {
    pub(super) origin: Geometry,
    version: u8,
    /// How many pages there are; none counts as the one page of an empty database.
    pub(super) held: PageCount,
    pub(super) fidelity: Fidelity,
}

/// Sending hashes.
pub(super) struct Hashing {
    common: Common,
    ranges: VecDeque<Groups>,
    /// What the origin takes the next hash to be of.
    expected: (u64, u32),
    rounds: u32,
}

impl Hashing {
    pub(super) fn start(begun: Beginning, held: Held, fidelity: Fidelity, io: &mut ReplicaIo) -> State {
        let held = held.geometry.map_or(PageCount::ZERO, |geometry| geometry.page_count);
        let Beginning { origin, version } = begun;
        let common = Common { origin, version, held, fidelity };
        let count = held.get();
        let ranges = if version < 2 || count <= SINGLE_MAX {
            VecDeque::from([Groups::singles(count)])
        } else {
            // sqlite3_rsync names one page more than there is. Where the origin has that page, it would
            // take it for compared and never send it.
            let loses = fidelity == Fidelity::Whole && origin.page_count > held;
            let rest = if loses { count - 1 } else { count };
            VecDeque::from([Groups::singles(1), Groups::divide(2, rest)])
        };
        if held == PageCount::ZERO {
            put_hash(&mut io.out, &hash20(&empty_database(origin.page_size)));
        }
        Hashing { common, ranges, expected: (1, 1), rounds: 0 }.next(io)
    }

    /// Asks for the next hash, or says that all are out.
    fn next(mut self, io: &mut ReplicaIo) -> State {
        while let Some(range) = self.ranges.front_mut() {
            let Some((first, count)) = range.next() else {
                self.ranges.pop_front();
                continue;
            };
            let Some(page) = u32::try_from(first).ok().and_then(PageNumber::new) else { continue };
            if self.expected != (first, count) {
                ReplicaMessage::Config { first: page, count }.encode(&mut io.out);
            }
            self.expected = (first + u64::from(count), count);
            if self.common.held.contains(page) {
                io.ask(ReplicaRequest::GroupHash { first: page, count });
                return State::Hashing(self);
            }
        }
        ReplicaMessage::Ready.encode(&mut io.out);
        io.counts.hash_rounds += 1;
        State::Waiting(Waiting { common: self.common, details: BTreeMap::new(), rounds: self.rounds })
    }

    pub(super) fn on_hash(self, hash: Hash20, io: &mut ReplicaIo) -> State {
        put_hash(&mut io.out, &hash);
        self.next(io)
    }
}

/// All hashes are out: the origin asks for details or sends pages.
pub(super) struct Waiting {
    common: Common,
    /// Ranges to hash finer: first page and number of pages.
    details: BTreeMap<u32, u32>,
    rounds: u32,
}

impl Waiting {
    pub(super) fn on_message(self, message: OriginMessage, io: &mut ReplicaIo) -> Result<State, Stop> {
        match message {
            OriginMessage::Detail { first, count } if self.common.version >= 2 => {
                self.on_detail(first, count)
            }
            OriginMessage::Ready if self.common.version >= 2 => self.on_ready(io),
            OriginMessage::Page { .. } | OriginMessage::Txn(_) if self.details.is_empty() => {
                Receiving::start(self.common, message, io)
            }
            message => Err(unexpected(&State::Waiting(self), &message)),
        }
    }

    fn on_detail(mut self, first: PageNumber, count: u32) -> Result<State, Stop> {
        // The one page more that the first range names, and no further; and no range into the next.
        let held = u64::from(self.common.held.get());
        let end = u64::from(first.get()) + u64::from(count);
        let free =
            self.details.last_key_value().map_or(1, |(first, count)| u64::from(*first) + u64::from(*count));
        if end > held + 2 || u64::from(first.get()) < free {
            return Err(Violation::DetailPastEnd(first).into());
        }
        self.details.insert(first.get(), count);
        Ok(State::Waiting(self))
    }

    fn on_ready(self, io: &mut ReplicaIo) -> Result<State, Stop> {
        let rounds = self.rounds + 1;
        if rounds > DETAIL_ROUNDS_MAX {
            return Err(Violation::TooMuch("details").into());
        }
        let ranges = self.details.into_iter().map(|(first, count)| Groups::divide(first, count)).collect();
        // After ORIGIN_READY the origin expects nothing, so that REPLICA_CONFIG comes first.
        Ok(Hashing { common: self.common, ranges, expected: (0, 0), rounds }.next(io))
    }
}
