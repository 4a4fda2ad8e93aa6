//! What the tables keep, what settles what, and that they stay small.

use super::super::{Catalog, NewReplica, Visibility};
use super::*;

struct Tables {
    table: ActivityTable,
    catalog: Catalog,
    folder: tempfile::TempDir,
}

impl Tables {
    fn new() -> Tables {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("catalog.db");
        let catalog = Catalog::open(&path).unwrap();
        catalog.create_namespace("team").unwrap();
        for (id, path) in [("r", "app.db"), ("other", "other.db")] {
            let new = NewReplica {
                id,
                namespace: "team",
                path,
                visibility: Visibility::Private,
                client_id: "",
                host: "",
                local_path: "",
            };
            catalog.create_replica(&new).unwrap();
        }
        Tables { table: ActivityTable::open(&path).unwrap(), catalog, folder }
    }

    fn clients(&self) -> Vec<ClientActivity> {
        self.table.clients("r").unwrap()
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn name(client_id: &str, host: &str, local_path: &str) -> ClientName {
    ClientName { client_id: client_id.into(), host: host.into(), local_path: local_path.into() }
}

fn event(second: i64, client: ClientName, what: Happened) -> Event {
    let standing = if matches!(what, Happened::Pulled(_)) { Standing::Puller } else { Standing::Pusher };
    Event { replica: "r".to_owned(), client, standing, time: at(second), what }
}

fn version(number: u64) -> VersionNumber {
    VersionNumber::new(number).unwrap()
}

fn failed(error: &str, attempts: u32) -> Happened {
    Happened::Failed(Report { error: error.to_owned(), attempts, since: Some(at(0)) })
}

#[test]
fn an_announced_push_is_due_until_it_comes() {
    let tables = Tables::new();
    let laptop = || name("me", "laptop", "/srv/app.db");
    tables.table.write(&[event(1, laptop(), Happened::Announced(at(60)))]).unwrap();
    let found = tables.clients();
    assert_eq!((found.len(), found[0].push_due, found[0].announced), (1, Some(at(60)), Some(at(1))));
    tables.table.write(&[event(2, laptop(), Happened::Pushed(Some(version(7))))]).unwrap();
    let found = tables.clients();
    assert_eq!(found[0].push, Some(Done { time: at(2), version: Some(7) }));
    assert_eq!((found[0].push_due, found[0].announced), (None, Some(at(1))));
    // A batch is written in its order: the later word holds.
    let pushed = event(3, laptop(), Happened::Pushed(Some(version(8))));
    tables.table.write(&[pushed, event(4, laptop(), Happened::Announced(at(90)))]).unwrap();
    assert_eq!(tables.clients()[0].push_due, Some(at(90)));
    assert_eq!(tables.table.clients("other").unwrap(), []);
}

#[test]
fn a_push_settles_what_the_same_client_told_and_nothing_else() {
    let tables = Tables::new();
    let names = [
        ("same", name("me", "laptop", "/srv/app.db")),
        ("named less", name("me", "", "")),
        ("another file", name("me", "laptop", "/srv/copy.db")),
        ("a cloned machine", name("me", "clone", "/srv/app.db")),
        ("another client", name("you", "laptop", "/srv/app.db")),
    ];
    for (error, client) in &names {
        let told = [Happened::Announced(at(60)), failed(error, 1)];
        tables.table.write(&told.map(|what| event(1, client.clone(), what))).unwrap();
    }
    tables.table.write(&[event(2, names[0].1.clone(), Happened::Pushed(Some(version(1))))]).unwrap();
    for found in tables.clients() {
        let (what, _) = names.iter().find(|(_, client)| *client == found.client).unwrap();
        let settled = ["same", "named less"].contains(what);
        assert_eq!(found.push_due.is_none(), settled, "{what}");
        assert_eq!(found.reports.is_empty(), settled, "{what}");
        assert_eq!(found.client.may_be(&names[0].1), settled, "{what}");
    }
}

#[test]
fn a_push_of_earlier_times_settles_nothing_and_moves_nothing_back() {
    let tables = Tables::new();
    let told = [Happened::Announced(at(60)), failed("no route", 1), Happened::FoundPush(version(3))];
    tables.table.write(&told.map(|what| event(1, name("me", "", ""), what))).unwrap();
    tables.table.write(&[event(0, name("me", "", ""), Happened::FoundPush(version(2)))]).unwrap();
    let found = tables.clients();
    assert_eq!(found[0].push, Some(Done { time: at(1), version: Some(3) }));
    assert_eq!((found[0].push_due, found[0].reports.len()), (Some(at(60)), 1));
}

#[test]
fn the_same_error_is_one_report_and_the_oldest_of_many_go() {
    let tables = Tables::new();
    for attempts in 1..=3 {
        let second = i64::from(attempts);
        tables.table.write(&[event(second, name("me", "", ""), failed("no route", attempts))]).unwrap();
    }
    let report = tables.clients().remove(0).reports.remove(0);
    assert_eq!((report.report.attempts, report.report.since, report.reported), (3, Some(at(0)), at(3)));
    let many: Vec<_> =
        (0..50).map(|n| event(10 + n, name("me", "", ""), failed(&format!("error {n}"), 1))).collect();
    tables.table.write(&many).unwrap();
    let kept: Vec<_> = tables.clients().remove(0).reports.into_iter().map(|one| one.report.error).collect();
    let newest: Vec<_> =
        (0..50).rev().take(CLIENT_REPORTS_MAX as usize).map(|n| format!("error {n}")).collect();
    assert_eq!(kept, newest);
}

#[test]
fn ten_thousand_strangers_push_out_nobody_who_has_a_key() {
    let tables = Tables::new();
    let pusher = event(1, name("me", "laptop", "/srv/app.db"), Happened::Pushed(Some(version(1))));
    let puller = event(2, name("you", "", ""), Happened::Pulled(version(1)));
    tables.table.write(&[pusher.clone(), puller.clone()]).unwrap();
    let strangers = (0..10_000).map(|n| Event {
        standing: Standing::Anybody,
        ..event(10 + n, name(&format!("stranger {n}"), "", ""), Happened::Pulled(version(1)))
    });
    for batch in strangers.collect::<Vec<_>>().chunks(1000) {
        tables.table.write(batch).unwrap();
    }
    let found = tables.clients();
    assert_eq!(found.len(), CLIENTS_MAX as usize + 2);
    assert_eq!(found[0].client.client_id, "stranger 9999", "the newest stay");
    for kept in [pusher.client, puller.client] {
        assert!(found.iter().any(|one| one.client == kept), "{kept:?}");
    }
}

#[test]
fn reports_of_many_clients_are_bounded_too() {
    let tables = Tables::new();
    let many: Vec<_> =
        (0..400).map(|n| event(n, name(&n.to_string(), "", ""), failed("no route", 1))).collect();
    tables.table.write(&many).unwrap();
    let found = tables.clients();
    let reports: usize = found.iter().map(|client| client.reports.len()).sum();
    assert_eq!((found.len(), reports), (400, REPLICA_REPORTS_MAX as usize));
    assert_eq!(found[0].reports.len(), 1, "the newest stay");
}

#[test]
fn what_was_written_is_there_for_the_next_start_and_goes_with_its_replica() {
    let tables = Tables::new();
    let told = [event(1, name("me", "", ""), failed("no route", 1))];
    tables.table.write(&told).unwrap();
    let path = tables.folder.path().join("catalog.db");
    assert_eq!(ActivityTable::open(&path).unwrap().clients("r").unwrap(), tables.clients());
    assert!(tables.catalog.forget_replica("r").unwrap());
    assert_eq!(tables.clients(), []);
    tables.table.write(&told).unwrap();
    assert_eq!(tables.clients(), [], "nothing is kept of a replica that is gone");
}

#[test]
fn a_catalog_of_an_earlier_release_gets_the_tables() {
    let tables = Tables::new();
    let path = tables.folder.path().join("catalog.db");
    let Tables { table, catalog, folder } = tables;
    drop((table, catalog));
    let connection = Connection::open(&path).unwrap();
    // What later steps made goes with it: the steps are taken again from there.
    connection
        .execute_batch(
            "DROP TABLE client_report; DROP TABLE client; DROP TABLE audit; DROP TABLE audit_pending;
             ALTER TABLE replica DROP COLUMN policy;
             ALTER TABLE replica DROP COLUMN merge_cells;
             ALTER TABLE replica DROP COLUMN merge_renumber;
             PRAGMA user_version = 2",
        )
        .unwrap();
    drop(connection);
    let table = ActivityTable::open(&path).unwrap();
    table.write(&[event(1, name("me", "", ""), Happened::Pulled(version(1)))]).unwrap();
    assert_eq!(table.clients("r").unwrap().len(), 1);
    drop(folder);
}
