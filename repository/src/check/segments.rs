//! The segments' part of a check: each is read whole, and so is what stands beside it.

use sqlrsync_protocol::block::Block;

use super::versions::Referenced;
use super::{Check, Objects};
use crate::error::{Damage, Error};
use crate::hashes20::{HASHES20_BYTES_MAX, Hashes20, compute};
use crate::id::{Name, SegmentId};
use crate::replica::Replica;
use crate::segment::format::{FOOTER_LEN, HEADER_LEN, PartEntry};
use crate::segment::{Segments, block_damage, node};

impl Check<'_> {
    pub(super) fn segments(
        &mut self,
        replica: &Replica,
        objects: &Objects,
        referenced: &Referenced,
    ) -> Result<(), Error> {
        let segments = replica.segments();
        for (id, (_, version)) in referenced {
            if !objects.segments.contains_key(id) {
                self.problem(Some(replica), segments.object(*id), Damage::Missing, *version);
            }
        }
        for (id, bytes) in &objects.segments {
            let named = referenced.get(id);
            let outcome = segment(&segments, *id).and_then(|check| match named {
                Some((written, _)) if written.check != check || written.bytes != *bytes => {
                    Err(segments.damaged(*id, Damage::Misplaced))
                }
                _ => Ok(()),
            });
            self.read(*bytes);
            self.note(replica, outcome, named.and_then(|(_, version)| *version))?;
        }
        for id in &objects.hashes20 {
            let outcome = self.hashes20(replica, &segments, objects, *id);
            self.note(replica, outcome, None)?;
        }
        for (scope, id) in &objects.staged {
            let outcome = replica.staged_record(*scope, *id).and_then(|record| match record {
                Some(record) if objects.segments.get(id) != Some(&record.segment.bytes) => {
                    Err(Error::damaged(Name::Staged(*scope, *id).path(replica.id()), Damage::Structure))
                }
                _ => Ok(()),
            });
            self.note(replica, outcome, None)?;
        }
        Ok(())
    }

    /// The 20-byte hashes beside a segment are those of its pages.
    fn hashes20(
        &mut self,
        replica: &Replica,
        segments: &Segments,
        objects: &Objects,
        id: SegmentId,
    ) -> Result<(), Error> {
        let path = Name::Hashes20(id).path(replica.id());
        let bytes = self.repository.shared().store.get(&path, HASHES20_BYTES_MAX as u64)?;
        let Some(bytes) = bytes else { return Ok(()) };
        self.read(bytes.len() as u64);
        let stored = Hashes20::decode(&bytes, id).map_err(|damage| Error::damaged(path.as_ref(), damage))?;
        // Without its segment it is a leftover. A broken segment is named on its own.
        let computed = match objects.segments.contains_key(&id).then(|| compute(segments, id)) {
            Some(Ok(computed)) => computed,
            None => return Ok(()),
            Some(Err(error)) if error.is_damage() => return Ok(()),
            Some(Err(error)) => return Err(error),
        };
        if stored == computed { Ok(()) } else { Err(Error::damaged(path, Damage::Structure)) }
    }
}

/// Reads all of a segment and returns its footer's checksum: parts, index, top and footer follow each
/// other without a gap, and each is whole.
fn segment(segments: &Segments, id: SegmentId) -> Result<crate::sealed::Check, Error> {
    let damaged = |damage| segments.damaged(id, damage);
    let opened = segments.read_opened(id)?;
    let mut parts: Vec<PartEntry> = Vec::new();
    let mut last = None;
    for top in &opened.top {
        for entry in segments.index(id, top)?.iter() {
            let key = (entry.level, entry.last);
            if last.is_some_and(|last| last >= (entry.level, entry.first)) {
                return Err(damaged(Damage::Structure));
            }
            last = Some(key);
            parts.push(*entry);
        }
    }
    parts.sort_unstable_by_key(|entry| entry.at.offset);
    let (mut end, mut blocks, mut nodes, mut pages) = (HEADER_LEN as u64, 0u32, 0u32, 0u32);
    for part in &parts {
        if part.at.offset != end {
            return Err(damaged(Damage::Structure));
        }
        end = part.at.end();
        let bytes = segments.read(id, &part.at)?;
        if part.level == 0 {
            let block = Block::parse(bytes, opened.page_size);
            let block = block.map_err(|error| damaged(block_damage(error)))?;
            if (block.first().get(), block.last().get()) != (part.first, part.last) {
                return Err(damaged(Damage::Structure));
            }
            blocks += 1;
            pages += block.page_count();
        } else {
            let (place, _) = node::decode(&bytes).map_err(damaged)?;
            if (place.level, place.index) != (part.level, part.first) {
                return Err(damaged(Damage::Structure));
            }
            nodes += 1;
        }
    }
    let footer = &opened.footer;
    let counts = (blocks, nodes, pages) == (footer.blocks, footer.nodes, footer.pages);
    let index_begins = opened.top.first().map_or(footer.top.offset, |top| top.at.offset);
    let ends = end == index_begins && footer.top.end() + FOOTER_LEN as u64 == footer.bytes;
    if counts && ends { Ok(opened.check) } else { Err(damaged(Damage::Structure)) }
}
