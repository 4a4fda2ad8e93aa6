//! A push that is made from a candidate takes over the candidate's segments, and the candidate those of the one
//! before it: a client that never pulls would add to that list for ever. Once it is long, what the candidate
//! does not have in common with the latest version is stored anew, and the new tree stands on that version.

use sqlrsync_protocol::block::BlockBuilder;
use sqlrsync_protocol::hash::PageHash;
use sqlrsync_protocol::page::PageNumber;

use super::collector::Collector;
use super::merge::flush;
use crate::content::changed;
use crate::error::Error;
use crate::manifest::Manifest;
use crate::pages::PageReader;
use crate::replica::Replica;

/// How many segments a candidate has at least before that is done.
const SEGMENTS_MANY: usize = 256;

/// What the tree of a push made from `base` is to stand on, where that is not `base`. Its pages, as far as they
/// are not those of `base`, then are among the collected ones, before all that the push brings.
pub(super) fn flatten(
    replica: &Replica,
    base: &Manifest,
    latest: Option<&Manifest>,
    collector: &mut Collector,
) -> Result<Option<Manifest>, Error> {
    let size = base.geometry.page_size;
    let latest = latest.filter(|latest| latest.geometry.page_size == size);
    let Some(onto) = latest.filter(|_| base.is_candidate() && base.segments.len() >= SEGMENTS_MANY) else {
        return Ok(None);
    };
    let mut pages = PageReader::new(replica.tree(base));
    let mut differ = changed(&mut replica.tree(onto), &mut pages.tree)?;
    differ.remove(size.lock_page().get());
    let mut builder = BlockBuilder::new(size);
    let mut hashes: Vec<PageHash> = Vec::new();
    let mut page = Vec::with_capacity(size.bytes());
    for number in differ.iter().filter_map(PageNumber::new) {
        page.clear();
        pages.append(number, &mut page)?;
        if builder.is_full() {
            flush(&mut builder, &mut hashes, collector)?;
        }
        builder.push(number, &page);
        hashes.push(PageHash::of(&page));
    }
    flush(&mut builder, &mut hashes, collector)?;
    collector.begin_anew()?;
    Ok(Some(onto.clone()))
}
