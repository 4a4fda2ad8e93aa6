//! Foreign keys of the result: every row that was written has the parent that it names, and no row that is
//! gone is named by another one.
//!
//! SQLite's own enforcement is off while a merge writes. It would run actions (a cascade deletes rows that
//! the other side may have changed), it counts violations rather than finding them, so that one that was
//! there before can hide a new one, and it would refuse rows that were orphans before, which is what most
//! applications that leave `PRAGMA foreign_keys` off have. Here a row is in conflict where it is an orphan in
//! the result and was one on neither side.

use std::collections::HashMap;

use crate::rows::{Key, Row, Statement, Value, quoted};

use super::apply::{Step, for_each};
use super::constraints::{Failure, Violations};
use super::counterpart::{Counterpart, Counterparts};
use super::foreign_keys::{ForeignKey, Joined, Names, affinity, lower, read};
use super::lookup::{Statements, by_key, key_columns, key_from, name_of};
use super::store::Store;
use super::{ConstraintKind, Context, Error, Side};

/// So many parents are looked for by themselves; where more are gone, all children are read once instead.
const PARENTS_BY_THEMSELVES: usize = 64;

/// Checks what the steps in the store wrote.
pub(super) fn check(context: &Context<'_>, store: &Store) -> Result<Violations, Error> {
    let on = context.sides.of(context.on);
    let mut checker = Checker::new(context, store, read(on, context.schemas.of(context.on))?)?;
    if checker.links.is_empty() {
        return Ok(Violations::default());
    }
    for_each(context, store, "1", |step| checker.step(&step))?;
    checker.scan()?;
    Ok(checker.violations)
}

/// A foreign key in the three schemas.
struct Link {
    key: ForeignKey,
    /// The parent in the base, in theirs, in mine.
    joined: [Option<Joined>; 3],
    /// The condition for an orphan on the side that is written.
    orphan: Option<String>,
    /// How many parents are gone.
    gone: usize,
}

impl Link {
    fn new(on: Side, names: &[Names; 3], key: ForeignKey) -> Link {
        let names_there = &names[1 + on as usize];
        let there = names_there.joined(&key);
        let joined = match &there {
            Some(there) => [0, 1, 2].map(|schema| names[schema].joined_like(there)),
            None => [None, None, None],
        };
        Link { joined, orphan: names_there.orphan(&key), key, gone: 0 }
    }

    fn joined(&self, side: Option<Side>) -> Option<&Joined> {
        match side {
            None => self.joined[0].as_ref(),
            Some(Side::Theirs) => self.joined[1].as_ref(),
            Some(Side::Mine) => self.joined[2].as_ref(),
        }
    }
}

struct Checker<'c, 'k> {
    context: &'k Context<'c>,
    on: Side,
    store: &'k Store,
    base: Statements<'c>,
    theirs: Statements<'c>,
    mine: Statements<'c>,
    links: Vec<Link>,
    others: Counterparts<'c>,
    /// Positions in `links`, by table.
    of_child: HashMap<String, Vec<usize>>,
    of_parent: HashMap<String, Vec<usize>>,
    violations: Violations,
}

impl<'c, 'k> Checker<'c, 'k> {
    /// With those foreign keys of which a row may have been written.
    fn new(
        context: &'k Context<'c>,
        store: &'k Store,
        keys: Vec<ForeignKey>,
    ) -> Result<Checker<'c, 'k>, Error> {
        let schemas = context.schemas;
        let names = [Names::of(&schemas.base), Names::of(&schemas.theirs), Names::of(&schemas.mine)];
        let written: Vec<String> = store.tables().map(|(_, table)| lower(&table.name)).collect();
        let (mut of_child, mut of_parent) = (HashMap::new(), HashMap::new());
        for table in &written {
            of_child.insert(table.clone(), Vec::new());
            of_parent.insert(table.clone(), Vec::new());
        }
        let mut links = Vec::new();
        for key in keys {
            let mut concerns = false;
            for (map, name) in [(&mut of_child, &key.child.name), (&mut of_parent, &key.parent)] {
                if let Some(numbers) = map.get_mut(&lower(name)) {
                    numbers.push(links.len());
                    concerns = true;
                }
            }
            if concerns {
                context.check_time()?;
                links.push(Link::new(context.on, &names, key));
            }
        }
        let encoding = schemas.base.encoding;
        let other = context.on.other();
        let [_, theirs, mine] = names;
        let names_of_other = if other == Side::Theirs { theirs } else { mine };
        Ok(Checker {
            context,
            others: Counterparts::new(context.sides.of(other), names_of_other),
            on: context.on,
            store,
            base: Statements::new(context.sides.base, encoding),
            theirs: Statements::new(context.sides.theirs, encoding),
            mine: Statements::new(context.sides.mine, encoding),
            links,
            of_child,
            of_parent,
            violations: Violations::default(),
        })
    }

    fn statements(&mut self, side: Side) -> &mut Statements<'c> {
        match side {
            Side::Theirs => &mut self.theirs,
            Side::Mine => &mut self.mine,
        }
    }

    fn step(&mut self, step: &Step) -> Result<(), Error> {
        let name = lower(&step.table.name);
        if step.shall.is_some() {
            for number in self.of_child.get(&name).cloned().unwrap_or_default() {
                self.child_written(number, step)?;
            }
        }
        if let Some(was) = &step.is {
            for number in self.of_parent.get(&name).cloned().unwrap_or_default() {
                self.parent_left(number, step, was)?;
            }
        }
        Ok(())
    }

    fn child_written(&mut self, number: usize, step: &Step) -> Result<(), Error> {
        let (on, link) = (self.on, &self.links[number]);
        let Some(orphan) = &link.orphan else { return Ok(()) };
        let same = |name: &String| step.table.column(name).is_some_and(|column| same(step, column));
        if step.is.is_some() && link.key.columns.iter().all(|(child, _)| same(child)) {
            return Ok(());
        }
        let child = link.key.child.clone();
        let (condition, values) = by_key(&child, &step.key, "c.")?;
        let sql = format!("SELECT 1 FROM {} AS c WHERE {condition} AND {orphan}", name_of(&child));
        if self.statements(on).any(&sql, &child, &values.iter().collect::<Vec<_>>())? {
            self.orphan_found(number, &step.key, true)?;
        }
        Ok(())
    }

    fn parent_left(&mut self, number: usize, step: &Step, was: &Row) -> Result<(), Error> {
        let (on, link) = (self.on, &mut self.links[number]);
        let (Some(joined), Some(orphan)) = (&link.joined[1 + on as usize], &link.orphan) else {
            return Ok(());
        };
        let column = |name: &String| step.table.column(name);
        let same = |name: &String| column(name).is_some_and(|column| same(step, column));
        if step.shall.is_some() && joined.columns.iter().all(|(_, parent)| same(parent)) {
            return Ok(());
        }
        link.gone += 1;
        // A scan finds out by the base which parents the side that is written had.
        if link.gone > PARENTS_BY_THEMSELVES && step.in_base {
            return Ok(());
        }
        let mut conditions = vec![orphan.clone()];
        let mut values = Vec::new();
        let child = &link.key.child;
        for (named, parent) in &joined.columns {
            let (Some(parent), Some(named)) = (column(parent), child.column(named)) else { continue };
            let (parent, value) = (&step.table.columns[parent], &was.values[parent]);
            if value.is_null() {
                return Ok(());
            }
            // Where types differ, values that are equal as the parent's may not be as the child's.
            if affinity(&child.columns[named].declared) == affinity(&parent.declared) {
                values.push(value);
                let (name, collation) = (quoted(&child.columns[named].name), quoted(&parent.collation));
                conditions.push(format!("c.{name} COLLATE {collation} = ?{}", values.len()));
            }
        }
        let this_parents = values.len() == joined.columns.len();
        self.orphans_found(number, &conditions.join(" AND "), &values, this_parents)
    }

    /// Reads all children of the foreign keys of which many parents are gone.
    fn scan(&mut self) -> Result<(), Error> {
        for number in 0..self.links.len() {
            let link = &self.links[number];
            if link.gone > PARENTS_BY_THEMSELVES
                && let Some(orphan) = link.orphan.clone()
            {
                self.orphans_found(number, &orphan, &[], false)?;
            }
        }
        Ok(())
    }

    /// Looks at all orphans that meet a condition, one at a time: any number of them may have been there before.
    fn orphans_found(
        &mut self,
        number: usize,
        condition: &str,
        values: &[&Value],
        this_parents: bool,
    ) -> Result<(), Error> {
        let child = self.links[number].key.child.clone();
        let sql =
            format!("SELECT {} FROM {} AS c WHERE {condition}", key_columns(&child, "c."), name_of(&child));
        let encoding = self.context.schemas.base.encoding;
        let on = self.context.sides.of(self.on);
        let mut orphans = Statement::prepare(on, &sql, format!("the table {}", child.name))?;
        for (index, value) in values.iter().enumerate() {
            orphans.bind(index + 1, value, encoding)?;
        }
        while !self.violations.is_full() && orphans.step()? {
            self.context.check_time()?;
            let row = key_from(&child, orphans.values(0, encoding)?)?;
            self.orphan_found(number, &row, this_parents)?;
        }
        Ok(())
    }

    /// An orphan in the result: one that it was not on either side is a violation. `was_none` says that it is
    /// known to have been none on the side that is written.
    fn orphan_found(&mut self, number: usize, row: &Key, was_none: bool) -> Result<(), Error> {
        if self.violations.is_full() {
            return Ok(());
        }
        let Some(named) = self.named_by(number, row)? else { return Ok(()) };
        if self.was_orphan(number, row, &named)? || !(was_none || self.had_parent(number, &named)?) {
            return Ok(());
        }
        let mut involved = vec![(self.links[number].key.child.name.clone(), row.clone())];
        for side in [None, Some(Side::Theirs), Some(Side::Mine)] {
            let parent = self.parent_in(number, side, &named)?;
            involved.extend(parent.filter(|parent| !involved.contains(parent)));
        }
        let key = &self.links[number].key;
        let names: Vec<&str> = key.columns.iter().map(|(child, _)| child.as_str()).collect();
        let name = format!("{} REFERENCES {}", names.join(", "), key.parent);
        let table = key.child.name.clone();
        self.violations.add(Failure { kind: ConstraintKind::ForeignKey, table, name }, involved);
        Ok(())
    }

    /// What a child in the result names as its parent.
    fn named_by(&mut self, number: usize, row: &Key) -> Result<Option<Vec<Value>>, Error> {
        let (on, key) = (self.on, &self.links[number].key);
        let child = key.child.clone();
        let (condition, values) = by_key(&child, row, "")?;
        let columns: Vec<String> = key.columns.iter().map(|(child, _)| quoted(child)).collect();
        let sql = format!("SELECT {} FROM {} WHERE {condition}", columns.join(", "), name_of(&child));
        self.statements(on).first(&sql, &child, &values.iter().collect::<Vec<_>>())
    }

    /// Whether the child was an orphan already, naming the same parent, on the side that is not written. On
    /// the side that is written it was none: it was not there, named another parent, or had the one that left.
    fn was_orphan(&mut self, number: usize, row: &Key, named: &[Value]) -> Result<bool, Error> {
        let other = match self.on.other() {
            Side::Theirs => &mut self.theirs,
            Side::Mine => &mut self.mine,
        };
        let link = &self.links[number];
        let others = self.others.of(&link.key, link.joined[1 + self.on as usize].as_ref())?;
        for Counterpart { table, columns, orphan } in &others {
            let (condition, values) = by_key(table, row, "c.")?;
            let mut conditions = vec![condition, orphan.clone()];
            for (index, column) in columns.iter().enumerate() {
                conditions.push(format!("c.{} IS ?{}", quoted(column), values.len() + 1 + index));
            }
            let sql = format!("SELECT 1 FROM {} AS c WHERE {}", name_of(table), conditions.join(" AND "));
            let values: Vec<&Value> = values.iter().chain(named).collect();
            if other.any(&sql, table, &values)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether the side that is written had the parent before: as the base has it, and a step took it away.
    fn had_parent(&mut self, number: usize, named: &[Value]) -> Result<bool, Error> {
        let Some((table, key)) = self.parent_in(number, None, named)? else { return Ok(false) };
        let Some(id) = self.store.find(&table, &key)? else { return Ok(false) };
        Ok(self.store.get(id)?.of(self.on).is_some())
    }

    /// The parent that a side, or the base, has for what a child names.
    fn parent_in(
        &mut self,
        number: usize,
        side: Option<Side>,
        named: &[Value],
    ) -> Result<Option<(String, Key)>, Error> {
        let Some(Joined { parent, columns }) = self.links[number].joined(side) else { return Ok(None) };
        let parent = parent.clone();
        let conditions: Vec<String> = columns
            .iter()
            .enumerate()
            .map(|(index, (_, parent))| format!("{} = ?{}", quoted(parent), index + 1))
            .collect();
        let conditions = conditions.join(" AND ");
        let sql = format!("SELECT {} FROM {} WHERE {conditions}", key_columns(&parent, ""), name_of(&parent));
        let statements = match side {
            None => &mut self.base,
            Some(Side::Theirs) => &mut self.theirs,
            Some(Side::Mine) => &mut self.mine,
        };
        let found = statements.first(&sql, &parent, &named.iter().collect::<Vec<_>>())?;
        found.map(|values| Ok((parent.name.clone(), key_from(&parent, values)?))).transpose()
    }
}

/// Whether a step leaves a column as it was.
fn same(step: &Step, column: usize) -> bool {
    match (&step.is, &step.shall) {
        (Some(is), Some(shall)) => is.values.get(column) == shall.values.get(column),
        _ => false,
    }
}
