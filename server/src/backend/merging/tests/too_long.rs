//! A merge that takes longer than it may: what was pushed waits as a conflict, which says what to do, and can be
//! settled without merging.

use std::time::Duration;

use tempfile::TempDir;

use super::{Bench, with_sql};
use crate::backend::Keep;

/// A server that has no time to merge anything.
fn hurried(folder: &TempDir) -> Bench {
    Bench::with(folder, |backend| backend.merge_time = Duration::ZERO)
}

#[test]
fn the_conflict_says_what_to_do_next() {
    let folder = tempfile::tempdir().unwrap();
    let bench = hurried(&folder);
    bench.conflict();
    let shown = bench.shown();
    assert_eq!((shown.state, shown.rows), ("open", 0));
    for words in ["longer than a merge may take", "--keep theirs", "--keep mine"] {
        assert!(shown.problem.contains(words), "{}", shown.problem);
    }
}

#[test]
fn either_side_is_taken_whole_without_merging_again() {
    for (keep, content) in [(Keep::Theirs, 0), (Keep::Mine, 1)] {
        let folder = tempfile::tempdir().unwrap();
        let bench = hurried(&folder);
        let roots = bench.conflict().map(|content| content.root());
        assert_eq!(bench.settle(keep, None), Ok(3));
        assert_eq!(bench.latest().root, roots[content], "{keep:?}");
        assert_eq!(bench.shown().state, "settled");
    }
}

#[test]
fn what_came_meanwhile_is_taken_back_only_by_who_has_seen_that_it_came() {
    let folder = tempfile::tempdir().unwrap();
    let bench = hurried(&folder);
    let [theirs, mine] = bench.conflict();
    bench.push("c", &with_sql(Some(&theirs), "INSERT INTO t VALUES (9, 'c')"), Some(&theirs));
    // Looking at it takes no merge either.
    let shown = bench.shown();
    assert!(shown.theirs == 3 && shown.problem.contains("--keep theirs"), "{shown:?}");
    let refused = bench.settle(Keep::Mine, Some(2)).unwrap_err();
    assert!(refused.text.contains("version 3 came meanwhile"), "{}", refused.text);
    assert_eq!(bench.settle(Keep::Mine, Some(3)), Ok(4));
    assert_eq!(bench.latest().root, mine.root());
}

#[test]
fn a_settlement_that_takes_too_long_says_what_is_left_to_do() {
    let folder = tempfile::tempdir().unwrap();
    Bench::on(&folder).conflict();
    let bench = hurried(&folder);
    let refused = bench.settle(Keep::Mine, None).unwrap_err();
    assert!(
        refused.text.contains("nothing was settled") && refused.text.contains("--keep theirs"),
        "{refused:?}"
    );
    assert_eq!(bench.settle(Keep::Theirs, None), Ok(3));
}
