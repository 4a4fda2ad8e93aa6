//! What cut pushes left: a record beside a segment says whose it is, until when, and what its blocks
//! hash to, so that a later push by the same hand can take them over without sending them again.
//!
//! ```text
//! check 16, magic "sqlrsync staged." 16, format version u8, log2(page size) u8,
//! expires u64 (seconds since 1970), segment: id 16, length u64, check 16; blocks u32,
//! block: runs u16, run: first page u32, number of pages u16; hash 32 (protocol: staged_hash)
//! ```

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use sqlrsync_protocol::block::RUNS_MAX;
use sqlrsync_protocol::exchange::StagedBlock;
use sqlrsync_protocol::hash::PageHash;
use sqlrsync_protocol::page::{PageNumber, PageSize};

use crate::error::{Damage, Error};
use crate::id::{Name, Scope, SegmentId};
use crate::replica::Replica;
use crate::sealed::{CHECK_LEN, Fields, seal, unseal};
use crate::segment::Written;
use crate::segment::format::{SEGMENT_PAGES_MAX, SEGMENT_PARTS_MAX};

const MAGIC: &[u8; 16] = b"sqlrsync staged.";
const FORMAT_VERSION: u8 = 1;

/// How long what a cut push left waits to be continued.
pub(crate) const STAGED_TIME_MAX: SignedDuration = SignedDuration::from_hours(24);

/// The most bytes of a record: one of a segment whose pages are all apart from each other.
pub(crate) const STAGED_BYTES_MAX: usize = 1024 + SEGMENT_PAGES_MAX as usize * 6 + SEGMENT_PARTS_MAX * 34;

/// A record of a staged segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StagedRecord {
    pub(crate) page_size: PageSize,
    pub(crate) expires: Timestamp,
    pub(crate) segment: Written,
    pub(crate) blocks: Vec<StagedBlock>,
}

impl StagedRecord {
    pub(crate) fn encode(&self) -> Bytes {
        let mut bytes = vec![0; CHECK_LEN];
        bytes.extend(MAGIC);
        bytes.extend([FORMAT_VERSION, self.page_size.log2()]);
        bytes.extend(self.expires.as_second().max(0).to_be_bytes());
        bytes.extend(self.segment.id.0);
        bytes.extend(self.segment.bytes.to_be_bytes());
        bytes.extend(self.segment.check);
        bytes.extend((self.blocks.len() as u32).to_be_bytes());
        for block in &self.blocks {
            bytes.extend((block.runs.len() as u16).to_be_bytes());
            for (first, len) in &block.runs {
                bytes.extend(first.get().to_be_bytes());
                bytes.extend(len.to_be_bytes());
            }
            bytes.extend(block.hash.0);
        }
        seal(bytes).0.into()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<StagedRecord, Damage> {
        if bytes.len() > STAGED_BYTES_MAX {
            return Err(Damage::TooLarge);
        }
        let (_, content) = unseal(bytes)?;
        let mut fields = Fields::new(content);
        if fields.array()? != *MAGIC || fields.u8()? != FORMAT_VERSION {
            return Err(Damage::Format);
        }
        let page_size = PageSize::from_log2(fields.u8()?).ok_or(Damage::Structure)?;
        let expires = i64::try_from(fields.u64()?).ok().and_then(|s| Timestamp::from_second(s).ok());
        let expires = expires.ok_or(Damage::Structure)?;
        let id = SegmentId(fields.array()?);
        let segment = Written { id, bytes: fields.u64()?, check: fields.array()? };
        let count = fields.u32()? as usize;
        if count > SEGMENT_PARTS_MAX {
            return Err(Damage::TooLarge);
        }
        let mut blocks = Vec::with_capacity(count);
        for _ in 0..count {
            blocks.push(decode_block(&mut fields)?);
        }
        fields.end()?;
        Ok(StagedRecord { page_size, expires, segment, blocks })
    }
}

fn decode_block(fields: &mut Fields<'_>) -> Result<StagedBlock, Damage> {
    let count = usize::from(fields.u16()?);
    if count == 0 || count > RUNS_MAX {
        return Err(Damage::Structure);
    }
    let mut runs = Vec::with_capacity(count);
    for _ in 0..count {
        let first = PageNumber::new(fields.u32()?).ok_or(Damage::Structure)?;
        runs.push((first, fields.u16()?));
    }
    Ok(StagedBlock { runs, hash: PageHash(fields.array()?) })
}

impl Replica {
    /// What cut pushes of a scope left, as far as it has not expired, and the bytes that it takes up.
    /// A record that cannot be read is left to `check` and `sweep`, and is no reason to refuse a push.
    pub(crate) fn staged(&self, scope: Scope, now: Timestamp) -> Result<(Vec<StagedRecord>, u64), Error> {
        let folder = Name::Staged(scope, SegmentId::NONE).path(self.id());
        let prefix: object_store::path::Path = folder.parts().take(4).collect();
        let mut records = Vec::new();
        let mut bytes = 0;
        for listed in self.shared().store.list(&prefix)? {
            let Some((_, Name::Staged(of, id))) = Name::parse(&listed.path) else { continue };
            if of != scope {
                continue;
            }
            match self.staged_record(scope, id) {
                Ok(Some(record)) if record.expires > now => {
                    bytes += record.segment.bytes;
                    records.push(record);
                }
                Ok(_) => {}
                Err(error) if error.is_damage() => {
                    tracing::warn!(%error, "what a cut push left is not offered");
                }
                Err(error) => return Err(error),
            }
        }
        records.sort_unstable_by_key(|record| record.segment.id);
        Ok((records, bytes))
    }

    /// The record of a staged segment; `None` where there is none.
    pub(crate) fn staged_record(&self, scope: Scope, id: SegmentId) -> Result<Option<StagedRecord>, Error> {
        let path = Name::Staged(scope, id).path(self.id());
        let Some(bytes) = self.shared().store.get(&path, STAGED_BYTES_MAX as u64)? else { return Ok(None) };
        match StagedRecord::decode(&bytes) {
            Ok(record) if record.segment.id == id => Ok(Some(record)),
            Ok(_) => Err(Error::damaged(path, Damage::Misplaced)),
            Err(damage) => Err(Error::damaged(path, damage)),
        }
    }
}
