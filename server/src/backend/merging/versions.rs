//! Stored contents, opened as databases and compared: what repository and database are joined by here.
//!
//! Each content is opened in its own SQLite connection over its pages where they are; nothing is written out,
//! and what is open is taken for hostile. What may differ between two is found from their page trees and from
//! the maps of their pages, so that it costs what changed.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use sqlrsync_database::btree::{ParentMap, Roots, Touched, touched};
use sqlrsync_database::merge::{
    self, Conflict, Drawn, Merge, MergeOptions, Resolutions, Side, Sides, Summary,
};
use sqlrsync_database::rows::{Encoding, Schema};
use sqlrsync_database::version::{KeptContent, Limits, SCRATCH_MAX, VersionDatabase, Written};
use sqlrsync_protocol::content::Content;
use sqlrsync_repository::{Manifest, Replica};

use super::Error;
use super::maps::Maps;
use super::until::Until;

/// How long a merge may take.
pub(in crate::backend) const MERGE_TIME: Duration = Duration::from_secs(300);

/// Contents of one replica, to be opened and compared within a time.
pub(in crate::backend) struct Versions<'a> {
    replica: &'a Replica,
    maps: &'a Maps,
    until: Until,
    scratch: Scratch,
}

/// What temporary files may take: for each content that is open, and for what both sides of a merge changed.
#[derive(Clone, Debug)]
pub(in crate::backend) struct Scratch {
    /// How many bytes.
    pub bytes: u64,
    /// Where those of an open content are; `None`: where all others are.
    pub folder: Option<PathBuf>,
}

impl Default for Scratch {
    fn default() -> Scratch {
        Scratch { bytes: SCRATCH_MAX, folder: None }
    }
}

/// A content that is open as a database.
pub(in crate::backend) struct Opened {
    /// The database.
    pub database: VersionDatabase,
    /// Its schema.
    pub schema: Schema,
    roots: Roots,
    /// What is read of it to find out what may differ need not be read again by the database.
    content: KeptContent,
}

/// What a merge came to.
pub(super) enum Outcome {
    /// It is done, within this content.
    Merged {
        /// The side whose content was written over.
        on: Side,
        /// What was written over it.
        written: Box<Written>,
        /// What was done.
        summary: Summary,
        /// Rows that a choice for all took though nobody argued about them.
        drawn: Drawn,
        /// Of the texts in their keys.
        encoding: Encoding,
    },
    /// Nothing was written. The texts of its rows have this encoding.
    Conflict(Conflict, Encoding),
}

/// The three contents of a merge.
#[derive(Clone, Copy)]
pub(super) struct Three<'a> {
    /// What both sides began with.
    pub base: &'a Manifest,
    /// The latest version.
    pub theirs: &'a Manifest,
    /// The candidate.
    pub mine: &'a Manifest,
}

impl<'a> Versions<'a> {
    /// Contents of this replica, for so long at most.
    pub fn new(replica: &'a Replica, maps: &'a Maps, time: Duration) -> Versions<'a> {
        Versions { replica, maps, until: Until::after(time), scratch: Scratch::default() }
    }

    /// Until this becomes true as well.
    pub fn cancelled_by(self, cancel: Arc<AtomicBool>) -> Versions<'a> {
        Versions { until: Until { cancel: Some(cancel), ..self.until }, ..self }
    }

    /// With so much room for temporary files.
    pub fn within(self, scratch: Scratch) -> Versions<'a> {
        Versions { scratch, ..self }
    }

    /// Opens a content.
    pub fn open(&self, content: &Manifest) -> Result<Opened, Error> {
        let content = KeptContent::new(Box::new(self.replica.content(content)?), None);
        let database = self.open_content(Box::new(content.reader()))?;
        let schema = Schema::read(database.connection());
        // A page that could not be read, or time that is over, is not the schema's fault.
        database.check()?;
        let schema = schema?;
        let roots = Roots { tables: schema.table_roots(), indexes: schema.index_roots() };
        Ok(Opened { database, schema, roots, content })
    }

    /// Opens something that may be stored nowhere.
    pub(super) fn open_content(&self, content: Box<dyn Content>) -> Result<VersionDatabase, Error> {
        let limits = Limits {
            time: self.until.left(),
            scratch: self.scratch.bytes,
            temp_dir: self.scratch.folder.clone(),
            cancel: self.until.cancel.clone(),
        };
        Ok(VersionDatabase::open(content, limits)?)
    }

    /// Which rows may differ between two contents; `map` is that of the old one, and then of the new one.
    fn touched(
        &self,
        (old, old_open): (&Manifest, &mut Opened),
        (new, new_open): (&Manifest, &mut Opened),
        map: &mut ParentMap,
    ) -> Result<Touched, Error> {
        let changed = self.replica.changed_pages(old, new)?;
        let roots = (&old_open.roots, &new_open.roots);
        let (mut from, mut to) =
            (self.until.read(&mut old_open.content), self.until.read(&mut new_open.content));
        touched(&mut from, &mut to, &changed, map, roots).map_err(|error| self.until.explain(error))
    }

    /// Opens two contents and says which rows of them may differ.
    pub fn compare(&self, old: &Manifest, new: &Manifest) -> Result<(Opened, Opened, Touched), Error> {
        let (mut old_open, mut new_open) = (self.open(old)?, self.open(new)?);
        let mut map = self.maps.of(self.replica, old, &self.until)?;
        // Who looks at one difference often looks at another of the same version, or at the next.
        self.maps.keep(self.replica, old, map.clone());
        let touched = self.touched((old, &mut old_open), (new, &mut new_open), &mut map)?;
        self.maps.keep(self.replica, new, map);
        Ok((old_open, new_open, touched))
    }

    /// Merges what was changed between base and mine into theirs.
    pub fn merge(
        &self,
        three: Three<'_>,
        options: &MergeOptions,
        resolve: &Resolutions,
    ) -> Result<Outcome, Error> {
        let Three { base, theirs, mine } = three;
        let mut base_open = self.open(base)?;
        let (mut theirs_open, mut mine_open) = (self.open(theirs)?, self.open(mine)?);
        let mut map = self.maps.of(self.replica, base, &self.until)?;
        self.maps.keep(self.replica, base, map.clone());
        let base_mine = self.touched((base, &mut base_open), (mine, &mut mine_open), &mut map.clone())?;
        let base_theirs = self.touched((base, &mut base_open), (theirs, &mut theirs_open), &mut map)?;
        // The next push is most likely made from about here.
        self.maps.keep(self.replica, theirs, map);
        let sides = Sides {
            base: base_open.database.connection(),
            theirs: theirs_open.database.connection(),
            mine: mine_open.database.connection(),
            base_theirs: &base_theirs,
            base_mine: &base_mine,
        };
        let mut options = *options;
        options.limits.deadline = self.until.deadline;
        options.limits.room = self.scratch.bytes;
        let merged = merge::merge(sides, &options, resolve);
        for open in [&base_open, &theirs_open, &mine_open] {
            // What lies below SQLite says more than SQLite can.
            open.database.check()?;
        }
        let encoding = theirs_open.schema.encoding;
        Ok(match merged? {
            Merge::Conflict(conflict) => Outcome::Conflict(conflict, encoding),
            Merge::Merged { on, summary, drawn } => {
                let open = if on == Side::Theirs { theirs_open } else { mine_open };
                let written = Box::new(open.database.written()?);
                Outcome::Merged { on, written, summary, drawn, encoding }
            }
        })
    }
}
