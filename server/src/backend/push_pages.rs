//! What takes the pages of a push: the repository's replica, with the catalog beside it.
//!
//! - A push that may not go on (a PULL key, no turn) takes part in the conversation just far enough to
//!   say so in the form that the client's version has.
//! - A new replica is registered when its first page arrives, so that a first push that is cut can be
//!   continued, and its registration is taken back where the push failed for good.
//! - A version is acknowledged only when the catalog and the repository both have what they need.

use std::sync::Arc;

use jiff::Timestamp;
use sqlrsync_protocol::block::Block;
use sqlrsync_protocol::exchange::{
    Committed, End, Fault, Ground, Held, PushId, Refusal, ReplicaPages, StagedBlock,
};
use sqlrsync_protocol::hash::PageHash;
use sqlrsync_protocol::page::{Geometry, PageNumber};
use sqlrsync_protocol::sponge::Hash20;
use sqlrsync_protocol::tree::NodeId;
use sqlrsync_repository::{About, PushOptions, PushReplica};

use super::{Backend, ClientSays, PushTurn};
use crate::catalog::{Found, NewReplica, ReplicaRecord, Visibility};
use crate::refused::{Refused, Why};

/// Why a push fails on this side.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// It was not let in, or the catalog failed.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The repository.
    #[error(transparent)]
    Repository(#[from] sqlrsync_repository::Error),
}

impl Fault for PushError {
    fn refusal(&self) -> Refusal {
        match self {
            PushError::Refused(refused) => refused.refusal(),
            PushError::Repository(error) => error.refusal(),
        }
    }

    fn public_text(&self) -> String {
        match self {
            PushError::Refused(refused) => refused.public_text(),
            PushError::Repository(error) => error.public_text(),
        }
    }
}

/// Takes the pages of one push.
pub struct PushPages {
    backend: Arc<Backend>,
    says: ClientSays,
    options: PushOptions,
    turn: Result<PushTurn, Refused>,
    inner: Option<PushReplica>,
    registered: Option<ReplicaRecord>,
    /// This push has registered the replica.
    made: bool,
}

impl PushPages {
    pub(super) fn new(
        backend: Arc<Backend>,
        says: ClientSays,
        options: PushOptions,
        turn: Result<PushTurn, Refused>,
    ) -> PushPages {
        PushPages { backend, says, options, turn, inner: None, registered: None, made: false }
    }

    /// The replica, once it is registered.
    pub fn record(&self) -> Option<&ReplicaRecord> {
        self.registered.as_ref()
    }

    /// The push came to nothing. `may_continue`: the same client may come back and go on, so a replica
    /// that was registered for it stays.
    pub fn abandon(self, may_continue: bool) {
        let PushPages { backend, inner, registered, made, .. } = self;
        drop(inner);
        if made
            && !may_continue
            && let Some(record) = registered
            && let Err(error) = backend.catalog.forget_replica(&record.id)
        {
            tracing::warn!(%error, replica = record.name(), "a replica without a version stays registered");
        }
    }

    fn inner(&mut self) -> Result<&mut PushReplica, PushError> {
        self.inner.as_mut().ok_or_else(|| {
            Refused::new(Why::Failed, "a push was used before it began, which is a bug of the server").into()
        })
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
        let record = self.register()?.clone();
        let committed = self.inner()?.finish(end)?;
        self.describe(&record);
        if let Some(version) = committed.version.filter(|_| !committed.unchanged) {
            self.backend.notices.announce(&record.id, version);
        }
        Ok(committed)
    }
}
