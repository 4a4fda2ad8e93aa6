//! Two servers on one store that work on the same pushes at the same time: each push has one outcome, both
//! servers tell the same, and what was in nobody's way is in the latest version.

use std::sync::Arc;

use object_store::memory::InMemory;
use sqlrsync_protocol::page::PageSize;
use sqlrsync_repository::{Candidate, Error, KeepOptions, MergeBase, Repository, Standing};

use crate::kept::receive;
use crate::sides::{Sides, by, overlap};
use crate::support::*;
use crate::versions::at_once;

const PUSHES: u32 = 10;

/// The page that a push changes.
fn page_of(push: u32) -> u32 {
    10 + push
}

/// Every third push is in the way of something.
fn overlaps(push: u32) -> bool {
    push % 3 == 2
}

fn change(database: &Database, push: u32) -> Database {
    let mut changed = database.clone();
    changed.set(page_of(push), 1000 + u64::from(push));
    changed
}

/// How often a push is tried: it stands still only for as long as others get on.
const ROUNDS_MAX: u32 = 10_000;

/// What a server does with a push, whatever others do meanwhile.
fn serve(sides: &Sides, push: u32) -> Result<Standing, Error> {
    let replica = &sides.replica;
    let mine = change(&sides.base, push);
    let candidate = keep(sides, push, &mine)?;
    for _ in 0..ROUNDS_MAX {
        match replica.standing(&candidate)? {
            Standing::Kept => {}
            Standing::InConflict(_) => settle(sides, &candidate, push)?,
            done => return Ok(done),
        }
        if overlaps(push) {
            replica.open_conflict(&candidate, overlap(&candidate), b"", by("server"))?;
            continue;
        }
        match merge(sides, &candidate, push, None) {
            Ok(()) | Err(Error::InConflict(_) | Error::ConflictIsOver { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    panic!("push {push} never comes to an end")
}

fn keep(sides: &Sides, push: u32, mine: &Database) -> Result<Candidate, Error> {
    let from = Push::of(mine).on(&sides.base, 1).id(push as u8 + 1);
    let mut received = receive(&from, &sides.replica)?;
    let merge_base = received.agreed().map(MergeBase::of);
    received.keep(KeepOptions { merge_base, adds_to: None })
}

/// Merges it on top of the latest version, if nobody is first.
fn merge(
    sides: &Sides,
    candidate: &Candidate,
    push: u32,
    ends: Option<&sqlrsync_repository::Conflict>,
) -> Result<(), Error> {
    let latest = sides.replica.latest()?.unwrap();
    let database = pull(&sides.replica, &latest)?;
    let result = change(&database, push);
    sides.merge(candidate, (&latest, (&database, &latest)), &result, ends).map(drop)
}

fn settle(sides: &Sides, candidate: &Candidate, push: u32) -> Result<(), Error> {
    let Some(conflict) = sides.replica.conflict_of_candidate(candidate)? else { return Ok(()) };
    match merge(sides, candidate, push, Some(&conflict)) {
        Ok(()) | Err(Error::ConflictIsOver { .. }) => {}
        Err(error) => return Err(error),
    }
    let Some(version) = sides.replica.ended_by(&conflict)? else { return Ok(()) };
    match sides.replica.end_conflict(&conflict, &version, "{}".into(), by("server")) {
        Ok(_) | Err(Error::ConflictIsOver { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

#[test]
fn two_servers_on_one_store_come_to_one_outcome_for_each_push() {
    let store = Arc::new(InMemory::new());
    let open = || {
        let mut sides = Sides::sized(Repository::over(store.clone(), runtime(), None), 60);
        sides.base = Database::new(PageSize::MIN, 60, 1);
        sides
    };
    let servers = [open(), open()];
    Push::of(&servers[0].base).run(&servers[0].replica).unwrap();
    Push::of(&servers[0].theirs).on(&servers[0].base, 1).run(&servers[0].replica).unwrap();
    let outcomes: Vec<Vec<Standing>> = std::thread::scope(|scope| {
        let threads: Vec<_> = servers
            .iter()
            .enumerate()
            .map(|(n, sides)| {
                scope.spawn(move || {
                    // In another order each, so that they meet everywhere.
                    let order = |push: u32| if n == 0 { push } else { (push * 7 + 3) % PUSHES };
                    let mut done: Vec<(u32, Standing)> =
                        (0..PUSHES).map(|push| (order(push), serve(sides, order(push)).unwrap())).collect();
                    done.sort_by_key(|(push, _)| *push);
                    done.into_iter().map(|(_, standing)| standing).collect()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(outcomes[0], outcomes[1], "both tell the same");
    let sides = open();
    let latest = sides.replica.latest().unwrap().unwrap();
    assert_eq!(latest.number.get(), 2 + u64::from(PUSHES), "each became one version");
    let mut expected = sides.theirs.clone();
    for push in 0..PUSHES {
        expected = change(&expected, push);
        let settled = matches!(outcomes[0][push as usize], Standing::Settled(..));
        assert_eq!(settled, overlaps(push), "push {push}");
    }
    assert_holds(&sides.replica, latest.number.get(), &expected);
    let all = sides.replica.conflicts(false, None, 99).unwrap().conflicts;
    assert_eq!(all.len(), (0..PUSHES).filter(|push| overlaps(*push)).count());
    sides.repository.sweep(at_once()).unwrap();
    assert!(sides.replica.conflicts(true, None, 99).unwrap().conflicts.is_empty());
    assert_sound(&sides.repository);
}
