//! `NAME-sqlrsync`: the file beside a database that says where it came from and holds a key to pull it.
//!
//! It is a shell script of one command, so that running it pulls the database again; here it is read
//! as words and never run. Two forms are read: the public client's, and our own, in which every value
//! is quoted and was checked against a strict alphabet (some of them come from a server). Ours is
//! readable for its owner only. A file that somebody else could have written is not read: it says to
//! which server a key goes.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sqlrsync_protocol::key::AnyKey;
use sqlrsync_protocol::remote::RemoteName;
use sqlrsync_protocol::text::ReplicaIdText;

use crate::error::Error;
use crate::files;
use crate::server_url::ServerUrl;
use crate::shell;

/// What follows the database's name.
const SUFFIX: &str = "-sqlrsync";

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFile {
    /// The replica's name.
    pub remote: RemoteName,
    /// Its id, where it is known.
    pub replica_id: Option<ReplicaIdText>,
    /// A key that may pull it; none is needed for a public one.
    pub pull_key: Option<AnyKey>,
    /// The server that it is on, and the only one that the key is for.
    pub server: Option<ServerUrl>,
}

impl KeyFile {
    /// Where the file of a database is.
    pub fn path_for(database: &Path) -> PathBuf {
        let mut name = OsString::from(database);
        name.push(SUFFIX);
        PathBuf::from(name)
    }

    /// Reads the file of a database; `None` where there is none.
    ///
    /// # Errors
    /// Where it cannot be read, others could have written it, or it is not one of the two forms.
    pub fn read(database: &Path) -> Result<Option<KeyFile>, Error> {
        let path = KeyFile::path_for(database);
        let Some(text) = files::read_small(&path).map_err(Error::file("read", &path))? else {
            return Ok(None);
        };
        let bad = |why: &str| Error::BadFile { path: path.clone(), why: why.to_owned() };
        let data = fs::metadata(&path).map_err(Error::file("read", &path))?;
        let me = rustix::process::geteuid().as_raw();
        if data.mode() & 0o022 != 0 || (data.uid() != me && data.uid() != 0) {
            return Err(bad(
                "others can write it, and it says to which server a key goes (chmod go-w mends that)",
            ));
        }
        parse(&text).map(Some).map_err(|why| bad(&why))
    }

    /// Whether the file of a database could be written, as far as that can be told without doing it.
    pub fn can_be_written(database: &Path) -> bool {
        script_name(database).is_some() && files::can_be_replaced(&KeyFile::path_for(database))
    }

    /// Writes the file of a database.
    ///
    /// # Errors
    /// Where it cannot be written, or the database's name is no text.
    pub fn write(&self, database: &Path) -> Result<(), Error> {
        let path = KeyFile::path_for(database);
        let name = script_name(database).ok_or_else(|| Error::BadFile {
            path: path.clone(),
            why: "the database's name cannot stand in a shell script".to_owned(),
        })?;
        files::replace(&path, self.script(name).as_bytes(), 0o700).map_err(Error::file("write", &path))
    }

    fn script(&self, name: &str) -> String {
        // A name that would not be taken for a local file gets its folder in front.
        let taken = name.starts_with(['-', '~']) || name.contains(':') || crate::cli::is_command(name);
        let name = if taken { format!("./{name}") } else { name.to_owned() };
        let mut command = format!(
            "sqlrsync {} {}",
            shell::quote_always(&self.remote.to_string()),
            shell::quote_always(&name)
        );
        let mut flag = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                command.push_str(&format!(" --{name}={}", shell::quote_always(&value)));
            }
        };
        flag("replicaID", self.replica_id.as_ref().map(ToString::to_string));
        flag("pullKey", self.pull_key.as_ref().map(|key| key.secret().to_owned()));
        flag("server", self.server.as_ref().map(ToString::to_string));
        format!(
            "#!/bin/sh\n# Pulls this database again. It holds a key: keep it to yourself.\n{command} \"$@\"\n"
        )
    }
}

/// The database's name, where it can stand in a script.
fn script_name(database: &Path) -> Option<&str> {
    let name = database.file_name().and_then(|name| name.to_str());
    name.filter(|name| !name.contains(char::is_control))
}

/// Reads the one command of the script.
fn parse(text: &str) -> Result<KeyFile, String> {
    // A backslash at a line's end joins it with the next.
    let text = text.replace("\\\n", " ");
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let (Some(line), None) = (lines.next(), lines.next()) else {
        return Err("it is not a script of one command".to_owned());
    };
    let words = shell::words(line).ok_or("its command does more than name its arguments")?;
    let words = words.strip_prefix(&["exec".to_owned()][..]).unwrap_or(&words);
    let program = words.first().map(|program| program.rsplit('/').next().unwrap_or_default());
    if program != Some("sqlrsync") {
        return Err("its command is not sqlrsync".to_owned());
    }
    arguments(&words[1..])
}

fn arguments(words: &[String]) -> Result<KeyFile, String> {
    let (mut remote, mut replica_id, mut pull_key, mut server) = (None, None, None, None);
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let Some(flag) = word.strip_prefix("--") else {
            // The first argument is the remote; the second is the database that we came from.
            if remote.is_none() && !word.starts_with('-') {
                remote = Some(word.split_once('@').map_or(word.as_str(), |(name, _)| name));
            }
            continue;
        };
        let (name, value) = match flag.split_once('=') {
            Some((name, value)) => (name, value.to_owned()),
            None if matches!(flag, "replicaID" | "pullKey" | "server") => {
                (flag, words.next().cloned().unwrap_or_default())
            }
            None => continue,
        };
        if value.is_empty() {
            continue;
        }
        match name {
            "replicaID" => replica_id = Some(value.parse().map_err(|_| "its replicaID is none")?),
            "pullKey" => pull_key = Some(value.parse().map_err(|_| "its pullKey is none")?),
            "server" => server = Some(value.parse().map_err(|_| "its server is none")?),
            _ => {}
        }
    }
    let remote = remote.ok_or("its command names no replica")?;
    let remote = remote.parse().map_err(|error| format!("its replica's name is none: {error}"))?;
    Ok(KeyFile { remote, replica_id, pull_key, server })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    use super::*;

    fn sample() -> KeyFile {
        KeyFile {
            remote: "team/größe (2).db".parse().unwrap(),
            replica_id: Some("abc-1".parse().unwrap()),
            pull_key: Some("sqlr_pull_x".parse().unwrap()),
            server: Some("ws://127.0.0.1:8080".parse().unwrap()),
        }
    }

    #[test]
    fn what_was_written_is_read_and_is_for_the_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("it's; a $(db).db");
        sample().write(&database).unwrap();
        assert_eq!(KeyFile::read(&database).unwrap(), Some(sample()));
        let mode = fs::metadata(KeyFile::path_for(&database)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn the_script_runs_one_program_with_exactly_these_arguments() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("it's; touch $(db).db");
        sample().write(&database).unwrap();
        // In the place of the program: one that prints its arguments, a line each.
        let program = folder.path().join("sqlrsync");
        fs::write(&program, "#!/bin/sh\nprintf '%s\\n' \"$@\"\n").unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let out = Command::new("sh")
            .arg(KeyFile::path_for(&database))
            .arg("--json")
            .env("PATH", format!("{}:/usr/bin:/bin", folder.path().display()))
            .output()
            .unwrap();
        let expected = "team/größe (2).db\nit's; touch $(db).db\n--replicaID=abc-1\n--pullKey=sqlr_pull_x\n\
                        --server=ws://127.0.0.1:8080\n--json\n";
        assert_eq!(String::from_utf8(out.stdout).unwrap(), expected);
    }

    #[test]
    fn the_public_clients_form_is_read() {
        let text = "#!/bin/bash\n# https://example.org\nsqlrsync team/app.db app.db --replicaID=r1 --pullKey=k \\\n  --server=wss://example.org \"$@\"\n";
        let file = parse(text).unwrap();
        assert_eq!(file.remote.to_string(), "team/app.db");
        assert_eq!(file.server.unwrap().to_string(), "wss://example.org");
        assert_eq!(file.pull_key.unwrap().secret(), "k");
        assert_eq!(parse("sqlrsync team/a.db a.db --subscribe").unwrap().pull_key, None);
    }

    #[test]
    fn a_script_that_does_more_is_not_read() {
        for text in [
            "",
            "rm -rf x",
            "sqlrsync team/a.db; rm x",
            "sqlrsync team/a.db $(x)",
            "sqlrsync team/a.db\nrm x",
            "sqlrsync ../etc/passwd x",
            "sqlrsync team/a.db x --pullKey='a b'",
            "sqlrsync team/a.db x --server='ws://h/$(x)'",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_file_that_others_can_write_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("a.db");
        sample().write(&database).unwrap();
        fs::set_permissions(KeyFile::path_for(&database), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(KeyFile::read(&database), Err(Error::BadFile { .. })));
        assert_eq!(KeyFile::read(&folder.path().join("b.db")).unwrap(), None);
    }

    #[test]
    fn a_database_named_like_a_command_stays_a_file() {
        assert!(sample().script("log").contains(" './log' "));
        assert!(sample().script("app.db").contains(" 'app.db' "));
    }
}
