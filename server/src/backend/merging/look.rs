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
use sqlrsync_protocol::page::VersionNumber;
use sqlrsync_protocol::remote::RemoteName;
use sqlrsync_repository::{Manifest, Replica};
use utoipa::ToSchema;

use super::versions::{Opened, Versions};
use super::{Error, json};
use crate::access::Caller;
use crate::backend::Backend;
use crate::refused::{Refused, Why};

/// How long two versions may be compared.
const DIFF_TIME: Duration = Duration::from_secs(600);

/// How long a query may take, opening the version included.
const QUERY_TIME: Duration = Duration::from_secs(15);

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

/// How two versions differ, in numbers.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct DiffStat {
    /// By table.
    pub rows: BTreeMap<String, RowCounts>,
    /// Changes of the schema.
    pub schema: u64,
    /// Why more was read than what differs; `null` where it was not.
    pub read_more: Option<&'static str>,
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
        let versions = Versions::new(&replica, &self.maps, DIFF_TIME).cancelled_by(cancel);
        Ok(Difference::between(&versions, &from, &to)?)
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
        let opened = Versions::new(&replica, &self.maps, QUERY_TIME).cancelled_by(cancel).open(&version)?;
        let most = QueryLimits::default();
        let limits = QueryLimits { rows: question.limit.unwrap_or(most.rows).min(most.rows), ..most };
        let mut rows = Vec::new();
        let outcome = query(&opened.database, &question.sql, limits, &mut |row| {
            rows.push(row.values.iter().map(|value| json::cell(value, Encoding::Utf8)).collect());
            ControlFlow::Continue(())
        });
        let outcome = outcome.map_err(Error::from)?;
        Ok(QueryAnswer { version: version.number.get(), columns: outcome.columns, rows, more: outcome.more })
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
        Ok(Difference { old, new, touched })
    }

    /// Writes how they differ.
    ///
    /// # Errors
    /// Where a version cannot be read, time is over, or nobody reads any more.
    pub fn write(&self, format: DiffFormat, mut into: impl Write) -> Result<Summary, Error> {
        let schemas = (&self.old.schema, &self.new.schema);
        match format {
            DiffFormat::Json => {
                let mut lines = JsonLines::new(&mut into);
                self.each(&mut |change| lines.change(&change).map(|()| Go::On))
            }
            DiffFormat::Sql => {
                let mut script = SqlScript::new(&mut into, schemas.0, schemas.1)?;
                let summary = self.each(&mut |change| script.change(&change).map(|()| Go::On))?;
                script.finish()?;
                Ok(summary)
            }
            DiffFormat::Changeset => {
                let mut changeset = Changeset::new(&mut into, schemas.0, schemas.1);
                let summary = self.each(&mut |change| changeset.change(&change).map(|()| Go::On))?;
                changeset.finish();
                Ok(summary)
            }
        }
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
        let is_index = |name: &String| {
            let table = self.new.schema.table(name).or_else(|| self.old.schema.table(name));
            table.is_some_and(|table| table.is_search_index())
        };
        let tables = summary.tables.into_iter().filter(|(table, _)| !is_index(table));
        Ok(DiffStat {
            rows: tables.map(|(table, found)| (table, counts(found))).collect(),
            schema: summary.schema_changes,
            read_more: summary.read_more,
        })
    }

    fn each(
        &self,
        sink: &mut dyn FnMut(Change) -> Result<Go, sqlrsync_database::rows::Error>,
    ) -> Result<Summary, Error> {
        let Difference { old, new, touched } = self;
        let connections = (old.database.connection(), new.database.connection());
        let summary = diff_of(connections.0, connections.1, (&old.schema, &new.schema), touched, sink);
        // What lies below SQLite says more than SQLite can.
        old.database.check()?;
        new.database.check()?;
        Ok(summary?)
    }
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
    format!("{}\n", json!({"error": error.text}))
}
