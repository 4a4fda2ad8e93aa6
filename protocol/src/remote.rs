//! Names of replicas, and what an argument of the command line names: a file here, a replica on the
//! server, or a file behind ssh.
//!
//! A **remote name** is `NAMESPACE/PATH`, and where a version is meant `NAMESPACE/PATH@VERSION`. Names
//! end up in URLs, in shell files, in folders and on terminals, and some come from the other side, so
//! the rules are strict and a name that was parsed needs no second look:
//!
//! - The namespace is 1 to 64 of `A-Z a-z 0-9 . _ -` and begins with a letter or digit.
//! - The path has one part or more with `/` between them: folders, and any name at the end. A part is
//!   1 to 255 bytes of UTF-8, neither `.` nor `..`, begins with neither `-`, `~` nor a space and does
//!   not end with a space.
//! - Of ASCII a part may have letters, digits, space and `. _ - + = , : ~ ( )`. So no backslash, quote,
//!   `@` (it begins the version), `$`, `%`, `?` or `#`, and no control character.
//! - Beyond ASCII it may have all but what cannot be seen or changes how the rest is shown: controls,
//!   blanks, direction marks, private and special code points. Names are compared byte by byte and
//!   not normalised.
//! - All of it is at most 1,024 bytes.

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::page::VersionNumber;

/// The longest namespace, in bytes.
pub const NAMESPACE_LEN_MAX: usize = 64;
/// The longest part of a replica path, in bytes.
pub const PART_LEN_MAX: usize = 255;
/// The longest replica path, and the longest remote name without its version, in bytes.
pub const NAME_LEN_MAX: usize = 1024;
/// The longest text of a version, in bytes: `latest-` and twenty digits.
pub const VERSION_LEN_MAX: usize = 27;

/// ASCII that a part of a path may have besides letters and digits.
const PUNCTUATION: &[u8] = b" ._-+=,:~()";

/// Why a text is no name of a replica.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// There is no `/` in it.
    #[error("a remote name is NAMESPACE/PATH, as in team/app.db")]
    NoPath,
    /// The namespace is empty, too long, or has characters that it may not have.
    #[error("a namespace is 1 to 64 letters, digits, dots, underscores and dashes, a letter or digit first")]
    Namespace,
    /// Longer than [`NAME_LEN_MAX`].
    #[error("the name is {0} bytes long; {NAME_LEN_MAX} is the most")]
    TooLong(usize),
    /// `//`, or a `/` at the beginning or the end, or nothing at all.
    #[error("the name has an empty part (nothing before, between or after a '/')")]
    EmptyPart,
    /// A part that is `.` or `..`.
    #[error("the name has '.' or '..' as a part; write ./ or ../ first to name a local file")]
    DotPart,
    /// Longer than [`PART_LEN_MAX`].
    #[error("a part of the name is {0} bytes long; {PART_LEN_MAX} is the most")]
    PartTooLong(usize),
    /// It begins with `-`, `~` or a space, or ends with a space.
    #[error("a part of the name begins or ends with {0:?}")]
    Edge(char),
    /// Not one of the characters that a name may have.
    #[error("the name has the character {0:?}, which names may not have")]
    Character(char),
}

/// What versions of a name someone means, and why a text does not say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VersionError {
    /// Not one of the forms.
    #[error("a version is written as 7, v7, latest or latest-2")]
    Form,
    /// Version 0.
    #[error("versions are counted from 1")]
    Zero,
    /// More than 64 bits.
    #[error("there are no versions of so high a number")]
    TooLarge,
}

/// The first part of a remote name: whose replica it is.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Namespace(String);

/// The name of a replica within its namespace: parts with `/` between them.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReplicaPath(String);

/// Namespace and path: the whole name of a replica on a server.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RemoteName {
    namespace: Namespace,
    path: ReplicaPath,
}

impl Namespace {
    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Namespace {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Namespace, NameError> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let first = text.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric);
        if first && text.len() <= NAMESPACE_LEN_MAX && text.bytes().all(allowed) {
            Ok(Namespace(text.to_owned()))
        } else {
            Err(NameError::Namespace)
        }
    }
}

impl ReplicaPath {
    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The parts, at least one.
    pub fn parts(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }

    /// The last part: what a pulled file is called where nothing else is said.
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }

    /// A path of one part or more made from any texts, for a replica that comes without a name (a host
    /// name and a local path, say): what a name may not have becomes `-`, what is too long is cut, and
    /// empty and dot parts are left out. `None` where nothing is left.
    pub fn suggest<'a>(parts: impl IntoIterator<Item = &'a str>) -> Option<ReplicaPath> {
        let mut path = String::new();
        for part in parts.into_iter().flat_map(|part| part.split(['/', '\\'])) {
            let part = suggest_part(part);
            if parse_part(&part).is_err()
                || path.len() + 1 + part.len() > NAME_LEN_MAX - NAMESPACE_LEN_MAX - 1
            {
                continue;
            }
            if !path.is_empty() {
                path.push('/');
            }
            path.push_str(&part);
        }
        path.parse().ok()
    }
}

/// A part as near to `part` as the rules allow; what still is none (empty, dots) stays none.
fn suggest_part(part: &str) -> String {
    let part: String = part.trim().chars().map(|c| if is_allowed(c) { c } else { '-' }).collect();
    let mut part = part.trim_start_matches(['-', '~', ' ']);
    if part.len() > PART_LEN_MAX {
        let end = (0..=PART_LEN_MAX).rev().find(|&at| part.is_char_boundary(at)).unwrap_or(0);
        part = &part[..end];
    }
    part.trim_end_matches(' ').to_owned()
}

impl FromStr for ReplicaPath {
    type Err = NameError;

    fn from_str(text: &str) -> Result<ReplicaPath, NameError> {
        if text.len() > NAME_LEN_MAX {
            return Err(NameError::TooLong(text.len()));
        }
        text.split('/').try_for_each(parse_part)?;
        Ok(ReplicaPath(text.to_owned()))
    }
}

fn parse_part(part: &str) -> Result<(), NameError> {
    if part.is_empty() {
        return Err(NameError::EmptyPart);
    }
    if part == "." || part == ".." {
        return Err(NameError::DotPart);
    }
    if part.len() > PART_LEN_MAX {
        return Err(NameError::PartTooLong(part.len()));
    }
    if let Some(c) = part.chars().find(|&c| !is_allowed(c)) {
        return Err(NameError::Character(c));
    }
    let first = part.chars().next().filter(|c| matches!(c, '-' | '~' | ' '));
    match first.or(part.chars().next_back().filter(|&c| c == ' ')) {
        Some(c) => Err(NameError::Edge(c)),
        None => Ok(()),
    }
}

fn is_allowed(c: char) -> bool {
    if c.is_ascii() {
        let byte = c as u8;
        byte.is_ascii_alphanumeric() || PUNCTUATION.contains(&byte)
    } else {
        !crate::text::is_unseen(c)
    }
}

impl RemoteName {
    /// From its two halves; an error where they are too long together.
    pub fn new(namespace: Namespace, path: ReplicaPath) -> Result<RemoteName, NameError> {
        let len = namespace.0.len() + 1 + path.0.len();
        if len > NAME_LEN_MAX { Err(NameError::TooLong(len)) } else { Ok(RemoteName { namespace, path }) }
    }

    /// Whose replica it is.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Its name in there.
    pub fn path(&self) -> &ReplicaPath {
        &self.path
    }
}

impl FromStr for RemoteName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<RemoteName, NameError> {
        let (namespace, path) = text.split_once('/').ok_or(NameError::NoPath)?;
        if namespace.is_empty() {
            return Err(NameError::EmptyPart);
        }
        RemoteName::new(namespace.parse()?, path.parse()?)
    }
}

macro_rules! show_as_text {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    )*};
}
show_as_text!(Namespace, ReplicaPath);

impl fmt::Display for RemoteName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.path)
    }
}

impl fmt::Debug for RemoteName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Which version of a replica is meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum VersionSelector {
    /// The newest.
    #[default]
    Latest,
    /// The one with this number.
    Number(VersionNumber),
    /// So many before the newest, at least one.
    Back(u64),
}

impl VersionSelector {
    /// From the header `X-ReplicaVersion`: empty, `7` or `-2`, and the forms of the command line.
    pub fn from_header(value: &str) -> Result<VersionSelector, VersionError> {
        match value.strip_prefix('-') {
            Some(back) => parse_number(back).map(VersionSelector::back),
            None => value.parse(),
        }
    }

    /// For the header `X-ReplicaVersion`.
    pub fn to_header(self) -> String {
        match self {
            VersionSelector::Latest => String::new(),
            VersionSelector::Number(number) => number.to_string(),
            VersionSelector::Back(back) => format!("-{back}"),
        }
    }

    /// The version that is meant where `latest` is the newest; `None` where there was none such.
    pub fn resolve(self, latest: VersionNumber) -> Option<VersionNumber> {
        match self {
            VersionSelector::Latest => Some(latest),
            VersionSelector::Number(number) => Some(number).filter(|&number| number <= latest),
            VersionSelector::Back(back) => latest.back(back),
        }
    }

    fn back(back: u64) -> VersionSelector {
        if back == 0 { VersionSelector::Latest } else { VersionSelector::Back(back) }
    }
}

/// What follows the `@`: nothing, `7`, `v7`, `latest` or `latest-2`.
impl FromStr for VersionSelector {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<VersionSelector, VersionError> {
        if let Some(rest) = text.strip_prefix("latest") {
            return match rest.strip_prefix('-') {
                Some(back) => parse_number(back).map(VersionSelector::back),
                None if rest.is_empty() => Ok(VersionSelector::Latest),
                None => Err(VersionError::Form),
            };
        }
        if text.is_empty() {
            return Ok(VersionSelector::Latest);
        }
        let number = parse_number(text.strip_prefix('v').unwrap_or(text))?;
        VersionNumber::new(number).map(VersionSelector::Number).ok_or(VersionError::Zero)
    }
}

/// Digits and nothing else: the standard library's parser would take a `+` too.
fn parse_number(digits: &str) -> Result<u64, VersionError> {
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(VersionError::Form);
    }
    digits.parse().map_err(|_| VersionError::TooLarge)
}

/// As on the command line, without the `@`: `latest`, `7` or `latest-2`.
impl fmt::Display for VersionSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            VersionSelector::Latest => f.write_str("latest"),
            VersionSelector::Number(number) => number.fmt(f),
            VersionSelector::Back(back) => write!(f, "latest-{back}"),
        }
    }
}

/// What an argument of the command line names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Argument {
    /// A file on this machine, as it was typed (`~/` is the caller's to expand).
    Local(PathBuf),
    /// A replica on the server, and which version of it.
    Remote {
        /// Its name.
        name: RemoteName,
        /// `None` where no `@` was typed.
        version: Option<VersionSelector>,
    },
    /// A file on another machine, behind ssh.
    Ssh {
        /// `HOST` or `USER@HOST`, safe to hand to ssh as an argument.
        destination: String,
        /// The file there, as it was typed.
        path: String,
    },
}

/// Why an argument names nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArgumentError {
    /// It is empty.
    #[error("an empty argument names no database")]
    Empty,
    /// It is taken for a remote name and is none.
    #[error("{text:?} is no remote name: {error}. (A local file begins with /, ./, ../ or ~/)")]
    Name {
        /// What was typed.
        text: String,
        /// What is wrong with it.
        error: NameError,
    },
    /// The version after the `@` is none.
    #[error("{text:?} names no version: {error}")]
    Version {
        /// What was typed.
        text: String,
        /// What is wrong with it.
        error: VersionError,
    },
    /// There is a `:` before any `/`, and what is before it is no host.
    #[error("{0:?} is no USER@HOST:PATH; write ./ first if it is a local file")]
    Ssh(String),
    /// The address of a server, with a replica behind it or not.
    #[error(
        "{0:?} is an address: a replica is NAMESPACE/PATH alone, and the server is said with --server or \
         SQLRSYNC_SERVER"
    )]
    Address(String),
    /// Not UTF-8, and no local file by its beginning.
    #[error("a remote name is UTF-8; write ./ first if it is a local file")]
    NotUtf8,
}

impl Argument {
    /// Tells local files, remote names and files behind ssh apart.
    ///
    /// - What begins with `/`, `./`, `../` or `~/` is local.
    /// - Else what begins as the address of a server does (`wss://`, `https://`) is nothing.
    /// - Else what has a `:` before any `/` is `USER@HOST:PATH` or `HOST:PATH`, as `sqlite3_rsync` has it.
    /// - Else what has no `/` is local.
    /// - Anything else is remote.
    pub fn parse(argument: &OsStr) -> Result<Argument, ArgumentError> {
        let bytes = argument.as_encoded_bytes();
        if bytes.is_empty() {
            return Err(ArgumentError::Empty);
        }
        let local = || Ok(Argument::Local(Path::new(argument).to_owned()));
        if [&b"/"[..], b"./", b"../", b"~/"].iter().any(|start| bytes.starts_with(start)) {
            return local();
        }
        let mark = bytes.iter().find(|&&b| b == b':' || b == b'/');
        match (mark, argument.to_str()) {
            (None, _) => local(),
            (Some(_), None) => Err(ArgumentError::NotUtf8),
            (Some(b':'), Some(text)) if is_address(text) => Err(ArgumentError::Address(text.to_owned())),
            (Some(b':'), Some(text)) => parse_ssh(text),
            (Some(_), Some(text)) => parse_remote(text),
        }
    }
}

/// Whether it begins as the address of a server. No host is meant by such a name, and ssh would look for it.
fn is_address(text: &str) -> bool {
    let scheme = text.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
    scheme.is_some_and(|scheme| ["ws", "wss", "http", "https"].contains(&scheme.as_str()))
}

fn parse_ssh(text: &str) -> Result<Argument, ArgumentError> {
    let fail = || ArgumentError::Ssh(text.to_owned());
    // An address of version 6 has colons of its own and stands in brackets.
    let (destination, path) = match text.find("]:") {
        Some(at) if text.contains('[') => (&text[..=at], &text[at + 2..]),
        _ => text.split_once(':').ok_or_else(fail)?,
    };
    let (user, host) = match destination.split_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, destination),
    };
    let word = |word: &str| {
        let safe = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        // What begins with a dash would be an option to ssh.
        !word.is_empty() && word.len() <= PART_LEN_MAX && !word.starts_with('-') && word.bytes().all(safe)
    };
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host = match address {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => word(host),
    };
    let path_is_safe = !path.is_empty() && !path.starts_with('-') && !path.chars().any(char::is_control);
    if host && user.is_none_or(word) && path_is_safe {
        Ok(Argument::Ssh { destination: destination.to_owned(), path: path.to_owned() })
    } else {
        Err(fail())
    }
}

fn parse_remote(text: &str) -> Result<Argument, ArgumentError> {
    let (name, version) = match text.split_once('@') {
        Some((name, version)) => (name, Some(version)),
        None => (text, None),
    };
    let name = name.parse().map_err(|error| ArgumentError::Name { text: text.to_owned(), error })?;
    let version = version.map(str::parse).transpose();
    let version = version.map_err(|error| ArgumentError::Version { text: text.to_owned(), error })?;
    Ok(Argument::Remote { name, version })
}

#[cfg(test)]
#[path = "remote_tests.rs"]
mod tests;
