//! What others do to a file between two looks that one exchange takes at it: what arrives is one committed state all
//! the same, or the exchange ends and says that it can be tried again.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;
use sqlrsync_database::{Error, LiveOrigin, Overwrite};
use sqlrsync_protocol::block::Block;
use sqlrsync_protocol::conversation::ExchangeError;
use sqlrsync_protocol::exchange::{Base, Committed, OriginPages, Proof, PushId, Wanted};
use sqlrsync_protocol::hash::PageHash;
use sqlrsync_protocol::page::{Geometry, PageNumber};
use sqlrsync_protocol::sponge::Hash20;
use sqlrsync_protocol::tree::NodeId;

use crate::support::{Bench, Memory, Outcome, create, dump, insert, join};

/// Before which step of the exchange something is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Before {
    /// The first question about the content.
    Hashes,
    /// The pages.
    Pages,
}

/// An origin to whose file something is done once.
struct Meanwhile<F> {
    origin: LiveOrigin,
    before: Before,
    work: Option<F>,
}

impl<F: FnOnce()> Meanwhile<F> {
    fn new(origin: LiveOrigin, before: Before, work: F) -> Self {
        Meanwhile { origin, before, work: Some(work) }
    }

    fn at(&mut self, step: Before) -> &mut LiveOrigin {
        if step == self.before
            && let Some(work) = self.work.take()
        {
            work();
        }
        &mut self.origin
    }
}

impl<F: FnOnce()> OriginPages for Meanwhile<F> {
    type Error = Error;

    fn geometry(&mut self) -> Result<Geometry, Error> {
        self.origin.geometry()
    }
    fn base(&mut self) -> Result<Option<Base>, Error> {
        self.origin.base()
    }
    fn push_id(&mut self) -> Result<Option<PushId>, Error> {
        self.origin.push_id()
    }
    fn knows(&mut self, base: &Base) -> Result<bool, Error> {
        self.at(Before::Hashes).knows(base)
    }
    fn group_hash(&mut self, first: PageNumber, count: u32) -> Result<Hash20, Error> {
        self.at(Before::Hashes).group_hash(first, count)
    }
    fn node(&mut self, node: NodeId) -> Result<Vec<PageHash>, Error> {
        self.at(Before::Hashes).node(node)
    }
    fn begin(&mut self, wanted: Wanted) -> Result<(), Error> {
        self.at(Before::Pages).begin(wanted)
    }
    fn reused(&mut self) -> Result<Vec<u32>, Error> {
        self.origin.reused()
    }
    fn pages_to_send(&mut self) -> Result<Option<u32>, Error> {
        self.origin.pages_to_send()
    }
    fn next_page(&mut self, page: &mut [u8]) -> Result<Option<PageNumber>, Error> {
        self.origin.next_page(page)
    }
    fn next_block(&mut self) -> Result<Option<Block>, Error> {
        self.origin.next_block()
    }
    fn proof(&mut self) -> Result<Proof, Error> {
        self.origin.proof()
    }
    fn acknowledged(&mut self, committed: Committed) -> Result<(), Error> {
        self.origin.acknowledged(committed)
    }
}

fn assert_try_again(outcome: Outcome) {
    match outcome {
        Err(ExchangeError::Local(Error::ChangedMeanwhile { .. })) => {}
        other => panic!("{other:?}"),
    }
}

/// Copies `from` over `to`, of which nothing is known, and does something to `from` meanwhile.
fn copy(bench: &Bench, from: &Path, to: &Path, version: u8, before: Before, work: impl FnOnce() + Send) {
    let origin = bench.origin(from, &Memory::default()).unwrap();
    let mut replica = bench.replica(to, &Memory::default(), Overwrite::Force).unwrap();
    let (sent, taken) = join(&mut Meanwhile::new(origin, before, work), &mut replica, version);
    sent.unwrap();
    taken.unwrap();
}

#[test]
fn a_file_that_grows_or_shrinks_after_its_length_was_told_arrives_as_it_is() {
    // Rows of a page each: so that the page tree has one level in some cases, and two in others.
    let sizes = [(100, 200), (200, 100), (200, 600), (600, 200)];
    for version in 1..=3 {
        for ((told, then), held) in sizes.into_iter().flat_map(|sizes| [(sizes, 150), (sizes, 500)]) {
            let bench = Bench::new();
            let (from, to) = (bench.path("a.db"), bench.path("b.db"));
            let fill = |path: &Path, rows: u32| {
                let sql = format!(
                    "PRAGMA page_size = 512; PRAGMA synchronous = OFF; DROP TABLE IF EXISTS pages; VACUUM;
                     CREATE TABLE pages AS WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n
                     WHERE i < {rows}) SELECT i, zeroblob(400) FROM n"
                );
                Connection::open(path).unwrap().execute_batch(&sql).unwrap();
            };
            fill(&from, told);
            fill(&to, held);
            copy(&bench, &from, &to, version, Before::Hashes, || fill(&from, then));
            assert_eq!(dump(&to), dump(&from), "version {version}, {told} to {then} pages, over {held}");
        }
    }
}

#[test]
fn a_commit_that_the_transaction_waits_for_is_not_mixed_with_what_was_compared_before() {
    for version in 1..=3 {
        let bench = Bench::new();
        let (from, to) = (bench.path("a.db"), bench.path("b.db"));
        let writer = create(&from, "", 2000);
        bench.copy(&from, &to, 3);
        // So that the comparison finds something.
        Connection::open(&to).unwrap().execute_batch("UPDATE t SET name = 'other' WHERE id = 5").unwrap();
        std::thread::sleep(Duration::from_millis(20));
        std::thread::scope(|scope| {
            copy(&bench, &from, &to, version, Before::Pages, || {
                // In its cache only: to `stat` nothing has happened yet.
                writer
                    .execute_batch("BEGIN EXCLUSIVE; UPDATE t SET name = 'new' WHERE id % 400 = 5")
                    .unwrap();
                scope.spawn(move || {
                    std::thread::sleep(Duration::from_millis(150));
                    writer.execute_batch("COMMIT").unwrap();
                });
            });
        });
        assert_eq!(dump(&to), dump(&from), "version {version}");
    }
}

#[test]
fn a_backup_that_is_put_back_after_the_base_was_told_is_not_pushed_as_a_change_of_it() {
    for in_place in [true, false] {
        let bench = Bench::new();
        let (from, to, backup) = (bench.path("a.db"), bench.path("b.db"), bench.path("backup.db"));
        let (mut of, mut at) = (bench.memory("a.hashes"), bench.memory("b.hashes"));
        let writer = create(&from, "", 500);
        fs::copy(&from, &backup).unwrap();
        insert(&writer, 10);
        bench.sync(&from, &to, 3, &mut of, &mut at);
        insert(&writer, 10);
        drop(writer);
        let agreed = dump(&to);
        let mut replica = bench.replica(&to, &at, Overwrite::Never).unwrap();
        let put_back = || match in_place {
            true => drop(fs::copy(&backup, &from).unwrap()),
            false => fs::rename(&backup, &from).unwrap(),
        };
        let mut origin = Meanwhile::new(bench.origin(&from, &of).unwrap(), Before::Pages, put_back);
        assert!(origin.geometry().is_ok() && origin.base().unwrap() == of.base(), "it is made from the base");
        let (sent, taken) = join(&mut origin, &mut replica, 3);
        assert_try_again(sent);
        taken.unwrap_err();
        assert_eq!(dump(&to), agreed);
        assert_eq!(bench.origin(&from, &of).unwrap().base().unwrap(), None, "the next time it is seen");
    }
}

#[test]
fn a_file_in_the_place_of_another_is_not_made_from_what_was_agreed_on_of_that() {
    let bench = Bench::new();
    let (from, to, other) = (bench.path("a.db"), bench.path("b.db"), bench.path("other.db"));
    let (mut of, mut at) = (bench.memory("a.hashes"), bench.memory("b.hashes"));
    drop(create(&from, "", 50));
    bench.sync(&from, &to, 3, &mut of, &mut at);
    // More was written to it than to the first: it does not look older.
    let writer = create(&other, "", 500);
    (0..20).for_each(|_| insert(&writer, 1));
    drop(writer);
    fs::rename(&other, &from).unwrap();
    assert_eq!(bench.origin(&from, &of).unwrap().base().unwrap(), None);
}

#[test]
fn a_replica_that_is_removed_before_it_is_looked_at_is_made_anew() {
    let bench = Bench::new();
    let (from, to) = (bench.path("a.db"), bench.path("b.db"));
    create(&from, "", 50);
    bench.copy(&from, &to, 3);
    let mut origin = bench.origin(&from, &Memory::default()).unwrap();
    let mut replica = bench.replica(&to, &Memory::default(), Overwrite::Never).unwrap();
    fs::remove_file(&to).unwrap();
    let (sent, taken) = join(&mut origin, &mut replica, 3);
    sent.unwrap();
    taken.unwrap();
    assert_eq!(dump(&to), dump(&from));
}

#[test]
fn a_replica_that_is_removed_while_pages_arrive_can_be_tried_again() {
    for version in 1..=3 {
        let bench = Bench::new();
        let (from, to) = (bench.path("a.db"), bench.path("b.db"));
        let writer = create(&from, "", 50);
        bench.copy(&from, &to, 3);
        insert(&writer, 10);
        let origin = bench.origin(&from, &Memory::default()).unwrap();
        let mut replica = bench.replica(&to, &Memory::default(), Overwrite::Force).unwrap();
        let remove = || fs::remove_file(&to).unwrap();
        let (sent, taken) = join(&mut Meanwhile::new(origin, Before::Pages, remove), &mut replica, version);
        assert_try_again(taken);
        drop(sent);
        assert!(!to.exists());
    }
}
