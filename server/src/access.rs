//! Who may do what: the one place that decides it, without I/O.
//!
//! - A private replica that exists and one that does not are told apart only by who may see the
//!   private one: without a key both are "a key is needed", with a key of another namespace or
//!   replica both are "this key is not for it".
//! - A PULL key pushes nothing, however it asks.

use sqlrsync_protocol::key::Kind;

use crate::catalog::{KeyRecord, ReplicaRecord, Scope, Visibility};
use crate::refused::{Refused, Why};

/// Who asks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Caller {
    /// Nobody known: there was no key.
    Anonymous,
    /// The holder of this key, which is live.
    Key(KeyRecord),
}

/// What a push connection may be used for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PushRight {
    /// To push.
    Push,
    /// To be told that the key is a PULL key; a push on it is refused.
    PullOnly,
}

impl Caller {
    /// The key, where there is one.
    pub fn key(&self) -> Option<&KeyRecord> {
        match self {
            Caller::Anonymous => None,
            Caller::Key(key) => Some(key),
        }
    }

    /// Decides on a pull of what stands, or does not stand, at `namespace` and `path`.
    ///
    /// # Errors
    /// [`Why::NoKey`], [`Why::NotAllowed`], and [`Why::NotFound`] for a caller who may know.
    pub fn may_pull(
        &self,
        namespace: &str,
        path: &str,
        replica: Option<ReplicaRecord>,
    ) -> Result<ReplicaRecord, Refused> {
        let open = replica.as_ref().is_some_and(|replica| replica.visibility != Visibility::Private);
        match (self.covers(namespace, replica.as_ref()), replica) {
            (covers, Some(replica)) if covers || open => Ok(replica),
            (true, _) => Err(Refused::new(Why::NotFound, format!("there is no replica {namespace}/{path}"))),
            (false, _) => Err(self.not_for(namespace, path)),
        }
    }

    /// Decides on a push to `namespace` and `path`, where `replica` stands or nothing does yet.
    ///
    /// # Errors
    /// [`Why::NoKey`], [`Why::NotAllowed`].
    pub fn may_push(
        &self,
        namespace: &str,
        path: &str,
        replica: Option<&ReplicaRecord>,
    ) -> Result<PushRight, Refused> {
        match self {
            Caller::Key(key) if self.covers(namespace, replica) => {
                Ok(if key.kind.may_push() { PushRight::Push } else { PushRight::PullOnly })
            }
            _ => Err(self.not_for(namespace, path)),
        }
    }

    /// Whether the caller has a key that is for this replica, and does not only see it because all may.
    pub fn is_for(&self, replica: &ReplicaRecord) -> bool {
        self.covers(&replica.namespace, Some(replica))
    }

    /// Decides on looking at what is not published: conflicts, who did what. Any key for the replica will do.
    ///
    /// # Errors
    /// [`Why::NoKey`], [`Why::NotAllowed`].
    pub fn may_see(&self, replica: &ReplicaRecord) -> Result<(), Refused> {
        if self.is_for(replica) { Ok(()) } else { Err(self.not_for(&replica.namespace, &replica.path)) }
    }

    /// Decides on settling a conflict, which makes a version: keys that may push.
    ///
    /// # Errors
    /// [`Why::NoKey`], [`Why::NotAllowed`].
    pub fn may_settle(&self, replica: &ReplicaRecord) -> Result<(), Refused> {
        match self.may_push(&replica.namespace, &replica.path, Some(replica))? {
            PushRight::Push => Ok(()),
            PushRight::PullOnly => Err(Refused::new(
                Why::NotAllowed,
                "this is a PULL key: it sees conflicts and settles none. Use a PUSH key",
            )),
        }
    }

    /// Decides on changing what becomes of pushes: admin keys.
    ///
    /// # Errors
    /// [`Why::NoKey`], [`Why::NotAllowed`].
    pub fn may_rule(&self, replica: &ReplicaRecord) -> Result<(), Refused> {
        self.may_see(replica)?;
        match self.key() {
            Some(key) if key.kind == Kind::AccountAdmin => Ok(()),
            _ => Err(Refused::new(Why::NotAllowed, "an admin key is needed to change the policy")),
        }
    }

    /// Whether the key is for what lies there.
    fn covers(&self, namespace: &str, replica: Option<&ReplicaRecord>) -> bool {
        match self {
            Caller::Anonymous => false,
            Caller::Key(key) => match &key.scope {
                Scope::Namespace(own) => own == namespace,
                Scope::Replica { id, .. } => replica.is_some_and(|replica| replica.id == *id),
            },
        }
    }

    /// Whether the caller may pull this replica only because everybody may.
    pub fn pulls_as_anybody(&self, replica: &ReplicaRecord) -> bool {
        !self.covers(&replica.namespace, Some(replica))
    }

    fn not_for(&self, namespace: &str, path: &str) -> Refused {
        match self {
            Caller::Anonymous => {
                Refused::new(Why::NoKey, format!("a key is needed for {namespace}/{path}: none was given"))
            }
            Caller::Key(_) => {
                Refused::new(Why::NotAllowed, format!("this key is not for {namespace}/{path}"))
            }
        }
    }

    /// What is told to a PULL key that pushes.
    pub fn pull_key_pushes() -> Refused {
        Refused::new(Why::NotAllowed, "this is a PULL key: it cannot push. Use a PUSH key")
    }

    /// Which keys it may be given over the wire for a replica that it has just pushed or pulled.
    pub fn may_be_given(&self, replica: &ReplicaRecord) -> Option<Kind> {
        let key = self.key()?;
        self.covers(&replica.namespace, Some(replica)).then_some(match key.kind {
            Kind::AccountAdmin | Kind::ReplicaPush => Kind::ReplicaPush,
            Kind::AccountPull | Kind::ReplicaPull => Kind::ReplicaPull,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{KeyId, Policy};

    fn key(kind: Kind, scope: Scope) -> Caller {
        Caller::Key(KeyRecord {
            id: KeyId(1),
            kind,
            scope,
            label: String::new(),
            parent: None,
            created: String::new(),
            revoked: None,
        })
    }

    fn replica(id: &str, visibility: Visibility) -> Option<ReplicaRecord> {
        let (namespace, path) = ("team".to_owned(), "app.db".to_owned());
        let (id, created, policy) = (id.to_owned(), String::new(), Policy::default());
        Some(ReplicaRecord { id, namespace, path, visibility, created, policy })
    }

    fn callers() -> Vec<(&'static str, Caller)> {
        let own = || Scope::Namespace("team".to_owned());
        let one = |id: &str| Scope::Replica {
            namespace: "team".to_owned(),
            path: "app.db".to_owned(),
            id: id.to_owned(),
        };
        vec![
            ("nobody", Caller::Anonymous),
            ("admin", key(Kind::AccountAdmin, own())),
            ("pull", key(Kind::AccountPull, own())),
            ("replica push", key(Kind::ReplicaPush, one("r"))),
            ("replica pull", key(Kind::ReplicaPull, one("r"))),
            ("other admin", key(Kind::AccountAdmin, Scope::Namespace("other".to_owned()))),
            ("other pull", key(Kind::AccountPull, Scope::Namespace("other".to_owned()))),
            ("other replica push", key(Kind::ReplicaPush, one("x"))),
            ("other replica pull", key(Kind::ReplicaPull, one("x"))),
        ]
    }

    /// One row a caller; the columns are a private replica, a public one, and none at all.
    #[test]
    fn the_matrix_of_pulls() {
        use Why::{NoKey, NotAllowed, NotFound};
        let expected = [
            ("nobody", [Some(NoKey), None, Some(NoKey)]),
            ("admin", [None, None, Some(NotFound)]),
            ("pull", [None, None, Some(NotFound)]),
            ("replica push", [None, None, Some(NotAllowed)]),
            ("replica pull", [None, None, Some(NotAllowed)]),
            ("other admin", [Some(NotAllowed), None, Some(NotAllowed)]),
            ("other pull", [Some(NotAllowed), None, Some(NotAllowed)]),
            ("other replica push", [Some(NotAllowed), None, Some(NotAllowed)]),
            ("other replica pull", [Some(NotAllowed), None, Some(NotAllowed)]),
        ];
        for ((name, caller), (expected_name, expected)) in callers().into_iter().zip(expected) {
            assert_eq!(name, expected_name);
            let replicas = [replica("r", Visibility::Private), replica("r", Visibility::Public), None];
            let found = replicas
                .map(|replica| caller.may_pull("team", "app.db", replica).err().map(|refused| refused.why));
            assert_eq!(found, expected, "{name}");
        }
    }

    /// The columns are a replica that is there (public, which changes nothing) and none.
    #[test]
    fn the_matrix_of_pushes() {
        use PushRight::{PullOnly, Push};
        use Why::{NoKey, NotAllowed};
        let expected = [
            ("nobody", [Err(NoKey), Err(NoKey)]),
            ("admin", [Ok(Push), Ok(Push)]),
            ("pull", [Ok(PullOnly), Ok(PullOnly)]),
            ("replica push", [Ok(Push), Err(NotAllowed)]),
            ("replica pull", [Ok(PullOnly), Err(NotAllowed)]),
            ("other admin", [Err(NotAllowed), Err(NotAllowed)]),
            ("other pull", [Err(NotAllowed), Err(NotAllowed)]),
            ("other replica push", [Err(NotAllowed), Err(NotAllowed)]),
            ("other replica pull", [Err(NotAllowed), Err(NotAllowed)]),
        ];
        for ((name, caller), (_, expected)) in callers().into_iter().zip(expected) {
            let replicas = [replica("r", Visibility::Public), None];
            let found = replicas.map(|replica| {
                caller.may_push("team", "app.db", replica.as_ref()).map_err(|refused| refused.why)
            });
            assert_eq!(found, expected, "{name}");
        }
    }

    #[test]
    fn a_public_replica_is_seen_by_all_and_for_its_keys_alone() {
        let replica = replica("r", Visibility::Public).unwrap();
        let is_for: Vec<_> = callers()
            .into_iter()
            .filter(|(_, caller)| caller.is_for(&replica))
            .map(|(name, _)| name)
            .collect();
        assert_eq!(is_for, ["admin", "pull", "replica push", "replica pull"]);
    }

    /// The columns are looking at conflicts, settling one, and changing the policy of a public replica.
    #[test]
    fn the_matrix_of_conflicts() {
        let replica = replica("r", Visibility::Public).unwrap();
        let expected = [
            ("nobody", [false, false, false]),
            ("admin", [true, true, true]),
            ("pull", [true, false, false]),
            ("replica push", [true, true, false]),
            ("replica pull", [true, false, false]),
            ("other admin", [false, false, false]),
            ("other pull", [false, false, false]),
            ("other replica push", [false, false, false]),
            ("other replica pull", [false, false, false]),
        ];
        for ((name, caller), (_, expected)) in callers().into_iter().zip(expected) {
            let rights = [caller.may_see(&replica), caller.may_settle(&replica), caller.may_rule(&replica)];
            assert_eq!(rights.map(|right| right.is_ok()), expected, "{name}");
        }
    }

    #[test]
    fn nobody_is_given_a_key_that_can_do_more_than_theirs() {
        let replica = replica("r", Visibility::Public).unwrap();
        let given: Vec<_> = callers().iter().map(|(_, caller)| caller.may_be_given(&replica)).collect();
        let (push, pull) = (Some(Kind::ReplicaPush), Some(Kind::ReplicaPull));
        assert_eq!(given, [None, push, pull, push, pull, None, None, None, None]);
    }
}
