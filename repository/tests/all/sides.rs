//! Two sides of a merge: versions, and pushes that were made from an older one.

use sqlrsync_protocol::page::{ConflictNumber, PageSize};
use sqlrsync_repository::{
    Candidate, ClientKey, ClientRecord, Conflict, Described, Error, Manifest, MergeBase, MergePages, Overlap,
    Permission, Replica, Repository, TableRows,
};

use crate::kept::receive;
use crate::support::*;

/// Two versions, and pushes that are made from the first.
pub struct Sides {
    pub repository: Repository,
    pub replica: Replica,
    pub base: Database,
    pub theirs: Database,
    pub mine: Database,
    /// The changes of both.
    pub both: Database,
}

impl Sides {
    pub fn new(repository: Repository) -> Sides {
        Sides::sized(repository, 300)
    }

    pub fn sized(repository: Repository, pages: u32) -> Sides {
        let base = Database::new(PageSize::MIN, pages, 1);
        let (mut theirs, mut mine, mut both) = (base.clone(), base.clone(), base.clone());
        theirs.set(7, 100);
        both.set(7, 100);
        for database in [&mut mine, &mut both] {
            database.set(pages * 2 / 3, 200);
            database.pages.push(content(PageSize::MIN, 301));
        }
        let replica = repository.replica(&id());
        Sides { repository, replica, base, theirs, mine, both }
    }

    pub fn in_memory() -> Sides {
        let sides = Sides::new(memory());
        sides.push_both().unwrap();
        sides
    }

    pub fn push_both(&self) -> Result<(), Error> {
        Push::of(&self.base).run(&self.replica)?;
        Push::of(&self.theirs).on(&self.base, 1).run(&self.replica).map(drop)
    }

    pub fn version(&self, n: u64) -> Manifest {
        self.replica.manifest(number(n)).unwrap().unwrap()
    }

    /// Keeps what was pushed, made from a version or a candidate.
    pub fn keep(&self, id: u8, database: &Database, agreed: (&Database, &Manifest)) -> Candidate {
        self.try_keep(id, database, agreed).unwrap()
    }

    pub fn try_keep(
        &self,
        id: u8,
        database: &Database,
        (base, agreed): (&Database, &Manifest),
    ) -> Result<Candidate, Error> {
        let push = Push { base: Some((base, agreed.as_base().version)), ..Push::of(database) }.id(id);
        let mut received = receive(&push, &self.replica)?;
        let options = self.replica.keep_options(received.agreed())?;
        received.keep(options)
    }

    pub fn mine(&self) -> Candidate {
        self.keep(3, &self.mine, (&self.base, &self.version(1)))
    }

    /// Commits `result` as the merge of a candidate on top of a version, written over `on`.
    pub fn merge(
        &self,
        candidate: &Candidate,
        (after, on): (&Manifest, (&Database, &Manifest)),
        result: &Database,
        ends: Option<&Conflict>,
    ) -> Result<Option<Manifest>, Error> {
        let merge = MergePages {
            after,
            candidate,
            on: on.1,
            geometry: result.geometry(),
            fields: result.fields(),
            ends,
            settled: ends.is_some(),
            described: Described::of(candidate),
            permission: Permission::default(),
        };
        let pages = result.changed_since(on.0);
        let mut pages = pages.into_iter().map(|n| Ok((page(n), result.canonical(n).to_vec())));
        self.replica.commit_merge(&merge, &mut pages)
    }

    pub fn merge_mine(&self, candidate: &Candidate) -> Result<Option<Manifest>, Error> {
        let latest = self.replica.latest()?.unwrap();
        self.merge(candidate, (&latest, (&self.theirs, &latest)), &self.both, None)
    }
}

pub fn conflict_number(n: u64) -> ConflictNumber {
    ConflictNumber::new(n).unwrap()
}

pub fn by(who: &str) -> Described {
    Described { author: who.into(), host: "host".into(), ..Described::default() }
}

pub fn overlap(candidate: &Candidate) -> Overlap {
    let mut overlap = Overlap::new(candidate.id, candidate.merge_base, number(2));
    overlap.tables.push(TableRows { table: "orders".into(), rows: 2 });
    overlap.reasons.push("rows of \"orders\" were changed by both".into());
    overlap
}

/// Notes what a client pushed.
pub fn pushed(replica: &Replica, key: &ClientKey, candidate: &Candidate) -> Result<(), Error> {
    let pushed = Some(MergeBase::of(&candidate.content));
    let time = jiff::Timestamp::now();
    replica.put_client_record(key, &ClientRecord { time, pushed, pulled: Vec::new() })
}

/// The rows of an overlap, as a server writes them down.
pub const ROWS: &[u8] =
    b"{\"table\":\"orders\",\"key\":{\"id\":1}}\n{\"table\":\"orders\",\"key\":{\"id\":2}}\n";
