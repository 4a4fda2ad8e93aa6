//! The way of a snapshot's pages to what is sent: read, hashed, compared and compressed on two threads,
//! put into a spool in order. A chunk of pages stays on one thread, and in its processor's cache. The
//! read transaction ends with the last page read, however slowly the spool is emptied.

use std::path::Path;

use roaring::RoaringBitmap;
use sqlrsync_protocol::block::{BLOCK_RAW_MAX, Block, BlockBuilder, Effort};
use sqlrsync_protocol::canonical::make_canonical;
use sqlrsync_protocol::hash::{PageHash, Root};
use sqlrsync_protocol::page::{Geometry, PageNumber, PageSize};
use sqlrsync_protocol::sponge::hash20;
use sqlrsync_protocol::tree::{HashOnly, TreeUpdate};

use crate::delta::{Change, Delta};
use crate::error::Error;
use crate::legacy::LegacyHashes;
use crate::page_hashes::{GROUP, PageHashes, UNKNOWN, from_update, group_hash};
use crate::pages::{Chunks, Own, Pages, ReadPages};
use crate::parallel::ordered_steps;
use crate::spool::SpoolWriter;

/// How many bytes are read before they are handed on: as much as goes into a block, and whole scan groups.
const CHUNK_LEN: usize = BLOCK_RAW_MAX;

/// How pages that changed are told from the others.
pub(crate) enum Compare {
    /// Not at all: it is known, or all pages are wanted, and nobody asks for hashes.
    Not,
    /// By the page tree, of which a new one is made; without a base every page counts as changed.
    Tree(Option<PageHashes>),
    /// The same for picked pages: those that are not read are as in this tree.
    Picked(PageHashes),
    /// By the hashes that versions 1 and 2 compare.
    Legacy(LegacyHashes),
}

/// Which pages are sent.
#[derive(Default, Debug)]
pub(crate) struct Select {
    /// All of them.
    pub(crate) all: bool,
    /// Those that changed.
    pub(crate) changed: bool,
    /// These.
    pub(crate) pages: RoaringBitmap,
    /// Those with a higher number.
    pub(crate) past: Option<u32>,
    /// But not these.
    pub(crate) skip: RoaringBitmap,
}

impl Select {
    fn wants(&self, number: PageNumber, changed: bool) -> bool {
        let number = number.get();
        let wanted = self.all
            || (self.changed && changed)
            || self.past.is_some_and(|past| number > past)
            || self.pages.contains(number);
        wanted && !self.skip.contains(number)
    }
}

/// What is to be made of a snapshot.
pub(crate) struct Job {
    pub(crate) read: Pages,
    pub(crate) compare: Compare,
    pub(crate) select: Select,
    /// Pages as they are in the file, not compressed: what versions 1 and 2 send.
    pub(crate) raw: bool,
}

/// What came of it.
pub(crate) struct Outcome {
    /// What changed against the base of [`Compare::Tree`].
    pub(crate) delta: Delta,
    /// The root that the changes lead to; `None` without a tree.
    pub(crate) root: Option<Root>,
    /// How many pages changed, by whatever comparison was asked for.
    pub(crate) changed: u64,
}

/// Some pages in a row, or picked.
#[derive(Default)]
struct Chunk {
    numbers: Vec<PageNumber>,
    data: Vec<u8>,
}

impl Chunk {
    /// The first page, where there is no gap after it.
    fn run_from(&self) -> Option<PageNumber> {
        let (first, last) = (self.numbers.first()?, self.numbers.last()?);
        (last.index() - first.index() == self.numbers.len() as u32 - 1).then_some(*first)
    }
}

/// What a worker expects of the next group of pages: changes come together.
#[derive(Default)]
struct Suspicion {
    /// The group before it differed.
    differed: bool,
}

/// What a worker made of a chunk.
#[derive(Default)]
struct Mapped {
    changes: Vec<Change>,
    changed: u64,
    /// Where most of the chunk is to be sent.
    blocks: Vec<Block>,
    /// Where little of it is: to be packed with what comes after.
    loose: Option<Chunk>,
}

/// Reads, compares, and spools what is selected. Without a spool nothing is sent and the outcome is
/// what counts.
pub(crate) fn run(
    source: impl ReadPages + Send,
    job: Job,
    spool: Option<&SpoolWriter>,
    temp_dir: &Path,
) -> Result<Outcome, Error> {
    let geometry = source.view().geometry;
    let Job { read, compare, select, raw } = job;
    let mut base = match &compare {
        Compare::Tree(base) => base.as_ref().map(PageHashes::reader),
        Compare::Picked(base) => Some(base.reader()),
        _ => None,
    };
    let mut update = match &compare {
        Compare::Tree(_) | Compare::Picked(_) => Some(TreeUpdate::new(base.as_mut(), geometry)),
        _ => None,
    };
    let mapper = Mapper { geometry, compare: &compare, select: &select, raw, spool };
    let mut packer = Packer { builder: BlockBuilder::new(geometry.page_size), raw, spool };
    let mut delta = Delta::new(temp_dir);
    let mut changed = 0;
    let sink = |mapped: Mapped| -> Result<(), Error> {
        changed += mapped.changed;
        for change in mapped.changes {
            delta.record(change)?;
            if let (Some(update), Change::Page(page, hash)) = (&mut update, change) {
                update.set(page, hash, &mut HashOnly).map_err(from_update)?;
            }
        }
        packer.put(mapped.blocks, mapped.loose)
    };
    let chunks = Chunks::new(source, &read, chunk_pages(geometry.page_size))?;
    let map = |(own, chunk, suspicion): &mut (Own, Chunk, Suspicion), number: u64| {
        chunks.read(number, own, &mut chunk.numbers, &mut chunk.data)?;
        mapper.map(chunk, suspicion)
    };
    ordered_steps(chunks.len(), map, sink)?;
    packer.flush()?;
    let root = match update {
        Some(update) => Some(update.finish(&mut HashOnly).map_err(from_update)?.1),
        None => None,
    };
    Ok(Outcome { delta, root, changed })
}

/// How many pages go into a chunk: whole scan groups.
fn chunk_pages(page_size: PageSize) -> u32 {
    ((CHUNK_LEN / page_size.bytes()) as u32).max(GROUP)
}

/// What the workers do.
struct Mapper<'j> {
    geometry: Geometry,
    compare: &'j Compare,
    select: &'j Select,
    raw: bool,
    spool: Option<&'j SpoolWriter>,
}

impl Mapper<'_> {
    fn map(&self, chunk: &mut Chunk, suspicion: &mut Suspicion) -> Result<Mapped, Error> {
        if !self.raw && chunk.numbers.first() == Some(&PageNumber::FIRST) {
            make_canonical(&mut chunk.data[..self.geometry.page_size.bytes()]);
        }
        let mut mapped = Mapped::default();
        let changed = self.changed(chunk, suspicion, &mut mapped.changes)?;
        mapped.changed = changed.len();
        let lock_page = self.geometry.page_size.lock_page();
        let selected: Vec<usize> = (0..chunk.numbers.len())
            .filter(|&at| {
                let number = chunk.numbers[at];
                number != lock_page && self.select.wants(number, changed.contains(at as u32))
            })
            .collect();
        if selected.len() * self.geometry.page_size.bytes() * 2 >= BLOCK_RAW_MAX {
            mapped.blocks = self.compress(chunk, &selected);
        } else if !selected.is_empty() {
            mapped.loose = Some(self.pick(chunk, &selected));
        }
        Ok(mapped)
    }

    fn page<'c>(&self, chunk: &'c Chunk, at: usize) -> &'c [u8] {
        let len = self.geometry.page_size.bytes();
        &chunk.data[at * len..(at + 1) * len]
    }

    /// Places in the chunk of the pages that changed, and what that changes in the page tree.
    fn changed(
        &self,
        chunk: &Chunk,
        suspicion: &mut Suspicion,
        changes: &mut Vec<Change>,
    ) -> Result<RoaringBitmap, Error> {
        let mut changed = RoaringBitmap::new();
        match self.compare {
            Compare::Not => {}
            Compare::Picked(base) => self.compare_picked(base, chunk, changes, &mut changed)?,
            Compare::Legacy(hashes) => {
                let first = chunk.numbers.first().map_or(0, |first| first.index());
                let held = hashes.read(first, chunk.numbers.len())?;
                for at in 0..chunk.numbers.len() {
                    if held.get(at) != Some(&hash20(self.page(chunk, at))) {
                        changed.insert(at as u32);
                    }
                }
            }
            Compare::Tree(None) => {
                // Groups are hashed when there is something to compare them with.
                let hashes = PageHash::of_each(&chunk.data, self.geometry.page_size);
                let pages = chunk.numbers.iter().zip(hashes);
                changes.extend(pages.map(|(page, hash)| Change::Page(*page, hash)));
                changed.insert_range(..chunk.numbers.len() as u32);
            }
            Compare::Tree(Some(base)) => {
                self.compare_groups(base, chunk, suspicion, changes, &mut changed)?;
            }
        }
        Ok(changed)
    }

    /// A group that differs is hashed twice, as a whole and page by page, unless it is expected to differ: then
    /// page by page alone, and what the whole hashes to is found out by the first scan that finds it unchanged.
    fn compare_groups(
        &self,
        base: &PageHashes,
        chunk: &Chunk,
        suspicion: &mut Suspicion,
        changes: &mut Vec<Change>,
        changed: &mut RoaringBitmap,
    ) -> Result<(), Error> {
        let first = chunk.numbers.first().map_or(0, |first| first.index() / GROUP);
        let groups = base.groups(first, (chunk.numbers.len() as u32).div_ceil(GROUP))?;
        let group_len = GROUP as usize * self.geometry.page_size.bytes();
        for ((group, pages), held) in (first..).zip(chunk.data.chunks(group_len)).zip(groups) {
            let mut hash = None;
            if held != UNKNOWN && !suspicion.differed {
                let whole = group_hash(pages);
                if whole == held {
                    continue;
                }
                hash = Some(whole);
            }
            let held_pages = base.pages_of_group(group)?;
            let first_slot = (group - first) * GROUP;
            suspicion.differed = false;
            for (slot, hash) in PageHash::of_each(pages, self.geometry.page_size).into_iter().enumerate() {
                if held_pages.get(slot) != Some(&hash) {
                    let at = first_slot + slot as u32;
                    changes.push(Change::Page(chunk.numbers[at as usize], hash));
                    changed.insert(at);
                    suspicion.differed = true;
                }
            }
            if held == UNKNOWN && !suspicion.differed {
                hash = Some(group_hash(pages));
            }
            changes.extend(hash.map(|hash| Change::Group(group, hash)));
        }
        Ok(())
    }

    /// Page by page: of a group only some are there.
    fn compare_picked(
        &self,
        base: &PageHashes,
        chunk: &Chunk,
        changes: &mut Vec<Change>,
        changed: &mut RoaringBitmap,
    ) -> Result<(), Error> {
        let mut held = (None, Vec::new());
        let hashes = PageHash::of_each(&chunk.data, self.geometry.page_size);
        for ((at, number), hash) in (0u32..).zip(&chunk.numbers).zip(hashes) {
            let (group, slot) = (number.index() / GROUP, number.index() % GROUP);
            if held.0 != Some(group) {
                held = (Some(group), base.pages_of_group(group)?);
            }
            if held.1.get(slot as usize) != Some(&hash) {
                changes.push(Change::Page(*number, hash));
                changed.insert(at);
            }
        }
        Ok(())
    }

    fn compress(&self, chunk: &Chunk, selected: &[usize]) -> Vec<Block> {
        let effort = effort(self.raw, self.spool);
        if let (Some(first), true) = (chunk.run_from(), selected.len() == chunk.numbers.len())
            && let Some(block) = Block::of_run(self.geometry.page_size, first, &chunk.data, effort)
        {
            return vec![block];
        }
        let mut builder = BlockBuilder::new(self.geometry.page_size);
        let mut blocks = Vec::new();
        for &at in selected {
            if builder.is_full() {
                blocks.extend(builder.finish(effort));
            }
            builder.push(chunk.numbers[at], self.page(chunk, at));
        }
        blocks.extend(builder.finish(effort));
        blocks
    }

    fn pick(&self, chunk: &Chunk, selected: &[usize]) -> Chunk {
        let mut data = Vec::with_capacity(selected.len() * self.geometry.page_size.bytes());
        selected.iter().for_each(|&at| data.extend_from_slice(self.page(chunk, at)));
        Chunk { numbers: selected.iter().map(|&at| chunk.numbers[at]).collect(), data }
    }
}

/// Blocks are made fast until a network turns out to be what they wait for
/// (`docs/adr/0041-how-hard-to-compress.md`).
fn effort(raw: bool, spool: Option<&SpoolWriter>) -> Effort {
    match spool {
        _ if raw => Effort::None,
        Some(spool) if spool.is_slow() => Effort::Small,
        _ => Effort::Fast,
    }
}

/// Packs what is left over into blocks, and puts all of them into the spool in order.
struct Packer<'s> {
    builder: BlockBuilder,
    raw: bool,
    spool: Option<&'s SpoolWriter>,
}

impl Packer<'_> {
    fn put(&mut self, blocks: Vec<Block>, loose: Option<Chunk>) -> Result<(), Error> {
        let Some(spool) = self.spool else { return Ok(()) };
        spool.check()?;
        if !blocks.is_empty() {
            self.flush()?;
        }
        blocks.into_iter().try_for_each(|block| spool.put(block))?;
        let Some(chunk) = loose else { return Ok(()) };
        let len = chunk.data.len() / chunk.numbers.len().max(1);
        for (number, page) in chunk.numbers.iter().zip(chunk.data.chunks_exact(len.max(1))) {
            if self.builder.is_full() {
                self.flush()?;
            }
            self.builder.push(*number, page);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Error> {
        match (self.builder.finish(effort(self.raw, self.spool)), self.spool) {
            (Some(block), Some(spool)) => spool.put(block),
            _ => Ok(()),
        }
    }
}
