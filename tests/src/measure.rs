//! Runs a program and says what it took: time, peak memory, bytes read.

use std::io;
use std::mem::MaybeUninit;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use std::io::Read as _;
use std::os::unix::process::ExitStatusExt as _;

use crate::process::RUN_MAX;

/// What one run of a program took.
#[derive(Clone, Debug)]
pub struct Run {
    /// How it ended.
    pub status: ExitStatus,
    /// From the start of the process to its end.
    pub time: Duration,
    /// User and system time of all its threads.
    pub cpu: Duration,
    /// Peak resident memory, bytes.
    pub memory_bytes_max: u64,
    /// Bytes that it read through system calls, from files, pipes and sockets alike; `None` where the
    /// system does not say.
    pub bytes_read: Option<u64>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

/// Runs `command` to its end.
///
/// The system counts a child's peak memory from this process's own on (a child begins as a copy of
/// it). Where that hides the child's, what was seen of it every millisecond is said instead.
///
/// # Errors
/// The program cannot be started or waited for.
pub fn run(command: &mut Command) -> io::Result<Run> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let begin = Instant::now();
    let mut child = command.spawn()?;
    let pid = child.id();
    let sampler = std::thread::spawn(move || sample_memory(pid));
    let limit = Limit::on(pid);
    let (mut out, mut err) = (child.stdout.take(), child.stderr.take());
    let reader = std::thread::spawn(move || read_all(err.as_mut()));
    let stdout = read_all(out.as_mut());
    let stderr = reader.join().map_err(|_| io::Error::other("the reader of stderr panicked"))?;
    let ended = wait(&child, sampler, limit)?;
    drop(child);
    Ok(Run {
        status: ended.status,
        time: ended.at.duration_since(begin),
        cpu: ended.cpu,
        memory_bytes_max: ended.memory_bytes_max,
        bytes_read: ended.bytes_read,
        stdout,
        stderr,
    })
}

/// Kills a process that takes longer than any may ([`RUN_MAX`]): its exit status tells of it.
struct Limit {
    _not_yet: Sender<()>,
}

impl Limit {
    fn on(pid: u32) -> Limit {
        let (not_yet, over) = channel::<()>();
        std::thread::spawn(move || {
            if over.recv_timeout(RUN_MAX) == Err(RecvTimeoutError::Timeout) {
                let pid = libc::pid_t::try_from(pid).expect("a process id");
                // SAFETY: sends a signal to a child that nobody reaps before the other end of the channel is dropped.
                unsafe { libc::kill(pid, libc::SIGKILL) };
            }
        });
        Limit { _not_yet: not_yet }
    }
}

fn read_all(from: Option<&mut impl io::Read>) -> String {
    let mut bytes = Vec::new();
    if let Some(from) = from {
        let mut from = io::BufReader::new(from);
        // What could be read is worth more to a failed test than the error.
        let _ = from.read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

struct Ended {
    at: Instant,
    status: ExitStatus,
    cpu: Duration,
    memory_bytes_max: u64,
    bytes_read: Option<u64>,
}

/// Waits for a child without the standard library, which tells nothing but the exit status. The child
/// is reaped here: it must not be waited for again.
fn wait(child: &Child, sampler: JoinHandle<u64>, limit: Limit) -> io::Result<Ended> {
    let pid = libc::id_t::from(child.id());
    let mut info = MaybeUninit::<libc::siginfo_t>::uninit();
    // SAFETY: `info` is valid for a write; the result is not read. WNOWAIT leaves the child a zombie,
    // whose counters /proc still shows.
    if unsafe { libc::waitid(libc::P_PID, pid, info.as_mut_ptr(), libc::WEXITED | libc::WNOWAIT) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // Before the sampler wakes up, which sleeps for longer than a small job takes.
    let at = Instant::now();
    let bytes_read = counter(child.id(), "io", "rchar:");
    // Before the child is reaped: its number could be another process's after that.
    let sampled = sampler.join().unwrap_or(0);
    drop(limit);
    let mut status = 0;
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    let pid = libc::pid_t::try_from(child.id()).map_err(io::Error::other)?;
    // SAFETY: both pointers are valid for writes, and the child was not reaped yet.
    if unsafe { libc::wait4(pid, &mut status, 0, usage.as_mut_ptr()) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: zeros are a valid `rusage`, and wait4 filled it in.
    let usage = unsafe { usage.assume_init() };
    let cpu = duration(usage.ru_utime) + duration(usage.ru_stime);
    let counted = u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024;
    let own = memory_peak(std::process::id()).unwrap_or(0);
    let memory_bytes_max = if counted > own { counted } else { sampled };
    Ok(Ended { at, status: ExitStatus::from_raw(status), cpu, memory_bytes_max, bytes_read })
}

/// The highest peak that a process shows until it has ended.
fn sample_memory(pid: u32) -> u64 {
    let mut highest = 0;
    // A zombie has no memory to show.
    while let Some(peak) = memory_peak(pid) {
        highest = peak.max(highest);
        // Looked at every millisecond, a process that is busy on both cores takes twice the time.
        std::thread::sleep(Duration::from_millis(20));
    }
    highest
}

fn duration(time: libc::timeval) -> Duration {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let micros = u64::try_from(time.tv_usec).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_micros(micros)
}

/// Peak resident memory of a running process since it began, or since [`forget_memory_peak`]; bytes.
pub fn memory_peak(pid: u32) -> Option<u64> {
    counter(pid, "status", "VmHWM:").map(|kib| kib * 1024)
}

/// Lets [`memory_peak`] begin anew. Returns false where the system has no such thing.
pub fn forget_memory_peak(pid: u32) -> bool {
    // "5" is the one that resets VmHWM: proc(5).
    std::fs::write(format!("/proc/{pid}/clear_refs"), "5").is_ok()
}

/// Bytes that a running process has read through system calls so far.
pub fn bytes_read(pid: u32) -> Option<u64> {
    counter(pid, "io", "rchar:")
}

/// Bytes that went over the loopback interface so far, with all headers, of every process.
pub fn loopback_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/net/dev").ok()?;
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix("lo:"))?;
    line.split_whitespace().next()?.parse().ok()
}

fn counter(pid: u32, file: &str, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// Resident memory of a running process now; bytes.
pub fn memory_now(pid: u32) -> Option<u64> {
    counter(pid, "status", "VmRSS:").map(|kib| kib * 1024)
}

/// Processor time that a running process has used so far, with that of threads that have ended. Exact
/// to the nanosecond, where the usual counters have ticks of ten milliseconds.
pub fn processor_time(pid: u32) -> Option<Duration> {
    let pid = libc::pid_t::try_from(pid).ok()?;
    let mut clock = 0;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: both pointers are valid for writes; a process that is gone is an error and nothing else.
    let failed = unsafe {
        libc::clock_getcpuclockid(pid, &mut clock) != 0 || libc::clock_gettime(clock, &mut time) != 0
    };
    let seconds = u64::try_from(time.tv_sec).ok()?;
    (!failed).then(|| Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0)))
}

/// Raises this process's limit of open files to the most there may be, and says what that is.
pub fn open_files_max() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is valid for a write.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } != 0 {
        return 0;
    }
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: `limit` is a limit that was just read, with the soft one raised to the hard one.
    unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) };
    limit.rlim_cur
}
