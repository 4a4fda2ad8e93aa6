//! The page tree of a local file, kept in a file of its own, with the hashes of groups of pages that
//! make a scan faster than page by page.
//!
//! ```text
//! header   magic 16 · format 1 · state 1 (0 clean, 1 being written) · log2(page size) 1 · zero 1
//!          page count u32 · root 32 · header fields 18 · zeros 2 · check 16 (BLAKE3 of what is before it)
//! node     256 children's hashes; a node of level 1 is followed by its 16 scan groups' hashes
//! ```
//!
//! - Integers are big-endian. A node stands where [`node_offset`] says: a node's block is its hashes and
//!   then the blocks of its children, so that the file grows at its end as the database does, and a
//!   changed page changes one node a level.
//! - An update in place first marks the header "being written" and makes that durable; such a file, and
//!   one with a wrong check, counts as absent: what it says can be had again by a scan.
//! - A node is believed only if it hashes to what its parent says. A group's hash of zeros is not known.
//! - Memory is one node a level, whatever the database's size.

mod layout;

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sqlrsync_protocol::canonical::HeaderFields;
use sqlrsync_protocol::hash::{PageHash, Root, node_hash};
use sqlrsync_protocol::page::{Geometry, PageCount};
use sqlrsync_protocol::tree::{
    self, FANOUT, MAX_HEIGHT, NodeId, ReadTree, TreeUpdate, UpdateError, WriteTree,
};

use crate::delta::{Change, Delta};
use crate::error::{Error, io_error};
use layout::{CLEAN, DIRTY, HEADER_LEN, Header, NODE_LEN, group_offset, node_offset};
pub(crate) use layout::{GROUP, UNKNOWN, group_hash};

/// The page tree of a file as it was at some point, read from a file of its own.
#[derive(Debug)]
pub struct PageHashes {
    file: Arc<File>,
    path: PathBuf,
    header: Header,
    top: PageHash,
    /// The node read last, of each level.
    cache: [Option<(NodeId, PageHash, Vec<PageHash>)>; MAX_HEIGHT as usize],
}

impl PageHashes {
    /// Opens the file. `None` where there is none, or where it is damaged or was being written when a
    /// process or machine died: then the database must be scanned.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Denied`] where the file is there and cannot be read.
    pub fn open(path: &Path) -> Result<Option<PageHashes>, Error> {
        let mut file = match File::options().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("opening the page hashes", path, error)),
        };
        let mut bytes = [0; HEADER_LEN];
        match file.read_exact(&mut bytes) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(Error::io("reading the page hashes", path, error)),
        }
        match Header::decode(&bytes) {
            Some(header) if header.state == CLEAN => Self::checked(Arc::new(file), path, header),
            _ => Ok(None),
        }
    }

    /// Opens it if the top node hashes to the root.
    fn checked(file: Arc<File>, path: &Path, header: Header) -> Result<Option<PageHashes>, Error> {
        let top = tree::top(header.geometry.page_count);
        let len = tree::children(header.geometry.page_count, top);
        let children = match read_hashes(&file, node_offset(top), len) {
            Ok(children) => children,
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(Error::io("reading the page hashes", path, error)),
        };
        let hash = node_hash(&children);
        let whole = Root::of(header.geometry, hash) == header.root;
        Ok(whole.then(|| PageHashes {
            file,
            path: path.into(),
            header,
            top: hash,
            cache: Default::default(),
        }))
    }

    /// Page size and count of the database that the hashes are of.
    pub fn geometry(&self) -> Geometry {
        self.header.geometry
    }

    /// What that database hashes to.
    pub fn root(&self) -> Root {
        self.header.root
    }

    /// What its canonical page 1 leaves out.
    pub(crate) fn fields(&self) -> HeaderFields {
        self.header.fields
    }

    /// A second reader of the same file.
    pub(crate) fn reader(&self) -> PageHashes {
        let PageHashes { file, path, header, top, .. } = self;
        PageHashes {
            file: Arc::clone(file),
            path: path.clone(),
            header: *header,
            top: *top,
            cache: Default::default(),
        }
    }

    /// The hashes of scan groups in a row; zeros where one is not known.
    pub(crate) fn groups(&self, first: u32, len: u32) -> Result<Vec<PageHash>, Error> {
        const IN_NODE: u32 = FANOUT / GROUP;
        let mut hashes = Vec::with_capacity(len as usize);
        let (mut at, end) = (first, first.saturating_add(len).min(self.group_count()));
        while at < end {
            let next = (at / IN_NODE + 1).saturating_mul(IN_NODE).min(end);
            match read_hashes(&self.file, group_offset(at), next - at) {
                Ok(some) => hashes.extend(some),
                // The last groups of a file that was never scanned.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => break,
                Err(error) => return Err(Error::io("reading the page hashes", &self.path, error)),
            }
            at = next;
        }
        hashes.resize(len as usize, UNKNOWN);
        Ok(hashes)
    }

    fn group_count(&self) -> u32 {
        self.geometry().page_count.get().div_ceil(GROUP)
    }

    /// The hashes of a scan group's pages, as many as there are. They are not checked against the node
    /// above: a wrong one makes its page count as changed.
    pub(crate) fn pages_of_group(&self, group: u32) -> Result<Vec<PageHash>, Error> {
        let pages = self.geometry().page_count.get();
        let first = u64::from(group) * u64::from(GROUP);
        let len = u64::from(pages).saturating_sub(first).min(u64::from(GROUP)) as u32;
        if len == 0 {
            return Ok(Vec::new());
        }
        let first = first as u32;
        let node = NodeId { level: 1, index: first / FANOUT };
        let offset = node_offset(node) + u64::from(first % FANOUT) * PageHash::LEN as u64;
        read_hashes(&self.file, offset, len).map_err(io_error("reading the page hashes", &self.path))
    }

    /// The children of a node, after having walked down to it; empty where the tree does not have it.
    pub(crate) fn children(&mut self, node: NodeId) -> Result<Vec<PageHash>, Error> {
        if tree::children(self.geometry().page_count, node) == 0 {
            return Ok(Vec::new());
        }
        tree::read_node(self, node)
    }

    /// Removes the file, so that the next run scans.
    fn damaged(&self) -> Error {
        let _ = std::fs::remove_file(&self.path);
        Error::Hashes { path: self.path.clone() }
    }

    /// Makes a file of hashes out of a base and what changed, in `file`, which either is empty or holds
    /// the base itself. `sync` makes a half-written file show as such even after a power cut.
    pub(crate) fn write(
        file: Arc<File>,
        path: &Path,
        base: Option<&mut PageHashes>,
        content: Content,
        delta: &mut Delta,
        sync: bool,
    ) -> Result<PageHashes, Error> {
        let Content { geometry, root, fields } = content;
        let io = |error| Error::io("writing the page hashes", path, error);
        let flush = |file: &File| if sync { file.sync_data().map_err(io) } else { Ok(()) };
        let header = Header { state: DIRTY, geometry, root, fields };
        file.write_all_at(&header.encode(), 0).map_err(io)?;
        flush(&file)?;
        let made = write_nodes(&file, path, base, geometry, delta)?;
        if made != root {
            return Err(Error::Hashes { path: path.to_path_buf() });
        }
        flush(&file)?;
        let header = Header { state: CLEAN, ..header };
        file.write_all_at(&header.encode(), 0).map_err(io)?;
        Self::checked(file, path, header)?.ok_or_else(|| Error::Hashes { path: path.to_path_buf() })
    }

    /// The file itself, to be written to.
    pub(crate) fn file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// What a file of hashes is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Content {
    pub(crate) geometry: Geometry,
    pub(crate) root: Root,
    pub(crate) fields: HeaderFields,
}

/// Plays the changes into the tree and returns the new root.
fn write_nodes(
    file: &File,
    path: &Path,
    base: Option<&mut PageHashes>,
    geometry: Geometry,
    delta: &mut Delta,
) -> Result<Root, Error> {
    let mut nodes = NodeWriter { file, path };
    let before = base.as_ref().map_or(PageCount::ZERO, |base| base.geometry().page_count);
    let kept = geometry.page_count.min(before).get();
    if geometry.page_count != before && !kept.is_multiple_of(GROUP) {
        // The group has other pages now: its hash would vouch for those that were cut off, should they
        // come back.
        nodes.write(group_offset(kept / GROUP), &[UNKNOWN])?;
    }
    let mut update = TreeUpdate::new(base, geometry);
    let mut forgotten = None;
    delta.replay(|change| match change {
        Change::Page(page, hash) => {
            // The group's hash is of the old page: left there, it would vouch for the new page's hash
            // should the old page come back. What a scan knows of the group comes after its pages.
            let group = page.index() / GROUP;
            if forgotten.replace(group) != Some(group) {
                nodes.write(group_offset(group), &[UNKNOWN])?;
            }
            update.set(page, hash, &mut nodes).map_err(from_update)
        }
        Change::Group(group, hash) => nodes.write(group_offset(group), &[hash]),
    })?;
    let (_, root) = update.finish(&mut nodes).map_err(from_update)?;
    Ok(root)
}

/// Both sides of an update here fail with our own error.
pub(crate) fn from_update<W: Into<Error>>(error: UpdateError<Error, W>) -> Error {
    match error {
        UpdateError::Read(error) => error,
        UpdateError::Write(error) => error.into(),
        UpdateError::OutOfOrder(_) => Error::Invalid("pages out of order, or past the end"),
        UpdateError::Missing(_) => Error::Invalid("pages are missing"),
    }
}

impl From<std::convert::Infallible> for Error {
    fn from(never: std::convert::Infallible) -> Error {
        match never {}
    }
}

struct NodeWriter<'f> {
    file: &'f File,
    path: &'f Path,
}

impl NodeWriter<'_> {
    fn write(&mut self, offset: u64, hashes: &[PageHash]) -> Result<(), Error> {
        let bytes: Vec<u8> = hashes.iter().flat_map(|hash| hash.0).collect();
        self.file.write_all_at(&bytes, offset).map_err(io_error("writing the page hashes", self.path))
    }
}

impl WriteTree<PageHash> for NodeWriter<'_> {
    type Error = Error;

    fn put(&mut self, node: NodeId, children: &[PageHash]) -> Result<PageHash, Error> {
        self.write(node_offset(node), children)?;
        Ok(node_hash(children))
    }
}

impl ReadTree for PageHashes {
    type Entry = PageHash;
    type Error = Error;

    fn geometry(&self) -> Geometry {
        self.header.geometry
    }

    fn top(&mut self) -> Result<PageHash, Error> {
        Ok(self.top)
    }

    fn node(&mut self, node: NodeId, entry: &PageHash) -> Result<Vec<PageHash>, Error> {
        let slot = usize::from(node.level.clamp(1, MAX_HEIGHT)) - 1;
        if let Some((cached, hash, children)) = &self.cache[slot]
            && (*cached, hash) == (node, entry)
        {
            return Ok(children.clone());
        }
        let len = tree::children(self.header.geometry.page_count, node);
        let children =
            read_hashes(&self.file, node_offset(node), len).map_err(|error| match error.kind() {
                ErrorKind::UnexpectedEof => self.damaged(),
                _ => Error::io("reading the page hashes", &self.path, error),
            })?;
        if node_hash(&children) != *entry {
            return Err(self.damaged());
        }
        self.cache[slot] = Some((node, *entry, children.clone()));
        Ok(children)
    }
}

/// Reads `len` hashes, 256 at most.
fn read_hashes(file: &File, offset: u64, len: u32) -> std::io::Result<Vec<PageHash>> {
    let mut bytes = [0; NODE_LEN as usize];
    let bytes = &mut bytes[..len as usize * PageHash::LEN];
    file.read_exact_at(bytes, offset)?;
    let (hashes, _) = bytes.as_chunks::<{ PageHash::LEN }>();
    Ok(hashes.iter().map(|hash| PageHash(*hash)).collect())
}

#[cfg(test)]
mod tests {
    use sqlrsync_protocol::page::{PageNumber, PageSize};
    use sqlrsync_protocol::tree::MemoryTree;

    use super::*;

    fn geometry(pages: u32) -> Geometry {
        Geometry { page_size: PageSize::MIN, page_count: PageCount(pages) }
    }

    fn hash(page: u32, salt: u8) -> PageHash {
        PageHash::of(&[&page.to_be_bytes()[..], &[salt]].concat())
    }

    fn number(index: u32) -> PageNumber {
        PageNumber::from_index(index).unwrap()
    }

    fn root(hashes: &[PageHash]) -> Root {
        MemoryTree::new(geometry(hashes.len() as u32), hashes).unwrap().root()
    }

    struct Fixture {
        dir: tempfile::TempDir,
        hashes: Vec<PageHash>,
    }

    impl Fixture {
        fn path(&self) -> PathBuf {
            self.dir.path().join("hashes")
        }

        /// A file of hashes of so many pages.
        fn new(pages: u32) -> Fixture {
            let fixture = Fixture { dir: tempfile::tempdir().unwrap(), hashes: Vec::new() };
            let all: Vec<u32> = (0..pages).collect();
            let mut fixture = fixture;
            fixture.change(pages, &all, 0);
            fixture
        }

        /// Changes pages, and how many there are, in place.
        fn change(&mut self, pages: u32, changed: &[u32], salt: u8) {
            self.hashes.resize(pages as usize, PageHash([0; 32]));
            let mut delta = Delta::new(self.dir.path());
            for &index in changed {
                self.hashes[index as usize] = hash(index, salt);
                delta.record(Change::Page(number(index), hash(index, salt))).unwrap();
            }
            let mut base = PageHashes::open(&self.path()).unwrap();
            let content = Content {
                geometry: geometry(pages),
                root: root(&self.hashes),
                fields: HeaderFields::default(),
            };
            let mut options = File::options();
            let file = options.read(true).write(true).create(true).truncate(false).open(self.path()).unwrap();
            PageHashes::write(file.into(), &self.path(), base.as_mut(), content, &mut delta, true).unwrap();
        }

        fn assert_whole(&self) {
            let mut kept = PageHashes::open(&self.path()).unwrap().expect("is there");
            assert_eq!(kept.root(), root(&self.hashes));
            for (index, children) in (0u32..).zip(self.hashes.chunks(256)) {
                assert_eq!(kept.children(NodeId { level: 1, index }).unwrap(), children);
            }
        }
    }

    #[test]
    fn a_tree_grows_shrinks_and_changes_in_place() {
        let mut fixture = Fixture::new(300);
        fixture.assert_whole();
        fixture.change(300, &[0, 17, 255, 299], 1);
        fixture.assert_whole();
        let grown: Vec<u32> = std::iter::once(3).chain(300..66_000).collect();
        fixture.change(66_000, &grown, 2);
        fixture.assert_whole();
        fixture.change(100, &[], 3);
        fixture.assert_whole();
        let grown: Vec<u32> = (100..700).collect();
        fixture.change(700, &grown, 4);
        fixture.assert_whole();
    }

    #[test]
    fn what_was_being_written_or_is_damaged_counts_as_absent() {
        let fixture = Fixture::new(300);
        let whole = std::fs::read(fixture.path()).unwrap();
        for at in (0..HEADER_LEN).chain([node_offset(tree::top(PageCount(300))) as usize]) {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            std::fs::write(fixture.path(), bytes).unwrap();
            assert!(PageHashes::open(&fixture.path()).unwrap().is_none(), "byte {at}");
        }
        let mut dirty = Header::decode(whole[..HEADER_LEN].try_into().unwrap()).unwrap();
        dirty.state = DIRTY;
        std::fs::write(fixture.path(), [&dirty.encode(), &whole[HEADER_LEN..]].concat()).unwrap();
        assert!(PageHashes::open(&fixture.path()).unwrap().is_none());
        std::fs::write(fixture.path(), &whole[..50]).unwrap();
        assert!(PageHashes::open(&fixture.path()).unwrap().is_none());
        assert!(PageHashes::open(Path::new("/nowhere/at/all")).unwrap().is_none());
    }

    #[test]
    fn a_damaged_node_is_noticed_when_it_is_read() {
        let fixture = Fixture::new(300);
        let mut bytes = std::fs::read(fixture.path()).unwrap();
        let at = node_offset(NodeId { level: 1, index: 1 }) as usize;
        bytes[at] ^= 1;
        std::fs::write(fixture.path(), bytes).unwrap();
        let mut kept = PageHashes::open(&fixture.path()).unwrap().unwrap();
        kept.children(NodeId { level: 1, index: 0 }).unwrap();
        let error = kept.children(NodeId { level: 1, index: 1 }).unwrap_err();
        assert!(matches!(error, Error::Hashes { .. }));
        assert!(PageHashes::open(&fixture.path()).unwrap().is_none(), "the next run scans");
    }

    #[test]
    fn a_changed_page_makes_its_groups_hash_unknown() {
        let mut fixture = Fixture::new(64);
        let kept = PageHashes::open(&fixture.path()).unwrap().unwrap();
        NodeWriter { file: &kept.file, path: &kept.path }.write(group_offset(2), &[hash(2, 9)]).unwrap();
        assert_eq!(kept.groups(2, 1).unwrap(), [hash(2, 9)]);
        fixture.change(64, &[33], 1);
        let kept = PageHashes::open(&fixture.path()).unwrap().unwrap();
        assert_eq!(kept.groups(2, 1).unwrap(), [UNKNOWN]);
    }
}
