//! What the server does, without HTTP and without sockets: who a key belongs to, which replica a
//! name means, whose turn it is, what is stored. Calls block, on the catalog's disk or the
//! repository's, where they are not async.

mod activity;
#[cfg(test)]
mod bench;
mod delivery;
mod given_keys;
mod history;
mod long;
mod merging;
mod notices;
mod pull;
mod push;
mod push_pages;
mod recovery;
mod rooms;
mod rules;
mod status;
mod turns;

use std::sync::Arc;
use std::time::Duration;

use sqlrsync_protocol::exchange::{Fault, PushId};
use sqlrsync_protocol::key::Key;
use sqlrsync_protocol::possible_base::PossibleBase;
use sqlrsync_protocol::remote::RemoteName;
use sqlrsync_repository::{ReplicaId, Repository};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use crate::access::Caller;
use crate::catalog::{self, Catalog, ClientName};
use crate::refused::{Refused, Why};
use crate::sessions::{Ground, Sessions};
use crate::settings::Settings;

pub use activity::{Activity, Doing, Present};
pub use delivery::Delivery;
pub use given_keys::GivenKeys;
pub use history::{HISTORY_MAX, HistoryPage, ListedReplica, VersionInfo};
pub use merging::{
    Chosen, ConflictInfo, ConflictsPage, CountedPage, CountedVersion, DiffEnd, DiffFormat, DiffStat,
    Difference, Error as MergingError, Keep, QueryAnswer, Question, RowCounts, RowsPage, Settlement,
    error_end, error_line,
};
use merging::{Counted, LookTimes, MERGE_TIME, Maps, Recent, Scratch};
pub use notices::{Notice, Notices, Pusher, Subscription};
pub use pull::PullPlan;
pub use push::{PushPlan, PushTurn};
pub use push_pages::{PushError, PushPages};
pub use rooms::{Room, Rooms};
pub use status::Status;
use turns::Turns;

/// How many calls that block for a short time run at once. The runtime's blocking threads are shared
/// with the repository's own disk access, which these calls wait for: they must never take them all.
const BLOCKING_CALLS_MAX: usize = 64;

/// Who a peer is and what it says of itself, as far as the backend cares.
#[derive(Clone, Debug, Default)]
pub struct ClientSays {
    /// `X-ClientID`: stable for a machine.
    pub client_id: String,
    /// `X-LocalHostname`.
    pub host: String,
    /// `X-LocalAbsolutePath`.
    pub local_path: String,
    /// `X-ReplicaID`.
    pub replica_id: Option<String>,
    /// `X-Visibility`; `None` where nothing was said.
    pub visibility: Option<catalog::Visibility>,
    /// `X-Force`: a push is to be the newest version as it is, whatever others have pushed.
    pub force: bool,
    /// `X-Unanswered-Pushes`: earlier pushes from the same file whose answer was lost, newest first.
    pub unanswered: Vec<PushId>,
    /// `X-Possible-Base`: what our own client last knew a file to be whose base it does not dare to say.
    pub possible_base: PossibleBase,
    /// `X-ClientVersion` says that it is our own client.
    pub own_client: bool,
    /// `X-ReplicaVersion`.
    pub version: sqlrsync_protocol::remote::VersionSelector,
}

impl ClientSays {
    /// Who it is.
    pub fn name(&self) -> ClientName {
        ClientName::new(&self.client_id, &self.host, &self.local_path)
    }
}

impl ClientSays {
    /// Whether the id that the client gives, if any, is that of the replica at the name it gives: what it
    /// has in mind may be another that was there before.
    ///
    /// # Errors
    /// [`Why::NotFound`].
    pub fn means(&self, replica: &catalog::ReplicaRecord) -> Result<(), Refused> {
        match &self.replica_id {
            Some(id) if *id != replica.id => Err(Refused::new(
                Why::NotFound,
                format!(
                    "{} is another replica than the one of the id that was given: leave the id out, or \
                         give its own",
                    replica.name()
                ),
            )),
            _ => Ok(()),
        }
    }

    /// That nobody gave the id of a replica and a name that none has: a mistyped name would become a
    /// second replica, and the first be forgotten.
    ///
    /// # Errors
    /// [`Why::NotFound`].
    pub fn means_a_new_one(&self, name: &RemoteName) -> Result<(), Refused> {
        match &self.replica_id {
            Some(_) => Err(Refused::new(
                Why::NotFound,
                format!(
                    "there is no replica {name}, and the id of one was given: correct the name, or leave the \
                         id out to make a new one"
                ),
            )),
            None => Ok(()),
        }
    }
}

/// The server's parts that all connections share.
pub struct Backend {
    /// Namespaces, replicas, keys.
    pub catalog: Catalog,
    /// The versions.
    pub repository: Repository,
    /// The open WebSockets.
    pub sessions: Arc<Sessions>,
    /// Tells subscribers of new versions.
    pub notices: Notices,
    /// What clients did and announced.
    pub activity: Arc<Activity>,
    /// Room for transfers.
    pub rooms: Arc<Rooms>,
    maps: Maps,
    recent: Recent,
    counted: Counted,
    /// How long a merge may take.
    merge_time: Duration,
    /// What temporary files a merge may have.
    merge_scratch: Scratch,
    looks: LookTimes,
    turns: Arc<Turns>,
    blocking: Semaphore,
    database_bytes_max: u64,
    stage_bytes_max: u64,
}

impl Backend {
    /// Puts the parts together.
    pub fn new(
        catalog: Catalog,
        repository: Repository,
        activity: Arc<Activity>,
        sessions: Arc<Sessions>,
        settings: &Settings,
    ) -> Backend {
        Backend {
            catalog,
            repository,
            sessions,
            notices: Notices::default(),
            activity,
            rooms: Rooms::new(settings.transfers_max, settings.transfers_per_address_max),
            maps: Maps::default(),
            recent: Recent::default(),
            counted: Counted::default(),
            merge_time: MERGE_TIME,
            merge_scratch: Scratch::default(),
            looks: LookTimes { query: settings.query_timeout, diff: settings.diff_timeout },
            turns: Arc::default(),
            blocking: Semaphore::new(BLOCKING_CALLS_MAX),
            database_bytes_max: settings.database_bytes_max.0,
            stage_bytes_max: settings.stage_bytes_max.0,
        }
    }

    /// Runs a call that blocks for a short time, off the async threads.
    ///
    /// # Errors
    /// Those of `call`, and [`Why::Failed`] where it panicked.
    pub async fn blocking<T: Send + 'static>(
        self: &Arc<Backend>,
        call: impl FnOnce(&Arc<Backend>) -> Result<T, Refused> + Send + 'static,
    ) -> Result<T, Refused> {
        // The semaphore is never closed.
        let _turn = self.blocking.acquire().await;
        let backend = self.clone();
        match spawn_blocking(move || call(&backend)).await {
            Ok(outcome) => outcome,
            Err(error) => Err(Refused::failed("a call", &error)),
        }
    }

    /// Who holds this key.
    ///
    /// # Errors
    /// [`Why::BadKey`] where nobody does (any more), [`Why::Failed`].
    pub fn authenticate(&self, key: Option<&Key>) -> Result<Caller, Refused> {
        let Some(key) = key else { return Ok(Caller::Anonymous) };
        match self.catalog.key_by_hash(&key.hash())? {
            Some(record) if record.revoked.is_none() => Ok(Caller::Key(record)),
            _ => Err(Refused::new(Why::BadKey, "this key is not known here, or was revoked")),
        }
    }

    /// Whether what a session's right rests on is still there: asked again once the session is entered.
    ///
    /// # Errors
    /// [`Why::BadKey`], [`Why::NotAllowed`], [`Why::Failed`].
    pub fn still_holds(&self, ground: &Ground) -> Result<(), Refused> {
        if let Some(key) = ground.key
            && !self.catalog.key_is_live(key)?
        {
            return Err(Refused::new(Why::BadKey, "this key was revoked"));
        }
        match &ground.open_replica {
            Some(replica) if !self.catalog.replica_is_open(replica)? => {
                Err(Refused::new(Why::NotAllowed, "this replica became private"))
            }
            _ => Ok(()),
        }
    }

    /// Whether the parts answer that a request needs.
    ///
    /// # Errors
    /// [`Why::Failed`].
    pub fn ready(&self) -> Result<(), Refused> {
        self.catalog.ping()?;
        // A look at what is not there costs one access, however much is stored.
        let nothing = ReplicaId::random().map_err(|error| Refused::failed("making an id", &error))?;
        self.repository.replica(&nothing).about()?;
        Ok(())
    }
}

impl From<catalog::Error> for Refused {
    /// The catalog is the server's own: why it fails is nothing for the peer.
    fn from(error: catalog::Error) -> Refused {
        let refused = Refused::failed("the catalog", &error);
        if error.is_full() {
            return Refused::new(Why::TryLater, "the server's disk is full: try again later");
        }
        refused
    }
}

impl From<sqlrsync_repository::Error> for Refused {
    fn from(error: sqlrsync_repository::Error) -> Refused {
        let why = Why::from(error.refusal());
        if matches!(why, Why::Failed | Why::Damaged | Why::TryLater) {
            tracing::error!(%error, "the repository failed");
        }
        Refused::new(why, error.public_text())
    }
}
