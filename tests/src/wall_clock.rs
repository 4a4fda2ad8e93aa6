//! A wall clock that jumps, for real programs while they run.
//!
//! A small C library is compiled once and loaded before the program's others (`LD_PRELOAD`): its
//! `clock_gettime`, `gettimeofday` and `time` add a number of seconds that stands in a mapped file, and
//! the test changes that file. The other clocks (monotonic, since boot) go on as they are, as they do on
//! a machine whose wall clock is set; so do the times that the file system gives to files.

use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use crate::process;

/// What the library reads its file's path from.
const FILE_ENV: &str = "SQLRSYNC_TEST_CLOCK";

/// System calls, so that the functions which are replaced here are not needed to replace them.
const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile long long *offset;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("SQLRSYNC_TEST_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *mapped = mmap(0, sizeof *offset, PROT_READ, MAP_SHARED, file, 0);
    if (mapped != MAP_FAILED) offset = mapped;
    close(file);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = (int)syscall(SYS_clock_gettime, clock, now);
    if (!failed && offset && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += *offset;
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec real;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &real)) return -1;
    now->tv_sec = real.tv_sec;
    now->tv_usec = real.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *out) {
    struct timespec real;
    if (clock_gettime(CLOCK_REALTIME, &real)) return (time_t)-1;
    if (out) *out = real.tv_sec;
    return real.tv_sec;
}
"#;

/// A wall clock of its own for as many programs as are started with it.
#[derive(Debug)]
pub struct WallClock {
    folder: TempDir,
}

impl WallClock {
    /// One that is right.
    pub fn new() -> WallClock {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let clock = WallClock { folder };
        clock.set(0);
        let source = clock.folder.path().join("clock.c");
        std::fs::write(&source, SOURCE).expect("a file can be written");
        let mut compiler = Command::new(std::env::var_os("CC").unwrap_or_else(|| "cc".into()));
        compiler.args(["-shared", "-fPIC", "-O1", "-o"]).arg(clock.library()).arg(&source);
        // By a C compiler, which SQLite is built with too.
        let compiled = process::output(&mut compiler);
        let said = String::from_utf8_lossy(&compiled.stderr);
        assert!(compiled.status.success(), "the clock does not compile: {said}");
        clock
    }

    /// From now on the programs' clock is so many seconds ahead; behind, where negative.
    pub fn set(&self, seconds: i64) {
        // In place: the programs have this very file in their memory.
        let mut file = std::fs::OpenOptions::new();
        let file = file.create(true).truncate(false).write(true).open(self.file()).expect("it opens");
        std::os::unix::fs::FileExt::write_all_at(&file, &seconds.to_ne_bytes(), 0).expect("it is written");
    }

    /// What a program needs in its environment to live by this clock.
    pub fn environment(&self) -> [(&'static str, String); 2] {
        let text = |path: PathBuf| path.to_str().expect("the path is UTF-8").to_owned();
        [("LD_PRELOAD", text(self.library())), (FILE_ENV, text(self.file()))]
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("offset")
    }

    fn library(&self) -> PathBuf {
        self.folder.path().join("clock.so")
    }
}

impl Default for WallClock {
    fn default() -> WallClock {
        WallClock::new()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    /// What `date` says the time is.
    fn seconds(clock: &WallClock) -> i64 {
        let mut date = Command::new("date");
        let output = process::output(date.arg("+%s").envs(clock.environment()));
        String::from_utf8(output.stdout).expect("digits").trim().parse().expect("a number")
    }

    #[test]
    fn a_program_sees_the_clock_jump_either_way() {
        let clock = WallClock::new();
        for jump in [0, 3600, -3600] {
            clock.set(jump);
            let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
            let seen = seconds(&clock) - jump;
            assert!(seen.abs_diff(i64::try_from(now).expect("small")) < 30, "{seen} at {now}");
        }
    }
}
