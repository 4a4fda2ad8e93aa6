//! Looking into versions: how two differ, and what a query of one gives.

use std::collections::BTreeMap;
use std::io::Write;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};
use sqlrsync_database::rows::{
    Change, Changeset, Counts, Encoding, Go, JsonLines, SqlScript, Summary, diff_of,
};
use sqlrsync_database::version::{QueryLimits, query};
use sqlrsync_protocol::duration::Seconds;
use sqlrsync_protocol::page::VersionNumber;
use sqlrsync_protocol::remote::RemoteName;
use sqlrsync_repository::{Manifest, Replica};
use utoipa::ToSchema;

use super::given_up::GivenUp;
use super::versions::{Opened, Versions};
use super::{Error, json};
use crate::access::Caller;
use crate::backend::Backend;
use crate::refused::{Refused, Why};

/// How long it may take to open a version that is asked something, which is not the question's fault.
const OPEN_TIME: Duration = Duration::from_secs(5);

/// How long looking into versions may take.
#[derive(Clone, Copy, Debug)]
pub(in crate::backend) struct LookTimes {
    /// A query.
    pub query: Seconds,
    /// A comparison of two versions.
    pub diff: Seconds,
}

/// How a difference is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum DiffFormat {
    /// An object a line.
    #[default]
    Json,
    /// A script that makes the new version of the old one.
    Sql,
    /// A changeset of SQLite's session extension.
    Changeset,
}

/// Two versions, open and ready to be compared.
pub struct Difference {
    old: Opened,
    new: Opened,
    touched: sqlrsync_database::btree::Touched,
    /// What it may take in all, where somebody asked for it.
    may_take: Option<Seconds>,
}

/// Rows of a table that differ, counted.
#[derive(Clone, Copy, Debug, Default, Serialize, ToSchema)]
pub struct RowCounts {
    /// New ones.
    pub insert: u64,
    /// Other values.
    pub update: u64,
    /// Gone.
    pub delete: u64,
}

/// A table of which something differs, or may, that no row says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct LeftOut {
    /// The table.
    pub table: String,
    /// Why.
    pub why: &'static str,
}

/// How two versions differ, in numbers.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct DiffStat {
    /// By table.
    pub rows: BTreeMap<String, RowCounts>,
    /// Changes of the schema.
    pub schema: u64,
    /// What differs, or may, and is not counted: rows that nothing names.
    pub left_out: Vec<LeftOut>,
    /// Why more was read than what differs; `null` where it was not.
    pub read_more: Option<&'static str>,
}

/// What is said after a difference in a form that cannot say it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct DiffEnd {
    /// Whether the versions differ, or may. The indexes of full-text tables do not count.
    pub differs: bool,
    /// What differs, or may, and the form does not say.
    pub left_out: Vec<LeftOut>,
    /// There is more of that than is told.
    pub more_left_out: bool,
}

/// A question.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// Of which version; the latest where it is left out.
    pub version: Option<u64>,
    /// One SELECT statement.
    pub sql: String,
    /// At most so many rows.
    pub limit: Option<u64>,
}

/// The answer to a query.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct QueryAnswer {
    /// The version that was asked.
    pub version: u64,
    /// The names of the columns.
    pub columns: Vec<String>,
    /// As many values a row.
    #[schema(value_type = Vec<Vec<Object>>)]
    pub rows: Vec<Vec<Json>>,
    /// There is more, and a limit ended it.
    pub more: bool,
}

impl Backend {
    /// Opens two versions to be compared. It stops when `cancel` becomes true.
    ///
    /// # Errors
    /// As [`Backend::policy`]; [`Why::NotFound`].
    pub fn open_difference(
        &self,
        caller: &Caller,
        name: &RemoteName,
        (from, to): (VersionNumber, VersionNumber),
        cancel: Arc<AtomicBool>,
    ) -> Result<Difference, Refused> {
        let record = self.seen(caller, name)?;
        let replica = self.repository_replica(&record)?;
        let (from, to) = (version_of(&replica, name, from)?, version_of(&replica, name, to)?);
        let may_take = self.looks.diff;
        let versions = Versions::new(&replica, &self.maps, may_take.duration()).cancelled_by(cancel);
        let difference = Difference::between(&versions, &from, &to);
        let difference = difference.map_err(|error| diff_refused(error, Some(may_take)))?;
        Ok(Difference { may_take: Some(may_take), ..difference })
    }

    /// What a query of a version gives.
    ///
    /// # Errors
    /// As [`Backend::policy`]; [`Why::NotFound`], and [`Why::BadRequest`] where the query is not right.
    pub fn query(
        &self,
        caller: &Caller,
        name: &RemoteName,
        question: &Question,
        cancel: Arc<AtomicBool>,
    ) -> Result<QueryAnswer, Refused> {
        let record = self.seen(caller, name)?;
        let replica = self.repository_replica(&record)?;
        let version = match question.version {
            Some(number) => version_of(&replica, name, numbered(number)?)?,
            None => replica.latest()?.ok_or_else(|| missing(name, "no version yet"))?,
        };
        let time = self.looks.query.duration();
        let versions = Versions::new(&replica, &self.maps, time.saturating_add(OPEN_TIME));
        let opened =
            versions.cancelled_by(cancel).open(&version).map_err(|error| self.query_refused(error))?;
        let most = QueryLimits::default();
        let limits = QueryLimits { time, rows: question.limit.unwrap_or(most.rows).min(most.rows), ..most };
        let mut rows = Vec::new();
        let outcome = query(&opened.database, &question.sql, limits, &mut |row| {
            rows.push(row.values.iter().map(|value| json::cell(value, Encoding::Utf8)).collect());
            ControlFlow::Continue(())
        });
        let outcome = outcome.map_err(|error| self.query_refused(error.into()))?;
        Ok(QueryAnswer { version: version.number.get(), columns: outcome.columns, rows, more: outcome.more })
    }

    /// What takes more than a query may is not for another time: it takes as much then.
    fn query_refused(&self, error: Error) -> Refused {
        let text = match error.given_up() {
            None => return error.into(),
            Some(GivenUp::Time) => format!(
                "the query took longer than the {} that this server allows for one (its --query-timeout): narrow \
                 it, with a condition that an index answers or with fewer tables, or ask who runs the server to \
                 allow more",
                self.looks.query
            ),
            Some(GivenUp::Room) => {
                "the query sorts or sets aside more than the temporary space that a server \
                 allows for one: narrow it, or sort by what an index has in order"
                    .to_owned()
            }
        };
        Refused::new(Why::BadRequest, text)
    }
}

impl Difference {
    /// Opens two contents to be compared.
    pub(super) fn between(
        versions: &Versions<'_>,
        from: &Manifest,
        to: &Manifest,
    ) -> Result<Difference, Error> {
        let (old, new, touched) = versions.compare(from, to)?;
        Ok(Difference { old, new, touched, may_take: None })
    }

    /// What is said where it could not be finished.
    pub fn refused(&self, error: Error) -> Refused {
        diff_refused(error, self.may_take)
    }

    /// Writes how they differ. The lines of JSON end with one for each table of which they do not say all; what the
    /// other forms do not say is in what is given back.
    ///
    /// # Errors
    /// Where a version cannot be read, time is over, or nobody reads any more.
    pub fn write(&self, format: DiffFormat, mut into: impl Write) -> Result<DiffEnd, Error> {
        let schemas = (&self.old.schema, &self.new.schema);
        let (summary, unsaid) = match format {
            DiffFormat::Json => {
                let mut lines = JsonLines::new(&mut into);
                let summary = self.each(&mut |change| lines.change(&change).map(|()| Go::On))?;
                for LeftOut { table, why } in told(&summary.left_out) {
                    let line = json!({ "left_out": table, "why": why });
                    writeln!(into, "{line}").map_err(sqlrsync_database::rows::Error::Write)?;
                }
                (summary, Vec::new())
            }
            DiffFormat::Sql => {
                let mut script = SqlScript::new(&mut into, schemas.0, schemas.1)?;
                let summary = self.each(&mut |change| script.change(&change).map(|()| Go::On))?;
                (summary, script.finish()?.1)
            }
            DiffFormat::Changeset => {
                let mut changeset = Changeset::new(&mut into, schemas.0, schemas.1);
                let summary = self.each(&mut |change| changeset.change(&change).map(|()| Go::On))?;
                (summary, changeset.finish().1)
            }
        };
        let counted = summary.tables.keys().any(|table| !self.is_index(table));
        let differs = counted || summary.schema_changes > 0 || !summary.left_out.is_empty();
        let left_out = told(&summary.left_out).chain(told(&unsaid)).collect();
        Ok(DiffEnd { differs, left_out, more_left_out: false })
    }

    /// How they differ, in numbers: those of the lines of JSON, which leave the indexes of full-text tables out.
    ///
    /// # Errors
    /// Where a version cannot be read, or time is over.
    pub fn stat(&self) -> Result<DiffStat, Error> {
        let summary = self.each(&mut |_| Ok(Go::On))?;
        let counts = |counts: Counts| RowCounts {
            insert: counts.inserted,
            update: counts.updated,
            delete: counts.deleted,
        };
        let left_out = told(&summary.left_out).collect();
        let tables = summary.tables.into_iter().filter(|(table, _)| !self.is_index(table));
        Ok(DiffStat {
            rows: tables.map(|(table, found)| (table, counts(found))).collect(),
            schema: summary.schema_changes,
            left_out,
            read_more: summary.read_more,
        })
    }

    /// Whether that table is the index of a full-text table.
    fn is_index(&self, name: &str) -> bool {
        let table = self.new.schema.table(name).or_else(|| self.old.schema.table(name));
        table.is_some_and(|table| table.is_search_index())
    }

    fn each(
        &self,
        sink: &mut dyn FnMut(Change) -> Result<Go, sqlrsync_database::rows::Error>,
    ) -> Result<Summary, Error> {
        let Difference { old, new, touched, .. } = self;
        let connections = (old.database.connection(), new.database.connection());
        let summary = diff_of(connections.0, connections.1, (&old.schema, &new.schema), touched, sink);
        // What lies below SQLite says more than SQLite can.
        old.database.check()?;
        new.database.check()?;
        Ok(summary?)
    }
}

/// As for a query.
fn diff_refused(error: Error, may_take: Option<Seconds>) -> Refused {
    let (Some(GivenUp::Time), Some(may_take)) = (error.given_up(), may_take) else { return error.into() };
    let text = format!(
        "comparing these versions took longer than the {may_take} that this server allows for it (its \
         --diff-timeout): compare versions that are nearer to each other, or ask who runs the server to allow more"
    );
    Refused::new(Why::BadRequest, text)
}

impl DiffEnd {
    /// It as a line of JSON that is no longer than `len_max`, if need be with less of what is left out; and after it how
    /// long that line is, as ten digits and a line feed.
    pub fn lines(mut self, len_max: usize) -> String {
        loop {
            let line = format!("{}\n", json!(self));
            if line.len() <= len_max || self.left_out.is_empty() {
                return ended(&line);
            }
            self.left_out.truncate(self.left_out.len() / 2);
            self.more_left_out = true;
        }
    }
}

/// A line, and after it how long it is.
fn ended(line: &str) -> String {
    format!("{line}{:010}\n", line.len())
}

fn told(left_out: &[sqlrsync_database::rows::LeftOut]) -> impl Iterator<Item = LeftOut> {
    left_out.iter().map(|left| LeftOut { table: left.table.clone(), why: left.why })
}

fn numbered(number: u64) -> Result<VersionNumber, Refused> {
    VersionNumber::new(number).ok_or_else(|| Refused::new(Why::BadRequest, "versions count from 1"))
}

fn version_of(replica: &Replica, name: &RemoteName, number: VersionNumber) -> Result<Manifest, Refused> {
    replica.manifest(number)?.ok_or_else(|| missing(name, &format!("no version {number}")))
}

fn missing(name: &RemoteName, what: &str) -> Refused {
    Refused::new(Why::NotFound, format!("{name} has {what}"))
}

/// The line that ends a difference that could not be finished.
pub fn error_line(error: &Refused) -> String {
    format!("{}\n", json!({"error": error.text, "refusal": error.why.refusal() as u8}))
}

/// The same behind a form that is no lines of JSON, as [`DiffEnd::lines`]; `None` where it is too long.
pub fn error_end(error: &Refused, len_max: usize) -> Option<String> {
    let line = error_line(error);
    (line.len() <= len_max).then(|| ended(&line))
}

#[cfg(test)]
mod tests {
    use sqlrsync_database::version::VersionError;

    use super::*;

    #[test]
    fn a_comparison_over_its_time_is_not_for_later_where_its_time_was_a_setting() {
        let ten_minutes = Some("10m".parse().unwrap());
        let refused = diff_refused(VersionError::Deadline.into(), ten_minutes);
        assert_eq!(refused.why, Why::BadRequest);
        assert!(refused.text.contains("10m") && refused.text.contains("--diff-timeout"), "{refused:?}");
        assert_eq!(diff_refused(VersionError::Memory.into(), ten_minutes).why, Why::TryLater);
    }

    #[test]
    fn what_could_not_be_finished_ends_with_why_and_of_what_kind_or_breaks_off() {
        let lines = error_end(&Refused::new(Why::TryLater, "no room"), 4096).unwrap();
        let (line, len) = lines.split_at(lines.len() - 11);
        assert_eq!(len.trim_end().parse(), Ok(line.len()));
        let said: Json = serde_json::from_str(line).unwrap();
        assert_eq!(said, json!({"error": "no room", "refusal": 5}));
        assert_eq!(error_end(&Refused::new(Why::Failed, "x".repeat(4096)), 4096), None);
    }

    #[test]
    fn what_ends_a_difference_is_no_longer_than_it_may_be_and_says_its_length() {
        for (tables, name_len) in [(0, 0), (3, 10), (1000, 500), (1, 10_000)] {
            let left_out = (0..tables).map(|_| LeftOut { table: "t".repeat(name_len), why: "so" }).collect();
            let end = DiffEnd { differs: true, left_out, more_left_out: false };
            let lines = end.lines(4096);
            let (line, len) = lines.split_at(lines.len() - 11);
            assert!(line.len() <= 4096 && line.ends_with('\n'), "{}", line.len());
            assert_eq!(len.trim_end().parse(), Ok(line.len()));
            let said: Json = serde_json::from_str(line).unwrap();
            assert_eq!(said["more_left_out"], name_len > 10, "{said}");
        }
    }
}
