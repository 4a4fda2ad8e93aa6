//! Programs that are to end by themselves. Each has a limit of time: one that goes over it is killed, and the
//! test fails with what the program has said so far. None outlives the test that has started it.

use std::io::Read;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a program may take that is to end by itself. It is no measure of speed: on the slowest machine
/// only one that hangs takes as long.
pub const RUN_MAX: Duration = Duration::from_secs(300);

/// How often it is looked whether a process is gone, which nobody tells of.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// A program that runs, and ends with this value.
#[derive(Debug)]
pub struct Running {
    /// The command, for who reads of its failure.
    command: String,
    child: Child,
    stdout: Heard,
    stderr: Heard,
    /// Says nothing, and is closed when both outputs have ended.
    speaking: Receiver<()>,
    deadline: Instant,
}

/// What came from one output so far.
#[derive(Clone, Debug, Default)]
struct Heard(Arc<Mutex<Vec<u8>>>);

impl Heard {
    fn listen(output: Option<impl Read + Send + 'static>, until_end: Sender<()>) -> Heard {
        let heard = Heard::default();
        let (bytes, mut output) = (Arc::clone(&heard.0), output.expect("its output is piped"));
        std::thread::spawn(move || {
            let mut piece = [0; 8192];
            while let Ok(len @ 1..) = output.read(&mut piece) {
                bytes.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&piece[..len]);
            }
            drop(until_end);
        });
        heard
    }

    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Running {
    /// Starts it, with nothing to read on its standard input. It may take [`RUN_MAX`] from here on.
    #[track_caller]
    pub fn start(command: &mut Command) -> Running {
        Running::start_within(command, RUN_MAX)
    }

    #[track_caller]
    fn start_within(command: &mut Command, at_most: Duration) -> Running {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child =
            command.spawn().unwrap_or_else(|error| panic!("{command:?} cannot be started: {error}"));
        let (until_end, speaking) = channel();
        Running {
            command: format!("{command:?}"),
            stdout: Heard::listen(child.stdout.take(), until_end.clone()),
            stderr: Heard::listen(child.stderr.take(), until_end),
            child,
            speaking,
            deadline: Instant::now() + at_most,
        }
    }

    /// Kills it.
    pub fn kill(&mut self) {
        kill(&mut self.child);
    }

    /// Waits for its end, and gives that with all that it said.
    ///
    /// # Panics
    /// It, or a process that it left behind with its outputs, goes on for longer than it may.
    #[track_caller]
    pub fn output(mut self) -> Output {
        let left = self.deadline.saturating_duration_since(Instant::now());
        let quiet = self.speaking.recv_timeout(left) == Err(RecvTimeoutError::Disconnected);
        let status = quiet.then(|| wait_until(&mut self.child, self.deadline)).flatten();
        if status.is_none() {
            self.kill();
        }
        let (stdout, stderr) = (self.stdout.take(), self.stderr.take());
        let Some(status) = status else {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            panic!("{} does not end; stdout: {}\nstderr: {}", self.command, text(&stdout), text(&stderr));
        };
        Output { status, stdout, stderr }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs a command to its end, as [`Command::output`] does, for [`RUN_MAX`] at most.
#[track_caller]
pub fn output(command: &mut Command) -> Output {
    Running::start(command).output()
}

/// Kills a process, and those that it has started: a script dies without the program that it runs.
pub(crate) fn kill(child: &mut Child) {
    // One that was waited for has nothing to do with its number any more.
    let below = if matches!(child.try_wait(), Ok(None)) { below(child.id()) } else { Vec::new() };
    let _ = child.kill();
    for pid in below {
        // SAFETY: sends a signal to a process that was there a moment ago.
        unsafe { libc::kill(pid, libc::SIGKILL) };
    }
    let _ = child.wait();
}

/// The processes that this one has started, those that they have started, and so on.
fn below(pid: impl std::fmt::Display) -> Vec<libc::pid_t> {
    let mut all = Vec::new();
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        for child in children.split_whitespace().filter_map(|child| child.parse().ok()) {
            all.push(child);
            all.extend(below(child));
        }
    }
    all
}

/// Waits for the end of a process; `None` where it did not come.
pub(crate) fn wait_until(child: &mut Child, deadline: Instant) -> Option<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            return Some(status);
        }
        if Instant::now() > deadline {
            return None;
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_program_that_ends_is_heard_to_its_end() {
        let ended = output(&mut shell("echo out; echo err >&2; exit 3"));
        assert_eq!(
            (ended.status.code(), &*ended.stdout, &*ended.stderr),
            (Some(3), &b"out\n"[..], &b"err\n"[..])
        );
    }

    #[test]
    fn what_a_program_has_started_ends_with_it() {
        let mut running = Running::start(&mut shell("sleep 1000 & echo $!; wait"));
        let deadline = Instant::now() + RUN_MAX;
        let mut said = Vec::new();
        while !said.ends_with(b"\n") {
            assert!(Instant::now() < deadline, "it says nothing");
            said.extend(running.stdout.take());
        }
        running.kill();
        let pid = String::from_utf8(said).expect("digits");
        let stat = format!("/proc/{}/stat", pid.trim());
        let gone = || std::fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z "));
        while !gone() {
            assert!(Instant::now() < deadline, "it goes on");
        }
    }

    #[test]
    fn a_program_that_does_not_end_is_killed_and_told_with_what_it_said() {
        // The second one closes its outputs and goes on.
        for hangs in ["echo first; exec sleep 1000", "echo first; exec >&- 2>&-; exec sleep 1000"] {
            let running = Running::start_within(&mut shell(hangs), Duration::from_secs(1));
            let pid = running.child.id();
            let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| running.output()));
            let said = failed.expect_err("it hangs").downcast::<String>().expect("a text");
            assert!(said.contains("does not end; stdout: first"), "{said}");
            assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "it goes on");
        }
    }
}
