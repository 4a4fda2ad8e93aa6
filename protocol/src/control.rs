//! Control messages: binary WebSocket messages that stand between the pieces of the page stream.
//!
//! | byte | name | then | sent by |
//! |---|---|---|---|
//! | 0x51 | CONFIG | | client, once |
//! | 0x52 | NEWREPLICAVERSION | | server |
//! | 0x53 | KEYREQUEST | | client, once |
//! | 0x54 | COMMITMESSAGE | length u16 big-endian, UTF-8 text of 4,096 bytes at most | client, PUSH |
//! | 0x57 | CHANGED | seconds u32 **little-endian** | client, PUSH |
//!
//! A piece of the stream is cut anywhere, so its first byte says nothing: what a message is follows
//! from where it stands. [`ServerSide`] and [`ClientSide`] tell, message by message:
//!
//! - CONFIG and KEYREQUEST are messages of exactly one byte, each at most once in a connection,
//!   directly after the first binary message or directly after the other one. Everywhere else the
//!   same byte is a piece of the stream.
//! - COMMITMESSAGE and CHANGED come only on a PUSH and before the first piece of the stream. That
//!   piece begins with ORIGIN_BEGIN, so nothing else can begin with their bytes there.
//! - CHANGED can come any number of times and is passed over by the rule for CONFIG: whatever comes
//!   first after it counts as the first message too.
//! - An empty message carries nothing and changes nothing.
//! - NEWREPLICAVERSION is a message of exactly one byte before the first or after the last piece of
//!   the stream; [`ClientSide::stream_ended`] says when that was.

use bytes::{BufMut, Bytes, BytesMut};

/// Type byte of CONFIG.
pub const CONFIG: u8 = 0x51;
/// Type byte of NEWREPLICAVERSION.
pub const NEW_REPLICA_VERSION: u8 = 0x52;
/// Type byte of KEYREQUEST.
pub const KEY_REQUEST: u8 = 0x53;
/// Type byte of COMMITMESSAGE.
pub const COMMIT_MESSAGE: u8 = 0x54;
/// Type byte of CHANGED.
pub const CHANGED: u8 = 0x57;

/// The longest text of a COMMITMESSAGE, in bytes.
pub const COMMIT_MESSAGE_MAX: usize = 4096;

/// The longest binary message that either side sends or takes, in bytes: for the WebSocket's own limit.
pub const BINARY_MESSAGE_MAX: usize = 64 * 1024;

const COMMIT_MESSAGE_HEADER_LEN: usize = 3;
const CHANGED_LEN: usize = 5;

/// What the server received in a binary message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromClient {
    /// A piece of the page stream, perhaps empty.
    Stream(Bytes),
    /// "Tell me the replica's id, path and version."
    Config,
    /// "Make me keys."
    KeyRequest,
    /// What the version that follows is to be described with; as it came, see [`crate::text::printable`].
    CommitMessage(String),
    /// A local write was seen; a push follows.
    Changed {
        /// In how many seconds from now.
        seconds: u32,
    },
}

/// What the client received in a binary message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromServer {
    /// A piece of the page stream, perhaps empty.
    Stream(Bytes),
    /// There is a version newer than the one that was pulled.
    NewReplicaVersion,
}

/// What the client sent that it may not send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// Longer than [`BINARY_MESSAGE_MAX`].
    #[error("the client sent a binary message of {0} bytes; {BINARY_MESSAGE_MAX} is the most")]
    TooLong(usize),
    /// A COMMITMESSAGE whose length field is not that of its text.
    #[error("the client sent a commit message with a wrong length")]
    CommitMessageLength,
    /// A COMMITMESSAGE of more than [`COMMIT_MESSAGE_MAX`] bytes.
    #[error("the commit message is {0} bytes long; shorten it to {COMMIT_MESSAGE_MAX} at most")]
    CommitMessageTooLong(usize),
    /// A COMMITMESSAGE that is not UTF-8.
    #[error("the client sent a commit message that is not UTF-8")]
    CommitMessageNotUtf8,
    /// A second COMMITMESSAGE.
    #[error("the client sent two commit messages")]
    CommitMessageTwice,
    /// A CHANGED that is not five bytes long.
    #[error("the client sent a CHANGED of {0} bytes; it has 5")]
    ChangedLength(usize),
}

/// Which way the pages go, seen from the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the server.
    Push,
    /// From the server to the client.
    Pull,
}

/// Tells what each binary message is that a server receives on one connection.
#[derive(Debug)]
pub struct ServerSide {
    direction: Direction,
    /// The first message (CHANGED aside) has come.
    begun: bool,
    /// A piece of the stream has come.
    streaming: bool,
    /// CONFIG and KEYREQUEST may come now.
    open: bool,
    config: bool,
    key_request: bool,
    commit_message: bool,
}

impl ServerSide {
    /// For a new connection.
    pub const fn new(direction: Direction) -> ServerSide {
        ServerSide {
            direction,
            begun: false,
            streaming: false,
            open: false,
            config: false,
            key_request: false,
            commit_message: false,
        }
    }

    /// Takes the next binary message.
    pub fn receive(&mut self, message: Bytes) -> Result<FromClient, ControlError> {
        if message.len() > BINARY_MESSAGE_MAX {
            return Err(ControlError::TooLong(message.len()));
        }
        if message.is_empty() {
            return Ok(FromClient::Stream(message));
        }
        // These two leave the door open for each other.
        if self.open && !self.config && *message == [CONFIG] {
            self.config = true;
            return Ok(FromClient::Config);
        }
        if self.open && !self.key_request && *message == [KEY_REQUEST] {
            self.key_request = true;
            return Ok(FromClient::KeyRequest);
        }
        let before_stream = self.direction == Direction::Push && !self.streaming;
        if before_stream && message[0] == CHANGED {
            self.open = true;
            return parse_changed(&message);
        }
        self.open = !self.begun;
        self.begun = true;
        if before_stream && message[0] == COMMIT_MESSAGE {
            if self.commit_message {
                return Err(ControlError::CommitMessageTwice);
            }
            self.commit_message = true;
            return parse_commit_message(&message);
        }
        self.streaming = true;
        Ok(FromClient::Stream(message))
    }
}

fn parse_changed(message: &[u8]) -> Result<FromClient, ControlError> {
    match *message {
        [_, a, b, c, d] => Ok(FromClient::Changed { seconds: u32::from_le_bytes([a, b, c, d]) }),
        _ => Err(ControlError::ChangedLength(message.len())),
    }
}

fn parse_commit_message(message: &[u8]) -> Result<FromClient, ControlError> {
    let [_, high, low, text @ ..] = message else {
        return Err(ControlError::CommitMessageLength);
    };
    let len = usize::from(u16::from_be_bytes([*high, *low]));
    if len > COMMIT_MESSAGE_MAX {
        return Err(ControlError::CommitMessageTooLong(len));
    }
    if len != text.len() {
        return Err(ControlError::CommitMessageLength);
    }
    let text = std::str::from_utf8(text).map_err(|_| ControlError::CommitMessageNotUtf8)?;
    Ok(FromClient::CommitMessage(text.to_owned()))
}

/// Tells what each binary message is that a client receives on one connection.
#[derive(Debug, Default)]
pub struct ClientSide {
    streaming: bool,
}

impl ClientSide {
    /// For a new connection.
    pub const fn new() -> ClientSide {
        ClientSide { streaming: false }
    }

    /// Takes the next binary message.
    pub fn receive(&mut self, message: Bytes) -> FromServer {
        if !self.streaming && *message == [NEW_REPLICA_VERSION] {
            return FromServer::NewReplicaVersion;
        }
        self.streaming |= !message.is_empty();
        FromServer::Stream(message)
    }

    /// The conversation on the stream is over; what comes next may be NEWREPLICAVERSION.
    pub fn stream_ended(&mut self) {
        self.streaming = false;
    }
}

/// CONFIG, ready to be sent.
pub const fn config() -> Bytes {
    Bytes::from_static(&[CONFIG])
}

/// KEYREQUEST, ready to be sent.
pub const fn key_request() -> Bytes {
    Bytes::from_static(&[KEY_REQUEST])
}

/// NEWREPLICAVERSION, ready to be sent.
pub const fn new_replica_version() -> Bytes {
    Bytes::from_static(&[NEW_REPLICA_VERSION])
}

/// COMMITMESSAGE with this text; an error where it is longer than [`COMMIT_MESSAGE_MAX`] bytes.
pub fn commit_message(text: &str) -> Result<Bytes, ControlError> {
    if text.len() > COMMIT_MESSAGE_MAX {
        return Err(ControlError::CommitMessageTooLong(text.len()));
    }
    let mut message = BytesMut::with_capacity(COMMIT_MESSAGE_HEADER_LEN + text.len());
    message.put_u8(COMMIT_MESSAGE);
    message.put_u16(text.len() as u16);
    message.put_slice(text.as_bytes());
    Ok(message.freeze())
}

/// CHANGED: a push follows in `seconds`.
pub fn changed(seconds: u32) -> Bytes {
    let mut message = BytesMut::with_capacity(CHANGED_LEN);
    message.put_u8(CHANGED);
    message.put_u32_le(seconds);
    message.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use FromClient::{Changed, CommitMessage, Config, KeyRequest, Stream};

    const BEGIN: &[u8] = &[0x41, 2, 12, 0, 0, 0, 9];

    fn receive(direction: Direction, messages: &[&[u8]]) -> Vec<FromClient> {
        let mut side = ServerSide::new(direction);
        messages.iter().map(|m| side.receive(Bytes::copy_from_slice(m)).unwrap()).collect()
    }

    fn stream(bytes: &[u8]) -> FromClient {
        Stream(Bytes::copy_from_slice(bytes))
    }

    #[test]
    fn config_and_key_request_come_directly_after_the_first_piece() {
        let expected = [stream(BEGIN), Config, KeyRequest, stream(b"more")];
        assert_eq!(receive(Direction::Push, &[BEGIN, b"\x51", b"\x53", b"more"]), expected);
        let expected = [stream(&[0x64; 9]), KeyRequest, Config, stream(b"\x51")];
        assert_eq!(receive(Direction::Pull, &[&[0x64; 9], b"\x53", b"\x51", b"\x51"]), expected);
    }

    #[test]
    fn one_byte_pieces_of_the_stream_that_look_like_requests_stay_pieces() {
        // Never asked, and the same bytes come later in a run of hashes.
        let expected = [stream(b"d123"), stream(b"4"), stream(b"\x51"), stream(b"\x53"), stream(b"\x51")];
        assert_eq!(receive(Direction::Pull, &[b"d123", b"4", b"\x51", b"\x53", b"\x51"]), expected);
        // Each counts once only.
        let expected = [stream(b"d"), Config, stream(b"\x51"), stream(b"\x53")];
        assert_eq!(receive(Direction::Pull, &[b"d", b"\x51", b"\x51", b"\x53"]), expected);
        let expected = [stream(b"d"), Config, KeyRequest, stream(b"\x53"), stream(b"\x51")];
        assert_eq!(receive(Direction::Pull, &[b"d", b"\x51", b"\x53", b"\x53", b"\x51"]), expected);
        // The first message of the connection is none.
        let expected = [stream(b"\x51"), Config];
        assert_eq!(receive(Direction::Pull, &[b"\x51", b"\x51"]), expected);
        // Longer messages are none, wherever they stand.
        let expected = [stream(b"d"), stream(b"\x51\x53"), stream(b"\x51")];
        assert_eq!(receive(Direction::Pull, &[b"d", b"\x51\x53", b"\x51"]), expected);
    }

    #[test]
    fn a_commit_message_comes_before_the_stream_and_requests_right_after_it() {
        let message = commit_message("first\n✓").unwrap();
        let expected = [CommitMessage("first\n✓".into()), Config, KeyRequest, stream(BEGIN), stream(b"\x51")];
        assert_eq!(receive(Direction::Push, &[&message, b"\x51", b"\x53", BEGIN, b"\x51"]), expected);
        let expected = [stream(BEGIN), stream(&message)];
        assert_eq!(receive(Direction::Push, &[BEGIN, &message]), expected, "a piece of a page");
        let expected = [stream(&message)];
        assert_eq!(receive(Direction::Pull, &[&message]), expected, "nobody commits on a pull");
    }

    #[test]
    fn changed_is_little_endian_and_only_known_before_the_stream() {
        assert_eq!(&changed(300)[..], [0x57, 44, 1, 0, 0]);
        let expected =
            [Changed { seconds: 300 }, Changed { seconds: 1 }, stream(BEGIN), Config, stream(&changed(2))];
        let messages: [&[u8]; 5] = [&changed(300), &changed(1), BEGIN, b"\x51", &changed(2)];
        assert_eq!(receive(Direction::Push, &messages), expected);
        assert_eq!(receive(Direction::Pull, &[&changed(1)]), [stream(&changed(1))]);
        assert_eq!(receive(Direction::Push, &[&changed(1), b"\x51"]), [Changed { seconds: 1 }, Config]);
        let message = commit_message("m").unwrap();
        let expected = [CommitMessage("m".into()), Changed { seconds: 1 }, stream(BEGIN)];
        assert_eq!(receive(Direction::Push, &[&message, &changed(1), BEGIN]), expected);
    }

    #[test]
    fn an_empty_message_changes_nothing() {
        let expected = [stream(b""), stream(BEGIN), stream(b""), Config, stream(b""), KeyRequest];
        assert_eq!(receive(Direction::Push, &[b"", BEGIN, b"", b"\x51", b"", b"\x53"]), expected);
    }

    #[test]
    fn malformed_control_messages_are_refused() {
        let fails = |message: &[u8]| {
            ServerSide::new(Direction::Push).receive(Bytes::copy_from_slice(message)).unwrap_err()
        };
        assert_eq!(fails(&[COMMIT_MESSAGE]), ControlError::CommitMessageLength);
        assert_eq!(fails(&[COMMIT_MESSAGE, 0]), ControlError::CommitMessageLength);
        assert_eq!(fails(&[COMMIT_MESSAGE, 0, 2, b'a']), ControlError::CommitMessageLength);
        assert_eq!(fails(&[COMMIT_MESSAGE, 0, 1, b'a', b'b']), ControlError::CommitMessageLength);
        assert_eq!(fails(&[COMMIT_MESSAGE, 0, 1, 0xff]), ControlError::CommitMessageNotUtf8);
        let mut long = vec![COMMIT_MESSAGE, 0x10, 0x01];
        long.resize(3 + 4097, b'a');
        assert_eq!(fails(&long), ControlError::CommitMessageTooLong(4097));
        assert_eq!(fails(&[CHANGED, 1, 0, 0]), ControlError::ChangedLength(4));
        assert_eq!(fails(&[CHANGED, 1, 0, 0, 0, 0]), ControlError::ChangedLength(6));
        assert_eq!(fails(&[0; BINARY_MESSAGE_MAX + 1]), ControlError::TooLong(BINARY_MESSAGE_MAX + 1));
        let mut side = ServerSide::new(Direction::Push);
        side.receive(commit_message("").unwrap()).unwrap();
        assert_eq!(side.receive(commit_message("").unwrap()), Err(ControlError::CommitMessageTwice));
    }

    #[test]
    fn the_longest_commit_message_is_4096_bytes() {
        let text = "a".repeat(COMMIT_MESSAGE_MAX);
        let message = commit_message(&text).unwrap();
        assert_eq!(receive(Direction::Push, &[&message]), [CommitMessage(text.clone())]);
        assert_eq!(commit_message(&(text + "a")), Err(ControlError::CommitMessageTooLong(4097)));
    }

    #[test]
    fn a_new_version_is_told_from_a_piece_of_the_stream() {
        let mut side = ClientSide::new();
        assert_eq!(side.receive(new_replica_version()), FromServer::NewReplicaVersion);
        assert_eq!(side.receive(Bytes::from_static(b"A")), FromServer::Stream(Bytes::from_static(b"A")));
        assert_eq!(side.receive(new_replica_version()), FromServer::Stream(new_replica_version()));
        side.stream_ended();
        assert_eq!(side.receive(new_replica_version()), FromServer::NewReplicaVersion);
    }
}
