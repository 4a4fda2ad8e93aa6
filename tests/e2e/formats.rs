//! Databases of every kind, through a server and without one.

use sqlrsync_tests::client::Client;
use sqlrsync_tests::sample::{self, Sample};
use sqlrsync_tests::server::Server;

#[test]
fn every_page_size_goes_forth_and_back() {
    let server = Server::start();
    let client = Client::admin(&server);
    for shift in 9..=16 {
        let page_size = 1 << shift;
        let journal = if shift % 2 == 0 { "wal" } else { "delete" };
        let name = format!("{page_size}.db");
        let remote = format!("team/{name}");
        Sample { page_size, journal, ..Sample::default() }.create(&client.path(&name));
        client.run(&[&name, &remote]).ok();
        sample::change(&client.path(&name), 11, "changed");
        let said = client.json(&[&name, &remote]);
        assert_eq!(said["version"], 2, "{page_size}");
        for (version, file) in [("@1", "one"), ("@2", "two")] {
            client.run(&[format!("{remote}{version}"), format!("./{file}-{name}")]).ok();
        }
        sample::assert_same(&client.path(&name), &client.path(&format!("two-{name}")));
        // The first version becomes the second in place.
        client.run(&[format!("{remote}@2"), format!("./one-{name}")]).ok();
        sample::assert_same(&client.path(&name), &client.path(&format!("one-{name}")));
    }
}

#[test]
fn encodings_and_vacuum_modes_go_forth_and_back() {
    let server = Server::start();
    let client = Client::admin(&server);
    for encoding in ["UTF-8", "UTF-16le", "UTF-16be"] {
        let name = format!("{encoding}.db");
        let remote = format!("team/{name}");
        let path = client.path(&name);
        Sample { encoding, ..Sample::default() }.create(&path);
        client.run(&[&name, &remote]).ok();
        client.run(&[remote.clone(), format!("./copy-{name}")]).ok();
        sample::change(&path, 3, "grüße");
        client.run(&[&name, &remote]).ok();
        client.run(&[remote.clone(), format!("./copy-{name}")]).ok();
        sample::assert_same(&path, &client.path(&format!("copy-{name}")));
    }
    for mode in ["FULL", "INCREMENTAL"] {
        let name = format!("{mode}.db");
        let path = client.path(&name);
        sample::execute(&path, &format!("PRAGMA auto_vacuum = {mode}; CREATE TABLE t(a, b)"));
        sample::execute(
            &path,
            "WITH RECURSIVE c(n) AS (VALUES(1) UNION ALL SELECT n + 1 FROM c WHERE n < 3000)
             INSERT INTO t SELECT n, hex(randomblob(100)) FROM c",
        );
        client.run(&[name.clone(), format!("team/{name}")]).ok();
        sample::execute(&path, "DELETE FROM t WHERE a > 100; PRAGMA incremental_vacuum");
        client.run(&[name.clone(), format!("team/{name}")]).ok();
        client.run(&[format!("team/{name}@1"), format!("./copy-{name}")]).ok();
        client.run(&[format!("team/{name}"), format!("./copy-{name}")]).ok();
        sample::assert_same(&path, &client.path(&format!("copy-{name}")));
    }
}

#[test]
fn a_database_that_shrinks_and_grows_is_cut_and_extended() {
    let server = Server::start();
    let client = Client::admin(&server);
    let app = client.path("app.db");
    Sample { journal: "delete", rows: 3000, ..Sample::default() }.create(&app);
    client.run(&["app.db", "team/app.db"]).ok();
    client.run(&["team/app.db", "copy.db"]).ok();
    for sql in [
        "DELETE FROM notes WHERE id > 10; VACUUM",
        "INSERT INTO notes(text) SELECT hex(randomblob(500)) FROM (SELECT 1 FROM notes a, notes b, notes c)",
        "DROP TABLE notes; VACUUM",
    ] {
        sample::execute(&app, sql);
        client.run(&["app.db"]).ok();
        client.run(&["team/app.db", "copy.db"]).ok();
        sample::assert_same(&app, &client.path("copy.db"));
    }
}

#[test]
fn a_leftover_wal_and_a_hot_journal_are_part_of_the_database() {
    let server = Server::start();
    let client = Client::admin(&server);
    // A WAL that its writer never checkpointed: copied while it is open.
    let open = client.path("open.db");
    sample::create(&open);
    let writer = rusqlite::Connection::open(&open).unwrap();
    writer
        .execute_batch("PRAGMA wal_autocheckpoint = 0; UPDATE notes SET text = 'in the wal' WHERE id = 1")
        .unwrap();
    for suffix in ["", "-wal"] {
        std::fs::copy(client.path(&format!("open.db{suffix}")), client.path(&format!("left.db{suffix}")))
            .unwrap();
    }
    client.run(&["left.db", "team/left.db"]).ok();
    client.run(&["team/left.db", "pulled.db"]).ok();
    assert_eq!(sample::note(&client.path("pulled.db"), 1), "in the wal");

    // A journal of a transaction that was never finished: it must be rolled back.
    let hot = client.path("hot.db");
    Sample { journal: "delete", rows: 5000, ..Sample::default() }.create(&hot);
    let writer = rusqlite::Connection::open(&hot).unwrap();
    writer.execute_batch("PRAGMA cache_size = 5; BEGIN; UPDATE notes SET text = 'never committed'").unwrap();
    for suffix in ["", "-journal"] {
        std::fs::copy(client.path(&format!("hot.db{suffix}")), client.path(&format!("cut.db{suffix}")))
            .unwrap();
    }
    client.run(&["cut.db", "team/cut.db"]).ok();
    client.run(&["team/cut.db", "rolled.db"]).ok();
    assert_eq!(
        sample::number(
            &client.path("rolled.db"),
            "SELECT count(*) FROM notes WHERE text = 'never committed'"
        ),
        0
    );
    assert_eq!(sample::text(&client.path("rolled.db"), "PRAGMA integrity_check"), "ok");
}

#[test]
fn a_local_copy_needs_no_server_and_takes_what_changed() {
    let client = Client::stranger();
    sample::create(&client.path("a.db"));
    let said = client.json(&["a.db", "./b.db"]);
    assert_eq!(said["outcome"], "copied");
    sample::assert_same(&client.path("a.db"), &client.path("b.db"));
    sample::change(&client.path("a.db"), 4, "changed");
    let said = client.json(&["a.db", "./b.db"]);
    assert!(said["pages_sent"].as_u64().unwrap() < 10, "{said}");
    sample::assert_same(&client.path("a.db"), &client.path("b.db"));
    assert_eq!(client.json(&["a.db", "./b.db"])["outcome"], "unchanged");
    client.run(&["a.db", "./a.db"]).code_is_not(0);
    client.run(&["a.db", "./missing/b.db"]).code_is_not(0);
}

#[test]
fn a_database_over_a_gigabyte_skips_the_page_that_sqlite_never_uses() {
    let server = Server::start();
    let client = Client::admin(&server);
    let app = client.path("app.db");
    // Pages of 64 KiB and rows of zeros: 1.1 GB that compress to nothing.
    sample::execute(
        &app,
        "PRAGMA page_size = 65536; PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;
         CREATE TABLE t(id INTEGER PRIMARY KEY, b BLOB);
         WITH RECURSIVE c(n) AS (VALUES(1) UNION ALL SELECT n + 1 FROM c WHERE n < 1100)
         INSERT INTO t SELECT n, zeroblob(1000000) FROM c;
         PRAGMA journal_mode = WAL;",
    );
    assert!(std::fs::metadata(&app).unwrap().len() > (1 << 30) + 65536);
    client.run(&["app.db", "team/app.db"]).ok();
    sample::execute(&app, "UPDATE t SET b = randomblob(1000) WHERE id IN (1, 1100)");
    let said = client.json(&["app.db"]);
    assert_eq!(said["version"], 2);
    client.run(&["team/app.db", "copy.db"]).ok();
    assert_eq!(sample::text(&client.path("copy.db"), "PRAGMA integrity_check"), "ok");
    let sum = "SELECT sum(length(b)) FROM t";
    assert_eq!(sample::number(&client.path("copy.db"), sum), sample::number(&app, sum));
}
