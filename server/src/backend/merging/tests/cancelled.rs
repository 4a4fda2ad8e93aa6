//! Nobody works on for somebody who is gone.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use sqlrsync_database::version::VersionError;

use super::super::until::Until;
use super::super::{Error, Maps};
use super::{Bench, name, one, with_sql};
use crate::backend::{Keep, Settlement};

#[test]
fn what_is_found_out_about_a_conflict_stops_when_whoever_asked_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::on(&folder);
    let [theirs, _] = bench.conflict();
    // Now it has to be compared again: the latest version is another one.
    bench.push("c", &with_sql(Some(&theirs), "INSERT INTO t VALUES (9, 'c')"), Some(&theirs));
    let (gone, here) = (Arc::new(AtomicBool::new(true)), Arc::default());
    let (backend, caller, number) = (&bench.backend, bench.caller(), one());
    let rows = |cancel| backend.conflict_rows(&caller, &name(), number, (0, 10), cancel);
    backend.conflict(&caller, &name(), number, &gone).unwrap_err();
    rows(&gone).unwrap_err();
    backend.conflict(&caller, &name(), number, &here).unwrap();
    rows(&here).unwrap();
}

#[test]
fn what_pages_lead_to_is_not_found_out_for_somebody_who_is_gone_or_when_time_is_over() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::on(&folder);
    bench.conflict();
    let (replica, latest) = (bench.replica(), bench.latest());
    let stop = |deadline, gone: bool| {
        let until = Until { deadline, cancel: Some(Arc::new(AtomicBool::new(gone))) };
        Maps::default().of(&replica, &latest, &until).map(drop)
    };
    assert!(matches!(stop(None, true), Err(Error::Version(VersionError::Cancelled))));
    assert!(matches!(stop(Some(Instant::now()), false), Err(Error::Version(VersionError::Deadline))));
    stop(None, false).unwrap();
}

#[test]
fn a_settlement_stops_when_whoever_asked_is_gone_and_makes_no_version() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::on(&folder);
    bench.conflict();
    let (gone, here) = (Arc::new(AtomicBool::new(true)), Arc::default());
    let (backend, caller) = (&bench.backend, bench.caller());
    let before = bench.latest().number;
    for keep in [Keep::Theirs, Keep::Mine] {
        let wanted = Settlement { keep: Some(keep), ..Settlement::default() };
        backend.settle(&caller, &name(), one(), &wanted, None, &gone).unwrap_err();
        assert_eq!(bench.latest().number, before);
    }
    let wanted = Settlement { keep: Some(Keep::Mine), ..Settlement::default() };
    backend.settle(&caller, &name(), one(), &wanted, None, &here).unwrap();
}
