//! A merge that needs more temporary space than it may have is a conflict, as one that takes too long is. A disk that
//! fails is none: the push fails, and merges when it comes again.

use sqlrsync_database::version::VersionError;
use sqlrsync_database::{merge, rows};
use sqlrsync_protocol::memory::Content;
use tempfile::TempDir;

use super::super::Error;
use super::{Bench, with_sql};
use crate::backend::Keep;
use crate::refused::{Refused, Why};

/// Less than the least merge takes: a page.
const TOO_LITTLE: u64 = 4096;

/// A server on which a merge may set next to nothing aside.
fn narrow(folder: &TempDir) -> Bench {
    Bench::with(folder, |backend| backend.merge_scratch.bytes = TOO_LITTLE)
}

#[test]
fn the_conflict_says_that_it_was_the_space_and_what_to_do_next() {
    let folder = tempfile::tempdir().unwrap();
    let bench = narrow(&folder);
    bench.conflict();
    let shown = bench.shown();
    assert_eq!((shown.state, shown.rows), ("open", 0));
    for words in ["more temporary space than a merge may take", "--keep theirs", "--keep mine"] {
        assert!(shown.problem.contains(words), "{}", shown.problem);
    }
}

#[test]
fn either_side_is_taken_whole_without_merging_again() {
    for (keep, content) in [(Keep::Theirs, 0), (Keep::Mine, 1)] {
        let folder = tempfile::tempdir().unwrap();
        let bench = narrow(&folder);
        let roots = bench.conflict().map(|content| content.root());
        assert_eq!(bench.settle(keep, None), Ok(3));
        assert_eq!(bench.latest().root, roots[content], "{keep:?}");
        assert_eq!(bench.shown().state, "settled");
    }
}

#[test]
fn a_settlement_that_needs_too_much_is_not_told_to_try_again() {
    let folder = tempfile::tempdir().unwrap();
    Bench::on(&folder).conflict();
    let bench = narrow(&folder);
    let refused = bench.settle(Keep::Mine, None).unwrap_err();
    assert_eq!(refused.why, Why::Conflict);
    assert!(refused.text.contains("--keep theirs") && !refused.text.contains("later"), "{refused:?}");
    assert_eq!(bench.settle(Keep::Theirs, None), Ok(3));
}

/// What both sides did to one base, with more on mine's side than a merge keeps in memory.
fn sides() -> [Content; 3] {
    let base = with_sql(None, "CREATE TABLE t (id INTEGER PRIMARY KEY, x); INSERT INTO t VALUES (1, '')");
    let theirs = with_sql(Some(&base), "INSERT INTO t VALUES (2, 'theirs')");
    let mine = with_sql(
        Some(&base),
        "WITH n(n) AS (SELECT 10 UNION ALL SELECT n + 1 FROM n LIMIT 6000)
         INSERT INTO t SELECT n, zeroblob(1000) FROM n",
    );
    [base, theirs, mine]
}

#[test]
fn a_disk_that_fails_is_no_conflict_and_the_push_merges_when_it_comes_again() {
    let folder = tempfile::tempdir().unwrap();
    let [base, theirs, mine] = sides();
    let nowhere = folder.path().join("none");
    let broken = Bench::with(&folder, |backend| backend.merge_scratch.folder = Some(nowhere));
    broken.push("a", &base, None);
    broken.push("a", &theirs, Some(&base));
    let failed = broken.push_saying(says("b"), &mine, Some(&base)).unwrap_err();
    assert!(failed.contains("temporary file could not be made"), "{failed}");
    assert_eq!(broken.latest().root, theirs.root());
    drop(broken);
    let mended = Bench::on(&folder);
    let pushed = mended.push_saying(says("b"), &mine, Some(&base)).unwrap();
    assert!(pushed.merged && pushed.conflict.is_none(), "{pushed:?}");
    assert_eq!(mended.latest().number.get(), 3);
}

#[test]
fn what_a_disk_failed_with_is_for_later_and_what_reached_a_limit_is_not() {
    let full = || std::io::Error::from(std::io::ErrorKind::StorageFull);
    let of_sqlite = |code| rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None);
    let catalog = crate::catalog::Error::Database(of_sqlite(rusqlite::ffi::SQLITE_FULL));
    let disk = [
        Error::Version(VersionError::Disk { doing: "written", source: full() }),
        Error::Merge(merge::Error::Temporary(of_sqlite(rusqlite::ffi::SQLITE_IOERR_WRITE))),
        Error::Rows(rows::Error::Temporary(of_sqlite(rusqlite::ffi::SQLITE_IOERR_WRITE))),
        Error::Audit(catalog),
    ];
    for error in disk {
        assert!(error.given_up().is_none(), "{error}");
        let refused = Refused::from(error);
        assert!(refused.why == Why::TryLater && refused.text.contains("try again later"), "{refused:?}");
    }
    let limit = [Error::Version(VersionError::Scratch { max: 1 }), Error::Merge(merge::Error::NoRoom)];
    for error in limit {
        assert!(error.given_up().is_some(), "{error}");
        assert_eq!(Refused::from(error).why, Why::BadRequest);
    }
}

fn says(client: &str) -> crate::backend::ClientSays {
    crate::backend::ClientSays { client_id: client.to_owned(), ..crate::backend::ClientSays::default() }
}
