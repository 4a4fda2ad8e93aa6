//! A list of versions with the rows that each changed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use sqlrsync_protocol::memory::Content;
use sqlrsync_protocol::page::VersionNumber;

use super::{Bench, name, with_sql};
use crate::backend::{CountedPage, RowCounts};

/// Versions 2 to 5 insert as many rows. Gives the latest.
fn five(bench: &Bench) -> Content {
    let mut held = with_sql(None, "CREATE TABLE t (id INTEGER PRIMARY KEY, n)");
    bench.push("a", &held, None);
    for number in 2..=5 {
        let next = with_sql(
            Some(&held),
            &format!(
                "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {number})
                 INSERT INTO t (n) SELECT n FROM c"
            ),
        );
        bench.push("a", &next, Some(&held));
        held = next;
    }
    held
}

fn page(bench: &Bench, before: Option<u64>, time: Duration, cancel: bool) -> Result<CountedPage, String> {
    let which = (before.and_then(VersionNumber::new), 100);
    let cancel = Arc::new(AtomicBool::new(cancel));
    let page = bench.backend.counted_within(&bench.caller(), &name(), which, &cancel, time);
    page.map_err(|refused| refused.text)
}

/// Version and rows inserted.
fn inserted(page: &CountedPage) -> Vec<(u64, Option<u64>)> {
    let versions = page.versions.iter();
    let rows = |rows: &BTreeMap<String, RowCounts>| rows.get("t").map_or(0, |counts| counts.insert);
    versions.map(|counted| (counted.version.version, counted.rows.as_ref().map(rows))).collect()
}

#[test]
fn each_version_says_how_many_rows_it_changed_since_the_one_before() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::on(&folder);
    five(&bench);
    let all = page(&bench, None, Duration::MAX, false).unwrap();
    assert_eq!(inserted(&all), [(5, Some(5)), (4, Some(4)), (3, Some(3)), (2, Some(2)), (1, None)]);
    assert_eq!(all.next_before, None);
}

#[test]
fn a_page_whose_time_is_over_has_one_version_and_says_where_to_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::on(&folder);
    five(&bench);
    let first = page(&bench, None, Duration::ZERO, false).unwrap();
    assert_eq!((inserted(&first), first.next_before), (vec![(5, Some(5))], Some(5)));
    let second = page(&bench, first.next_before, Duration::ZERO, false).unwrap();
    assert_eq!((inserted(&second), second.next_before), (vec![(4, Some(4))], Some(4)));
}

#[test]
fn what_was_counted_is_not_counted_again_and_who_is_gone_gets_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::on(&folder);
    five(&bench);
    // Nothing is opened for who is gone: only what is known already is told.
    page(&bench, None, Duration::MAX, true).unwrap_err();
    let known = inserted(&page(&bench, None, Duration::MAX, false).unwrap());
    assert_eq!(inserted(&page(&bench, None, Duration::MAX, true).unwrap()), known);
}

#[test]
fn a_version_that_is_no_database_takes_no_other_from_the_list() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::on(&folder);
    let held = five(&bench);
    let mut none = held.clone();
    for number in held.numbers().skip(1) {
        none.set(number, &[0xee; 4096]);
    }
    bench.push("a", &none, Some(&held));
    let all = inserted(&page(&bench, None, Duration::MAX, false).unwrap());
    assert_eq!(all.len(), 6);
    assert_eq!((all[0], all[1]), ((6, None), (5, Some(5))));
}
