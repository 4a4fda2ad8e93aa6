//! Sessions of `sqlite3_rsync`, recorded: our replica is fed what its origin said, and must end as its
//! replica did; and our two sides must come to the same without a recording.

use std::convert::Infallible;
use std::io::Read;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use flate2::read::GzDecoder;
use rusqlite::Connection;
use sqlrsync_database::Overwrite;
use sqlrsync_protocol::conversation::{Fidelity, Quiet, ReplicaOptions, Wire, run_replica};

use crate::support::{Bench, Memory, dump, query, root_of};

fn recordings() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../protocol/tests/protocol/recordings/vectors");
    let cases: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(cases.len() >= 10);
    cases
}

fn unpacked(case: &Path, name: &str) -> Option<Vec<u8>> {
    let file = std::fs::File::open(case.join(format!("{name}.gz"))).ok()?;
    let mut bytes = Vec::new();
    GzDecoder::new(file).read_to_end(&mut bytes).unwrap();
    Some(bytes)
}

/// Says what was recorded, and does not listen.
struct Recorded(Vec<Bytes>);

impl Wire for Recorded {
    type Error = Infallible;

    fn send(&mut self, _: Bytes) -> Result<(), Infallible> {
        Ok(())
    }

    fn receive(&mut self) -> Result<Option<Bytes>, Infallible> {
        Ok(self.0.pop())
    }
}

/// Unpacks what a case starts and ends with; `None` where it ends in an error.
fn lay_out(case: &Path, bench: &Bench) -> Option<(PathBuf, PathBuf, PathBuf)> {
    if case.ends_with("page-size-mismatch") {
        return None;
    }
    let paths = ["origin.db", "replica.db", "after.db"].map(|name| bench.path(name));
    std::fs::write(&paths[0], unpacked(case, "origin.db").unwrap()).unwrap();
    if let Some(before) = unpacked(case, "replica-before.db") {
        std::fs::write(&paths[1], before).unwrap();
    }
    std::fs::write(&paths[2], unpacked(case, "replica-after.db").unwrap()).unwrap();
    let [origin, replica, after] = paths;
    Some((origin, replica, after))
}

fn is_wal(path: &Path) -> bool {
    query(&Connection::open(path).unwrap(), "PRAGMA journal_mode")[0].contains("wal")
}

#[test]
fn a_recorded_origin_leaves_the_recorded_replica() {
    for case in recordings() {
        let bench = Bench::new();
        let Some((_, path, after)) = lay_out(&case, &bench) else { continue };
        let stream = Bytes::from(unpacked(&case, "origin-to-replica.bin").unwrap());
        let mut replica = bench.replica(&path, &Memory::default(), Overwrite::Force).unwrap();
        let options = ReplicaOptions { fidelity: Fidelity::AsRecorded, ..ReplicaOptions::default() };
        run_replica(options, &mut replica, &mut Recorded(vec![stream]), &mut Quiet).unwrap();
        let case = case.display();
        assert_eq!(root_of(&path), root_of(&after), "{case}");
        assert_eq!(is_wal(&path), is_wal(&after), "{case}");
    }
}

#[test]
fn both_sides_together_end_as_recorded() {
    for case in recordings() {
        for version in 1..=3 {
            let bench = Bench::new();
            let Some((origin, replica, after)) = lay_out(&case, &bench) else { continue };
            let was_wal = replica.exists() && is_wal(&replica);
            bench.copy(&origin, &replica, version);
            let case = case.display();
            assert_eq!(dump(&replica), dump(&origin), "{case}, version {version}");
            assert_eq!(root_of(&replica), root_of(&origin), "{case}, version {version}");
            assert!(!was_wal || is_wal(&after) && is_wal(&replica), "{case}, version {version}");
        }
    }
}
