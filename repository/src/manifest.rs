//! A manifest: the object that is a version. Created once, after all that it refers to is durable,
//! and never changed. A candidate (`candidate.rs`) has one inside, which says the same of a content that is
//! no version.

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sqlrsync_protocol::canonical::HeaderFields;
use sqlrsync_protocol::exchange::{Base, PushId};
use sqlrsync_protocol::hash::{PageHash, Root};
use sqlrsync_protocol::page::{ConflictNumber, Geometry, PageCount, PageSize, VersionNumber};
use sqlrsync_protocol::sponge::Hash20;

use crate::envelope;
use crate::error::{Damage, Error};
use crate::id::{ReplicaId, SegmentId, hex16};
use crate::segment::Written;
use crate::segment::node::StoredEntry;

/// The most bytes of a manifest.
pub const MANIFEST_BYTES_MAX: u64 = 2 << 20;

/// The most segments that a push may write or take over.
pub(crate) const SEGMENTS_MAX: usize = 8192;

/// The most bytes of a version's message.
pub const MESSAGE_BYTES_MAX: usize = 4096;

/// The most bytes of any other text of a version.
pub const TEXT_BYTES_MAX: usize = 4096;

const PARENTS_MAX: usize = 16;

/// A version: what it is, where its pages are, and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Its number within the replica. Of a candidate, the number that it would have had.
    pub number: VersionNumber,
    /// Set where this is no version but a candidate: its id.
    pub candidate: Option<PushId>,
    /// Set where the version holds the changes of a candidate and of the version before it.
    pub merge: Option<MergeOf>,
    /// The contents that it was made from: the base that it was a difference to. Of a merge, the version
    /// before it and the candidate.
    pub parents: Vec<Root>,
    /// The base as the pusher named it; `None` where it sent everything.
    pub base: Option<Base>,
    /// Page size and page count.
    pub geometry: Geometry,
    /// What the content hashes to.
    pub root: Root,
    /// What canonical page 1 leaves out.
    pub fields: HeaderFields,
    /// What the pusher said about it.
    pub message: String,
    /// Who pushed: the key's name.
    pub author: String,
    /// The client's id.
    pub client_id: String,
    /// The host it was pushed from.
    pub host: String,
    /// The path it was pushed from.
    pub local_path: String,
    /// When it was committed, by the clock of who committed it.
    pub time: Timestamp,
    /// The id that the pusher chose for the push.
    pub push_id: Option<PushId>,
    /// How many pages the push brought.
    pub pages_changed: u64,
    /// How many bytes the push added to the repository, this object aside.
    pub bytes_stored: u64,
    pub(crate) replica: ReplicaId,
    /// Chosen at random, so that whoever committed it recognises it.
    pub(crate) nonce: [u8; 16],
    /// The segments that this push brought. What older versions brought stands in theirs.
    pub(crate) segments: Vec<Written>,
    pub(crate) top: StoredEntry,
    /// The 20-byte hash of page 1 with its header fields; `None` where there is no page.
    pub(crate) first_hash20: Option<Hash20>,
}

/// What a merge merged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MergeOf {
    /// The candidate whose changes the version has.
    pub candidate: PushId,
    /// The conflict that the version ended.
    pub ends: Option<EndOfConflict>,
}

/// The conflict that a version ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EndOfConflict {
    /// Its number.
    pub conflict: ConflictNumber,
    /// The candidate that was in it at the time. One that came into it later has changes that the version
    /// does not have, and the conflict is then not over.
    pub candidate: PushId,
    /// Whether somebody settled it, as opposed to one that went away by itself.
    pub settled: bool,
}

/// The JSON form. Hashes and ids are hexadecimal.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Stored {
    replica: String,
    number: u64,
    time: Timestamp,
    author: String,
    message: String,
    client_id: String,
    host: String,
    local_path: String,
    page_size: u32,
    page_count: u32,
    root: String,
    fields: String,
    parents: Vec<String>,
    base: Option<StoredBase>,
    push_id: Option<String>,
    nonce: String,
    pages_changed: u64,
    bytes_stored: u64,
    top: StoredTop,
    segments: Vec<StoredSegment>,
    first_hash20: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    merge: Option<StoredMerge>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredMerge {
    candidate: String,
    ends: Option<StoredEnd>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredEnd {
    conflict: u64,
    candidate: String,
    settled: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredBase {
    version: Option<u64>,
    root: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredTop {
    segment: String,
    hash: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredSegment {
    id: String,
    bytes: u64,
    check: String,
}

impl Manifest {
    pub(crate) fn encode(&self) -> Result<Bytes, Error> {
        // Only strings, numbers and lists: serialising them cannot fail.
        envelope::encode("manifest", &Stored::of(self)).map_err(|_| Error::OutOfOrder("manifest"))
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Manifest, Damage> {
        if bytes.len() as u64 > MANIFEST_BYTES_MAX {
            return Err(Damage::TooLarge);
        }
        envelope::decode::<Stored>("manifest", bytes)?.parse().ok_or(Damage::Structure)
    }

    /// Version and root; of a candidate, the root alone.
    pub fn as_base(&self) -> Base {
        let version = Some(self.number).filter(|_| !self.is_candidate());
        Base { version, root: self.root }
    }

    /// How many segments its push wrote or took over. What older versions have is not among them.
    pub fn segment_count(&self) -> usize {
        self.segments.len()
    }

    /// Whether it is a candidate, and so no version.
    pub fn is_candidate(&self) -> bool {
        self.candidate.is_some()
    }

    /// The newest version that is certainly older than all that is made from this.
    pub(crate) fn comes_after(&self) -> Option<VersionNumber> {
        if self.is_candidate() { self.number.back(1) } else { Some(self.number) }
    }
}

impl Stored {
    pub(crate) fn of(manifest: &Manifest) -> Stored {
        Stored {
            replica: manifest.replica.to_string(),
            number: manifest.number.get(),
            time: manifest.time,
            author: manifest.author.clone(),
            message: manifest.message.clone(),
            client_id: manifest.client_id.clone(),
            host: manifest.host.clone(),
            local_path: manifest.local_path.clone(),
            page_size: manifest.geometry.page_size.bytes() as u32,
            page_count: manifest.geometry.page_count.get(),
            root: manifest.root.to_string(),
            fields: hex(&manifest.fields.to_bytes()),
            parents: manifest.parents.iter().map(Root::to_string).collect(),
            base: manifest.base.map(|base| StoredBase {
                version: base.version.map(VersionNumber::get),
                root: base.root.to_string(),
            }),
            push_id: manifest.push_id.map(|id| hex(&id.0)),
            nonce: hex(&manifest.nonce),
            pages_changed: manifest.pages_changed,
            bytes_stored: manifest.bytes_stored,
            top: StoredTop { segment: manifest.top.segment.to_string(), hash: manifest.top.hash.to_string() },
            segments: manifest.segments.iter().map(StoredSegment::of).collect(),
            first_hash20: manifest.first_hash20.map(|hash| hash.to_string()),
            merge: manifest.merge.as_ref().map(StoredMerge::of),
        }
    }

    pub(crate) fn parse(self) -> Option<Manifest> {
        if self.segments.len() > SEGMENTS_MAX || self.parents.len() > PARENTS_MAX {
            return None;
        }
        let hash: PageHash = self.top.hash.parse().ok()?;
        let geometry = Geometry {
            page_size: PageSize::from_bytes(self.page_size)?,
            page_count: PageCount(self.page_count),
        };
        let root = self.root.parse().ok()?;
        // A manifest that contradicts itself is none.
        if Root::of(geometry, hash) != root {
            return None;
        }
        if self.first_hash20.is_some() != (self.page_count > 0) {
            return None;
        }
        let base = match self.base {
            None => None,
            Some(base) => Some(Base {
                version: match base.version {
                    None => None,
                    Some(number) => Some(VersionNumber::new(number)?),
                },
                root: base.root.parse().ok()?,
            }),
        };
        let mut fields = [0; HeaderFields::LEN];
        from_hex(&self.fields, &mut fields)?;
        Some(Manifest {
            replica: self.replica.parse().ok()?,
            number: VersionNumber::new(self.number)?,
            candidate: None,
            merge: match self.merge {
                None => None,
                Some(merge) => Some(merge.parse()?),
            },
            time: self.time,
            author: self.author,
            message: self.message,
            client_id: self.client_id,
            host: self.host,
            local_path: self.local_path,
            geometry,
            root,
            fields: HeaderFields::from_bytes(fields),
            parents: self.parents.iter().map(|root| root.parse().ok()).collect::<Option<_>>()?,
            base,
            push_id: optional(self.push_id, |id| hex16(id).map(PushId))?,
            nonce: hex16(&self.nonce)?,
            pages_changed: self.pages_changed,
            bytes_stored: self.bytes_stored,
            top: StoredEntry { hash, segment: self.top.segment.parse().ok()? },
            segments: self.segments.iter().map(StoredSegment::parse).collect::<Option<_>>()?,
            first_hash20: optional(self.first_hash20, |hash| hash.parse().ok())?,
        })
    }
}

impl StoredMerge {
    fn of(merge: &MergeOf) -> StoredMerge {
        let ends = merge.ends.map(|ends| StoredEnd {
            conflict: ends.conflict.get(),
            candidate: hex(&ends.candidate.0),
            settled: ends.settled,
        });
        StoredMerge { candidate: hex(&merge.candidate.0), ends }
    }

    fn parse(self) -> Option<MergeOf> {
        let ends = match self.ends {
            None => None,
            Some(ends) => Some(EndOfConflict {
                conflict: ConflictNumber::new(ends.conflict)?,
                candidate: PushId(hex16(&ends.candidate)?),
                settled: ends.settled,
            }),
        };
        Some(MergeOf { candidate: PushId(hex16(&self.candidate)?), ends })
    }
}

impl StoredSegment {
    fn of(written: &Written) -> StoredSegment {
        StoredSegment { id: written.id.to_string(), bytes: written.bytes, check: hex(&written.check) }
    }

    fn parse(&self) -> Option<Written> {
        let id: SegmentId = self.id.parse().ok()?;
        Some(Written { id, bytes: self.bytes, check: hex16(&self.check)? })
    }
}

/// `None` where a value is there and is none; `Some(None)` where there is no value.
fn optional<T>(text: Option<String>, parse: impl FnOnce(&str) -> Option<T>) -> Option<Option<T>> {
    match text {
        None => Some(None),
        Some(text) => parse(&text).map(Some),
    }
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The reverse of [`hex`], of exactly this length.
pub(crate) fn from_hex(text: &str, out: &mut [u8]) -> Option<()> {
    let digits = text.as_bytes();
    if digits.len() != out.len() * 2 || !digits.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    for (at, byte) in out.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(())
}
