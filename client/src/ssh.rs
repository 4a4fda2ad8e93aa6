//! How a program is started on another machine: the command line of ssh, and the words in it.
//!
//! ssh hands everything behind the host to a shell there as one line, so each word is quoted for a
//! POSIX shell. The programs are tried in turn, and the next one only where the shell says that there
//! is none of the name before (exit code 127).

use std::process::Command;

use crate::plan::{Ssh, Way};
use crate::shell::quote;

/// What a shell exits with where there is no such program (POSIX.1-2017, XCU 2.8.2).
pub const NO_SUCH_PROGRAM: i32 = 127;

/// Where programs often are that a shell without a login does not look.
const MORE_FOLDERS: &str =
    "PATH=\"$HOME/.cargo/bin:$HOME/.local/bin:$HOME/bin:/usr/local/bin:/opt/homebrew/bin:$PATH\"";

/// A program to try there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its name, or a path.
    pub program: String,
    /// Look in more folders than the shell does.
    pub more_folders: bool,
    /// Whether it is a sqlrsync, which knows more flags and versions than sqlite3_rsync.
    pub is_sqlrsync: bool,
}

/// What to try there, in this order.
pub fn candidates(exe: Option<&str>) -> Vec<Candidate> {
    let candidate = |program: &str, more_folders| Candidate {
        program: program.to_owned(),
        more_folders,
        is_sqlrsync: program.rsplit('/').next() != Some("sqlite3_rsync"),
    };
    match exe {
        Some(exe) => vec![candidate(exe, false)],
        None => vec![
            candidate("sqlrsync", false),
            candidate("sqlite3_rsync", false),
            candidate("sqlrsync", true),
            candidate("sqlite3_rsync", true),
        ],
    }
}

/// The highest version that is spoken with the program.
pub fn protocol(candidate: &Candidate, wanted: u8) -> u8 {
    if candidate.is_sqlrsync { wanted } else { wanted.min(2) }
}

/// The whole command.
pub fn command(plan: &Ssh, candidate: &Candidate) -> Command {
    let mut command = Command::new(&plan.ssh);
    command.args(["-e", "none"]);
    if let Some(port) = plan.port {
        command.args(["-p", &port.to_string()]);
    }
    // The destination was parsed from a strict alphabet and cannot be an option.
    command.arg(destination(&plan.destination)).arg(line(plan, candidate));
    command
}

/// ssh wants an IPv6 address without its brackets.
fn destination(text: &str) -> String {
    text.replace(['[', ']'], "")
}

/// The line for the shell there.
fn line(plan: &Ssh, candidate: &Candidate) -> String {
    let mut words = Vec::new();
    if candidate.more_folders {
        words.push(MORE_FOLDERS.to_owned());
    }
    words.push(quote(&candidate.program));
    words.push(if plan.way == Way::Out { "--replica" } else { "--origin" }.to_owned());
    words.extend(["--protocol".to_owned(), protocol(candidate, plan.protocol).to_string()]);
    if candidate.is_sqlrsync {
        words.push("--remember".to_owned());
        words.extend((plan.force && plan.way == Way::Out).then(|| "--force".to_owned()));
    }
    let (here, there) = (quote(&file_name(plan)), quote(&remote_path(&plan.path)));
    words.extend(if plan.way == Way::Out { [here, there] } else { [there, here] });
    words.join(" ")
}

/// What the file here is called, for messages there. Never something that looks like a flag.
fn file_name(plan: &Ssh) -> String {
    let name = plan.local.path.file_name().map(|name| name.to_string_lossy().into_owned());
    let name = name.unwrap_or_default();
    if name.starts_with('-') || name.is_empty() { format!("./{name}") } else { name }
}

/// The path there. A shell there starts in the home folder, so `~/` means nothing more; a dash in
/// front would be taken for a flag.
fn remote_path(path: &str) -> String {
    let path = path.strip_prefix("~/").unwrap_or(path);
    if path.starts_with('-') { format!("./{path}") } else { path.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::LocalFile;

    fn plan(way: Way, path: &str) -> Ssh {
        Ssh {
            way,
            local: LocalFile { typed: "app.db".into(), path: "/srv/it's.db".into() },
            destination: "me@host".into(),
            path: path.into(),
            ssh: "ssh".into(),
            port: Some(2222),
            exe: None,
            protocol: 3,
            dry: false,
            force: false,
        }
    }

    /// What a shell makes of the line: its words.
    fn words(line: &str) -> Vec<String> {
        let script = format!("printf '%s\\0' {line}");
        let out = Command::new("sh").args(["-c", &script]).output().unwrap();
        let text = String::from_utf8(out.stdout).unwrap();
        text.split_terminator('\0').map(str::to_owned).collect()
    }

    #[test]
    fn hostile_names_arrive_as_one_word_each() {
        for name in ["/srv/a b.db", "/srv/$(touch x).db", "it's \"q\".db", "/a;b&c|d", "/new\nline", "*?[x]"]
        {
            let plan = plan(Way::Out, name);
            let words = words(&line(&plan, &candidates(None)[0]));
            assert_eq!(words, ["sqlrsync", "--replica", "--protocol", "3", "--remember", "it's.db", name]);
        }
    }

    #[test]
    fn what_would_be_a_flag_there_gets_a_folder_in_front() {
        let candidate = &candidates(None)[1];
        let words = words(&line(&plan(Way::In, "~/-rf.db"), candidate));
        assert_eq!(words, ["sqlite3_rsync", "--origin", "--protocol", "2", "./-rf.db", "it's.db"]);
    }

    #[test]
    fn ssh_gets_its_options_before_the_host() {
        let command = command(&plan(Way::Out, "/x.db"), &candidates(Some("/opt/sqlite3_rsync"))[0]);
        let arguments: Vec<_> = command.get_args().map(|a| a.to_string_lossy().into_owned()).collect();
        let line = "/opt/sqlite3_rsync --replica --protocol 2 'it'\\''s.db' /x.db";
        assert_eq!(arguments, ["-e", "none", "-p", "2222", "me@host", line]);
    }
}
