//! The real `sqlrsync-server` on a data folder and a port of its own.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::port::Port;
use crate::process::{self, RUN_MAX};
use crate::programs::{Programs, programs};
use crate::subscriber::PATIENCE;

/// The namespace that [`Server::admin_key`] is for.
pub const NAMESPACE: &str = "team";

/// A server that runs, and ends with this value.
#[derive(Debug)]
pub struct Server {
    programs: Programs,
    child: Option<Child>,
    /// Its own also while it does not run.
    port: Port,
    url: String,
    flags: Vec<String>,
    environment: Vec<(String, String)>,
    folder: TempDir,
}

impl Server {
    /// Starts one on a new data folder.
    pub fn start() -> Server {
        Server::start_with(programs(), None, &[])
    }

    /// Starts one with more flags.
    pub fn with_flags(flags: &[&str]) -> Server {
        Server::start_with(programs(), None, flags)
    }

    /// Starts the server of `programs`, its data in a new folder below `parent` (the system's for
    /// temporary files if `None`).
    pub fn start_with(programs: &Programs, parent: Option<&Path>, flags: &[&str]) -> Server {
        let mut builder = tempfile::Builder::new();
        builder.prefix("sqlrsync-server-");
        let folder = match parent {
            Some(parent) => builder.tempdir_in(parent),
            None => builder.tempdir(),
        };
        let mut server = Server {
            programs: programs.clone(),
            child: None,
            port: Port::hold(),
            url: String::new(),
            flags: flags.iter().map(ToString::to_string).collect(),
            environment: Vec::new(),
            folder: folder.expect("a temporary folder can be made"),
        };
        server.launch();
        server
    }

    /// Starts it again on the same data and the same port, with these environment variables from now on.
    pub fn restart_with_env(&mut self, environment: &[(&str, String)]) {
        self.environment =
            environment.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        self.restart();
    }

    fn launch(&mut self) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log_path());
        let mut child = Command::new(&self.programs.server)
            .args(["serve", "--listen", &self.port.address().to_string(), "--data"])
            .arg(self.data())
            .args(&self.flags)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log.expect("the log can be opened"))
            .spawn()
            .expect("the server can be started");
        let lines = BufReader::new(child.stdout.take().expect("its output is piped")).lines();
        self.child = Some(child);
        let (found, url) = mpsc::channel();
        // Reads to the end, so that the server never waits for a full pipe.
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if let Some(url) = line.strip_prefix("listening on ") {
                    let _ = found.send(url.to_owned());
                }
            }
        });
        self.url = url
            .recv_timeout(PATIENCE)
            .unwrap_or_else(|_| panic!("no server is listening; its log:\n{}", self.log()));
    }

    /// `http://HOST:PORT`, as it said.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Its data folder.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// What it wrote to its standard error so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("server.log")
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// Whether the process is still there.
    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Runs another command of the server's program (`key`, `check`, …) on its data.
    pub fn command(&self, words: &[&str]) -> std::process::Output {
        // `key create` is two words; `--data` follows them.
        let flag = words.iter().position(|word| word.starts_with('-')).unwrap_or(words.len());
        let mut command = Command::new(&self.programs.server);
        process::output(command.args(&words[..flag]).arg("--data").arg(self.data()).args(&words[flag..]))
    }

    /// Makes a key: `create_key(&["--kind", "pull", "--replica", "team/app.db"])`.
    pub fn create_key(&self, flags: &[&str]) -> String {
        let output = self.command(&[&["key", "create"], flags].concat());
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        assert!(output.status.success(), "no key: {}", String::from_utf8_lossy(&output.stderr));
        text
    }

    /// A new admin key of [`NAMESPACE`].
    pub fn admin_key(&self) -> String {
        self.create_key(&["--kind", "admin", "--namespace", NAMESPACE])
    }

    /// Whether `check` proves everything that is stored.
    pub fn check(&self) -> bool {
        self.command(&["check"]).status.success()
    }

    /// Kills it as a power cut does.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            process::kill(&mut child);
        }
    }

    /// Asks it to stop, and waits for that.
    pub fn stop(&mut self) -> (ExitStatus, Duration) {
        let mut child = self.child.take().expect("it runs");
        let begin = Instant::now();
        terminate(&child);
        let Some(status) = process::wait_until(&mut child, begin + RUN_MAX) else {
            process::kill(&mut child);
            panic!("the server does not stop; its log:\n{}", self.log());
        };
        (status, begin.elapsed())
    }

    /// Starts it again on the same data and the same port.
    pub fn restart(&mut self) {
        self.kill();
        self.launch();
    }
}

/// Asks a process to stop, as `kill` does.
pub fn terminate(child: &Child) {
    let pid = libc::pid_t::try_from(child.id()).expect("a process id");
    // SAFETY: sends a signal to a child that nobody has waited for yet, so the id is still its own.
    unsafe { libc::kill(pid, libc::SIGTERM) };
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- the server's log:\n{}", self.log());
        }
    }
}
