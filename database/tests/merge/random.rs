//! Random histories: a base of tables of every kind, and what somebody may do to it.

use rusqlite::Connection;

/// Numbers that follow from a seed.
pub struct Random {
    state: u64,
    /// Few tables and much done to them, so that both sides meet more often.
    dense: bool,
}

/// Seeds with this bit are dense.
pub const DENSE: u64 = 1 << 40;

impl Random {
    pub fn new(seed: u64) -> Random {
        let state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d;
        Random { state, dense: seed & DENSE != 0 }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len() as u64) as usize]
    }
}

/// A kind of table: its SQL, and the columns that can be written.
struct Kind {
    name: &'static str,
    sql: &'static str,
    columns: &'static [&'static str],
}

const KINDS: &[Kind] = &[
    Kind { name: "ipk", sql: "CREATE TABLE ipk(id INTEGER PRIMARY KEY, a, b)", columns: &["id", "a", "b"] },
    Kind {
        name: "auto",
        sql: "CREATE TABLE auto(id INTEGER PRIMARY KEY AUTOINCREMENT, a)",
        columns: &["id", "a"],
    },
    Kind { name: "heap", sql: "CREATE TABLE heap(a, b)", columns: &["rowid", "a", "b"] },
    Kind { name: "txt", sql: "CREATE TABLE txt(k TEXT PRIMARY KEY, v, w)", columns: &["k", "v", "w"] },
    Kind {
        name: "wr",
        sql: "CREATE TABLE wr(a, b INT, c, PRIMARY KEY(b, a)) WITHOUT ROWID",
        columns: &["a", "b", "c"],
    },
    Kind {
        name: "uni",
        sql: "CREATE TABLE uni(id INTEGER PRIMARY KEY, u UNIQUE ON CONFLICT REPLACE, v, UNIQUE(v, u));
              CREATE UNIQUE INDEX uni_e ON uni(abs(v)) WHERE typeof(v) = 'integer'",
        columns: &["id", "u", "v"],
    },
    Kind { name: "nul", sql: "CREATE TABLE nul(a, b, c, PRIMARY KEY(a, b))", columns: &["a", "b", "c"] },
    Kind {
        name: "cased",
        sql: "CREATE TABLE cased(k TEXT COLLATE NOCASE PRIMARY KEY, v) WITHOUT ROWID",
        columns: &["k", "v"],
    },
    Kind {
        name: "family",
        sql: "CREATE TABLE family(id INTEGER PRIMARY KEY, up INT REFERENCES family(id) ON DELETE CASCADE, v);
              CREATE TABLE toy(id INTEGER PRIMARY KEY, owner INT REFERENCES family ON DELETE SET NULL ON UPDATE CASCADE, k REFERENCES txt(k));
              CREATE INDEX toy_owner ON toy(owner)",
        columns: &["id", "up", "v"],
    },
    Kind { name: "toy", sql: "", columns: &["id", "owner", "k"] },
    Kind {
        name: "st",
        sql: "CREATE TABLE st(id INTEGER PRIMARY KEY, n INT, t TEXT, g INT AS (n * 2) STORED, h TEXT AS (t || '!'), CHECK (n IS NULL OR n <> 3)) STRICT;
              CREATE INDEX st_g ON st(g); CREATE INDEX st_h ON st(h) WHERE n > 1",
        columns: &["id", "n", "t"],
    },
    Kind { name: "own", sql: "CREATE VIRTUAL TABLE own USING fts5(x)", columns: &["rowid", "x"] },
    Kind {
        name: "doc",
        sql: "CREATE TABLE doc(id INTEGER PRIMARY KEY, x);
              CREATE VIRTUAL TABLE ext USING fts5(x, content='doc', content_rowid='id');
              CREATE TRIGGER doc_i AFTER INSERT ON doc BEGIN INSERT INTO ext(rowid, x) VALUES (new.id, new.x); END;
              CREATE TRIGGER doc_d AFTER DELETE ON doc BEGIN INSERT INTO ext(ext, rowid, x) VALUES ('delete', old.id, old.x); END;
              CREATE TRIGGER doc_u AFTER UPDATE ON doc BEGIN INSERT INTO ext(ext, rowid, x) VALUES ('delete', old.id, old.x);
                  INSERT INTO ext(rowid, x) VALUES (new.id, new.x); END",
        columns: &["id", "x"],
    },
    Kind { name: "less", sql: "CREATE VIRTUAL TABLE less USING fts5(x, content='')", columns: &["rowid", "x"] },
    Kind { name: "box", sql: "CREATE VIRTUAL TABLE box USING rtree(id, x0, x1)", columns: &["id", "x0", "x1"] },
];

/// Runs a statement; one that a constraint or a missing table stops does nothing.
fn run(connection: &Connection, log: &mut Vec<String>, sql: String) {
    let _ = connection.execute_batch(&sql);
    log.push(sql);
}

/// Makes a base; the kinds of table in it, and what was run.
pub fn base(connection: &Connection, random: &mut Random, log: &mut Vec<String>) -> Vec<usize> {
    if random.one_in(8) {
        let encoding = random.pick(&["UTF-16le", "UTF-16be"]);
        run(connection, log, format!("PRAGMA encoding = '{encoding}'"));
    }
    run(connection, log, format!("PRAGMA page_size = {}", random.pick(&["512", "1024", "4096"])));
    let mut kinds = Vec::new();
    if random.dense {
        let uni = KINDS.iter().position(|kind| kind.name == "uni").unwrap_or_default();
        let family = KINDS.iter().position(|kind| kind.name == "family").unwrap_or_default();
        let txt = KINDS.iter().position(|kind| kind.name == "txt").unwrap_or_default();
        kinds = match random.below(3) {
            0 => vec![uni],
            1 => vec![txt, family, family + 1],
            _ => vec![random.below(9) as usize],
        };
        if KINDS[kinds[0]].sql.is_empty() {
            kinds.insert(0, kinds[0] - 1);
        }
        for &kind in &kinds {
            run(connection, log, KINDS[kind].sql.to_owned());
        }
        for _ in 0..10 + random.below(30) {
            row(connection, random, log, &kinds);
        }
        return kinds;
    }
    for (kind, Kind { sql, .. }) in KINDS.iter().enumerate() {
        let virtually = sql.contains("VIRTUAL");
        if sql.is_empty() || random.one_in(if virtually { 6 } else { 4 }) {
            kinds.push(kind);
        }
    }
    if kinds.iter().all(|&kind| KINDS[kind].sql.is_empty()) {
        kinds.push(random.below(5) as usize);
    }
    for &kind in &kinds {
        run(connection, log, KINDS[kind].sql.to_owned());
    }
    for _ in 0..random.below(25) {
        row(connection, random, log, &kinds);
    }
    kinds
}

/// What somebody does: rows mostly, and now and then the schema or a number of the header.
pub fn history(connection: &Connection, random: &mut Random, log: &mut Vec<String>, kinds: &[usize]) {
    let enforced = random.one_in(2);
    run(connection, log, format!("PRAGMA foreign_keys = {}", u8::from(enforced)));
    if random.one_in(12) {
        return;
    }
    let wide = random.one_in(4);
    let most = if wide { 20 } else { 5 };
    for _ in 0..1 + random.below(if random.dense { most / 2 + 2 } else { most }) {
        row(connection, random, log, kinds);
    }
    if random.one_in(10) {
        schema(connection, random, log, kinds);
    }
    if random.one_in(15) {
        run(connection, log, format!("PRAGMA user_version = {}", random.below(3)));
    }
    if random.one_in(20) {
        run(connection, log, format!("PRAGMA application_id = {}", random.below(3)));
    }
    if random.one_in(20) {
        run(connection, log, random.pick(&["ANALYZE", "VACUUM", "REINDEX"]).to_owned());
    }
}

fn value(random: &mut Random) -> String {
    if random.dense && !random.one_in(4) {
        return random.below(12).to_string();
    }
    match random.below(12) {
        0 => "NULL".into(),
        1 => random.pick(&["1.5", "2.0", "-0.0", "0.0", "9e999"]).into(),
        2 => random.pick(&["x''", "x'00ff'", "x'61'"]).into(),
        3 => format!("replace(hex(zeroblob({})), '00', 'long ')", 100 + random.below(3) * 400),
        4 => random.pick(&["CAST(x'ff61' AS TEXT)", "'a' || char(0) || 'b'", "char(128512)"]).into(),
        5 | 6 => random.pick(&["'a'", "'A'", "'b'", "'red fox'", "'red hen'"]).into(),
        _ => random.below(6).to_string(),
    }
}

/// A number for a key: mostly small, so that both sides meet.
fn number(random: &mut Random) -> String {
    // In between there is room for rows that the other side does not have.
    let most = if random.dense { 40 } else { 14 };
    if !random.dense && random.one_in(4) { "NULL".into() } else { (1 + random.below(most)).to_string() }
}

fn cell(random: &mut Random, column: &str) -> String {
    match column {
        "id" | "rowid" => number(random),
        "up" | "owner" if random.dense => (1 + random.below(40)).to_string(),
        "up" | "owner" => (1 + random.below(8)).to_string(),
        "k" => random.pick(&["'a'", "'b'", "'A'", "'c'", "'d'", "NULL"]).into(),
        "x0" => random.below(5).to_string(),
        "x1" => (5 + random.below(5)).to_string(),
        _ => value(random),
    }
}

fn row(connection: &Connection, random: &mut Random, log: &mut Vec<String>, kinds: &[usize]) {
    let kind = &KINDS[kinds[random.below(kinds.len() as u64) as usize]];
    let (name, columns) = (kind.name, kind.columns);
    // What a contentless index had is unknown to it: it is only added to.
    let what = if name == "less" { 0 } else { random.below(10) };
    let skip = if name == "wr" || name == "cased" { columns[0] } else { "rowid" };
    let some =
        format!("{skip} IN (SELECT {skip} FROM {name} ORDER BY {skip} LIMIT 1 OFFSET {})", random.below(6));
    let sql = match what {
        0..=4 => {
            let or = random.pick(&["", "", "OR REPLACE", "OR IGNORE"]);
            let values: Vec<String> = columns.iter().map(|column| cell(random, column)).collect();
            format!("INSERT {or} INTO {name}({}) VALUES ({})", columns.join(", "), values.join(", "))
        }
        5..=7 => {
            let column = columns[random.below(columns.len() as u64) as usize];
            format!("UPDATE {name} SET {column} = {} WHERE {some}", cell(random, column))
        }
        8 => format!("DELETE FROM {name} WHERE {some}"),
        _ => {
            let (one, last) = (columns[0], columns[columns.len() - 1]);
            match random.below(4) {
                0 => format!("DELETE FROM {name} WHERE {one} > 4"),
                1 => format!("UPDATE {name} SET {last} = {}", cell(random, last)),
                2 => format!("UPDATE OR IGNORE {name} SET {one} = {one} + 1 WHERE typeof({one}) = 'integer'"),
                _ => format!("UPDATE {name} SET {last} = (SELECT max({last}) FROM {name}) WHERE {some}"),
            }
        }
    };
    run(connection, log, sql);
}

fn schema(connection: &Connection, random: &mut Random, log: &mut Vec<String>, kinds: &[usize]) {
    let kind = &KINDS[kinds[random.below(kinds.len() as u64) as usize]];
    let (name, last) = (kind.name, kind.columns[kind.columns.len() - 1]);
    let sql = match random.below(8) {
        0 => format!("ALTER TABLE {name} ADD COLUMN extra DEFAULT {}", random.below(2)),
        1 => "CREATE TABLE fresh(id INTEGER PRIMARY KEY, v); INSERT INTO fresh(v) VALUES (1), (2)".into(),
        2 => format!("CREATE INDEX i_{name} ON {name}({last})"),
        3 => format!("CREATE VIEW seen AS SELECT * FROM {name}"),
        4 => format!("DROP TABLE {name}"),
        5 => format!("ALTER TABLE {name} RENAME COLUMN {last} TO renamed"),
        6 => format!("CREATE TRIGGER t_{name} AFTER INSERT ON {name} BEGIN SELECT 1; END"),
        _ => format!(
            "CREATE TABLE rebuilt AS SELECT * FROM {name}; DROP TABLE {name}; ALTER TABLE rebuilt RENAME TO {name}"
        ),
    };
    run(connection, log, sql);
}
