//! Where the programs under test are.
//!
//! They are built by `cargo build` from this workspace the first time that somebody asks, so that plain
//! `cargo test` works in a fresh clone and never tests a stale program. `SQLRSYNC_TEST_PROGRAMS` names a
//! folder with ready-made ones instead (to test an installed release, say).

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The folder to take the programs from instead of building them.
pub const PROGRAMS_ENV: &str = "SQLRSYNC_TEST_PROGRAMS";

/// The two programs.
#[derive(Clone, Debug)]
pub struct Programs {
    /// `sqlrsync`.
    pub client: PathBuf,
    /// `sqlrsync-server`.
    pub server: PathBuf,
}

/// How to build them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Profile {
    /// As this crate itself was built.
    Same,
    /// Optimised, for what is measured.
    Release,
}

/// The programs, built as this crate was.
pub fn programs() -> &'static Programs {
    static PROGRAMS: OnceLock<Programs> = OnceLock::new();
    PROGRAMS.get_or_init(|| find(Profile::Same))
}

/// The programs as a release has them.
pub fn release_programs() -> &'static Programs {
    static PROGRAMS: OnceLock<Programs> = OnceLock::new();
    PROGRAMS.get_or_init(|| find(Profile::Release))
}

fn find(profile: Profile) -> Programs {
    if let Some(folder) = std::env::var_os(PROGRAMS_ENV) {
        let folder = PathBuf::from(folder);
        return Programs { client: folder.join("sqlrsync"), server: folder.join("sqlrsync-server") };
    }
    let release = profile == Profile::Release || !cfg!(debug_assertions);
    build(release)
}

fn build(release: bool) -> Programs {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(workspace());
    command.args(["build", "--quiet", "--bins", "--message-format=json-render-diagnostics"]);
    // The whole workspace, as CI builds it: a part of it would want its libraries with other features,
    // and compile them again.
    command.arg("--workspace");
    if release {
        command.arg("--release");
    }
    // What the outer cargo says of this crate is none of the inner one's business: build scripts that look
    // at it would run again, and half of the workspace with them, each time one follows the other.
    for (name, _) in std::env::vars_os() {
        if name
            .to_str()
            .is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_"))
        {
            command.env_remove(name);
        }
    }
    command.stderr(std::process::Stdio::inherit());
    let output = command.output().expect("cargo can be started");
    assert!(output.status.success(), "the programs under test do not build");
    let text = String::from_utf8(output.stdout).expect("cargo's messages are UTF-8");
    Programs { client: executable(&text, "sqlrsync"), server: executable(&text, "sqlrsync-server") }
}

/// The path that cargo reported for a program.
fn executable(messages: &str, name: &str) -> PathBuf {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == name)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .unwrap_or_else(|| panic!("cargo built no program named {name}"))
}

/// The root of the workspace.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this crate lies in the workspace")
}

/// A program that is not ours, where it is on the PATH.
pub fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}
