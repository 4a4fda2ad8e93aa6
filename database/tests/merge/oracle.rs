//! What a merge must come to, worked out the plain way: all rows of all three databases in maps. It shares
//! no code with what it judges.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::Connection;
use rusqlite::types::ValueRef;

/// A value, exactly.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cell {
    Null,
    Integer(i64),
    Real(u64),
    Text(Vec<u8>),
    Blob(Vec<u8>),
}

/// The values of the key; those of a rowid have a mark before them.
pub type RowKey = Vec<Cell>;
pub type Rows = BTreeMap<RowKey, Vec<Cell>>;

/// Table and SQL, by kind and name.
pub type Objects = BTreeMap<(String, String), (String, String)>;

/// A database, read whole.
pub struct Whole {
    /// The schema.
    pub objects: Objects,
    pub tables: BTreeMap<String, Rows>,
    pub sequence: BTreeMap<String, i64>,
    pub numbers: [i64; 2],
    /// `None` where a parent has no such key: then SQLite does not say.
    pub orphans: Option<BTreeSet<(String, RowKey, String)>>,
}

fn cell(value: ValueRef<'_>) -> Cell {
    match value {
        ValueRef::Null => Cell::Null,
        ValueRef::Integer(value) => Cell::Integer(value),
        ValueRef::Real(value) => Cell::Real(value.to_bits()),
        ValueRef::Text(value) => Cell::Text(value.to_vec()),
        ValueRef::Blob(value) => Cell::Blob(value.to_vec()),
    }
}

fn query(db: &Connection, sql: &str) -> Vec<Vec<Cell>> {
    let mut statement = db.prepare(sql).unwrap();
    let columns = statement.column_count();
    let rows = statement.query_map([], |row| (0..columns).map(|at| Ok(cell(row.get_ref(at)?))).collect());
    rows.unwrap().collect::<Result<_, _>>().unwrap()
}

fn text(cell: &Cell) -> String {
    match cell {
        Cell::Text(text) => String::from_utf8(text.clone()).unwrap(),
        _ => String::new(),
    }
}

fn integer(cell: &Cell) -> i64 {
    match cell {
        Cell::Integer(value) => *value,
        _ => 0,
    }
}

/// How the rows of a table are named and which columns they have.
struct Shape {
    columns: Vec<String>,
    key: Vec<usize>,
    rowid: bool,
}

fn shape(db: &Connection, table: &str) -> Shape {
    let (mut columns, mut key) = (Vec::new(), Vec::new());
    for row in query(db, &format!("PRAGMA table_xinfo({table})")) {
        if integer(&row[6]) == 0 {
            if integer(&row[5]) > 0 {
                key.push((integer(&row[5]), columns.len()));
            }
            columns.push(text(&row[1]));
        }
    }
    key.sort_unstable();
    let rowid = db.prepare(&format!("SELECT rowid FROM {table}")).is_ok();
    Shape { columns, key: key.into_iter().map(|(_, at)| at).collect(), rowid }
}

impl Shape {
    /// The key, from a row that begins with its rowid.
    fn key_of(&self, row: &[Cell]) -> RowKey {
        let key: RowKey = self.key.iter().map(|at| row[at + 1].clone()).collect();
        if key.is_empty() || key.contains(&Cell::Null) {
            return vec![Cell::Null, row[0].clone()];
        }
        key
    }
}

/// Rows by key of all that a merge merges by rows: not of statistics, and of a virtual table its content.
pub fn read(db: &Connection) -> Whole {
    let mut whole = Whole {
        objects: BTreeMap::new(),
        tables: BTreeMap::new(),
        sequence: BTreeMap::new(),
        numbers: [
            integer(&query(db, "PRAGMA user_version")[0][0]),
            integer(&query(db, "PRAGMA application_id")[0][0]),
        ],
        orphans: None,
    };
    for row in query(db, "SELECT type, name, tbl_name, sql, rootpage FROM sqlite_schema") {
        let (kind, name) = (text(&row[0]), text(&row[1]));
        if name == "sqlite_sequence" {
            for row in query(db, "SELECT name, seq FROM sqlite_sequence") {
                whole.sequence.insert(text(&row[0]), integer(&row[1]));
            }
        }
        if name.starts_with("sqlite_") {
            continue;
        }
        if kind == "table" && integer(&row[4]) > 0 {
            let shape = shape(db, &name);
            let rowid = if shape.rowid { "rowid" } else { "NULL" };
            let rows = query(db, &format!("SELECT {rowid}, {} FROM {name}", shape.columns.join(", ")));
            let rows = rows.into_iter().map(|row| (shape.key_of(&row), row[1..].to_vec()));
            whole.tables.insert(name.clone(), rows.collect());
        }
        whole.objects.insert((kind, name), (text(&row[2]), text(&row[3])));
    }
    whole.orphans = orphans(db);
    whole
}

fn orphans(db: &Connection) -> Option<BTreeSet<(String, RowKey, String)>> {
    let check = "SELECT \"table\", rowid, parent, fkid FROM pragma_foreign_key_check";
    db.prepare(check).ok()?.query([]).ok()?.next().ok()?;
    let mut orphans = BTreeSet::new();
    for row in query(db, check) {
        let table = text(&row[0]);
        let shape = shape(db, &table);
        let columns = shape.columns.join(", ");
        let sql = format!("SELECT rowid, {columns} FROM {table} WHERE rowid = {}", integer(&row[1]));
        let named = format!(
            "SELECT \"from\" FROM pragma_foreign_key_list('{table}') WHERE id = {}",
            integer(&row[3])
        );
        let named: Vec<String> = query(db, &named).iter().map(|row| text(&row[0])).collect();
        for child in query(db, &sql) {
            let mut key = shape.key_of(&child);
            // Whoever names another parent that is not there is another orphan.
            let named = shape.columns.iter().zip(&child[1..]).filter(|(column, _)| named.contains(column));
            key.extend(named.map(|(_, cell)| cell.clone()));
            orphans.insert((table.clone(), key, text(&row[2])));
        }
    }
    Some(orphans)
}

/// What a side did to the rows of a table: the row that there is now, or none.
pub type Outcomes = BTreeMap<RowKey, Option<Vec<Cell>>>;

pub fn outcomes(base: Option<&Rows>, side: Option<&Rows>) -> Outcomes {
    let none = Rows::new();
    let (base, side) = (base.unwrap_or(&none), side.unwrap_or(&none));
    let keys: BTreeSet<&RowKey> = base.keys().chain(side.keys()).collect();
    keys.into_iter()
        .filter(|key| base.get(*key) != side.get(*key))
        .map(|key| (key.clone(), side.get(key).cloned()))
        .collect()
}

/// What must come of it.
#[derive(Debug, PartialEq)]
pub enum Verdict {
    /// These rows in all tables that are merged row by row.
    Merged(BTreeMap<String, Rows>),
    /// These rows were changed by both.
    Overlap(BTreeSet<(String, RowKey)>),
    /// The schema, or numbers of the header.
    Schema,
    /// Virtual tables that cannot be made again, perhaps with rows that overlap as well.
    Virtual,
    /// Both sides changed a table's columns alike: what has become of its rows is judged by tests of its own.
    Open,
}

/// Shadow tables are merged as one thing, but for what a full-text index has indexed.
pub fn by_rows(table: &str) -> bool {
    let shadows = ["own_", "ext_", "less_", "box_"];
    table == "own_content" || !shadows.iter().any(|shadow| table.starts_with(shadow))
}

pub fn judge(base: &Whole, theirs: &Whole, mine: &Whole) -> Verdict {
    let changed = |side: &Whole| -> BTreeMap<(String, String), Option<(String, String)>> {
        let all: BTreeSet<_> = base.objects.keys().chain(side.objects.keys()).collect();
        let differs = all.into_iter().filter(|id| base.objects.get(*id) != side.objects.get(*id));
        differs.map(|id| (id.clone(), side.objects.get(id).cloned())).collect()
    };
    let (by_theirs, by_mine) = (changed(theirs), changed(mine));
    let touches = |side: &Whole, table: &str| base.tables.get(table) != side.tables.get(table);
    if base.numbers.iter().enumerate().any(|(at, held)| {
        theirs.numbers[at] != *held && mine.numbers[at] != *held && theirs.numbers[at] != mine.numbers[at]
    }) {
        return Verdict::Schema;
    }
    let alone =
        |one: &BTreeMap<_, _>, other: &BTreeMap<(String, String), _>| -> Vec<((String, String), String)> {
            let differing = one.iter().filter(|(id, made)| other.get(*id) != Some(*made));
            differing
                .map(|(id, made): (&(String, String), &Option<(String, String)>)| {
                    let table = made.as_ref().or(base.objects.get(id)).map(|(table, _)| table.clone());
                    (id.clone(), table.unwrap_or_default())
                })
                .collect()
        };
    if by_theirs.iter().any(|(id, made)| {
        id.0 == "table" && made.is_some() && base.objects.contains_key(id) && by_mine.get(id) == Some(made)
    }) {
        return Verdict::Open;
    }
    let (theirs_alone, mine_alone) = (alone(&by_theirs, &by_mine), alone(&by_mine, &by_theirs));
    if !theirs_alone.is_empty() && !mine_alone.is_empty() {
        return Verdict::Schema;
    }
    for (changes, other) in [(&theirs_alone, mine), (&mine_alone, theirs)] {
        let holding = changes.iter().filter(|((kind, _), _)| kind == "table" || kind == "trigger");
        // A virtual table's rows are in its shadow tables.
        let of = |table: &String| {
            [table.clone()]
                .into_iter()
                .chain(
                    other
                        .tables
                        .keys()
                        .chain(base.tables.keys())
                        .filter(|name| name.starts_with(&format!("{table}_")) && !by_rows(name))
                        .cloned(),
                )
                .collect::<Vec<_>>()
        };
        if holding.flat_map(|(_, table)| of(table)).any(|table| touches(other, &table)) {
            return Verdict::Schema;
        }
    }
    for unit in ["less_", "box_"] {
        let tables: BTreeSet<&String> = base
            .tables
            .keys()
            .chain(theirs.tables.keys())
            .chain(mine.tables.keys())
            .filter(|table| table.starts_with(unit))
            .collect();
        let any = |side: &Whole| tables.iter().any(|table| touches(side, table));
        if any(theirs)
            && any(mine)
            && tables.iter().any(|table| theirs.tables.get(*table) != mine.tables.get(*table))
        {
            return Verdict::Virtual;
        }
    }
    let mut overlap = BTreeSet::new();
    let mut merged = BTreeMap::new();
    let tables: BTreeSet<&String> = base
        .tables
        .keys()
        .chain(theirs.tables.keys())
        .chain(mine.tables.keys())
        .filter(|table| by_rows(table))
        .collect();
    for table in tables {
        let of = |whole: &Whole| outcomes(base.tables.get(table), whole.tables.get(table));
        let (by_theirs, by_mine) = (of(theirs), of(mine));
        let both = by_theirs.iter().filter(|(key, row)| by_mine.get(*key).is_some_and(|mine| mine != *row));
        overlap.extend(both.map(|(key, _)| (table.clone(), key.clone())));
        let mut rows = base.tables.get(table).cloned().unwrap_or_default();
        for (key, row) in by_theirs.into_iter().chain(by_mine) {
            match row {
                Some(row) => rows.insert(key, row),
                None => rows.remove(&key),
            };
        }
        let dropped = |side: &Whole| base.tables.contains_key(table) && !side.tables.contains_key(table);
        if !dropped(theirs) && !dropped(mine) {
            merged.insert(table.clone(), rows);
        }
    }
    if overlap.is_empty() { Verdict::Merged(merged) } else { Verdict::Overlap(overlap) }
}

/// Whether rows can stand together in a database: they are written into an empty one of the same schema. What
/// stops them, or else the orphans that there are.
pub fn together(schema: &Connection, tables: &BTreeMap<String, Rows>) -> Result<Whole, String> {
    let empty = Connection::open_in_memory().unwrap();
    // All texts have been read as UTF-8, and are written as it.
    empty.execute_batch("PRAGMA foreign_keys = OFF").unwrap();
    let sql = "SELECT sql, type FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite~_%' ESCAPE '~'
        AND type IN ('table', 'index') AND sql NOT LIKE 'CREATE VIRTUAL%'
        AND name NOT LIKE 'own~_%' ESCAPE '~' AND name NOT LIKE 'ext~_%' ESCAPE '~' AND name NOT LIKE 'less~_%' ESCAPE '~'
        AND name NOT LIKE 'box~_%' ESCAPE '~'
        ORDER BY type = 'index'";
    for row in query(schema, sql) {
        empty.execute_batch(&text(&row[0])).unwrap();
    }
    for (table, rows) in tables.iter().filter(|(table, _)| table.as_str() != "own_content") {
        let shape = shape(&empty, table);
        let keyless = shape.key.is_empty();
        for (key, row) in rows {
            let mut columns = shape.columns.clone();
            let mut values = row.clone();
            if keyless {
                columns.push("rowid".into());
                values.push(key[1].clone());
            }
            let marks: Vec<String> = values.iter().map(literal).collect();
            let sql =
                format!("INSERT OR ABORT INTO {table}({}) VALUES ({})", columns.join(", "), marks.join(", "));
            let bound: Vec<rusqlite::types::Value> = values.iter().filter_map(bound).collect();
            if let Err(error) = empty.execute(&sql, rusqlite::params_from_iter(bound)) {
                return Err(error.to_string());
            }
        }
    }
    Ok(read(&empty))
}

/// Text goes in as a blob that is cast, since it may be no valid text: exact enough to judge by in UTF-8.
fn literal(cell: &Cell) -> String {
    match cell {
        Cell::Text(text) => {
            format!("CAST(x'{}' AS TEXT)", text.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
        }
        _ => "?".into(),
    }
}

fn bound(cell: &Cell) -> Option<rusqlite::types::Value> {
    Some(match cell {
        Cell::Null => rusqlite::types::Value::Null,
        Cell::Integer(value) => (*value).into(),
        Cell::Real(bits) => f64::from_bits(*bits).into(),
        Cell::Blob(blob) => blob.clone().into(),
        Cell::Text(_) => return None,
    })
}
