//! A SQL script that turns the old database into the new one.
//!
//! It is one transaction, with foreign keys off: their actions would delete and change rows a second time.
//! Triggers are dropped first and made last, so that none fires. Within a table, deletes come before
//! inserts, and a row of a table with further UNIQUE indexes is updated by taking it out and putting it
//! back, so that values can be swapped. Rows in which the key is not the rowid may get other rowids than the
//! new database has; what is compared is the same.
//!
//! The schema of a hostile file is part of the script: whoever runs it runs its defaults and checks, as
//! whoever opens that file would. Each of its statements is one and no more (`ddl.rs`).

use std::io::{Seek, SeekFrom, Write};

use tempfile::SpooledTempFile;

use super::super::diff::LeftOut;
use super::super::error::Error;
use super::super::key::{Key, Row, RowChange};
use super::super::schema::{Change, Schema, Table};
use super::super::sql_text::quoted;
use super::super::value::Value;
use super::ddl::{Ddl, Fate, fates, place};
use super::literal::Literals;

/// What is kept in memory of the inserts of a table before a file takes them.
const IN_MEMORY: usize = 1 << 20;

/// Writes changes as a SQL script.
pub struct SqlScript<'a, W: Write> {
    into: W,
    ddl: Ddl<'a>,
    literals: Literals,
    /// The table whose changes come in.
    current: Option<String>,
    /// Its inserts, which stand after its deletes: those that name a rowid first.
    inserts: [SpooledTempFile; 2],
    /// The counters of AUTOINCREMENT, by table: set last, because inserts count.
    counters: SpooledTempFile,
}

impl<'a, W: Write> SqlScript<'a, W> {
    /// Begins a script, written into something that is best buffered. The schemas are those of the two
    /// databases compared.
    ///
    /// # Errors
    /// [`Error::Export`] for a schema whose SQL is none; [`Error::Write`].
    pub fn new(mut into: W, old: &'a Schema, new: &'a Schema) -> Result<SqlScript<'a, W>, Error> {
        let mut ddl = Ddl { old, new, fates: fates(old, new), left_out: Vec::new() };
        into.write_all(
            b"-- Made by sqlrsync. With sqlite3: sqlite3 -bail FILE < SCRIPT\n\
              PRAGMA foreign_keys = OFF;\nBEGIN IMMEDIATE;\n",
        )?;
        into.write_all(ddl.before()?.as_bytes())?;
        Ok(SqlScript {
            into,
            ddl,
            literals: Literals::new(new.encoding, old.encoding)?,
            current: None,
            inserts: [SpooledTempFile::new(IN_MEMORY), SpooledTempFile::new(IN_MEMORY)],
            counters: SpooledTempFile::new(IN_MEMORY),
        })
    }

    /// Writes one change. What happens to the schema was known before.
    ///
    /// # Errors
    /// [`Error::Write`] where it cannot be written.
    pub fn change(&mut self, change: &Change) -> Result<(), Error> {
        let Change::Row(change) = change else { return Ok(()) };
        let name = &change.table.name;
        if self.current.as_ref() != Some(name) {
            self.end_table()?;
            self.current = Some(name.clone());
        }
        if name.eq_ignore_ascii_case("sqlite_sequence") {
            return self.counter(change);
        }
        let fate = self.ddl.fate(name);
        match fate {
            Fate::Unsaid(why) => {
                let left = LeftOut { table: name.clone(), why };
                if !self.ddl.left_out.contains(&left) {
                    self.ddl.left_out.push(left);
                }
                Ok(())
            }
            Fate::Dropped => Ok(()),
            Fate::Made | Fate::Replaced | Fate::Anew { copied: false } if change.after.is_none() => Ok(()),
            _ => self.row(change, fate),
        }
    }

    /// Ends the script: what was written into, and what a script could not say.
    ///
    /// # Errors
    /// As [`SqlScript::new`].
    pub fn finish(mut self) -> Result<(W, Vec<LeftOut>), Error> {
        self.end_table()?;
        self.into.write_all(self.ddl.after()?.as_bytes())?;
        move_to(&mut self.counters, &mut self.into)?;
        self.into.write_all(b"COMMIT;\n")?;
        Ok((self.into, self.ddl.left_out))
    }

    fn row(&mut self, change: &RowChange, fate: Fate) -> Result<(), Error> {
        let (table, place) = (&change.table, place(fate, &change.table.name));
        match (&change.before, &change.after) {
            (Some(_), None) => {
                write!(self.into, "DELETE FROM {place}")?;
                self.where_key(table, &change.key)
            }
            (None, Some(row)) => self.insert(&place, table, &change.key, row),
            (Some(_), Some(row)) if fate == Fate::Stays && table.other_unique => {
                write!(self.into, "DELETE FROM {place}")?;
                self.where_key(table, &change.key)?;
                self.insert(&place, table, &change.key, row)
            }
            (Some(before), Some(after)) => self.update(&place, change, before, after),
            (None, None) => Ok(()),
        }
    }

    fn update(&mut self, place: &str, change: &RowChange, before: &Row, after: &Row) -> Result<(), Error> {
        let same_columns = change.table.columns == change.table_before.columns;
        let declared = matches!(change.key, Key::Declared(_));
        write!(self.into, "UPDATE {place} SET ")?;
        let mut first = true;
        for (index, (column, value)) in change.table.columns.iter().zip(&after.values).enumerate() {
            let in_key = declared && change.table.key.contains(&index);
            if in_key || (same_columns && before.values.get(index) == Some(value)) {
                continue;
            }
            write!(self.into, "{}{} = ", if first { "" } else { ", " }, quoted(&column.name))?;
            self.literals.put(value, &mut self.into)?;
            first = false;
        }
        self.where_key(&change.table, &change.key)
    }

    fn insert(&mut self, place: &str, table: &Table, key: &Key, row: &Row) -> Result<(), Error> {
        let mut columns: Vec<String> = table.columns.iter().map(|column| quoted(&column.name)).collect();
        // Where the old table had no rowids, its rows have been given some that may be the same.
        let had_none = self.ddl.old.table(&table.name).is_some_and(|old| old.rowid.is_none());
        let rowid = match (key, &table.rowid) {
            (Key::Rowid(rowid), Some(name)) if !had_none => {
                columns.push(name.clone());
                Some(Value::Integer(*rowid))
            }
            _ => None,
        };
        let into = &mut self.inserts[usize::from(rowid.is_none())];
        write!(into, "INSERT INTO {place}({}) VALUES(", columns.join(", "))?;
        for (index, value) in row.values.iter().chain(&rowid).enumerate() {
            if index > 0 {
                into.write_all(b", ")?;
            }
            self.literals.put(value, into)?;
        }
        Ok(into.write_all(b");\n")?)
    }

    fn where_key(&mut self, table: &Table, key: &Key) -> Result<(), Error> {
        match key {
            Key::Rowid(rowid) => {
                let name = table.rowid.as_deref().unwrap_or("rowid");
                write!(self.into, " WHERE {name} = {rowid}")?;
            }
            Key::Declared(values) => {
                for (index, part) in table.key_parts.iter().enumerate() {
                    let at = table.key.iter().position(|&column| column == part.column);
                    let Some(value) = at.and_then(|at| values.get(at)) else { continue };
                    let word = if index == 0 { "WHERE" } else { "AND" };
                    // The plus takes the affinity TEXT off a cast: it would make a text of a stored number.
                    write!(self.into, " {word} {} = +", quoted(&table.columns[part.column].name))?;
                    self.literals.put(value, &mut self.into)?;
                    write!(self.into, " COLLATE {}", quoted(&part.collation))?;
                }
            }
        }
        Ok(self.into.write_all(b";\n")?)
    }

    /// A counter is set as a whole, whatever the inserts before it made of it.
    fn counter(&mut self, change: &RowChange) -> Result<(), Error> {
        if !self.ddl.old.counts() && !self.ddl.new.tables.values().any(|table| table.autoincrement) {
            let why = "the table that SQLite counts in cannot be made by a script";
            self.ddl.left_out.push(LeftOut { table: change.table.name.clone(), why });
            return Ok(());
        }
        let row = change.after.as_ref().or(change.before.as_ref());
        let Some(name) = row.and_then(|row| row.values.first()) else { return Ok(()) };
        let mut sql = Vec::new();
        sql.extend_from_slice(b"DELETE FROM main.sqlite_sequence WHERE name IS ");
        self.literals.put(name, &mut sql)?;
        sql.extend_from_slice(b";\n");
        if let Some(after) = &change.after {
            sql.extend_from_slice(b"INSERT INTO main.sqlite_sequence VALUES(");
            self.literals.put(name, &mut sql)?;
            sql.extend_from_slice(b", ");
            self.literals.put(after.values.get(1).unwrap_or(&Value::Null), &mut sql)?;
            sql.extend_from_slice(b");\n");
        }
        Ok(self.counters.write_all(&sql)?)
    }

    /// Writes the inserts of a table after its deletes.
    fn end_table(&mut self) -> Result<(), Error> {
        for inserts in &mut self.inserts {
            move_to(inserts, &mut self.into)?;
        }
        Ok(())
    }
}

/// Writes what a file holds, and empties it.
fn move_to(file: &mut SpooledTempFile, into: &mut dyn Write) -> Result<(), Error> {
    file.seek(SeekFrom::Start(0))?;
    std::io::copy(file, into)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(file.set_len(0)?)
}
