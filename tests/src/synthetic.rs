//! An origin that is no file: pages computed when they are asked for, told which of them changed, and
//! made to lie where a test wants it.
//!
//! It shows a server what no honest client can (a root that is not that of the pages, a block that
//! decompresses to more than it says) and what no test machine has (twenty gigabytes).

use bytes::Bytes;
use sqlrsync_protocol::block::{Block, BlockBuilder, Effort};
use sqlrsync_protocol::canonical::{HeaderFields, empty_database, make_canonical};
use sqlrsync_protocol::conversation::Wire;
use sqlrsync_protocol::exchange::{
    Base, Committed, Fault, Form, OriginPages, Proof, PushId, Refusal, Since, Wanted,
};
use sqlrsync_protocol::hash::{PageHash, Root};
use sqlrsync_protocol::page::{Geometry, PageCount, PageNumber, PageSize, VersionNumber};
use sqlrsync_protocol::sponge::Hash20;
use sqlrsync_protocol::tree::{HashOnly, MemoryTree, NodeId, TreeUpdate};
use tokio_tungstenite::tungstenite::Message;

use crate::raw::RawSocket;

/// What an origin says that is not so.
#[derive(Clone, Debug, Default)]
pub enum Lie {
    /// Nothing.
    #[default]
    None,
    /// Its root is another one.
    Root,
    /// It has one page more than it sends.
    PageCount,
    /// These bytes take the place of its first block.
    Block(Bytes),
}

/// Pages of 4 KiB that hold their own number, and one that can change.
#[derive(Debug)]
pub struct Synthetic {
    geometry: Geometry,
    /// What the last page holds besides; raising it is the change.
    pub state: u64,
    /// What was last agreed on: then only the last page is sent.
    pub base: Option<Base>,
    /// What it lies about.
    pub lie: Lie,
    lock_page: PageNumber,
    next: u32,
    builder: Option<BlockBuilder>,
    lied: bool,
    root: Option<(u64, Root)>,
}

/// It was asked for what it has not.
#[derive(Debug, thiserror::Error)]
#[error("a synthetic origin has no {0}")]
pub struct Absent(&'static str);

impl Fault for Absent {
    fn refusal(&self) -> Refusal {
        Refusal::Failed
    }

    fn public_text(&self) -> String {
        self.to_string()
    }
}

impl Synthetic {
    /// One of that many pages.
    pub fn new(pages: u32) -> Synthetic {
        let page_size = PageSize::from_bytes(4096).expect("a page size");
        Synthetic {
            geometry: Geometry { page_size, page_count: PageCount(pages) },
            state: 0,
            base: None,
            lie: Lie::None,
            lock_page: page_size.lock_page(),
            next: 0,
            builder: None,
            lied: false,
            root: None,
        }
    }

    /// A canonical page.
    fn page(&self, number: PageNumber) -> Vec<u8> {
        let mut page = empty_database(self.geometry.page_size);
        if number == PageNumber::FIRST {
            page[28..32].copy_from_slice(&self.geometry.page_count.get().to_be_bytes());
            make_canonical(&mut page);
            return page;
        }
        page.fill(0);
        if number != self.lock_page {
            page[..4].copy_from_slice(&number.get().to_be_bytes());
        }
        if Some(number) == self.geometry.page_count.last() {
            page[4..12].copy_from_slice(&self.state.to_be_bytes());
        }
        page
    }

    /// How many pages it has.
    pub fn pages(&self) -> u32 {
        self.geometry.page_count.get()
    }

    /// Computes the root of the present state ahead of time.
    pub fn remember_root(&mut self) {
        self.root = Some((self.state, self.root()));
    }

    /// What it hashes to. Takes as long as hashing every page does, unless it is remembered.
    pub fn root(&self) -> Root {
        if let Some((_, root)) = self.root.filter(|(state, _)| *state == self.state) {
            return root;
        }
        let mut update = TreeUpdate::<MemoryTree>::new(None, self.geometry);
        for number in (0..self.geometry.page_count.get()).filter_map(PageNumber::from_index) {
            let hash = PageHash::of(&self.page(number));
            update.set(number, hash, &mut HashOnly).expect("pages in order");
        }
        update.finish(&mut HashOnly).expect("all pages are there").1
    }

    fn number(&self) -> Option<PageNumber> {
        let number = PageNumber::from_index(self.next)?;
        self.geometry.page_count.contains(number).then_some(number)
    }
}

impl OriginPages for Synthetic {
    type Error = Absent;

    fn geometry(&mut self) -> Result<Geometry, Absent> {
        let lie = u32::from(matches!(self.lie, Lie::PageCount));
        Ok(Geometry { page_count: PageCount(self.geometry.page_count.get() + lie), ..self.geometry })
    }

    fn base(&mut self) -> Result<Option<Base>, Absent> {
        Ok(self.base)
    }

    fn push_id(&mut self) -> Result<Option<PushId>, Absent> {
        let mut id = [0x51; 16];
        id[8..].copy_from_slice(&self.state.to_be_bytes());
        id[4..8].copy_from_slice(&self.geometry.page_count.get().to_be_bytes());
        Ok(Some(PushId(id)))
    }

    fn knows(&mut self, base: &Base) -> Result<bool, Absent> {
        Ok(self.base.is_some_and(|known| known.root == base.root))
    }

    fn group_hash(&mut self, _: PageNumber, _: u32) -> Result<Hash20, Absent> {
        Err(Absent("hashes of older versions"))
    }

    fn node(&mut self, _: NodeId) -> Result<Vec<PageHash>, Absent> {
        Err(Absent("tree"))
    }

    fn begin(&mut self, wanted: Wanted) -> Result<(), Absent> {
        if wanted.form != Form::Blocks {
            return Err(Absent("single pages"));
        }
        self.next = match wanted.since {
            Since::Nothing => 0,
            Since::Base(_) => self.geometry.page_count.get() - 1,
            Since::Compared { .. } => return Err(Absent("hashes")),
        };
        self.builder = Some(BlockBuilder::new(self.geometry.page_size));
        Ok(())
    }

    fn reused(&mut self) -> Result<Vec<u32>, Absent> {
        Ok(Vec::new())
    }

    fn next_page(&mut self, _: &mut [u8]) -> Result<Option<PageNumber>, Absent> {
        Err(Absent("single pages"))
    }

    fn next_block(&mut self) -> Result<Option<Block>, Absent> {
        let mut builder = self.builder.take().ok_or(Absent("image"))?;
        while let Some(number) = self.number().filter(|_| !builder.is_full()) {
            if number != self.lock_page {
                builder.push(number, &self.page(number));
            }
            self.next += 1;
        }
        let mut block = builder.finish(Effort::Fast);
        self.builder = Some(builder);
        if let (Lie::Block(bytes), Some(_), false) = (&self.lie, &block, self.lied) {
            self.lied = true;
            block = Block::parse(bytes.clone(), self.geometry.page_size).ok();
            assert!(block.is_some(), "a block whose lie lies deeper than its checksum");
        }
        Ok(block)
    }

    fn proof(&mut self) -> Result<Proof, Absent> {
        let mut root = self.root();
        let mut page_count = self.geometry.page_count;
        match self.lie {
            Lie::Root => root.0[0] ^= 1,
            Lie::PageCount => page_count = PageCount(page_count.get() + 1),
            Lie::None | Lie::Block(_) => {}
        }
        Ok(Proof { page_count, root, fields: HeaderFields::of(&empty_database(self.geometry.page_size)) })
    }

    fn acknowledged(&mut self, committed: Committed) -> Result<(), Absent> {
        let version = committed.version.or(VersionNumber::new(1));
        self.base = Some(Base { version, root: self.root() });
        Ok(())
    }
}

/// The server closed.
#[derive(Debug, thiserror::Error)]
#[error("the server closed the connection")]
pub struct Closed;

impl Wire for RawSocket {
    type Error = Closed;

    fn send(&mut self, bytes: Bytes) -> Result<(), Closed> {
        // Any cut is allowed; the server's default for the longest message is 64 KiB.
        bytes.chunks(32 * 1024).try_for_each(|piece| RawSocket::send(self, piece).then_some(()).ok_or(Closed))
    }

    fn receive(&mut self) -> Result<Option<Bytes>, Closed> {
        loop {
            match RawSocket::receive(self) {
                Some(Message::Binary(bytes)) => return Ok(Some(bytes)),
                Some(_) => {}
                None => return Ok(None),
            }
        }
    }
}
