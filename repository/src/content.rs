//! A stored content as something to look into, and what two of them do not have in common. Both take
//! versions and candidates alike.

use roaring::RoaringBitmap;
use sqlrsync_protocol::canonical::HeaderFields;
use sqlrsync_protocol::content::{ChangedPages, Content, ContentError};
use sqlrsync_protocol::page::{Geometry, PageCount, PageNumber};
use sqlrsync_protocol::tree::{DiffError, TreeDiff};

use crate::error::Error;
use crate::manifest::Manifest;
use crate::pages::PageReader;
use crate::replica::Replica;
use crate::tree::StoredTree;

/// A stored content, read page by page. Every page is verified before it is given out; blocks stay decoded
/// for a while, since who looks into a database goes from a page to its neighbours and back.
#[derive(Debug)]
pub struct VersionContent {
    geometry: Geometry,
    fields: HeaderFields,
    pages: PageReader,
    page: Vec<u8>,
}

impl Content for VersionContent {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn fields(&self) -> HeaderFields {
        self.fields
    }

    fn read(&mut self, page: PageNumber, into: &mut [u8]) -> Result<(), ContentError> {
        if !self.geometry.page_count.contains(page) || into.len() != self.geometry.page_size.bytes() {
            return Err(Box::new(Error::OutOfOrder("read of a page")));
        }
        self.page.clear();
        self.pages.append(page, &mut self.page).map_err(|error| Box::new(error) as ContentError)?;
        into.copy_from_slice(&self.page);
        Ok(())
    }
}

impl Replica {
    /// A version or a candidate as a database to look into.
    ///
    /// # Errors
    /// [`Error::Expired`] where the pages may be gone.
    pub fn content(&self, of: &Manifest) -> Result<VersionContent, Error> {
        self.not_expired(of)?;
        let mut tree = self.tree(of);
        tree.prove_top()?;
        let (geometry, fields) = (of.geometry, of.fields);
        Ok(VersionContent { geometry, fields, pages: PageReader::new(tree), page: Vec::new() })
    }

    /// The pages that two contents do not have in common: those that differ, and those that one of the two
    /// does not have. It reads what differs of the page trees, and no page.
    pub fn changed_pages(&self, old: &Manifest, new: &Manifest) -> Result<ChangedPages, Error> {
        if old.geometry.page_size != new.geometry.page_size {
            return Ok(ChangedPages::Unknown);
        }
        if old.root == new.root {
            return Ok(ChangedPages::Known(RoaringBitmap::new()));
        }
        self.not_expired(old)?;
        self.not_expired(new)?;
        let mut changed = changed(&mut self.tree(old), &mut self.tree(new))?;
        changed |= pages_after(new.geometry.page_count, old.geometry.page_count);
        Ok(ChangedPages::Known(changed))
    }
}

/// The pages of `new` that `old` has otherwise or does not have.
pub(crate) fn changed(old: &mut StoredTree, new: &mut StoredTree) -> Result<RoaringBitmap, Error> {
    let mut diff = TreeDiff::new(old, new);
    let mut changed = RoaringBitmap::new();
    loop {
        match diff.next_page() {
            Ok(Some((page, _))) => changed.insert(page.get()),
            Ok(None) => return Ok(changed),
            Err(DiffError::Old(error) | DiffError::New(error)) => return Err(error),
        };
    }
}

/// The pages behind the first `held`, up to `count`.
pub(crate) fn pages_after(held: PageCount, count: PageCount) -> RoaringBitmap {
    let mut pages = RoaringBitmap::new();
    if held < count {
        pages.insert_range(held.get() + 1..=count.get());
    }
    pages
}
