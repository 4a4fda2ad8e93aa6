//! What the files of one open version share with who opened it.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::error::Trouble;
use super::overlaid::OverlaidFile;
use super::scratch::{Scratch, Space};
use super::stop::Stop;

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
    files: Mutex<Files>,
    /// What went wrong first since it was last asked for.
    trouble: Mutex<Option<Trouble>>,
}

/// The files that have a name.
pub(super) struct Files {
    /// The database; taken out once the connection is closed.
    pub(super) main: Option<OverlaidFile>,
    /// Whether it is open: it is opened once.
    pub(super) is_open: bool,
    /// The rollback journal. It outlives its handle, as a file does: after an error SQLite closes it, and
    /// restores the database from it when it opens it again.
    pub(super) journal: Option<Scratch>,
}

impl Shared {
    pub(super) fn new(main: OverlaidFile, space: Arc<Space>, stop: Stop) -> Arc<Shared> {
        Arc::new(Shared {
            stop,
            space,
            mode: AtomicU8::new(Mode::Own as u8),
            files: Mutex::new(Files { main: Some(main), is_open: false, journal: None }),
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

    /// Keeps what went wrong, if nothing did before: what follows from it says less.
    pub(super) fn keep(&self, trouble: Trouble) {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(trouble);
    }

    /// What went wrong first since this was last asked.
    pub(super) fn take_trouble(&self) -> Option<Trouble> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
