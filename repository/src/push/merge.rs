//! The commit of a merge: what was written over a stored content becomes the version after the latest.
//!
//! It is written as a push is: blocks and nodes of what changed, then the manifest, created if no object of
//! its name exists. The manifest names the candidate, and that is how a merge is known to be done: there is
//! no other mark that could be missing.

use jiff::Timestamp;
use sqlrsync_protocol::block::{BlockBuilder, Effort};
use sqlrsync_protocol::canonical::HeaderFields;
use sqlrsync_protocol::content::ContentError;
use sqlrsync_protocol::exchange::PushId;
use sqlrsync_protocol::hash::PageHash;
use sqlrsync_protocol::page::{Geometry, PageNumber};

use super::collector::Collector;
use super::commit::{create_as, first_hash20, inherit, make, random};
use super::permission::Permission;
use crate::candidate::Candidate;
use crate::conflict::Conflict;
use crate::error::Error;
use crate::manifest::{EndOfConflict, MESSAGE_BYTES_MAX, Manifest, MergeOf, TEXT_BYTES_MAX};
use crate::replica::{Replica, bounded};
use crate::standing::Standing;

/// Pages that were written, ascending, each in its canonical form.
pub type MergedPages<'p> = dyn Iterator<Item = Result<(PageNumber, Vec<u8>), ContentError>> + 'p;

/// Who made a version, and what they say about it. Each text has 4,096 bytes at most.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Described {
    /// The key's name.
    pub author: String,
    /// What is said about the version.
    pub message: String,
    /// The client's id.
    pub client_id: String,
    /// The host it comes from.
    pub host: String,
    /// The path of the file there.
    pub local_path: String,
    /// The id of the push that the version ends, where there is one.
    pub push_id: Option<PushId>,
}

impl Described {
    /// As the push says that a candidate came from.
    pub fn of(candidate: &Candidate) -> Described {
        Described::of_version(&candidate.content)
    }

    /// As a version says that it was made.
    pub fn of_version(version: &Manifest) -> Described {
        let Manifest { author, message, client_id, host, local_path, push_id, .. } = version;
        Described {
            author: author.clone(),
            message: message.clone(),
            client_id: client_id.clone(),
            host: host.clone(),
            local_path: local_path.clone(),
            push_id: *push_id,
        }
    }

    pub(crate) fn bounded(&self) -> Result<(), Error> {
        bounded("the message", &self.message, MESSAGE_BYTES_MAX)?;
        for (what, text) in [
            ("the author", &self.author),
            ("the client id", &self.client_id),
            ("the host", &self.host),
            ("the local path", &self.local_path),
        ] {
            bounded(what, text, TEXT_BYTES_MAX)?;
        }
        Ok(())
    }
}

/// A merge that is to become a version.
#[derive(Clone, Debug)]
pub struct MergePages<'m> {
    /// The latest version that it was made on; the merge is the one after it.
    pub after: &'m Manifest,
    /// The candidate whose changes it has.
    pub candidate: &'m Candidate,
    /// What was written over: the latest version's content or the candidate's.
    pub on: &'m Manifest,
    /// Page size and page count of the result.
    pub geometry: Geometry,
    /// What canonical page 1 leaves out.
    pub fields: HeaderFields,
    /// The conflict that it ends, as it was read before.
    pub ends: Option<&'m Conflict>,
    /// Whether somebody settled that conflict, as opposed to one that went away by itself.
    pub settled: bool,
    /// Who makes it.
    pub described: Described,
    /// Whether it may still be made.
    pub permission: Permission,
}

impl Replica {
    /// Commits a merge: the version that has the candidate's changes. `None` where somebody else's version was
    /// first: it has to be merged again, with that one. Where another process merged the same candidate, its
    /// version is the answer. A version is made even where its content is the latest one's: that it is there
    /// says that the candidate's changes are in.
    ///
    /// # Errors
    /// [`Error::InConflict`] and [`Error::ConflictIsOver`] where another process came to another outcome,
    /// [`Error::Withdrawn`] where the right to make it ended.
    pub fn commit_merge(
        &self,
        merge: &MergePages<'_>,
        pages: &mut MergedPages<'_>,
    ) -> Result<Option<Manifest>, Error> {
        merge.described.bounded()?;
        if let Some(version) = self.merged_before(merge)? {
            return Ok(Some(version));
        }
        let mut collector = Collector::new(self, merge.geometry.page_size, None, false);
        for segment in &merge.on.segments {
            collector.pin(segment.id);
        }
        let mut referred = false;
        let outcome = self.write_merge(merge, pages, &mut collector, &mut referred);
        // After an error the manifest may be there all the same.
        if !referred || matches!(outcome, Ok(None)) {
            collector.keep_for_later(true);
        }
        outcome
    }

    /// What another process, or this one before it was stopped, made of the same candidate. Versions come one
    /// after the other: looked at up to `after`, nothing can come between this and the commit.
    fn merged_before(&self, merge: &MergePages<'_>) -> Result<Option<Manifest>, Error> {
        let ends = merge.ends.map(|conflict| conflict.number);
        match (self.standing(merge.candidate)?, ends) {
            (Standing::Merged(version), None) => return self.version(version).map(Some),
            (Standing::Merged(version), Some(conflict)) | (Standing::Settled(conflict, version), _) => {
                return Err(Error::ConflictIsOver { conflict, version });
            }
            (Standing::InConflict(conflict), ends) if ends != Some(conflict) => {
                return Err(Error::InConflict(conflict));
            }
            (Standing::InConflict(_) | Standing::Kept, _) => {}
        }
        let Some(conflict) = merge.ends else { return Ok(None) };
        match self.ended_by(conflict)? {
            Some(version) => {
                Err(Error::ConflictIsOver { conflict: conflict.number, version: version.number })
            }
            None => Ok(None),
        }
    }

    fn write_merge(
        &self,
        merge: &MergePages<'_>,
        pages: &mut MergedPages<'_>,
        collector: &mut Collector,
        referred: &mut bool,
    ) -> Result<Option<Manifest>, Error> {
        let MergePages { on, geometry, fields, .. } = *merge;
        let next = merge.after.number.next();
        let number = next.ok_or(Error::OutOfOrder("the last version number"))?;
        if on.geometry.page_size != geometry.page_size {
            return Err(Error::OutOfOrder("a merge in another page size"));
        }
        let first = collect(geometry, pages, collector)?;
        let made = make(self, Some(on), geometry, collector)?;
        let first_hash20 = first_hash20(self, Some(on), first, geometry, fields)?;
        let mut segments = collector.complete()?.to_vec();
        let bytes_stored = segments.iter().map(|segment| segment.bytes).sum();
        inherit(&mut segments, Some(on))?;
        let described = merge.described.clone();
        let manifest = Manifest {
            number,
            candidate: None,
            merge: Some(MergeOf {
                candidate: merge.candidate.id,
                ends: merge.ends.map(|conflict| EndOfConflict {
                    conflict: conflict.number,
                    candidate: conflict.overlap.candidate,
                    settled: merge.settled,
                }),
            }),
            parents: vec![merge.after.root, merge.candidate.content.root],
            base: Some(merge.after.as_base()),
            geometry,
            root: made.root,
            fields,
            message: described.message,
            author: described.author,
            client_id: described.client_id,
            host: described.host,
            local_path: described.local_path,
            time: Timestamp::now(),
            push_id: described.push_id,
            pages_changed: made.pages_changed,
            bytes_stored,
            replica: self.id(),
            nonce: random()?,
            segments,
            top: made.top,
            first_hash20,
        };
        merge.permission.ask()?;
        self.before_late_merge(merge.candidate, number)?;
        *referred = true;
        if create_as(self, &manifest)? { Ok(Some(manifest)) } else { Ok(None) }
    }
}

/// Puts pages into blocks. Page 1 is given back, if it was among them.
fn collect(
    geometry: Geometry,
    pages: &mut MergedPages<'_>,
    collector: &mut Collector,
) -> Result<Option<Vec<u8>>, Error> {
    let size = geometry.page_size;
    let mut builder = BlockBuilder::new(size);
    let mut hashes: Vec<PageHash> = Vec::new();
    let (mut first, mut last) = (None, None);
    for page in pages {
        let (number, bytes) = page.map_err(Error::Pages)?;
        let behind = last.is_some_and(|last| number <= last);
        if behind || !geometry.page_count.contains(number) || bytes.len() != size.bytes() {
            return Err(Error::OutOfOrder("a page of a merge"));
        }
        last = Some(number);
        if number == size.lock_page() {
            continue;
        }
        if number == PageNumber::FIRST && HeaderFields::of(&bytes) != HeaderFields::default() {
            return Err(Error::OutOfOrder("page 1 of a merge"));
        }
        if builder.is_full() {
            flush(&mut builder, &mut hashes, collector)?;
        }
        builder.push(number, &bytes);
        hashes.push(PageHash::of(&bytes));
        if number == PageNumber::FIRST {
            first = Some(bytes);
        }
    }
    flush(&mut builder, &mut hashes, collector)?;
    Ok(first)
}

/// Gives what was collected to the push as a block.
pub(super) fn flush(
    builder: &mut BlockBuilder,
    hashes: &mut Vec<PageHash>,
    collector: &mut Collector,
) -> Result<(), Error> {
    if let Some(block) = builder.finish(Effort::Fast) {
        collector.take(&block, hashes, &[])?;
        hashes.clear();
    }
    Ok(())
}
