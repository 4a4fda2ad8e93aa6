//! What was worked out about a version and can be worked out again, kept beside it: bytes that this crate does
//! not look into (a parent map: for each page, the page of the b-tree that refers to it). It can be removed at
//! any time, and goes with its version.
//!
//! ```text
//! check 16, magic "sqlrsync parent." 16, format version u8, replica 16, version u64, root 32, data
//! ```

use bytes::Bytes;
use sqlrsync_protocol::hash::Root;
use sqlrsync_protocol::page::VersionNumber;

use crate::error::{Damage, Error};
use crate::id::{Name, ReplicaId};
use crate::manifest::Manifest;
use crate::replica::Replica;
use crate::sealed::{CHECK_LEN, Fields, seal, unseal};

const MAGIC: &[u8; 16] = b"sqlrsync parent.";
const FORMAT_VERSION: u8 = 1;

/// The length of what stands before the data.
const HEAD_LEN: usize = CHECK_LEN + 16 + 1 + 16 + 8 + Root::LEN;

/// The most bytes that are kept beside a version.
pub const PARENTS_BYTES_MAX: usize = 64 << 20;

pub(crate) fn encode(replica: ReplicaId, number: VersionNumber, root: Root, data: &[u8]) -> Bytes {
    let mut bytes = Vec::with_capacity(HEAD_LEN + data.len());
    bytes.resize(CHECK_LEN, 0);
    bytes.extend(MAGIC);
    bytes.push(FORMAT_VERSION);
    bytes.extend(replica.to_bytes());
    bytes.extend(number.get().to_be_bytes());
    bytes.extend(root.0);
    bytes.extend(data);
    seal(bytes).0.into()
}

/// Reads what [`encode`] wrote; gives the root and the data.
pub(crate) fn decode(
    replica: ReplicaId,
    number: VersionNumber,
    bytes: &Bytes,
) -> Result<(Root, Bytes), Damage> {
    let (_, content) = unseal(bytes)?;
    let mut fields = Fields::new(content);
    if fields.array()? != *MAGIC || fields.u8()? != FORMAT_VERSION {
        return Err(Damage::Format);
    }
    let named = (fields.array()?, fields.u64()?);
    let root = Root(fields.array()?);
    if named != (replica.to_bytes(), number.get()) {
        return Err(Damage::Misplaced);
    }
    Ok((root, bytes.slice(HEAD_LEN..)))
}

impl Replica {
    /// What is kept beside a version; `None` where there is nothing, or it is damaged.
    pub fn parents(&self, version: &Manifest) -> Result<Option<Bytes>, Error> {
        if version.is_candidate() {
            return Ok(None);
        }
        match self.read_parents(version.number) {
            Ok(found) => Ok(found.filter(|(root, _)| *root == version.root).map(|(_, data)| data)),
            Err(error) if error.is_damage() => {
                tracing::warn!(%error, "what is kept beside a version is made again");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Keeps something beside a version. More than [`PARENTS_BYTES_MAX`] is not kept: false.
    pub fn put_parents(&self, version: &Manifest, data: &[u8]) -> Result<bool, Error> {
        if version.is_candidate() || data.len() > PARENTS_BYTES_MAX {
            return Ok(false);
        }
        let path = Name::Parents(version.number).path(self.id());
        let bytes = encode(self.id(), version.number, version.root, data);
        self.shared().store.put(&path, bytes).map(|()| true)
    }

    /// Removes what is kept beside a version.
    pub fn remove_parents(&self, number: VersionNumber) -> Result<(), Error> {
        self.shared().store.delete(&Name::Parents(number).path(self.id()))
    }

    pub(crate) fn read_parents(&self, number: VersionNumber) -> Result<Option<(Root, Bytes)>, Error> {
        let path = Name::Parents(number).path(self.id());
        let bytes_max = (HEAD_LEN + PARENTS_BYTES_MAX) as u64;
        let Some(bytes) = self.shared().store.get(&path, bytes_max)? else { return Ok(None) };
        decode(self.id(), number, &bytes).map(Some).map_err(|damage| Error::damaged(path, damage))
    }

    /// The versions that something is kept beside, sorted.
    pub fn with_parents(&self) -> Result<Vec<VersionNumber>, Error> {
        let any = Name::Parents(VersionNumber::FIRST).path(self.id());
        let folder: object_store::path::Path = any.parts().take(3).collect();
        let mut numbers: Vec<VersionNumber> = Vec::new();
        for listed in self.shared().store.list(&folder)? {
            if let Some((_, Name::Parents(number))) = Name::parse(&listed.path) {
                numbers.push(number);
            }
        }
        numbers.sort_unstable();
        Ok(numbers)
    }
}
