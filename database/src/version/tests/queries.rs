//! Queries: what they give, and what they may not.

use std::ops::ControlFlow;

use sqlrsync_protocol::exchange::{Fault, Refusal};

use super::*;
use crate::rows::Value;

/// All rows, or the first that are within the limits.
fn ask_within(
    db: &VersionDatabase,
    sql: &str,
    limits: QueryLimits,
) -> Result<(QueryOutcome, Vec<Vec<Value>>), VersionError> {
    let mut rows = Vec::new();
    let outcome = query(db, sql, limits, &mut |row| {
        assert_eq!(row.columns.len(), row.values.len());
        rows.push(row.values);
        ControlFlow::Continue(())
    })?;
    Ok((outcome, rows))
}

fn ask(db: &VersionDatabase, sql: &str) -> Result<(QueryOutcome, Vec<Vec<Value>>), VersionError> {
    ask_within(db, sql, QueryLimits::default())
}

fn text(text: &str) -> Value {
    Value::Text(text.as_bytes().to_vec())
}

#[test]
fn a_query_gives_rows_with_every_kind_of_value() {
    for encoding in ["UTF-8", "UTF-16le", "UTF-16be"] {
        let content = content(&format!(
            "PRAGMA encoding = '{encoding}'; {ROWS} CREATE VIEW v AS SELECT max(id) AS m FROM t"
        ));
        let db = open(&content);
        let sql = " -- which\n; SELECT id, name || 'é', data, 1.5, NULL AS n FROM t WHERE id = 1; -- done";
        let (outcome, rows) = ask(&db, sql).unwrap();
        assert_eq!(outcome.columns, ["id", "name || 'é'", "data", "1.5", "n"]);
        let blob = Value::Blob(vec![0; 100]);
        assert_eq!(rows, [[Value::Integer(1), text("name 1é"), blob, Value::Real(1.5), Value::Null]]);
        assert_eq!(ask(&db, "SELECT m FROM v").unwrap().1, [[Value::Integer(5000)]]);
        assert_eq!(ask(&db, "PRAGMA table_info(t)").unwrap().1.len(), 3);
        assert_eq!(ask(&db, "SELECT * FROM t WHERE id < 0").unwrap().0.columns, ["id", "name", "data"]);
    }
}

#[test]
fn a_query_ends_where_its_limits_are() {
    let db = open(&content(ROWS));
    let all = "SELECT * FROM t ORDER BY id";
    let limits = QueryLimits { rows: 7, ..QueryLimits::default() };
    let (outcome, rows) = ask_within(&db, all, limits).unwrap();
    assert_eq!((outcome.rows, rows.len(), outcome.more), (7, 7, true));
    let (outcome, _) = ask_within(&db, "SELECT * FROM t LIMIT 7", limits).unwrap();
    assert_eq!((outcome.rows, outcome.more), (7, false));
    let (outcome, rows) = ask_within(&db, all, QueryLimits { bytes: 2000, ..limits }).unwrap();
    assert!(outcome.more && rows.len() < 7, "{}", rows.len());
    let mut first = 0;
    let outcome = query(&db, all, limits, &mut |_| {
        first += 1;
        ControlFlow::Break(())
    });
    assert_eq!((first, outcome.unwrap().more), (1, true));
}

#[test]
fn a_query_writes_nothing_and_opens_nothing() {
    let content =
        content(&format!("{ROWS} CREATE VIRTUAL TABLE f USING fts4(x); INSERT INTO f VALUES ('a')"));
    let db = open(&content);
    let refused = [
        "INSERT INTO t VALUES (9999, 'x', 'y')",
        "UPDATE t SET name = 'x' RETURNING id",
        "DELETE FROM t",
        "CREATE TABLE x (y)",
        "CREATE TEMP TABLE x AS SELECT 1",
        "DROP TABLE t",
        "ATTACH '' AS a",
        "ATTACH 'file:other.db?vfs=unix' AS a",
        "VACUUM",
        "VACUUM INTO 'other.db'",
        "BEGIN",
        "SAVEPOINT s",
        "REINDEX",
        "ANALYZE",
        "PRAGMA query_only = 0",
        "PRAGMA user_version = 7",
        "PRAGMA journal_mode = WAL",
        "PRAGMA writable_schema = 1",
        "PRAGMA hard_heap_limit = 1",
        "PRAGMA temp_store_directory = '/'",
        "SELECT load_extension('x')",
        "SELECT fts3_tokenizer('simple')",
        "SELECT optimize(f) FROM f",
        "SELECT 1; SELECT 2",
        "SELECT 1; DELETE FROM t",
        "SELECT 1 -- \0 ; DELETE FROM t",
        "-- nothing",
        "",
        "SELEC 1",
        "SELECT * FROM nowhere",
    ];
    for sql in refused {
        let refused = ask(&db, sql);
        assert!(
            matches!(refused, Err(VersionError::Query(_) | VersionError::NotOneQuery(_))),
            "{sql}: {refused:?}"
        );
    }
    // What is not a query can be done again.
    db.connection().execute("DELETE FROM t WHERE id = 1", []).unwrap();
    assert!(db.connection().query_row("SELECT * FROM f", [], |_| Ok(())).is_ok());
}

#[test]
fn virtual_tables_and_functions_that_read_can_be_asked() {
    let sql = "CREATE VIRTUAL TABLE r USING rtree(id, low, high); INSERT INTO r VALUES (1, 2, 3);
               CREATE VIRTUAL TABLE f4 USING fts4(x); INSERT INTO f4 VALUES ('one word');
               CREATE VIRTUAL TABLE f5 USING fts5(x); INSERT INTO f5 VALUES ('one word');
               CREATE TABLE j (x); INSERT INTO j VALUES ('[1, 2]');";
    let db = open(&content(sql));
    let one = [
        "SELECT count(*) FROM r WHERE low < 3",
        "SELECT count(*) FROM f4 WHERE x MATCH 'word'",
        "SELECT count(*) FROM f5 WHERE f5 MATCH 'wo*'",
        "SELECT count(*) - 1 FROM j, json_each(j.x)",
        "SELECT count(*) FROM pragma_table_info('j')",
        "SELECT count(*) > 5 FROM dbstat",
        "SELECT count(*) FROM sqlite_schema WHERE name = 'j'",
        "SELECT date('now') > '2020-01-01'",
    ];
    for sql in one {
        assert_eq!(ask(&db, sql).unwrap().1, [[Value::Integer(1)]], "{sql}");
    }
    assert_eq!(db.written().unwrap().pages().count(), 0);
}

#[test]
fn a_query_is_over_when_its_time_is() {
    let db = open(&content(ROWS));
    let limits = QueryLimits { time: Duration::from_millis(50), ..QueryLimits::default() };
    let endless = [
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n",
        "SELECT count(*) FROM t a, t b, t c, t d WHERE a.id + b.id + c.id + d.id = 0",
        "SELECT (WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n)",
    ];
    for sql in endless {
        let stopped = ask_within(&db, sql, limits);
        assert!(matches!(stopped, Err(VersionError::Deadline)), "{sql}: {stopped:?}");
    }
    // The deadline was theirs alone.
    std::thread::sleep(Duration::from_millis(60));
    assert_eq!(number(db.connection(), "SELECT count(*) FROM t"), 2001);
}

#[test]
fn what_a_query_sorts_and_makes_is_bounded() {
    let sorts = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 20000)
                 SELECT randomblob(1000) AS r FROM n ORDER BY r";
    let little = Limits { scratch: 8 << 20, ..Limits::default() };
    let db = VersionDatabase::open(Box::new(content(ROWS)), little).unwrap();
    assert!(matches!(ask(&db, sorts), Err(VersionError::Scratch { .. })));
    let db = open(&content(ROWS));
    let limits = QueryLimits { scratch: 8 << 20, ..QueryLimits::default() };
    assert!(matches!(ask_within(&db, sorts, limits), Err(VersionError::Scratch { .. })));
    // That was the query's limit alone.
    assert!(ask(&db, sorts).unwrap().0.more);
    let too_long = ask(&db, "SELECT zeroblob(100000000) || 'x'").map(drop).unwrap_err();
    assert!(matches!(too_long, VersionError::TooLong));
    // Who asks has to ask for something else.
    assert_eq!(too_long.refusal(), Refusal::Invalid);
    assert_eq!(ask(&db, "SELECT 1").unwrap().1, [[Value::Integer(1)]]);
}

#[test]
fn a_name_that_is_not_utf_8_is_no_panic() {
    let mut content = content("CREATE TABLE t (abcdef); INSERT INTO t VALUES ('text of the row')");
    let mut page = content.page(PageNumber::FIRST).into_owned();
    let at = page.windows(6).position(|window| window == b"abcdef").unwrap();
    page[at..at + 6].fill(0xff);
    content.set(PageNumber::FIRST, &page);
    let db = open(&content);
    let (outcome, rows) = ask(&db, "SELECT * FROM t").unwrap();
    assert_eq!(outcome.columns, ["\u{fffd}".repeat(6)]);
    assert_eq!(rows, [[text("text of the row")]]);
}
