//! What becomes of each table in a script, and the statements for it.
//!
//! A table whose definition changed is not altered but made anew: its rows go into a temporary table of the
//! new one's columns without any constraint, the changes of rows are made there, and when all are made the
//! old table is dropped, the new one made by its own SQL and filled. So neither a NOT NULL column without a
//! default nor a CHECK that only the new rows pass stands in the way.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use super::super::diff::{LeftOut, affinity, is_replaced};
use super::super::error::Error;
use super::super::schema::{Object, ObjectKind, Schema, Table, is_internal};
use super::super::sql_text::{end_of, is_literal, is_one_statement, quoted};

/// What becomes of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It stays: rows are changed where they are.
    Stays,
    /// It is dropped: what was in it goes by itself.
    Dropped,
    /// It is made: rows are inserted.
    Made,
    /// Another table takes its name.
    Replaced,
    /// It is made anew, by way of a temporary table; whether the rows of the old one go there first.
    Anew {
        /// Whether they do.
        copied: bool,
    },
    /// A script cannot say it.
    Unsaid(&'static str),
}

/// What becomes of each table.
pub(super) fn fates(old: &Schema, new: &Schema) -> BTreeMap<String, Fate> {
    let names: BTreeSet<&String> = old.tables.keys().chain(new.tables.keys()).collect();
    let mut fates = BTreeMap::new();
    for name in names {
        fates.insert(name.clone(), fate(old.table(name).map(|t| &**t), new.table(name).map(|t| &**t)));
    }
    for name in fates.keys().cloned().collect::<Vec<_>>() {
        let owner = |schema: &Schema| schema.table(&name).and_then(|table| table.shadow_of.clone());
        let (before, after) = (owner(old), owner(new));
        let owner_fate = |owner: Option<&str>| owner.and_then(|owner| fates.get(owner)).copied();
        let shadow = match (owner_fate(before.as_deref()), owner_fate(after.as_deref())) {
            (None, None) => continue,
            (Some(Fate::Unsaid(why)), _) | (_, Some(Fate::Unsaid(why))) => Fate::Unsaid(why),
            // They come and go with their virtual table.
            (Some(Fate::Dropped | Fate::Replaced), None) => Fate::Dropped,
            (None, Some(Fate::Made | Fate::Replaced)) => Fate::Made,
            _ if fates.get(&name) == Some(&Fate::Stays) => continue,
            _ => Fate::Unsaid("a shadow table changed without its virtual table"),
        };
        fates.insert(name, shadow);
    }
    fates
}

fn fate(old: Option<&Table>, new: Option<&Table>) -> Fate {
    match (old, new) {
        (Some(old), Some(new)) if old.sql == new.sql => Fate::Stays,
        (Some(old), Some(new)) => match (old.is_virtual(), new.is_virtual()) {
            (true, true) => Fate::Unsaid("a virtual table has another definition"),
            (false, false) => Fate::Anew { copied: !is_replaced(old, new) },
            _ => Fate::Replaced,
        },
        (_, None) => Fate::Dropped,
        (None, _) => Fate::Made,
    }
}

/// Where the rows of a table are changed: `main`, or the temporary table.
pub(super) fn place(fate: Fate, table: &str) -> String {
    let schema = if matches!(fate, Fate::Anew { .. }) { "temp" } else { "main" };
    format!("{schema}.{}", quoted(table))
}

/// The statements of a script before and after its rows.
pub(super) struct Ddl<'a> {
    pub old: &'a Schema,
    pub new: &'a Schema,
    pub fates: BTreeMap<String, Fate>,
    pub left_out: Vec<LeftOut>,
}

impl Ddl<'_> {
    /// What stands before the rows.
    pub fn before(&mut self) -> Result<String, Error> {
        let mut sql = String::new();
        if self.old.counts() {
            sql.push_str("CREATE TABLE temp.\"sqlrsync counters\" AS SELECT * FROM main.sqlite_sequence;\n");
        }
        for trigger in made(self.old, ObjectKind::Trigger) {
            let _ = writeln!(sql, "DROP TRIGGER main.{};", quoted(&trigger.name));
        }
        for kind in [ObjectKind::View, ObjectKind::Index] {
            for object in made(self.old, kind).filter(|object| !self.stays(object)) {
                let word = if kind == ObjectKind::View { "VIEW" } else { "INDEX" };
                let _ = writeln!(sql, "DROP {word} main.{};", quoted(&object.name));
            }
        }
        for table in self.old.tables.values().filter(|table| table.shadow_of.is_none()) {
            match self.fate(&table.name) {
                Fate::Dropped | Fate::Replaced if !table.is_internal() => {
                    let _ = writeln!(sql, "DROP TABLE main.{};", quoted(&table.name));
                }
                Fate::Anew { copied } => self.put_aside(&table.name, copied, &mut sql),
                _ => {}
            }
        }
        for object in made(self.new, ObjectKind::Table) {
            let Some(table) = self.new.table(&object.name) else { continue };
            let fate = self.fate(&object.name);
            if let Fate::Unsaid(why) = fate {
                self.left_out.push(LeftOut { table: object.name.clone(), why });
            } else if matches!(fate, Fate::Made | Fate::Replaced) && table.shadow_of.is_none() {
                sql.push_str(&statement(object)?);
            } else if fate == Fate::Made {
                // Its virtual table has put the rows of an empty one there.
                let _ = writeln!(sql, "DELETE FROM main.{};", quoted(&table.name));
            }
        }
        Ok(sql)
    }

    /// What stands after the rows.
    pub fn after(&self) -> Result<String, Error> {
        let mut sql = String::new();
        for object in made(self.new, ObjectKind::Table) {
            if matches!(self.fate(&object.name), Fate::Anew { .. }) {
                self.make_anew(object, &mut sql)?;
            }
        }
        for kind in [ObjectKind::Index, ObjectKind::View, ObjectKind::Trigger] {
            for object in made(self.new, kind) {
                let stands = kind != ObjectKind::Trigger
                    && made(self.old, kind).any(|old| is_same(old, object) && self.stays(old));
                if !stands {
                    sql.push_str(&statement(object)?);
                }
            }
        }
        self.counters(&mut sql);
        for (pragma, before, after) in [
            ("application_id", self.old.application_id, self.new.application_id),
            ("user_version", self.old.user_version, self.new.user_version),
        ] {
            if before != after {
                let _ = writeln!(sql, "PRAGMA main.{pragma} = {after};");
            }
        }
        Ok(sql)
    }

    /// Puts back what AUTOINCREMENT had counted up to: inserts have counted on, and a table that was dropped
    /// has lost its counter. Those that differ come after this.
    fn counters(&self, sql: &mut String) {
        if self.old.counts() || self.new.tables.values().any(|table| table.autoincrement) {
            sql.push_str("DELETE FROM main.sqlite_sequence;\n");
        }
        if self.old.counts() {
            sql.push_str(
                "INSERT INTO main.sqlite_sequence SELECT * FROM temp.\"sqlrsync counters\";\n\
                 DROP TABLE temp.\"sqlrsync counters\";\n",
            );
        }
    }

    pub fn fate(&self, table: &str) -> Fate {
        self.fates.get(table).copied().unwrap_or(Fate::Stays)
    }

    /// Whether a view or an index is the same in both, and its table stays where it is.
    fn stays(&self, object: &Object) -> bool {
        let table_stays = object.kind == ObjectKind::View || self.fate(&object.table) == Fate::Stays;
        table_stays && made(self.new, object.kind).any(|new| is_same(object, new))
    }

    /// Makes the temporary table, with the rows of the old one.
    fn put_aside(&self, name: &str, copied: bool, sql: &mut String) {
        let (Some(old), Some(new)) = (self.old.table(name), self.new.table(name)) else { return };
        let aside = place(Fate::Anew { copied }, name);
        let column = |(index, column): (usize, &super::super::schema::Column)| {
            let mut sql = quoted(&column.name);
            if new.rowid_column == Some(index) {
                sql.push_str(" INTEGER PRIMARY KEY");
            } else if let Some(default) = column.default.as_ref().filter(|default| is_literal(default)) {
                let _ = write!(sql, " {} DEFAULT {default}", affinity(&column.declared, new.strict));
            }
            sql
        };
        let columns: Vec<String> = new.columns.iter().enumerate().map(column).collect();
        let _ = writeln!(sql, "CREATE TABLE {aside}({});", columns.join(", "));
        if copied {
            let common = new.columns.iter().filter(|column| old.column(&column.name).is_some());
            let common: Vec<String> = common.map(|column| quoted(&column.name)).collect();
            let (mut into, mut from) = (common.clone(), common);
            if let (Some(old), Some(new), None) = (&old.rowid, &new.rowid, new.rowid_column) {
                into.push(new.clone());
                from.push(old.clone());
            }
            let _ = writeln!(
                sql,
                "INSERT INTO {aside}({}) SELECT {} FROM main.{};",
                into.join(", "),
                from.join(", "),
                quoted(name)
            );
        }
        if !new.key_parts.is_empty() && new.rowid_column.is_none() {
            let part = |part: &super::super::schema::KeyPart| {
                format!("{} COLLATE {}", quoted(&new.columns[part.column].name), quoted(&part.collation))
            };
            let parts: Vec<String> = new.key_parts.iter().map(part).collect();
            let index = quoted(&format!("sqlrsync key of {name}"));
            let _ = writeln!(sql, "CREATE INDEX temp.{index} ON {}({});", quoted(name), parts.join(", "));
        }
    }

    /// Drops the old table and makes the new one, with the rows of the temporary one.
    fn make_anew(&self, object: &Object, sql: &mut String) -> Result<(), Error> {
        let Some(new) = self.new.table(&object.name) else { return Ok(()) };
        let (table, aside) = (quoted(&new.name), place(self.fate(&new.name), &new.name));
        let _ = writeln!(sql, "DROP TABLE main.{table};");
        sql.push_str(&statement(object)?);
        let mut columns: Vec<String> = new.columns.iter().map(|column| quoted(&column.name)).collect();
        if let (Some(rowid), None) = (&new.rowid, new.rowid_column) {
            columns.push(rowid.clone());
        }
        let columns = columns.join(", ");
        let _ = writeln!(sql, "INSERT INTO main.{table}({columns}) SELECT {columns} FROM {aside};");
        let _ = writeln!(sql, "DROP TABLE {aside};");
        Ok(())
    }
}

/// Whether two of one kind are alike to a script, wherever in its file each has its root page.
fn is_same(one: &Object, other: &Object) -> bool {
    one.name == other.name && one.sql == other.sql && one.table == other.table
}

/// What was made by a statement, of one kind, in the order of the schema.
fn made(schema: &Schema, kind: ObjectKind) -> impl Iterator<Item = &Object> {
    schema
        .objects
        .iter()
        .filter(move |object| object.kind == kind && object.sql.is_some() && !is_internal(&object.name))
}

/// The statement that makes something, ready for a script.
fn statement(object: &Object) -> Result<String, Error> {
    let sql = object.sql.as_deref().unwrap_or_default();
    if !is_one_statement(sql, object.kind == ObjectKind::Trigger) {
        return Err(Error::Export(format!(
            "the SQL that the schema has of the {} {} is more than one statement, or not a whole one: \
             a script with it could do something else. Nobody makes such a database by accident",
            object.kind.as_str(),
            object.name.escape_debug()
        )));
    }
    Ok(format!("{sql}{}", end_of(sql)))
}
