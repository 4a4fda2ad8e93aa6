//! Where things are kept: settings, keys and state, by the environment of the process.
//!
//! `defaults.toml` and `local-secrets.toml` stand where the public client has them, in
//! `~/.config/sqlrsync`, so that either program finds what the other wrote. Our own `config.toml`
//! and the state follow the XDG base directories.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::error::Error;

/// The folders and files that are sqlrsync's own.
#[derive(Clone, Debug)]
pub struct Folders {
    home: PathBuf,
    config: PathBuf,
    state: PathBuf,
}

impl Folders {
    /// From the environment of the process.
    ///
    /// # Errors
    /// Where there is neither `HOME` nor an entry for the user.
    pub fn of_process() -> Result<Folders, Error> {
        let home = etcetera::home_dir().map_err(|_| Error::NoHome)?;
        Ok(Folders::new(home, std::env::var_os("XDG_CONFIG_HOME"), std::env::var_os("XDG_STATE_HOME")))
    }

    /// From a home folder and the two XDG variables; a relative one counts as not set
    /// (XDG Base Directory Specification).
    pub fn new(home: PathBuf, xdg_config: Option<OsString>, xdg_state: Option<OsString>) -> Folders {
        let or = |value: Option<OsString>, default: &str| {
            value.map(PathBuf::from).filter(|path| path.is_absolute()).unwrap_or_else(|| home.join(default))
        };
        Folders {
            config: or(xdg_config, ".config").join("sqlrsync"),
            state: or(xdg_state, ".local/state").join("sqlrsync"),
            home,
        }
    }

    /// The settings: `config.toml`.
    pub fn config_file(&self) -> PathBuf {
        self.config.join("config.toml")
    }

    /// What the public client keeps of its defaults: server and client id.
    pub fn defaults_file(&self) -> PathBuf {
        self.home.join(".config/sqlrsync/defaults.toml")
    }

    /// The push keys of this machine's databases.
    pub fn secrets_file(&self) -> PathBuf {
        self.home.join(".config/sqlrsync/local-secrets.toml")
    }

    /// What was last agreed on, by file and remote.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// `~/x` as the home folder has it; anything else as it is.
    pub fn expand_home(&self, path: &Path) -> PathBuf {
        path.strip_prefix("~").map_or_else(|_| path.to_owned(), |rest| self.home.join(rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xdg_moves_settings_and_state_but_not_the_public_clients_files() {
        let folders = Folders::new("/home/ada".into(), Some("/cfg".into()), Some("relative".into()));
        assert_eq!(folders.config_file(), Path::new("/cfg/sqlrsync/config.toml"));
        assert_eq!(folders.state(), Path::new("/home/ada/.local/state/sqlrsync"));
        assert_eq!(folders.secrets_file(), Path::new("/home/ada/.config/sqlrsync/local-secrets.toml"));
    }

    #[test]
    fn a_tilde_is_the_home_folder_only_in_front() {
        let folders = Folders::new("/home/ada".into(), None, None);
        assert_eq!(folders.expand_home(Path::new("~/app.db")), Path::new("/home/ada/app.db"));
        assert_eq!(folders.expand_home(Path::new("./~/app.db")), Path::new("./~/app.db"));
    }
}
