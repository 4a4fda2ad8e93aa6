//! When to stop: a deadline, or somebody who says so. Asked by SQLite every so many instructions, and before
//! each page that is read from the content, since one instruction can read a whole table.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::error::VersionError;

const NEVER: u64 = u64::MAX;

/// When an open version is to stop working.
pub(super) struct Stop {
    opened: Instant,
    /// Milliseconds since it was opened.
    deadline: u64,
    /// The same, of the query that is running.
    query_deadline: AtomicU64,
    cancel: Option<Arc<AtomicBool>>,
    /// Why it stopped last: a [`Why`].
    why: AtomicU8,
    /// Why it stopped for good, and not only a query.
    over: AtomicU8,
}

#[derive(Clone, Copy)]
enum Why {
    Deadline = 1,
    Cancelled = 2,
}

impl Stop {
    pub(super) fn new(time: Option<Duration>, cancel: Option<Arc<AtomicBool>>) -> Stop {
        Stop {
            opened: Instant::now(),
            deadline: time.map_or(NEVER, millis),
            query_deadline: AtomicU64::new(NEVER),
            cancel,
            why: AtomicU8::new(0),
            over: AtomicU8::new(0),
        }
    }

    /// Whether to stop now.
    pub(super) fn is_due(&self) -> bool {
        let now = millis(self.opened.elapsed());
        let (why, is_over) = match &self.cancel {
            Some(cancel) if cancel.load(Ordering::Relaxed) => (Why::Cancelled, true),
            _ if now >= self.deadline => (Why::Deadline, true),
            _ if now >= self.query_deadline.load(Ordering::Relaxed) => (Why::Deadline, false),
            _ => return false,
        };
        self.why.store(why as u8, Ordering::Relaxed);
        if is_over {
            self.over.store(why as u8, Ordering::Relaxed);
        }
        true
    }

    /// Sets a deadline of its own for a query, `None` takes it away. Why something was stopped before is forgotten.
    pub(super) fn set_query_time(&self, time: Option<Duration>) {
        self.why.store(0, Ordering::Relaxed);
        let deadline = time.map_or(NEVER, |time| millis(self.opened.elapsed().saturating_add(time)));
        self.query_deadline.store(deadline, Ordering::Relaxed);
    }

    /// Why SQLite was stopped; by whoever else did it, where it was not stopped here.
    pub(super) fn why(&self) -> VersionError {
        self.stopped().unwrap_or(VersionError::Cancelled)
    }

    /// Why something was stopped here; `None` where nothing was.
    pub(super) fn stopped(&self) -> Option<VersionError> {
        Stop::error(&self.why)
    }

    /// Why a statement was stopped after which every other one is; `None` where none was.
    pub(super) fn is_over(&self) -> Option<VersionError> {
        Stop::error(&self.over)
    }

    fn error(why: &AtomicU8) -> Option<VersionError> {
        match why.load(Ordering::Relaxed) {
            why if why == Why::Deadline as u8 => Some(VersionError::Deadline),
            why if why == Why::Cancelled as u8 => Some(VersionError::Cancelled),
            _ => None,
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(NEVER)
}
