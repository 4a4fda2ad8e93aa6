//! The bytes of a step: a text object as a manifest is. Every list and text in it has a maximum.

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sqlrsync_protocol::exchange::PushId;
use sqlrsync_protocol::page::{ConflictNumber, VersionNumber};

use super::{
    CHOICES_BYTES_MAX, CONFLICT_REASONS_MAX, CONFLICT_ROWS_BYTES_MAX, CONFLICT_TABLES_MAX,
    CONFLICT_TEXT_BYTES_MAX, Overlap, RowsName, Step, StepKind, TableRows,
};
use crate::candidate::StoredMergeBase;
use crate::envelope;
use crate::error::{Damage, Error};
use crate::id::{ReplicaId, hex16};
use crate::manifest::hex;
use crate::push::Described;
use crate::replica::bounded;

/// The most bytes of a step: texts may be written with escapes.
pub(super) const STEP_BYTES_MAX: u64 = 32 << 20;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredStep {
    replica: String,
    conflict: u64,
    step: u64,
    time: Timestamp,
    author: String,
    message: String,
    client_id: String,
    host: String,
    local_path: String,
    push_id: Option<String>,
    nonce: String,
    kind: StoredKind,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
enum StoredKind {
    Opened(StoredOverlap),
    Replaced(StoredOverlap),
    Settled { version: u64, choices: String },
    Merged { version: u64 },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredOverlap {
    candidate: String,
    merge_base: Option<StoredMergeBase>,
    theirs: u64,
    tables: Vec<StoredTable>,
    reasons: Vec<String>,
    rows: Option<StoredRows>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredTable {
    table: String,
    rows: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredRows {
    hash: String,
    bytes: u64,
}

/// A step with the name that it has to have.
pub(crate) fn encode(replica: ReplicaId, conflict: ConflictNumber, step: &Step) -> Result<Bytes, Error> {
    let by = &step.by;
    let stored = StoredStep {
        replica: replica.to_string(),
        conflict: conflict.get(),
        step: step.number,
        time: step.time,
        author: by.author.clone(),
        message: by.message.clone(),
        client_id: by.client_id.clone(),
        host: by.host.clone(),
        local_path: by.local_path.clone(),
        push_id: by.push_id.map(|id| hex(&id.0)),
        nonce: hex(&step.nonce),
        kind: StoredKind::of(&step.kind),
    };
    envelope::encode("conflict", &stored).map_err(|_| Error::OutOfOrder("conflict"))
}

/// Reads a step, and the name that it has to have.
pub(crate) fn decode(bytes: &[u8]) -> Result<(ReplicaId, ConflictNumber, Step), Damage> {
    if bytes.len() as u64 > STEP_BYTES_MAX {
        return Err(Damage::TooLarge);
    }
    envelope::decode::<StoredStep>("conflict", bytes)?.parse().ok_or(Damage::Structure)
}

impl StoredStep {
    fn parse(self) -> Option<(ReplicaId, ConflictNumber, Step)> {
        let kind = self.kind.parse()?;
        // A conflict begins by being opened, and in no other way.
        if self.step == 0 || matches!(kind, StepKind::Opened(_)) != (self.step == 1) {
            return None;
        }
        let push_id = match self.push_id {
            None => None,
            Some(id) => Some(PushId(hex16(&id)?)),
        };
        let by = Described {
            author: self.author,
            message: self.message,
            client_id: self.client_id,
            host: self.host,
            local_path: self.local_path,
            push_id,
        };
        let step = Step { number: self.step, time: self.time, by, kind, nonce: hex16(&self.nonce)? };
        Some((self.replica.parse().ok()?, ConflictNumber::new(self.conflict)?, step))
    }
}

impl StoredKind {
    fn of(kind: &StepKind) -> StoredKind {
        match kind {
            StepKind::Opened(overlap) => StoredKind::Opened(StoredOverlap::of(overlap)),
            StepKind::Replaced(overlap) => StoredKind::Replaced(StoredOverlap::of(overlap)),
            StepKind::Settled { version, choices } => {
                StoredKind::Settled { version: version.get(), choices: choices.clone() }
            }
            StepKind::Merged { version } => StoredKind::Merged { version: version.get() },
        }
    }

    fn parse(self) -> Option<StepKind> {
        Some(match self {
            StoredKind::Opened(overlap) => StepKind::Opened(overlap.parse()?),
            StoredKind::Replaced(overlap) => StepKind::Replaced(overlap.parse()?),
            StoredKind::Settled { version, choices } if choices.len() <= CHOICES_BYTES_MAX => {
                StepKind::Settled { version: VersionNumber::new(version)?, choices }
            }
            StoredKind::Settled { .. } => return None,
            StoredKind::Merged { version } => StepKind::Merged { version: VersionNumber::new(version)? },
        })
    }
}

impl StoredOverlap {
    fn of(overlap: &Overlap) -> StoredOverlap {
        let table = |of: &TableRows| StoredTable { table: of.table.clone(), rows: of.rows };
        StoredOverlap {
            candidate: hex(&overlap.candidate.0),
            merge_base: overlap.merge_base.as_ref().map(StoredMergeBase::of),
            theirs: overlap.theirs.get(),
            tables: overlap.tables.iter().map(table).collect(),
            reasons: overlap.reasons.clone(),
            rows: overlap.rows.map(|rows| StoredRows { hash: hex(&rows.hash), bytes: rows.bytes }),
        }
    }

    fn parse(self) -> Option<Overlap> {
        let merge_base = match self.merge_base {
            None => None,
            Some(base) => Some(base.parse()?),
        };
        let rows = match self.rows {
            None => None,
            Some(rows) if rows.bytes > CONFLICT_ROWS_BYTES_MAX as u64 => return None,
            Some(rows) => Some(RowsName { hash: hex16(&rows.hash)?, bytes: rows.bytes }),
        };
        let table = |of: StoredTable| TableRows { table: of.table, rows: of.rows };
        let overlap = Overlap {
            candidate: PushId(hex16(&self.candidate)?),
            merge_base,
            theirs: VersionNumber::new(self.theirs)?,
            tables: self.tables.into_iter().map(table).collect(),
            reasons: self.reasons,
            rows,
        };
        overlap.bounded().is_ok().then_some(overlap)
    }
}

impl Overlap {
    /// It has no more than it may have.
    pub(super) fn bounded(&self) -> Result<(), Error> {
        if self.tables.len() > CONFLICT_TABLES_MAX || self.reasons.len() > CONFLICT_REASONS_MAX {
            return Err(Error::OutOfOrder("a conflict of too many tables or reasons"));
        }
        for table in &self.tables {
            bounded("the name of a table", &table.table, CONFLICT_TEXT_BYTES_MAX)?;
        }
        self.reasons
            .iter()
            .try_for_each(|reason| bounded("the reason of a conflict", reason, CONFLICT_TEXT_BYTES_MAX))
    }
}
