//! A disk that loses its power: an ext4 of its own in a file, from which everything is gone that was not
//! synced.
//!
//! - A cut is the one that file systems themselves are tested with: `EXT4_IOC_SHUTDOWN` without flushing the
//!   log. From that moment nothing more reaches the image, at once and for everybody; what stood in memory
//!   only is lost, and the next mount recovers the journal as after any crash.
//! - The file system is told to be in no hurry of its own (`commit=600`), and not to sync on its own where a
//!   program that renames a file over another forgot to (`noauto_da_alloc`).
//! - ext4 writes its log in order: a sync of anything makes every rename and link before it durable. So a file whose
//!   sync was forgotten shows always, a folder's only where nothing is synced between it and the cut.
//! - What a drive still had in a cache of its own is not lost here: every sync is also a flush, so only a file
//!   system that lies could tell.
//! - The mount is in a namespace of the thread that made it and the programs that it starts: whatever becomes
//!   of them, the kernel unmounts it and frees the loop device with the last of them.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Bytes of a disk; what is not written takes no room.
const BYTES: u64 = 192 << 20;

/// How it is mounted.
const OPTIONS: &str = "loop,commit=600,noauto_da_alloc,noatime";

/// `_IOR('X', 125, __u32)` of the kernel's `uapi/linux/ext4.h`.
const EXT4_IOC_SHUTDOWN: u32 = 0x8004_587d;

/// Neither data nor log are flushed.
const NO_LOG_FLUSH: u32 = 2;

/// How long the files of killed programs may take to be closed.
const UNMOUNT_MAX: Duration = Duration::from_secs(10);

/// A disk with power, unmounted with this value.
#[derive(Debug)]
pub struct Disk {
    folder: TempDir,
}

impl Disk {
    /// A new, empty one, for a thread that has mounts of its own ([`keep_mounts_apart`]).
    ///
    /// # Errors
    /// Why there can be none here.
    pub fn new() -> Result<Disk, String> {
        let disk = Disk { folder: tempfile::tempdir().expect("a temporary folder can be made") };
        let image = File::create(disk.image()).expect("a file can be made");
        image.set_len(BYTES).expect("a length can be set");
        std::fs::create_dir(disk.path()).expect("a folder can be made");
        // No block of it is written but those that are needed.
        run(Command::new("mkfs.ext4")
            .args(["-q", "-F", "-b", "4096", "-E", "lazy_itable_init=1"])
            .arg(disk.image()))?;
        disk.mount().map_err(|why| format!("a file cannot be mounted as a disk: {why}"))?;
        // What making it has left to be written is none of the tests'.
        sync(&disk.path()).expect("a folder can be synced");
        Ok(disk)
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("disk")
    }

    /// Takes the power away. Programs that are on it only get errors from now on.
    pub fn cut(&self) {
        let folder = File::open(self.path()).expect("the disk can be opened");
        let flags = NO_LOG_FLUSH;
        // SAFETY: the descriptor is open, and the kernel reads one u32 through the pointer, which is one.
        let failed = unsafe { libc::ioctl(folder.as_raw_fd(), EXT4_IOC_SHUTDOWN.into(), &raw const flags) };
        assert_eq!(failed, 0, "a power cut: {}", io::Error::last_os_error());
    }

    /// Mounts it again after a cut. No program that had a file of it open may be left.
    pub fn recover(&self) {
        let deadline = Instant::now() + UNMOUNT_MAX;
        while let Err(why) = run(Command::new("umount").arg(self.path())) {
            assert!(Instant::now() < deadline, "{why}");
            std::thread::sleep(Duration::from_millis(5));
        }
        self.mount().unwrap_or_else(|why| panic!("the disk does not recover: {why}"));
    }

    fn image(&self) -> PathBuf {
        self.folder.path().join("image")
    }

    fn mount(&self) -> Result<(), String> {
        run(Command::new("mount").args(["-t", "ext4", "-o", OPTIONS]).arg(self.image()).arg(self.path()))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if run(Command::new("umount").arg(self.path())).is_err() {
            // Somebody still has a file of it open: it goes with them.
            let _ = run(Command::new("umount").arg("--lazy").arg(self.path()));
        }
    }
}

/// Makes what was written to a file, or the entries of a folder, durable.
///
/// # Errors
/// The system's.
pub fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Gives this thread, and what it starts from now on, mounts of its own.
///
/// # Errors
/// Where it may not mount anything, as nobody but root may.
pub fn keep_mounts_apart() -> io::Result<()> {
    // SAFETY: concerns no memory. The thread has its working folder for itself then, too, which nobody changes.
    if unsafe { libc::unshare(libc::CLONE_NEWNS) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let private = libc::MS_REC | libc::MS_PRIVATE;
    let (none, root) = (std::ptr::null(), c"/".as_ptr());
    // SAFETY: the path ends with a zero; the kernel looks at nothing else where only this is changed.
    if unsafe { libc::mount(none, root, none, private, std::ptr::null()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{:?}: {error}", command.get_program()))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }
}
