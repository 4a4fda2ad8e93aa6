//! What stands beside versions, candidates and conflicts: it goes when that is gone.

use std::collections::BTreeSet;

use sqlrsync_protocol::page::{ConflictNumber, VersionNumber};

use super::Sweep;
use crate::client::{CLIENT_TIME, CLIENTS_MAX};
use crate::conflict::SETTLED_TIME;
use crate::error::Error;
use crate::id::{Name, SegmentId};
use crate::replica::Replica;
use crate::store::Listed;

/// What conflicts and client records name.
#[derive(Default)]
pub(super) struct NamedBy {
    pub(super) candidates: BTreeSet<[u8; 16]>,
    pub(super) rows: BTreeSet<SegmentId>,
}

impl Sweep<'_> {
    /// Reads all conflicts and client records. A conflict that cannot be read ends it; a client record, which
    /// is a hint, does not.
    pub(super) fn named_by(&self, replica: &Replica, listed: &[(Name, Listed)]) -> Result<NamedBy, Error> {
        let mut named = NamedBy::default();
        for number in 1..=replica.conflict_count()? {
            let Some(number) = ConflictNumber::new(number) else { continue };
            let Some(conflict) = replica.conflict(number)? else { continue };
            let over = self.now.duration_since(conflict.last.time) > SETTLED_TIME;
            if conflict.is_open() || !over {
                named.candidates.insert(conflict.overlap.candidate.0);
                named.rows.extend(conflict.overlap.rows.map(|rows| SegmentId(rows.hash)));
            }
        }
        for (name, _) in listed {
            let Name::Client(hash) = *name else { continue };
            match replica.read_client(hash) {
                Ok(found) => {
                    let pushed = found.and_then(|(_, record)| record.pushed);
                    named.candidates.extend(pushed.and_then(|pushed| pushed.candidate).map(|id| id.0));
                }
                Err(error) if error.is_damage() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(named)
    }

    /// Removes what belongs to nothing any more.
    pub(super) fn beside(
        &mut self,
        replica: &Replica,
        listed: &[(Name, Listed)],
        rows: &BTreeSet<SegmentId>,
    ) -> Result<(), Error> {
        let latest = replica.latest_number()?;
        let expired: BTreeSet<VersionNumber> = listed
            .iter()
            .filter_map(|(name, _)| match name {
                Name::Expired(number) => Some(*number),
                _ => None,
            })
            .collect();
        for (name, listed) in listed {
            let gone = match *name {
                Name::Parents(number) => Some(number) > latest || expired.contains(&number),
                Name::ConflictRows(id) => !rows.contains(&id),
                Name::CandidateRoot(root) => match replica.pointer(root) {
                    Ok(Some(pointer)) => replica.candidate(pointer.candidate)?.is_none(),
                    Ok(None) => false,
                    Err(error) if error.is_damage() => false,
                    Err(error) => return Err(error),
                },
                _ => false,
            };
            if gone && self.is_old(listed) {
                self.remove(listed)?;
            }
        }
        self.clients(listed)
    }

    /// Removes the records of clients that were not seen for long, and the oldest where there are too many.
    fn clients(&mut self, listed: &[(Name, Listed)]) -> Result<(), Error> {
        let clients = listed.iter().filter(|(name, _)| matches!(name, Name::Client(_)));
        let mut clients: Vec<&Listed> = clients.map(|(_, listed)| listed).collect();
        clients.sort_by_key(|listed| std::cmp::Reverse(listed.modified));
        for (place, listed) in clients.into_iter().enumerate() {
            let unseen = self.now.duration_since(listed.modified);
            if place >= CLIENTS_MAX || unseen > CLIENT_TIME {
                self.remove(listed)?;
            }
        }
        Ok(())
    }
}
