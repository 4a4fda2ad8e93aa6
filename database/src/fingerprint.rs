//! A fingerprint of a database file: what `stat` and the WAL's frame headers say of it. Two of them
//! prove that the content did not change in between, without reading a page.
//!
//! - The database file is never opened here: closing any descriptor of it would drop the POSIX locks
//!   that SQLite holds on it in this process. The `-wal` file is opened: SQLite never locks that one
//!   (its locks are on the database and on the `-shm`), so there is nothing to drop.
//! - The WAL is described by its salts, the number of frames that carry them, and the cumulative
//!   checksum of the last. SQLite writes frames one after the other from the start of the file, and
//!   changes the salts when it starts over, so the frames of one generation are a prefix and are
//!   counted by bisection (<https://www.sqlite.org/fileformat2.html#the_write_ahead_log>).
//! - A fingerprint that belongs to a snapshot has the snapshot's own end of the WAL, not what the file
//!   shows: frames reach the file before the `-shm` publishes them.
//! - The clock of a file system ticks every few milliseconds: two writes in one tick leave the same
//!   ctime. What was recorded within [`TICK`] of the ctime proves nothing.

use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::error::{Error, io_error};
use crate::wal_file::WalHeader;

/// The longest tick of a file system's clock that keeps nanoseconds (Linux: 1 to 10 ms).
pub(crate) const TICK: Duration = Duration::from_millis(10);

/// The same for a file system that keeps whole seconds, or pairs of them.
const COARSE_TICK: Duration = Duration::from_secs(2);

/// A write that comes so long after another gives a file other times, on every file system.
pub const SHOWS_AFTER: Duration = COARSE_TICK;

/// What identifies a state of a database file without reading it.
#[derive(Serialize, Deserialize, PartialEq, Eq, Clone, Debug)]
pub struct Fingerprint {
    device: u64,
    inode: u64,
    /// When the file was made, where the file system knows: an inode's number is given again.
    #[serde(default)]
    born_ns: Option<i64>,
    size: u64,
    modified_ns: i64,
    changed_ns: i64,
    pub(crate) wal: Wal,
    /// When it was taken, before anything was looked at. Nanoseconds since 1970, as all times here.
    pub(crate) recorded_at_ns: i64,
}

/// The state of the `-wal` file.
#[derive(Serialize, Deserialize, PartialEq, Eq, Clone, Copy, Debug)]
pub(crate) enum Wal {
    /// There is none, or none with a frame in it.
    Empty,
    /// It has frames.
    Frames(WalPoint),
    /// It could not be told. Proves nothing.
    Unknown,
}

/// A point in a WAL: the end of a frame.
#[derive(Serialize, Deserialize, PartialEq, Eq, Clone, Copy, Debug)]
pub(crate) struct WalPoint {
    pub(crate) inode: u64,
    /// Both salts, as they stand in the file.
    pub(crate) salts: [u8; 8],
    /// Number of the frame, counted from 1.
    pub(crate) frame: u32,
    /// The cumulative checksum up to it, as it stands in the file.
    pub(crate) checksum: [u8; 8],
}

impl Fingerprint {
    /// Takes the fingerprint of the file as it is now.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::NotAFile`], [`Error::Denied`], [`Error::Io`].
    pub fn of(path: &Path) -> Result<Fingerprint, Error> {
        let recorded_at_ns = now_ns();
        // The WAL first: a checkpoint between the two looks moves content from it to the file.
        let wal = Wal::of(path)?;
        let file = stat(path)?;
        Ok(Fingerprint {
            device: file.dev(),
            inode: file.ino(),
            born_ns: born_ns(&file),
            size: file.size(),
            modified_ns: nanoseconds(file.mtime(), file.mtime_nsec()),
            changed_ns: nanoseconds(file.ctime(), file.ctime_nsec()),
            wal,
            recorded_at_ns,
        })
    }

    /// Whether the content at `now` is, for certain, what it was when `self` was taken. False says
    /// only that it may have changed.
    pub fn proves_unchanged(&self, now: &Fingerprint) -> bool {
        self.is_settled() && self.shows_the_same(now)
    }

    /// Whether both show the same. That proves that nothing was written in between only to whoever knows
    /// otherwise that the first was taken [`SHOWS_AFTER`] the last change, or later.
    pub fn shows_the_same(&self, now: &Fingerprint) -> bool {
        self.wal != Wal::Unknown
            && self.wal == now.wal
            && (self.device, self.inode, self.size) == (now.device, now.inode, now.size)
            && (self.modified_ns, self.changed_ns) == (now.modified_ns, now.changed_ns)
    }

    /// Whether it is of the very file that has this metadata, whatever was written to it since.
    pub(crate) fn is_of(&self, file: &Metadata) -> bool {
        (self.device, self.inode, self.born_ns) == (file.dev(), file.ino(), born_ns(file))
    }

    /// Whether it is certain that the file with this metadata is another one. An inode's number is given again, and
    /// not every file system knows when a file was made.
    pub(crate) fn is_of_another(&self, file: &Metadata) -> bool {
        let born = self.born_ns.zip(born_ns(file));
        (self.device, self.inode) != (file.dev(), file.ino()) || born.is_some_and(|(then, now)| then != now)
    }

    /// Whether the file with this metadata has been written to since, or is another one; the WAL aside.
    pub(crate) fn shows_a_write(&self, now: &Metadata) -> bool {
        let modified_ns = nanoseconds(now.mtime(), now.mtime_nsec());
        self.is_of_another(now) || (self.size, self.modified_ns) != (now.size(), modified_ns)
    }

    /// Device and inode of the file.
    pub const fn file(&self) -> (u64, u64) {
        (self.device, self.inode)
    }

    /// Whether it is certain that nobody has written to the database file since; the WAL aside.
    pub(crate) fn proves_unwritten(&self, now: &Metadata) -> bool {
        let modified_ns = nanoseconds(now.mtime(), now.mtime_nsec());
        let changed_ns = nanoseconds(now.ctime(), now.ctime_nsec());
        self.is_settled()
            && self.is_of(now)
            && self.size == now.size()
            && (self.modified_ns, self.changed_ns) == (modified_ns, changed_ns)
    }

    /// Whether it was taken long enough after the last change for every later one to show.
    pub fn is_settled(&self) -> bool {
        let tick = if self.changed_ns % 1_000_000_000 == 0 { COARSE_TICK } else { TICK };
        // A clock that was set back makes the difference negative, and nothing certain.
        self.recorded_at_ns.saturating_sub(self.changed_ns) > tick.as_nanos() as i64
    }

    /// Whether it is of that file as it was last written, with nothing in a WAL.
    pub(crate) fn has_file_of(&self, written: &Metadata) -> bool {
        let modified_ns = nanoseconds(written.mtime(), written.mtime_nsec());
        self.wal == Wal::Empty
            && (self.device, self.inode, self.size) == (written.dev(), written.ino(), written.size())
            && self.modified_ns == modified_ns
    }

    /// The same file with the WAL's state as a snapshot has it.
    pub(crate) fn with_wal(self, wal: Wal) -> Fingerprint {
        Fingerprint { wal, ..self }
    }
}

impl Wal {
    /// What the `-wal` beside `path` shows now.
    pub(crate) fn of(path: &Path) -> Result<Wal, Error> {
        let wal_path = beside(path, "-wal");
        let file = match File::open(&wal_path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Wal::Empty),
            Err(error) => return Err(Error::io("reading the WAL", &wal_path, error)),
        };
        read_wal(&file).map_err(io_error("reading the WAL", &wal_path))
    }

    /// The snapshot's own end of the WAL, once the file is seen to have that very frame. A snapshot of
    /// the database file alone, after a checkpoint, has none: then the WAL must show none either.
    pub(crate) fn at_mark(path: &Path, mark: &Mark) -> Result<Wal, Error> {
        if mark.frame == 0 {
            return Ok(if Wal::of(path)? == Wal::Empty { Wal::Empty } else { Wal::Unknown });
        }
        let wal_path = beside(path, "-wal");
        let Ok(file) = File::open(&wal_path) else { return Ok(Wal::Unknown) };
        let check = || -> std::io::Result<Wal> {
            let Some(header) = WalHeader::read(&file)? else { return Ok(Wal::Unknown) };
            let frame = match mark.frame.checked_sub(1) {
                Some(index) => header.frame(&file, index)?,
                None => return Ok(Wal::Unknown),
            };
            if frame.salts != mark.salts || frame.checksum != mark.checksum {
                return Ok(Wal::Unknown);
            }
            let Mark { salts, frame, checksum } = *mark;
            Ok(Wal::Frames(WalPoint { inode: header.inode, salts, frame, checksum }))
        };
        unknown_where_truncated(check()).map_err(io_error("reading the WAL", &wal_path))
    }
}

/// Where a snapshot ends in the WAL, as SQLite says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Mark {
    pub(crate) salts: [u8; 8],
    pub(crate) frame: u32,
    pub(crate) checksum: [u8; 8],
}

fn read_wal(file: &File) -> std::io::Result<Wal> {
    let read = || -> std::io::Result<Wal> {
        let Some(header) = WalHeader::read(file)? else { return Ok(Wal::Empty) };
        // How many frames, from the start, have the header's salts.
        let (mut with, mut room) = (0, header.room());
        while with < room {
            let middle = with + (room - with) / 2;
            if header.frame(file, middle)?.salts == header.salts {
                with = middle + 1;
            } else {
                room = middle;
            }
        }
        let Some(last) = with.checked_sub(1) else { return Ok(Wal::Empty) };
        let checksum = header.frame(file, last)?.checksum;
        Ok(Wal::Frames(WalPoint { inode: header.inode, salts: header.salts, frame: with, checksum }))
    };
    unknown_where_truncated(read())
}

/// A checkpoint may truncate a WAL as it is read, and that of a transaction that reads the file alone, too.
fn unknown_where_truncated(read: std::io::Result<Wal>) -> std::io::Result<Wal> {
    match read {
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(Wal::Unknown),
        other => other,
    }
}

/// The metadata of a regular file, by `stat` alone.
pub(crate) fn stat(path: &Path) -> Result<Metadata, Error> {
    let metadata = std::fs::metadata(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Error::Missing { path: path.to_path_buf() },
        _ => Error::io("looking at the file", path, error),
    })?;
    if metadata.is_file() { Ok(metadata) } else { Err(Error::NotAFile { path: path.to_path_buf() }) }
}

/// The path without symbolic links, after which SQLite names the journals and the WAL.
pub(crate) fn real_path(path: &Path) -> Result<PathBuf, Error> {
    stat(path)?;
    path.canonicalize().map_err(|error| match error.kind() {
        // Removed since.
        std::io::ErrorKind::NotFound => Error::Missing { path: path.to_path_buf() },
        _ => Error::io("finding the file", path, error),
    })
}

/// The path with `suffix` after its file name, as SQLite names what belongs to a database.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

fn nanoseconds(seconds: i64, nanoseconds: i64) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds)
}

fn born_ns(file: &Metadata) -> Option<i64> {
    file.created().ok().map(ns)
}

fn now_ns() -> i64 {
    ns(SystemTime::now())
}

fn ns(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
