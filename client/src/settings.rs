//! The settings: flag over environment over file over default, each with where it came from.
//!
//! The files are our own `config.toml`, with the names of the flags, and the public client's
//! `defaults.toml`, of which the server counts. What stands with a database (`NAME-sqlrsync`,
//! `local-secrets.toml`) comes between environment and file, and is [`crate::plan`]'s affair.

use std::cell::RefCell;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use sqlrsync_protocol::duration::Seconds;

use crate::cli::{OutputArgs, SettingArgs};
use crate::error::Error;
use crate::files;
use crate::folders::Folders;
use crate::server_url::ServerUrl;

/// Where sqlrsync-server listens if it is not told otherwise.
pub const DEFAULT_SERVER: &str = "ws://127.0.0.1:7777";

/// How long a silent server or peer is waited for, if not told otherwise.
pub const DEFAULT_TIMEOUT: &str = "1m";

/// The highest protocol version there is.
pub const PROTOCOL_MAX: u8 = 3;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The command line.
    Flag,
    /// A variable of the environment.
    Environment(String),
    /// A file.
    File(PathBuf),
    /// Nobody said anything.
    Default,
}

impl Source {
    /// Whether it was said for this run, and so also counts over what is stored with a database.
    pub fn is_explicit(&self) -> bool {
        matches!(self, Source::Flag | Source::Environment(_))
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Flag => write!(f, "flag"),
            Source::Environment(name) => write!(f, "{name}"),
            Source::File(path) => write!(f, "{}", path.display()),
            Source::Default => write!(f, "default"),
        }
    }
}

/// A value and where it came from.
#[derive(Clone, Debug)]
pub struct Setting<T> {
    /// What counts.
    pub value: T,
    /// Who said so.
    pub source: Source,
}

/// All settings of a run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The server.
    pub server: Setting<ServerUrl>,
    /// Certificates to trust in place of the system's.
    pub ca_file: Setting<Option<PathBuf>>,
    /// The highest protocol version to speak.
    pub protocol: Setting<u8>,
    /// The program that takes the place of ssh.
    pub ssh: Setting<String>,
    /// The port of ssh.
    pub port: Setting<Option<u16>>,
    /// The program to start on the other machine; where none is named, sqlrsync and then sqlite3_rsync.
    pub exe: Setting<Option<String>>,
    /// How long a silent server or peer is waited for.
    pub timeout: Setting<Seconds>,
    /// Errors only.
    pub quiet: Setting<bool>,
    /// No progress bar.
    pub no_progress: Setting<bool>,
}

/// A setting, or a file of settings, that cannot be used.
#[derive(Debug)]
pub struct Problem {
    /// The setting; `None` where it is a whole file.
    pub name: Option<String>,
    /// As it stands there.
    pub value: String,
    /// Where.
    pub source: Source,
    /// What is wrong with it.
    pub why: String,
}

impl Problem {
    /// As what ends a run.
    pub fn into_error(self) -> Error {
        let Problem { name, source, why, .. } = self;
        let hint = "sqlrsync config show says what is set where";
        match (name, source) {
            (None, Source::File(path)) => Error::BadFile { path, why },
            (name, source) => {
                let name = name.unwrap_or_default();
                let place = match &source {
                    Source::Flag => format!("--{name}"),
                    Source::Environment(variable) => variable.clone(),
                    Source::File(path) => format!("{name} in {}", path.display()),
                    Source::Default => name,
                };
                Error::usage(format!("{place} cannot be used: {why}"), hint)
            }
        }
    }
}

impl Settings {
    /// Settles every setting. What cannot be used counts as not said, and is handed out beside: it ends every
    /// run but one that shows the settings.
    ///
    /// # Errors
    /// Where a file cannot be read.
    pub fn survey(
        typed: &SettingArgs,
        output: &OutputArgs,
        environment: &dyn Fn(&str) -> Option<OsString>,
        folders: &Folders,
    ) -> Result<(Settings, Vec<Problem>), Error> {
        let (files, problems) = ConfigFiles::read(folders)?;
        let layers = Layers { environment, files, problems: RefCell::new(problems) };
        let settings = Settings::settle(typed, output, &layers, folders)?;
        Ok((settings, layers.problems.into_inner()))
    }

    fn settle(
        typed: &SettingArgs,
        output: &OutputArgs,
        layers: &Layers<'_>,
        folders: &Folders,
    ) -> Result<Settings, Error> {
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.to_string_lossy().into_owned());
        let on = |flag: bool| flag.then(|| "true".to_owned());
        let optional = |setting: Setting<String>| {
            let value = Some(setting.value).filter(|value| !value.is_empty());
            Setting { value, source: setting.source }
        };
        let ca_file = optional(layers.text("ca-file", path(&typed.ca_file), "")?);
        Ok(Settings {
            server: layers.parsed("server", typed.server.clone(), DEFAULT_SERVER)?,
            ca_file: Setting {
                value: ca_file.value.map(|p| folders.expand_home(Path::new(&p))),
                source: ca_file.source,
            },
            protocol: layers.checked("protocol", typed.protocol.clone(), "3", protocol)?,
            ssh: layers.text("ssh", typed.ssh.clone(), "ssh")?,
            port: layers.checked("port", typed.port.clone(), "", port)?,
            exe: optional(layers.text("exe", typed.exe.clone(), "")?),
            timeout: layers.parsed("timeout", typed.timeout.clone(), DEFAULT_TIMEOUT)?,
            quiet: layers.checked("quiet", on(output.quiet), "false", truth)?,
            no_progress: layers.checked("no-progress", on(output.no_progress), "false", truth)?,
        })
    }

    /// Each setting's name, value and source, for people.
    pub fn rows(&self) -> Vec<(&'static str, String, Source)> {
        fn row<T>(name: &'static str, setting: &Setting<T>, value: String) -> (&'static str, String, Source) {
            (name, value, setting.source.clone())
        }
        let path = self.ca_file.value.as_ref().map(|path| path.display().to_string());
        vec![
            row("server", &self.server, self.server.value.to_string()),
            row("ca-file", &self.ca_file, path.unwrap_or_default()),
            row("protocol", &self.protocol, self.protocol.value.to_string()),
            row("ssh", &self.ssh, self.ssh.value.clone()),
            row("port", &self.port, self.port.value.map(|port| port.to_string()).unwrap_or_default()),
            row("exe", &self.exe, self.exe.value.clone().unwrap_or_default()),
            row("timeout", &self.timeout, self.timeout.value.to_string()),
            row("quiet", &self.quiet, self.quiet.value.to_string()),
            row("no-progress", &self.no_progress, self.no_progress.value.to_string()),
        ]
    }
}

/// Reads the highest protocol version to speak.
///
/// # Errors
/// A sentence, where it is no version there is.
pub fn protocol(text: &str) -> Result<u8, String> {
    let version = text.parse::<u8>().ok().filter(|version| (1..=PROTOCOL_MAX).contains(version));
    version.ok_or_else(|| format!("the protocol versions are 1 to {PROTOCOL_MAX}"))
}

fn port(text: &str) -> Result<Option<u16>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let port = text.parse::<u16>().ok().filter(|&port| port > 0);
    port.map(Some).ok_or_else(|| "a port is a number from 1 to 65535".to_owned())
}

fn truth(text: &str) -> Result<bool, String> {
    match text {
        "true" | "1" | "yes" => Ok(true),
        "false" | "0" | "no" | "" => Ok(false),
        _ => Err("write true or false".to_owned()),
    }
}

struct Layers<'a> {
    environment: &'a dyn Fn(&str) -> Option<OsString>,
    files: ConfigFiles,
    problems: RefCell<Vec<Problem>>,
}

impl Layers<'_> {
    fn text(
        &self,
        name: &'static str,
        flag: Option<String>,
        default: &str,
    ) -> Result<Setting<String>, Error> {
        self.checked(name, flag, default, |text| Ok(text.to_owned()))
    }

    /// The highest layer that says something; where that cannot be used, the default.
    fn checked<T>(
        &self,
        name: &'static str,
        flag: Option<String>,
        default: &str,
        check: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Setting<T>, Error> {
        let (value, source) = self.said(name, flag, default);
        let why = match value.to_str().ok_or_else(|| "not UTF-8".to_owned()).and_then(&check) {
            Ok(value) => return Ok(Setting { value, source }),
            Err(why) => why,
        };
        let value = value.to_string_lossy().into_owned();
        let problem = Problem { name: Some(name.to_owned()), value, source, why };
        match check(default) {
            Ok(value) => {
                self.problems.borrow_mut().push(problem);
                Ok(Setting { value, source: Source::Default })
            }
            Err(_) => Err(problem.into_error()),
        }
    }

    fn said(&self, name: &'static str, flag: Option<String>, default: &str) -> (OsString, Source) {
        if let Some(value) = flag {
            return (value.into(), Source::Flag);
        }
        let variable = format!("SQLRSYNC_{}", name.replace('-', "_").to_uppercase());
        if let Some(value) = (self.environment)(&variable) {
            return (value, Source::Environment(variable));
        }
        match self.files.values.iter().find(|(key, _, _)| key == name) {
            Some((_, value, path)) => (value.into(), Source::File(path.clone())),
            None => (default.into(), Source::Default),
        }
    }

    fn parsed<T>(&self, name: &'static str, flag: Option<String>, default: &str) -> Result<Setting<T>, Error>
    where
        T: std::str::FromStr<Err: fmt::Display>,
    {
        self.checked(name, flag, default, |text| text.parse::<T>().map_err(|error| error.to_string()))
    }
}

/// The names that may stand in `config.toml`.
const NAMES: [&str; 9] =
    ["server", "ca-file", "protocol", "ssh", "port", "exe", "timeout", "quiet", "no-progress"];

/// Name, value as text, and file of everything that the files say; the first of a name counts.
struct ConfigFiles {
    values: Vec<(String, String, PathBuf)>,
}

impl ConfigFiles {
    /// Reads them. What is no setting, and a file that is none, is among the problems.
    fn read(folders: &Folders) -> Result<(ConfigFiles, Vec<Problem>), Error> {
        let (mut values, mut problems) = (Vec::new(), Vec::new());
        let config = folders.config_file();
        for (name, item) in table(&config, &mut problems)?.into_iter().flatten() {
            let name = name.replace('_', "-");
            if NAMES.contains(&name.as_str()) {
                values.push((name, plain_text(&item), config.clone()));
                continue;
            }
            let name = sqlrsync_protocol::text::printable(&name);
            let why = format!("there is no such setting; there are {}", NAMES.join(", "));
            let (value, source) = (plain_text(&item), Source::File(config.clone()));
            problems.push(Problem { name: Some(name), value, source, why });
        }
        let defaults = folders.defaults_file();
        let server = table(&defaults, &mut problems)?
            .and_then(|all| all.get("defaults")?.get("server").map(plain_text));
        if let Some(server) = server.filter(|server| !server.is_empty()) {
            values.push(("server".to_owned(), server, defaults));
        }
        Ok((ConfigFiles { values }, problems))
    }
}

/// The file as a table; `None` where there is no file, or none that can be used.
fn table(path: &Path, problems: &mut Vec<Problem>) -> Result<Option<toml::Table>, Error> {
    let Some(text) = files::read_small(path).map_err(Error::file("read", path))? else { return Ok(None) };
    match text.parse::<toml::Table>() {
        Ok(table) => Ok(Some(table)),
        Err(error) => {
            let why = format!("it is no TOML: {}", error.message());
            let source = Source::File(path.to_owned());
            problems.push(Problem { name: None, value: String::new(), source, why });
            Ok(None)
        }
    }
}

fn plain_text(value: &toml::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Home(tempfile::TempDir);

    impl Home {
        fn new(config: &str, defaults: &str) -> Home {
            let home = tempfile::tempdir().unwrap();
            let folder = home.path().join(".config/sqlrsync");
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("config.toml"), config).unwrap();
            std::fs::write(folder.join("defaults.toml"), defaults).unwrap();
            Home(home)
        }

        fn resolve(&self, typed: &SettingArgs, environment: &[(&str, &str)]) -> Result<Settings, Error> {
            let look =
                |name: &str| environment.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into());
            let folders = Folders::new(self.0.path().to_owned(), None, None);
            let (settings, problems) = Settings::survey(typed, &OutputArgs::default(), &look, &folders)?;
            problems.into_iter().next().map_or(Ok(settings), |problem| Err(problem.into_error()))
        }
    }

    #[test]
    fn flag_over_environment_over_file_over_the_public_clients_file_over_default() {
        let home = Home::new("server = 'ws://config'", "[defaults]\nserver = 'ws://defaults'\nwsID = 'x'");
        let flag = SettingArgs { server: Some("ws://flag".into()), ..SettingArgs::default() };
        let none = SettingArgs::default();
        let server = |result: Result<Settings, Error>| result.unwrap().server.value.to_string();
        assert_eq!(server(home.resolve(&flag, &[("SQLRSYNC_SERVER", "ws://env")])), "ws://flag");
        assert_eq!(server(home.resolve(&none, &[("SQLRSYNC_SERVER", "ws://env")])), "ws://env");
        assert_eq!(server(home.resolve(&none, &[])), "ws://config");
        let home = Home::new("", "[defaults]\nserver = 'ws://defaults'");
        assert_eq!(server(home.resolve(&none, &[])), "ws://defaults");
        assert_eq!(server(Home::new("", "").resolve(&none, &[])), DEFAULT_SERVER);
    }

    #[test]
    fn a_value_that_cannot_be_is_named_with_its_place() {
        let home = Home::new("port = 70000", "");
        let error = home.resolve(&SettingArgs::default(), &[]).unwrap_err();
        assert!(error.to_string().contains("config.toml") && error.exit_code() == 2, "{error}");
        let error =
            Home::new("", "").resolve(&SettingArgs::default(), &[("SQLRSYNC_PROTOCOL", "4")]).unwrap_err();
        assert!(error.to_string().contains("SQLRSYNC_PROTOCOL"), "{error}");
    }

    #[test]
    fn a_value_that_cannot_be_leaves_the_others_to_be_shown() {
        let home = Home::new("port = 70000\nprotocol = 2\nsever = 'x'", "[defaults");
        let folders = Folders::new(home.0.path().to_owned(), None, None);
        let look = |name: &str| (name == "SQLRSYNC_TIMEOUT").then(|| OsString::from("soon"));
        let (settings, problems) =
            Settings::survey(&SettingArgs::default(), &OutputArgs::default(), &look, &folders).unwrap();
        assert_eq!((settings.protocol.value, settings.port.value), (2, None));
        let names: Vec<_> = problems.iter().map(|problem| problem.name.as_deref()).collect();
        assert_eq!(names, [Some("sever"), None, Some("port"), Some("timeout")]);
        assert!(problems.into_iter().all(|problem| problem.into_error().exit_code() == 2));
    }

    #[test]
    fn an_unknown_name_is_refused_and_underscores_do() {
        assert!(Home::new("sever = 'x'", "").resolve(&SettingArgs::default(), &[]).is_err());
        let settings =
            Home::new("ca_file = '~/ca.pem'\nport = 22", "").resolve(&SettingArgs::default(), &[]).unwrap();
        assert!(settings.ca_file.value.unwrap().is_absolute());
        assert_eq!(settings.port.value, Some(22));
    }
}
