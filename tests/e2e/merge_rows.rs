//! Rows of stored versions: `diff` in its forms and between all kinds of sides, `query`, `log --stat`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use serde_json::{Value, json};
use sqlrsync_tests::client::{Client, Outcome};
use sqlrsync_tests::team::{self, REMOTE, Team, objects, push, write};
use sqlrsync_tests::{sample, session};

/// Three versions; the third inserts, updates and deletes against the second.
fn three_versions() -> Team {
    let team = Team::of(1);
    let a = &team.machines[0];
    write(a, "UPDATE customers SET name = 'second' WHERE id = 3");
    push(a, "pushed");
    write(
        a,
        "UPDATE customers SET city = NULL WHERE id = 3;
         INSERT INTO notes VALUES('a ''quoted'' one', 'it''s');
         DELETE FROM orders WHERE customer = 4",
    );
    push(a, "pushed");
    team
}

/// What the third version changed, in the order of tables and keys.
fn expected() -> Vec<Value> {
    vec![
        json!({"table": "customers", "key": {"id": 3}, "op": "update",
               "before": {"id": 3, "name": "second", "city": "city 3"},
               "after": {"id": 3, "name": "second", "city": null}}),
        json!({"table": "notes", "key": {"key": "a 'quoted' one"}, "op": "insert",
               "before": null, "after": {"key": "a 'quoted' one", "text": "it's"}}),
        json!({"table": "orders", "key": {"customer": 4, "number": 1}, "op": "delete",
               "before": {"customer": 4, "number": 1, "item": "item of 4"}, "after": null}),
    ]
}

#[track_caller]
fn assert_expected(outcome: &Outcome) {
    let mut found = objects(outcome);
    found.sort_by_key(|row| row["table"].as_str().unwrap_or_default().to_owned());
    for row in &mut found {
        // What there is beside the fixed fields may grow.
        let fixed = ["table", "key", "op", "before", "after"];
        row.as_object_mut().unwrap().retain(|name, _| fixed.contains(&name.as_str()));
    }
    assert_eq!(found, expected(), "{outcome:?}");
}

#[test]
fn two_versions_are_compared_by_the_server() {
    let team = three_versions();
    let client = team.stranger();
    assert_expected(&client.run(&["diff", "team/app.db@2", "team/app.db@3", "--json"]).ok());
    assert_expected(&client.run(&["diff", "team/app.db@2", REMOTE, "--json"]).ok());
    let back = objects(&client.run(&["diff", "team/app.db@3", "team/app.db@2", "--json"]).ok());
    let mut ops: Vec<&str> = back.iter().map(|row| row["op"].as_str().unwrap()).collect();
    ops.sort_unstable();
    assert_eq!(ops, ["delete", "insert", "update"]);
    let none = client.run(&["diff", "team/app.db@3", REMOTE, "--json"]).ok();
    assert!(none.stdout.trim().is_empty(), "{none:?}");
    client.run(&["diff", "team/app.db@3", "team/app.db@9"]).code(10);
    client.run(&["diff", "team/none.db@1", "team/none.db@2"]).code(10);
}

#[test]
fn a_file_and_a_version_and_two_files_are_compared_the_same_way() {
    let team = three_versions();
    let client = team.stranger();
    client.run(&["team/app.db@2", "two.db"]).ok();
    client.run(&["team/app.db@3", "three.db"]).ok();
    assert_expected(&client.run(&["diff", "./two.db", "./three.db", "--json"]).ok());
    assert_expected(&client.run(&["diff", "./two.db", "team/app.db@3", "--json"]).ok());
    assert_expected(&client.run(&["diff", "team/app.db@2", "./three.db", "--json"]).ok());
}

#[test]
fn a_file_is_compared_with_a_version_for_what_differs_and_stays_as_it_is() {
    let team = Team::of(1);
    let a = &team.machines[0];
    write(
        a,
        "CREATE TABLE noise (id INTEGER PRIMARY KEY, data BLOB);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
         INSERT INTO noise SELECT i, randomblob(1000) FROM n",
    );
    push(a, "pushed");
    write(a, "UPDATE noise SET data = 'another' WHERE id = 1000");
    push(a, "pushed");
    // What a later push is made from, and a program that has the file open, with a WAL.
    let path = a.path(team::FILE);
    let open = Connection::open(&path).unwrap();
    open.execute_batch("PRAGMA journal_mode = WAL; UPDATE noise SET data = 'mine' WHERE id = 7").unwrap();
    let beside = |suffix: &str| std::fs::read(format!("{}{suffix}", path.display())).unwrap();
    let before = (beside(""), beside("-wal"), state(a));
    assert!(before.0.len() + before.1.len() > 2 << 20);

    for sides in [["team/app.db@2", "./app.db"], ["./app.db", "team/app.db@2"]] {
        let diff = a.run(&[&["diff"][..], &sides, &["--json"]].concat()).ok();
        let mut keys: Vec<_> = objects(&diff).iter().map(|row| row["key"]["id"].as_i64().unwrap()).collect();
        keys.sort_unstable();
        assert_eq!(keys, [7, 1000], "{diff:?}");
        assert!(received(&diff) < 20_000.0, "the whole version is 2 MB: {diff:?}");
    }
    assert!((beside(""), beside("-wal"), state(a)) == before, "the file, its WAL or its state is another");
    drop(open);
    let pushed = push(a, "pushed");
    assert!(pushed["bytes_sent"].as_u64().unwrap() < 20_000, "the base is still known: {pushed}");
}

/// What the client keeps about its files.
fn state(client: &Client) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![client.home().join(".local/state/sqlrsync/files")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            match entry.is_dir() {
                true => folders.push(entry),
                false => drop(files.insert(entry.clone(), std::fs::read(&entry).unwrap())),
            }
        }
    }
    assert!(files.len() >= 2, "{:?}", files.keys());
    files
}

/// How many bytes the program says that it received.
#[track_caller]
fn received(outcome: &Outcome) -> f64 {
    let said = outcome.stderr.lines().find_map(|line| line.strip_suffix(" received")).expect("it is said");
    let mut words = said.rsplit(' ');
    let unit = match words.next().unwrap() {
        "bytes" => 1.0,
        "KB" => 1e3,
        _ => 1e6,
    };
    words.next().unwrap().parse::<f64>().unwrap() * unit
}

#[test]
fn with_exit_code_a_difference_exits_with_1_and_an_error_does_not() {
    let team = three_versions();
    let client = team.stranger();
    client.run(&["team/app.db@2", "two.db"]).ok();
    client.run(&["team/app.db@3", "three.db"]).ok();
    let forms: [&[&str]; 5] = [&[], &["--json"], &["--stat"], &["--sql"], &["--changeset", "set.bin"]];
    for form in forms {
        let diff = |from: &str, to: &str| client.run(&[&["diff", from, to, "--exit-code"], form].concat());
        for (two, three) in [
            ("team/app.db@2", "team/app.db@3"),
            ("./two.db", "./three.db"),
            ("./two.db", "team/app.db@3"),
            ("team/app.db@2", "./three.db"),
        ] {
            diff(two, three).code(1);
            let [same_two, same_three] = [diff(two, two), diff(three, three)];
            for same in [same_two.code(0), same_three.code(0)] {
                let said = if form == ["--json"] { "" } else { "nothing differs" };
                assert!(format!("{}{}", same.stdout, same.stderr).contains(said), "{form:?}: {same:?}");
            }
        }
        diff("./two.db", "team/app.db@2").code(0);
    }
    client.run(&["diff", "./two.db", "./three.db"]).code(0);

    // What cannot be compared is not the same, and does not differ either.
    std::fs::write(client.path("none.db"), "this is no database, but long enough to be taken for one")
        .unwrap();
    client.run(&["diff", "./two.db", "./none.db"]).code(1);
    let trouble = client.run(&["diff", "./two.db", "./none.db", "--exit-code", "--json"]).code(2);
    assert_eq!(objects(&trouble).last().unwrap()["exit_code"], 2, "{trouble:?}");
    client.run(&["diff", "./two.db", "./missing.db", "--exit-code"]).code(10);
    client.run(&["diff", "team/app.db@3", "team/app.db@9", "--exit-code"]).code(10);
}

#[test]
fn the_counts_and_the_words_for_people_name_tables_and_rows() {
    let team = three_versions();
    let client = team.stranger();
    let stat = client.run(&["diff", "team/app.db@2", "team/app.db@3", "--stat"]).ok().stdout;
    for table in ["customers", "notes", "orders"] {
        assert!(stat.contains(table), "{stat}");
    }
    let text = client.run(&["diff", "team/app.db@2", "team/app.db@3"]).ok().stdout;
    for word in ["customers", "city 3", "quoted", "item of 4"] {
        assert!(text.contains(word), "{word}: {text}");
    }
}

#[test]
fn the_sql_of_a_difference_makes_the_newer_side_of_the_older() {
    let team = three_versions();
    let client = team.stranger();
    client.run(&["team/app.db@2", "patched.db"]).ok();
    client.run(&["team/app.db@3", "three.db"]).ok();
    let sql = client.run(&["diff", "team/app.db@2", "team/app.db@3", "--sql"]).ok().stdout;
    sample::execute(&client.path("patched.db"), &sql);
    let left = client.run(&["diff", "./patched.db", "./three.db", "--json"]).ok();
    assert!(left.stdout.trim().is_empty(), "{left:?}\n{sql}");
    team::assert_sound(&client.path("patched.db"));
}

#[test]
fn a_changeset_is_one_of_sqlites_own() {
    let team = three_versions();
    let client = team.stranger();
    client.run(&["diff", "team/app.db@2", "team/app.db@3", "--changeset", "set.bin"]).ok();
    let bytes = std::fs::read(client.path("set.bin")).unwrap();
    // https://www.sqlite.org/sessionintro.html: a table begins with 'T', its number of columns and keys.
    assert_eq!(bytes.first(), Some(&b'T'), "{bytes:?}");
    for table in ["customers", "notes", "orders"] {
        let name = [table.as_bytes(), &[0]].concat();
        assert!(bytes.windows(name.len()).any(|window| window == name), "{table}");
    }
}

#[test]
fn a_changeset_of_two_versions_makes_the_newer_of_the_older_with_sqlites_own_apply() {
    let team = Team::of(1);
    let a = &team.machines[0];
    // Of each kind of key, and of each kind of value at the edges of its encoding.
    write(
        a,
        "CREATE TABLE kinds(id INTEGER PRIMARY KEY, i, r REAL, t TEXT NOT NULL DEFAULT 'none', b BLOB);
         CREATE TABLE \"two words\"(b BLOB, a TEXT, n, PRIMARY KEY(a, b)) WITHOUT ROWID;
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 900)
         INSERT INTO kinds SELECT i, i - 450, i / 7.0, 'text ' || i, randomblob(i) FROM n;
         INSERT INTO \"two words\" SELECT b, t, i FROM kinds",
    );
    push(a, "pushed");
    write(
        a,
        "UPDATE kinds SET i = -9223372036854775808, r = -0.0, t = 'é \u{1f980}' WHERE id = 3;
         UPDATE kinds SET i = 9223372036854775807, b = zeroblob(70000) WHERE id = 4;
         UPDATE kinds SET i = NULL, r = 9e999, b = x'' WHERE id = 5;
         UPDATE kinds SET t = printf('%.20000c', 'x') WHERE id % 50 = 0;
         DELETE FROM kinds WHERE id BETWEEN 100 AND 130;
         INSERT INTO kinds VALUES(-7, 'text', NULL, '', x'00ff'), (9223372036854775807, 1.5, 3, 'end', NULL);
         UPDATE \"two words\" SET n = 'other' WHERE n = 1;
         DELETE FROM \"two words\" WHERE n > 400;
         INSERT INTO \"two words\" VALUES(x'00', 'new', x'01');
         INSERT INTO notes VALUES('a new one', NULL); DELETE FROM notes WHERE key = 'note 8';
         DELETE FROM orders WHERE customer = 4; UPDATE orders SET item = NULL WHERE customer = 5;
         UPDATE customers SET name = 'another' WHERE id > 150",
    );
    push(a, "pushed");
    let client = team.stranger();
    for (version, name) in [("team/app.db@2", "old.db"), ("team/app.db@3", "new.db")] {
        client.run(&[version, name]).ok();
    }
    let (old, new) = (client.path("old.db"), client.path("new.db"));
    assert_ne!(all_rows(&old), all_rows(&new));
    for (from, to, file) in
        [("team/app.db@2", "team/app.db@3", &old), ("team/app.db@3", "team/app.db@2", &new)]
    {
        let wanted = all_rows(if file == &old { &new } else { &old });
        let before = std::fs::read(file).unwrap();
        client.run(&["diff", from, to, "--changeset", "set.bin"]).ok();
        let set = std::fs::read(client.path("set.bin")).unwrap();
        assert_eq!(session::apply(file, &set), 0, "{from} to {to}");
        assert_eq!(all_rows(file), wanted, "{from} to {to}");
        team::assert_sound(file);
        std::fs::write(file, before).unwrap();
    }
}

/// All rows of all tables, value by value with its type, in no order.
fn all_rows(path: &Path) -> BTreeMap<String, Vec<String>> {
    let database = Connection::open(path).unwrap();
    let sql = "SELECT name FROM sqlite_schema WHERE type = 'table'";
    let mut tables = database.prepare(sql).unwrap();
    let tables = tables.query_map([], |row| row.get::<_, String>(0)).unwrap();
    let rows = |table: &str| {
        let mut all = database.prepare(&format!("SELECT * FROM \"{table}\"")).unwrap();
        let columns = all.column_count();
        let row = |row: &rusqlite::Row<'_>| {
            let value = |column| row.get::<_, rusqlite::types::Value>(column).unwrap();
            Ok(format!("{:?}", (0..columns).map(value).collect::<Vec<_>>()))
        };
        let mut rows: Vec<String> = all.query_map([], row).unwrap().map(Result::unwrap).collect();
        rows.sort_unstable();
        rows
    };
    tables.map(Result::unwrap).map(|table| (table.clone(), rows(&table))).collect()
}

#[test]
fn rows_that_nothing_names_are_told_of_versions_as_they_are_of_files() {
    let team = Team::of(1);
    let a = &team.machines[0];
    // All three names of a rowid are columns, so that SQL has none for it.
    write(a, "CREATE TABLE odd(rowid, oid, _rowid_); INSERT INTO odd VALUES(1, 2, 3)");
    push(a, "pushed");
    write(a, "INSERT INTO odd VALUES(4, 5, 6)");
    push(a, "pushed");
    write(a, "CREATE TABLE nokey(x); INSERT INTO nokey VALUES(1)");
    push(a, "pushed");
    let client = team.stranger();
    for (version, name) in
        [("team/app.db@2", "two.db"), ("team/app.db@3", "three.db"), ("team/app.db@4", "four.db")]
    {
        client.run(&[version, name]).ok();
    }
    let forms: [&[&str]; 6] =
        [&[], &["--json"], &["--stat"], &["--stat", "--json"], &["--sql"], &["--changeset", "set.bin"]];
    for form in forms {
        for (older, newer) in [("two", "three"), ("three", "four"), ("two", "four")] {
            let number = |name| match name {
                "two" => 2,
                "three" => 3,
                _ => 4,
            };
            let versions = [older, newer].map(|name| format!("team/app.db@{}", number(name)));
            let files = [older, newer].map(|name| format!("./{name}.db"));
            let [there, here] = [versions, files].map(|[from, to]| {
                let outcome = client.run(&[&["diff", &from, &to, "--exit-code"], form].concat()).code(1);
                let set = std::fs::read(client.path("set.bin")).unwrap_or_default();
                (outcome.stdout, outcome.stderr, set)
            });
            assert_eq!(there, here, "{form:?}");
            assert_eq!(there.1.contains("warning: odd: "), older == "two", "{form:?}: {there:?}");
        }
    }
    let url = format!("{}/api/v1/replicas/team/app.db/diff?from=2&to=3", team.server.url());
    let key = format!("Bearer {}", team.server.admin_key());
    let mut answer = ureq::get(&url).header("Authorization", key).call().unwrap();
    let line: Value = serde_json::from_str(answer.body_mut().read_to_string().unwrap().trim()).unwrap();
    assert!(line["left_out"] == "odd" && line["why"].is_string(), "{line}");
}

#[test]
fn a_version_is_asked_in_sql_and_nothing_else_can_be_done() {
    let team = three_versions();
    let client = team.stranger();
    let ask = |remote: &str, sql: &str| client.run(&["query", remote, sql, "--json"]);
    let found = objects(&ask("team/app.db@2", "SELECT name, city FROM customers WHERE id = 3").ok());
    assert_eq!(found, [json!({"name": "second", "city": "city 3"})]);
    let found = objects(&ask(REMOTE, "SELECT name, city FROM customers WHERE id = 3").ok());
    assert_eq!(found, [json!({"name": "second", "city": null})]);
    for sql in [
        "DELETE FROM customers",
        "UPDATE customers SET name = 'x'",
        "DROP TABLE customers",
        "ATTACH '/etc/passwd' AS x",
        "PRAGMA writable_schema = 1",
        "SELECT load_extension('x')",
        "SELECT 1; SELECT 2",
        "no sql at all",
        "SELECT * FROM no_such_table",
    ] {
        ask(REMOTE, sql).code_is_not(0);
    }
    let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
    // Run again it would take as long: nobody is told to.
    let refused = ask(REMOTE, endless).code(1).says("--query-timeout").says("narrow it");
    assert!(!refused.stderr.contains("again"), "{refused:?}");
    assert_eq!(team.versions(), 3);
    client.run(&["query", "team/app.db@9", "SELECT 1"]).code(10);
    Client::guest(&team.server).run(&["query", REMOTE, "SELECT 1"]).code(4);
}

#[test]
fn the_log_says_how_many_rows_each_version_changed() {
    let team = three_versions();
    let client = team.stranger();
    let lines = objects(&client.run(&["log", REMOTE, "--stat", "--json"]).ok());
    assert_eq!(lines.len(), 3, "{lines:?}");
    let newest = lines[0].to_string();
    for table in ["customers", "notes", "orders"] {
        assert!(newest.contains(table), "{newest}");
    }
    assert!(!lines[1].to_string().contains("orders"), "{}", lines[1]);
    let text = client.run(&["log", REMOTE, "--stat"]).ok().stdout;
    assert!(text.contains("customers") && text.contains("orders"), "{text}");
}

#[test]
fn the_server_describes_its_interface_and_says_who_did_what() {
    let team = three_versions();
    let key = team.server.admin_key();
    let get = |path: &str| {
        let url = format!("{}/api/v1/{path}", team.server.url());
        let mut answer = ureq::get(&url).header("Authorization", format!("Bearer {key}")).call().unwrap();
        let text = answer.body_mut().read_to_string().unwrap();
        serde_json::from_str::<Value>(&text).unwrap()
    };
    let described = get("openapi.json");
    let paths = described["paths"].to_string();
    for what in ["conflicts", "diff", "query", "audit", "policy", "settle"] {
        assert!(paths.contains(what), "{what}: {paths}");
    }
    team.policy(&["merge", "--cells"]);
    let audit = get("replicas/team/app.db/audit").to_string();
    assert!(audit.contains("policy"), "{audit}");
}
