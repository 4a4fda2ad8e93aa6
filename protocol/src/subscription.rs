//! Messages of a subscription: JSON texts `{"type","data","timestamp"}`, and the bare words `PING`
//! and `PONG` that the public client uses.
//!
//! A client says SUBSCRIBE, UNSUBSCRIBE, PING and PONG; a server says SUBSCRIBED, LATEST_VERSION,
//! ERROR, PING and PONG. Both forms of PING and PONG are read from either side; the client writes the
//! bare words and the server JSON, as the public ones do. The time stamp (RFC 3339) is informative:
//! it is written as the caller hands it in, and not looked at when read. Unknown fields are passed over.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::page::VersionNumber;
use crate::text::{ReplicaIdText, parse_version, printable};

/// The longest subscription message, in bytes: for the WebSocket's own limit too.
pub const SUBSCRIPTION_MESSAGE_MAX: usize = 8 * 1024;

/// What a client says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ClientMessage {
    /// Tell me of new versions. Without an id the replica is the one that the connection is for.
    Subscribe(Option<ReplicaIdText>),
    /// No more.
    Unsubscribe,
    /// Are you there?
    Ping,
    /// Yes.
    Pong,
}

/// What a server says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ServerMessage {
    /// New versions will be told.
    Subscribed(Option<ReplicaIdText>),
    /// The newest version is this one.
    LatestVersion(VersionNumber),
    /// It cannot be done; one printable line.
    Error(String),
    /// Are you there?
    Ping,
    /// Yes.
    Pong,
}

/// Why a text is no message of a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SubscriptionError {
    /// Longer than [`SUBSCRIPTION_MESSAGE_MAX`].
    #[error("the peer sent a subscription message of {0} bytes; {SUBSCRIPTION_MESSAGE_MAX} is the most")]
    TooLong(usize),
    /// Not JSON of the form that it should be.
    #[error("the peer sent a subscription message that is not the JSON it should be")]
    Json,
    /// A type that this side does not know: of a newer peer, perhaps. To be passed over.
    #[error("the peer sent a subscription message of an unknown type")]
    Unknown,
    /// `replicaID` has characters or a length that it may not have.
    #[error("the peer sent a replicaID that is none")]
    ReplicaId,
    /// `version` is missing or no decimal number from 1.
    #[error("the peer sent a version that is no number")]
    Version,
}

#[derive(Serialize, Deserialize)]
struct Envelope<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    data: Option<Data<'a>>,
    #[serde(default, skip_deserializing)]
    timestamp: &'a str,
}

#[derive(Serialize, Deserialize, Default)]
struct Data<'a> {
    #[serde(rename = "replicaID", borrow, default, skip_serializing_if = "Option::is_none")]
    replica_id: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    version: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    message: Option<Cow<'a, str>>,
}

impl ClientMessage {
    /// What a server received.
    pub fn parse(text: &str) -> Result<ClientMessage, SubscriptionError> {
        let (kind, data) = match open(text)? {
            Opened::Ping => return Ok(ClientMessage::Ping),
            Opened::Pong => return Ok(ClientMessage::Pong),
            Opened::Message(kind, data) => (kind, data),
        };
        match &*kind {
            "SUBSCRIBE" => data.id().map(ClientMessage::Subscribe),
            "UNSUBSCRIBE" => Ok(ClientMessage::Unsubscribe),
            _ => Err(SubscriptionError::Unknown),
        }
    }

    /// What a client sends. `timestamp` is the time now, as RFC 3339 has it.
    pub fn to_text(&self, timestamp: &str) -> String {
        match self {
            ClientMessage::Subscribe(id) => write("SUBSCRIBE", Some(Data::of_id(id.as_ref())), timestamp),
            ClientMessage::Unsubscribe => write("UNSUBSCRIBE", None, timestamp),
            ClientMessage::Ping => "PING".to_owned(),
            ClientMessage::Pong => "PONG".to_owned(),
        }
    }
}

impl ServerMessage {
    /// What a client received.
    pub fn parse(text: &str) -> Result<ServerMessage, SubscriptionError> {
        let (kind, data) = match open(text)? {
            Opened::Ping => return Ok(ServerMessage::Ping),
            Opened::Pong => return Ok(ServerMessage::Pong),
            Opened::Message(kind, data) => (kind, data),
        };
        match &*kind {
            "SUBSCRIBED" => data.id().map(ServerMessage::Subscribed),
            "LATEST_VERSION" => {
                let version = data.version.as_deref().and_then(parse_version);
                version.map(ServerMessage::LatestVersion).ok_or(SubscriptionError::Version)
            }
            "ERROR" => Ok(ServerMessage::Error(printable(data.message.as_deref().unwrap_or_default()))),
            _ => Err(SubscriptionError::Unknown),
        }
    }

    /// What a server sends. `timestamp` is the time now, as RFC 3339 has it.
    pub fn to_text(&self, timestamp: &str) -> String {
        match self {
            ServerMessage::Subscribed(id) => write("SUBSCRIBED", Some(Data::of_id(id.as_ref())), timestamp),
            ServerMessage::LatestVersion(version) => {
                let data = Data { version: Some(version.to_string().into()), ..Data::default() };
                write("LATEST_VERSION", Some(data), timestamp)
            }
            ServerMessage::Error(message) => {
                let data = Data { message: Some(printable(message).into()), ..Data::default() };
                write("ERROR", Some(data), timestamp)
            }
            ServerMessage::Ping => write("PING", None, timestamp),
            ServerMessage::Pong => write("PONG", None, timestamp),
        }
    }
}

enum Opened<'a> {
    Ping,
    Pong,
    Message(Cow<'a, str>, Data<'a>),
}

/// What both sides read in the same way.
fn open(text: &str) -> Result<Opened<'_>, SubscriptionError> {
    if text.len() > SUBSCRIPTION_MESSAGE_MAX {
        return Err(SubscriptionError::TooLong(text.len()));
    }
    let kind = match text.trim() {
        bare @ ("PING" | "PONG") => Cow::Borrowed(bare),
        json => {
            let envelope: Envelope<'_> = serde_json::from_str(json).map_err(|_| SubscriptionError::Json)?;
            match &*envelope.kind {
                "PING" | "PONG" => envelope.kind,
                _ => return Ok(Opened::Message(envelope.kind, envelope.data.unwrap_or_default())),
            }
        }
    };
    Ok(if kind == "PING" { Opened::Ping } else { Opened::Pong })
}

impl<'a> Data<'a> {
    fn of_id(id: Option<&'a ReplicaIdText>) -> Data<'a> {
        Data { replica_id: id.map(|id| id.as_str().into()), ..Data::default() }
    }

    /// The replica's id; an empty one counts as none.
    fn id(&self) -> Result<Option<ReplicaIdText>, SubscriptionError> {
        match self.replica_id.as_deref() {
            None | Some("") => Ok(None),
            Some(id) => id.parse().map(Some).map_err(|_| SubscriptionError::ReplicaId),
        }
    }
}

fn write(kind: &'static str, data: Option<Data<'_>>, timestamp: &str) -> String {
    let envelope = Envelope { kind: kind.into(), data, timestamp };
    // A struct of strings has nothing in it that JSON could not hold.
    serde_json::to_string(&envelope).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-03-01T12:00:00Z";

    fn id(text: &str) -> Option<ReplicaIdText> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn the_forms_on_the_wire() {
        let version = ServerMessage::LatestVersion(VersionNumber::new(7).unwrap());
        let text = r#"{"type":"LATEST_VERSION","data":{"version":"7"},"timestamp":"2026-03-01T12:00:00Z"}"#;
        assert_eq!(version.to_text(NOW), text);
        let text = r#"{"type":"SUBSCRIBE","data":{"replicaID":"abc"},"timestamp":"2026-03-01T12:00:00Z"}"#;
        assert_eq!(ClientMessage::Subscribe(id("abc")).to_text(NOW), text);
        assert_eq!(ClientMessage::Ping.to_text(NOW), "PING");
        assert_eq!(ServerMessage::Pong.to_text(NOW), r#"{"type":"PONG","timestamp":"2026-03-01T12:00:00Z"}"#);
    }

    #[test]
    fn what_one_side_writes_the_other_reads() {
        use ClientMessage as C;
        use ServerMessage as S;
        for message in [C::Subscribe(id("a-b_9")), C::Subscribe(None), C::Unsubscribe, C::Ping, C::Pong] {
            assert_eq!(C::parse(&message.to_text(NOW)), Ok(message));
        }
        let version = S::LatestVersion(VersionNumber::new(u64::MAX).unwrap());
        for message in [S::Subscribed(id("x")), version, S::Error("no \"such\" 数".into()), S::Ping, S::Pong]
        {
            assert_eq!(S::parse(&message.to_text(NOW)), Ok(message));
        }
    }

    #[test]
    fn both_forms_of_ping_and_pong_are_read_from_either_side() {
        for text in ["PING", "PING\n", r#"{"type":"PING"}"#, r#"{"type":"PING","data":null,"timestamp":7}"#] {
            assert_eq!(ClientMessage::parse(text), Ok(ClientMessage::Ping), "{text}");
            assert_eq!(ServerMessage::parse(text), Ok(ServerMessage::Ping), "{text}");
        }
        assert_eq!(ClientMessage::parse("PONG"), Ok(ClientMessage::Pong));
        assert_eq!(ServerMessage::parse(r#"{"type":"PONG","data":{}}"#), Ok(ServerMessage::Pong));
    }

    #[test]
    fn unknown_fields_and_a_missing_id_are_passed_over() {
        let text =
            r#"{"extra":{"a":[1]},"data":{"replicaID":"","more":1},"timestamp":"x","type":"SUBSCRIBE"}"#;
        assert_eq!(ClientMessage::parse(text), Ok(ClientMessage::Subscribe(None)));
        assert_eq!(ClientMessage::parse(r#"{"type":"SUBSCRIBE"}"#), Ok(ClientMessage::Subscribe(None)));
        assert_eq!(ServerMessage::parse(r#"{"type":"ERROR"}"#), Ok(ServerMessage::Error(String::new())));
    }

    #[test]
    fn what_is_wrong_is_said() {
        use SubscriptionError::*;
        for text in ["", "ping", "{}", "[]", "7", r#"{"type":7}"#, r#"{"type":"PING""#] {
            assert_eq!(ClientMessage::parse(text), Err(Json), "{text}");
        }
        assert_eq!(ClientMessage::parse(r#"{"type":"LATEST_VERSION"}"#), Err(Unknown));
        assert_eq!(ServerMessage::parse(r#"{"type":"SUBSCRIBE"}"#), Err(Unknown));
        let text = r#"{"type":"SUBSCRIBE","data":{"replicaID":"../x"}}"#;
        assert_eq!(ClientMessage::parse(text), Err(ReplicaId));
        for version in [r#""""#, r#""x""#, r#""0""#, r#""+7""#, r#""18446744073709551616""#, "null"] {
            let text = format!(r#"{{"type":"LATEST_VERSION","data":{{"version":{version}}}}}"#);
            assert_eq!(ServerMessage::parse(&text), Err(Version), "{text}");
        }
        let long = format!(r#"{{"type":"{}"}}"#, "a".repeat(SUBSCRIPTION_MESSAGE_MAX));
        assert_eq!(ServerMessage::parse(&long), Err(TooLong(long.len())));
    }

    #[test]
    fn an_error_is_one_printable_line() {
        let text = r#"{"type":"ERROR","data":{"message":"a\u001b[2J\nb"}}"#;
        assert_eq!(ServerMessage::parse(text), Ok(ServerMessage::Error("a [2J b".into())));
    }
}
