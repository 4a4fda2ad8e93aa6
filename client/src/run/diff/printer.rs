//! Printing differences as they come: for people, as JSON, or as numbers at the end.

use std::io::Write;

use serde_json::json;

use crate::error::Error;
use crate::outcome::json_text;
use crate::plan::DiffForm;
use crate::rows::difference::{Counts, RowDifference, SchemaDifference, Shower};
use crate::rows::style::Style;
use crate::run::goes_on;

/// Said in place of "nothing differs" where that is not known.
const NOTHING_NAMED: &str = "no row differs of those that have a name";

/// Where rows go. Every call says whether anybody still reads.
pub struct Printer<W> {
    out: W,
    way: Way,
}

enum Way {
    People(Shower),
    Json,
    Stat { counts: Counts, json: bool },
}

impl<W: Write> Printer<W> {
    /// One for that form, which is one of rows or of numbers.
    pub fn new(json: bool, form: &DiffForm, out: W) -> Printer<W> {
        let way = match form {
            DiffForm::Stat => Way::Stat { counts: Counts::default(), json },
            _ if json => Way::Json,
            _ => Way::People(Shower::new(Style::of_stdout())),
        };
        Printer { out, way }
    }

    /// Takes a row.
    pub fn row(&mut self, row: &RowDifference) -> Result<bool, Error> {
        let lines = match &mut self.way {
            Way::People(shower) => shower.row(row),
            Way::Json => vec![json_text(row)?],
            Way::Stat { counts, .. } => {
                counts.add(row);
                return Ok(true);
            }
        };
        self.lines(&lines)
    }

    /// Takes a change of the schema.
    pub fn schema(&mut self, change: &SchemaDifference) -> Result<bool, Error> {
        let lines = match &mut self.way {
            Way::People(shower) => shower.schema(change),
            // A changed row has a table; this line has none, and scripts pass it over.
            Way::Json => vec![json_text(change)?],
            Way::Stat { counts, .. } => {
                counts.schema += 1;
                return Ok(true);
            }
        };
        self.lines(&lines)
    }

    /// All rows have come. Where `all` is not set there are rows that differ, or may, and that nothing names.
    pub fn end(mut self, all: bool) -> Result<(), Error> {
        let lines = match std::mem::replace(&mut self.way, Way::Json) {
            Way::Json => return self.flush().map(drop),
            Way::People(shower) => {
                let counts = shower.end();
                let mut lines: Vec<_> = (!counts.is_empty()).then(String::new).into_iter().collect();
                lines.push(if all || !counts.is_empty() {
                    counts.sentence()
                } else {
                    NOTHING_NAMED.to_owned()
                });
                lines
            }
            Way::Stat { counts, json } => stat_lines(&counts, all, json)?,
        };
        self.lines(&lines)?;
        self.flush().map(drop)
    }

    fn lines(&mut self, lines: &[String]) -> Result<bool, Error> {
        goes_on(lines.iter().try_for_each(|line| writeln!(self.out, "{line}")))
    }

    fn flush(&mut self) -> Result<bool, Error> {
        goes_on(self.out.flush())
    }
}

/// The numbers, as JSON or for people. Where `all` is not set there is more than was counted.
pub fn stat_lines(counts: &Counts, all: bool, json: bool) -> Result<Vec<String>, Error> {
    Ok(match json {
        true => stat_json(counts)?,
        false if counts.is_empty() && !all => vec![NOTHING_NAMED.to_owned()],
        false => counts.lines(Style::of_stdout()),
    })
}

/// An object a table, and one for the schema where it changed.
fn stat_json(counts: &Counts) -> Result<Vec<String>, Error> {
    let table = |(table, count): (&str, crate::rows::difference::Count)| {
        json_text(&json!({
            "table": table, "insert": count.insert, "update": count.update, "delete": count.delete,
        }))
    };
    let mut lines = counts.tables().map(table).collect::<Result<Vec<_>, _>>()?;
    if counts.schema > 0 {
        lines.push(json_text(&json!({ "schema": counts.schema }))?);
    }
    Ok(lines)
}
