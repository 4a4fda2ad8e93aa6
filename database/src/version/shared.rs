//! What the files of one open version share with who opened it.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::error::Trouble;
use super::overlaid::OverlaidFile;
use super::scratch::{Scratch, Space};
use super::stop::Stop;

/// What is read while a version is opened, in bytes. SQLite keeps in memory several times what a schema is long.
/// Two thousand tables with many columns are some two million bytes.
const SCHEMA_MAX: u64 = 32 << 20;

/// What SQL may do: see [`super::harden`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// What this program itself runs.
    Own = 0,
    /// A query that somebody else wrote.
    Query = 1,
}

/// One open version.
pub(super) struct Shared {
    pub(super) stop: Stop,
    pub(super) space: Arc<Space>,
    mode: AtomicU8,
    /// How much may still be read while it is opened; `u64::MAX` once it is.
    opening: AtomicU64,
    files: Mutex<Files>,
    /// What went wrong first since it was last asked for.
    trouble: Mutex<Option<Trouble>>,
}

/// The files that have a name.
pub(super) struct Files {
    /// The database; taken out once the connection is closed. A temporary database has none.
    pub(super) main: Option<OverlaidFile>,
    /// Whether it is open: it is opened once.
    pub(super) is_open: bool,
    /// The rollback journal. It outlives its handle, as a file does: after an error SQLite closes it, and
    /// restores the database from it when it opens it again.
    pub(super) journal: Option<Scratch>,
}

impl Shared {
    pub(super) fn new(main: OverlaidFile, space: Arc<Space>, stop: Stop) -> Arc<Shared> {
        Shared::with(Some(main), space, stop)
    }

    /// Of files without a name alone.
    pub(super) fn without_database(space: Arc<Space>, stop: Stop) -> Arc<Shared> {
        Shared::with(None, space, stop)
    }

    fn with(main: Option<OverlaidFile>, space: Arc<Space>, stop: Stop) -> Arc<Shared> {
        Arc::new(Shared {
            stop,
            space,
            mode: AtomicU8::new(Mode::Own as u8),
            opening: AtomicU64::new(SCHEMA_MAX),
            files: Mutex::new(Files { main, is_open: false, journal: None }),
            trouble: Mutex::new(None),
        })
    }

    pub(super) fn files(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn mode(&self) -> Mode {
        if self.mode.load(Ordering::Relaxed) == Mode::Own as u8 { Mode::Own } else { Mode::Query }
    }

    pub(super) fn set_mode(&self, mode: Mode) {
        self.mode.store(mode as u8, Ordering::Relaxed);
    }

    /// From here on as much is read as it takes.
    pub(super) fn is_opened(&self) {
        self.opening.store(u64::MAX, Ordering::Relaxed);
    }

    /// Counts what is read while it is opened.
    pub(super) fn count_read(&self, len: usize) -> Result<(), Trouble> {
        let left = self.opening.load(Ordering::Relaxed);
        if left == u64::MAX {
            return Ok(());
        }
        let left = left.checked_sub(len as u64).ok_or(Trouble::Schema { max: SCHEMA_MAX })?;
        self.opening.store(left, Ordering::Relaxed);
        Ok(())
    }

    /// Keeps what went wrong, if nothing did before: what follows from it says less.
    pub(super) fn keep(&self, trouble: Trouble) {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(trouble);
    }

    /// What went wrong first since this was last asked.
    pub(super) fn take_trouble(&self) -> Option<Trouble> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
