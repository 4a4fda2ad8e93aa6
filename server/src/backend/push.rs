//! Pushes: which replica is meant, whose turn it is, and what a new replica is called.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use sqlrsync_protocol::key::Kind;
use sqlrsync_protocol::remote::{Namespace, RemoteName, ReplicaPath};
use sqlrsync_protocol::text::printable;
use sqlrsync_repository::{Permission, PushOptions, Replica, ReplicaId};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::turns::Turn;
use super::{Backend, ClientSays, PushPages, Pusher, Room, rules};
use crate::access::{Caller, PushRight};
use crate::catalog::{ReplicaRecord, Scope};
use crate::refused::{Refused, Why};
use crate::sessions::Ground;

/// How many names are tried for a replica that comes without one.
const NAMES_TRIED_MAX: u32 = 1000;

/// What a replica is called where neither host nor path give a name.
const NAME_OF_LAST_RESORT: &str = "database";

/// A push connection that was let in. A push may follow, or never.
#[derive(Clone, Debug)]
pub struct PushPlan {
    /// Who pushes.
    pub caller: Caller,
    /// What the key allows here.
    pub right: PushRight,
    /// What the client says of itself.
    pub says: ClientSays,
    target: Target,
}

impl PushPlan {
    /// The replica's name, where the client or its key has said it.
    pub fn name(&self) -> Option<&RemoteName> {
        match &self.target {
            Target::Named(name) => Some(name),
            Target::Unnamed(_) => None,
        }
    }

    /// Who pushes, as those that hear of a version know it.
    pub fn pusher(&self) -> Pusher {
        Pusher { client_id: self.says.client_id.clone(), local_path: self.says.local_path.clone() }
    }
}

/// Which replica a push is for.
#[derive(Clone, Debug)]
enum Target {
    /// The one of this name, whether it is there yet or not.
    Named(RemoteName),
    /// One that the server names, in this namespace.
    Unnamed(Namespace),
}

/// A push whose turn it is: nobody else pushes to the replica until this is dropped.
#[derive(Debug)]
pub struct PushTurn {
    /// The replica's name.
    pub name: RemoteName,
    /// What the catalog has on it; `None` before its first version.
    pub record: Option<ReplicaRecord>,
    /// Where the push comes from.
    pub address: Option<IpAddr>,
    replica: Replica,
    turn: Turn,
    _room: Room,
}

impl Backend {
    /// Decides on a push connection.
    ///
    /// # Errors
    /// As [`Caller::may_push`].
    pub fn plan_push(
        &self,
        caller: Caller,
        name: Option<RemoteName>,
        says: ClientSays,
    ) -> Result<PushPlan, Refused> {
        let Some(key) = caller.key() else {
            return Err(Refused::new(Why::NoKey, "a key is needed to push: none was given"));
        };
        let name = match name {
            Some(name) => Some(name),
            None => self.replica_without_name(&caller, &says)?.as_ref().map(name_of).transpose()?,
        };
        let (right, target) = match (name, &key.scope) {
            (Some(name), _) => {
                let (namespace, path) = (name.namespace().as_str(), name.path().as_str());
                let replica = self.catalog.replica(namespace, path)?;
                let right = caller.may_push(namespace, path, replica.as_ref())?;
                match &replica {
                    Some(replica) => says.means(replica)?,
                    None => says.means_a_new_one(&name)?,
                }
                (right, Target::Named(name))
            }
            (None, Scope::Namespace(own)) => {
                let right =
                    if key.kind == Kind::AccountAdmin { PushRight::Push } else { PushRight::PullOnly };
                (right, Target::Unnamed(own.parse().map_err(|_| damaged("namespace"))?))
            }
            (None, Scope::Replica { .. }) => return Err(damaged("replica of a key")),
        };
        Ok(PushPlan { caller, right, says, target })
    }

    /// Waits for the push's turn, and then for room among the transfers: who waits for a turn keeps
    /// nobody from theirs at another replica.
    ///
    /// # Errors
    /// [`Why::NotAllowed`] for a PULL key, [`Why::TryLater`] and [`Why::TooMany`] where it takes longer
    /// than `at_most`.
    pub async fn begin_push(
        self: &Arc<Backend>,
        plan: &PushPlan,
        address: Option<IpAddr>,
        at_most: Duration,
    ) -> Result<PushTurn, Refused> {
        if plan.right == PushRight::PullOnly {
            return Err(Caller::pull_key_pushes());
        }
        let deadline = Instant::now() + at_most;
        loop {
            let asked = plan.clone();
            let name = self.blocking(move |backend| backend.name_for(&asked)).await?;
            let text = name.to_string();
            let turn = timeout_at(deadline, self.turns.take(&text, &plan.says.host))
                .await
                .map_err(|_| Refused::new(Why::TryLater, self.whose_turn(&text)))?;
            let asked = plan.clone();
            let found = self.blocking(move |backend| backend.still_for(&asked, name)).await?;
            if let Some((name, record)) = found {
                let replica = self.replica_to_push(record.as_ref())?;
                let room = self.rooms.take(address, deadline).await?;
                return Ok(PushTurn { name, record, address, replica, turn, _room: room });
            }
            // Somebody else took the name that was chosen for this push: choose again.
        }
    }

    /// What somebody is told who has waited for his turn in vain.
    pub(super) fn whose_turn(&self, name: &str) -> String {
        let from = match self.turns.holder(name) {
            Some((host, time)) if !host.is_empty() => {
                format!(", from {}, for {} s already", printable(&host), time.as_secs())
            }
            _ => String::new(),
        };
        format!("another push to {name} is going on{from}: try again when it is done")
    }

    /// The name to push to: the client's, or the first that is free.
    fn name_for(&self, plan: &PushPlan) -> Result<RemoteName, Refused> {
        let namespace = match &plan.target {
            Target::Named(name) => return Ok(name.clone()),
            Target::Unnamed(namespace) => namespace,
        };
        if let Some(record) = self.pushed_before(namespace, &plan.says)? {
            return name_of(&record);
        }
        for number in 1..=NAMES_TRIED_MAX {
            let name = suggest(namespace, &plan.says, number)?;
            if self.catalog.replica(namespace.as_str(), name.path().as_str())?.is_none() {
                return Ok(name);
            }
        }
        Err(Refused::new(Why::BadRequest, "there is no free name left for this database: name it"))
    }

    /// A replica that this very client pushed from this very file without a name before: the same
    /// database, pushed by a client that has lost its files.
    fn pushed_before(
        &self,
        namespace: &Namespace,
        says: &ClientSays,
    ) -> Result<Option<ReplicaRecord>, Refused> {
        if says.client_id.is_empty() || says.local_path.is_empty() {
            return Ok(None);
        }
        let ClientSays { client_id, host, local_path, .. } = says;
        Ok(self.catalog.replica_pushed_from(namespace.as_str(), client_id, host, local_path)?)
    }

    /// The replica that a push on this connection would go to; `None` where there is none yet, or the key
    /// does not allow it.
    pub(super) fn pushed_to(&self, plan: &PushPlan) -> Result<Option<ReplicaRecord>, Refused> {
        let found = match &plan.target {
            Target::Named(name) => self.catalog.replica(name.namespace().as_str(), name.path().as_str())?,
            Target::Unnamed(namespace) => self.pushed_before(namespace, &plan.says)?,
        };
        Ok(found.filter(|found| {
            plan.caller.may_push(&found.namespace, &found.path, Some(found)) == Ok(PushRight::Push)
        }))
    }

    /// With the turn taken: what stands at the name. `None` where a name that was free is not any more.
    fn still_for(
        &self,
        plan: &PushPlan,
        name: RemoteName,
    ) -> Result<Option<(RemoteName, Option<ReplicaRecord>)>, Refused> {
        let (namespace, path) = (name.namespace().as_str(), name.path().as_str());
        let record = self.catalog.replica(namespace, path)?;
        match &plan.target {
            Target::Named(_) => {
                // It may have come into being since the connection was let in.
                plan.caller.may_push(namespace, path, record.as_ref())?;
            }
            Target::Unnamed(own) => {
                let mine = self.pushed_before(own, &plan.says)?;
                if record.is_some() && record != mine {
                    return Ok(None);
                }
            }
        }
        Ok(Some((name, record)))
    }

    fn replica_to_push(&self, record: Option<&ReplicaRecord>) -> Result<Replica, Refused> {
        match record {
            Some(record) => self.repository_replica(record),
            None => match ReplicaId::random() {
                Ok(id) => Ok(self.repository.replica(&id)),
                Err(error) => Err(Refused::failed("making an id", &error)),
            },
        }
    }

    /// What takes the pages of a push.
    pub fn push_pages(
        self: &Arc<Backend>,
        plan: &PushPlan,
        message: String,
        turn: Result<PushTurn, Refused>,
    ) -> PushPages {
        let author = plan.caller.key().map(|key| key.label.clone()).unwrap_or_default();
        let scope = plan.caller.key().map(|key| key.id.to_string());
        let options = PushOptions {
            author,
            message,
            client_id: plan.says.client_id.clone(),
            host: plan.says.host.clone(),
            local_path: plan.says.local_path.clone(),
            stage_scope: scope,
            database_bytes_max: self.database_bytes_max,
            stage_bytes_max: self.stage_bytes_max,
            permission: Permission::new({
                let key = plan.caller.key().map(|key| key.id);
                let (backend, ground) = (self.clone(), Ground { key, open_replica: None });
                // Asked of the catalog and not of the session: that hears of a revocation a little later.
                move || backend.still_holds(&ground).is_ok()
            }),
        };
        let address = turn.as_ref().ok().and_then(|turn| turn.address);
        let actor = rules::actor(&plan.caller, address, &plan.says);
        let admin = plan.caller.key().is_some_and(|key| key.kind == Kind::AccountAdmin);
        PushPages::new(self.clone(), (actor, admin, plan.says.clone()), options, turn)
    }
}

impl PushTurn {
    /// The replica in the repository.
    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    /// How many wait for this turn, now and later.
    pub fn waiting(&self) -> watch::Receiver<usize> {
        self.turn.waiting()
    }
}

fn name_of(record: &ReplicaRecord) -> Result<RemoteName, Refused> {
    record.name().parse().map_err(|_| damaged("replica path"))
}

fn damaged(what: &'static str) -> Refused {
    crate::catalog::Error::Damaged(what).into()
}

/// `HOST/FILE`, and from the second on `HOST/FILE-2`, in letters that a name may have.
fn suggest(namespace: &Namespace, says: &ClientSays, number: u32) -> Result<RemoteName, Refused> {
    let file = says.local_path.rsplit(['/', '\\']).next().unwrap_or_default();
    let suffix = if number > 1 { format!("-{number}") } else { String::new() };
    let numbered = |file: &str| format!("{file}{suffix}");
    let path = ReplicaPath::suggest([says.host.as_str(), &numbered(file)])
        .or_else(|| ReplicaPath::suggest([numbered(NAME_OF_LAST_RESORT).as_str()]))
        .ok_or_else(|| damaged("name"))?;
    RemoteName::new(namespace.clone(), path)
        .map_err(|error| Refused::new(Why::BadRequest, format!("no name can be made for it: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_without_a_name_is_called_by_its_host_and_file() {
        let name = |host: &str, local_path: &str, number| {
            let (host, local_path) = (host.to_owned(), local_path.to_owned());
            let says = ClientSays { host, local_path, ..ClientSays::default() };
            suggest(&"team".parse().unwrap(), &says, number).unwrap().to_string()
        };
        assert_eq!(name("laptop", "/home/me/app.db", 1), "team/laptop/app.db");
        assert_eq!(name("laptop", "/home/me/app.db", 2), "team/laptop/app.db-2");
        assert_eq!(name("a;b$(c)", "/x/e'vil\".db", 1), "team/a-b-(c)/e-vil-.db");
        assert_eq!(name("", "", 1), "team/database");
        assert_eq!(name("..", "/tmp/..", 3), "team/..-3");
    }
}
