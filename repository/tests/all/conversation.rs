//! Pushes and pulls through the conversations of all versions: the other side is a database in memory.

use sqlrsync_protocol::conversation::{
    ExchangeError, OriginOptions, Quiet, ReplicaOptions, Summary, run_origin, run_replica,
};
use sqlrsync_protocol::exchange::{Base, OriginPages, PushId, Refusal, ReplicaPages};
use sqlrsync_protocol::memory::{Content, MemoryOrigin, MemoryReplica, wires};
use sqlrsync_protocol::page::PageSize;
use sqlrsync_repository::{Replica, Repository};

use crate::support::*;

fn in_memory(database: &Database) -> Content {
    let mut content = Content::zeros(database.geometry());
    for n in 1..=database.pages.len() as u32 {
        content.set(page(n), &database.pages[n as usize - 1]);
    }
    content
}

/// Both sides of an exchange; the origin's wire breaks after `cut` bytes.
fn exchange<O, R>(
    origin: &mut O,
    replica: &mut R,
    version: u8,
    cut: usize,
) -> (Result<Summary, Refusal>, Result<Summary, Refusal>)
where
    O: OriginPages + Send,
    R: ReplicaPages + Send,
{
    let (origin_wire, replica_wire) = wires(4099, 64);
    let mut origin_wire = origin_wire.cut_after(cut);
    std::thread::scope(move |scope| {
        // Each end goes with its side, also where that panics: the other one waits for it.
        let mut replica_wire = replica_wire;
        let origin = scope.spawn(move || {
            let options = OriginOptions { version_max: version, ..OriginOptions::default() };
            run_origin(options, origin, &mut origin_wire, &mut Quiet).map_err(|error| told(&error))
        });
        let options = ReplicaOptions::default();
        let replica = run_replica(options, replica, &mut replica_wire, &mut Quiet);
        // The origin waits for the end of the wire.
        drop(replica_wire);
        (origin.join().unwrap(), replica.map_err(|error| told(&error)))
    })
}

fn told<P, W>(error: &ExchangeError<P, W>) -> Refusal
where
    P: sqlrsync_protocol::exchange::Fault,
    W: std::error::Error + 'static,
{
    error.refusal()
}

fn push(replica: &Replica, origin: &mut MemoryOrigin, version: u8) -> Summary {
    let mut push = replica.push(options()).unwrap();
    let (sent, taken) = exchange(origin, &mut push, version, usize::MAX);
    let (sent, taken) = (sent.unwrap(), taken.unwrap());
    assert_eq!((sent.version, taken.version), (version, version));
    assert_eq!(sent.pages_sent, taken.pages_received);
    taken
}

fn changed(database: &Database, pages: &[u32], grow: u64) -> Database {
    let mut new = database.clone();
    pages.iter().for_each(|n| new.set(*n, 500 + u64::from(*n)));
    (0..grow).for_each(|n| new.pages.push(content(new.size, 900 + n)));
    new
}

#[test]
fn a_push_and_a_push_of_what_changed_by_every_version() {
    for version in 1..=3 {
        let repository = memory();
        let replica = repository.replica(&id());
        let first = Database::new(PageSize::MIN, 2500, 1);
        let second = changed(&first, &[1, 2, 1200, 2500], 3);
        let done = push(&replica, &mut MemoryOrigin::new(in_memory(&first)), version);
        assert_eq!(done.committed.version, Some(number(1)));
        // Nothing is known of each other: hashes are compared.
        let done = push(&replica, &mut MemoryOrigin::new(in_memory(&second)), version);
        assert_eq!((done.committed.version, done.pages_received), (Some(number(2)), 7));
        assert_holds(&replica, 1, &first);
        assert_holds(&replica, 2, &second);
        let done = push(&replica, &mut MemoryOrigin::new(in_memory(&second)), version);
        assert_eq!(done.committed.version, Some(number(2)).filter(|_| done.committed.unchanged));
        // A smaller one of another page size replaces it.
        let third = Database::new(PageSize::MAX, 5, 3);
        push(&replica, &mut MemoryOrigin::new(in_memory(&third)), version);
        assert_holds(&replica, 3, &third);
        assert_sound(&repository);
    }
}

#[test]
fn a_known_base_needs_no_hashes_and_an_older_one_is_overtaken() {
    let replica = memory().replica(&id());
    let first = Database::new(PageSize::MIN, 2500, 1);
    let second = changed(&first, &[7], 0);
    let third = changed(&first, &[8], 0);
    push(&replica, &mut MemoryOrigin::new(in_memory(&first)), 3);
    let base = Base { version: Some(number(1)), root: first.root() };
    let on_first = |new: &Database, id| {
        MemoryOrigin::new(in_memory(new)).with_base(base, in_memory(&first)).with_push_id(PushId([id; 16]))
    };
    let done = push(&replica, &mut on_first(&second, 1), 3);
    assert_eq!((done.hash_rounds, done.pages_received, done.committed.overtook), (0, 1, false));
    let manifest = replica.latest().unwrap().unwrap();
    assert_eq!((manifest.base, manifest.push_id), (Some(base), Some(PushId([1; 16]))));
    // The same push again is the same version; another one overtakes.
    let done = push(&replica, &mut on_first(&second, 1), 3);
    assert_eq!(done.committed.version, Some(number(2)));
    let done = push(&replica, &mut on_first(&third, 2), 3);
    assert_eq!((done.hash_rounds, done.committed.overtook), (0, true));
    assert_holds(&replica, 3, &third);
}

#[test]
fn pulls_by_every_version_bring_what_changed() {
    let replica = memory().replica(&id());
    let versions = {
        let first = Database::new(PageSize::MIN, 2500, 1);
        let second = changed(&first, &[1, 600, 601], 5);
        let mut third = changed(&second, &[2000], 0);
        third.pages.truncate(2100);
        [first, second, third]
    };
    for database in &versions {
        push(&replica, &mut MemoryOrigin::new(in_memory(database)), 3);
    }
    for version in 1..=3 {
        for (to, new) in (1..).zip(&versions) {
            let manifest = replica.manifest(number(to)).unwrap().unwrap();
            for held in 0..=versions.len() {
                let old = versions[..held].last();
                let mut memory = MemoryReplica::of(versions[..held].iter().map(in_memory));
                let mut origin = replica.origin(&manifest).unwrap();
                let (sent, taken) = exchange(&mut origin, &mut memory, version, usize::MAX);
                sent.unwrap();
                let taken = taken.unwrap();
                assert_eq!(memory.content().unwrap().root(), new.root(), "by version {version}");
                if let (Some(old), 3) = (old, version) {
                    assert_eq!(taken.pages_received as usize, new.changed_since(old).len());
                    assert_eq!(taken.hash_rounds, 0, "every version knows the others");
                }
            }
        }
    }
}

#[test]
fn a_push_that_is_cut_anywhere_changes_nothing_and_goes_on() {
    let database = Database::new(PageSize::MIN, 2600, 1);
    let whole = {
        let replica = memory().replica(&id());
        push(&replica, &mut MemoryOrigin::new(in_memory(&database)), 3).bytes_received as usize
    };
    for cut in [0, 1, 9, 100, whole / 3, whole / 2, whole - 100, whole - 1] {
        let repository = memory();
        let replica = repository.replica(&id());
        let mut first = replica.push(options()).unwrap();
        let (sent, taken) = exchange(&mut MemoryOrigin::new(in_memory(&database)), &mut first, 3, cut);
        assert!(sent.is_err() && taken.is_err());
        drop(first);
        assert_eq!(replica.latest().unwrap(), None, "cut after {cut} bytes");
        let done = push(&replica, &mut MemoryOrigin::new(in_memory(&database)), 3);
        if cut > whole / 4 {
            assert!(done.pages_received < 2600, "nothing was reused after a cut at {cut} bytes");
        }
        assert_holds(&replica, 1, &database);
        assert_sound(&repository);
    }
}

#[test]
fn a_peer_is_told_that_what_is_stored_is_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Repository::local(folder.path(), runtime()).unwrap().replica(&id());
    push(&open(), &mut MemoryOrigin::new(in_memory(&Database::new(PageSize::MIN, 2500, 1))), 3);
    let segments = folder.path().join("replicas").join(id().to_string()).join("segments");
    let segment = std::fs::read_dir(segments).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[5000] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    for version in 1..=3 {
        let replica = open();
        let mut origin = replica.origin(&replica.latest().unwrap().unwrap()).unwrap();
        let mut memory = MemoryReplica::empty();
        let (sent, taken) = exchange(&mut origin, &mut memory, version, usize::MAX);
        assert_eq!(sent.unwrap_err(), Refusal::Integrity);
        assert!(taken.is_err() && memory.content().is_none(), "version {version}");
    }
}
