//! A version pulled beside a file: both are what they should be, and the file is as it was.

use std::path::Path;

use rusqlite::Connection;
use sqlrsync_database::version::{Limits, VersionDatabase};
use sqlrsync_database::{Beside, Error, FileReplica, FileReplicaOptions};
use sqlrsync_protocol::content::{ChangedPages, Content};

use crate::support::{Bench, Memory, create, dump, dump_of, insert, join};

fn replica(bench: &Bench, path: &Path, memory: &Memory) -> FileReplica {
    let options = FileReplicaOptions {
        hashes: memory.hashes.clone(),
        known: memory.agreed.clone(),
        base: memory.base(),
        temp_dir: Some(bench.dir.path().to_path_buf()),
        ..FileReplicaOptions::default()
    };
    FileReplica::open_beside(path, options).unwrap()
}

/// Pulls `from` beside `path`, and says how many pages came.
fn pull(bench: &Bench, from: &Path, path: &Path, memory: &Memory, version: u8) -> (Beside, u64) {
    let mut origin = bench.origin(from, &Memory::default()).unwrap();
    let mut replica = replica(bench, path, memory);
    let (sent, taken) = join(&mut origin, &mut replica, version);
    sent.unwrap();
    (replica.beside().unwrap(), taken.unwrap().pages_received)
}

fn rows_of(content: impl Content + 'static) -> Vec<String> {
    let database = VersionDatabase::open(Box::new(content), Limits::default()).unwrap();
    dump_of(database.connection())
}

/// That both are what they are of, and that no page differs that is not said to.
#[track_caller]
fn assert_both(beside: Beside, file: &[String], version: &[String]) {
    let Beside { file: mut held, version: mut pulled, changed } = beside;
    if let ChangedPages::Known(changed) = changed {
        let (here, there) = (held.geometry(), pulled.geometry());
        for number in
            (1..=here.page_count.get().max(there.page_count.get())).filter(|n| !changed.contains(*n))
        {
            let number = sqlrsync_protocol::page::PageNumber::new(number).unwrap();
            let mut pages = [vec![0; here.page_size.bytes()], vec![1; there.page_size.bytes()]];
            held.read(number, &mut pages[0]).unwrap();
            pulled.read(number, &mut pages[1]).unwrap();
            assert_eq!(pages[0], pages[1], "{number:?}");
        }
    }
    assert_eq!(rows_of(pulled), version);
    assert_eq!(rows_of(held), file);
}

#[test]
fn a_version_beside_a_file_takes_what_differs_and_leaves_the_file() {
    for (mode, version) in [("WAL", 3), ("DELETE", 3), ("WAL", 2), ("DELETE", 1)] {
        let bench = Bench::new();
        let (one, two) = (bench.path("one.db"), bench.path("two.db"));
        let pragmas = format!("PRAGMA journal_mode = {mode}; PRAGMA wal_autocheckpoint = 0");
        let connection = create(&one, &pragmas, 2000);
        bench.copy(&one, &two, 3);
        // Some pages of each differ, and one has more of them.
        insert(&Connection::open(&two).unwrap(), 300);
        connection.execute_batch("UPDATE t SET name = 'here' WHERE id = 700").unwrap();
        let (here, there) = (dump(&one), dump(&two));
        let all = std::fs::metadata(&two).unwrap().len() / 4096;
        for (of, beside) in [(&two, &one), (&one, &two)] {
            let (both, pages) = pull(&bench, of, beside, &Memory::default(), version);
            assert!((1..all / 2).contains(&pages), "{mode}, {version}: {pages} of {all}");
            let (file, version) = if beside == &one { (&here, &there) } else { (&there, &here) };
            assert_both(both, file, version);
        }
        drop(connection);
    }
}

#[test]
fn a_wal_that_nobody_has_open_stays_where_it_is() {
    let bench = Bench::new();
    let (one, two) = (bench.path("one.db"), bench.path("two.db"));
    let connection =
        create(&bench.path("live.db"), "PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0", 100);
    // As a program that was killed leaves it.
    for suffix in ["", "-wal"] {
        std::fs::copy(bench.path(&format!("live.db{suffix}")), bench.path(&format!("one.db{suffix}")))
            .unwrap();
    }
    drop(connection);
    bench.copy(&bench.path("live.db"), &two, 3);
    insert(&Connection::open(&two).unwrap(), 10);
    let bytes = || [std::fs::read(&one).unwrap(), std::fs::read(bench.path("one.db-wal")).unwrap()];
    let before = bytes();
    assert!(before[1].len() > 4096);
    drop(pull(&bench, &two, &one, &Memory::default(), 3));
    assert!(bytes() == before, "the file or its WAL was written");
}

#[test]
fn what_was_agreed_on_stays_as_it_is() {
    let bench = Bench::new();
    let (one, two) = (bench.path("one.db"), bench.path("two.db"));
    create(&one, "", 2000);
    let mut memory = bench.memory("hashes");
    bench.sync(&one, &two, 3, &mut bench.memory("others"), &mut memory);
    insert(&Connection::open(&one).unwrap(), 10);
    let hashes = bench.path("hashes");
    let before = std::fs::read(&hashes).unwrap();
    let (both, _) = pull(&bench, &one, &two, &memory, 3);
    assert_both(both, &dump(&two), &dump(&one));
    insert(&Connection::open(&two).unwrap(), 20);
    let (both, _) = pull(&bench, &one, &two, &memory, 3);
    assert_both(both, &dump(&two), &dump(&one));
    assert!(std::fs::read(&hashes).unwrap() == before && !bench.path("hashes.new").exists());
}

#[test]
fn a_version_of_another_page_size_comes_whole() {
    let bench = Bench::new();
    let (one, two) = (bench.path("one.db"), bench.path("two.db"));
    create(&one, "PRAGMA page_size = 1024", 100);
    create(&two, "PRAGMA page_size = 4096", 200);
    for version in [2, 3] {
        let (both, _) = pull(&bench, &two, &one, &Memory::default(), version);
        assert!(matches!(both.changed, ChangedPages::Unknown));
        assert_both(both, &dump(&one), &dump(&two));
    }
}

#[test]
fn a_writer_goes_on_meanwhile_and_is_not_mixed_in() {
    let bench = Bench::new();
    let (one, two) = (bench.path("one.db"), bench.path("two.db"));
    let connection = create(&one, "PRAGMA journal_mode = WAL", 300);
    bench.copy(&one, &two, 3);
    let change = "UPDATE t SET name = name || ' changed' WHERE id % 7 = 0";
    connection.execute_batch(change).unwrap();
    for mode in ["wal", "delete"] {
        connection.pragma_update(None, "journal_mode", mode).unwrap();
        let here = dump(&one);
        let mut origin = bench.origin(&two, &Memory::default()).unwrap();
        let mut replica = replica(&bench, &one, &Memory::default());
        join(&mut origin, &mut replica, 3).1.unwrap();
        connection.execute_batch(change).unwrap();
        match replica.beside() {
            Ok(both) if mode == "wal" => assert_both(both, &here, &dump(&two)),
            Err(Error::ChangedMeanwhile { .. }) if mode == "delete" => {}
            other => panic!("{mode}: {:?}", other.err()),
        }
    }
}

#[test]
fn there_is_nothing_beside_a_file_before_the_exchange_is_over() {
    let bench = Bench::new();
    let one = bench.path("one.db");
    create(&one, "", 10);
    let asked = replica(&bench, &one, &Memory::default()).beside();
    assert!(matches!(asked, Err(Error::NothingAgreed)));
    let missing = bench.path("missing.db");
    let mut origin = bench.origin(&one, &Memory::default()).unwrap();
    let taken = join(&mut origin, &mut replica(&bench, &missing, &Memory::default()), 3).1;
    assert!(format!("{taken:?}").contains("Missing"), "{taken:?}");
    assert!(!missing.exists());
}
