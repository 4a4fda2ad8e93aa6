//! A program that goes on until somebody stops it, such as `sqlrsync … --subscribe`: what it says is
//! read while it runs, and it ends with the test.

use std::io::{BufRead as _, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::process;
use crate::server::terminate;

/// How long anything that must happen may take, on a machine that builds at the same time.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// How long its outputs may stay open when it has ended.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// How often a condition is looked at that nobody tells of.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A program that runs.
#[derive(Debug)]
pub struct Subscriber {
    child: Option<Child>,
    said: Arc<Said>,
    name: String,
}

/// The lines of both outputs so far.
#[derive(Debug, Default)]
struct Said {
    lines: Mutex<Lines>,
    more: Condvar,
}

#[derive(Clone, Debug, Default)]
struct Lines {
    stdout: Vec<String>,
    stderr: Vec<String>,
    /// How many outputs have ended.
    ended: usize,
}

impl Said {
    fn change(&self, change: impl FnOnce(&mut Lines)) {
        change(&mut self.lines.lock().unwrap_or_else(PoisonError::into_inner));
        self.more.notify_all();
    }

    fn now(&self) -> Lines {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn read(self: &Arc<Said>, output: impl Read + Send + 'static, push: fn(&mut Lines, String)) {
        let said = Arc::clone(self);
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                said.change(|lines| push(lines, line));
            }
            said.change(|lines| lines.ended += 1);
        });
    }
}

impl Subscriber {
    /// Starts it. `name` is what a failed test calls it.
    pub fn start(name: &str, mut command: Command) -> Subscriber {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program can be started");
        let said = Arc::new(Said::default());
        said.read(child.stdout.take().expect("piped"), |lines, line| lines.stdout.push(line));
        said.read(child.stderr.take().expect("piped"), |lines, line| lines.stderr.push(line));
        Subscriber { child: Some(child), said, name: name.to_owned() }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// Whether the process is still there.
    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// What it said on standard output so far, each line an object of `--json`; others are left out.
    pub fn objects(&self) -> Vec<Value> {
        self.said.now().stdout.iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// What it said on standard output so far, as it is.
    pub fn stdout(&self) -> String {
        self.said.now().stdout.join("\n")
    }

    /// What it said on standard error so far.
    pub fn stderr(&self) -> String {
        self.said.now().stderr.join("\n")
    }

    /// Waits for an object that this is true of.
    #[track_caller]
    pub fn wait_for(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        let mut lines = self.said.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let mut seen = 0;
        loop {
            while seen < lines.stdout.len() {
                let object = serde_json::from_str(&lines.stdout[seen]).ok();
                seen += 1;
                if let Some(object) = object.filter(&wanted) {
                    return object;
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if lines.ended == 2 || left.is_zero() {
                drop(lines);
                panic!("{} did not come to {what}\n{}", self.name, self.report());
            }
            let waited = self.said.more.wait_timeout(lines, left);
            lines = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until it has this version or a later one, which it says with the others.
    #[track_caller]
    pub fn wait_for_version(&self, version: u64) -> Value {
        self.wait_for(&format!("version {version}"), |object| object["version"].as_u64() >= Some(version))
    }

    /// The newest version that it has said to have.
    pub fn version(&self) -> Option<u64> {
        self.objects().iter().filter_map(|object| object["version"].as_u64()).max()
    }

    /// Waits for its end, which is to come by itself, and gives its exit code (-1: a signal).
    #[track_caller]
    pub fn ended(&mut self) -> i32 {
        let mut child = self.child.take().expect("it runs");
        let Some(status) = process::wait_until(&mut child, Instant::now() + PATIENCE) else {
            process::kill(&mut child);
            panic!("{} does not end\n{}", self.name, self.report());
        };
        self.hear_out();
        status.code().unwrap_or(-1)
    }

    /// Waits for the last words of a process that has ended; a child that it left behind may have them.
    fn hear_out(&self) {
        let lines = self.said.lines.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.said.more.wait_timeout_while(lines, LAST_WORDS, |lines| lines.ended < 2));
    }

    /// Asks it to stop, and gives its exit code.
    #[track_caller]
    pub fn stop(&mut self) -> i32 {
        terminate(self.child.as_ref().expect("it runs"));
        self.ended()
    }

    /// All that it said, for a failed test.
    pub fn report(&self) -> String {
        let Lines { stdout, stderr, .. } = self.said.now();
        format!("--- {}, stdout:\n{}\n--- stderr:\n{}", self.name, stdout.join("\n"), stderr.join("\n"))
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            process::kill(&mut child);
        }
        if std::thread::panicking() {
            eprintln!("{}", self.report());
        }
    }
}

/// Waits until this is true.
#[track_caller]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "it did not come to this: {what}");
        std::thread::sleep(LOOK_EVERY);
    }
}
