//! The versions' part of a check: manifests, and each version's root proved down to its pages.

use std::collections::{BTreeMap, BTreeSet};

use sqlrsync_protocol::canonical::HeaderFields;
use sqlrsync_protocol::page::{PageCount, PageNumber, VersionNumber};
use sqlrsync_protocol::sponge::hash20;
use sqlrsync_protocol::tree::{FANOUT, NodeId, ReadTree, read_node, top};

use super::{Check, Objects};
use crate::error::{Damage, Error};
use crate::id::{Name, SegmentId};
use crate::manifest::Manifest;
use crate::pages::PageReader;
use crate::replica::Replica;
use crate::segment::Written;
use crate::segment::node::StoredEntry;

/// The segments that manifests and candidates refer to, with the first version that does.
pub(super) type Referenced = BTreeMap<SegmentId, (Written, Option<VersionNumber>)>;

impl Check<'_> {
    /// Checks all versions. Returns the segments that they name, and those whose root is proved.
    pub(super) fn versions(
        &mut self,
        replica: &Replica,
        objects: &Objects,
    ) -> Result<(Referenced, BTreeSet<VersionNumber>), Error> {
        let mut referenced = Referenced::new();
        let mut all_proved = BTreeSet::new();
        let mut before: Option<Manifest> = None;
        let last = objects.manifests.last().copied();
        let mut number = Some(VersionNumber::FIRST);
        while let Some(at) = number.filter(|at| Some(*at) <= last) {
            number = at.next();
            let Some(version) = self.manifest(replica, at)? else {
                before = None;
                continue;
            };
            for segment in &version.segments {
                referenced.entry(segment.id).or_insert((*segment, Some(at)));
            }
            if objects.expired.contains(&at) {
                before = None;
                continue;
            }
            self.report.versions += 1;
            let proved = self.prove(replica, &version, before.as_ref())?;
            if proved {
                self.report.versions_proved += 1;
                all_proved.insert(at);
            }
            before = proved.then_some(version);
            self.at.versions_done += 1;
            self.read(0);
        }
        Ok((referenced, all_proved))
    }

    fn manifest(&mut self, replica: &Replica, at: VersionNumber) -> Result<Option<Manifest>, Error> {
        match replica.read_manifest(at) {
            Ok(Some(manifest)) => Ok(Some(manifest)),
            Ok(None) => {
                let object = Name::Manifest(at).path(replica.id()).to_string();
                self.problem(Some(replica), object, Damage::Gap, Some(at));
                Ok(None)
            }
            Err(error) => self.note(replica, Err(error), Some(at)).map(|_| None),
        }
    }

    /// Proves a version's root, given that `before` is proved. Says whether it is.
    pub(super) fn prove(
        &mut self,
        replica: &Replica,
        version: &Manifest,
        before: Option<&Manifest>,
    ) -> Result<bool, Error> {
        let mut pages = PageReader::new(replica.tree(version));
        let before = before.filter(|before| before.geometry.page_size == version.geometry.page_size);
        let mut walk = Walk {
            number: Some(version.number).filter(|_| !version.is_candidate()),
            replica,
            old: before.map(|before| (before.geometry.page_count, replica.tree(before))),
            page: Vec::new(),
            sound: true,
        };
        let node = top(version.geometry.page_count);
        let old = walk.old_entry(node, None)?;
        walk.node(self, &mut pages, node, version.top, old)?;
        let number = walk.number;
        let first = prove_first(&mut pages, replica, version);
        let first = self.note(replica, first, number)?;
        Ok(walk.sound && first)
    }
}

/// The 20-byte hash of page 1 is what the manifest says.
fn prove_first(pages: &mut PageReader, replica: &Replica, version: &Manifest) -> Result<(), Error> {
    let Some(expected) = version.first_hash20 else { return Ok(()) };
    let mut page = Vec::new();
    pages.append(PageNumber::FIRST, &mut page)?;
    let canonical = HeaderFields::of(&page) == HeaderFields::default();
    version.fields.put(&mut page);
    if canonical && hash20(&page) == expected {
        return Ok(());
    }
    Err(Error::damaged(replica.manifest_object(version), Damage::Structure))
}

/// A walk over what a tree does not share with the one before it.
struct Walk<'r> {
    /// `None` for a candidate.
    number: Option<VersionNumber>,
    replica: &'r Replica,
    old: Option<(PageCount, crate::tree::StoredTree)>,
    page: Vec<u8>,
    sound: bool,
}

impl Walk<'_> {
    /// The old tree's entry for a node: what its parent there holds, or its top.
    fn old_entry(
        &mut self,
        node: NodeId,
        parent: Option<&[StoredEntry]>,
    ) -> Result<Option<StoredEntry>, Error> {
        let Some((count, tree)) = &mut self.old else { return Ok(None) };
        let at = top(*count);
        if node == at {
            return tree.top().map(Some);
        }
        match parent {
            Some(children) => Ok(children.get((node.index % FANOUT) as usize).copied()),
            // Beside or above the old tree.
            None if node.level >= at.level || node.index != 0 => Ok(None),
            // The new tree is lower: its top is a first child somewhere in the old one.
            None => Ok(read_node(tree, node.parent())?.first().copied()),
        }
    }

    fn node(
        &mut self,
        check: &mut Check<'_>,
        pages: &mut PageReader,
        node: NodeId,
        entry: StoredEntry,
        old: Option<StoredEntry>,
    ) -> Result<(), Error> {
        if old == Some(entry) {
            return Ok(());
        }
        let children = match pages.tree.node(node, &entry) {
            Ok(children) => children,
            Err(error) => {
                self.sound &= check.note(self.replica, Err(error), self.number)?;
                return Ok(());
            }
        };
        let old = match (&mut self.old, old) {
            (Some((_, tree)), Some(old)) => Some(tree.node(node, &old)?),
            _ => None,
        };
        for (slot, child) in (0u32..).zip(&children) {
            match (node.child(slot), node.page(slot)) {
                (Some(below), _) => {
                    let old = self.old_entry(below, old.as_deref())?;
                    self.node(check, pages, below, *child, old)?;
                }
                (None, Some(page)) => {
                    let before = old.as_ref().and_then(|old| old.get(slot as usize));
                    if before != Some(child) {
                        self.page(check, pages, page, child)?;
                    }
                }
                (None, None) => {}
            }
        }
        Ok(())
    }

    fn page(
        &mut self,
        check: &mut Check<'_>,
        pages: &mut PageReader,
        page: PageNumber,
        entry: &StoredEntry,
    ) -> Result<(), Error> {
        self.page.clear();
        let outcome = pages.append_entry(page, entry, &mut self.page);
        check.read(self.page.len() as u64);
        self.sound &= check.note(self.replica, outcome, self.number)?;
        Ok(())
    }
}
