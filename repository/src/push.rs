//! A push: takes pages, proves what they make, and commits it as the next version.
//!
//! What always holds:
//! - Nothing is visible before the manifest is, and the manifest is created after everything it refers
//!   to is durable.
//! - Memory does not grow with the database: what is remembered of a page goes to a scratch file.
//! - Dropped before it was committed, a push has changed nothing. What it brought is kept for a while,
//!   for a later push of the same scope to take over.

mod collector;
mod commit;
mod flatten;
mod late;
mod merge;
mod pages20;
mod permission;
mod received;
mod records;

use jiff::{SignedDuration, Timestamp};
use sqlrsync_protocol::block::Block;
use sqlrsync_protocol::canonical::HeaderFields;
use sqlrsync_protocol::exchange::{
    Base, Committed, End, Ground, Held, PushId, ReplicaPages, StagedBlock, staged_hash,
};
use sqlrsync_protocol::hash::PageHash;
use sqlrsync_protocol::page::{Geometry, PageNumber, PageSize};
use sqlrsync_protocol::sponge::Hash20;
use sqlrsync_protocol::tree::NodeId;

use crate::error::{Error, PeerFault};
use crate::groups20::{Groups20, empty_group_hash};
use crate::id::{Name, Scope};
use crate::manifest::{MESSAGE_BYTES_MAX, Manifest, TEXT_BYTES_MAX};
use crate::replica::{Replica, bounded};
use crate::segment::{BlockReader, Written, block_damage};
use crate::tree::StoredTree;

use collector::{Collector, Staging};
pub(crate) use commit::random;
pub use merge::{Described, MergePages, MergedPages};
use pages20::Pages20;
pub use permission::Permission;
pub use received::Received;

/// The most staged blocks that are offered to a push.
const STAGED_BLOCKS_MAX: usize = 65_536;

/// How long after its beginning a push may be committed. Sweeping relies on it: what a push took up or
/// brought is not touched before.
pub(crate) const PUSH_TIME_MAX: SignedDuration = SignedDuration::from_hours(48);

/// The version of the protocol that first has blocks, a proof and staged blocks.
const BLOCKS_SINCE: u8 = 3;

/// Who pushes, and how much.
#[derive(Clone, Debug, Default)]
pub struct PushOptions {
    /// The key's name.
    pub author: String,
    /// What the pusher says about the version; 4,096 bytes at most, as all these texts.
    pub message: String,
    /// The client's id.
    pub client_id: String,
    /// The host it comes from.
    pub host: String,
    /// The path of the file there.
    pub local_path: String,
    /// Whose cut pushes may be continued by this one, and this one by whom: the key's id. `None`
    /// keeps nothing.
    pub stage_scope: Option<String>,
    /// The largest database that is taken, in bytes.
    pub database_bytes_max: u64,
    /// How many bytes of a scope's cut pushes are kept for a replica.
    pub stage_bytes_max: u64,
    /// Whether the version may still be made when all of it is there.
    pub permission: Permission,
}

/// A push into a replica.
#[derive(Debug)]
pub struct PushReplica {
    replica: Replica,
    options: PushOptions,
    open: Option<Open>,
}

/// A push after `begin`.
#[derive(Debug)]
struct Open {
    begun: Timestamp,
    version: u8,
    page_size: PageSize,
    /// The newest version when the push began.
    latest: Option<Manifest>,
    /// What the replica shows: the latest version, unless that has another page size.
    shown: Option<Manifest>,
    /// What the pages are a difference to.
    base: Option<Manifest>,
    /// What the new tree is built upon: the base, or what has its place.
    under: Option<Manifest>,
    /// The content that the pusher says it last agreed on.
    agreed: Option<Manifest>,
    /// The base as the pusher named it.
    named: Option<Base>,
    /// The contents that the version is made from.
    parents: Vec<sqlrsync_protocol::hash::Root>,
    push_id: Option<PushId>,
    /// A version that was committed under this push id before.
    repeated: Option<Manifest>,
    collector: Collector,
    /// The blocks that were offered, each with its segment.
    offered: Vec<(Written, StagedBlock)>,
    offered_scope: Option<Scope>,
    groups: Option<Groups20>,
    tree: Option<StoredTree>,
    pages20: Option<Pages20>,
    /// Canonical page 1, if it came.
    first: Option<Vec<u8>>,
    last: Option<PageNumber>,
    raw: Vec<u8>,
    hashes: Vec<PageHash>,
}

impl PushReplica {
    pub(crate) fn new(replica: Replica, options: PushOptions) -> Result<PushReplica, Error> {
        bounded("the message", &options.message, MESSAGE_BYTES_MAX)?;
        for (what, text) in [
            ("the author", &options.author),
            ("the client id", &options.client_id),
            ("the host", &options.host),
            ("the local path", &options.local_path),
        ] {
            bounded(what, text, TEXT_BYTES_MAX)?;
        }
        Ok(PushReplica { replica, options, open: None })
    }

    /// The replica that is pushed to.
    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    /// Sets what the pusher says about the version, where that arrives after the push began.
    pub fn set_message(&mut self, message: String) -> Result<(), Error> {
        bounded("the message", &message, MESSAGE_BYTES_MAX)?;
        self.options.message = message;
        Ok(())
    }

    fn open(&mut self) -> Result<&mut Open, Error> {
        self.open.as_mut().ok_or(Error::OutOfOrder("push"))
    }

    /// The database's size is within the limit.
    fn fits(&self, geometry: Geometry) -> Result<(), Error> {
        let (bytes, bytes_max) = (geometry.bytes(), self.options.database_bytes_max);
        if bytes > bytes_max { Err(Error::TooLarge { bytes, bytes_max }) } else { Ok(()) }
    }

    /// A page that the database may have, and that may be sent.
    fn admit(&self, size: PageSize, page: PageNumber) -> Result<(), Error> {
        let bytes = page.offset(size) + size.bytes() as u64;
        let bytes_max = self.options.database_bytes_max;
        if bytes > bytes_max { Err(Error::TooLarge { bytes, bytes_max }) } else { Ok(()) }
    }
}

impl ReplicaPages for PushReplica {
    type Error = Error;

    fn begin(&mut self, origin: Geometry, version: u8) -> Result<Held, Error> {
        self.fits(origin)?;
        let page_size = origin.page_size;
        let latest = self.replica.latest()?;
        let blocks = version >= BLOCKS_SINCE;
        let shown = latest.clone().filter(|latest| blocks || latest.geometry.page_size == page_size);
        let now = Timestamp::now();
        let scope = self.options.stage_scope.as_deref().filter(|_| blocks).map(Scope::of);
        let (records, staged_bytes) = match scope {
            Some(scope) => self.replica.staged(scope, now)?,
            None => (Vec::new(), 0),
        };
        let bytes_left = self.options.stage_bytes_max.saturating_sub(staged_bytes);
        let staging = scope.map(|scope| Staging { scope, bytes_left });
        let mut collector = Collector::new(&self.replica, page_size, staging, !blocks);
        let mut offered = Vec::new();
        for record in records.into_iter().filter(|record| record.page_size == page_size) {
            collector.pin(record.segment.id);
            let room = STAGED_BLOCKS_MAX - offered.len();
            offered.extend(record.blocks.into_iter().take(room).map(|block| (record.segment, block)));
        }
        let held = Held {
            geometry: shown.as_ref().map(|shown| shown.geometry),
            base: shown.as_ref().map(Manifest::as_base),
        };
        let same_size = shown.as_ref().filter(|shown| shown.geometry.page_size == page_size);
        self.open = Some(Open {
            begun: now,
            version,
            page_size,
            base: same_size.cloned(),
            under: same_size.cloned(),
            latest,
            shown,
            agreed: None,
            named: None,
            parents: Vec::new(),
            push_id: None,
            repeated: None,
            collector,
            offered,
            offered_scope: scope,
            groups: None,
            tree: None,
            pages20: None,
            first: None,
            last: None,
            raw: Vec::new(),
            hashes: Vec::new(),
        });
        Ok(held)
    }

    fn staged(&mut self) -> Result<Vec<StagedBlock>, Error> {
        Ok(self.open()?.offered.iter().map(|(_, block)| block.clone()).collect())
    }

    fn group_hash(&mut self, first: PageNumber, count: u32) -> Result<Hash20, Error> {
        let replica = self.replica.clone();
        let open = self.open()?;
        match &open.shown {
            None => Ok(empty_group_hash(open.page_size, first, count)),
            Some(shown) => {
                let groups = open.groups.get_or_insert_with(|| Groups20::new(&replica, shown));
                groups.group_hash(first, count)
            }
        }
    }

    fn node(&mut self, node: NodeId) -> Result<Vec<PageHash>, Error> {
        let replica = self.replica.clone();
        let open = self.open()?;
        match &open.shown {
            None => Ok(Vec::new()),
            Some(shown) => open.tree.get_or_insert_with(|| replica.tree(shown)).hashes(node),
        }
    }

    fn accept(&mut self, ground: Ground, push: Option<PushId>) -> Result<bool, Error> {
        let replica = self.replica.clone();
        let open = self.open()?;
        let shown = open.shown.as_ref();
        let (base, named) = match ground {
            Ground::Nothing { recognised } => (None, shown.filter(|_| recognised).map(Manifest::as_base)),
            Ground::Held => (open.shown.clone(), shown.map(Manifest::as_base)),
            Ground::Compared => (open.shown.clone(), None),
            Ground::Proposed(named) => match replica.find_base(&named)? {
                Some(base) if !replica.is_expired(&base)? => (Some(base), Some(named)),
                _ => return Ok(false),
            },
        };
        if base.as_ref().is_some_and(|base| base.geometry.page_size != open.page_size) {
            return match ground {
                Ground::Proposed(_) => Ok(false),
                _ => Err(Error::OutOfOrder("accept of another page size")),
            };
        }
        let made_from = base.as_ref().map(|base| base.root).or(named.map(|named| named.root));
        open.parents = made_from.into_iter().collect();
        open.agreed = match ground {
            Ground::Held | Ground::Proposed(_) => base.clone(),
            Ground::Nothing { recognised: true } => open.shown.clone(),
            Ground::Nothing { recognised: false } | Ground::Compared => None,
        };
        // Of a version, nothing is ever removed.
        for segment in base.iter().filter(|base| base.is_candidate()).flat_map(|base| &base.segments) {
            open.collector.pin(segment.id);
        }
        let latest = open.latest.as_ref();
        open.under = match &base {
            Some(base) => {
                flatten::flatten(&replica, base, latest, &mut open.collector)?.or(Some(base.clone()))
            }
            None => None,
        };
        open.base = base;
        open.named = named;
        open.push_id = push;
        open.repeated = match push {
            None => None,
            Some(id) => {
                // A push comes after its base. What was only compared with is the latest, whatever the
                // push was made from: it may be among the versions before.
                let after = match ground {
                    Ground::Held | Ground::Proposed(_) => open.base.as_ref().and_then(Manifest::comes_after),
                    Ground::Compared | Ground::Nothing { .. } => None,
                };
                replica.search(after, |manifest| manifest.push_id == Some(id))?
            }
        };
        Ok(true)
    }

    fn reuse(&mut self, staged: &[u32]) -> Result<(), Error> {
        let replica = self.replica.clone();
        let open = self.open()?;
        let segments = replica.segments();
        let mut reader = BlockReader::new(segments.clone());
        let mut staged = staged.to_vec();
        staged.sort_unstable();
        for place in staged {
            let found = open.offered.get(place as usize).cloned();
            let (segment, offered) = found.ok_or(Error::Peer(PeerFault::NotStaged))?;
            let outcome = open.take_over(&mut reader, segment, &offered);
            if let Err(error) = outcome {
                // It must not stand in the way of the next push as well.
                if let (true, Some(scope)) = (error.is_damage(), open.offered_scope) {
                    replica.shared().store.delete(&Name::Staged(scope, segment.id).path(replica.id()))?;
                }
                return Err(error);
            }
        }
        Ok(())
    }

    fn take_page(&mut self, number: PageNumber, page: &[u8]) -> Result<(), Error> {
        let size = self.open()?.page_size;
        self.admit(size, number)?;
        let bytes_max = self.options.database_bytes_max;
        let replica = self.replica.clone();
        let open = self.open()?;
        if page.len() != size.bytes() {
            return Err(Error::Peer(PeerFault::PageLength(number)));
        }
        if number == size.lock_page() {
            return Err(Error::Peer(PeerFault::LockPage(number)));
        }
        let pages20 = open.pages20.get_or_insert_with(|| Pages20::new(&replica, size, bytes_max));
        pages20.take(number, page, &mut open.collector)
    }

    fn take_block(&mut self, block: Block) -> Result<(), Error> {
        let size = self.open()?.page_size;
        self.admit(size, block.last())?;
        let open = self.open()?;
        if block.page_size() != size {
            return Err(Error::Peer(PeerFault::PageLength(block.first())));
        }
        if open.last.is_some_and(|last| block.first() <= last) {
            return Err(Error::Peer(PeerFault::Order(block.first())));
        }
        if block.pages().any(|page| page == size.lock_page()) {
            return Err(Error::Peer(PeerFault::LockPage(size.lock_page())));
        }
        open.last = Some(block.last());
        block.decode(&mut open.raw).map_err(|error| Error::Peer(PeerFault::Block(error)))?;
        open.hash(&block)?;
        let hashes = std::mem::take(&mut open.hashes);
        open.collector.take(&block, &hashes, &[])
    }

    fn finish(&mut self, end: End) -> Result<Committed, Error> {
        self.receive(end)?.commit()
    }
}

impl Open {
    /// It is not too late to commit it.
    fn in_time(&self) -> Result<(), Error> {
        let age = Timestamp::now().duration_since(self.begun);
        if age > PUSH_TIME_MAX { Err(Error::TookTooLong(PUSH_TIME_MAX.as_hours())) } else { Ok(()) }
    }

    /// Hashes the decoded pages of a block, and looks at page 1.
    fn hash(&mut self, block: &Block) -> Result<(), Error> {
        let bytes = self.page_size.bytes();
        self.hashes = PageHash::of_each(&self.raw, self.page_size);
        if block.first() == PageNumber::FIRST {
            let first = &self.raw[..bytes];
            if HeaderFields::of(first) != HeaderFields::default() {
                return Err(Error::Peer(PeerFault::NotCanonical));
            }
            self.first = Some(first.to_vec());
        }
        Ok(())
    }

    /// Takes over a staged block, once it is shown to be what was offered.
    fn take_over(
        &mut self,
        reader: &mut BlockReader,
        segment: Written,
        offered: &StagedBlock,
    ) -> Result<(), Error> {
        let segments = reader.segments().clone();
        let damaged = |damage| segments.damaged(segment.id, damage);
        if segments.open(segment.id)?.check != segment.check {
            return Err(damaged(crate::error::Damage::Checksum));
        }
        let Some((first, _)) = offered.runs.first() else { return Err(Error::Peer(PeerFault::NotStaged)) };
        let entry = reader.find(segment.id, *first)?;
        let block = reader.block(segment.id, &entry)?;
        block.decode(&mut self.raw).map_err(|error| damaged(block_damage(error)))?;
        self.hash(&block)?;
        if staged_hash(&self.hashes) != offered.hash {
            return Err(damaged(crate::error::Damage::Page(*first)));
        }
        let hashes = std::mem::take(&mut self.hashes);
        let taken = self.collector.take_over(segment, &block, &hashes);
        self.hashes = hashes;
        taken
    }
}

impl Drop for PushReplica {
    fn drop(&mut self) {
        if let Some(mut open) = self.open.take() {
            open.collector.keep_for_later(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use sqlrsync_protocol::block::{BlockBuilder, Effort};
    use sqlrsync_protocol::exchange::{Form, OriginPages, Since, Wanted};
    use sqlrsync_protocol::page::PageCount;

    use super::*;
    use crate::error::Damage;
    use crate::id::ReplicaId;
    use crate::repository::Repository;

    #[test]
    fn a_push_that_took_too_long_is_not_committed_since_sweeping_may_have_taken_what_it_needs() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let repository = Repository::memory(runtime.handle().clone());
        let replica = repository.replica(&ReplicaId::from_bytes([1; 16]));
        let geometry = Geometry { page_size: PageSize::MIN, page_count: PageCount(1) };
        for (late, committed) in [(-60, true), (60, false)] {
            let options = PushOptions { database_bytes_max: 1 << 20, ..PushOptions::default() };
            let mut push = replica.push(options).unwrap();
            push.begin(geometry, 2).unwrap();
            push.accept(Ground::Nothing { recognised: false }, None).unwrap();
            let page = [u8::try_from(late + 100).unwrap(); 512];
            push.take_page(PageNumber::FIRST, &page).unwrap();
            push.open().unwrap().begun -= PUSH_TIME_MAX + SignedDuration::from_secs(late);
            let outcome = push.finish(End::PageCount(PageCount(1)));
            assert_eq!(outcome.is_ok(), committed, "{outcome:?}");
        }
        assert_eq!(replica.latest().unwrap().unwrap().number.get(), 1);
    }

    /// Every checksum is right, and yet a page is not what the tree says: only hashing it shows that.
    #[test]
    fn a_page_that_is_not_what_the_tree_says_is_not_served_and_is_named() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let repository = Repository::memory(runtime.handle().clone());
        let replica = repository.replica(&ReplicaId::from_bytes([1; 16]));
        let options = PushOptions { database_bytes_max: 1 << 20, ..PushOptions::default() };
        let geometry = Geometry { page_size: PageSize::MIN, page_count: PageCount(2) };
        let mut push = replica.push(options).unwrap();
        push.begin(geometry, 3).unwrap();
        let mut builder = BlockBuilder::new(PageSize::MIN);
        let second = PageNumber::new(2).unwrap();
        builder.push(PageNumber::FIRST, &[0; 512]);
        builder.push(second, &[7; 512]);
        let block = builder.finish(Effort::None).unwrap();
        let open = push.open().unwrap();
        open.first = Some(vec![0; 512]);
        let hashes = [PageHash::of(&[0; 512]), PageHash::of(&[8; 512])];
        open.collector.take(&block, &hashes, &[]).unwrap();
        push.finish(End::PageCount(PageCount(2))).unwrap();

        let mut origin = replica.origin(&replica.latest().unwrap().unwrap()).unwrap();
        origin.begin(Wanted { since: Since::Nothing, staged: Vec::new(), form: Form::Pages }).unwrap();
        let mut page = [0; 512];
        assert_eq!(origin.next_page(&mut page).unwrap(), Some(PageNumber::FIRST));
        let error = origin.next_page(&mut page).unwrap_err();
        assert!(matches!(error, Error::Damaged { damage: Damage::Page(page), .. } if page == second));
        let report = repository.check(&mut |_| {}).unwrap();
        assert_eq!((report.versions_proved, report.problems.len()), (0, 1));
        assert_eq!(report.problems[0].damage, Damage::Page(second));
    }
}
