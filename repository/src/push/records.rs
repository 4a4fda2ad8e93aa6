//! Short records of pages, collected in memory and, when they are many, in a scratch file; given back
//! in the order of their pages, each page once. Memory is bounded whatever their number.
//!
//! Records mostly come in order. Where one does not, a new run begins, and runs are merged at the
//! end; of two records of one page the later one counts.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};

use sqlrsync_protocol::page::PageNumber;

use crate::error::{Error, PeerFault};
use crate::repository::Shared;

/// Bytes of records kept in memory before they go to a file.
const BUFFER_BYTES_MAX: usize = 1 << 20;

/// The most runs, each of which costs [`MERGE_BYTES`] while they are merged.
const RUNS_MAX: usize = 4096;

/// Bytes read at a time from each run while they are merged.
const MERGE_BYTES: usize = 4 << 10;

/// Records of `N` bytes that begin with a page number (big-endian).
#[derive(Debug)]
pub(super) struct Records<const N: usize> {
    buffer: Vec<[u8; N]>,
    file: Option<File>,
    /// How many records are in the file.
    filed: u64,
    /// Where each run begins, counted in records.
    runs: Vec<u64>,
    last: u32,
    /// Sort what is in the buffer before it goes to the file.
    sorting: bool,
}

fn page_of<const N: usize>(record: &[u8; N]) -> u32 {
    u32::from_be_bytes([record[0], record[1], record[2], record[3]])
}

impl<const N: usize> Records<N> {
    /// For records that mostly come in order.
    pub(super) fn new() -> Self {
        Records { buffer: Vec::new(), file: None, filed: 0, runs: Vec::new(), last: 0, sorting: false }
    }

    /// For records in any order.
    pub(super) fn unordered() -> Self {
        Records { sorting: true, ..Records::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.filed == 0 && self.buffer.is_empty()
    }

    pub(super) fn push(&mut self, shared: &Shared, record: [u8; N]) -> Result<(), Error> {
        if self.buffer.len() * N >= BUFFER_BYTES_MAX {
            self.flush(shared)?;
        }
        if !self.sorting {
            let page = page_of(&record);
            if self.runs.is_empty() || page <= self.last {
                self.begin_run(self.filed + self.buffer.len() as u64)?;
            }
            self.last = page;
        }
        self.buffer.push(record);
        Ok(())
    }

    fn begin_run(&mut self, at: u64) -> Result<(), Error> {
        if self.runs.len() >= RUNS_MAX {
            return Err(Error::Peer(PeerFault::TooScattered));
        }
        self.runs.push(at);
        Ok(())
    }

    /// Makes what is in the buffer a run, each page once.
    fn sort(&mut self) -> Result<(), Error> {
        if self.sorting && !self.buffer.is_empty() {
            // Stable, so that of equal pages the last one stays last; from the back it comes first.
            self.buffer.reverse();
            self.buffer.sort_by_key(page_of);
            self.buffer.dedup_by_key(|record| page_of(record));
            self.begin_run(self.filed)?;
        }
        Ok(())
    }

    fn flush(&mut self, shared: &Shared) -> Result<(), Error> {
        self.sort()?;
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(shared.scratch_file()?),
        };
        file.write_all(self.buffer.as_flattened()).map_err(Error::scratch)?;
        self.filed += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// All records, ascending by page.
    pub(super) fn merge(mut self, shared: &Shared) -> Result<Merge<N>, Error> {
        if self.file.is_some() {
            self.flush(shared)?;
        } else {
            self.sort()?;
        }
        let end = self.filed + self.buffer.len() as u64;
        let ends = self.runs.iter().skip(1).copied().chain([end]);
        let runs = self.runs.iter().zip(ends).map(|(&next, end)| Run { next, end, read: Vec::new(), at: 0 });
        let mut merge =
            Merge { runs: runs.collect(), buffer: self.buffer, file: self.file, heads: BinaryHeap::new() };
        for run in 0..merge.runs.len() {
            merge.advance(run)?;
        }
        Ok(merge)
    }
}

/// Records in the order of their pages.
#[derive(Debug)]
pub(super) struct Merge<const N: usize> {
    runs: Vec<Run<N>>,
    /// All records, where there is no file.
    buffer: Vec<[u8; N]>,
    file: Option<File>,
    /// The next record of each run: lowest page first, and of one page the latest run first.
    heads: BinaryHeap<Reverse<(u32, Reverse<usize>, [u8; N])>>,
}

#[derive(Debug)]
struct Run<const N: usize> {
    /// Next record to be read from the file, and the first that is not part of the run.
    next: u64,
    end: u64,
    read: Vec<[u8; N]>,
    at: usize,
}

impl<const N: usize> Merge<N> {
    /// The next page and its latest record.
    pub(super) fn next(&mut self) -> Result<Option<(PageNumber, [u8; N])>, Error> {
        let Some(Reverse((page, Reverse(run), record))) = self.heads.pop() else { return Ok(None) };
        self.advance(run)?;
        while let Some(Reverse((other, Reverse(run), _))) = self.heads.peek()
            && *other == page
        {
            let run = *run;
            self.heads.pop();
            self.advance(run)?;
        }
        Ok(PageNumber::new(page).map(|page| (page, record)))
    }

    fn advance(&mut self, index: usize) -> Result<(), Error> {
        let run = &mut self.runs[index];
        let record = match &mut self.file {
            None if run.next < run.end => {
                run.next += 1;
                self.buffer.get(run.next as usize - 1).copied()
            }
            None => None,
            Some(file) => {
                if run.at == run.read.len() {
                    run.refill(file).map_err(Error::scratch)?;
                }
                run.at += 1;
                run.read.get(run.at - 1).copied()
            }
        };
        if let Some(record) = record {
            self.heads.push(Reverse((page_of(&record), Reverse(index), record)));
        }
        Ok(())
    }
}

impl<const N: usize> Run<N> {
    fn refill(&mut self, file: &mut File) -> std::io::Result<()> {
        let count = (self.end - self.next).min((MERGE_BYTES / N) as u64);
        self.read.clear();
        self.read.resize(count as usize, [0; N]);
        file.seek(SeekFrom::Start(self.next * N as u64))?;
        file.read_exact(self.read.as_flattened_mut())?;
        self.next += count;
        self.at = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::repository::Repository;

    fn record(page: u32, order: u32) -> [u8; 8] {
        let mut record = [0; 8];
        record[..4].copy_from_slice(&page.to_be_bytes());
        record[4..].copy_from_slice(&order.to_be_bytes());
        record
    }

    fn merged(pages: &[u32], mut records: Records<8>) -> (Vec<(u32, u32)>, Vec<(u32, u32)>) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let repository = Repository::memory(runtime.handle().clone());
        let mut expected = BTreeMap::new();
        for (order, &page) in (0..).zip(pages) {
            records.push(repository.shared(), record(page, order)).unwrap();
            expected.insert(page, order);
        }
        let mut merge = records.merge(repository.shared()).unwrap();
        let mut found = Vec::new();
        while let Some((page, record)) = merge.next().unwrap() {
            found.push((page.get(), u32::from_be_bytes([record[4], record[5], record[6], record[7]])));
        }
        (found, expected.into_iter().collect())
    }

    #[test]
    fn the_last_record_of_each_page_comes_back_in_page_order() {
        let few: Vec<u32> = vec![5, 6, 9, 2, 6, 7, 1, 9, 9];
        // More than the buffer holds, in four runs that overlap.
        let many: Vec<u32> = (0..4).flat_map(|run| (1..60_000).map(move |n| n * (4 - run))).collect();
        let scattered: Vec<u32> =
            (0..300_000u32).map(|n| n.wrapping_mul(2_654_435_761) % 50_000 + 1).collect();
        for pages in [&[][..], &few, &many] {
            let (found, expected) = merged(pages, Records::new());
            assert!(found == expected, "{} records", pages.len());
        }
        for pages in [&[][..], &few, &many, &scattered] {
            let (found, expected) = merged(pages, Records::unordered());
            assert!(found == expected, "{} records, sorted", pages.len());
        }
    }
}
