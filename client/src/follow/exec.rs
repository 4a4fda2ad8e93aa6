//! `--exec`: a command of the user's that runs after each new version.
//!
//! - Nothing that a server says is in the command line: the number, the file and the replica's name are
//!   in the environment, the number as digits and the name in its strict alphabet.
//! - One at a time. Versions that come meanwhile are one more run, with the newest.
//! - It is a process group of its own, without stdin, and writes where our stderr goes: stdout is ours.
//! - When we stop it may finish for a while; then its group is told to, and at last killed. When we are
//!   to stop at once, it is killed at once.

use std::ffi::OsString;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use sqlrsync_protocol::page::VersionNumber;
use sqlrsync_protocol::remote::RemoteName;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::service;
use crate::wire::Cancel;

/// How long a command that runs is waited for when we stop.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For it to end by itself.
    pub finish: Duration,
    /// For it to heed SIGTERM, after that.
    pub terminate: Duration,
}

/// What `sqlrsync` has.
pub const PATIENCE: Patience = Patience { finish: Duration::from_secs(5), terminate: Duration::from_secs(2) };

/// What is run, for which file of which replica.
#[derive(Clone, Debug)]
pub struct Hook {
    /// For `sh -c`.
    pub command: OsString,
    /// The file that follows.
    pub database: PathBuf,
    /// What it follows.
    pub remote: RemoteName,
    /// How it is stopped.
    pub patience: Patience,
}

/// How a command ended.
#[derive(Debug)]
pub struct Ran {
    /// The version that it ran for; `None` where the server counts none.
    pub version: Option<VersionNumber>,
    /// Its end, or why it did not begin.
    pub status: std::io::Result<ExitStatus>,
    /// How long it took.
    pub took: Duration,
}

/// A version, and which of all that were announced it is: the same number twice is news twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Announced {
    count: u64,
    version: Option<VersionNumber>,
}

/// The task that runs the command.
#[derive(Debug)]
pub struct Exec {
    newest: watch::Sender<Announced>,
    task: JoinHandle<()>,
}

impl Exec {
    /// Starts the task on the runtime that this is called in. `report` hears of every end.
    pub fn start(hook: Hook, cancel: Cancel, report: impl Fn(Ran) + Send + 'static) -> Exec {
        let (newest, told) = watch::channel(Announced::default());
        Exec { newest, task: tokio::spawn(run(hook, told, cancel, report)) }
    }

    /// There is a new version.
    pub fn announce(&self, version: Option<VersionNumber>) {
        self.newest.send_modify(|newest| *newest = Announced { count: newest.count + 1, version });
    }

    /// No more versions: waits for the command that runs, with the bounds above.
    pub async fn finish(self) {
        drop(self.newest);
        // A task that panicked has been reported by the runtime.
        let _ = self.task.await;
    }
}

async fn run(
    hook: Hook,
    mut told: watch::Receiver<Announced>,
    cancel: Cancel,
    report: impl Fn(Ran) + Send + 'static,
) {
    while told.changed().await.is_ok() {
        let version = told.borrow_and_update().version;
        let began = Instant::now();
        let status = match hook.spawn(version) {
            Ok(mut child) => {
                tokio::select! {
                    status = wait(&mut child, &told, hook.patience) => status,
                    () = cancel.hurried() => kill(&mut child).await,
                }
            }
            Err(error) => Err(error),
        };
        report(Ran { version, status, took: began.elapsed() });
    }
}

impl Hook {
    fn spawn(&self, version: Option<VersionNumber>) -> std::io::Result<Child> {
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(&self.command).stdin(Stdio::null());
        command.stdout(std::io::stderr().as_fd().try_clone_to_owned()?);
        command.env("SQLRSYNC_VERSION", version.map(|version| version.to_string()).unwrap_or_default());
        command.env("SQLRSYNC_DATABASE", &self.database).env("SQLRSYNC_REPLICA", self.remote.to_string());
        // What it would say to the service manager would count as said by us.
        command.env_remove(service::SOCKET_VARIABLE).env_remove("WATCHDOG_USEC").env_remove("WATCHDOG_PID");
        command.process_group(0).kill_on_drop(true).spawn()
    }
}

/// Waits for the end of a command, patiently until `told` says that we stop.
async fn wait(
    child: &mut Child,
    told: &watch::Receiver<Announced>,
    patience: Patience,
) -> std::io::Result<ExitStatus> {
    tokio::select! {
        status = child.wait() => return status,
        () = stopping(told) => {}
    }
    if let Ok(status) = tokio::time::timeout(patience.finish, child.wait()).await {
        return status;
    }
    signal_group(child, Signal::TERM);
    if let Ok(status) = tokio::time::timeout(patience.terminate, child.wait()).await {
        return status;
    }
    kill(child).await
}

async fn kill(child: &mut Child) -> std::io::Result<ExitStatus> {
    signal_group(child, Signal::KILL);
    child.wait().await
}

/// Returns when there will be no more versions; those that come are left for later.
async fn stopping(told: &watch::Receiver<Announced>) {
    let mut told = told.clone();
    while told.changed().await.is_ok() {}
}

/// To the command and all that it started, while it has not been waited for: the number is its own.
fn signal_group(child: &Child, signal: Signal) {
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(Err(error)) = pid.map(|pid| kill_process_group(pid, signal)) {
        tracing::debug!(%error, "the command is gone already");
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::mpsc;

    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
    }

    fn hook(folder: &Path, command: &str) -> Hook {
        Hook {
            command: command.into(),
            database: folder.join("it's a \"file\".db"),
            remote: "team/app.db".parse().unwrap(),
            patience: Patience { finish: Duration::from_millis(200), terminate: Duration::from_millis(200) },
        }
    }

    fn wait_for(file: &Path) {
        let deadline = Instant::now() + DEADLINE;
        while !file.exists() {
            assert!(Instant::now() < deadline, "{} never came", file.display());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn number(number: u64) -> Option<VersionNumber> {
        VersionNumber::new(number)
    }

    const DEADLINE: Duration = Duration::from_secs(30);

    #[test]
    fn the_number_the_file_and_the_replica_are_in_the_environment() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        let command = format!(
            "printf '%s\\n' \"$SQLRSYNC_VERSION\" \"$SQLRSYNC_DATABASE\" \"$SQLRSYNC_REPLICA\" > '{}'; exit 7",
            out.display()
        );
        let hook = hook(folder.path(), &command);
        let runtime = runtime();
        let (ran, heard) = mpsc::channel();
        runtime.block_on(async {
            let exec = Exec::start(hook.clone(), Cancel::default(), move |end| ran.send(end).unwrap());
            exec.announce(number(12));
            exec.finish().await;
        });
        let end = heard.recv_timeout(DEADLINE).unwrap();
        assert_eq!((end.version, end.status.unwrap().code()), (number(12), Some(7)));
        let expected = format!("12\n{}\nteam/app.db\n", hook.database.display());
        assert_eq!(std::fs::read_to_string(out).unwrap(), expected);
    }

    #[test]
    fn versions_that_come_while_it_runs_are_one_more_run_with_the_newest() {
        let folder = tempfile::tempdir().unwrap();
        let (begun, go) = (folder.path().join("begun"), folder.path().join("go"));
        let command =
            format!("touch '{}'; until [ -e '{}' ]; do sleep 0.02; done", begun.display(), go.display());
        let runtime = runtime();
        let (ran, heard) = mpsc::channel();
        let _in_runtime = runtime.enter();
        let exec = Exec::start(hook(folder.path(), &command), Cancel::default(), move |end| {
            ran.send(end.version).unwrap()
        });
        exec.announce(number(1));
        wait_for(&begun);
        for later in 2..=5 {
            exec.announce(number(later));
        }
        std::fs::write(go, "").unwrap();
        assert_eq!(heard.recv_timeout(DEADLINE).unwrap(), number(1));
        assert_eq!(heard.recv_timeout(DEADLINE).unwrap(), number(5));
        runtime.block_on(exec.finish());
        assert!(heard.recv().is_err(), "and no other");
    }

    #[test]
    fn a_command_that_does_not_end_is_ended_with_all_that_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let pids = folder.path().join("pids");
        let command = format!(
            "trap '' TERM; sleep 1000 & echo $! > '{0}.new'; mv '{0}.new' '{0}'; wait; wait",
            pids.display()
        );
        let runtime = runtime();
        let (ran, heard) = mpsc::channel();
        let _in_runtime = runtime.enter();
        let exec =
            Exec::start(hook(folder.path(), &command), Cancel::default(), move |end| ran.send(end).unwrap());
        exec.announce(number(1));
        wait_for(&pids);
        let began = Instant::now();
        runtime.block_on(exec.finish());
        assert!(began.elapsed() >= Duration::from_millis(200), "it may finish by itself");
        assert!(!heard.recv_timeout(DEADLINE).unwrap().status.unwrap().success());
        let child = Pid::from_raw(std::fs::read_to_string(pids).unwrap().trim().parse().unwrap()).unwrap();
        let deadline = Instant::now() + DEADLINE;
        while rustix::process::test_kill_process(child).is_ok_and(|()| !is_zombie(child)) {
            assert!(Instant::now() < deadline, "what it started lives on");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// A grandchild that nobody has waited for yet.
    fn is_zombie(pid: Pid) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
        stat.map_or(true, |stat| stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z')))
    }
}
