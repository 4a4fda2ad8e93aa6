//! Merges that take more than they may: time, or temporary space. Tried again they would take as much, so that what
//! was pushed is kept as a conflict that says so, and one side is taken whole where it is settled, without merging.
//!
//! A disk that is full is something else: it may have room the next time, and the push fails until then.

use sqlrsync_repository::Conflict;

use super::overlap::Found;

/// What there is to do about such a conflict.
const WHAT_NOW: &str = "settle it with --keep theirs, which leaves the latest version as it is, or with \
     --keep mine, which makes what was pushed the next version as it is (what others did meanwhile is in the \
     versions before it)";

/// What a merge, or a comparison, was given up for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum GivenUp {
    /// It took longer than it may.
    Time,
    /// What has to be kept meanwhile takes more room than it may.
    Room,
}

impl GivenUp {
    /// What is stored with the conflict, which is known by it.
    pub const fn sentence(self) -> &'static str {
        match self {
            GivenUp::Time => "merging it took longer than a merge may take",
            GivenUp::Room => "merging it took more temporary space than a merge may take",
        }
    }

    /// What is said where a settlement was given up.
    pub const fn of_a_settlement(self) -> &'static str {
        match self {
            GivenUp::Time => {
                "nothing was settled: putting both together took longer than it may. Try again later, or settle it \
                 with --keep theirs alone, which leaves the latest version as it is"
            }
            GivenUp::Room => {
                "nothing was settled: putting both together took more temporary space than it may. Settle it with \
                 --keep theirs alone, which leaves the latest version as it is"
            }
        }
    }

    /// A conflict without rows.
    pub fn found(self) -> Found {
        Found { reasons: vec![self.sentence().to_owned(), WHAT_NOW.to_owned()], ..Found::default() }
    }

    /// What the merge of a conflict was given up for.
    pub fn of(conflict: &Conflict) -> Option<GivenUp> {
        let says = |of: &GivenUp| conflict.overlap.reasons.iter().any(|reason| reason == of.sentence());
        [GivenUp::Time, GivenUp::Room].into_iter().find(says)
    }
}
