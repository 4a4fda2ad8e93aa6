//! Virtual tables. One and its shadow tables are one thing: changed on one side, the shadow tables' rows of
//! that side are taken as they are. Changed on both, a full-text index is made again from its content, its
//! own or that of another table, which has been merged by then; anything else is in conflict. So is an index
//! over a view: views do not run in a merge. An index that one side alone changed is made again as well where
//! its content is in the end not that side's. What triggers wrote for rows that cannot be in the result is not taken:
//! see [`written_for_lost_rows`].

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Bound;
use std::sync::Arc;

use rusqlite::Connection;

use crate::rows::{ObjectKind, Schema, Table, TableKind, names_in, quoted};

use super::changes::{Changes, definition};
use super::decide::taking;
use super::foreign_keys::lower;
use super::store::{BY_MINE, BY_THEIRS, Store};
use super::{Context, Error, Reason, Schemas, Side};

/// Which tables belong to a virtual table, by name.
pub(super) struct Shadows {
    owners: HashMap<String, Arc<str>>,
}

impl Shadows {
    /// From the three schemas. Of a module that does not come with SQLite nobody knows the shadow tables:
    /// whatever has a name that begins with the virtual table's is taken for one.
    pub fn read(schemas: &Schemas) -> Shadows {
        let mut owners = HashMap::new();
        for schema in [&schemas.base, &schemas.theirs, &schemas.mine] {
            let unknown: BTreeMap<Vec<u8>, Arc<str>> = schema
                .tables
                .values()
                .filter(|table| module(table).is_some_and(|module| !is_known(module)))
                .map(|table| (format!("{}_", lower(&table.name)).into_bytes(), table.name.as_str().into()))
                .collect();
            for table in schema.tables.values().filter(|table| !table.is_virtual()) {
                let owner = || longest_prefix(&unknown, lower(&table.name).as_bytes()).cloned();
                let owner = table.shadow_of.clone().or_else(owner);
                owners.extend(owner.map(|owner| (table.name.clone(), owner)));
            }
        }
        Shadows { owners }
    }

    /// The virtual table that a table belongs to.
    pub fn owner(&self, table: &str) -> Option<&Arc<str>> {
        self.owners.get(table)
    }
}

/// What stands in a map under the longest key that a name begins with. There may be as many keys as names.
fn longest_prefix<'m, T>(map: &'m BTreeMap<Vec<u8>, T>, name: &[u8]) -> Option<&'m T> {
    let mut name = name;
    while !name.is_empty() {
        let up_to = (Bound::Unbounded, Bound::Included(name));
        let (key, value) = map.range::<[u8], _>(up_to).next_back()?;
        let common = key.iter().zip(name).take_while(|(one, other)| one == other).count();
        if common == key.len() {
            return Some(value);
        }
        // Whatever the name begins with comes before this key, and so has no more in common with it.
        name = &name[..common];
    }
    None
}

fn module(table: &Table) -> Option<&str> {
    match &table.kind {
        TableKind::Virtual { module } => Some(module),
        _ => None,
    }
}

fn is_known(module: &str) -> bool {
    is_full_text(module)
        || matches!(module, "rtree" | "rtree_i32" | "geopoly" | "fts5vocab" | "dbstat" | "fts4aux")
}

fn is_full_text(module: &str) -> bool {
    matches!(module, "fts3" | "fts4" | "fts5")
}

/// Where a full-text index has what it indexes.
#[derive(Debug, PartialEq, Eq)]
enum Content {
    Own,
    Of(String),
    Nowhere,
}

/// What is to be done with the virtual tables that a side changed.
#[derive(Default)]
pub(super) struct Units {
    /// To be made again when all rows are written.
    pub rebuild: Vec<String>,
    /// Those that one side alone changed, and that are right as long as their content is that side's.
    pub alone: Vec<Alone>,
    /// Those that cannot be.
    pub reasons: Vec<Reason>,
}

/// A full-text index that one side alone changed.
pub(super) struct Alone {
    table: String,
    by: Side,
    /// The table that it indexes.
    content: String,
}

/// Decides for each virtual table that a side changed.
pub(super) fn units(context: &Context<'_>, store: &mut Store, changes: &Changes) -> Result<Units, Error> {
    let mut units = Units::default();
    let lost = written_for_lost_rows(context, changes);
    for (owner, tables) in tables_of_units(context, store) {
        let changed = |side: Side| changes.of(side).tables.contains(&*owner);
        let Some(table) = context.schemas.of(context.on).table(&owner) else { continue };
        let by = match (changed(Side::Theirs), changed(Side::Mine)) {
            (true, true) if is_alike(store, &tables)? => continue,
            (true, true) => None,
            (true, false) => Some(Side::Theirs),
            (false, true) => Some(Side::Mine),
            (false, false) => continue,
        };
        if changed(context.on.other()) && lost.contains(&lower(&owner)) {
            take(store, &tables, context.on, |_| true)?;
            // Documents of an index can be chosen all the same.
            let mut chosen = context.resolve.rows.keys().map(|(table, _)| context.shadows.owner(table));
            if content_of(table) == Some(Content::Own) && chosen.any(|chosen| chosen == Some(&owner)) {
                units.rebuild.push(table.name.clone());
            }
            continue;
        }
        if let Some(by) = by {
            changed_alone(context, changes, table, by, &mut units);
            continue;
        }
        let schema = context.schemas.of(context.on);
        match content_of(table).filter(|content| content_table(schema, table, content).is_some()) {
            None => match context.resolve.default {
                Some(choice) => take(store, &tables, choice, |_| true)?,
                None => units.reasons.push(in_conflict(context, store, table, &tables)?),
            },
            Some(_) => {
                // The index is not merged: whatever it is, it is made again. What it indexes is.
                let kept = [format!("{owner}_content"), format!("{owner}_config")];
                take(store, &tables, context.on, |name| {
                    !kept.iter().any(|kept| kept.eq_ignore_ascii_case(name))
                })?;
                units.rebuild.push(table.name.clone());
            }
        }
    }
    Ok(units)
}

/// Virtual tables, by their names in lower case, in which the side that is applied put what belongs to rows that
/// cannot be in the result: its triggers write them, and of the tables of these triggers it changed rows only of such
/// that the other side, whose schema somebody keeps, has with another definition or not at all. The kept side's are in
/// step with its rows. A full-text index over another table's content is made again from what that has.
fn written_for_lost_rows(context: &Context<'_>, changes: &Changes) -> HashSet<String> {
    let by = context.on.other();
    let (schema, changed) = (context.schemas.of(by), &changes.of(by).tables);
    let is_lost = |table: &str| definition(context, table).is_none();
    let (mut lost, mut kept) = (HashSet::new(), HashSet::new());
    if !changed.iter().any(|table| is_lost(table)) {
        return lost;
    }
    let of_others = |table: &Table| {
        content_of(table).is_some_and(|content| {
            matches!(content, Content::Of(_)) && content_table(schema, table, &content).is_some()
        })
    };
    let tables = schema.tables.values().filter(|table| table.is_virtual() && !of_others(table));
    let tables: HashSet<String> = tables.map(|table| lower(&table.name)).collect();
    let triggers = schema.objects.iter().filter(|object| object.kind == ObjectKind::Trigger);
    for trigger in triggers.filter(|trigger| changed.contains(&trigger.table)) {
        let names = names_in(trigger.sql.as_deref().unwrap_or_default()).map(|name| lower(&name));
        let into = if is_lost(&trigger.table) { &mut lost } else { &mut kept };
        into.extend(names.filter(|name| tables.contains(name)));
    }
    lost.retain(|name| !kept.contains(name));
    lost
}

/// Notes an index that one side alone changed. Where rows that this side gave the content cannot be in the
/// result, as the other side has another definition of its table, the index is made again.
fn changed_alone(context: &Context<'_>, changes: &Changes, table: &Table, by: Side, units: &mut Units) {
    let schema = context.schemas.of(context.on);
    let Some(content) = content_of(table).and_then(|content| content_table(schema, table, &content)) else {
        return;
    };
    let kept = by == context.on || definition(context, content).is_some();
    if !kept && changes.of(by).tables.contains(content) {
        units.rebuild.push(table.name.clone());
    } else {
        units.alone.push(Alone { table: table.name.clone(), by, content: content.to_owned() });
    }
}

/// Of the indexes that one side alone changed those whose content is not all as that side has it, since somebody
/// chose otherwise: they say what is not there.
pub(super) fn out_of_step(store: &Store, alone: &[Alone]) -> Result<Vec<String>, Error> {
    let mut tables = Vec::new();
    for index in alone {
        let Some(number) = store.number_of(&index.content) else { continue };
        let by = if index.by == Side::Theirs { BY_THEIRS } else { BY_MINE };
        let sql = "SELECT EXISTS(SELECT 1 FROM row WHERE tbl = ?1 AND sides & ?2 AND decision IS NOT ?3
            AND NOT (sides = 3 AND theirs_hash IS mine_hash))";
        if store.count(sql, [number, by, taking(index.by)])? != 0 {
            tables.push(index.table.clone());
        }
    }
    Ok(tables)
}

/// Whether somebody can choose rows of a table: of a virtual table's shadow tables only those from which the
/// rest is made again. Any other row of them says nothing by itself.
pub(super) fn rows_can_be_chosen(context: &Context<'_>, table: &str) -> bool {
    let Some(owner) = context.shadows.owner(table) else { return true };
    let of_its_own = [format!("{owner}_content"), format!("{owner}_config")];
    let owner = context.schemas.of(context.on).table(owner);
    owner.and_then(|owner| content_of(owner)) == Some(Content::Own)
        && of_its_own.iter().any(|name| name.eq_ignore_ascii_case(table))
}

/// Why both sides' changes of a virtual table do not merge. Rows of its shadow tables tell nobody anything:
/// they are in no conflict of their own.
fn in_conflict(
    context: &Context<'_>,
    store: &Store,
    table: &Table,
    shadows: &[(i64, String)],
) -> Result<Reason, Error> {
    take(store, shadows, context.on, |_| true)?;
    let module = module(table).unwrap_or_default().to_owned();
    Ok(Reason::VirtualTable { table: table.name.clone(), module })
}

/// Gives up making an index again that cannot be, because its content lacks a column, say: it is taken as
/// somebody chose for all, or why it is in conflict.
pub(super) fn give_up(context: &Context<'_>, store: &Store, table: &str) -> Result<Option<Reason>, Error> {
    let Some(table) = context.schemas.of(context.on).table(table) else { return Ok(None) };
    let shadows = tables_of_units(context, store).remove(table.name.as_str()).unwrap_or_default();
    match context.resolve.default {
        Some(choice) => take(store, &shadows, choice, |_| true).map(|()| None),
        None => in_conflict(context, store, table, &shadows).map(Some),
    }
}

/// The table that has the content of a full-text index, to make it again from. A view is none: views do not run
/// here.
fn content_table<'s>(schema: &'s Schema, index: &Table, content: &Content) -> Option<&'s str> {
    let name = match content {
        Content::Own => &format!("{}_content", index.name),
        Content::Of(name) => name,
        Content::Nowhere => return None,
    };
    let mut tables = schema.tables.values().filter(|table| !table.is_virtual());
    tables.find(|table| table.name.eq_ignore_ascii_case(name)).map(|table| &*table.name)
}

/// The virtual tables of which rows are in the store, each with the numbers and names of its shadow tables.
fn tables_of_units(context: &Context<'_>, store: &Store) -> BTreeMap<Arc<str>, Vec<(i64, String)>> {
    let mut tables: BTreeMap<Arc<str>, Vec<(i64, String)>> = BTreeMap::new();
    for (number, table) in store.tables() {
        if let Some(owner) = context.shadows.owner(&table.name) {
            tables.entry(owner.clone()).or_default().push((number, table.name.clone()));
        }
    }
    tables
}

/// Whether both sides did the same to the shadow tables.
fn is_alike(store: &Store, tables: &[(i64, String)]) -> Result<bool, Error> {
    for (number, _) in tables {
        let sql = "SELECT EXISTS(SELECT 1 FROM row WHERE tbl = ?1 AND theirs_hash IS NOT mine_hash)";
        if store.count(sql, [number])? != 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

fn take(
    store: &Store,
    tables: &[(i64, String)],
    side: Side,
    which: impl Fn(&str) -> bool,
) -> Result<(), Error> {
    for (number, _) in tables.iter().filter(|(_, name)| which(name)) {
        store.run("UPDATE row SET decision = ?2 WHERE tbl = ?1", [*number, taking(side)])?;
    }
    Ok(())
}

/// Where a full-text index has what it indexes; `None` for any other virtual table.
fn content_of(table: &Table) -> Option<Content> {
    is_full_text(module(table)?).then(|| content_in(&table.sql))
}

fn content_in(sql: &str) -> Content {
    let mut content = Content::Own;
    for argument in arguments(sql) {
        let Some((name, value)) = argument.split_once('=') else { continue };
        if name.trim().eq_ignore_ascii_case("content") {
            let value = unquoted(value.trim());
            content = if value.is_empty() { Content::Nowhere } else { Content::Of(value) };
        }
    }
    content
}

/// The arguments of a virtual table's module: what stands between its parentheses, by commas that are in no
/// quotes and no other parentheses.
fn arguments(sql: &str) -> Vec<String> {
    let mut arguments = vec![String::new()];
    let (mut depth, mut quote) = (0_usize, None);
    for character in sql.chars() {
        match (quote, character) {
            (Some(closing), _) if closing == character => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"' | '`') => quote = Some(character),
            (None, '[') => quote = Some(']'),
            (None, '(') => {
                depth += 1;
                if depth == 1 {
                    // What was before the module's own parenthesis is no argument.
                    arguments = vec![String::new()];
                    continue;
                }
            }
            (None, ')') => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    break;
                }
            }
            (None, ',') if depth == 1 => {
                arguments.push(String::new());
                continue;
            }
            (None, _) => {}
        }
        if let Some(argument) = arguments.last_mut() {
            argument.push(character);
        }
    }
    arguments
}

fn unquoted(value: &str) -> String {
    let inside = |open: char, close: char| value.strip_prefix(open)?.strip_suffix(close);
    for (open, close) in [('\'', '\''), ('"', '"'), ('`', '`'), ('[', ']')] {
        if let Some(inside) = inside(open, close) {
            return inside.replace(&format!("{close}{close}"), &close.to_string());
        }
    }
    value.to_owned()
}

/// The full-text indexes whose content is one of some tables.
pub(super) fn indexes_of<'s>(
    schema: &'s Schema,
    tables: &'s std::collections::BTreeSet<String>,
) -> impl Iterator<Item = String> + 's {
    schema.tables.values().filter_map(move |table| match content_of(table)? {
        Content::Of(content) if tables.iter().any(|name| name.eq_ignore_ascii_case(&content)) => {
            Some(table.name.clone())
        }
        _ => None,
    })
}

/// Makes a full-text index again from its content.
pub(super) fn rebuild(connection: &Connection, table: &str) -> Result<(), Error> {
    let name = quoted(table);
    connection.execute(&format!("INSERT INTO main.{name}({name}) VALUES ('rebuild')"), []).map_err(
        |error| match Error::Sqlite(error).unsupported() {
            Ok(why) => Error::Rebuild { table: table.to_owned(), why },
            Err(error) => error,
        },
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_name_that_another_begins_with_is_found() {
        let map: BTreeMap<Vec<u8>, i32> =
            [("a_", 1), ("a_b_", 2), ("a_bé_", 3), ("b_", 4)].map(|(key, value)| (key.into(), value)).into();
        let cases = [
            ("a_x", Some(1)),
            ("a_b_c", Some(2)),
            ("a_c", Some(1)),
            ("a_bè", Some(1)),
            ("c_", None),
            ("a", None),
        ];
        for (name, found) in cases {
            assert_eq!(longest_prefix(&map, name.as_bytes()).copied(), found, "{name}");
        }
    }

    #[test]
    fn the_content_of_a_full_text_index_is_read_from_its_arguments() {
        let of = |name: &str| Content::Of(name.into());
        assert_eq!(content_in("CREATE VIRTUAL TABLE f USING fts5(a, b)"), Content::Own);
        assert_eq!(content_in("CREATE VIRTUAL TABLE f USING fts5(a, content='')"), Content::Nowhere);
        assert_eq!(
            content_in("CREATE VIRTUAL TABLE f USING fts5(a, CONTENT = t, content_rowid=id)"),
            of("t")
        );
        assert_eq!(
            content_in("CREATE VIRTUAL TABLE f USING fts5(a, content=\"a, (b\"\"c\")"),
            of("a, (b\"c")
        );
        assert_eq!(
            content_in("CREATE VIRTUAL TABLE [f(] USING fts5(a, tokenize='x, content=y')"),
            Content::Own
        );
    }
}
