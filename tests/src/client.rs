//! The real `sqlrsync`, as a user on a machine of their own: a home folder, a folder to work in, an
//! environment with nothing else in it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::measure;
use crate::process::{self, Running};
use crate::programs::{Programs, programs};
use crate::server::Server;

/// A user's machine.
#[derive(Debug)]
pub struct Client {
    programs: Programs,
    environment: Vec<(String, String)>,
    folder: TempDir,
}

/// What a run of the program said.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Its exit code; -1 where a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl From<Output> for Outcome {
    fn from(output: Output) -> Outcome {
        Outcome {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Outcome {
    /// The last line of `--json`.
    pub fn json(&self) -> Value {
        let line = self.stdout.lines().last().unwrap_or_default();
        serde_json::from_str(line)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {line:?}\nstderr: {}", self.stderr))
    }

    /// The same, where it must have succeeded.
    #[track_caller]
    pub fn ok(self) -> Outcome {
        self.code(0)
    }

    /// The same, where it must have ended with that exit code.
    #[track_caller]
    pub fn code(self, code: i32) -> Outcome {
        assert_eq!(self.code, code, "exit code; stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    /// The same, where it must not have ended with that exit code.
    #[track_caller]
    pub fn code_is_not(self, code: i32) -> Outcome {
        assert_ne!(self.code, code, "exit code; stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    /// The same, where one of the two outputs must have said this.
    #[track_caller]
    pub fn says(self, text: &str) -> Outcome {
        let said = self.stderr.contains(text) || self.stdout.contains(text);
        assert!(said, "{text:?} was not said; stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }
}

impl Client {
    /// A machine that knows no server and no key.
    pub fn stranger() -> Client {
        Client::new_in(programs(), None)
    }

    /// A machine whose server is this one, without a key.
    pub fn guest(server: &Server) -> Client {
        let client = Client::stranger();
        client.use_server(server.url());
        client
    }

    /// A machine whose server is this one, with an admin key in the environment.
    pub fn admin(server: &Server) -> Client {
        Client::guest(server).with_env("SQLRSYNC_ADMIN_KEY", &server.admin_key())
    }

    /// A machine with these programs, its files in a new folder below `parent`.
    pub fn new_in(programs: &Programs, parent: Option<&Path>) -> Client {
        let mut builder = tempfile::Builder::new();
        builder.prefix("sqlrsync-client-");
        let folder = match parent {
            Some(parent) => builder.tempdir_in(parent),
            None => builder.tempdir(),
        };
        let folder = folder.expect("a temporary folder can be made");
        for name in ["home", "work"] {
            std::fs::create_dir(folder.path().join(name)).expect("a folder can be made");
        }
        Client { programs: programs.clone(), environment: Vec::new(), folder }
    }

    /// Writes the server's address where the user of the public client has it.
    pub fn use_server(&self, url: &str) {
        let folder = self.home().join(".config/sqlrsync");
        std::fs::create_dir_all(&folder).expect("a folder can be made");
        let text = format!("[defaults]\nserver = \"{url}\"\n");
        std::fs::write(folder.join("defaults.toml"), text).expect("a file can be written");
    }

    /// With one more environment variable.
    #[must_use]
    pub fn with_env(mut self, name: &str, value: &str) -> Client {
        self.environment.retain(|(existing, _)| existing != name);
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The home folder.
    pub fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    /// The folder that the program is started in.
    pub fn work(&self) -> PathBuf {
        self.folder.path().join("work")
    }

    /// A file in [`Client::work`].
    pub fn path(&self, name: &str) -> PathBuf {
        self.work().join(name)
    }

    /// The program, ready to be started.
    pub fn command<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Command {
        self.command_of(&self.programs.client, arguments)
    }

    /// Another program on this machine.
    pub fn command_of<S: AsRef<OsStr>>(&self, program: &Path, arguments: &[S]) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.work()).env_clear().stdin(Stdio::null());
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", self.home());
        // A coverage or profiling run of the tests wants its own files.
        for name in ["LLVM_PROFILE_FILE", "TMPDIR"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.args(arguments);
        command
    }

    /// Starts the program, and does not wait for it.
    #[track_caller]
    pub fn start<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Running {
        Running::start(&mut self.command(arguments))
    }

    /// Runs the program.
    #[track_caller]
    pub fn run<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Outcome {
        outcome_of(&mut self.command(arguments))
    }

    /// Runs it with `--json` and gives the last line; it must succeed.
    #[track_caller]
    pub fn json<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Value {
        let mut command = self.command(arguments);
        command.arg("--json");
        outcome_of(&mut command).ok().json()
    }

    /// Runs it with `--json` and measures it.
    pub fn measure<S: AsRef<OsStr>>(&self, arguments: &[S]) -> measure::Run {
        let mut command = self.command(arguments);
        command.arg("--json");
        measure::run(&mut command).expect("the client can be started")
    }
}

/// Runs a command to its end, which must come within [`process::RUN_MAX`].
#[track_caller]
pub fn outcome_of(command: &mut Command) -> Outcome {
    process::output(command).into()
}
