//! Targets for what surrounds the page stream, and for blocks.

use std::ffi::OsStr;

use bytes::Bytes;

use super::pieces;
use crate::block::{BLOCK_RAW_MAX, Block, BlockBuilder, Effort};
use crate::control::{ClientSide, Direction, FromClient, FromServer, ServerSide, commit_message};
use crate::cutter::{CLIENT_PIECE_MAX, CutError, Cutter, PIECE_MAX, PUBLIC_PIECE_MAX};
use crate::duration::Seconds;
use crate::key::{AnyKey, Key};
use crate::page::PageSize;
use crate::remote::{Argument, NAME_LEN_MAX, RemoteName, ReplicaPath, VersionSelector};
use crate::subscription::{ClientMessage, ServerMessage};
use crate::text::{SHOWN_MAX, ServerText, is_unseen, printable};

/// Binary messages of a connection, pushing or pulling by the lowest bit of the first byte. Nothing of
/// the stream may get lost, and each request counts once.
pub fn control(data: &[u8]) {
    let Some((&first, rest)) = data.split_first() else { return };
    let direction = if first & 1 == 0 { Direction::Push } else { Direction::Pull };
    let (mut server, mut client) = (ServerSide::new(direction), ClientSide::new());
    let (mut configs, mut key_requests, mut streaming) = (0, 0, false);
    for piece in pieces(rest).map(Bytes::copy_from_slice) {
        if let FromServer::Stream(bytes) = client.receive(piece.clone()) {
            assert_eq!(bytes, piece);
        }
        match server.receive(piece.clone()) {
            Ok(FromClient::Stream(bytes)) => {
                assert_eq!(bytes, piece);
                streaming |= !bytes.is_empty();
            }
            Ok(FromClient::Config) => configs += 1,
            Ok(FromClient::KeyRequest) => key_requests += 1,
            Ok(FromClient::CommitMessage(text)) => {
                assert!(!streaming && direction == Direction::Push);
                assert_eq!(commit_message(&text), Ok(piece));
            }
            Ok(FromClient::Changed { seconds }) => {
                assert!(!streaming && direction == Direction::Push);
                assert_eq!(crate::control::changed(seconds), piece);
            }
            Err(_) => return,
        }
    }
    assert!(configs <= 1 && key_requests <= 1);
}

/// A run of bytes, written as rows (a byte and how often) so that long ones are short inputs, cut for
/// either side.
pub fn cutter(data: &[u8]) {
    let mut run = Vec::new();
    for row in data.chunks_exact(3).take(64) {
        let count = u16::from_be_bytes([row[1], row[2]]) % 0x3000;
        run.resize(run.len() + usize::from(count), row[0]);
    }
    let run = Bytes::from(run);
    for (mut cutter, len_max) in [(Cutter::to_server(), CLIENT_PIECE_MAX), (agreed_on_3(), PIECE_MAX)] {
        let pieces = cutter.cut(run.clone()).unwrap();
        assert_eq!(pieces.concat(), run);
        let last_of_one = pieces.len() > 1 && pieces.iter().any(|piece| piece.len() < 2);
        assert!(!last_of_one && pieces.iter().all(|piece| (1..=len_max).contains(&piece.len())));
    }
    match Cutter::to_client().cut(run.clone()) {
        Ok(pieces) => {
            assert_eq!(pieces.concat(), run);
            for piece in pieces {
                assert!((1..=PUBLIC_PIECE_MAX).contains(&piece.len()));
                assert!(piece[0] != 0x42 || piece.len() == 1);
            }
        }
        Err(CutError::NotWhole) => {}
        Err(CutError::Uncuttable { .. }) => {
            let row = run.split(|&byte| byte != 0x42).map(<[u8]>::len).max();
            assert!(row >= Some(PUBLIC_PIECE_MAX));
        }
    }
}

fn agreed_on_3() -> Cutter {
    let mut cutter = Cutter::to_client();
    cutter.agreed(3);
    cutter
}

/// A text message from a server: what was understood is written and understood again the same.
pub fn text(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let shown = printable(text);
    assert!(shown.len() <= SHOWN_MAX && !shown.chars().any(is_unseen));
    assert_eq!(printable(&shown), shown);
    if let Ok(message) = text.parse::<ServerText>() {
        assert_eq!(message.to_string().parse(), Ok(message));
    }
}

/// A subscription message, read by either side.
pub fn subscription(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(message) = ClientMessage::parse(text) {
        assert_eq!(ClientMessage::parse(&message.to_text("")), Ok(message));
    }
    if let Ok(message) = ServerMessage::parse(text) {
        assert_eq!(ServerMessage::parse(&message.to_text("")), Ok(message));
    }
}

/// An argument of the command line, and what is in it: names, versions, files behind ssh.
pub fn remote(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some(path) = ReplicaPath::suggest([text]) {
        assert_path_is_safe(&path);
        assert_eq!(path.as_str().parse(), Ok(path));
    }
    if let Ok(version) = VersionSelector::from_header(text) {
        assert_eq!(VersionSelector::from_header(&version.to_header()), Ok(version));
        assert_eq!(version.to_string().parse(), Ok(version));
    }
    match Argument::parse(OsStr::new(text)) {
        Ok(Argument::Remote { name, version }) => {
            assert_path_is_safe(name.path());
            assert_eq!(name.to_string().parse::<RemoteName>(), Ok(name.clone()));
            assert!(name.to_string().len() <= NAME_LEN_MAX);
            assert_eq!(version.is_some(), text.contains('@'));
        }
        Ok(Argument::Ssh { destination, path }) => {
            assert_eq!(format!("{destination}:{path}"), text);
            assert!(!destination.starts_with('-') && !destination.contains(char::is_whitespace));
        }
        Ok(Argument::Local(path)) => assert_eq!(path.as_os_str(), text),
        Err(_) => {}
    }
}

fn assert_path_is_safe(path: &ReplicaPath) {
    for part in path.parts() {
        assert!(!part.is_empty() && part != "." && part != ".." && !part.starts_with('-'));
    }
    let harmful = |c: char| c.is_control() || "\\'\"`$;&|<>*?!#%@".contains(c);
    assert!(!path.as_str().contains(harmful));
}

/// A duration: what was understood is shown and understood again the same.
pub fn duration(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(duration) = text.parse::<Seconds>() {
        assert_eq!(duration.to_string().parse(), Ok(duration));
        assert!(text.bytes().all(|b| b.is_ascii_digit() || b"smhdw".contains(&b)));
    }
}

/// A key of this server or of another. One secret has one text.
pub fn key(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(key) = text.parse::<Key>() {
        assert_eq!(key.secret(), text);
        assert_eq!(text.parse(), Ok(AnyKey::from(&key)));
    }
    if let Ok(key) = text.parse::<AnyKey>() {
        assert!(key.secret() == text && !text.contains(|c: char| c.is_control() || "'\"\\$` ".contains(c)));
    }
}

/// A block with its checksum made right, of the page size that the first byte says. What decodes is
/// built again and decodes to the same pages.
pub fn block(data: &[u8]) {
    let Some((&first, content)) = data.split_first() else { return };
    let page_size = PageSize::from_log2(9 + first % 8).unwrap();
    let check = blake3::hash(content);
    let bytes = [&check.as_bytes()[..16], content].concat();
    let Ok(block) = Block::parse(bytes.into(), page_size) else { return };
    let mut pages = Vec::new();
    if block.decode(&mut pages).is_err() {
        assert!(pages.capacity() <= BLOCK_RAW_MAX);
        return;
    }
    assert_eq!(pages.len(), block.page_count() as usize * page_size.bytes());
    let mut builder = BlockBuilder::new(page_size);
    for (number, page) in block.pages().zip(pages.chunks_exact(page_size.bytes())) {
        builder.push(number, page);
    }
    let again = builder.finish(Effort::None).unwrap();
    let again = Block::parse(again.as_bytes().clone(), page_size).unwrap();
    assert!(
        again.holds_exactly(block.pages()) && again.first() == block.first() && again.last() == block.last()
    );
    let mut pages_again = Vec::new();
    again.decode(&mut pages_again).unwrap();
    assert_eq!(pages_again, pages);
}
