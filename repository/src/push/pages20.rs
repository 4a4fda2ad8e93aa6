//! Pages as versions 1 and 2 send them: one by one, with their header fields, in no promised order.
//! They are put into blocks here, and hashed for the rounds of the next push.

use sqlrsync_protocol::block::{BlockBuilder, Effort};
use sqlrsync_protocol::canonical::{HeaderFields, make_canonical};
use sqlrsync_protocol::hash::PageHash;
use sqlrsync_protocol::page::{PageNumber, PageSize};
use sqlrsync_protocol::sponge::{Hash20, hash20};

use super::collector::Collector;
use super::late::LatePages;
use crate::error::Error;
use crate::replica::Replica;

/// What page 1 was, when it came last.
#[derive(Debug, Clone, Copy)]
pub(super) struct First {
    pub(super) fields: HeaderFields,
    pub(super) hash20: Hash20,
}

/// Makes blocks of pages.
#[derive(Debug)]
pub(super) struct Pages20 {
    replica: Replica,
    bytes_max: u64,
    page_size: PageSize,
    builder: BlockBuilder,
    hashes: Vec<PageHash>,
    hashes20: Vec<Hash20>,
    /// The highest page that was put into a block.
    highest: Option<PageNumber>,
    late: Option<LatePages>,
    pub(super) first: Option<First>,
    canonical: Vec<u8>,
}

impl Pages20 {
    pub(super) fn new(replica: &Replica, page_size: PageSize, bytes_max: u64) -> Self {
        Pages20 {
            replica: replica.clone(),
            bytes_max,
            page_size,
            builder: BlockBuilder::new(page_size),
            hashes: Vec::new(),
            hashes20: Vec::new(),
            highest: None,
            late: None,
            first: None,
            canonical: Vec::new(),
        }
    }

    /// Takes a page as it is in the origin's file.
    pub(super) fn take(&mut self, number: PageNumber, page: &[u8], out: &mut Collector) -> Result<(), Error> {
        let mut canonical = std::mem::take(&mut self.canonical);
        canonical.clear();
        canonical.extend_from_slice(page);
        if number == PageNumber::FIRST {
            let fields = make_canonical(&mut canonical);
            self.first = Some(First { fields, hash20: hash20(page) });
        }
        let taken = if self.highest.is_some_and(|highest| number <= highest) {
            self.put_late(number, &canonical)
        } else {
            self.put(number, &canonical, out)
        };
        self.canonical = canonical;
        taken
    }

    fn put_late(&mut self, number: PageNumber, canonical: &[u8]) -> Result<(), Error> {
        let shared = self.replica.shared();
        let late = match &mut self.late {
            Some(late) => late,
            none => none.insert(LatePages::new(shared, self.page_size.bytes(), self.bytes_max)?),
        };
        late.push(shared, number, canonical)
    }

    /// Adds a canonical page behind the last one.
    fn put(&mut self, number: PageNumber, canonical: &[u8], out: &mut Collector) -> Result<(), Error> {
        if self.builder.is_full() {
            self.flush(out)?;
        }
        self.builder.push(number, canonical);
        self.hashes.push(PageHash::of(canonical));
        self.hashes20.push(hash20(canonical));
        self.highest = Some(number);
        Ok(())
    }

    fn flush(&mut self, out: &mut Collector) -> Result<(), Error> {
        if let Some(block) = self.builder.finish(Effort::Fast) {
            out.take(&block, &self.hashes, &self.hashes20)?;
            self.hashes.clear();
            self.hashes20.clear();
        }
        Ok(())
    }

    /// All pages are there.
    pub(super) fn finish(&mut self, out: &mut Collector) -> Result<(), Error> {
        self.flush(out)?;
        if let Some(late) = self.late.take() {
            let mut late = late.read(self.replica.shared())?;
            while let Some((number, canonical)) = late.next()? {
                self.put(number, canonical, out)?;
            }
            self.flush(out)?;
        }
        Ok(())
    }
}
