//! Two servers on one repository, and pushes for one version number: one is first, and the other merges on top.

use std::sync::Barrier;

use super::{Bench, with_sql};

#[test]
fn of_two_servers_that_push_for_one_number_one_is_first_and_the_other_merges_on_top() {
    const ROUNDS: u64 = 6;
    let folder = tempfile::tempdir().unwrap();
    let servers = [Bench::on(&folder), Bench::on(&folder)];
    let first =
        with_sql(None, "CREATE TABLE t (id INTEGER PRIMARY KEY, by TEXT); INSERT INTO t VALUES (0, '')");
    servers[0].push("first", &first, None);
    let together = Barrier::new(2);
    std::thread::scope(|scope| {
        for (number, server) in servers.iter().enumerate() {
            let (together, first) = (&together, &first);
            scope.spawn(move || {
                let mut held = first.clone();
                for round in 0..ROUNDS {
                    let id = 10 * round + number as u64 + 1;
                    let next = with_sql(Some(&held), &format!("INSERT INTO t VALUES ({id}, '{number}')"));
                    together.wait();
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
