//! What is no row and no schema: `application_id`, `user_version`, and `sqlite_sequence`, which is a table
//! whose numbers only grow.

use rusqlite::{Connection, OptionalExtension};

use super::{Choice, Context, Error, Reason, Schemas, Side};

/// Tables in `sqlite_sequence`, at most.
const SEQUENCES_MAX: usize = 65_536;

/// The numbers of the header that the result has.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Settings {
    application_id: i32,
    user_version: i32,
}

/// Merges the numbers of the header.
///
/// # Errors
/// Those that both changed, and not to the same.
pub(super) fn merge(schemas: &Schemas, choice: Option<Choice>) -> Result<Settings, Vec<Reason>> {
    let mut clashes = Vec::new();
    let mut three_way = |name, base: i32, theirs: i32, mine: i32| match choice {
        _ if mine == base || mine == theirs => theirs,
        _ if theirs == base => mine,
        Some(Side::Theirs) => theirs,
        Some(Side::Mine) => mine,
        None => {
            let (base, theirs, mine) = (base.into(), theirs.into(), mine.into());
            clashes.push(Reason::Setting { name, base, theirs, mine });
            0
        }
    };
    let Schemas { base, theirs, mine } = schemas;
    let settings = Settings {
        application_id: three_way(
            "application_id",
            base.application_id,
            theirs.application_id,
            mine.application_id,
        ),
        user_version: three_way("user_version", base.user_version, theirs.user_version, mine.user_version),
    };
    if clashes.is_empty() { Ok(settings) } else { Err(clashes) }
}

/// Writes the numbers of the header where they differ.
pub(super) fn write(context: &Context<'_>, settings: &Settings) -> Result<bool, Error> {
    let (on, schema) = (context.sides.of(context.on), context.schemas.of(context.on));
    let mut wrote = false;
    for (name, is, shall) in [
        ("application_id", schema.application_id, settings.application_id),
        ("user_version", schema.user_version, settings.user_version),
    ] {
        if is != shall {
            on.pragma_update(None, name, shall).map_err(Error::Sqlite)?;
            wrote = true;
        }
    }
    Ok(wrote)
}

/// Raises each table's number in `sqlite_sequence` to the larger of both sides.
pub(super) fn raise_sequences(context: &Context<'_>) -> Result<bool, Error> {
    let on = context.sides.of(context.on);
    let mut wrote = false;
    for (table, number) in sequences(context.sides.of(context.on.other()))? {
        let Some(definition) = context.schemas.of(context.on).table(&table) else { continue };
        if !definition.autoincrement {
            continue;
        }
        let held: Option<i64> = on
            .prepare_cached("SELECT max(seq) FROM main.sqlite_sequence WHERE name = ?1")
            .and_then(|mut statement| statement.query_row([&table], |row| row.get(0)).optional())
            .map_err(Error::Sqlite)?
            .flatten();
        let sql = match held {
            Some(held) if held >= number => continue,
            Some(_) => "UPDATE main.sqlite_sequence SET seq = ?2 WHERE name = ?1",
            None => "INSERT INTO main.sqlite_sequence(name, seq) VALUES (?1, ?2)",
        };
        on.execute(sql, (&table, number)).map_err(Error::Sqlite)?;
        wrote = true;
    }
    Ok(wrote)
}

/// The numbers in `sqlite_sequence`, by table. What is no number there counts for nothing, as it does for SQLite.
pub(super) fn sequences(connection: &Connection) -> Result<Vec<(String, i64)>, Error> {
    let exists: bool = connection
        .query_row(
            "SELECT EXISTS(SELECT 1 FROM main.sqlite_schema WHERE type = 'table' AND name = 'sqlite_sequence')",
            [],
            |row| row.get(0),
        )
        .map_err(Error::Sqlite)?;
    if !exists {
        return Ok(Vec::new());
    }
    let sql = "SELECT name, seq FROM main.sqlite_sequence
               WHERE typeof(name) = 'text' AND typeof(seq) = 'integer' ORDER BY name LIMIT ?1";
    let mut statement = connection.prepare(sql).map_err(Error::Sqlite)?;
    let rows = statement
        .query_map([SEQUENCES_MAX as i64], |row| Ok((row.get(0)?, row.get(1)?)))
        .map_err(Error::Sqlite)?;
    rows.collect::<Result<_, _>>().map_err(Error::Sqlite)
}
