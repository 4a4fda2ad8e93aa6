//! What takes the pages of a push: the repository's replica, with the catalog beside it.
//!
//! - A push that may not go on (a PULL key, no turn) takes part in the conversation just far enough to
//!   say so in the form that the client's version has.
//! - A new replica is registered when its first page arrives, so that a first push that is cut can be
//!   continued. Its registration is taken back where the push failed for good, and never where a version
//!   may have been made: without its registration nobody could see it.
//! - No version is made by a key that was revoked before.
//! - A version is acknowledged only when the catalog and the repository both have what they need.

use std::sync::Arc;

use jiff::Timestamp;
use sqlrsync_protocol::block::Block;
use sqlrsync_protocol::exchange::{
    Committed, End, Fault, Ground, Held, PushId, Refusal, ReplicaPages, StagedBlock,
};
use sqlrsync_protocol::hash::PageHash;
use sqlrsync_protocol::page::{ConflictNumber, Geometry, PageCount, PageNumber, VersionNumber};
use sqlrsync_protocol::sponge::Hash20;
use sqlrsync_protocol::tree::NodeId;
use sqlrsync_repository::{About, PushOptions, PushReplica, Received};

use super::{Backend, ClientSays, PushTurn, Pusher, merging};
use crate::catalog::{Actor, Found, NewReplica, ReplicaRecord, Rule, Visibility};
use crate::refused::{Refused, Why};

/// The version of the protocol that first can say that a push is in a conflict, without its having failed.
const CONFLICTS_SINCE: u8 = 3;

/// Why a push fails on this side.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// It was not let in, or the catalog failed.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The repository.
    #[error(transparent)]
    Repository(#[from] sqlrsync_repository::Error),
    /// It was not merged, nor kept.
    #[error(transparent)]
    Merging(#[from] merging::Error),
    /// It is kept as a conflict, and the peer speaks a version that has no other way to say so.
    #[error(
        "{why}: it is kept as conflict {conflict} of {name}, and nothing was published. Settle it with: \
         sqlrsync resolve {name} {conflict}"
    )]
    InConflict {
        /// The conflict.
        conflict: ConflictNumber,
        /// The replica's name.
        name: String,
        /// What is in the way.
        why: String,
    },
}

impl PushError {
    /// The latest version, where the push was refused since it was not made from that.
    pub fn rejected_for(&self) -> Option<VersionNumber> {
        match self {
            PushError::Merging(merging::Error::Rejected(rejected)) => Some(rejected.latest),
            _ => None,
        }
    }
}

impl Fault for PushError {
    fn refusal(&self) -> Refusal {
        match self {
            PushError::Refused(refused) => refused.refusal(),
            PushError::Repository(error) => error.refusal(),
            PushError::Merging(error) => error.refusal(),
            PushError::InConflict { .. } => Refusal::Conflict,
        }
    }

    fn public_text(&self) -> String {
        match self {
            PushError::Refused(refused) => refused.public_text(),
            PushError::Repository(error) => error.public_text(),
            PushError::Merging(error) => error.public_text(),
            PushError::InConflict { .. } => self.to_string(),
        }
    }
}

/// Takes the pages of one push.
pub struct PushPages {
    backend: Arc<Backend>,
    says: ClientSays,
    actor: Actor,
    /// The key is an admin's.
    admin: bool,
    options: PushOptions,
    turn: Result<PushTurn, Refused>,
    inner: Option<PushReplica>,
    registered: Option<ReplicaRecord>,
    /// This push has registered the replica.
    made: bool,
    /// A version was made, or it is not known that none was.
    may_be_committed: bool,
}

impl PushPages {
    pub(super) fn new(
        backend: Arc<Backend>,
        (actor, admin, says): (Actor, bool, ClientSays),
        options: PushOptions,
        turn: Result<PushTurn, Refused>,
    ) -> PushPages {
        PushPages {
            backend,
            says,
            actor,
            admin,
            options,
            turn,
            inner: None,
            registered: None,
            made: false,
            may_be_committed: false,
        }
    }

    /// The replica, once it is registered.
    pub fn record(&self) -> Option<&ReplicaRecord> {
        self.registered.as_ref()
    }

    /// The push came to nothing. `may_continue`: the same client may come back and go on, so a replica
    /// that was registered for it stays.
    pub fn abandon(self, may_continue: bool) {
        let PushPages { backend, inner, registered, made, may_be_committed, turn, .. } = self;
        drop(inner);
        let (Some(record), Ok(turn)) = (registered, &turn) else { return };
        if !made || may_continue || may_be_committed {
            return;
        }
        // Only what is empty for certain goes.
        let forgotten = match turn.replica().latest() {
            Ok(None) => backend.catalog.forget_replica(&record.id).map_err(Refused::from),
            Ok(Some(_)) => return,
            Err(error) => Err(error.into()),
        };
        if let Err(error) = forgotten {
            tracing::warn!(%error, replica = record.name(), "a replica without a version stays registered");
        }
    }

    fn inner(&mut self) -> Result<&mut PushReplica, PushError> {
        self.inner.as_mut().ok_or_else(|| {
            Refused::new(Why::Failed, "a push was used before it began, which is a bug of the server").into()
        })
    }

    /// What is in the way of a push that is in a conflict, in words.
    fn why(&self, conflict: ConflictNumber) -> String {
        let found = self.turn.as_ref().ok().and_then(|turn| turn.replica().conflict(conflict).ok().flatten());
        let reason = found.and_then(|found| found.overlap.reasons.into_iter().next());
        reason.unwrap_or_else(|| "rows that this changes were changed by others as well".to_owned())
    }

    fn pusher(&self) -> Pusher {
        Pusher { client_id: self.options.client_id.clone(), local_path: self.options.local_path.clone() }
    }

    /// What decides on what was received.
    fn push<'a>(&'a self, record: &'a ReplicaRecord, received: Received) -> merging::Push<'a> {
        merging::Push {
            backend: &self.backend,
            record,
            actor: &self.actor,
            says: &self.says,
            // Where others may not be overtaken, only who may change that can do it.
            force: self.says.force && (record.policy.rule != Rule::Reject || self.admin),
            permission: self.options.permission.clone(),
            received,
            deed: merging::Deed::default(),
        }
    }

    fn register(&mut self) -> Result<&ReplicaRecord, PushError> {
        let record = match self.registered.take() {
            Some(record) => record,
            None => {
                let turn = self.turn.as_ref().map_err(Clone::clone)?;
                match turn.record.clone() {
                    Some(record) => record,
                    None => {
                        self.made = true;
                        make(&self.backend, &self.says, turn)?
                    }
                }
            }
        };
        Ok(self.registered.insert(record))
    }

    /// Sees to it that the repository knows what the replica is called, should the catalog be lost.
    /// The version stands whatever comes of it, and the next push tries again.
    fn describe(&self, record: &ReplicaRecord) {
        let Ok(turn) = &self.turn else { return };
        let about = || match turn.replica().about()? {
            Some(_) => Ok(()),
            None => turn.replica().set_about(&About {
                namespace: record.namespace.clone(),
                path: record.path.clone(),
                created: Timestamp::now(),
            }),
        };
        if let Err(error) = about() {
            let error: &sqlrsync_repository::Error = &error;
            tracing::error!(%error, replica = record.name(), "the repository does not know its name");
        }
    }
}

fn make(backend: &Backend, says: &ClientSays, turn: &PushTurn) -> Result<ReplicaRecord, Refused> {
    let id = turn.replica().id().to_string();
    let new = NewReplica {
        id: &id,
        namespace: turn.name.namespace().as_str(),
        path: turn.name.path().as_str(),
        visibility: says.visibility.unwrap_or(Visibility::Private),
        client_id: &says.client_id,
        host: &says.host,
        local_path: &says.local_path,
    };
    match backend.catalog.create_replica(&new)? {
        Found::Made(record) => Ok(record),
        Found::Existing(record) => Err(Refused::new(
            Why::TryLater,
            format!("{} was made by somebody else meanwhile: push again", record.name()),
        )),
    }
}

impl ReplicaPages for PushPages {
    type Error = PushError;

    fn begin(&mut self, origin: Geometry, version: u8) -> Result<Held, PushError> {
        let replica = self.turn.as_ref().map_err(Clone::clone)?.replica();
        let inner = replica.push(self.options.clone())?;
        Ok(self.inner.insert(inner).begin(origin, version)?)
    }

    fn staged(&mut self) -> Result<Vec<StagedBlock>, PushError> {
        Ok(self.inner()?.staged()?)
    }

    fn group_hash(&mut self, first: PageNumber, count: u32) -> Result<Hash20, PushError> {
        Ok(self.inner()?.group_hash(first, count)?)
    }

    fn node(&mut self, node: NodeId) -> Result<Vec<PageHash>, PushError> {
        Ok(self.inner()?.node(node)?)
    }

    fn accept(&mut self, ground: Ground, push: Option<PushId>) -> Result<bool, PushError> {
        Ok(self.inner()?.accept(ground, push)?)
    }

    fn reuse(&mut self, staged: &[u32]) -> Result<(), PushError> {
        Ok(self.inner()?.reuse(staged)?)
    }

    fn take_page(&mut self, number: PageNumber, page: &[u8]) -> Result<(), PushError> {
        if self.registered.is_none() {
            self.register()?;
        }
        Ok(self.inner()?.take_page(number, page)?)
    }

    fn take_block(&mut self, block: Block) -> Result<(), PushError> {
        if self.registered.is_none() {
            self.register()?;
        }
        Ok(self.inner()?.take_block(block)?)
    }

    fn finish(&mut self, end: End) -> Result<Committed, PushError> {
        let pages = match &end {
            End::PageCount(count) => *count,
            End::Proof(proof) => proof.page_count,
        };
        if pages == PageCount::ZERO {
            // No SQLite database: nobody could pull it.
            return Err(
                Refused::new(Why::BadRequest, "the database has no pages: there is nothing to push").into()
            );
        }
        let record = self.register()?.clone();
        self.may_be_committed = true;
        let received = self.inner()?.receive(end).inspect_err(|_| self.may_be_committed = false)?;
        let protocol = received.protocol_version();
        let committed = match self.push(&record, received).run() {
            Ok(committed) => committed,
            Err(error) => {
                self.may_be_committed = !ended_before_the_commit(&error);
                return Err(error.into());
            }
        };
        if let Some(conflict) = committed.conflict {
            self.backend.note_pushed(&record, self.says.name(), None);
            if protocol < CONFLICTS_SINCE {
                let why = self.why(conflict);
                return Err(PushError::InConflict { conflict, name: record.name(), why });
            }
            return Ok(committed);
        }
        self.describe(&record);
        self.backend.note_pushed(&record, self.says.name(), committed.version);
        if let Some(version) = committed.version.filter(|_| !committed.unchanged) {
            // What was merged is not what the pusher has: it hears of it as everybody does.
            let pusher = if committed.merged { Pusher::default() } else { self.pusher() };
            self.backend.notices.announce(&record.name(), version, pusher);
        }
        Ok(committed)
    }
}

/// Whether a push that failed so has made no version for certain. A store that failed may have made
/// it, or make it yet.
fn ended_before_the_commit(error: &merging::Error) -> bool {
    use sqlrsync_repository::Error;
    match error {
        merging::Error::Rejected(_) => true,
        merging::Error::Repository(error) => matches!(
            error,
            Error::Peer(_) | Error::WrongRoot { .. } | Error::TooLarge { .. } | Error::Withdrawn
        ),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use sqlrsync_protocol::canonical::empty_database;
    use sqlrsync_protocol::page::PageSize;

    use super::super::bench::Bench;
    use super::*;

    /// A first push of version 2 of which all has arrived but the end.
    fn push(bench: &Bench) -> PushPages {
        let name = Some("team/app.db".parse().unwrap());
        let plan = bench.backend.plan_push(bench.caller(), name, ClientSays::default()).unwrap();
        let wait = std::time::Duration::from_secs(5);
        let turn = bench.runtime.block_on(bench.backend.begin_push(&plan, None, wait));
        let mut pages = bench.backend.push_pages(&plan, String::new(), turn);
        let page_size = PageSize::MIN;
        pages.begin(Geometry { page_size, page_count: PageCount(1) }, 2).unwrap();
        pages.accept(Ground::Nothing { recognised: false }, None).unwrap();
        pages.take_page(PageNumber::FIRST, &empty_database(page_size)).unwrap();
        pages
    }

    fn end() -> End {
        End::PageCount(PageCount(1))
    }

    #[test]
    fn a_replica_whose_first_push_came_to_nothing_is_forgotten_unless_it_may_be_continued() {
        for may_be_continued in [true, false] {
            let folder = tempfile::tempdir().unwrap();
            let bench = Bench::on(&folder);
            push(&bench).abandon(may_be_continued);
            assert_eq!(bench.record().is_some(), may_be_continued);
        }
    }

    #[test]
    fn a_database_without_pages_is_no_version() {
        let folder = tempfile::tempdir().unwrap();
        let bench = Bench::on(&folder);
        let mut pages = push(&bench);
        let error = pages.finish(End::PageCount(PageCount(0))).unwrap_err();
        assert_eq!(error.refusal(), Refusal::Invalid);
        pages.abandon(false);
        assert_eq!(bench.record(), None);
    }

    #[test]
    fn a_replica_with_a_version_stays_though_its_pusher_could_not_be_told() {
        let folder = tempfile::tempdir().unwrap();
        let bench = Bench::on(&folder);
        let mut pages = push(&bench);
        pages.finish(end()).unwrap();
        pages.abandon(false);
        let record = bench.record().expect("it has a version");
        assert_eq!(bench.backend.latest_version(&record).unwrap().unwrap().get(), 1);
    }

    #[test]
    fn a_replica_stays_where_the_store_failed_on_its_first_version() {
        let folder = tempfile::tempdir().unwrap();
        let bench = Bench::on(&folder);
        let mut pages = push(&bench);
        let id = bench.record().unwrap().id;
        // A file in the place of the folder: the version cannot be made, nor looked for.
        let manifests = folder.path().join("replicas").join(&id).join("manifests");
        std::fs::create_dir_all(manifests.parent().unwrap()).unwrap();
        std::fs::write(&manifests, "").unwrap();
        pages.finish(end()).unwrap_err();
        pages.abandon(false);
        assert!(bench.record().is_some(), "whether it has a version is not known");
    }

    #[test]
    fn a_key_that_was_revoked_at_any_time_before_the_commit_makes_no_version() {
        let folder = tempfile::tempdir().unwrap();
        let bench = Bench::on(&folder);
        let mut pages = push(&bench);
        let replica = pages.turn.as_ref().unwrap().replica().clone();
        bench.backend.catalog.revoke_key(bench.caller().key().unwrap().id, false).unwrap();
        let error = pages.finish(end()).unwrap_err();
        assert_eq!(error.refusal(), Refusal::NotAllowed, "{error}");
        assert_eq!(replica.latest().unwrap(), None);
        pages.abandon(false);
        assert_eq!(bench.record(), None);
    }
}
