//! A replica: the versions of one database, numbered from 1 without gaps.
//!
//! Numbers have no gaps and are never free again: a version that is missing below another one is damage, and
//! nothing is read from such a replica or committed to it (`numbers.rs`).

use std::cmp::Ordering;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sqlrsync_protocol::exchange::Base;
use sqlrsync_protocol::hash::Root;
use sqlrsync_protocol::page::VersionNumber;

use crate::envelope;
use crate::error::{Damage, Error};
use crate::id::{Name, ReplicaId};
use crate::manifest::{MANIFEST_BYTES_MAX, Manifest, TEXT_BYTES_MAX};
use crate::numbers::Row;
use crate::origin::VersionOrigin;
use crate::push::{PushOptions, PushReplica};
use crate::repository::Shared;
use crate::segment::Segments;
use crate::tree::StoredTree;

/// How many versions are searched for one that is known by its root or push id only.
pub const VERSIONS_SEARCHED_MAX: usize = 256;

/// The most bytes of an `about` object.
const ABOUT_BYTES_MAX: u64 = 16 << 10;

/// A handle on a replica. Cloning is cheap; all clones share what is cached.
#[derive(Clone, Debug)]
pub struct Replica {
    shared: Arc<Shared>,
    id: ReplicaId,
}

/// What a replica is called: kept in the repository, so that losing the catalog loses no version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// The namespace it belongs to.
    pub namespace: String,
    /// Its path within the namespace.
    pub path: String,
    /// When it was made.
    pub created: Timestamp,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredAbout {
    replica: String,
    namespace: String,
    path: String,
    created: Timestamp,
}

impl Replica {
    pub(crate) fn new(shared: Arc<Shared>, id: ReplicaId) -> Replica {
        Replica { shared, id }
    }

    /// Its id.
    pub fn id(&self) -> ReplicaId {
        self.id
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// What it is called; `None` where nobody said.
    pub fn about(&self) -> Result<Option<About>, Error> {
        let path = Name::About.path(self.id);
        let Some(bytes) = self.shared.store.get(&path, ABOUT_BYTES_MAX)? else { return Ok(None) };
        About::decode(self.id, &bytes).map(Some).map_err(|damage| Error::damaged(path, damage))
    }

    /// Says what it is called, in place of what was said before.
    pub fn set_about(&self, about: &About) -> Result<(), Error> {
        for (what, text) in [("namespace", &about.namespace), ("path", &about.path)] {
            bounded(what, text, TEXT_BYTES_MAX)?;
        }
        let stored = StoredAbout {
            replica: self.id.to_string(),
            namespace: about.namespace.clone(),
            path: about.path.clone(),
            created: about.created,
        };
        let bytes = envelope::encode("about", &stored).map_err(|_| Error::OutOfOrder("about"))?;
        self.shared.store.put(&Name::About.path(self.id), bytes)
    }

    /// The newest version; `None` where none was committed yet.
    pub fn latest(&self) -> Result<Option<Manifest>, Error> {
        let Some(number) = self.latest_number()? else { return Ok(None) };
        match self.manifest(number)? {
            Some(manifest) => Ok(Some(manifest)),
            None => Err(Error::damaged(Name::Manifest(number).path(self.id), Damage::Missing)),
        }
    }

    /// The newest version's number.
    pub(crate) fn latest_number(&self) -> Result<Option<VersionNumber>, Error> {
        Ok(VersionNumber::new(self.last_number(Row::Versions)?))
    }

    /// A version; `None` where there is none of that number yet.
    pub fn manifest(&self, number: VersionNumber) -> Result<Option<Manifest>, Error> {
        let key = (self.id, number);
        if let Some(found) = self.shared.manifests.get(&key) {
            return Ok(Some(Manifest::clone(&found)));
        }
        let Some(manifest) = self.read_or_missing(number)? else { return Ok(None) };
        let bytes = size_of::<Manifest>() + manifest.message.len() + 96 * manifest.segments.len();
        self.shared.manifests.put(key, Arc::new(manifest.clone()), bytes);
        Ok(Some(manifest))
    }

    /// A version that is there, since later ones are.
    pub(crate) fn version(&self, number: VersionNumber) -> Result<Manifest, Error> {
        let missing = || Error::damaged(Name::Manifest(number).path(self.id), Damage::Gap);
        self.manifest(number)?.ok_or_else(missing)
    }

    /// A version that is not there is damage where later ones are.
    fn read_or_missing(&self, number: VersionNumber) -> Result<Option<Manifest>, Error> {
        if let Some(found) = self.read_manifest(number)? {
            return Ok(Some(found));
        }
        let damage = match self.latest_number()?.map(|latest| number.cmp(&latest)) {
            None | Some(Ordering::Greater) => return Ok(None),
            Some(Ordering::Equal) => Damage::Missing,
            Some(Ordering::Less) => Damage::Gap,
        };
        // It may have come meanwhile.
        let missing = || Error::damaged(Name::Manifest(number).path(self.id), damage);
        self.read_manifest(number)?.ok_or_else(missing).map(Some)
    }

    /// As [`Replica::manifest`], reading it anew.
    pub(crate) fn read_manifest(&self, number: VersionNumber) -> Result<Option<Manifest>, Error> {
        let path = Name::Manifest(number).path(self.id);
        let Some(bytes) = self.shared.store.get(&path, MANIFEST_BYTES_MAX)? else { return Ok(None) };
        let manifest = Manifest::decode(&bytes).map_err(|damage| Error::damaged(path.as_ref(), damage))?;
        if manifest.number != number || manifest.replica != self.id {
            return Err(Error::damaged(path, Damage::Misplaced));
        }
        Ok(Some(manifest))
    }

    /// At most `limit` versions below `before`, or from the latest on, newest first.
    pub fn history(&self, before: Option<VersionNumber>, limit: usize) -> Result<Vec<Manifest>, Error> {
        let latest = self.latest_number()?;
        let mut number = match before {
            Some(before) => before.back(1).min(latest),
            None => latest,
        };
        let mut found = Vec::new();
        while let Some(at) = number
            && found.len() < limit
        {
            found.push(self.version(at)?);
            number = at.back(1);
        }
        Ok(found)
    }

    /// The newest of the latest versions, down to `after` (not included), that fits.
    pub(crate) fn search(
        &self,
        after: Option<VersionNumber>,
        mut fits: impl FnMut(&Manifest) -> bool,
    ) -> Result<Option<Manifest>, Error> {
        let mut number = self.latest_number()?;
        for _ in 0..VERSIONS_SEARCHED_MAX {
            let Some(at) = number.filter(|at| after.is_none_or(|after| *at > after)) else { break };
            let manifest = self.version(at)?;
            if fits(&manifest) {
                return Ok(Some(manifest));
            }
            number = at.back(1);
        }
        Ok(None)
    }

    /// The content that a base names: the version of its number, if its root is the one named; without a
    /// number, the candidate of that root, or else the newest version. What a client names without a number is
    /// what it sent and what did not become a version of itself: a candidate, found at once.
    pub fn find_base(&self, base: &Base) -> Result<Option<Manifest>, Error> {
        let Some(number) = base.version else {
            return match self.candidate_by_root(base.root)? {
                Some(candidate) => Ok(Some(candidate.content)),
                None => self.find_root(base.root),
            };
        };
        Ok(self.manifest(number)?.filter(|found| found.root == base.root))
    }

    pub(crate) fn find_root(&self, root: Root) -> Result<Option<Manifest>, Error> {
        self.search(None, |manifest| manifest.root == root)
    }

    /// A version as something that has pages.
    pub fn origin(&self, version: &Manifest) -> Result<VersionOrigin, Error> {
        self.not_expired(version)?;
        VersionOrigin::new(self.clone(), version.clone())
    }

    /// Whether a version's pages may be gone. A candidate's are there as long as it is.
    pub(crate) fn is_expired(&self, version: &Manifest) -> Result<bool, Error> {
        match version.candidate {
            None => self.shared.store.exists(&Name::Expired(version.number).path(self.id)),
            Some(_) => Ok(false),
        }
    }

    pub(crate) fn not_expired(&self, version: &Manifest) -> Result<(), Error> {
        if self.is_expired(version)? { Err(Error::Expired(version.number)) } else { Ok(()) }
    }

    /// Something that takes the pages of a push and commits them as the next version.
    pub fn push(&self, options: PushOptions) -> Result<PushReplica, Error> {
        PushReplica::new(self.clone(), options)
    }

    /// The name of a version's object, or of a candidate's.
    pub(crate) fn manifest_object(&self, version: &Manifest) -> String {
        let name = match version.candidate {
            None => Name::Manifest(version.number),
            Some(id) => Name::Candidate(id.0),
        };
        name.path(self.id).to_string()
    }

    pub(crate) fn segments(&self) -> Segments {
        Segments::new(self.shared.store.clone(), self.id, self.shared.indexes.clone())
    }

    pub(crate) fn tree(&self, version: &Manifest) -> StoredTree {
        let nodes = self.shared.nodes.clone();
        StoredTree::new(self.segments(), nodes, version.geometry, version.top)
    }
}

impl About {
    pub(crate) fn decode(id: ReplicaId, bytes: &[u8]) -> Result<About, Damage> {
        let stored: StoredAbout = envelope::decode("about", bytes)?;
        if stored.replica != id.to_string() {
            return Err(Damage::Misplaced);
        }
        Ok(About { namespace: stored.namespace, path: stored.path, created: stored.created })
    }
}

/// A text that fits its maximum.
pub(crate) fn bounded(what: &'static str, text: &str, bytes_max: usize) -> Result<(), Error> {
    if text.len() > bytes_max { Err(Error::TextTooLong { what, bytes_max }) } else { Ok(()) }
}
