//! What changed in a page tree: pages' hashes and scan groups' hashes, in ascending order, kept in
//! memory while they are few and in a file without a name when they are many.

use std::io::{BufReader, BufWriter, ErrorKind, Read, Seek, Write};
use std::path::{Path, PathBuf};

use sqlrsync_protocol::hash::PageHash;
use sqlrsync_protocol::page::PageNumber;
use tempfile::SpooledTempFile;

use crate::error::{Error, io_error};

/// How many bytes of changes stay in memory (28,000 pages).
const MEMORY_MAX: usize = 1 << 20;

/// tag u8 (0 page, 1 group) · number u32 · hash 32
const RECORD_LEN: usize = 5 + PageHash::LEN;

/// A change of a page tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Change {
    /// The page hashes to this now.
    Page(PageNumber, PageHash),
    /// The scan group, counted from 0, hashes to this now.
    Group(u32, PageHash),
}

/// Changes in the order in which they were recorded.
pub(crate) struct Delta {
    file: BufWriter<SpooledTempFile>,
    dir: PathBuf,
    len: u64,
}

impl Delta {
    /// An empty one, which spills into a file in `dir`.
    pub(crate) fn new(dir: &Path) -> Delta {
        let file = tempfile::spooled_tempfile_in(MEMORY_MAX, dir);
        Delta { file: BufWriter::new(file), dir: dir.to_path_buf(), len: 0 }
    }

    /// The folder that it spills into.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn record(&mut self, change: Change) -> Result<(), Error> {
        let (tag, number, hash) = match change {
            Change::Page(page, hash) => (0, page.get(), hash),
            Change::Group(group, hash) => (1, group, hash),
        };
        let mut record = [tag; RECORD_LEN];
        record[1..5].copy_from_slice(&number.to_be_bytes());
        record[5..].copy_from_slice(&hash.0);
        self.len += 1;
        self.file.write_all(&record).map_err(io_error("keeping page hashes", &self.dir))
    }

    /// Gives all changes again, from the first.
    pub(crate) fn replay(&mut self, mut each: impl FnMut(Change) -> Result<(), Error>) -> Result<(), Error> {
        let io = |error| Error::io("reading back page hashes", &self.dir, error);
        self.file.flush().map_err(io)?;
        let file = self.file.get_mut();
        file.rewind().map_err(io)?;
        let mut reader = BufReader::new(file);
        let mut record = [0; RECORD_LEN];
        for _ in 0..self.len {
            reader.read_exact(&mut record).map_err(io)?;
            let number = u32::from_be_bytes([record[1], record[2], record[3], record[4]]);
            let mut hash = PageHash([0; PageHash::LEN]);
            hash.0.copy_from_slice(&record[5..]);
            each(match (record[0], PageNumber::new(number)) {
                (0, Some(page)) => Change::Page(page, hash),
                (0, None) => return Err(io(ErrorKind::InvalidData.into())),
                _ => Change::Group(number, hash),
            })?;
        }
        Ok(())
    }
}
