//! Two servers on one repository, and pushes for one version number: one is first, and the other merges on top.

use std::sync::mpsc::sync_channel;

use super::{Bench, with_sql};

#[test]
fn of_two_servers_that_push_for_one_number_one_is_first_and_the_other_merges_on_top() {
    const ROUNDS: u64 = 6;
    let folder = tempfile::tempdir().unwrap();
    let servers = [Bench::on(&folder), Bench::on(&folder)];
    let first =
        with_sql(None, "CREATE TABLE t (id INTEGER PRIMARY KEY, by TEXT); INSERT INTO t VALUES (0, '')");
    servers[0].push("first", &first, None);
    // Where the two meet before each push. One that has failed does not come, and the other one hears of it.
    let (there, here) = sync_channel(0);
    let meets: [Box<dyn Fn() -> bool + Send>; 2] =
        [Box::new(move || there.send(()).is_ok()), Box::new(move || here.recv().is_ok())];
    std::thread::scope(|scope| {
        for (number, (server, meet)) in servers.iter().zip(meets).enumerate() {
            let first = &first;
            scope.spawn(move || {
                let mut held = first.clone();
                for round in 0..ROUNDS {
                    let id = 10 * round + number as u64 + 1;
                    let next = with_sql(Some(&held), &format!("INSERT INTO t VALUES ({id}, '{number}')"));
                    assert!(meet(), "the other one has failed");
                    let committed = server.push(&number.to_string(), &next, Some(&held));
                    assert_eq!(committed.conflict, None);
                    held = next;
                }
            });
        }
    });
    let replica = servers[0].replica();
    let latest = replica.latest().unwrap().unwrap();
    assert_eq!(latest.number.get(), 1 + 2 * ROUNDS, "each push made one version");
    let opened = servers[0].backend.to_merge(&replica).open(&latest).unwrap();
    let count = "SELECT count(*) FROM t";
    let rows: i64 = opened.database.connection().query_row(count, [], |row| row.get(0)).unwrap();
    assert_eq!(rows.unsigned_abs(), 1 + 2 * ROUNDS, "no row was lost");
}
