//! Damage of any kind is noticed by reading and by `check`, and nothing damaged is served.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use sqlrsync_protocol::exchange::{Ground, ReplicaPages};
use sqlrsync_protocol::page::PageSize;
use sqlrsync_repository::{About, Error, Replica, Repository};

use crate::support::*;

/// A repository with an object of every kind, and what it holds.
struct Sample {
    store: Arc<InMemory>,
    versions: Vec<Database>,
}

impl Sample {
    fn new() -> Sample {
        let store = Arc::new(InMemory::new());
        // Pages that are all but zeros keep it small: each of its bytes is flipped.
        let page = |n: u32| {
            let mut page = vec![0; 512];
            page[200..204].copy_from_slice(&n.to_be_bytes());
            Arc::new(page)
        };
        let first = Database { size: PageSize::MIN, pages: (1..=3).map(page).collect() };
        let mut second = first.clone();
        second.pages[1] = page(500);
        second.pages.push(page(4));
        let sample = Sample { store, versions: vec![first, second] };
        let replica = sample.open().replica(&id());
        let [first, second] = &sample.versions[..] else { unreachable!() };
        Push::of(first).run(&replica).unwrap();
        Push::of(second).on(first, 1).run(&replica).unwrap();
        let about = About { namespace: "n".into(), path: "p".into(), created: jiff::Timestamp::UNIX_EPOCH };
        replica.set_about(&about).unwrap();
        let mut push = replica.push(options()).unwrap();
        push.begin(first.geometry(), 2).unwrap();
        push.group_hash(page_number(1), 100).unwrap();
        drop(push);
        let mut cut = Push::of(&Database::new(PageSize::MIN, 2, 5)).open(&replica).unwrap();
        send(&mut cut, &Database::new(PageSize::MIN, 2, 5), &[1, 2]).unwrap();
        drop(cut);
        sample
    }

    fn open(&self) -> Repository {
        Repository::over(self.store.clone(), runtime(), None)
    }

    fn objects(&self) -> Vec<(Path, Vec<u8>)> {
        objects_of(&self.store)
    }

    fn put(&self, path: &Path, bytes: &[u8]) {
        runtime().block_on(self.store.put(path, bytes.to_vec().into())).unwrap();
    }

    fn delete(&self, path: &Path) {
        runtime().block_on(self.store.delete(path)).unwrap();
    }

    /// Reads all there is to read. What comes is right; says whether all of it came.
    fn reads_well(&self) -> bool {
        let repository = self.open();
        let replica = repository.replica(&id());
        let mut well = true;
        let mut note = |outcome: Result<(), Error>| match outcome {
            Ok(()) => {}
            Err(error) => {
                assert!(error.is_damage(), "{error}");
                well = false;
            }
        };
        note(replica.about().map(|about| assert_eq!(about.unwrap().namespace, "n")));
        for (n, database) in (1..).zip(&self.versions) {
            note(replica.manifest(number(n)).and_then(|manifest| {
                let Some(manifest) = manifest else { return Ok(()) };
                assert_eq!(manifest.root, database.root());
                assert!(pull(&replica, &manifest)? == *database, "a damaged page was served");
                Ok(())
            }));
        }
        note(hashes(&replica, &self.versions[1]));
        well
    }

    /// What `check` says is broken.
    fn broken(&self) -> BTreeSet<String> {
        let report = self.open().check(&mut |_| {}).unwrap();
        report.problems.into_iter().map(|problem| problem.object).collect()
    }
}

/// All objects, sorted by name.
pub fn objects_of(store: &InMemory) -> Vec<(Path, Vec<u8>)> {
    runtime().block_on(async {
        let listed: Vec<_> = store.list(None).try_collect().await.unwrap();
        let mut objects = Vec::new();
        for meta in listed {
            let bytes = store.get(&meta.location).await.unwrap().bytes().await.unwrap();
            objects.push((meta.location, bytes.to_vec()));
        }
        objects.sort();
        objects
    })
}

fn page_number(n: u32) -> sqlrsync_protocol::page::PageNumber {
    page(n)
}

/// Asks for the older protocol's hashes, which are right if they come.
fn hashes(replica: &Replica, latest: &Database) -> Result<(), Error> {
    let mut push = replica.push(options())?;
    push.begin(latest.geometry(), 2)?;
    assert!(push.accept(Ground::Compared, None)?);
    for n in 1..=latest.pages.len() as u32 {
        let expected = sqlrsync_protocol::sponge::hash20(&latest.pages[n as usize - 1]);
        assert!(push.group_hash(page(n), 1)? == expected, "a damaged hash was used");
    }
    Ok(())
}

#[test]
fn every_flipped_byte_is_noticed_and_never_served() {
    let sample = Sample::new();
    assert!(sample.reads_well());
    assert!(sample.broken().is_empty());
    let objects = sample.objects();
    let kinds: BTreeSet<_> = objects.iter().filter_map(|(path, _)| path.parts().nth(2)).collect();
    assert_eq!(kinds.len(), 5, "an object of every kind");
    for (path, bytes) in &objects {
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            sample.put(path, &flipped);
            // What waits to be continued is read by pushes only, which then do without.
            let of_a_version = !path.as_ref().contains("/staged/") && !is_staged(&objects, path);
            assert!(!of_a_version || !sample.reads_well(), "byte {at} of {path} is not read");
            let broken = sample.broken();
            assert!(broken.contains(path.as_ref()), "byte {at} of {path}: {broken:?}");
        }
        sample.put(path, bytes);
    }
    assert!(sample.reads_well());
}

/// Whether a segment is one that a cut push left.
fn is_staged(objects: &[(Path, Vec<u8>)], path: &Path) -> bool {
    let Some(name) = path.filename() else { return false };
    objects.iter().any(|(other, _)| other.as_ref().contains("/staged/") && other.as_ref().ends_with(name))
}

#[test]
fn missing_cut_and_lengthened_objects_are_noticed() {
    let sample = Sample::new();
    for (path, bytes) in sample.objects() {
        for len in [0, 1, 20, bytes.len() / 2, bytes.len() - 1] {
            sample.put(&path, &bytes[..len]);
            assert!(sample.broken().contains(path.as_ref()), "{path} cut to {len} bytes");
            sample.reads_well();
        }
        sample.put(&path, &[&bytes[..], b"x"].concat());
        assert!(sample.broken().contains(path.as_ref()), "{path} with a byte more");
        sample.reads_well();
        sample.delete(&path);
        // The last manifest, and what can be made again, leave no trace.
        let needed = path.as_ref().contains("/segments/")
            || path.as_ref().ends_with("/manifests/00000000000000000001");
        assert_eq!(!sample.broken().is_empty(), needed, "{path} is missing");
        sample.put(&path, &bytes);
    }
    assert!(sample.broken().is_empty());
}

#[test]
fn objects_under_the_name_of_another_are_noticed() {
    let sample = Sample::new();
    let objects = sample.objects();
    for (path, bytes) in &objects {
        for (other, others) in objects.iter().filter(|(other, _)| other != path) {
            sample.put(path, others);
            assert!(sample.broken().contains(path.as_ref()), "{other} under the name of {path}");
            sample.reads_well();
        }
        sample.put(path, bytes);
    }
    // A whole replica's objects under another id are noticed as well.
    let foreign = sqlrsync_repository::ReplicaId::random().unwrap();
    for (path, bytes) in &objects {
        let moved = path.as_ref().replace(&id().to_string(), &foreign.to_string());
        sample.put(&Path::from(moved), bytes);
    }
    assert!(sample.open().replica(&foreign).latest().is_err());
    assert!(!sample.broken().is_empty());
}

#[test]
fn names_that_no_repository_gives_are_named() {
    let sample = Sample::new();
    let folder = format!("replicas/{}", id());
    for name in ["replicas/x/about", "manifests/1", "segments/1", "about/1", "staged/x", "else"] {
        let path = if name.starts_with("replicas") { name.into() } else { format!("{folder}/{name}") };
        sample.put(&Path::from(path.as_str()), b"");
        assert_eq!(sample.broken().len(), 1, "{path}");
        sample.delete(&Path::from(path.as_str()));
    }
}

#[test]
fn damage_says_which_version_it_is_in() {
    let sample = Sample::new();
    let objects = sample.objects();
    let of_a_version = |path: &Path| path.as_ref().contains("/segments/") && !is_staged(&objects, path);
    let segment = objects.iter().find(|(path, _)| of_a_version(path)).unwrap();
    sample.delete(&segment.0);
    let report = sample.open().check(&mut |_| {}).unwrap();
    assert!(report.versions_proved < report.versions);
    let text = report.problems[0].to_string();
    assert!(text.contains("is missing"), "{text}");
    assert!(text.contains("(version "), "{text}");
}

#[test]
fn a_whole_block_put_in_place_of_another_is_noticed() {
    use sqlrsync_protocol::block::{BlockBuilder, Effort};
    use sqlrsync_protocol::exchange::{End, Since};
    let store = Arc::new(InMemory::new());
    let repository = Repository::over(store.clone(), runtime(), None);
    let replica = repository.replica(&id());
    let block = |database: &Database| {
        let mut builder = BlockBuilder::new(database.size);
        (1..=3).for_each(|n| builder.push(page(n), &database.canonical(n)));
        builder.finish(Effort::None).unwrap()
    };
    let [ours, other] = [1, 2].map(|seed| Database::new(PageSize::MIN, 3, seed));
    let mut push = Push::of(&ours).open(&replica).unwrap();
    push.take_block(block(&ours)).unwrap();
    push.finish(End::Proof(ours.proof())).unwrap();
    let sample = Sample { store, versions: vec![ours.clone()] };
    let objects = sample.objects();
    let (path, bytes) = objects.iter().find(|(path, _)| path.as_ref().contains("/segments/")).unwrap();
    let (old, new) = (block(&ours).as_bytes().clone(), block(&other).as_bytes().clone());
    let at = bytes.windows(old.len()).position(|window| window == old).unwrap();
    let mut forged = bytes.clone();
    forged[at..at + new.len()].copy_from_slice(&new);
    sample.put(path, &forged);
    // Its own checksum is right, and it would go out without being decoded.
    let replica = sample.open().replica(&id());
    let latest = replica.latest().unwrap().unwrap();
    let error = pull_blocks(&replica, &latest, Since::Nothing).unwrap_err();
    assert!(error.is_damage(), "{error}");
    assert_eq!(sample.broken(), BTreeSet::from([path.to_string()]));
}
