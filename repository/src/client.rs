//! Client records: what a client was last seen to have. They are for peers that say nothing of their base, and
//! a hint at most: a record that is lost, or that two servers wrote at once, costs a conflict, never a row.

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use sqlrsync_protocol::page::VersionNumber;

use crate::candidate::{MergeBase, StoredMergeBase};
use crate::envelope;
use crate::error::{Damage, Error};
use crate::id::{Name, ReplicaId};
use crate::manifest::{Manifest, TEXT_BYTES_MAX};
use crate::replica::{Replica, bounded};

/// The most versions that a record says were pulled: the last ones.
pub const PULLED_MAX: usize = 64;

/// The most records of a replica that sweeping leaves: the newest ones.
pub(crate) const CLIENTS_MAX: usize = 16_384;

/// How long a record is kept that is not written again.
pub(crate) const CLIENT_TIME: SignedDuration = SignedDuration::from_hours(400 * 24);

/// The most bytes of a record: its texts may be written with escapes.
const CLIENT_BYTES_MAX: u64 = 128 << 10;

/// Which client, and which of its files. Host and path are empty where they are not known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientKey {
    /// The client's id.
    pub client_id: String,
    /// Its host.
    pub host: String,
    /// The file's path there.
    pub local_path: String,
}

/// What a client was last seen to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientRecord {
    /// When it was last written.
    pub time: Timestamp,
    /// The content that it last pushed.
    pub pushed: Option<MergeBase>,
    /// The versions that it pulled, the last ones, oldest first.
    pub pulled: Vec<VersionNumber>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredClient {
    replica: String,
    client_id: String,
    host: String,
    local_path: String,
    time: Timestamp,
    pushed: Option<StoredMergeBase>,
    pulled: Vec<u64>,
}

impl ClientKey {
    /// The client and file that a content was pushed from.
    pub fn of(content: &Manifest) -> ClientKey {
        let Manifest { client_id, host, local_path, .. } = content;
        ClientKey { client_id: client_id.clone(), host: host.clone(), local_path: local_path.clone() }
    }

    /// The client, whichever of its files.
    pub fn any_file(client_id: &str) -> ClientKey {
        ClientKey { client_id: client_id.to_owned(), ..ClientKey::default() }
    }

    /// The name of its record.
    pub(crate) fn hash(&self) -> [u8; 16] {
        let mut hasher = blake3::Hasher::new_derive_key("sqlrsync 2026 repository client");
        for text in [&self.client_id, &self.host, &self.local_path] {
            hasher.update(&(text.len() as u64).to_be_bytes());
            hasher.update(text.as_bytes());
        }
        let mut name = [0; 16];
        name.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        name
    }

    fn bounded(&self) -> Result<(), Error> {
        bounded("the client id", &self.client_id, TEXT_BYTES_MAX)?;
        bounded("the host", &self.host, TEXT_BYTES_MAX)?;
        bounded("the local path", &self.local_path, TEXT_BYTES_MAX)
    }
}

impl ClientRecord {
    pub(crate) fn encode(&self, replica: ReplicaId, key: &ClientKey) -> Result<Bytes, Error> {
        let stored = StoredClient {
            replica: replica.to_string(),
            client_id: key.client_id.clone(),
            host: key.host.clone(),
            local_path: key.local_path.clone(),
            time: self.time,
            pushed: self.pushed.as_ref().map(StoredMergeBase::of),
            pulled: self.pulled.iter().map(|number| number.get()).collect(),
        };
        envelope::encode("client", &stored).map_err(|_| Error::OutOfOrder("client record"))
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<(ReplicaId, ClientKey, ClientRecord), Damage> {
        if bytes.len() as u64 > CLIENT_BYTES_MAX {
            return Err(Damage::TooLarge);
        }
        envelope::decode::<StoredClient>("client", bytes)?.parse().ok_or(Damage::Structure)
    }
}

impl StoredClient {
    fn parse(self) -> Option<(ReplicaId, ClientKey, ClientRecord)> {
        if self.pulled.len() > PULLED_MAX {
            return None;
        }
        let pushed = match self.pushed {
            None => None,
            Some(pushed) => Some(pushed.parse()?),
        };
        let pulled = self.pulled.into_iter().map(VersionNumber::new).collect::<Option<_>>()?;
        let key = ClientKey { client_id: self.client_id, host: self.host, local_path: self.local_path };
        let record = ClientRecord { time: self.time, pushed, pulled };
        key.bounded().is_ok().then_some((self.replica.parse().ok()?, key, record))
    }
}

impl Replica {
    /// What a client was last seen to have; `None` where nothing is known, or the record is damaged.
    pub fn client_record(&self, key: &ClientKey) -> Result<Option<ClientRecord>, Error> {
        match self.read_client(key.hash()) {
            Ok(found) => Ok(found.filter(|(of, _)| of == key).map(|(_, record)| record)),
            Err(error) if error.is_damage() => {
                tracing::warn!(%error, "what a client was last seen to have is not known any more");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Says what a client has, in place of what was said before. Of the versions pulled, the last
    /// [`PULLED_MAX`] are kept.
    pub fn put_client_record(&self, key: &ClientKey, record: &ClientRecord) -> Result<(), Error> {
        key.bounded()?;
        let from = record.pulled.len().saturating_sub(PULLED_MAX);
        let record = ClientRecord { pulled: record.pulled[from..].to_vec(), ..record.clone() };
        let path = Name::Client(key.hash()).path(self.id());
        self.shared().store.put(&path, record.encode(self.id(), key)?)
    }

    pub(crate) fn read_client(&self, hash: [u8; 16]) -> Result<Option<(ClientKey, ClientRecord)>, Error> {
        let path = Name::Client(hash).path(self.id());
        let Some(bytes) = self.shared().store.get(&path, CLIENT_BYTES_MAX)? else { return Ok(None) };
        match ClientRecord::decode(&bytes) {
            Ok((replica, key, record)) if replica == self.id() && key.hash() == hash => {
                Ok(Some((key, record)))
            }
            Ok(_) => Err(Error::damaged(path, Damage::Misplaced)),
            Err(damage) => Err(Error::damaged(path, damage)),
        }
    }
}
