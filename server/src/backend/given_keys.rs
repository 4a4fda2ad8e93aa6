//! Keys that are made over the wire, in answer to a KEYREQUEST.

use sqlrsync_protocol::key::{Key, Kind};

use super::Backend;
use crate::access::Caller;
use crate::catalog::ReplicaRecord;
use crate::new_key::{self, Wish};

/// What a client that asked is given.
#[derive(Debug, Default)]
pub struct GivenKeys {
    /// `newPushKey`.
    pub push: Option<Key>,
    /// `newPullKey`.
    pub pull: Option<Key>,
}

impl Backend {
    /// Makes the keys that the caller may be given. Who has no key is given none; nobody is given one
    /// that can do more than theirs. A failure is logged: the transfer itself is done.
    pub fn give_keys(&self, caller: &Caller, replica: &ReplicaRecord, push: bool, host: &str) -> GivenKeys {
        let Some(most) = caller.may_be_given(replica) else { return GivenKeys::default() };
        let make = |kind| {
            let wish = Wish {
                kind,
                namespace: &replica.namespace,
                replica: Some(&replica.id),
                label: if host.is_empty() { "asked for by a client" } else { host },
                parent: caller.key().map(|key| key.id),
            };
            match new_key::create(&self.catalog, &wish) {
                Ok((id, key)) => {
                    tracing::info!(replica = replica.name(), key = %id, "made a key for a client");
                    Some(key)
                }
                Err(error) => {
                    tracing::warn!(replica = replica.name(), %error, "made no key for a client");
                    None
                }
            }
        };
        GivenKeys {
            push: (push && most == Kind::ReplicaPush).then(|| make(Kind::ReplicaPush)).flatten(),
            pull: make(Kind::ReplicaPull),
        }
    }
}
