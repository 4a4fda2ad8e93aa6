//! Damage of what merging keeps: candidates, conflicts, and what stands beside them.

use std::collections::BTreeSet;
use std::sync::Arc;

use object_store::ObjectStoreExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use sqlrsync_protocol::content::Content;
use sqlrsync_protocol::page::PageSize;
use sqlrsync_repository::{Candidate, ClientKey, Conflict, Error, Replica, ReplicaId, Repository, Standing};

use crate::damage::objects_of;
use crate::sides::{Sides, by, conflict_number, overlap, pushed};
use crate::support::*;

const ROWS: &[u8] = b"{\"table\":\"orders\",\"key\":{\"id\":1}}\n";

/// A repository in which one candidate was settled and another waits, and what it holds.
struct Sample {
    store: Arc<InMemory>,
    settled: Candidate,
    waiting: Candidate,
    conflicts: [Conflict; 2],
    mine: Database,
    later: Database,
}

fn key() -> ClientKey {
    ClientKey::any_file("client")
}

impl Sample {
    fn new() -> Sample {
        let store = Arc::new(InMemory::new());
        let mut sides = Sides::new(Repository::over(store.clone(), runtime(), None));
        // Pages that are all but zeros keep it small: each of its bytes is flipped.
        let small = |seed: u8| {
            let page = |n: u8| {
                let mut page = vec![0; 512];
                page[200..202].copy_from_slice(&[seed, n]);
                Arc::new(page)
            };
            Database { size: PageSize::MIN, pages: (0..3).map(page).collect() }
        };
        sides.base = small(1);
        let change = |n: usize, seed: u8| {
            let mut database = small(1);
            database.pages[n] = small(seed).pages[n].clone();
            database
        };
        (sides.theirs, sides.mine, sides.both) = (change(1, 2), change(2, 3), change(1, 2));
        sides.both.pages[2] = sides.mine.pages[2].clone();
        sides.push_both().unwrap();
        let settled = sides.mine();
        let replica = &sides.replica;
        let first = replica.open_conflict(&settled, overlap(&settled), ROWS, by("me")).unwrap();
        let latest = sides.version(2);
        let version = sides.merge(&settled, (&latest, (&sides.theirs, &latest)), &sides.both, Some(&first));
        let first = replica.end_conflict(&first, &version.unwrap().unwrap(), "{}".into(), by("you"));
        let mut later = sides.mine.clone();
        later.pages[0] = small(9).pages[0].clone();
        let waiting = sides.keep(4, &later, (&sides.mine, &settled.content));
        let second = replica.open_conflict(&waiting, overlap(&waiting), ROWS, by("me")).unwrap();
        pushed(replica, &key(), &waiting).unwrap();
        replica.put_parents(&latest, b"parents").unwrap();
        let conflicts = [first.unwrap().unwrap(), second];
        Sample { store, settled, waiting, conflicts, mine: sides.mine, later }
    }

    fn open(&self) -> Repository {
        Repository::over(self.store.clone(), runtime(), None)
    }

    fn put(&self, path: &Path, bytes: &[u8]) {
        runtime().block_on(self.store.put(path, bytes.to_vec().into())).unwrap();
    }

    /// Reads all there is to read, up to the first that does not come. What comes is right.
    fn reads_well(&self) -> bool {
        let repository = self.open();
        let replica = repository.replica(&id());
        let read: [&dyn Fn() -> Result<bool, Error>; 6] = [
            &|| self.client(&replica),
            &|| self.parents(&replica),
            &|| self.conflict(&replica, 0),
            &|| self.conflict(&replica, 1),
            &|| self.candidate(&replica, &self.settled, &self.mine),
            &|| self.candidate(&replica, &self.waiting, &self.later),
        ];
        read.iter().all(|read| match read() {
            Ok(read) => read,
            Err(error) => {
                assert!(error.is_damage(), "{error}");
                false
            }
        })
    }

    fn client(&self, replica: &Replica) -> Result<bool, Error> {
        let Some(record) = replica.client_record(&key())? else { return Ok(false) };
        assert_eq!(record.pushed.unwrap().candidate, Some(self.waiting.id));
        Ok(true)
    }

    fn parents(&self, replica: &Replica) -> Result<bool, Error> {
        let Some(parents) = replica.parents(&replica.manifest(number(2))?.unwrap())? else {
            return Ok(false);
        };
        assert_eq!(parents, b"parents"[..]);
        Ok(true)
    }

    fn candidate(&self, replica: &Replica, expected: &Candidate, database: &Database) -> Result<bool, Error> {
        let Some(found) = replica.candidate(expected.id)? else { return Ok(false) };
        assert_eq!(&found, expected);
        let mut bytes = vec![0; 512];
        let mut content = replica.content(&found.content)?;
        for n in 1..=3 {
            if let Err(error) = content.read(page(n), &mut bytes) {
                assert_eq!(error.refusal(), sqlrsync_protocol::exchange::Refusal::Integrity);
                return Ok(false);
            }
            assert!(bytes == *database.canonical(n), "a damaged page was served");
        }
        let by_root = replica.candidate_by_root(database.root())?;
        let standing = replica.standing(&found)?;
        assert_ne!(standing, Standing::Kept);
        Ok(by_root.is_some())
    }

    fn conflict(&self, replica: &Replica, n: usize) -> Result<bool, Error> {
        let Some(found) = replica.conflict(conflict_number(n as u64 + 1))? else { return Ok(false) };
        assert_eq!(found, self.conflicts[n]);
        let Some(rows) = replica.conflict_rows(&found.overlap)? else { return Ok(false) };
        assert_eq!(rows, ROWS);
        Ok(true)
    }

    fn broken(&self) -> BTreeSet<String> {
        let report = self.open().check(&mut |_| {}).unwrap();
        report.problems.into_iter().map(|problem| problem.object).collect()
    }
}

/// The objects that versions do not have. (Those of versions are flipped elsewhere.)
fn of_merging(sample: &Sample) -> Vec<(Path, Vec<u8>)> {
    let mut objects = objects_of(&sample.store);
    objects.retain(|(path, _)| {
        let folder = path.parts().nth(2).unwrap();
        !["about", "manifests", "segments"].contains(&folder.as_ref())
    });
    objects
}

#[test]
fn every_flipped_byte_of_what_merging_keeps_is_noticed_and_never_used() {
    let sample = Sample::new();
    assert!(sample.reads_well());
    assert!(sample.broken().is_empty());
    let objects = of_merging(&sample);
    let kinds: BTreeSet<_> = objects.iter().filter_map(|(path, _)| path.parts().nth(2)).collect();
    assert_eq!(kinds.len(), 6, "an object of every kind");
    for (path, bytes) in &objects {
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            sample.put(path, &flipped);
            assert!(!sample.reads_well(), "byte {at} of {path} is not read");
            // A check reads all of it, which takes its time.
            if at < 100 || at % 11 == 0 {
                let broken = sample.broken();
                assert!(broken.contains(path.as_ref()), "byte {at} of {path}: {broken:?}");
            }
        }
        sample.put(path, bytes);
    }
    assert!(sample.reads_well());
}

#[test]
fn missing_cut_and_swapped_objects_of_merging_are_noticed() {
    let sample = Sample::new();
    let objects = of_merging(&sample);
    for (path, bytes) in &objects {
        for len in [0, 1, 20, bytes.len() / 2, bytes.len() - 1] {
            sample.put(path, &bytes[..len]);
            assert!(sample.broken().contains(path.as_ref()), "{path} cut to {len} bytes");
            assert!(!sample.reads_well());
        }
        sample.put(path, &[&bytes[..], b"x"].concat());
        assert!(sample.broken().contains(path.as_ref()), "{path} with a byte more");
        for (other, others) in objects.iter().filter(|(other, _)| other != path) {
            sample.put(path, others);
            assert!(sample.broken().contains(path.as_ref()), "{other} under the name of {path}");
            sample.reads_well();
        }
        runtime().block_on(sample.store.delete(path)).unwrap();
        let kind = path.parts().nth(2).unwrap().as_ref().to_owned();
        // The last step of a conflict leaves no trace, and hints can be made again. The rows of a conflict that
        // is over, and its candidate, go in time.
        let name = path.as_ref();
        let last_step = name.contains("1/00000000000000000002") || name.contains("2/00000000000000000001");
        let settled = name.contains(&"03".repeat(16));
        let needed = ["candidates", "conflict-rows", "conflicts"].contains(&kind.as_str());
        assert_eq!(!sample.broken().is_empty(), needed && !last_step && !settled, "{path} is missing");
        sample.put(path, bytes);
    }
    assert!(sample.broken().is_empty() && sample.reads_well());
}

#[test]
fn objects_of_merging_under_another_replicas_name_are_noticed() {
    let sample = Sample::new();
    let foreign = ReplicaId::random().unwrap();
    for (path, bytes) in of_merging(&sample) {
        let moved = Path::from(path.as_ref().replace(&id().to_string(), &foreign.to_string()));
        sample.put(&moved, &bytes);
        // Rows are what they hash to, wherever they stand.
        let rows = path.as_ref().contains("/conflict-rows/");
        assert_eq!(sample.broken().contains(moved.as_ref()), !rows, "{moved}");
        runtime().block_on(sample.store.delete(&moved)).unwrap();
    }
}

#[test]
fn a_replica_with_a_broken_candidate_or_conflict_is_not_swept() {
    let sample = Sample::new();
    for (path, bytes) in of_merging(&sample) {
        let kind = path.parts().nth(2).unwrap().as_ref().to_owned();
        sample.put(&path, b"broken");
        let before = objects_of(&sample.store).len();
        let report = sample.open().sweep(crate::versions::at_once()).unwrap();
        if kind == "candidates" || kind == "conflicts" {
            assert_eq!(report.replicas_skipped, [id()], "{path}");
            assert_eq!(objects_of(&sample.store).len(), before, "{path}");
        }
        sample.put(&path, &bytes);
    }
}
