//! Hash rounds of the older protocol, answered for a stored version without reading its pages.

use std::sync::Arc;

use sqlrsync_protocol::page::{PageNumber, PageSize};
use sqlrsync_protocol::sponge::{Hash20, Sponge20, group_hash, hash20};

use crate::error::{Damage, Error};
use crate::hashes20::Hashes20;
use crate::id::SegmentId;
use crate::manifest::Manifest;
use crate::replica::Replica;
use crate::tree::StoredTree;

/// Answers for one version.
#[derive(Debug)]
pub(crate) struct Groups20 {
    replica: Replica,
    version: Manifest,
    tree: StoredTree,
    /// The segment of the page before, which mostly is that of the next.
    current: Option<(SegmentId, Arc<Hashes20>)>,
    zeros: Hash20,
}

impl Groups20 {
    pub(crate) fn new(replica: &Replica, version: &Manifest) -> Self {
        Groups20 {
            replica: replica.clone(),
            version: version.clone(),
            tree: replica.tree(version),
            current: None,
            zeros: hash20(&vec![0; version.geometry.page_size.bytes()]),
        }
    }

    /// The hash of one page, or of the hashes of `count` pages. What does not exist adds nothing.
    pub(crate) fn group_hash(&mut self, first: PageNumber, count: u32) -> Result<Hash20, Error> {
        if count == 1 && self.version.geometry.page_count.contains(first) {
            return self.page_hash(first);
        }
        let last = first.get().saturating_add(count.saturating_sub(1));
        let last = last.min(self.version.geometry.page_count.get());
        let mut sponge = Sponge20::new();
        for page in (first.get()..=last).filter_map(PageNumber::new) {
            sponge.update(&self.page_hash(page)?.0);
        }
        Ok(sponge.finish())
    }

    fn page_hash(&mut self, page: PageNumber) -> Result<Hash20, Error> {
        if page == PageNumber::FIRST {
            let damaged = || Error::damaged(self.replica.manifest_object(&self.version), Damage::Structure);
            return self.version.first_hash20.ok_or_else(damaged);
        }
        if page == self.version.geometry.page_size.lock_page() {
            return Ok(self.zeros);
        }
        let id = self.tree.page(page)?.segment;
        let hashes = match &self.current {
            Some((current, hashes)) if *current == id => hashes,
            _ => &self.current.insert((id, self.replica.hashes20(id)?)).1,
        };
        hashes.get(page).ok_or_else(|| {
            let object = crate::id::Name::Hashes20(id).path(self.replica.id());
            Error::damaged(object, Damage::PageMissing(page))
        })
    }
}

/// The answer of a replica with nothing in it, which counts as an empty database of one page.
pub(crate) fn empty_group_hash(size: PageSize, first: PageNumber, count: u32) -> Hash20 {
    let page = hash20(&sqlrsync_protocol::canonical::empty_database(size));
    match (first == PageNumber::FIRST, count) {
        (true, 1) => page,
        (true, _) => group_hash([&page]),
        (false, _) => group_hash([]),
    }
}
