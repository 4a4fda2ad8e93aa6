//! Text messages that a server sends beside the page stream: `CONFIG={json}`, `MESSAGE=text` and
//! `ABORT=text`.
//!
//! What comes in them ends up in files and on terminals, so it is checked here, once: ids, names and
//! keys against strict alphabets, and texts by [`printable`].

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::key::AnyKey;
use crate::page::VersionNumber;
use crate::remote::RemoteName;

/// The longest text message that is read, in bytes.
pub const TEXT_MESSAGE_MAX: usize = 16 * 1024;
/// The longest text that is shown to a user or sent to be shown, in bytes.
pub const SHOWN_MAX: usize = 4096;
/// The longest id of a replica, in bytes.
pub const REPLICA_ID_MAX: usize = 64;

const CONFIG: &str = "CONFIG=";
const MESSAGE: &str = "MESSAGE=";
const ABORT: &str = "ABORT=";
const VERSION_CONFLICT: &str = "VERSION_CONFLICT:";

/// Whether a character cannot be seen, or changes how others are shown: controls, blanks other than
/// the space, direction marks and joiners, private use, and code points that stand for nothing.
pub fn is_unseen(c: char) -> bool {
    // Most are ASCII, whose blanks but the space are controls.
    if c.is_ascii() {
        return c.is_ascii_control();
    }
    if c.is_control() || c.is_whitespace() {
        return true;
    }
    matches!(u32::from(c),
        0xad | 0x61c | 0x115f | 0x1160 | 0x17b4 | 0x17b5 | 0x3164 | 0xffa0
        | 0x180b..=0x180f          // Mongolian variation selectors and vowel separator
        | 0x200b..=0x200f          // no width, direction marks
        | 0x2028..=0x202e          // separators, embeddings and overrides
        | 0x2060..=0x206f          // word joiner, isolates
        | 0xe000..=0xf8ff          // private use
        | 0xfdd0..=0xfdef          // no characters
        | 0xfeff
        | 0xfff0..=0xffff          // specials, the replacement character too
        | 0xe0000..=u32::MAX)      // tags, further private use
        || u32::from(c) & 0xfffe == 0xfffe
}

/// A text from elsewhere as one line that a terminal can be given: a run of spaces and unseen
/// characters becomes one space, none stays at either end, and what is longer than [`SHOWN_MAX`] bytes is cut.
pub fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len().min(SHOWN_MAX));
    let mut gap = false;
    for c in text.chars() {
        if c == ' ' || is_unseen(c) {
            gap = true;
            continue;
        }
        let space = usize::from(gap && !shown.is_empty());
        if shown.len() + space + c.len_utf8() > SHOWN_MAX {
            break;
        }
        if space == 1 {
            shown.push(' ');
        }
        gap = false;
        shown.push(c);
    }
    shown
}

/// The id of a replica as it stands in messages and files: 1 to 64 of `A-Z a-z 0-9 _ -`, a letter or
/// digit first. A server may have stricter ones of its own.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ReplicaIdText(String);

impl ReplicaIdText {
    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ReplicaIdText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for ReplicaIdText {
    type Err = TextError;

    fn from_str(text: &str) -> Result<ReplicaIdText, TextError> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
        let first = text.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric);
        if first && text.len() <= REPLICA_ID_MAX && text.bytes().all(allowed) {
            Ok(ReplicaIdText(text.to_owned()))
        } else {
            Err(TextError::Value("replicaID"))
        }
    }
}

/// What the key of a connection is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyType {
    /// It may push and pull.
    Push,
    /// It may pull.
    Pull,
}

/// What a server tells about the replica and the key. Every field may be missing: a later message
/// adds to an earlier one ([`Config::merge`]).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Config {
    /// `replicaID`.
    pub replica_id: Option<ReplicaIdText>,
    /// `replicaPath`: the whole name, `NAMESPACE/PATH`.
    pub replica_path: Option<RemoteName>,
    /// `committedVersionID`: the version that the push made, or that the pull gives.
    pub committed_version: Option<VersionNumber>,
    /// `keyType`.
    pub key_type: Option<KeyType>,
    /// `newPullKey`, answer to a KEYREQUEST.
    pub new_pull_key: Option<AnyKey>,
    /// `newPushKey`, answer to a KEYREQUEST on a PUSH.
    pub new_push_key: Option<AnyKey>,
}

impl Config {
    /// Adds a later message; where both have a field, the later one counts.
    pub fn merge(&mut self, later: Config) {
        self.replica_id = later.replica_id.or(self.replica_id.take());
        self.replica_path = later.replica_path.or(self.replica_path.take());
        self.committed_version = later.committed_version.or(self.committed_version);
        self.key_type = later.key_type.or(self.key_type);
        self.new_pull_key = later.new_pull_key.or(self.new_pull_key.take());
        self.new_push_key = later.new_push_key.or(self.new_push_key.take());
    }
}

/// Why a connection ends before its time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Abort {
    /// The base of the push is not the latest version, which is this one.
    VersionConflict(VersionNumber),
    /// Anything else; to be shown. The public client exits 0 after it.
    Text(String),
}

/// A text message from the server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ServerText {
    /// About the replica and the key.
    Config(Config),
    /// To be shown to the user: one printable line.
    Message(String),
    /// The end.
    Abort(Abort),
}

/// Why a text message cannot be understood. It is the server's fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// None of the known kinds: of a newer server, perhaps. To be passed over.
    #[error("the server sent a text message of an unknown kind")]
    Unknown,
    /// Longer than [`TEXT_MESSAGE_MAX`].
    #[error("the server sent a text message of {0} bytes; {TEXT_MESSAGE_MAX} is the most")]
    TooLong(usize),
    /// CONFIG is not followed by a JSON object with strings in it.
    #[error("the server sent a CONFIG that is not the JSON it should be")]
    Json,
    /// A field has a value that it may not have.
    #[error("the server sent a CONFIG whose {0} has characters or a length that it may not have")]
    Value(&'static str),
}

/// CONFIG as it travels.
#[derive(Serialize, Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct ConfigJson<'a> {
    #[serde(rename = "replicaID", default, skip_serializing_if = "Option::is_none")]
    replica_id: Option<std::borrow::Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    replica_path: Option<std::borrow::Cow<'a, str>>,
    #[serde(rename = "committedVersionID", default, skip_serializing_if = "Option::is_none")]
    committed_version: Option<std::borrow::Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key_type: Option<std::borrow::Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    new_pull_key: Option<std::borrow::Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    new_push_key: Option<std::borrow::Cow<'a, str>>,
}

/// A field, where an empty string counts as none.
fn field<T>(
    value: Option<std::borrow::Cow<'_, str>>,
    name: &'static str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<Option<T>, TextError> {
    match value {
        Some(text) if !text.is_empty() => parse(&text).map(Some).ok_or(TextError::Value(name)),
        _ => Ok(None),
    }
}

fn parse_config(json: &str) -> Result<Config, TextError> {
    // serde would take an array for the fields in their order.
    if !json.trim_start().starts_with('{') {
        return Err(TextError::Json);
    }
    let json: ConfigJson<'_> = serde_json::from_str(json).map_err(|_| TextError::Json)?;
    Ok(Config {
        replica_id: field(json.replica_id, "replicaID", |text| text.parse().ok())?,
        replica_path: field(json.replica_path, "replicaPath", |text| text.parse().ok())?,
        committed_version: field(json.committed_version, "committedVersionID", parse_version)?,
        key_type: field(json.key_type, "keyType", |text| match text {
            "PUSH" => Some(KeyType::Push),
            "PULL" => Some(KeyType::Pull),
            _ => None,
        })?,
        new_pull_key: field(json.new_pull_key, "newPullKey", |text| text.parse().ok())?,
        new_push_key: field(json.new_push_key, "newPushKey", |text| text.parse().ok())?,
    })
}

/// A version number as text: digits and nothing else.
pub(crate) fn parse_version(text: &str) -> Option<VersionNumber> {
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().and_then(VersionNumber::new)
}

impl FromStr for ServerText {
    type Err = TextError;

    fn from_str(text: &str) -> Result<ServerText, TextError> {
        if text.len() > TEXT_MESSAGE_MAX {
            return Err(TextError::TooLong(text.len()));
        }
        if let Some(json) = text.strip_prefix(CONFIG) {
            return parse_config(json).map(ServerText::Config);
        }
        if let Some(message) = text.strip_prefix(MESSAGE) {
            return Ok(ServerText::Message(printable(message)));
        }
        // Printable first: what is shown as a conflict is one.
        let abort = printable(text.strip_prefix(ABORT).ok_or(TextError::Unknown)?);
        let conflict = abort.strip_prefix(VERSION_CONFLICT).and_then(parse_version);
        Ok(ServerText::Abort(conflict.map_or(Abort::Text(abort), Abort::VersionConflict)))
    }
}

/// As it is sent. Texts to be shown are made printable and cut on the way out, too: old clients do
/// not do so themselves.
impl fmt::Display for ServerText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServerText::Config(config) => {
                let json = serde_json::to_string(&config_json(config)).map_err(|_| fmt::Error)?;
                write!(f, "{CONFIG}{json}")
            }
            ServerText::Message(text) => write!(f, "{MESSAGE}{}", printable(text)),
            ServerText::Abort(Abort::Text(text)) => write!(f, "{ABORT}{}", printable(text)),
            ServerText::Abort(Abort::VersionConflict(latest)) => {
                write!(f, "{ABORT}{VERSION_CONFLICT}{latest}")
            }
        }
    }
}

fn config_json(config: &Config) -> ConfigJson<'_> {
    ConfigJson {
        replica_id: config.replica_id.as_ref().map(|id| id.as_str().into()),
        replica_path: config.replica_path.as_ref().map(|name| name.to_string().into()),
        committed_version: config.committed_version.map(|version| version.to_string().into()),
        key_type: config.key_type.map(|kind| match kind {
            KeyType::Push => "PUSH".into(),
            KeyType::Pull => "PULL".into(),
        }),
        new_pull_key: config.new_pull_key.as_ref().map(|key| key.secret().into()),
        new_push_key: config.new_push_key.as_ref().map(|key| key.secret().into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(json: &str) -> Result<Config, TextError> {
        match format!("CONFIG={json}").parse()? {
            ServerText::Config(config) => Ok(config),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn config_travels_as_strings() {
        let sent = r#"CONFIG={"replicaID":"abc-1","replicaPath":"team/app.db","committedVersionID":"7","keyType":"PUSH","newPullKey":"sqlr_pull_x","newPushKey":"sqlr_push_x"}"#;
        let parsed: ServerText = sent.parse().unwrap();
        assert_eq!(parsed.to_string(), sent);
        let ServerText::Config(config) = parsed else { panic!() };
        assert_eq!(config.committed_version, VersionNumber::new(7));
        assert_eq!(config.key_type, Some(KeyType::Push));
        assert_eq!(config.replica_path.map(|p| p.to_string()).as_deref(), Some("team/app.db"));
        assert_eq!(ServerText::Config(Config::default()).to_string(), "CONFIG={}");
    }

    #[test]
    fn fields_of_a_later_config_add_to_an_earlier_one() {
        let mut all = config(r#"{"keyType":"PUSH","replicaID":"a"}"#).unwrap();
        all.merge(config(r#"{"committedVersionID":"3","replicaID":"b","other":[1,{}]}"#).unwrap());
        all.merge(config(r#"{"committedVersionID":"","keyType":null}"#).unwrap());
        assert_eq!(all, config(r#"{"keyType":"PUSH","replicaID":"b","committedVersionID":"3"}"#).unwrap());
    }

    #[test]
    fn hostile_values_are_refused() {
        let cases = [
            (r#"{"replicaID":"a;rm -rf ~"}"#, "replicaID"),
            (r#"{"replicaID":"-a"}"#, "replicaID"),
            (r#"{"replicaPath":"../etc/passwd"}"#, "replicaPath"),
            (r#"{"replicaPath":"team/$(x)"}"#, "replicaPath"),
            (r#"{"replicaPath":"team/a\u001b[2J"}"#, "replicaPath"),
            (r#"{"committedVersionID":"-1"}"#, "committedVersionID"),
            (r#"{"committedVersionID":"+1"}"#, "committedVersionID"),
            (r#"{"committedVersionID":"0"}"#, "committedVersionID"),
            (r#"{"keyType":"push"}"#, "keyType"),
            (r#"{"newPullKey":"a\" x"}"#, "newPullKey"),
            (r#"{"newPushKey":"a\nb"}"#, "newPushKey"),
        ];
        for (json, name) in cases {
            assert_eq!(config(json), Err(TextError::Value(name)), "{json}");
        }
        let long = format!(r#"{{"replicaID":"{}"}}"#, "a".repeat(REPLICA_ID_MAX + 1));
        assert_eq!(config(&long), Err(TextError::Value("replicaID")));
        for json in ["", "[]", "{", "7", r#"{"replicaID":7}"#, r#"{"keyType":"PUSH","keyType":"PULL"}"#] {
            assert_eq!(config(json), Err(TextError::Json), "{json}");
        }
        assert_eq!("x".repeat(20_000).parse::<ServerText>(), Err(TextError::TooLong(20_000)));
        for text in ["", "config={}", "HELLO=x"] {
            assert_eq!(text.parse::<ServerText>(), Err(TextError::Unknown), "{text}");
        }
    }

    #[test]
    fn a_debug_print_of_a_config_shows_no_key() {
        let config = config(r#"{"newPullKey":"topsecret","newPushKey":"topsecret"}"#).unwrap();
        assert!(!format!("{config:?}").contains("topsecret"));
    }

    #[test]
    fn messages_and_aborts() {
        let parse = |text: &str| text.parse::<ServerText>().unwrap();
        assert_eq!(parse("MESSAGE=a=b \u{1b}[31mred\r\n"), ServerText::Message("a=b [31mred".into()));
        assert_eq!(parse("ABORT=no"), ServerText::Abort(Abort::Text("no".into())));
        let conflict = ServerText::Abort(Abort::VersionConflict(VersionNumber::new(9).unwrap()));
        assert_eq!(parse("ABORT=VERSION_CONFLICT:9"), conflict);
        assert_eq!(conflict.to_string(), "ABORT=VERSION_CONFLICT:9");
        let odd = ServerText::Abort(Abort::Text("VERSION_CONFLICT:x".into()));
        assert_eq!(parse("ABORT=VERSION_CONFLICT:x"), odd);
        assert_eq!(ServerText::Message("a\nb".into()).to_string(), "MESSAGE=a b");
    }

    #[test]
    fn what_is_shown_is_one_line_of_seen_characters_and_of_bounded_length() {
        assert_eq!(printable("\r\n a \t\tb\u{202e}c\u{9b}2J \u{0}"), "a b c 2J");
        assert_eq!(printable("größe 数 🦀"), "größe 数 🦀");
        let long = printable(&"ü".repeat(SHOWN_MAX));
        assert_eq!(long.len(), SHOWN_MAX);
        assert!(printable(&format!("a{}", "ü".repeat(SHOWN_MAX))).len() <= SHOWN_MAX);
        assert_eq!(printable(&"\u{1b}".repeat(100_000)), "");
    }
}
