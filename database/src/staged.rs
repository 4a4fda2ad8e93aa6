//! Continuing a cut push: which of the blocks that it left at the replica are still what this snapshot
//! would send.

use roaring::RoaringBitmap;
use sqlrsync_protocol::block::BLOCK_RAW_MAX;
use sqlrsync_protocol::canonical::make_canonical;
use sqlrsync_protocol::exchange::{StagedBlock, staged_hash};
use sqlrsync_protocol::hash::PageHash;
use sqlrsync_protocol::page::{Geometry, PageNumber};

use crate::error::Error;
use crate::pages::PageReader;
use crate::snapshot::Snapshot;

/// The places in `staged` of the blocks that hold, whole, what the snapshot has, and all their pages.
pub(crate) fn find_reusable(
    snapshot: &mut Snapshot,
    staged: &[StagedBlock],
) -> Result<(Vec<u32>, RoaringBitmap), Error> {
    let (geometry, mut reusable) = (snapshot.geometry(), Vec::new());
    if staged.is_empty() {
        return Ok((reusable, RoaringBitmap::new()));
    }
    let (reader, mut data) = (PageReader::new(snapshot)?, Vec::new());
    let mut found = RoaringBitmap::new();
    for (place, block) in (0u32..).zip(staged) {
        let Some(pages) = pages_of(block, geometry) else { continue };
        if !pages.is_disjoint(&found) {
            continue;
        }
        let numbers: Vec<PageNumber> = pages.iter().filter_map(PageNumber::new).collect();
        reader.read(&numbers, &mut data)?;
        if numbers.first() == Some(&PageNumber::FIRST) {
            make_canonical(&mut data[..geometry.page_size.bytes()]);
        }
        let hashes = PageHash::of_each(&data, geometry.page_size);
        if staged_hash(&hashes) == block.hash {
            reusable.push(place);
            found |= pages;
        }
    }
    Ok((reusable, found))
}

/// The pages of a block; `None` where it is no block that this side would make: too large, past the
/// end, or with the lock page. The runs come from a peer.
fn pages_of(block: &StagedBlock, geometry: Geometry) -> Option<RoaringBitmap> {
    let len: u64 = block.runs.iter().map(|(_, len)| u64::from(*len)).sum();
    if len == 0 || len > (BLOCK_RAW_MAX / geometry.page_size.bytes()) as u64 {
        return None;
    }
    let mut pages = RoaringBitmap::new();
    for &(first, len) in &block.runs {
        let last = first.get().checked_add(u32::from(len))?.checked_sub(1)?;
        pages.insert_range(first.get()..=last);
    }
    let whole = pages.len() == len
        && pages.max()? <= geometry.page_count.get()
        && !pages.contains(geometry.page_size.lock_page().get());
    whole.then_some(pages)
}
