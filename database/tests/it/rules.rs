//! One test for each rule of writing a live file: each fails without it. Those about who else has it open are in
//! `in_use`.

use std::fs;
use std::time::Duration;

use rusqlite::Connection;
use sqlrsync_database::{Error, Overwrite};
use sqlrsync_protocol::exchange::{
    End, Fault, Form, Ground, OriginPages, Refusal, ReplicaPages, Since, Wanted,
};

use crate::support::{Bench, Memory, create, dump, insert, join, names, query, root_of, taken};

#[test]
fn what_does_not_add_up_changes_nothing() {
    for existing in [false, true] {
        let bench = Bench::new();
        let (from, to) = (bench.path("a.db"), bench.path("b.db"));
        create(&from, "", 500);
        let before = existing.then(|| {
            create(&to, "", 50);
            dump(&to)
        });
        let (mut origin, mut replica) = taken(&bench, &from, &to, Overwrite::Force);
        let mut proof = origin.proof().unwrap();
        proof.root.0[7] ^= 1;
        let error = replica.finish(End::Proof(proof)).unwrap_err();
        assert!(matches!(error, Error::Proof));
        assert_eq!(error.refusal(), Refusal::Integrity);
        drop(replica);
        match before {
            Some(before) => assert_eq!(dump(&to), before),
            None => assert_eq!(names(bench.dir.path()), ["a.db"], "nothing is left behind"),
        }
    }
}

#[test]
fn a_replica_with_changes_of_its_own_is_left_alone_unless_told_otherwise() {
    for version in 1..=3 {
        let bench = Bench::new();
        let (from, to) = (bench.path("a.db"), bench.path("b.db"));
        let (mut of, mut at) = (bench.memory("a.hashes"), bench.memory("b.hashes"));
        let writer = create(&from, "", 500);
        bench.sync(&from, &to, 3, &mut of, &mut at);
        Connection::open(&to).unwrap().execute_batch("UPDATE t SET name = 'mine' WHERE id = 5").unwrap();
        writer.execute_batch("UPDATE t SET name = 'theirs' WHERE id = 6").unwrap();
        let mine = dump(&to);
        let mut origin = bench.origin(&from, &of).unwrap();
        let mut replica = bench.replica(&to, &at, Overwrite::Never).unwrap();
        let (sent, taken) = join(&mut origin, &mut replica, version);
        let error = taken.unwrap_err();
        assert!(error.to_string().contains("changes of its own"), "{error}");
        sent.unwrap_err();
        assert_eq!(dump(&to), mine);
        bench.copy(&from, &to, version);
        assert_eq!(dump(&to), dump(&from));
    }
}

#[test]
fn a_replica_that_still_is_its_base_follows_though_the_origin_forgot_it() {
    for version in 1..=3 {
        let bench = Bench::new();
        let (from, to) = (bench.path("a.db"), bench.path("b.db"));
        let (mut of, mut at) = (bench.memory("a.hashes"), bench.memory("b.hashes"));
        let writer = create(&from, "", 500);
        bench.sync(&from, &to, 3, &mut of, &mut at);
        writer.execute_batch("UPDATE t SET name = 'theirs' WHERE id = 6").unwrap();
        let mut origin = bench.origin(&from, &Memory::default()).unwrap();
        let mut replica = bench.replica(&to, &at, Overwrite::Never).unwrap();
        let (sent, taken) = join(&mut origin, &mut replica, version);
        taken.unwrap();
        sent.unwrap();
        assert_eq!(dump(&to), dump(&from), "version {version}");
        // Also versions 1 and 2 leave a base behind: the root was computed here.
        assert_eq!(replica.agreed().unwrap().root, root_of(&from));
    }
}

#[test]
fn only_the_base_is_written_over_where_nothing_else_may_be() {
    let bench = Bench::new();
    let (from, to) = (bench.path("a.db"), bench.path("b.db"));
    let (mut of, mut at) = (bench.memory("a.hashes"), bench.memory("b.hashes"));
    let writer = create(&from, "", 500);
    bench.sync(&from, &to, 3, &mut of, &mut at);
    let earlier = Memory { hashes: at.hashes.clone(), agreed: at.agreed.clone() };
    writer.execute_batch("UPDATE t SET name = 'second' WHERE id = 6").unwrap();
    bench.sync(&from, &to, 3, &mut of, &mut at);
    writer.execute_batch("UPDATE t SET name = 'third' WHERE id = 6").unwrap();
    let second = dump(&to);

    // The origin knows what the file has, and the file's own base is another content.
    let mut origin = bench.origin(&from, &of).unwrap();
    let mut replica = bench.replica(&to, &earlier, Overwrite::UnlessBase).unwrap();
    let (_, taken) = join(&mut origin, &mut replica, 3);
    assert!(taken.unwrap_err().to_string().contains("changes of its own"));
    assert_eq!(dump(&to), second);

    let mut origin = bench.origin(&from, &of).unwrap();
    let mut replica = bench.replica(&to, &at, Overwrite::UnlessBase).unwrap();
    let (_, taken) = join(&mut origin, &mut replica, 3);
    taken.unwrap();
    assert_eq!(dump(&to), dump(&from));

    fs::remove_file(&to).unwrap();
    let mut origin = bench.origin(&from, &of).unwrap();
    let mut replica = bench.replica(&to, &at, Overwrite::UnlessBase).unwrap();
    let (_, taken) = join(&mut origin, &mut replica, 3);
    taken.unwrap_err();
    assert!(!to.exists(), "a file that is gone is not made again");
}

#[test]
fn a_file_that_was_never_synced_is_left_alone() {
    let bench = Bench::new();
    let (from, to) = (bench.path("a.db"), bench.path("b.db"));
    create(&from, "", 100);
    create(&to, "", 50);
    let before = dump(&to);
    let mut origin = bench.origin(&from, &Memory::default()).unwrap();
    let mut replica = bench.replica(&to, &Memory::default(), Overwrite::Never).unwrap();
    join(&mut origin, &mut replica, 3).1.unwrap_err();
    assert_eq!(dump(&to), before);
}

#[test]
fn a_write_between_comparing_and_applying_is_kept() {
    for mode in ["DELETE", "WAL"] {
        let bench = Bench::new();
        let (from, to) = (bench.path("a.db"), bench.path("b.db"));
        create(&from, "", 500);
        let application = create(&to, &format!("PRAGMA journal_mode = {mode}"), 50);
        let mut origin = bench.origin(&from, &Memory::default()).unwrap();
        let mut replica = bench.replica(&to, &Memory::default(), Overwrite::Force).unwrap();
        replica.begin(origin.geometry().unwrap(), 3).unwrap();
        replica.accept(Ground::Compared, None).unwrap();
        origin.begin(Wanted { since: Since::Nothing, staged: Vec::new(), form: Form::Blocks }).unwrap();
        while let Some(block) = origin.next_block().unwrap() {
            replica.take_block(block).unwrap();
        }
        application.execute_batch("UPDATE t SET name = 'late'").unwrap();
        let error = replica.finish(End::Proof(origin.proof().unwrap())).unwrap_err();
        assert!(matches!(error, Error::ChangedMeanwhile { .. }), "{error}");
        assert_eq!(error.refusal(), Refusal::TryLater);
        assert_eq!(query(&application, "SELECT DISTINCT name FROM t"), ["Text(\"late\")"]);
    }
}

#[test]
fn a_file_that_appears_meanwhile_is_not_overwritten() {
    let bench = Bench::new();
    let (from, to) = (bench.path("a.db"), bench.path("b.db"));
    create(&from, "", 500);
    let (mut origin, mut replica) = taken(&bench, &from, &to, Overwrite::Force);
    create(&to, "", 3);
    let before = dump(&to);
    let error = replica.finish(End::Proof(origin.proof().unwrap())).unwrap_err();
    assert!(matches!(error, Error::Appeared { .. }), "{error}");
    drop(replica);
    assert_eq!(dump(&to), before);
    assert_eq!(names(bench.dir.path()), ["a.db", "b.db"]);
}

#[test]
fn a_wal_without_its_database_is_not_mixed_into_a_new_one() {
    let bench = Bench::new();
    let (from, to) = (bench.path("a.db"), bench.path("b.db"));
    create(&from, "", 100);
    fs::write(bench.path("b.db-wal"), b"frames of another database").unwrap();
    let geometry = bench.origin(&from, &Memory::default()).unwrap().geometry().unwrap();
    let error =
        bench.replica(&to, &Memory::default(), Overwrite::Force).unwrap().begin(geometry, 3).unwrap_err();
    assert!(matches!(error, Error::Leftover { .. }), "{error}");
    assert!(!to.exists());
}

#[test]
fn a_wal_that_appears_while_pages_arrive_is_not_mixed_into_the_new_file() {
    for suffix in ["-wal", "-journal"] {
        let bench = Bench::new();
        let (from, to) = (bench.path("a.db"), bench.path("b.db"));
        create(&from, "", 100);
        let (mut origin, mut replica) = taken(&bench, &from, &to, Overwrite::Force);
        fs::write(bench.path(&format!("b.db{suffix}")), b"of another database").unwrap();
        let error = replica.finish(End::Proof(origin.proof().unwrap())).unwrap_err();
        assert!(matches!(error, Error::Leftover { .. }), "{error}");
        drop(replica);
        assert_eq!(names(bench.dir.path()), ["a.db".to_owned(), format!("b.db{suffix}")]);
    }
}

#[test]
fn a_new_file_has_the_mode_of_any_new_file_and_leftovers_of_killed_runs_go() {
    use std::os::unix::fs::MetadataExt;
    let bench = Bench::new();
    let (from, to) = (bench.path("a.db"), bench.path("b.db"));
    create(&from, "", 10);
    let old = std::time::SystemTime::now() - Duration::from_secs(3600);
    for name in [".sqlrsync-new-dead", ".sqlrsync-new-alive"] {
        let file = fs::File::create(bench.path(name)).unwrap();
        file.set_modified(old).unwrap();
    }
    let alive = fs::File::open(bench.path(".sqlrsync-new-alive")).unwrap();
    rustix::fs::flock(&alive, rustix::fs::FlockOperation::LockExclusive).unwrap();
    bench.copy(&from, &to, 3);
    assert_eq!(names(bench.dir.path()), [".sqlrsync-new-alive", "a.db", "b.db"]);
    let usual = fs::File::create(bench.path("usual")).unwrap().metadata().unwrap();
    assert_eq!(fs::metadata(&to).unwrap().mode(), usual.mode());
}

#[test]
fn what_a_killed_first_pull_left_goes_with_the_next_change_too() {
    let bench = Bench::new();
    let (from, to) = (bench.path("a.db"), bench.path("b.db"));
    let writer = create(&from, "", 10);
    // The pull after the one that was killed came too soon to remove it, and there is no other new file.
    bench.copy(&from, &to, 3);
    let left = fs::File::create(bench.path(".sqlrsync-new-dead")).unwrap();
    left.set_modified(std::time::SystemTime::now() - Duration::from_secs(3600)).unwrap();
    insert(&writer, 1);
    bench.copy(&from, &to, 3);
    assert_eq!(names(bench.dir.path()), ["a.db", "b.db"]);
}

#[test]
fn another_page_size_is_refused_and_replaced_when_told_so() {
    for mode in ["DELETE", "WAL"] {
        for version in 1..=3 {
            let bench = Bench::new();
            let (from, to) = (bench.path("a.db"), bench.path("b.db"));
            create(&from, "PRAGMA page_size = 1024; PRAGMA encoding = 'UTF-16le'", 300);
            drop(create(&to, &format!("PRAGMA page_size = 8192; PRAGMA journal_mode = {mode}"), 900));
            let before = dump(&to);
            let mut origin = bench.origin(&from, &Memory::default()).unwrap();
            let mut replica = bench.replica(&to, &Memory::default(), Overwrite::Never).unwrap();
            let error = join(&mut origin, &mut replica, version).1.unwrap_err();
            assert!(error.to_string().contains("1024") && error.to_string().contains("8192"), "{error}");
            assert_eq!(dump(&to), before);
            bench.copy(&from, &to, version);
            assert_eq!(dump(&to), dump(&from), "{mode}, version {version}");
            let kept = query(&Connection::open(&to).unwrap(), "PRAGMA journal_mode")[0].to_uppercase();
            assert!(kept.contains(mode), "the replica keeps its journal mode: {kept}");
            assert_eq!(names(bench.dir.path()).iter().filter(|name| name.contains("sqlrsync")).count(), 0);
        }
    }
}

#[test]
fn a_database_that_appears_in_an_empty_file_is_left_as_it_is_with_its_journal_mode() {
    for mode in ["delete", "wal"] {
        let bench = Bench::new();
        let (from, to) = (bench.path("a.db"), bench.path("b.db"));
        create(&from, "", 100);
        fs::write(&to, "").unwrap();
        let (mut origin, mut replica) = taken(&bench, &from, &to, Overwrite::Never);
        create(&to, &format!("PRAGMA journal_mode = {mode}"), 5);
        let before = dump(&to);
        let error = replica.finish(End::Proof(origin.proof().unwrap())).unwrap_err();
        assert!(matches!(error, Error::ChangedMeanwhile { .. }), "{error}");
        drop(replica);
        assert_eq!(dump(&to), before);
        let kept = query(&Connection::open(&to).unwrap(), "PRAGMA journal_mode");
        assert_eq!(kept, [format!("Text({mode:?})")]);
        assert_eq!(names(bench.dir.path()), ["a.db", "b.db"]);
    }
}

#[test]
fn a_file_that_was_put_back_is_not_made_from_what_was_agreed_on() {
    let bench = Bench::new();
    let (path, copy, backup) = (bench.path("a.db"), bench.path("b.db"), bench.path("backup.db"));
    let (mut of, mut at) = (bench.memory("of"), bench.memory("at"));
    let writer = create(&path, "", 20);
    std::fs::copy(&path, &backup).unwrap();
    insert(&writer, 20);
    bench.sync(&path, &copy, 3, &mut of, &mut at);
    let agreed = of.base().unwrap();
    let says = |of: &Memory| {
        let mut origin = bench.origin(&path, of).unwrap();
        (origin.base().unwrap().is_some(), origin.knows(&of.base().unwrap()).unwrap())
    };
    // Whatever SQLite does with a file, it is still the one that it was.
    let modes = ["DELETE", "WAL", "TRUNCATE"];
    for mode in modes {
        writer.pragma_update(None, "journal_mode", mode).unwrap();
        for sql in ["DELETE FROM t WHERE id % 7 = 0", "VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"] {
            let mut statement = writer.prepare(sql).unwrap();
            let mut found = statement.query([]).unwrap();
            while found.next().unwrap().is_some() {}
            assert_eq!(says(&of), (true, true), "{mode}: {sql}");
        }
        insert(&writer, 5);
        bench.sync(&path, &copy, 3, &mut of, &mut at);
    }
    // Written by others through us as well.
    let other = Connection::open(&copy).unwrap();
    insert(&other, 3);
    drop(other);
    bench.sync(&copy, &path, 3, &mut at, &mut of);
    insert(&writer, 1);
    assert_eq!(says(&of), (true, true));
    drop(writer);
    assert_ne!(of.base().unwrap(), agreed);
    // The same inode, as `cp` leaves it.
    std::fs::copy(&backup, &path).unwrap();
    assert_eq!(says(&of), (false, false));
}

#[test]
fn a_backup_of_before_a_pull_stays_known_for_one_however_often_it_is_written_to() {
    for mode in ["DELETE", "WAL"] {
        let bench = Bench::new();
        let (path, copy, backup) = (bench.path("a.db"), bench.path("b.db"), bench.path("backup.db"));
        let (mut of, mut at) = (bench.memory("of"), bench.memory("at"));
        drop(create(&path, &format!("PRAGMA journal_mode = {mode}"), 20));
        bench.sync(&path, &copy, 3, &mut of, &mut at);
        std::fs::copy(&path, &backup).unwrap();
        insert(&Connection::open(&copy).unwrap(), 1);
        bench.sync(&copy, &path, 3, &mut at, &mut of);
        std::fs::copy(&backup, &path).unwrap();
        for commit in 0..5 {
            let writer = Connection::open(&path).unwrap();
            insert(&writer, 1);
            writer.execute_batch(&format!("CREATE TABLE made_{commit}(a)")).unwrap();
            drop(writer);
            let base = bench.origin(&path, &of).unwrap().base().unwrap();
            assert_eq!(base, None, "{mode}: after {commit} more commits");
        }
    }
}
