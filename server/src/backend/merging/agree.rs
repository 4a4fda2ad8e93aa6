//! Whether it matters which of several contents a push was made from: it does not where all come to the same
//! rows.
//!
//! What they come to is compared whole. That reads everything, and is for peers that say nothing of their base
//! and have several.

use sqlrsync_database::btree::Touched;
use sqlrsync_database::merge::{MergeOptions, Resolutions};
use sqlrsync_database::rows::{self, Go};
use sqlrsync_database::version::VersionDatabase;
use sqlrsync_protocol::content::Content;
use sqlrsync_repository::Manifest;

use super::Error;
use super::push::Push;
use super::versions::{Outcome, Three, Versions};

/// Whether a push comes to the same on the latest version, whichever of these it was made from. Where it is in
/// conflict with one of them, or that cannot be told, it does not.
pub(super) fn come_to_the_same(
    push: &Push<'_>,
    bases: &[Manifest],
    latest: &Manifest,
) -> Result<bool, Error> {
    compare(push, bases, latest).or_else(|error| error.stays_unknown().map(|()| false))
}

fn compare(push: &Push<'_>, bases: &[Manifest], latest: &Manifest) -> Result<bool, Error> {
    let versions = push.backend.to_merge(push.received.replica());
    let mut first: Option<VersionDatabase> = None;
    for base in bases {
        let Some(content) = result(push, &versions, base, latest)? else { return Ok(false) };
        let database = versions.open_content(content)?;
        match &first {
            None => first = Some(database),
            Some(first) if !same(first, &database)? => return Ok(false),
            Some(_) => {}
        }
    }
    Ok(true)
}

/// What a push comes to, made from this content; `None` where that is a conflict.
fn result(
    push: &Push<'_>,
    versions: &Versions<'_>,
    base: &Manifest,
    latest: &Manifest,
) -> Result<Option<Box<dyn Content>>, Error> {
    let mine = push.received.content();
    if base.root == latest.root {
        return Ok(Some(Box::new(push.received.replica().content(mine)?)));
    }
    let policy = push.record.policy;
    let options = MergeOptions { cells: policy.cells, renumber: policy.renumber, ..MergeOptions::default() };
    let three = Three { base, theirs: latest, mine };
    match versions.merge(three, &options, &Resolutions::default())? {
        Outcome::Merged { written, .. } => Ok(Some(written)),
        Outcome::Conflict(..) => Ok(None),
    }
}

fn same(one: &VersionDatabase, other: &VersionDatabase) -> Result<bool, Error> {
    let touched = Touched::everything("two outcomes of a merge are compared whole");
    let summary = rows::diff(one.connection(), other.connection(), &touched, &mut |_| Ok(Go::Stop));
    one.check()?;
    other.check()?;
    Ok(summary?.is_empty())
}
