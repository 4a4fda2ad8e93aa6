//! The end of a push: the new tree, the proof, and the manifest whose creation is the commit.

use jiff::Timestamp;
use sqlrsync_protocol::canonical::{HeaderFields, empty_database};
use sqlrsync_protocol::exchange::{Committed, End};
use sqlrsync_protocol::hash::{PageHash, Root};
use sqlrsync_protocol::page::{Geometry, PageCount, PageNumber, VersionNumber};
use sqlrsync_protocol::sponge::{Hash20, hash20};
use sqlrsync_protocol::tree::{TreeUpdate, UpdateError};

use super::{Open, PushReplica};
use crate::error::{Damage, Error, PeerFault};
use crate::id::{Name, SegmentId};
use crate::manifest::Manifest;
use crate::pages::PageReader;
use crate::replica::Replica;
use crate::segment::node::StoredEntry;
use crate::store::Create;

/// How many other pushes may come first before this one gives up.
const ATTEMPTS_MAX: u32 = 64;

/// What a push makes.
struct Made {
    geometry: Geometry,
    top: StoredEntry,
    root: Root,
    pages_changed: u64,
}

impl PushReplica {
    /// Proves what arrived and commits it.
    pub(super) fn commit(&self, open: &mut Open, end: End) -> Result<Committed, Error> {
        let page_count = match end {
            End::PageCount(count) => count,
            End::Proof(proof) => proof.page_count,
        };
        let geometry = Geometry { page_size: open.page_size, page_count };
        self.fits(geometry)?;
        open.complete_pages(&self.replica, geometry, self.options.database_bytes_max)?;
        let made = open.make(&self.replica, geometry)?;
        if let End::Proof(proof) = end
            && proof.root != made.root
        {
            return Err(Error::WrongRoot { claimed: proof.root, found: made.root });
        }
        if let Some(version) = open.already(&self.replica, made.root)? {
            open.collector.forget();
            open.tidy(&self.replica);
            return Ok(version);
        }
        let (fields, first_hash20) = open.first_page(&self.replica, end, geometry)?;
        let manifest = self.describe(open, &made, fields, first_hash20)?;
        let committed = self.create(manifest, open)?;
        open.tidy(&self.replica);
        Ok(committed)
    }

    /// Makes the segments durable and fills in the manifest, but for its number.
    fn describe(
        &self,
        open: &mut Open,
        made: &Made,
        fields: HeaderFields,
        first_hash20: Option<Hash20>,
    ) -> Result<Manifest, Error> {
        let segments = open.collector.complete()?.to_vec();
        let options = &self.options;
        let nonce = SegmentId::random();
        let nonce = nonce.map_err(|error| Error::scratch(std::io::Error::other(error.to_string())))?;
        Ok(Manifest {
            number: VersionNumber::FIRST,
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
            bytes_stored: segments.iter().map(|segment| segment.bytes).sum(),
            replica: self.replica.id(),
            nonce: nonce.0,
            segments,
            top: made.top,
            first_hash20,
        })
    }

    /// Creates the manifest under the next free number: the commit.
    fn create(&self, mut manifest: Manifest, open: &Open) -> Result<Committed, Error> {
        let replica = &self.replica;
        let expected = open.base.as_ref().or(open.latest.as_ref()).map(|base| base.root);
        for _ in 0..ATTEMPTS_MAX {
            let latest = replica.latest()?;
            if let Some(latest) = latest.as_ref().filter(|latest| latest.root == manifest.root) {
                return Ok(unchanged(latest));
            }
            let next = latest.as_ref().map_or(Some(VersionNumber::FIRST), |latest| latest.number.next());
            manifest.number = next.ok_or(Error::OutOfOrder("the last version number"))?;
            let overtook = latest.as_ref().map(|latest| latest.root) != expected;
            self.options.permission.ask()?;
            open.in_time()?;
            if create_as(replica, &manifest)? {
                let version = Some(manifest.number);
                return Ok(Committed { version, overtook, ..Committed::default() });
            }
            if let Some(winner) = replica.manifest(manifest.number)?
                && manifest.push_id.is_some()
                && winner.push_id == manifest.push_id
                && winner.root == manifest.root
            {
                // The same push, by way of another process.
                return Ok(Committed { version: Some(winner.number), ..Committed::default() });
            }
        }
        Err(Error::Contended(ATTEMPTS_MAX))
    }
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

    /// Computes the new tree and its root; its nodes go into the segments.
    fn make(&mut self, replica: &Replica, geometry: Geometry) -> Result<Made, Error> {
        if let Some(base) = &self.base
            && self.collector.is_empty()
            && base.geometry == geometry
        {
            return Ok(Made { geometry, top: base.top, root: base.root, pages_changed: 0 });
        }
        let mut tree = self.base.as_ref().map(|base| replica.tree(base));
        let mut lock = self.lock_entry(geometry);
        let mut pages = self.collector.pages()?;
        let mut update = TreeUpdate::new(tree.as_mut(), geometry);
        let mut pages_changed = 0;
        while let Some((page, entry)) = pages.next()? {
            if let Some((lock_page, lock_entry)) = lock.take_if(|(lock_page, _)| *lock_page < page) {
                update.set(lock_page, lock_entry, &mut self.collector).map_err(update_error)?;
            }
            update.set(page, entry, &mut self.collector).map_err(update_error)?;
            pages_changed += 1;
        }
        if let Some((lock_page, lock_entry)) = lock {
            update.set(lock_page, lock_entry, &mut self.collector).map_err(update_error)?;
        }
        let (top, root) = update.finish(&mut self.collector).map_err(update_error)?;
        Ok(Made { geometry, top, root, pages_changed })
    }

    /// The entry of the page at 2^30, which is never sent, where the base does not have it.
    fn lock_entry(&self, geometry: Geometry) -> Option<(PageNumber, StoredEntry)> {
        let page = geometry.page_size.lock_page();
        let had = self.base.as_ref().is_some_and(|base| base.geometry.page_count.contains(page));
        if had || !geometry.page_count.contains(page) {
            return None;
        }
        let hash = PageHash::of(&vec![0; geometry.page_size.bytes()]);
        Some((page, StoredEntry { hash, segment: SegmentId::NONE }))
    }

    /// The version that holds this content already: one that an earlier attempt of the same push
    /// made, or the latest.
    fn already(&self, replica: &Replica, root: Root) -> Result<Option<Committed>, Error> {
        if let Some(repeated) = self.repeated.as_ref().filter(|repeated| repeated.root == root) {
            let version = Some(repeated.number);
            return Ok(Some(Committed { version, ..Committed::default() }));
        }
        let latest = replica.latest()?.filter(|latest| latest.root == root);
        Ok(latest.map(|latest| unchanged(&latest)))
    }

    /// The header fields of the version, and the 20-byte hash of page 1 with them in place.
    fn first_page(
        &mut self,
        replica: &Replica,
        end: End,
        geometry: Geometry,
    ) -> Result<(HeaderFields, Option<Hash20>), Error> {
        let received = self.pages20.as_ref().and_then(|pages| pages.first);
        let held = self.base.as_ref();
        let fields = match (end, received) {
            (End::Proof(proof), _) => proof.fields,
            (End::PageCount(_), Some(first)) => return Ok((first.fields, Some(first.hash20))),
            (End::PageCount(_), None) => held.map_or(HeaderFields::default(), |base| base.fields),
        };
        if geometry.page_count == PageCount::ZERO {
            return Ok((fields, None));
        }
        let mut page = match (self.first.take(), held) {
            (Some(page), _) => page,
            (None, Some(base)) if base.fields == fields => return Ok((fields, base.first_hash20)),
            (None, Some(base)) => {
                let mut page = Vec::with_capacity(geometry.page_size.bytes());
                PageReader::new(replica.tree(base)).append(PageNumber::FIRST, &mut page)?;
                page
            }
            (None, None) => return Err(Error::Peer(PeerFault::Missing(PageNumber::FIRST))),
        };
        fields.put(&mut page);
        Ok((fields, Some(hash20(&page))))
    }

    /// Removes the records of what was staged: it is committed now, or was not wanted. The objects go
    /// by themselves if this fails.
    fn tidy(&self, replica: &Replica) {
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

fn unchanged(latest: &Manifest) -> Committed {
    Committed { version: Some(latest.number), unchanged: true, ..Committed::default() }
}

/// Whether the version of this number is ours. An error, and "it exists", may both be about our own
/// write: the store is asked what is there.
fn create_as(replica: &Replica, manifest: &Manifest) -> Result<bool, Error> {
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
