//! A live file as a content: what one read transaction sees.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use sqlrsync_protocol::canonical::{HeaderFields, make_canonical};
use sqlrsync_protocol::content::{Content, ContentError};
use sqlrsync_protocol::page::{Geometry, PageNumber};

use crate::error::Error;
use crate::pages::PageReader;
use crate::snapshot::Snapshot;

/// How much is read at once where pages are read in a row, in bytes.
const READ_AHEAD_LEN: usize = 256 << 10;

/// A live database file, as it was when this was opened, while others write to it.
///
/// It holds a read transaction for as long as it or a clone is there: in WAL mode a checkpoint cannot go past it
/// and the WAL grows, in rollback mode nobody can commit. So it is for as long as a comparison takes. All clones
/// see the same.
#[derive(Clone)]
pub struct LiveContent {
    reader: Arc<Mutex<PageReader<Snapshot>>>,
    geometry: Geometry,
    fields: HeaderFields,
    ahead: Ahead,
    stop: Option<Arc<AtomicBool>>,
}

/// Pages in a row that have been read.
#[derive(Clone, Default)]
struct Ahead {
    /// The index of the first.
    first: u32,
    /// How many they are.
    count: u32,
    data: Vec<u8>,
}

impl LiveContent {
    /// Begins the transaction.
    ///
    /// # Errors
    /// As [`crate::LiveOrigin`] has them for a file that cannot be read, or that is empty.
    pub fn open(path: &Path) -> Result<LiveContent, Error> {
        LiveContent::of(Snapshot::open_to_look(path)?)
    }

    /// What a snapshot sees.
    pub(crate) fn of(snapshot: Snapshot) -> Result<LiveContent, Error> {
        let (geometry, fields) = (snapshot.geometry(), snapshot.fields());
        let reader = Arc::new(Mutex::new(PageReader::new(snapshot)?));
        Ok(LiveContent { reader, geometry, fields, ahead: Ahead::default(), stop: None })
    }

    /// Reading fails as soon as this becomes true.
    #[must_use]
    pub fn stopped_by(self, stop: Arc<AtomicBool>) -> LiveContent {
        LiveContent { stop: Some(stop), ..self }
    }

    /// Whether what was read so far is one state of the file. SQLite keeps out who asks it; of others it shows here.
    ///
    /// # Errors
    /// [`Error::ChangedMeanwhile`] where somebody is seen to have written to the file past SQLite.
    pub fn check(&self) -> Result<(), Error> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner).check()
    }

    /// Reads the page into what was read ahead: alone, or with those behind it where it follows what was read last.
    fn fill(&mut self, index: u32) -> Result<(), Error> {
        if self.stop.as_ref().is_some_and(|stop| stop.load(Ordering::Relaxed)) {
            return Err(Error::Stopped);
        }
        let follows = index == self.ahead.first.saturating_add(self.ahead.count);
        let most = if follows { (READ_AHEAD_LEN / self.geometry.page_size.bytes()).max(1) as u32 } else { 1 };
        let end = index.saturating_add(most).min(self.geometry.page_count.get());
        let numbers: Vec<PageNumber> = (index..end).filter_map(PageNumber::from_index).collect();
        self.ahead.count = 0;
        let reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        reader.read(&numbers, &mut self.ahead.data)?;
        (self.ahead.first, self.ahead.count) = (index, numbers.len() as u32);
        Ok(())
    }
}

impl Content for LiveContent {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn fields(&self) -> HeaderFields {
        self.fields
    }

    fn read(&mut self, page: PageNumber, into: &mut [u8]) -> Result<(), ContentError> {
        let index = page.index();
        let has = |ahead: &Ahead| index.checked_sub(ahead.first).filter(|at| *at < ahead.count);
        if has(&self.ahead).is_none() {
            self.fill(index).map_err(|error| Box::new(error) as ContentError)?;
        }
        let at = index.saturating_sub(self.ahead.first) as usize * into.len();
        into.copy_from_slice(&self.ahead.data[at..at + into.len()]);
        if page == PageNumber::FIRST {
            make_canonical(into);
        }
        Ok(())
    }
}
