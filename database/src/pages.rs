//! Reading the pages of an open transaction: many at a time from the database file where that is the
//! same, and through SQLite's `sqlite_dbpage` where it is not.
//!
//! - The file is read through handles of SQLite's own (`handle.rs`), so that no lock is dropped; by several
//!   threads at the same time, each with one of its own.
//! - A page with a frame in the WAL up to the transaction's end is never read from the file: its place
//!   there may be old, or be written by a checkpoint at this very moment. All other pages of the file stay
//!   as they are while the transaction is open: `docs/live-files.md` says why, from SQLite's source.
//! - Where the WAL's frames cannot be told for certain, every page goes through SQLite.

use std::fs::File;
use std::io::ErrorKind;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use roaring::RoaringBitmap;
use rusqlite::{Connection, ffi};
use sqlrsync_protocol::page::{Geometry, PageNumber};

use crate::error::{Error, io_error};
use crate::fingerprint::{Wal, WalPoint, beside};
use crate::handle::{self, Handle};
use crate::wal_file::{FRAME_HEADER_LEN, FrameHeader, WAL_HEADER_LEN};

/// So many frames' headers are read in the time in which SQLite reads a page.
const FRAMES_PER_PAGE: u64 = 4;

/// Which pages to read.
#[derive(Clone, Debug)]
pub(crate) enum Pages {
    /// All.
    All,
    /// These. Those past the end are left out.
    Only(RoaringBitmap),
}

/// An open transaction that has not written.
pub(crate) struct View<'v> {
    pub(crate) path: &'v Path,
    pub(crate) connection: &'v Connection,
    pub(crate) geometry: Geometry,
    /// Where in the WAL it ends.
    pub(crate) wal: Wal,
}

/// One committed state whose pages can be read.
pub(crate) trait ReadPages {
    fn view(&self) -> View<'_>;

    /// [`Error::ChangedMeanwhile`] where somebody is seen to have written to the file past SQLite, since the
    /// transaction began: what was read is then of no one state.
    fn check(&self) -> Result<(), Error> {
        Ok(())
    }
}

/// Reads pages of a transaction, which ends when the reader is dropped, if it came as a whole.
pub(crate) struct PageReader<S> {
    source: S,
    /// The pages that must come through SQLite; `None`: all of them.
    in_wal: Option<RoaringBitmap>,
}

impl<S: ReadPages> PageReader<S> {
    pub(crate) fn new(source: S) -> Result<PageReader<S>, Error> {
        let in_wal = pages_in_wal(&source.view())?;
        Ok(PageReader { source, in_wal })
    }

    /// One that is to read so many pages. Few of them go through SQLite, one by one: that costs what they
    /// are, and not what the WAL is.
    pub(crate) fn for_pages(source: S, count: u64) -> Result<PageReader<S>, Error> {
        match source.view().wal {
            Wal::Frames(end) if count.saturating_mul(FRAMES_PER_PAGE) < u64::from(end.frame) => {
                Ok(PageReader { source, in_wal: None })
            }
            _ => PageReader::new(source),
        }
    }

    /// As [`ReadPages::check`].
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.source.check()
    }

    /// Fills `out` with these pages, which ascend. The lock page reads as zeros.
    pub(crate) fn read(&self, numbers: &[PageNumber], out: &mut Vec<u8>) -> Result<(), Error> {
        let view = self.source.view();
        let page_len = view.geometry.page_size.bytes();
        out.resize(numbers.len() * page_len, 0);
        for run in runs(numbers, view.geometry, self.in_wal.as_ref()) {
            run.read(&view, &mut out[run.bytes(page_len)])?;
        }
        Ok(())
    }
}

/// Pages in a row that are read in one way.
struct Run {
    /// Places in what is asked for.
    places: Range<usize>,
    first: PageNumber,
    way: Way,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    File,
    /// One page.
    Sqlite,
    /// The lock page.
    Zeros,
}

impl Run {
    fn bytes(&self, page_len: usize) -> Range<usize> {
        self.places.start * page_len..self.places.end * page_len
    }

    fn start(&self, geometry: Geometry) -> i64 {
        i64::from(self.first.index()) * geometry.page_size.bytes() as i64
    }

    /// Reads them through the transaction's own connection.
    fn read(&self, view: &View<'_>, out: &mut [u8]) -> Result<(), Error> {
        match self.way {
            Way::File => handle::read(view.connection, self.start(view.geometry), out)
                .map_err(|code| code_error(view.path, code)),
            Way::Sqlite => read_dbpage(view, self.first, out),
            Way::Zeros => {
                out.fill(0);
                Ok(())
            }
        }
    }
}

/// These pages, which ascend, as runs. Without `in_wal` all of them go through SQLite.
fn runs<'n>(
    numbers: &'n [PageNumber],
    geometry: Geometry,
    in_wal: Option<&'n RoaringBitmap>,
) -> impl Iterator<Item = Run> + 'n {
    let lock_page = geometry.page_size.lock_page();
    let way = move |number: PageNumber| match in_wal {
        _ if number == lock_page => Way::Zeros,
        Some(in_wal) if !in_wal.contains(number.get()) => Way::File,
        _ => Way::Sqlite,
    };
    let mut at = 0;
    std::iter::from_fn(move || {
        let (start, first) = (at, *numbers.get(at)?);
        let in_file =
            |(number, next): &(&PageNumber, u32)| number.get() == *next && way(**number) == Way::File;
        let len = numbers[at..].iter().zip(first.get()..).take_while(in_file).count();
        at += len.max(1);
        Some(Run { places: start..at, first, way: way(first) })
    })
}

fn code_error(path: &Path, code: handle::Code) -> Error {
    Error::sqlite(path, rusqlite::Error::SqliteFailure(ffi::Error::new(code), None))
}

/// The pages of all frames up to the transaction's end, also those that are in the file by now: more than
/// need be is never wrong. `None` where the frames are not those of the transaction.
fn pages_in_wal(view: &View<'_>) -> Result<Option<RoaringBitmap>, Error> {
    let end = match view.wal {
        // Nothing is put into the file either: a checkpoint stops at the transaction's end.
        Wal::Empty => return Ok(Some(RoaringBitmap::new())),
        Wal::Frames(end) => end,
        Wal::Unknown => return Ok(None),
    };
    let path = beside(view.path, "-wal");
    let read = || frame_pages(&File::open(&path)?, view.geometry, &end);
    match read() {
        // Emptied or removed: the transaction reads the file alone, but that is not told from here.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::UnexpectedEof) => Ok(None),
        other => other.map_err(io_error("reading the WAL", &path)),
    }
}

fn frame_pages(wal: &File, geometry: Geometry, end: &WalPoint) -> std::io::Result<Option<RoaringBitmap>> {
    let mut pages = RoaringBitmap::new();
    let frame_len = FRAME_HEADER_LEN + geometry.page_size.bytes() as u64;
    let mut bytes = [0; FRAME_HEADER_LEN as usize];
    let mut checksum = None;
    for index in 0..end.frame {
        wal.read_exact_at(&mut bytes, WAL_HEADER_LEN + u64::from(index) * frame_len)?;
        let frame = FrameHeader::parse(&bytes);
        // Started over by a writer, which it is only once all of it is in the file.
        if frame.salts != end.salts {
            return Ok(None);
        }
        pages.insert(frame.page);
        checksum = Some(frame.checksum);
    }
    Ok((checksum == Some(end.checksum)).then_some(pages))
}

/// Reads one page as the transaction sees it, wherever it is.
pub(crate) fn read_dbpage(view: &View<'_>, number: PageNumber, out: &mut [u8]) -> Result<(), Error> {
    let mut read = || -> rusqlite::Result<()> {
        let sql = "SELECT data FROM sqlite_dbpage WHERE pgno = ?1";
        let mut statement = view.connection.prepare_cached(sql)?;
        statement.query_row([number.get()], |row| match row.get_ref(0)?.as_blob() {
            Ok(page) if page.len() == out.len() => {
                out.copy_from_slice(page);
                Ok(())
            }
            _ => Err(rusqlite::Error::InvalidQuery),
        })
    };
    read().map_err(|error| Error::sqlite(view.path, error))
}

/// Chunks of pages that several threads read. The transaction ends with the last chunk.
pub(crate) struct Chunks<'p, S> {
    open: Mutex<Open<S>>,
    /// As the reader has it, for those who read past it.
    in_wal: Option<RoaringBitmap>,
    pages: &'p Pages,
    geometry: Geometry,
    path: PathBuf,
    /// Pages in a chunk.
    room: u32,
}

struct Open<S> {
    reader: Option<PageReader<S>>,
    /// Chunks that were read.
    read: u64,
}

/// What a thread that reads chunks keeps in between.
#[derive(Default)]
pub(crate) enum Own {
    #[default]
    Nothing,
    /// A handle of the file, so that it need not wait for the other threads.
    Handle(Handle),
    /// There is none to be had.
    Refused,
}

impl<'p, S: ReadPages> Chunks<'p, S> {
    pub(crate) fn new(source: S, pages: &'p Pages, room: u32) -> Result<Self, Error> {
        let (geometry, path) = (source.view().geometry, source.view().path.to_owned());
        let reader = match pages {
            Pages::All => PageReader::new(source)?,
            Pages::Only(numbers) => PageReader::for_pages(source, numbers.len())?,
        };
        let in_wal = reader.in_wal.clone();
        let open = Mutex::new(Open { reader: Some(reader), read: 0 });
        Ok(Chunks { open, in_wal, pages, geometry, path, room })
    }

    /// How many there are.
    pub(crate) fn len(&self) -> u64 {
        let count = self.geometry.page_count.get();
        let pages = match self.pages {
            Pages::All => u64::from(count),
            Pages::Only(numbers) => numbers.rank(count),
        };
        pages.div_ceil(u64::from(self.room))
    }

    /// Puts the numbers and the content of a chunk's pages into `numbers` and `data`. Each chunk is read
    /// once, in any order.
    pub(crate) fn read(
        &self,
        chunk: u64,
        own: &mut Own,
        numbers: &mut Vec<PageNumber>,
        data: &mut Vec<u8>,
    ) -> Result<(), Error> {
        numbers.clear();
        self.numbers(chunk, numbers);
        let done = self.read_runs(own, numbers, data);
        let mut open = self.lock();
        open.read += 1;
        let is_last = open.read == self.len();
        let reader = open.reader.as_ref().ok_or(Error::Stopped)?;
        if is_last || done.is_err() {
            // Whoever wrote past SQLite is to blame for what could not be read, too.
            reader.source.check()?;
        }
        if is_last {
            open.reader = None;
        }
        done
    }

    fn read_runs(&self, own: &mut Own, numbers: &[PageNumber], data: &mut Vec<u8>) -> Result<(), Error> {
        let page_len = self.geometry.page_size.bytes();
        data.resize(numbers.len() * page_len, 0);
        for run in runs(numbers, self.geometry, self.in_wal.as_ref()) {
            let place = &mut data[run.bytes(page_len)];
            match self.handle(own) {
                Some(handle) if run.way == Way::File => handle
                    .read(run.start(self.geometry), place)
                    .map_err(|code| code_error(&self.path, code))?,
                _ => self.with_reader(|reader| run.read(&reader.source.view(), place))?,
            }
        }
        Ok(())
    }

    /// A handle for the thread that has `own`, where it is worth one: where all is read.
    fn handle<'o>(&self, own: &'o mut Own) -> Option<&'o mut Handle> {
        if let (Own::Nothing, Pages::All, Some(_)) = (&own, self.pages, &self.in_wal) {
            let opened = self.with_reader(|reader| Ok(Handle::open(reader.source.view().connection)));
            *own = match opened {
                Ok(Ok(handle)) => Own::Handle(handle),
                // Nothing is lost but time.
                _ => Own::Refused,
            };
        }
        match own {
            Own::Handle(handle) => Some(handle),
            Own::Nothing | Own::Refused => None,
        }
    }

    fn with_reader<T>(&self, read: impl FnOnce(&PageReader<S>) -> Result<T, Error>) -> Result<T, Error> {
        read(self.lock().reader.as_ref().ok_or(Error::Stopped)?)
    }

    fn lock(&self) -> MutexGuard<'_, Open<S>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn numbers(&self, chunk: u64, numbers: &mut Vec<PageNumber>) {
        let Ok(first) = u32::try_from(chunk * u64::from(self.room)) else { return };
        match self.pages {
            Pages::All => {
                let end = first.saturating_add(self.room).min(self.geometry.page_count.get());
                numbers.extend((first..end).filter_map(PageNumber::from_index));
            }
            Pages::Only(all) => {
                let Some(first) = all.select(first) else { return };
                let chunk = all.range(first..=self.geometry.page_count.get()).take(self.room as usize);
                numbers.extend(chunk.filter_map(PageNumber::new));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::snapshot::Snapshot;

    /// A database in WAL mode whose pages are all in the file, with a connection that writes on.
    struct Live {
        dir: tempfile::TempDir,
        writer: Connection,
    }

    impl Live {
        fn new() -> Live {
            let dir = tempfile::tempdir().unwrap();
            let writer = Connection::open(dir.path().join("live.db")).unwrap();
            let sql = "PRAGMA page_size = 512; PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0;
                       CREATE TABLE t (id INTEGER PRIMARY KEY, text TEXT)";
            writer.execute_batch(sql).unwrap();
            let live = Live { dir, writer };
            live.insert(2000);
            live.checkpoint("TRUNCATE");
            live
        }

        fn path(&self) -> PathBuf {
            self.dir.path().join("live.db")
        }

        fn insert(&self, rows: u32) {
            let sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
                       INSERT INTO t (text) SELECT hex(randomblob(50)) FROM n";
            self.writer.execute(sql, [rows]).unwrap();
        }

        fn change(&self) {
            self.writer.execute("UPDATE t SET text = hex(randomblob(50)) WHERE id % 40 = 0", []).unwrap();
        }

        fn checkpoint(&self, mode: &str) {
            let sql = format!("PRAGMA wal_checkpoint({mode})");
            self.writer.query_row(&sql, [], |_| Ok(())).unwrap();
        }

        fn snapshot(&self) -> Snapshot {
            Snapshot::open(&self.path()).unwrap()
        }
    }

    fn all_pages(snapshot: &Snapshot) -> Vec<PageNumber> {
        (0..snapshot.geometry().page_count.get()).filter_map(PageNumber::from_index).collect()
    }

    /// All that the snapshot has, read as fast as may be.
    fn read(snapshot: &mut Snapshot) -> (Vec<u8>, Option<u64>) {
        let (numbers, mut data) = (all_pages(snapshot), Vec::new());
        let reader = PageReader::new(snapshot).unwrap();
        reader.read(&numbers, &mut data).unwrap();
        (data, reader.in_wal.as_ref().map(RoaringBitmap::len))
    }

    /// The same, through SQLite alone.
    fn committed(snapshot: &Snapshot) -> Vec<u8> {
        let view = snapshot.view();
        let mut page = vec![0; view.geometry.page_size.bytes()];
        let mut data = Vec::new();
        for number in all_pages(snapshot) {
            read_dbpage(&view, number, &mut page).unwrap();
            data.extend_from_slice(&page);
        }
        data
    }

    #[test]
    fn pages_in_the_wal_are_not_read_from_the_file() {
        let live = Live::new();
        live.change();
        live.insert(500);
        let mut snapshot = live.snapshot();
        let before = std::fs::metadata(live.path()).unwrap().len();
        let (data, in_wal) = read(&mut snapshot);
        assert!(
            in_wal.unwrap() > 50 && data.len() as u64 > before,
            "changed and new pages are in the WAL only"
        );
        assert!(in_wal.unwrap() < u64::from(snapshot.geometry().page_count.get()) / 2, "and not many others");
        assert_eq!(data, committed(&snapshot));
    }

    #[test]
    fn a_checkpoint_beside_an_open_snapshot_does_not_show() {
        let live = Live::new();
        live.change();
        let mut snapshot = live.snapshot();
        let then = committed(&snapshot);
        live.change();
        live.insert(500);
        for mode in ["PASSIVE", "FULL", "RESTART", "TRUNCATE"] {
            live.writer.busy_timeout(std::time::Duration::ZERO).unwrap();
            live.checkpoint(mode);
            let (data, in_wal) = read(&mut snapshot);
            assert!(in_wal.is_some());
            assert_eq!(data, then, "{mode}");
        }
    }

    #[test]
    fn a_wal_that_was_started_over_beside_a_snapshot_of_the_file_alone_does_not_show() {
        let live = Live::new();
        live.change();
        live.checkpoint("FULL");
        // All of the WAL is in the file: the snapshot does not keep a writer from starting it over.
        let mut snapshot = live.snapshot();
        let then = committed(&snapshot);
        live.change();
        live.checkpoint("PASSIVE");
        assert_eq!(read(&mut snapshot), (then, None), "the frames are others, and nothing is certain");
    }

    #[test]
    fn a_file_in_rollback_mode_is_read_from_the_file() {
        let live = Live::new();
        live.writer.execute_batch("PRAGMA journal_mode = DELETE").unwrap();
        live.change();
        let mut snapshot = live.snapshot();
        let (data, in_wal) = read(&mut snapshot);
        assert_eq!((in_wal, data == std::fs::read(live.path()).unwrap()), (Some(0), true));
        // Those locks are gone now, by the test's own reading.
        drop(snapshot);
    }

    #[test]
    fn a_file_that_is_written_past_sqlite_while_it_is_read_is_no_one_state() {
        let live = Live::new();
        live.writer.execute_batch("PRAGMA journal_mode = DELETE").unwrap();
        let mut snapshot = live.snapshot();
        let whole = std::fs::read(live.path()).unwrap();
        let chunks = Chunks::new(&mut snapshot, &Pages::All, 16).unwrap();
        let (mut own, mut numbers, mut data) = (Own::default(), Vec::new(), Vec::new());
        let mut read = |chunk| chunks.read(chunk, &mut own, &mut numbers, &mut data);
        (0..chunks.len() - 1).for_each(|chunk| read(chunk).unwrap());
        // As `cp` does, which asks for no lock.
        std::fs::write(live.path(), &whole[..whole.len() - 512]).unwrap();
        assert!(matches!(read(chunks.len() - 1), Err(Error::ChangedMeanwhile { .. })));
    }

    #[test]
    fn who_reads_all_has_a_handle_and_sees_the_transaction_whatever_is_written_beside() {
        let live = Live::new();
        live.change();
        let mut snapshot = live.snapshot();
        let then = committed(&snapshot);
        let chunks = Chunks::new(&mut snapshot, &Pages::All, 16).unwrap();
        let (mut own, mut numbers, mut data) = (Own::default(), Vec::new(), Vec::new());
        for chunk in 0..chunks.len() {
            live.change();
            live.checkpoint("PASSIVE");
            chunks.read(chunk, &mut own, &mut numbers, &mut data).unwrap();
            let at = chunk as usize * 16 * 512;
            assert!(data == then[at..at + data.len()], "chunk {chunk}");
            assert!(matches!(own, Own::Handle(_)), "no other thread is waited for");
        }
    }

    #[test]
    fn chunks_of_picked_pages_have_each_of_them_once_and_end_the_transaction() {
        let live = Live::new();
        let snapshot = live.snapshot();
        let whole = committed(&snapshot);
        let count = snapshot.geometry().page_count.get();
        let picked: RoaringBitmap = (1..count + 9).filter(|n| n % 3 == 0).collect();
        let pages = Pages::Only(picked.clone());
        let chunks = Chunks::new(snapshot, &pages, 16).unwrap();
        let (mut seen, mut numbers, mut data) = (RoaringBitmap::new(), Vec::new(), Vec::new());
        let mut own = Own::default();
        for chunk in (0..chunks.len()).rev() {
            chunks.read(chunk, &mut own, &mut numbers, &mut data).unwrap();
            for (number, page) in numbers.iter().zip(data.chunks(512)) {
                let at = number.index() as usize * 512;
                assert!(seen.insert(number.get()) && page == &whole[at..at + 512]);
            }
        }
        assert_eq!(seen.len(), picked.rank(count));
        assert!(chunks.lock().reader.is_none(), "the transaction is over");
    }
}
