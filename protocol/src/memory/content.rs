//! The content of a database. Pages of zeros take no memory, so that one of more than 1 GiB fits.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::canonical::{HeaderFields, make_canonical};
use crate::content::ContentError;
use crate::hash::{PageHash, Root, node_hash};
use crate::page::{Geometry, PageCount, PageNumber, PageSize};
use crate::sponge::{Hash20, Sponge20, hash20};
use crate::tree::{FANOUT, NodeId};

/// A database: its pages, as in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    geometry: Geometry,
    /// Pages that are not zeros.
    pages: BTreeMap<PageNumber, Vec<u8>>,
}

impl Content {
    /// A database of zeros.
    pub fn zeros(geometry: Geometry) -> Content {
        Content { geometry, pages: BTreeMap::new() }
    }

    /// From the bytes of a file, a multiple of the page size.
    pub fn from_file(page_size: PageSize, bytes: &[u8]) -> Content {
        let pages = bytes.chunks_exact(page_size.bytes());
        let page_count = PageCount(pages.len() as u32);
        let mut content = Content::zeros(Geometry { page_size, page_count });
        for (index, page) in (0..).zip(pages) {
            if let Some(number) = PageNumber::from_index(index) {
                content.set(number, page);
            }
        }
        content
    }

    /// Page size and count.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Sets a page; what is past the end is dropped.
    pub fn set(&mut self, number: PageNumber, page: &[u8]) {
        if page.iter().all(|byte| *byte == 0) || !self.geometry.page_count.contains(number) {
            self.pages.remove(&number);
        } else {
            self.pages.insert(number, page.to_vec());
        }
    }

    /// Cuts it to so many pages, or makes it longer with zeros.
    pub fn resize(&mut self, page_count: PageCount) {
        self.geometry.page_count = page_count;
        self.pages.retain(|number, _| page_count.contains(*number));
    }

    /// A page as in the file; the lock page and what is not set is zeros.
    pub fn page(&self, number: PageNumber) -> Cow<'_, [u8]> {
        match self.pages.get(&number) {
            Some(page) if number != self.geometry.page_size.lock_page() => Cow::Borrowed(page),
            _ => Cow::Owned(vec![0; self.geometry.page_size.bytes()]),
        }
    }

    /// The canonical form of a page.
    pub fn canonical(&self, number: PageNumber) -> Cow<'_, [u8]> {
        let mut page = self.page(number);
        if number == PageNumber::FIRST {
            make_canonical(page.to_mut());
        }
        page
    }

    /// The travelling fields of page 1.
    pub fn fields(&self) -> HeaderFields {
        HeaderFields::of(&self.page(PageNumber::FIRST))
    }

    /// What it hashes to.
    pub fn root(&self) -> Root {
        let levels = self.levels();
        let top = levels.last().and_then(|top| top.first()).copied();
        Root::of(self.geometry, top.unwrap_or_else(|| node_hash([])))
    }

    /// The page tree: the pages' hashes first, the top last.
    pub fn levels(&self) -> Vec<Vec<PageHash>> {
        let zeros = PageHash::of(&vec![0; self.geometry.page_size.bytes()]);
        let hash = |number| match self.pages.contains_key(&number) {
            true => PageHash::of(&self.canonical(number)),
            false => zeros,
        };
        let mut levels = vec![self.numbers().map(hash).collect::<Vec<_>>()];
        while let Some(below) = levels.last().filter(|below| levels.len() == 1 || below.len() > 1) {
            let nodes = below.chunks(FANOUT as usize).map(node_hash);
            levels.push(if below.is_empty() { vec![node_hash([])] } else { nodes.collect() });
        }
        levels
    }

    /// The children of a node; none where it has no such node.
    pub fn node(&self, node: NodeId) -> Vec<PageHash> {
        let levels = self.levels();
        let below = levels.get(usize::from(node.level) - 1).map_or(&[][..], Vec::as_slice);
        let children = below.iter().skip(node.first_child() as usize).take(FANOUT as usize);
        if usize::from(node.level) < levels.len() { children.copied().collect() } else { Vec::new() }
    }

    /// The hash of versions 1 and 2, of a page or a group.
    pub fn group_hash(&self, first: PageNumber, count: u32) -> Hash20 {
        if count == 1 {
            return hash20(&self.page(first));
        }
        let zeros = hash20(&vec![0; self.geometry.page_size.bytes()]);
        let mut sponge = Sponge20::new();
        for number in self.numbers().skip(first.index() as usize).take(count as usize) {
            let hash = if self.pages.contains_key(&number) { hash20(&self.page(number)) } else { zeros };
            sponge.update(&hash.0);
        }
        sponge.finish()
    }

    /// All page numbers.
    pub fn numbers(&self) -> impl Iterator<Item = PageNumber> + use<> {
        (0..self.geometry.page_count.get()).filter_map(PageNumber::from_index)
    }

    /// Pages that another content does not have or has otherwise, canonically.
    pub fn changed_since<'c>(&'c self, old: &'c Content) -> impl Iterator<Item = PageNumber> + 'c {
        let same_size = old.geometry.page_size == self.geometry.page_size;
        self.numbers().filter(move |number| {
            let both = same_size && old.geometry.page_count.contains(*number);
            let stored = self.pages.contains_key(number) || old.pages.contains_key(number);
            !both || (stored && self.canonical(*number) != old.canonical(*number))
        })
    }
}

impl crate::content::Content for Content {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn fields(&self) -> HeaderFields {
        Content::fields(self)
    }

    fn read(&mut self, page: PageNumber, into: &mut [u8]) -> Result<(), ContentError> {
        into.copy_from_slice(&self.canonical(page));
        Ok(())
    }
}
