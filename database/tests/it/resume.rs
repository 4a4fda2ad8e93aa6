//! Continuing a cut push: what waits at the replica and still is what would be sent is not sent again.

use sqlrsync_protocol::canonical::make_canonical;
use sqlrsync_protocol::exchange::{Form, OriginPages, Since, StagedBlock, Wanted, staged_hash};
use sqlrsync_protocol::hash::PageHash;
use sqlrsync_protocol::page::PageNumber;

use crate::support::{Bench, Memory, create, root_of};

fn staged(pages: &[(u32, PageHash)]) -> StagedBlock {
    let runs = pages.iter().map(|(number, _)| (PageNumber::new(*number).unwrap(), 1)).collect();
    StagedBlock { runs, hash: staged_hash(pages.iter().map(|(_, hash)| hash)) }
}

fn hashes(path: &std::path::Path) -> Vec<(u32, PageHash)> {
    let connection = rusqlite::Connection::open(path).unwrap();
    let mut statement = connection.prepare("SELECT pgno, data FROM sqlite_dbpage").unwrap();
    let pages =
        statement.query_map([], |row| Ok((row.get::<_, u32>(0)?, row.get::<_, Vec<u8>>(1)?))).unwrap();
    pages
        .map(|page| {
            let (number, mut page) = page.unwrap();
            if number == 1 {
                make_canonical(&mut page);
            }
            (number, PageHash::of(&page))
        })
        .collect()
}

#[test]
fn blocks_that_arrived_before_the_cut_are_used_where_they_still_hold() {
    let bench = Bench::new();
    let path = bench.path("a.db");
    let writer = create(&path, "", 2000);
    let old = hashes(&path);
    writer.execute_batch("UPDATE t SET name = 'since the cut' WHERE id = 1000").unwrap();
    let new = hashes(&path);
    let changed: Vec<u32> = old.iter().zip(&new).filter(|(a, b)| a != b).map(|(a, _)| a.0).collect();
    assert!(!changed.is_empty() && changed.len() < 20);
    let stale = changed[changed.len() - 1] as usize;
    let same: Vec<(u32, PageHash)> =
        old.iter().filter(|(page, _)| !changed.contains(page)).copied().collect();
    let blocks = vec![
        staged(&same[..10]),
        // Of a page that has changed since.
        staged(&old[stale - 3..stale]),
        staged(&[same[20], same[22], same[40]]),
        // The same pages again; past the end; not a single page; absurdly many.
        staged(&same[5..12]),
        staged(&[(9_999_999, old[0].1)]),
        StagedBlock { runs: Vec::new(), hash: old[0].1 },
        StagedBlock { runs: vec![(PageNumber::FIRST, u16::MAX); 500], hash: old[0].1 },
    ];
    let kept: Vec<u32> =
        same[..10].iter().chain([&same[20], &same[22], &same[40]]).map(|(page, _)| *page).collect();
    let mut origin = bench.origin(&path, &Memory::default()).unwrap();
    origin.begin(Wanted { since: Since::Nothing, staged: blocks, form: Form::Blocks }).unwrap();
    assert_eq!(origin.reused().unwrap(), [0, 2]);
    let mut sent = Vec::new();
    while let Some(block) = origin.next_block().unwrap() {
        sent.extend(block.pages().map(PageNumber::get));
    }
    let all: Vec<u32> = new.iter().map(|(page, _)| *page).filter(|page| !kept.contains(page)).collect();
    assert_eq!(sent, all);
    assert_eq!(origin.proof().unwrap().root, root_of(&path));
}
