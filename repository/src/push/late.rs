//! Pages that came after a later one (versions 1 and 2 promise no order): kept in a scratch file until
//! all are there, and given back in order, each once.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};

use sqlrsync_protocol::page::PageNumber;

use super::records::{Merge, Records};
use crate::error::{Error, PeerFault};
use crate::repository::Shared;

/// A page number and the page's place in the scratch file.
const RECORD_LEN: usize = 8;

/// The pages that came late.
#[derive(Debug)]
pub(super) struct LatePages {
    file: File,
    records: Records<RECORD_LEN>,
    page_bytes: usize,
    count: u32,
    count_max: u64,
}

impl LatePages {
    /// At most `bytes_max` of pages are taken: as much as the whole database may have.
    pub(super) fn new(shared: &Shared, page_bytes: usize, bytes_max: u64) -> Result<Self, Error> {
        let count_max = bytes_max / page_bytes as u64;
        let file = shared.scratch_file()?;
        Ok(LatePages { file, records: Records::unordered(), page_bytes, count: 0, count_max })
    }

    pub(super) fn push(&mut self, shared: &Shared, page: PageNumber, bytes: &[u8]) -> Result<(), Error> {
        if u64::from(self.count) >= self.count_max || self.count == u32::MAX {
            return Err(Error::Peer(PeerFault::TooScattered));
        }
        self.file.write_all(bytes).map_err(Error::scratch)?;
        let mut record = [0; RECORD_LEN];
        record[..4].copy_from_slice(&page.get().to_be_bytes());
        record[4..].copy_from_slice(&self.count.to_be_bytes());
        self.count += 1;
        self.records.push(shared, record)
    }

    pub(super) fn read(self, shared: &Shared) -> Result<ReadLate, Error> {
        let merge = self.records.merge(shared)?;
        Ok(ReadLate { file: self.file, merge, page: vec![0; self.page_bytes] })
    }
}

/// Late pages, ascending.
#[derive(Debug)]
pub(super) struct ReadLate {
    file: File,
    merge: Merge<RECORD_LEN>,
    page: Vec<u8>,
}

impl ReadLate {
    pub(super) fn next(&mut self) -> Result<Option<(PageNumber, &[u8])>, Error> {
        let Some((page, record)) = self.merge.next()? else { return Ok(None) };
        let place = u32::from_be_bytes([record[4], record[5], record[6], record[7]]);
        let offset = u64::from(place) * self.page.len() as u64;
        self.file.seek(SeekFrom::Start(offset)).map_err(Error::scratch)?;
        self.file.read_exact(&mut self.page).map_err(Error::scratch)?;
        Ok(Some((page, &self.page)))
    }
}
