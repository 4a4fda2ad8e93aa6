//! Whole exchanges between a live file and a file.

use rusqlite::Connection;

use crate::support::{Bench, Memory, create, dump, insert, root_of};

#[test]
fn a_new_file_becomes_the_origin_in_every_version_and_page_size() {
    for version in 1..=3 {
        for log2 in 9..=16 {
            let bench = Bench::new();
            let (from, to) = (bench.path("a.db"), bench.path("b.db"));
            create(&from, &format!("PRAGMA page_size = {}", 1 << log2), 3000);
            bench.copy(&from, &to, version);
            assert_eq!(dump(&from), dump(&to), "version {version}, pages of {}", 1 << log2);
            assert_eq!(root_of(&from), root_of(&to));
            assert_eq!(std::fs::read_dir(bench.dir.path()).unwrap().count(), 2, "nothing is left behind");
        }
    }
}

#[test]
fn a_live_file_follows_in_every_version_and_journal_mode() {
    for version in 1..=3 {
        for (from_mode, to_mode) in
            [("DELETE", "DELETE"), ("WAL", "DELETE"), ("DELETE", "WAL"), ("WAL", "WAL")]
        {
            let bench = Bench::new();
            let (from, to) = (bench.path("a.db"), bench.path("b.db"));
            let writer = create(&from, &format!("PRAGMA journal_mode = {from_mode}"), 3000);
            bench.copy(&from, &to, version);
            Connection::open(&to)
                .unwrap()
                .execute_batch(&format!("PRAGMA journal_mode = {to_mode}"))
                .unwrap();
            writer
                .execute_batch("UPDATE t SET name = 'changed' WHERE id = 77; DELETE FROM t WHERE id % 97 = 0")
                .unwrap();
            let summary = bench.copy(&from, &to, version);
            assert!(summary.pages_sent > 0 && summary.pages_sent < 200, "{summary:?}");
            assert_eq!(dump(&from), dump(&to), "version {version}, {from_mode} to {to_mode}");
            assert_eq!(root_of(&from), root_of(&to));
            let mode = crate::support::query(&Connection::open(&to).unwrap(), "PRAGMA journal_mode");
            assert!(mode[0].to_uppercase().contains(to_mode), "the replica keeps its journal mode: {mode:?}");
            writer
                .execute_batch("DELETE FROM t WHERE id > 1000; VACUUM; PRAGMA wal_checkpoint(TRUNCATE)")
                .unwrap();
            bench.copy(&from, &to, version);
            assert_eq!(dump(&from), dump(&to), "version {version}, {from_mode} to {to_mode}");
            let lengths = [&from, &to].map(|path| std::fs::metadata(path).unwrap().len());
            assert_eq!(lengths[0], lengths[1], "what is past the end is cut off");
        }
    }
}

#[test]
fn a_known_base_needs_no_hashes_and_costs_what_changed() {
    let bench = Bench::new();
    let (from, to) = (bench.path("a.db"), bench.path("b.db"));
    let (mut of, mut at) = (bench.memory("a.hashes"), bench.memory("b.hashes"));
    let writer = create(&from, "PRAGMA journal_mode = WAL", 5000);
    bench.sync(&from, &to, 3, &mut of, &mut at);
    for round in 0..5 {
        writer.execute("UPDATE t SET name = ?1 WHERE id = 1234", [round]).unwrap();
        if round == 3 {
            insert(&writer, 20_000);
        }
        if round == 4 {
            writer.execute_batch("DELETE FROM t WHERE id > 3000; VACUUM").unwrap();
        }
        let summary = bench.sync(&from, &to, 3, &mut of, &mut at);
        assert_eq!(summary.hash_rounds, 0);
        assert!(round > 2 || summary.pages_sent < 10, "{summary:?}");
        assert_eq!(dump(&from), dump(&to));
        assert_eq!(root_of(&from), at.agreed.as_ref().unwrap().root);
    }
    let summary = bench.sync(&from, &to, 3, &mut of, &mut at);
    assert_eq!(summary.pages_sent, 0);
}

#[test]
fn what_is_remembered_of_one_side_only_still_leads_to_the_same_content() {
    let bench = Bench::new();
    let (from, to) = (bench.path("a.db"), bench.path("b.db"));
    let (mut of, mut at) = (bench.memory("a.hashes"), bench.memory("b.hashes"));
    let writer = create(&from, "", 5000);
    bench.sync(&from, &to, 3, &mut of, &mut at);
    for round in 0..3 {
        writer.execute("UPDATE t SET name = ?1 WHERE id % 100 = 3", [round]).unwrap();
        // The origin's memory is lost, then the replica's, then both.
        if round != 1 {
            std::fs::remove_file(of.hashes.as_ref().unwrap()).unwrap();
        }
        if round != 0 {
            std::fs::write(at.hashes.as_ref().unwrap(), b"damaged").unwrap();
            at = Memory { agreed: None, ..at };
        }
        let mut origin = bench.origin(&from, &of).unwrap();
        let mut replica = bench.replica(&to, &at, sqlrsync_database::Overwrite::Force).unwrap();
        let (sent, taken) = crate::support::join(&mut origin, &mut replica, 3);
        sent.unwrap();
        taken.unwrap();
        of.agreed = Some(origin.agreed().unwrap());
        at.agreed = Some(replica.agreed().unwrap());
        assert_eq!(dump(&from), dump(&to), "round {round}");
        assert_eq!(of.base(), at.base());
    }
}
