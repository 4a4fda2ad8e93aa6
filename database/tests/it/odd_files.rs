//! What is no database, or not an ordinary one.

use std::fs;
use std::path::Path;

use rusqlite::{Connection, ffi};
use sqlrsync_database::{Error, Overwrite};
use sqlrsync_protocol::exchange::{Fault, OriginPages, Refusal, ReplicaPages};
use sqlrsync_protocol::page::{Geometry, PageCount, PageSize};

use crate::support::{Bench, Memory, create, dump, insert, query, root_of};

fn origin_error(bench: &Bench, path: &Path) -> Error {
    match bench.origin(path, &Memory::default()) {
        Ok(mut origin) => origin.geometry().unwrap_err(),
        Err(error) => error,
    }
}

fn replica_error(bench: &Bench, path: &Path) -> Error {
    let geometry = Geometry { page_size: PageSize::MIN, page_count: PageCount(2) };
    match bench.replica(path, &Memory::default(), Overwrite::Never) {
        Ok(mut replica) => replica.begin(geometry, 3).unwrap_err(),
        Err(error) => error,
    }
}

#[test]
fn a_missing_file_is_said_to_be_missing_and_not_created() {
    let bench = Bench::new();
    let path = bench.path("none.db");
    let error = origin_error(&bench, &path);
    assert!(matches!(error, Error::Missing { .. }), "{error}");
    assert_eq!(error.refusal(), Refusal::NotFound);
    assert!(!path.exists());
    let error = replica_error(&bench, &bench.path("no-folder/none.db"));
    assert!(matches!(error, Error::Missing { .. }), "{error}");
}

#[test]
fn a_link_to_nothing_is_said_to_be_that_before_anything_is_fetched() {
    let bench = Bench::new();
    let path = bench.path("link.db");
    std::os::unix::fs::symlink(bench.path("none.db"), &path).unwrap();
    let error = replica_error(&bench, &path);
    assert!(matches!(error, Error::Dangling { .. }) && error.to_string().contains("none.db"), "{error}");
    assert_eq!(error.refusal(), Refusal::NotFound);
    assert!(!bench.path("none.db").exists());
}

#[test]
fn a_directory_is_no_database() {
    let bench = Bench::new();
    assert!(matches!(origin_error(&bench, bench.dir.path()), Error::NotAFile { .. }));
    assert!(matches!(replica_error(&bench, bench.dir.path()), Error::NotAFile { .. }));
}

#[test]
fn a_file_of_zero_bytes_is_nothing_to_push() {
    let bench = Bench::new();
    let path = bench.path("empty.db");
    fs::write(&path, b"").unwrap();
    let error = origin_error(&bench, &path);
    assert!(matches!(error, Error::Empty { .. }) && error.to_string().contains("nothing to push"), "{error}");
    assert_eq!(fs::metadata(&path).unwrap().len(), 0);
}

#[test]
fn a_file_of_zero_bytes_takes_a_database_while_an_application_has_it_open() {
    for version in 1..=3 {
        let bench = Bench::new();
        let (from, to) = (bench.path("a.db"), bench.path("b.db"));
        create(&from, "PRAGMA page_size = 8192", 500);
        fs::write(&to, b"").unwrap();
        let application = Connection::open(&to).unwrap();
        assert!(query(&application, "SELECT * FROM sqlite_schema").is_empty());
        bench.copy(&from, &to, version);
        assert_eq!(query(&application, "SELECT count(*) FROM t"), ["Integer(500)"]);
        assert_eq!(root_of(&from), root_of(&to));
    }
}

#[test]
fn text_and_noise_are_no_database_and_stay_as_they_are() {
    let bench = Bench::new();
    let path = bench.path("text.db");
    let noise: Vec<u8> = (0..20_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for content in
        [&b"these are the notes of last week, and nothing that SQLite wrote\n".repeat(99)[..], &noise]
    {
        fs::write(&path, content).unwrap();
        assert!(matches!(origin_error(&bench, &path), Error::NotADatabase { .. }));
        assert!(matches!(replica_error(&bench, &path), Error::NotADatabase { .. }));
        assert_eq!(fs::read(&path).unwrap(), content);
    }
}

/// Runs on a thread that has no privileges, also where the tests are run by root.
fn without_privileges(work: impl FnOnce() + Send) {
    use rustix::thread::{Gid, Uid, set_thread_gid, set_thread_uid};
    std::thread::scope(|scope| {
        scope
            .spawn(|| {
                if rustix::process::geteuid().is_root() {
                    set_thread_gid(Gid::from_raw(65_534)).unwrap();
                    set_thread_uid(Uid::from_raw(65_534)).unwrap();
                }
                work();
            })
            .join()
            .unwrap();
    });
}

#[test]
fn no_permission_is_said_so() {
    use std::os::unix::fs::PermissionsExt;
    let bench = Bench::new();
    let folder = bench.path("closed");
    fs::create_dir(&folder).unwrap();
    let path = folder.join("a.db");
    create(&path, "", 10);
    fs::set_permissions(bench.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    for (mode, of) in [(0o000, &path), (0o000, &folder)] {
        fs::set_permissions(of, fs::Permissions::from_mode(mode)).unwrap();
        without_privileges(|| {
            let error = origin_error(&bench, &path);
            assert!(matches!(error, Error::Denied { .. }), "{error:?}");
            let error = replica_error(&bench, &path);
            assert!(matches!(error, Error::Denied { .. }), "{error:?}");
        });
        fs::set_permissions(of, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

#[test]
fn a_file_that_may_only_be_read_can_be_pushed() {
    use std::os::unix::fs::PermissionsExt;
    let bench = Bench::new();
    let path = bench.path("a.db");
    create(&path, "", 10);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).unwrap();
    fs::set_permissions(bench.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    without_privileges(|| {
        bench.origin(&path, &Memory::default()).unwrap().geometry().unwrap();
    });
}

#[test]
fn a_hot_journal_is_rolled_back_first() {
    let bench = Bench::new();
    let (path, copy, to) = (bench.path("a.db"), bench.path("copy.db"), bench.path("b.db"));
    let writer = create(&path, "PRAGMA journal_mode = DELETE", 3000);
    let before = dump(&path);
    writer
        .execute_batch("PRAGMA cache_size = 5; BEGIN; UPDATE t SET name = 'half', data = randomblob(600)")
        .unwrap();
    // As a machine that lost its power leaves them.
    fs::copy(&path, &copy).unwrap();
    fs::copy(bench.path("a.db-journal"), bench.path("copy.db-journal")).unwrap();
    drop(writer);
    bench.copy(&copy, &to, 3);
    assert_eq!(dump(&to), before);
}

#[test]
fn a_wal_that_a_crash_left_is_part_of_the_database() {
    let bench = Bench::new();
    let (path, copy, to) = (bench.path("a.db"), bench.path("copy.db"), bench.path("b.db"));
    let writer = create(&path, "PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0", 100);
    insert(&writer, 2000);
    fs::copy(&path, &copy).unwrap();
    fs::copy(bench.path("a.db-wal"), bench.path("copy.db-wal")).unwrap();
    bench.copy(&copy, &to, 3);
    assert_eq!(query(&Connection::open(&to).unwrap(), "SELECT count(*) FROM t"), ["Integer(2100)"]);
    assert_eq!(root_of(&to), root_of(&path));
}

#[test]
fn encodings_auto_vacuum_and_reserved_bytes_travel() {
    for pragmas in [
        "PRAGMA encoding = 'UTF-16le'",
        "PRAGMA encoding = 'UTF-16be'; PRAGMA journal_mode = WAL",
        "PRAGMA auto_vacuum = FULL",
        "PRAGMA auto_vacuum = INCREMENTAL; PRAGMA page_size = 1024",
    ] {
        for version in 1..=3 {
            let bench = Bench::new();
            let (from, to) = (bench.path("a.db"), bench.path("b.db"));
            let writer = create(&from, pragmas, 900);
            bench.copy(&from, &to, version);
            writer
                .execute_batch("DELETE FROM t WHERE id % 3 = 0; INSERT INTO t (name) VALUES ('größer €')")
                .unwrap();
            bench.copy(&from, &to, version);
            assert_eq!(dump(&from), dump(&to), "{pragmas}");
            assert_eq!(root_of(&from), root_of(&to), "{pragmas}");
            // A change that leaves canonical page 1 as it is, so that version 3 does not send it.
            writer.execute_batch("UPDATE t SET name = 'x' || substr(name, 2) WHERE id = 100").unwrap();
            bench.copy(&from, &to, version);
            assert_eq!(root_of(&from), root_of(&to), "{pragmas}, page 1 not sent");
        }
    }
}

#[test]
fn a_replica_of_another_encoding_or_auto_vacuum_mode_becomes_the_origin() {
    let kinds = [
        "PRAGMA encoding = 'UTF-16le'",
        "PRAGMA auto_vacuum = FULL",
        "PRAGMA auto_vacuum = INCREMENTAL",
        "PRAGMA auto_vacuum = NONE",
    ];
    for from_kind in kinds {
        for to_kind in kinds {
            let bench = Bench::new();
            let (from, to) = (bench.path("a.db"), bench.path("b.db"));
            let writer = create(&from, from_kind, 900);
            // Free pages: a commit in auto-vacuum mode would want to move others into their place.
            writer.execute_batch("DELETE FROM t WHERE id < 500").unwrap();
            create(&to, to_kind, 1500);
            bench.copy(&from, &to, 3);
            assert_eq!(dump(&from), dump(&to), "{from_kind} to {to_kind}");
            assert_eq!(root_of(&from), root_of(&to), "{from_kind} to {to_kind}");
        }
    }
}

#[test]
fn reserved_bytes_at_the_end_of_pages_travel() {
    let bench = Bench::new();
    let (from, to) = (bench.path("a.db"), bench.path("b.db"));
    let writer = Connection::open(&from).unwrap();
    let mut reserve: i32 = 16;
    // SAFETY: the handle is open, the name ends with a zero, and the operation reads and writes one int.
    let code = unsafe {
        ffi::sqlite3_file_control(
            writer.handle(),
            c"main".as_ptr(),
            ffi::SQLITE_FCNTL_RESERVE_BYTES,
            (&raw mut reserve).cast(),
        )
    };
    assert_eq!(code, ffi::SQLITE_OK);
    writer.execute_batch("VACUUM; CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT, data BLOB)").unwrap();
    insert(&writer, 1000);
    bench.copy(&from, &to, 3);
    assert_eq!(fs::read(&to).unwrap()[20], 16, "reserved bytes");
    insert(&writer, 10);
    bench.copy(&from, &to, 3);
    assert_eq!(dump(&from), dump(&to));
}

#[test]
fn an_emptied_database_empties_the_replica() {
    for version in 1..=3 {
        let bench = Bench::new();
        let (from, to) = (bench.path("a.db"), bench.path("b.db"));
        let writer = create(&from, "", 2000);
        bench.copy(&from, &to, version);
        writer.execute_batch("DROP TABLE t; VACUUM").unwrap();
        bench.copy(&from, &to, version);
        assert!(query(&Connection::open(&to).unwrap(), "SELECT * FROM sqlite_schema").is_empty());
        assert_eq!(root_of(&from), root_of(&to));
        assert_eq!(fs::metadata(&to).unwrap().len(), 4096);
    }
}

#[test]
fn the_page_at_one_gibibyte_is_never_sent_nor_written() {
    use std::os::unix::fs::FileExt;
    let bench = Bench::in_memory();
    let (from, to) = (bench.path("a.db"), bench.path("b.db"));
    let (mut of, mut at) = (bench.memory("a.hashes"), bench.memory("b.hashes"));
    drop(create(&from, "PRAGMA page_size = 65536", 100));
    // A sparse file of a little over a gibibyte: the pages in between are zeros that nothing refers to.
    let count = (1u32 << 14) + 8;
    let file = fs::File::options().write(true).open(&from).unwrap();
    file.set_len(u64::from(count) << 16).unwrap();
    file.write_all_at(&count.to_be_bytes(), 28).unwrap();
    file.write_all_at(b"what stands here is not part of the database", 1 << 30).unwrap();
    drop(file);
    let root = root_of(&from);
    bench.sync(&from, &to, 3, &mut of, &mut at);
    assert_eq!(at.agreed.as_ref().unwrap().root, root);
    assert_eq!(fs::metadata(&to).unwrap().len(), u64::from(count) << 16);
    let writer = Connection::open(&from).unwrap();
    writer.execute("INSERT INTO t (data) VALUES (zeroblob(1000000))", []).unwrap();
    for number in [(1 << 14) + 2, count] {
        let page = vec![number as u8; 65536];
        writer.execute("INSERT INTO sqlite_dbpage (pgno, data) VALUES (?1, ?2)", (number, page)).unwrap();
    }
    let summary = bench.sync(&from, &to, 3, &mut of, &mut at);
    assert!(summary.pages_sent < 50, "{summary:?}");
    let mut lock_page = [1; 64];
    fs::File::open(&to).unwrap().read_exact_at(&mut lock_page, 1 << 30).unwrap();
    assert_eq!(lock_page, [0; 64]);
    assert_eq!(at.agreed.as_ref().unwrap().root, root_of(&from));
    let (from, to) = (Connection::open(&from).unwrap(), Connection::open(&to).unwrap());
    let sql = "SELECT pgno, hex(data) FROM sqlite_dbpage WHERE pgno IN (16384, 16386, 16392)";
    assert_eq!(query(&from, sql), query(&to, sql));
}
