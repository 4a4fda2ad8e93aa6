//! A file as the replica of an exchange: one that does not exist yet, or a live one. Or a live one that stays as it
//! is, to be compared with what arrives ([`beside`]).
//!
//! - Nothing of the file changes before the exchange is to finish, and then in one rename or in one
//!   transaction.
//! - No connection is open while a peer is waited for: the transaction checks that the file still is
//!   what the pages are a difference to.
//! - A file whose content is neither the base nor known to the origin is refused before the first page,
//!   unless it is to be overwritten.

mod beside;
mod exchange;

use std::path::{Path, PathBuf};

use sqlrsync_protocol::canonical::{HeaderFields, empty_database};
use sqlrsync_protocol::exchange::{Base, Ground};
use sqlrsync_protocol::hash::Root;
use sqlrsync_protocol::page::{Geometry, PageNumber};

use crate::agreed::{Agreed, Kept, keep};
use crate::apply::{self, Applied, apply};
use crate::error::{Error, io_error};
use crate::fingerprint::{Fingerprint, real_path};
use crate::legacy::LegacyHashes;
use crate::new_file::{NewFile, check_free, folder_of, remove_leftovers};
use crate::page_hashes::{Content, PageHashes};
use crate::receive::{Intake, Layout, Received};
use crate::replace::replace;
use crate::scan::{Scanned, scan};
use crate::snapshot::Snapshot;
use beside::Aside;
pub use beside::Beside;

/// What becomes of a file that has content of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Overwrite {
    /// It is left as it is: [`Error::LocallyChanged`], [`Error::PageSize`].
    #[default]
    Never,
    /// It is left as it is, unless it is [`FileReplicaOptions::base`]: also where it is gone, or is another
    /// content that the origin knows.
    UnlessBase,
    /// Its content is overwritten, whatever it is; a file of another page size is left as it is:
    /// [`Error::PageSize`]. The rule of sqlite3_rsync.
    SamePageSize,
    /// It is overwritten, and replaced as a whole where its pages have another size.
    Force,
}

impl Overwrite {
    /// Whether any content may go.
    fn any_content(self) -> bool {
        matches!(self, Overwrite::SamePageSize | Overwrite::Force)
    }
}

/// What is known of the file from before, and where to keep what is found out.
#[derive(Clone, Debug, Default)]
pub struct FileReplicaOptions {
    /// The file with this database's page hashes. Written in [`FileReplica::agreed`] only.
    pub hashes: Option<PathBuf>,
    /// What [`FileReplica::agreed`] said last time.
    pub known: Option<Agreed>,
    /// What was last pulled into the file or pushed from it.
    pub base: Option<Base>,
    /// What becomes of other content.
    pub overwrite: Overwrite,
    /// An existing folder for files without a name; the database's own folder where none is given.
    pub temp_dir: Option<PathBuf>,
}

/// A file that takes pages.
pub struct FileReplica {
    path: PathBuf,
    temp_dir: PathBuf,
    options: FileReplicaOptions,
    kept: Option<PageHashes>,
    found: Option<Found>,
    version: u8,
    origin: Option<Geometry>,
    ground: Option<Ground>,
    intake: Option<Target>,
    done: Option<Done>,
    /// Where the file is left as it is.
    aside: Option<Aside>,
}

impl std::fmt::Debug for FileReplica {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileReplica").field("path", &self.path).finish_non_exhaustive()
    }
}

/// What was at the path as the exchange began.
enum Found {
    /// Nothing.
    Free,
    /// A file without a page, or with pages of another size: to be replaced as a whole.
    Replaceable { vacant: bool },
    /// A database.
    Database(Box<Database>),
}

struct Database {
    geometry: Geometry,
    /// The page tree; not there where versions 1 and 2 overwrite whatever there is.
    tree: Option<Tree>,
    /// What versions 1 and 2 compare.
    legacy: Option<LegacyHashes>,
}

enum Tree {
    /// The kept hashes, with what they were recorded under, which still is true.
    Kept(PageHashes, Agreed),
    Scanned(Scanned),
}

impl Tree {
    fn hashes(&mut self) -> &mut PageHashes {
        match self {
            Tree::Kept(hashes, _) => hashes,
            Tree::Scanned(scanned) => &mut scanned.hashes,
        }
    }

    fn root(&self) -> Root {
        match self {
            Tree::Kept(hashes, _) => hashes.root(),
            Tree::Scanned(scanned) => scanned.hashes.root(),
        }
    }

    fn held(&self) -> apply::Held<'_> {
        match self {
            Tree::Kept(hashes, known) => apply::Held::Tree(hashes, &known.fingerprint),
            Tree::Scanned(scanned) => apply::Held::Tree(&scanned.hashes, &scanned.fingerprint),
        }
    }

    /// When every page was last read.
    fn last_scan_ns(&self) -> Option<i64> {
        match self {
            Tree::Kept(_, known) => known.last_scan_ns,
            Tree::Scanned(scanned) => Some(scanned.fingerprint.recorded_at_ns),
        }
    }

    fn fingerprint(&self) -> &Fingerprint {
        match self {
            Tree::Kept(_, known) => &known.fingerprint,
            Tree::Scanned(scanned) => &scanned.fingerprint,
        }
    }
}

/// Where pages go on their way in.
struct Target {
    /// Where there is no database to change: the file that becomes it.
    new: Option<NewFile>,
    taking: Taking,
}

enum Taking {
    /// Versions 1 and 2.
    Pages(Received),
    /// Version 3.
    Blocks(Intake),
}

/// What came of it.
struct Done {
    content: Option<Content>,
    fingerprint: Fingerprint,
    /// When every page was last read or written.
    last_scan_ns: Option<i64>,
    kept: Kept,
    received: Received,
}

impl FileReplica {
    /// Prepares to take a database into the file at `path`, which need not exist.
    ///
    /// # Errors
    /// [`Error::NotAFile`], [`Error::Dangling`] and [`Error::Denied`] for the path, [`Error::Missing`] where its folder does
    /// not exist, [`Error::Io`] where the kept hashes cannot be opened.
    pub fn open(path: &Path, options: FileReplicaOptions) -> Result<FileReplica, Error> {
        let path = match real_path(path) {
            Err(Error::Missing { .. }) => path_of_missing(path)?,
            path => path?,
        };
        let kept = match &options.hashes {
            Some(path) => PageHashes::open(path)?,
            None => None,
        };
        let temp_dir = options.temp_dir.clone().unwrap_or_else(|| folder_of(&path));
        Ok(FileReplica {
            path,
            temp_dir,
            options,
            kept,
            found: None,
            version: 0,
            origin: None,
            ground: None,
            intake: None,
            done: None,
            aside: None,
        })
    }

    /// What was agreed on, after the exchange succeeded. Keeps the page hashes where the options say.
    ///
    /// # Errors
    /// [`Error::NothingAgreed`] before the end of an exchange, or where versions 1 and 2 overwrote a
    /// file of unknown content; [`Error::Io`] and [`Error::DiskFull`] where the hashes cannot be kept.
    pub fn agreed(mut self) -> Result<Agreed, Error> {
        let Done { content, fingerprint, last_scan_ns, kept, mut received } =
            self.done.take().ok_or(Error::NothingAgreed)?;
        let content = content.ok_or(Error::NothingAgreed)?;
        if let Some(path) = &self.options.hashes {
            // The replica's own readers of the file are closed before it changes.
            self.kept = None;
            keep(path, kept, content, &mut received.delta, &self.temp_dir)?;
        }
        Ok(Agreed { root: content.root, geometry: content.geometry, fingerprint, last_scan_ns })
    }

    /// Looks at what is there.
    fn find(&self, origin: Geometry, version: u8) -> Result<Found, Error> {
        match self.find_file(origin, version) {
            Err(Error::Missing { .. }) => {
                check_free(&self.path)?;
                Ok(Found::Free)
            }
            found => found,
        }
    }

    /// Looks at the file that is there, unless it is not.
    fn find_file(&self, origin: Geometry, version: u8) -> Result<Found, Error> {
        if version >= 3
            && let Some((kept, known)) = self.of_known_root()
            && known.fingerprint.proves_unchanged(&Fingerprint::of(&self.path)?)
            && kept.geometry().page_size == origin.page_size
        {
            let (geometry, tree) = (kept.geometry(), Some(Tree::Kept(kept.reader(), known.clone())));
            return Ok(Found::Database(Box::new(Database { geometry, tree, legacy: None })));
        }
        let mut snapshot = match Snapshot::open(&self.path) {
            Ok(snapshot) => snapshot,
            Err(Error::Empty { .. }) => return Ok(Found::Replaceable { vacant: true }),
            Err(error) => return Err(error),
        };
        let geometry = snapshot.geometry();
        if geometry.page_size != origin.page_size {
            return match self.options.overwrite {
                Overwrite::Force => Ok(Found::Replaceable { vacant: false }),
                Overwrite::Never | Overwrite::UnlessBase | Overwrite::SamePageSize => Err(Error::PageSize {
                    path: self.path.clone(),
                    held: geometry.page_size,
                    origin: origin.page_size,
                }),
            };
        }
        let protects = !self.options.overwrite.any_content();
        let tree = if version >= 3 || protects {
            let kept_at = self.options.hashes.as_deref();
            Some(Tree::Scanned(scan(&mut snapshot, self.kept.as_ref(), kept_at, &self.temp_dir)?))
        } else {
            None
        };
        // In the same snapshot: the two must be of one content.
        let legacy =
            if version < 3 { Some(LegacyHashes::scan(&mut snapshot, &self.temp_dir)?) } else { None };
        Ok(Found::Database(Box::new(Database { geometry, tree, legacy })))
    }

    /// The kept hashes, where it is known what the file was like that they are of.
    fn of_known_root(&self) -> Option<(&PageHashes, &Agreed)> {
        let (kept, known) = (self.kept.as_ref()?, self.options.known.as_ref()?);
        (kept.root() == known.root).then_some((kept, known))
    }

    fn database(&mut self) -> Result<&mut Database, Error> {
        match &mut self.found {
            Some(Found::Database(database)) => Ok(database),
            _ => Err(Error::Invalid("a question about a replica that does not exist")),
        }
    }

    /// Whether what is there may be written over by a difference to `ground`.
    fn may_overwrite(&self, ground: Ground) -> bool {
        let overwrite = self.options.overwrite;
        let Some(Found::Database(database)) = &self.found else { return overwrite != Overwrite::UnlessBase };
        let root = database.tree.as_ref().map(Tree::root);
        let is_base = root.is_some() && root == self.options.base.map(|base| base.root);
        match ground {
            _ if is_base || overwrite.any_content() => true,
            Ground::Held | Ground::Nothing { recognised: true } => overwrite == Overwrite::Never,
            _ => false,
        }
    }

    /// Where pages go, made when the first comes, or at the end where none came.
    fn target(&mut self) -> Result<&mut Target, Error> {
        if self.intake.is_none() {
            let page_size = self.origin.ok_or(Error::Stopped)?.page_size;
            let (new, file) = match &self.found {
                found if self.aside.is_some() || matches!(found, Some(Found::Database(_))) => {
                    if self.aside.is_none() {
                        // A first pull that was killed may have left one a moment before this file came to be.
                        remove_leftovers(&folder_of(&self.path));
                    }
                    let file = tempfile::tempfile_in(&self.temp_dir);
                    (None, file.map_err(io_error("creating a spool file", &self.temp_dir))?.into())
                }
                _ => {
                    let new = NewFile::create(&self.path)?;
                    let file = new.file();
                    (Some(new), file)
                }
            };
            let layout = if new.is_none() && self.version >= 3 { Layout::Row } else { Layout::Database };
            let mut received = Received::new(file, layout, page_size, &self.path, &self.temp_dir);
            if self.version < 3 && !matches!(self.found, Some(Found::Database(_))) {
                // What does not exist counts as an empty database: its page does not come if it is the same.
                received.put(PageNumber::FIRST, &empty_database(page_size))?;
            }
            let taking = if self.version < 3 {
                Taking::Pages(received)
            } else {
                Taking::Blocks(Intake::start(received)?)
            };
            self.intake = Some(Target { new, taking });
        }
        self.intake.as_mut().ok_or(Error::Stopped)
    }

    /// What the whole hashes to, from the held tree and what arrived. `None` where versions 1 and 2
    /// overwrite a file that nobody looked into.
    fn root_of(&mut self, received: &mut Received, geometry: Geometry) -> Result<Option<Root>, Error> {
        let all = matches!(self.ground, Some(Ground::Nothing { .. }));
        match &mut self.found {
            Some(Found::Database(database)) if !all => match &mut database.tree {
                Some(tree) => received.root(Some(tree.hashes()), geometry).map(Some),
                None => Ok(None),
            },
            _ => received.root(None, geometry).map(Some),
        }
    }

    /// Puts what arrived into the file's place or into the file.
    fn put(
        &mut self,
        new: Option<NewFile>,
        received: Received,
        geometry: Geometry,
        root: Option<Root>,
        fields: Option<HeaderFields>,
    ) -> Result<Done, Error> {
        let all = matches!(self.ground, Some(Ground::Nothing { .. }));
        let content = |fields| root.map(|root| Content { geometry, root, fields });
        match (self.found.take(), new) {
            (Some(Found::Free), Some(new)) => {
                let fields = finish_first_page(&received, geometry, fields, false)?;
                let fingerprint = new.place(&self.path, geometry.bytes())?;
                let last_scan_ns = Some(fingerprint.recorded_at_ns);
                Ok(Done {
                    content: content(fields),
                    fingerprint,
                    last_scan_ns,
                    kept: Kept::Nothing,
                    received,
                })
            }
            (Some(Found::Replaceable { vacant }), Some(new)) => {
                finish_first_page(&received, geometry, fields, true)?;
                let source = new.into_source(&self.path, geometry.bytes())?;
                let Applied { fingerprint, fields } = replace(&self.path, &source, vacant)?;
                let last_scan_ns = Some(fingerprint.recorded_at_ns);
                Ok(Done {
                    content: content(fields),
                    fingerprint,
                    last_scan_ns,
                    kept: Kept::Nothing,
                    received,
                })
            }
            (Some(Found::Database(database)), _) => {
                let Database { tree, legacy, .. } = *database;
                let held = match (&legacy, &tree) {
                    (Some(legacy), _) => apply::Held::Legacy(legacy),
                    (None, Some(tree)) => tree.held(),
                    (None, None) => apply::Held::Nothing,
                };
                let unchanged =
                    received.pages.is_empty() && tree.as_ref().is_some_and(|tree| root == Some(tree.root()));
                let (fingerprint, fields) = if unchanged {
                    let tree = tree.as_ref().ok_or(Error::Stopped)?;
                    (tree.fingerprint().clone(), tree_fields(tree))
                } else {
                    let applied = apply(&self.path, &held, &received, geometry, &self.temp_dir)?;
                    (applied.fingerprint, applied.fields)
                };
                let last_scan_ns = match &tree {
                    _ if all => Some(fingerprint.recorded_at_ns),
                    tree => tree.as_ref().and_then(Tree::last_scan_ns),
                };
                let kept = match tree {
                    _ if all => Kept::Nothing,
                    Some(Tree::Kept(hashes, _)) => Kept::InPlace(hashes),
                    Some(Tree::Scanned(scanned)) => Kept::Scanned(scanned),
                    None => Kept::Nothing,
                };
                Ok(Done { content: content(fields), fingerprint, last_scan_ns, kept, received })
            }
            _ => Err(Error::Stopped),
        }
    }
}

fn tree_fields(tree: &Tree) -> HeaderFields {
    match tree {
        Tree::Kept(hashes, _) => hashes.fields(),
        Tree::Scanned(scanned) => scanned.hashes.fields(),
    }
}

/// The path of a file that does not exist, in a folder that does.
fn path_of_missing(path: &Path) -> Result<PathBuf, Error> {
    let folder = folder_of(path);
    let missing = || Error::Missing { path: folder.clone() };
    let name = path.file_name().ok_or_else(|| Error::NotAFile { path: path.to_path_buf() })?;
    if let Ok(target) = std::fs::read_link(path) {
        return Err(Error::Dangling { path: path.to_path_buf(), target });
    }
    Ok(folder.canonicalize().map_err(|_| missing())?.join(name))
}

/// Gives page 1 of a new file the fields that belong there, and says which those are. A file that is
/// only read from is in rollback mode, whatever the origin is in.
fn finish_first_page(
    received: &Received,
    geometry: Geometry,
    fields: Option<HeaderFields>,
    rollback: bool,
) -> Result<HeaderFields, Error> {
    let mut page = vec![0; geometry.page_size.bytes()];
    received.read(PageNumber::FIRST, &mut page)?;
    let mut bytes = fields.unwrap_or_else(|| HeaderFields::of(&page)).to_bytes();
    if rollback {
        bytes[..2].copy_from_slice(&[1, 1]);
    }
    let fields = HeaderFields::from_bytes(bytes);
    fields.put(&mut page);
    crate::new_file::write_page(&received.file, 0, &page, received.path())?;
    Ok(fields)
}

/// What arrived as page 1 must begin as a SQLite file of that page size does: versions 1 and 2 have no
/// proof, and a peer that is broken or worse must not turn a database into something else.
fn check_first_page(received: &Received, geometry: Geometry) -> Result<(), Error> {
    /// The magic at 0 and the page size at 16, <https://sqlite.org/fileformat2.html>, section 1.3.
    const BEGINNING: std::ops::Range<usize> = 0..18;
    if !received.pages.contains(PageNumber::FIRST.get()) {
        return Ok(());
    }
    let mut page = vec![0; geometry.page_size.bytes()];
    received.read(PageNumber::FIRST, &mut page)?;
    if page[BEGINNING] != empty_database(geometry.page_size)[BEGINNING] {
        return Err(Error::Invalid("a first page that no SQLite database has"));
    }
    Ok(())
}
