//! The end of a push: the new tree, the proof, and the manifest whose creation is the commit.

use std::collections::BTreeSet;

use jiff::Timestamp;
use sqlrsync_protocol::canonical::{HeaderFields, empty_database};
use sqlrsync_protocol::exchange::{Committed, End};
use sqlrsync_protocol::hash::{PageHash, Root};
use sqlrsync_protocol::page::{Geometry, PageCount, PageNumber, VersionNumber};
use sqlrsync_protocol::sponge::{Hash20, hash20};
use sqlrsync_protocol::tree::{TreeUpdate, UpdateError};

use super::collector::Collector;
use super::received::{Already, Received};
use super::{Open, PushReplica};
use crate::error::{Damage, Error, PeerFault};
use crate::id::{Name, SegmentId};
use crate::manifest::{Manifest, SEGMENTS_MAX};
use crate::pages::PageReader;
use crate::replica::Replica;
use crate::segment::Written;
use crate::segment::node::StoredEntry;
use crate::store::Create;

/// What a push makes.
pub(super) struct Made {
    pub(super) geometry: Geometry,
    pub(super) top: StoredEntry,
    pub(super) root: Root,
    pub(super) pages_changed: u64,
}

impl PushReplica {
    /// All pages are there: proves them and makes them durable. Nothing refers to them yet, and nobody else
    /// sees them.
    ///
    /// # Errors
    /// As [`ReplicaPages::finish`](sqlrsync_protocol::exchange::ReplicaPages::finish).
    pub fn receive(&mut self, end: End) -> Result<Received, Error> {
        let mut open = self.open.take().ok_or(Error::OutOfOrder("receive"))?;
        match self.prove(&mut open, end) {
            Ok((content, already)) => {
                Ok(Received::new(self.replica.clone(), self.options.clone(), open, content, already))
            }
            Err(error) => {
                match &error {
                    // What proves to be wrong is not worth keeping.
                    Error::WrongRoot { .. } | Error::Peer(_) => open.collector.forget(),
                    _ => open.collector.keep_for_later(true),
                }
                Err(error)
            }
        }
    }

    fn prove(&self, open: &mut Open, end: End) -> Result<(Manifest, Option<Already>), Error> {
        let page_count = match end {
            End::PageCount(count) => count,
            End::Proof(proof) => proof.page_count,
        };
        let geometry = Geometry { page_size: open.page_size, page_count };
        self.fits(geometry)?;
        open.complete_pages(&self.replica, geometry, self.options.database_bytes_max)?;
        let made = make(&self.replica, open.under.as_ref(), geometry, &mut open.collector)?;
        if let End::Proof(proof) = end
            && proof.root != made.root
        {
            return Err(Error::WrongRoot { claimed: proof.root, found: made.root });
        }
        let already = open.already(&self.replica, made.root)?;
        let (fields, first_hash20) = open.first_page(&self.replica, end, geometry)?;
        let segments = match &already {
            Some(_) => Vec::new(),
            None => open.collector.complete()?.to_vec(),
        };
        Ok((self.describe(open, &made, fields, first_hash20, segments)?, already))
    }

    /// What the manifest will say, but for its number.
    fn describe(
        &self,
        open: &Open,
        made: &Made,
        fields: HeaderFields,
        first_hash20: Option<Hash20>,
        mut segments: Vec<Written>,
    ) -> Result<Manifest, Error> {
        let options = &self.options;
        let bytes_stored = segments.iter().map(|segment| segment.bytes).sum();
        inherit(&mut segments, open.under.as_ref())?;
        Ok(Manifest {
            number: VersionNumber::FIRST,
            candidate: None,
            merge: None,
            parents: open.parents.clone(),
            base: open.named,
            geometry: made.geometry,
            root: made.root,
            fields,
            message: options.message.clone(),
            author: options.author.clone(),
            client_id: options.client_id.clone(),
            host: options.host.clone(),
            local_path: options.local_path.clone(),
            time: Timestamp::now(),
            push_id: open.push_id,
            pages_changed: made.pages_changed,
            bytes_stored,
            replica: self.replica.id(),
            nonce: random()?,
            segments,
            top: made.top,
            first_hash20,
        })
    }
}

/// What is made from a candidate needs its segments, which no version lists.
pub(super) fn inherit(segments: &mut Vec<Written>, from: Option<&Manifest>) -> Result<(), Error> {
    let Some(candidate) = from.filter(|from| from.is_candidate()) else { return Ok(()) };
    let own: BTreeSet<SegmentId> = segments.iter().map(|segment| segment.id).collect();
    segments.extend(candidate.segments.iter().filter(|segment| !own.contains(&segment.id)));
    if segments.len() > SEGMENTS_MAX { Err(Error::Peer(PeerFault::TooScattered)) } else { Ok(()) }
}

/// 16 random bytes.
pub(crate) fn random() -> Result<[u8; 16], Error> {
    let random = SegmentId::random();
    Ok(random.map_err(|error| Error::scratch(std::io::Error::other(error.to_string())))?.0)
}

impl Open {
    /// Versions 1 and 2: puts what is still open into blocks. A replica that had nothing counted as
    /// an empty database, whose page 1 the origin may have found to be its own.
    fn complete_pages(&mut self, replica: &Replica, geometry: Geometry, bytes_max: u64) -> Result<(), Error> {
        if self.version >= super::BLOCKS_SINCE {
            return Ok(());
        }
        let size = geometry.page_size;
        let pages20 = self.pages20.get_or_insert_with(|| super::Pages20::new(replica, size, bytes_max));
        if self.base.is_none() && pages20.first.is_none() && geometry.page_count > PageCount::ZERO {
            pages20.take(PageNumber::FIRST, &empty_database(size), &mut self.collector)?;
        }
        pages20.finish(&mut self.collector)
    }

    /// What holds this content already: the version that an earlier attempt of the same push made, the
    /// candidate that it became, or the latest version.
    fn already(&self, replica: &Replica, root: Root) -> Result<Option<Already>, Error> {
        if let Some(repeated) = self.repeated.as_ref().filter(|repeated| repeated.root == root) {
            let version = Some(repeated.number);
            return Ok(Some(Already::Committed(Committed { version, ..Committed::default() })));
        }
        if let Some(id) = self.push_id
            && let Some(candidate) = replica.candidate(id)?.filter(|found| found.content.root == root)
        {
            return Ok(Some(Already::Kept(Box::new(candidate))));
        }
        let latest = replica.latest()?.filter(|latest| latest.root == root);
        Ok(latest.map(|latest| Already::Committed(unchanged(&latest))))
    }

    /// The header fields of the version, and the 20-byte hash of page 1 with them in place.
    fn first_page(
        &mut self,
        replica: &Replica,
        end: End,
        geometry: Geometry,
    ) -> Result<(HeaderFields, Option<Hash20>), Error> {
        let received = self.pages20.as_ref().and_then(|pages| pages.first);
        let fields = match (end, received) {
            (End::Proof(proof), _) => proof.fields,
            (End::PageCount(_), Some(first)) => return Ok((first.fields, Some(first.hash20))),
            (End::PageCount(_), None) => {
                self.base.as_ref().map_or(HeaderFields::default(), |base| base.fields)
            }
        };
        let hash = first_hash20(replica, self.base.as_ref(), self.first.take(), geometry, fields)?;
        Ok((fields, hash))
    }

    /// Removes the records of what was staged: it is committed now, or was not wanted. The objects go
    /// by themselves if this fails.
    pub(super) fn tidy(&self, replica: &Replica) {
        let Some(scope) = self.offered_scope else { return };
        let mut staged: Vec<SegmentId> = self.offered.iter().map(|(segment, _)| segment.id).collect();
        staged.extend(self.collector.recorded());
        staged.sort_unstable();
        staged.dedup();
        for id in staged {
            if let Err(error) = replica.shared().store.delete(&Name::Staged(scope, id).path(replica.id())) {
                tracing::warn!(%error, "the record of a committed segment stays until it expires");
            }
        }
    }
}

/// Computes the new tree and its root from what was collected; its nodes go into the segments.
pub(super) fn make(
    replica: &Replica,
    base: Option<&Manifest>,
    geometry: Geometry,
    collector: &mut Collector,
) -> Result<Made, Error> {
    if let Some(base) = base
        && collector.is_empty()
        && base.geometry == geometry
    {
        return Ok(Made { geometry, top: base.top, root: base.root, pages_changed: 0 });
    }
    let mut tree = base.map(|base| replica.tree(base));
    let mut lock = lock_entry(base, geometry);
    let mut pages = collector.pages(geometry.page_count)?;
    let mut update = TreeUpdate::new(tree.as_mut(), geometry);
    let mut pages_changed = 0;
    while let Some((page, entry)) = pages.next()? {
        if let Some((lock_page, lock_entry)) = lock.take_if(|(lock_page, _)| *lock_page < page) {
            update.set(lock_page, lock_entry, collector).map_err(update_error)?;
        }
        update.set(page, entry, collector).map_err(update_error)?;
        pages_changed += 1;
    }
    if let Some((lock_page, lock_entry)) = lock {
        update.set(lock_page, lock_entry, collector).map_err(update_error)?;
    }
    let (top, root) = update.finish(collector).map_err(update_error)?;
    Ok(Made { geometry, top, root, pages_changed })
}

/// The entry of the page at 2^30, which is never sent, where the base does not have it.
fn lock_entry(base: Option<&Manifest>, geometry: Geometry) -> Option<(PageNumber, StoredEntry)> {
    let page = geometry.page_size.lock_page();
    let had = base.is_some_and(|base| base.geometry.page_count.contains(page));
    if had || !geometry.page_count.contains(page) {
        return None;
    }
    let hash = PageHash::of(&vec![0; geometry.page_size.bytes()]);
    Some((page, StoredEntry { hash, segment: SegmentId::NONE }))
}

/// The 20-byte hash of page 1 with its fields; `first` is the canonical page where it is not the base's.
pub(super) fn first_hash20(
    replica: &Replica,
    base: Option<&Manifest>,
    first: Option<Vec<u8>>,
    geometry: Geometry,
    fields: HeaderFields,
) -> Result<Option<Hash20>, Error> {
    if geometry.page_count == PageCount::ZERO {
        return Ok(None);
    }
    let mut page = match (first, base) {
        (Some(page), _) => page,
        (None, Some(base)) if base.fields == fields => return Ok(base.first_hash20),
        (None, Some(base)) => {
            let mut page = Vec::with_capacity(geometry.page_size.bytes());
            PageReader::new(replica.tree(base)).append(PageNumber::FIRST, &mut page)?;
            page
        }
        (None, None) => return Err(Error::Peer(PeerFault::Missing(PageNumber::FIRST))),
    };
    fields.put(&mut page);
    Ok(Some(hash20(&page)))
}

pub(super) fn unchanged(latest: &Manifest) -> Committed {
    Committed { version: Some(latest.number), unchanged: true, ..Committed::default() }
}

/// Whether the version of this number is ours. An error, and "it exists", may both be about our own
/// write: the store is asked what is there.
pub(crate) fn create_as(replica: &Replica, manifest: &Manifest) -> Result<bool, Error> {
    let path = Name::Manifest(manifest.number).path(replica.id());
    let outcome = replica.shared().store.create(&path, manifest.encode()?);
    if matches!(outcome, Ok(Create::Created)) {
        return Ok(true);
    }
    match (replica.read_manifest(manifest.number)?, outcome) {
        (Some(found), _) => Ok(found.nonce == manifest.nonce),
        (None, Err(error)) => Err(error),
        (None, Ok(_)) => Err(Error::damaged(path, Damage::Missing)),
    }
}

fn update_error(error: UpdateError<Error, Error>) -> Error {
    match error {
        UpdateError::Read(error) | UpdateError::Write(error) => error,
        UpdateError::OutOfOrder(page) => Error::Peer(PeerFault::PastEnd(page)),
        UpdateError::Missing(page) => Error::Peer(PeerFault::Missing(page)),
    }
}
