//! Conflicts: a candidate whose changes overlap with those of others waits in one until somebody settles it.
//!
//! A conflict is a row of steps, each an object that is created if none of its name exists and never changed:
//! opened, replaced (its pusher pushed again), and at last settled, or merged where what overlapped went away.
//! Conflicts are numbered from 1 without gaps, and so are a conflict's steps, so that the next of either is
//! one create: of two servers, one is first and the other sees what it did. What counts is the last step.
//!
//! What is opened is what the candidate, the base and the latest version say. The rows that overlap stand
//! beside it in an object of their own, named by its hash: it is there so that nobody has to compare the three
//! again, and nothing is lost with it.

mod format;
mod store;

use jiff::{SignedDuration, Timestamp};
use sqlrsync_protocol::exchange::PushId;
use sqlrsync_protocol::page::{ConflictNumber, VersionNumber};

use crate::candidate::MergeBase;
use crate::push::Described;

pub(crate) use format::{decode, encode};
pub use store::ConflictPage;

/// The most tables that a step counts the rows of.
pub const CONFLICT_TABLES_MAX: usize = 4096;

/// The most reasons that a step gives.
pub const CONFLICT_REASONS_MAX: usize = 256;

/// The most bytes of a reason, or of a table's name.
pub const CONFLICT_TEXT_BYTES_MAX: usize = 1024;

/// The most bytes of the choices of a settlement.
pub const CHOICES_BYTES_MAX: usize = 1 << 20;

/// The most bytes of the rows of a step.
pub const CONFLICT_ROWS_BYTES_MAX: usize = 32 << 20;

/// The most steps of a conflict.
pub const CONFLICT_STEPS_MAX: u64 = 100_000;

/// How long the rows and the candidate of a conflict are kept after it is over.
pub const SETTLED_TIME: SignedDuration = SignedDuration::from_hours(30 * 24);

/// How many rows of a table overlap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableRows {
    /// The table's name.
    pub table: String,
    /// How many of its rows.
    pub rows: u64,
}

/// What overlaps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlap {
    /// The candidate: mine, to who pushed it.
    pub candidate: PushId,
    /// What both sides' changes are counted from; `None` where nothing is known that both had.
    pub merge_base: Option<MergeBase>,
    /// The latest version at the time: theirs.
    pub theirs: VersionNumber,
    /// The rows, counted by table.
    pub tables: Vec<TableRows>,
    /// What else is in the way, a sentence each: a schema that both changed, a constraint that fails.
    pub reasons: Vec<String>,
    /// The rows themselves are in the object of this hash; `None` where there are none.
    pub(crate) rows: Option<RowsName>,
}

/// Names rows: the first half of their hash, and how many bytes they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RowsName {
    pub(crate) hash: [u8; 16],
    pub(crate) bytes: u64,
}

impl Overlap {
    /// Without anything that overlaps yet.
    pub fn new(candidate: PushId, merge_base: Option<MergeBase>, theirs: VersionNumber) -> Overlap {
        Overlap { candidate, merge_base, theirs, tables: Vec::new(), reasons: Vec::new(), rows: None }
    }
}

/// What happened to a conflict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepKind {
    /// It began.
    Opened(Overlap),
    /// Its candidate was replaced by a newer one of the same pusher, which has all of its changes.
    Replaced(Overlap),
    /// Somebody settled it.
    Settled {
        /// The version that they made.
        version: VersionNumber,
        /// What they chose, as JSON; empty where that is not known.
        choices: String,
    },
    /// Nothing overlaps any more: the candidate was merged.
    Merged {
        /// As this version.
        version: VersionNumber,
    },
}

impl StepKind {
    /// What overlaps, unless the step ends the conflict.
    pub fn overlap(&self) -> Option<&Overlap> {
        match self {
            StepKind::Opened(overlap) | StepKind::Replaced(overlap) => Some(overlap),
            StepKind::Settled { .. } | StepKind::Merged { .. } => None,
        }
    }

    /// The version that ended the conflict, if it did.
    pub fn ended(&self) -> Option<VersionNumber> {
        match self {
            StepKind::Opened(_) | StepKind::Replaced(_) => None,
            StepKind::Settled { version, .. } | StepKind::Merged { version } => Some(*version),
        }
    }
}

/// A step of a conflict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its number, from 1.
    pub number: u64,
    /// When, by the clock of who made it.
    pub time: Timestamp,
    /// Who did it, from where.
    pub by: Described,
    /// What.
    pub kind: StepKind,
    /// Chosen at random, so that whoever made it recognises it.
    pub(crate) nonce: [u8; 16],
}

/// A conflict, as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Its number within the replica.
    pub number: ConflictNumber,
    /// The first step: by whom it was opened, and when.
    pub opened: Step,
    /// What overlaps, by the last step that says so.
    pub overlap: Overlap,
    /// The last step.
    pub last: Step,
}

impl Conflict {
    /// Whether it waits to be settled.
    pub fn is_open(&self) -> bool {
        self.version().is_none()
    }

    /// The version that ended it.
    pub fn version(&self) -> Option<VersionNumber> {
        self.last.kind.ended()
    }
}
