//! Pushes that are received and not committed: looking into them, committing them after all, keeping them
//! as candidates, and being recognised when they come again.

use sqlrsync_protocol::content::{ChangedPages, Content};
use sqlrsync_protocol::exchange::{Base, End, Ground, PushId, ReplicaPages};
use sqlrsync_protocol::page::PageSize;
use sqlrsync_repository::{
    Error, KeepOptions, Manifest, MergeBase, Permission, Received, Replica, Repository, Standing,
};

use crate::support::*;
use crate::versions::at_once;

/// Sends all of a push, up to its commit.
pub fn receive(push: &Push<'_>, replica: &Replica) -> Result<Received, Error> {
    let mut open = push.open(replica)?;
    send(&mut open, push.database, &push.numbers())?;
    open.receive(End::Proof(push.database.proof()))
}

/// Keeps a push as a candidate made from a version.
pub fn keep(push: &Push<'_>, replica: &Replica, base: &Manifest) -> sqlrsync_repository::Candidate {
    let options = KeepOptions { merge_base: Some(MergeBase::of(base)), adds_to: None };
    receive(push, replica).unwrap().keep(options).unwrap()
}

/// Reads every page of a stored content, in an order that goes back and forth.
pub fn assert_content(replica: &Replica, of: &Manifest, database: &Database) {
    let mut content = replica.content(of).unwrap();
    assert_eq!((content.geometry(), content.fields()), (database.geometry(), database.fields()));
    let mut bytes = vec![0; database.size.bytes()];
    let count = database.pages.len() as u32;
    for n in (1..=count).rev().chain((1..=count).step_by(3)) {
        content.read(page(n), &mut bytes).unwrap();
        assert!(bytes == *database.canonical(n), "page {n}");
    }
    assert!(content.read(page(count + 1), &mut bytes).is_err(), "a page past the end");
    assert!(content.read(page(1), &mut bytes[1..]).is_err(), "less than a page");
}

fn three() -> (Database, Database, Database) {
    let base = Database::new(PageSize::MIN, 300, 1);
    let mut theirs = base.clone();
    theirs.set(7, 100);
    let mut mine = base.clone();
    mine.set(200, 200);
    mine.pages.push(content(PageSize::MIN, 301));
    (base, theirs, mine)
}

/// A repository that has a replica with two versions; `mine` is made from the first.
fn repository_of(base: &Database, theirs: &Database) -> (Repository, Replica) {
    let repository = memory();
    let replica = repository.replica(&id());
    Push::of(base).run(&replica).unwrap();
    Push::of(theirs).on(base, 1).run(&replica).unwrap();
    (repository, replica)
}

/// The same, where the repository does not matter.
fn replica_of(base: &Database, theirs: &Database) -> Replica {
    repository_of(base, theirs).1
}

fn known(changed: ChangedPages) -> Vec<u32> {
    match changed {
        ChangedPages::Known(pages) => pages.iter().collect(),
        ChangedPages::Unknown => panic!("nobody knows"),
    }
}

#[test]
fn a_version_is_read_page_by_page_and_what_differs_is_found_both_ways() {
    let (base, theirs, mine) = three();
    let replica = replica_of(&base, &theirs);
    Push::of(&mine).on(&theirs, 2).run(&replica).unwrap();
    let versions: Vec<Manifest> = (1..=3).map(|n| replica.manifest(number(n)).unwrap().unwrap()).collect();
    for (version, database) in versions.iter().zip([&base, &theirs, &mine]) {
        assert_content(&replica, version, database);
    }
    let changed =
        |old: usize, new: usize| known(replica.changed_pages(&versions[old], &versions[new]).unwrap());
    assert!(changed(0, 0).is_empty());
    assert_eq!(changed(0, 1), [7]);
    assert_eq!(changed(1, 2), [7, 200, 301]);
    assert_eq!(changed(2, 1), [7, 200, 301]);
    let larger = Database::new(PageSize::from_bytes(1024).unwrap(), 10, 1);
    Push::of(&larger).run(&replica).unwrap();
    let larger = replica.latest().unwrap().unwrap();
    assert!(matches!(replica.changed_pages(&versions[0], &larger).unwrap(), ChangedPages::Unknown));
}

#[test]
fn what_is_received_can_be_looked_into_and_is_nobody_elses_before_it_is_committed() {
    let (base, theirs, mine) = three();
    let (repository, replica) = repository_of(&base, &theirs);
    let mut received = receive(&Push::of(&mine).on(&base, 1).id(3), &replica).unwrap();
    assert_eq!((received.geometry(), received.root()), (mine.geometry(), mine.root()));
    assert_eq!(received.fields(), mine.fields());
    assert_eq!(received.agreed().unwrap().number, number(1));
    assert_eq!(received.named(), Some(Base { version: Some(number(1)), root: base.root() }));
    assert_eq!((received.already().unwrap(), received.kept()), (None, None));
    // Not even a sweep without a grace period takes it.
    repository.sweep(at_once()).unwrap();
    assert_content(&replica, received.content(), &mine);
    let latest = replica.latest().unwrap().unwrap();
    assert_eq!(known(replica.changed_pages(&latest, received.content()).unwrap()), [7, 200, 301]);
    // Somebody else is first; then it is made on top of what they made.
    let first = replica.manifest(number(1)).unwrap();
    assert_eq!(received.commit_after(first.as_ref()).unwrap(), None);
    let committed = received.commit_after(Some(&latest)).unwrap().unwrap();
    assert_eq!((committed.version, committed.overtook), (Some(number(3)), true));
    drop(received);
    repository.sweep(at_once()).unwrap();
    assert_holds(&replica, 3, &mine);
    assert_sound(&repository);
}

#[test]
fn a_candidate_is_kept_whole_and_is_found_by_id_and_by_root() {
    let (base, theirs, mine) = three();
    let (repository, replica) = repository_of(&base, &theirs);
    let first = replica.manifest(number(1)).unwrap().unwrap();
    let candidate = keep(&Push::of(&mine).on(&base, 1).id(3), &replica, &first);
    assert_eq!(candidate.id, PushId([3; 16]));
    assert_eq!(replica.latest().unwrap().unwrap().number, number(2), "a candidate is no version");
    repository.sweep(at_once()).unwrap();
    let found = replica.candidate(candidate.id).unwrap().unwrap();
    assert_eq!(found, candidate);
    assert_eq!(replica.candidate_by_root(mine.root()).unwrap(), Some(found.clone()));
    assert_eq!(replica.candidates().unwrap(), [candidate.id]);
    assert_eq!(replica.merge_base(&candidate.merge_base.unwrap()).unwrap(), Some(first));
    assert_eq!(replica.standing(&found).unwrap(), Standing::Kept);
    assert_content(&replica, &found.content, &mine);
    assert_sound(&repository);
}

#[test]
fn what_a_client_sent_is_its_next_base_though_it_became_no_version() {
    let (base, theirs, mut mine) = three();
    let (repository, replica) = repository_of(&base, &theirs);
    let first = replica.manifest(number(1)).unwrap().unwrap();
    let sent = mine.clone();
    let candidate = keep(&Push::of(&mine).on(&base, 1).id(3), &replica, &first);
    mine.set(1, 500);
    // By root alone, since it has no number.
    let mut next = Push::of(&mine).id(4);
    next.base = Some((&sent, None));
    let mut received = receive(&next, &replica).unwrap();
    assert_eq!(received.content().pages_changed, 1, "one page travels");
    assert_eq!(received.agreed().unwrap().candidate, Some(candidate.id));
    let options = KeepOptions { merge_base: Some(MergeBase::of(&candidate.content)), adds_to: None };
    let next = received.keep(options).unwrap();
    drop(received);
    repository.sweep(at_once()).unwrap();
    assert_content(&replica, &next.content, &mine);
    assert_eq!(known(replica.changed_pages(&candidate.content, &next.content).unwrap()), [1]);
    assert_eq!(replica.merge_base(&next.merge_base.unwrap()).unwrap(), Some(candidate.content));
    // A version that is made of it has all that it needs.
    Push { base: Some((&mine, None)), ..Push::of(&mine) }.run(&replica).unwrap();
    let version = replica.latest().unwrap().unwrap();
    assert_eq!((version.root, version.number), (mine.root(), number(3)));
    assert!(version.parents == [mine.root()] && !version.is_candidate());
    assert_holds(&replica, 3, &mine);
    assert_sound(&repository);
}

#[test]
fn a_push_that_was_kept_is_recognised_when_it_comes_again() {
    let (base, theirs, mine) = three();
    let replica = replica_of(&base, &theirs);
    let first = replica.manifest(number(1)).unwrap().unwrap();
    let push = Push::of(&mine).on(&base, 1).id(3);
    let candidate = keep(&push, &replica, &first);
    let mut again = receive(&push, &replica).unwrap();
    assert_eq!(again.kept(), Some(&candidate));
    // It has no outcome yet: it goes on where it was.
    assert_eq!(again.already().unwrap(), None);
    assert_eq!(again.keep(KeepOptions::default()).unwrap(), candidate);
    assert_eq!(replica.candidates().unwrap().len(), 1);
    // The id with another content is another push.
    let mut other = mine.clone();
    other.set(9, 9);
    let kept = keep(&Push::of(&other).on(&base, 1).id(3), &replica, &first);
    assert_ne!(kept.id, candidate.id);
    assert_eq!(replica.candidates().unwrap().len(), 2);
    assert_content(&replica, &kept.content, &other);
}

#[test]
fn a_kept_push_may_still_be_committed_as_it_is_and_is_then_no_candidate_that_waits() {
    let (base, theirs, mine) = three();
    let (repository, replica) = repository_of(&base, &theirs);
    let first = replica.manifest(number(1)).unwrap().unwrap();
    let push = Push::of(&mine).on(&base, 1).id(3);
    let candidate = keep(&push, &replica, &first);
    let committed = push.run(&replica).unwrap();
    assert_eq!((committed.version, committed.overtook, committed.merged), (Some(number(3)), true, false));
    assert_eq!(replica.standing(&candidate).unwrap(), Standing::Merged(number(3)));
    assert_holds(&replica, 3, &mine);
    assert_sound(&repository);
}

#[test]
fn nothing_is_made_of_a_push_whose_permission_ended() {
    let (base, theirs, mine) = three();
    let (repository, replica) = repository_of(&base, &theirs);
    let mut push = Push::of(&mine).on(&base, 1).id(3);
    push.options.permission = Permission::new(|| false);
    let mut received = receive(&push, &replica).unwrap();
    let latest = replica.latest().unwrap();
    assert!(matches!(received.keep(KeepOptions::default()), Err(Error::Withdrawn)));
    assert!(matches!(received.commit_after(latest.as_ref()), Err(Error::Withdrawn)));
    drop(received);
    assert_eq!(replica.candidates().unwrap(), []);
    assert_eq!(repository.sweep(at_once()).unwrap().objects_removed, 0, "nothing of it stays");
}

#[test]
fn a_push_that_says_nothing_of_its_base_agreed_on_nothing() {
    let (base, theirs, mine) = three();
    let replica = replica_of(&base, &theirs);
    let mut push = replica.push(options()).unwrap();
    push.begin(mine.geometry(), 2).unwrap();
    assert!(push.accept(Ground::Compared, None).unwrap());
    for n in mine.changed_since(&theirs) {
        push.take_page(page(n), &mine.pages[n as usize - 1]).unwrap();
    }
    let mut received = push.receive(End::PageCount(mine.geometry().page_count)).unwrap();
    assert_eq!((received.agreed(), received.named()), (None, None));
    let candidate = received.keep(KeepOptions::default()).unwrap();
    assert_content(&replica, &candidate.content, &mine);
    assert_eq!(candidate.merge_base, None);
}

/// A client that pushes again and again and never pulls: each of its pushes is made from the one before.
#[test]
fn what_is_made_from_a_long_row_of_candidates_does_not_refer_to_all_of_them() {
    let (base, theirs, mut mine) = three();
    let (repository, replica) = repository_of(&base, &theirs);
    let first = replica.manifest(number(1)).unwrap().unwrap();
    let mut candidate = keep(&Push::of(&mine).on(&base, 1).id(3), &replica, &first);
    let mut most = 0;
    for n in 0..270u32 {
        let before = mine.clone();
        mine.set(1 + n % 150, u64::from(1000 + n));
        // It also shrinks: what is past the end is then in nobody's way.
        if n == 200 {
            mine.pages.truncate(290);
        }
        let mut push = Push::of(&mine);
        push.push_id = Some(PushId(u128::from(n + 1000).to_be_bytes()));
        push.base = Some((&before, None));
        candidate = keep(&push, &replica, &first);
        most = most.max(candidate.content.segment_count());
    }
    assert!((200..=257).contains(&most), "{most} segments");
    assert!(candidate.content.segment_count() < 50, "{} segments", candidate.content.segment_count());
    assert_content(&replica, &candidate.content, &mine);
    assert_sound(&repository);
}
