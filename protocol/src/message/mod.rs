//! The messages of the page stream: one table of codes, one place for every maximum, what each
//! message holds, and a decoder that takes bytes cut anywhere.
//!
//! - Versions 1 and 2 have no length in front of a message: a code says how long it is, and the page
//!   size agreed on says how long a page is. All integers are big-endian.
//! - Every message of version 3, but ORIGIN_BEGIN, is a frame: code u8, length u32, payload. Errors
//!   and texts have that form in every version, so a code alone tells how a message is laid out.
//! - A length from a peer meets its maximum in [`limits`] before a byte is kept for it.
//!
//! `docs/protocol-v3.md` has version 3 field by field.

mod decoder;
mod origin;
mod replica;

pub use decoder::{Decoder, Incoming};
pub use origin::{OriginMessage, put_block, put_page};
pub use replica::{Opening, ReplicaMessage, put_hash, put_node};

use bytes::{BufMut, Bytes, BytesMut};

use crate::block::BlockError;
use crate::exchange::Refusal;
use crate::text::printable;

/// The highest version of the page stream there is.
pub const VERSION_MAX: u8 = 3;

/// The most of everything whose length a peer chooses.
pub mod limits {
    use crate::block::BLOCK_ENCODED_MAX;
    use crate::tree::FANOUT;

    /// Bytes of an error or a text that is taken from a peer.
    pub const TEXT_LEN_MAX: usize = 64 * 1024;
    /// Bytes of an error or a text that is sent; what is longer is cut.
    pub const TEXT_SENT_LEN_MAX: usize = 4096;
    /// Nodes asked for in one ORIGIN_NODES.
    pub const NODES_MAX: usize = 1024;
    /// Bytes of a page hash that travel in a REPLICA_NODE. The proof catches what such a short hash
    /// would miss.
    pub const SHORT_HASH_LEN: usize = 16;
    /// Blocks that a replica can say it still has from a cut push: 16 GiB of pages.
    pub const STAGED_BLOCKS_MAX: usize = 65_536;
    /// Runs of pages in all of those together.
    pub const STAGED_RUNS_MAX: usize = 524_288;
    /// ORIGIN_DETAIL rounds of version 2. A replica of 2^32 pages needs three.
    pub const DETAIL_ROUNDS_MAX: u32 = 16;
    /// Groups of which an origin of version 2 asks for details in one round. The pages of any more
    /// are sent without asking.
    pub const GROUPS_MAX: usize = 1 << 20;
    /// How many pages' hashes an origin of version 2 goes over for each page it has (plus
    /// [`COMPARED_SLACK`]). Three is what sqlite3_rsync takes; more is a peer that wants us to work.
    pub const COMPARED_FACTOR: u64 = 16;
    /// See [`COMPARED_FACTOR`].
    pub const COMPARED_SLACK: u64 = 65_536;

    pub(super) const NODE_ID_LEN: usize = 5;
    pub(super) const NODES_LEN_MAX: usize = NODES_MAX * NODE_ID_LEN;
    pub(super) const NODE_LEN_MAX: usize = NODE_ID_LEN + FANOUT as usize * SHORT_HASH_LEN;
    pub(super) const STAGED_LEN_MAX: usize = 64 * 1024;
    pub(super) const PLAN_LEN_MAX: usize = 4 + 4 * STAGED_BLOCKS_MAX;
    pub(super) const BATCH_LEN_MAX: usize = BLOCK_ENCODED_MAX;
    pub(super) const OPEN_LEN: usize = 50;
    pub(super) const BASE_LEN: usize = 58;
    pub(super) const PROOF_LEN: usize = 54;
    pub(super) const DONE_LEN: usize = 17;
}

/// One of the two sides of the page stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// Has the content.
    Origin,
    /// Becomes a copy of it.
    Replica,
}

/// What follows a code on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Layout {
    /// This many bytes.
    Fixed(usize),
    /// A page number u32 and a page of the size that ORIGIN_BEGIN said.
    Page,
    /// A length u32 of at most this, and as many bytes.
    Long(usize),
}

/// What is known of a code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Code {
    /// The byte on the wire.
    pub value: u8,
    /// Its name.
    pub name: &'static str,
    /// Who sends it.
    pub sender: Side,
    /// The first and the last version that have it.
    pub versions: (u8, u8),
    /// What follows it.
    pub layout: Layout,
    /// What it is for.
    pub meaning: &'static str,
}

macro_rules! codes {
    ($($value:literal $name:ident $sender:ident $since:literal..=$until:literal $layout:expr, $meaning:literal;)*) => {
        $(#[doc = $meaning] pub const $name: u8 = $value;)*

        /// Every code there is, ascending.
        pub const CODES: &[Code] = &[$(Code {
            value: $value,
            name: stringify!($name),
            sender: Side::$sender,
            versions: ($since, $until),
            layout: $layout,
            meaning: $meaning,
        }),*];
    };
}

use Layout::{Fixed, Long, Page};

codes! {
    0x41 ORIGIN_BEGIN   Origin  1..=3 Fixed(6), "Version, page size and page count: opens the conversation.";
    0x42 ORIGIN_END     Origin  1..=2 Fixed(0), "All is sent: apply it.";
    0x43 ORIGIN_ERROR   Origin  1..=3 Long(limits::TEXT_LEN_MAX), "The origin gives up, and why.";
    0x44 ORIGIN_PAGE    Origin  1..=2 Page, "A page.";
    0x45 ORIGIN_TXN     Origin  1..=2 Fixed(4), "The page count that the replica ends with.";
    0x46 ORIGIN_MSG     Origin  1..=3 Long(limits::TEXT_LEN_MAX), "A text for the user.";
    0x47 ORIGIN_DETAIL  Origin  2..=2 Fixed(8), "A group that differs: finer hashes are wanted.";
    0x48 ORIGIN_READY   Origin  2..=2 Fixed(0), "The end of the ORIGIN_DETAILs.";
    0x49 ORIGIN_NODES   Origin  3..=3 Long(limits::NODES_LEN_MAX), "Nodes of the page tree that are wanted.";
    0x4a ORIGIN_BASE    Origin  3..=3 Long(limits::BASE_LEN), "What the batches are a difference to.";
    0x4b ORIGIN_PLAN    Origin  3..=3 Long(limits::PLAN_LEN_MAX), "How many pages come, and which staged blocks do not.";
    0x4c ORIGIN_BATCH   Origin  3..=3 Long(limits::BATCH_LEN_MAX), "A block of pages.";
    0x4d ORIGIN_PROOF   Origin  3..=3 Long(limits::PROOF_LEN), "All is sent, and what the whole hashes to.";
    0x61 REPLICA_BEGIN  Replica 1..=3 Fixed(1), "The highest version that the replica speaks.";
    0x62 REPLICA_ERROR  Replica 1..=3 Long(limits::TEXT_LEN_MAX), "The replica gives up, and why.";
    0x63 REPLICA_END    Replica 1..=2 Fixed(0), "The replica leaves.";
    0x64 REPLICA_HASH   Replica 1..=2 Fixed(20), "The hash of the next page or group.";
    0x65 REPLICA_READY  Replica 1..=2 Fixed(0), "The end of the hashes.";
    0x66 REPLICA_MSG    Replica 1..=3 Long(limits::TEXT_LEN_MAX), "A text for the user.";
    0x67 REPLICA_CONFIG Replica 2..=2 Fixed(8), "First page, and pages a hash, from here on.";
    0x68 REPLICA_OPEN   Replica 3..=3 Long(limits::OPEN_LEN), "Version 3 is agreed on; what the replica has.";
    0x69 REPLICA_STAGED Replica 3..=3 Long(limits::STAGED_LEN_MAX), "Blocks left by a cut push.";
    0x6a REPLICA_NODE   Replica 3..=3 Long(limits::NODE_LEN_MAX), "A node of the page tree.";
    0x6b REPLICA_BASE   Replica 3..=3 Long(1), "Whether the replica has the base proposed.";
    0x6c REPLICA_DONE   Replica 3..=3 Long(limits::DONE_LEN), "Proved and committed.";
}

/// What is known of a code; `None` for a byte that is none.
pub fn code(value: u8) -> Option<&'static Code> {
    CODES.iter().find(|code| code.value == value)
}

/// A message that the peer may not send, in its bytes. All are the peer's fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// The byte is no code of this direction.
    #[error("a message begins with the byte {0:#04x}, which is no code here")]
    UnknownCode(u8),
    /// The code is one of another version than was agreed on.
    #[error("{0} is not part of the protocol version agreed on")]
    OtherVersion(&'static str),
    /// A length above its maximum in [`limits`].
    #[error("{name} claims a length of {len} bytes; the maximum is {max}")]
    TooLong {
        /// The message.
        name: &'static str,
        /// The length that it claims.
        len: u32,
        /// The most that it may have.
        max: usize,
    },
    /// A page before ORIGIN_BEGIN said how long a page is.
    #[error("a page came before the page size was known")]
    PageBeforeBegin,
    /// A field has a value that it cannot have.
    #[error("{name} has a wrong {field}")]
    Field {
        /// The message.
        name: &'static str,
        /// The field.
        field: &'static str,
    },
    /// A batch that is no block.
    #[error("damaged ORIGIN_BATCH: {0}")]
    Block(#[from] BlockError),
}

/// A bounded reader over the fields of one message.
struct Fields {
    name: &'static str,
    bytes: Bytes,
}

impl Fields {
    fn wrong(&self, field: &'static str) -> MessageError {
        MessageError::Field { name: self.name, field }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], MessageError> {
        match self.bytes.split_first_chunk::<N>() {
            Some((array, _)) => {
                let array = *array;
                let _ = self.bytes.split_to(N);
                Ok(array)
            }
            None => Err(self.wrong("length")),
        }
    }

    fn u8(&mut self) -> Result<u8, MessageError> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Result<u16, MessageError> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, MessageError> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, MessageError> {
        self.array().map(u64::from_be_bytes)
    }

    fn rest(&mut self) -> Bytes {
        std::mem::take(&mut self.bytes)
    }

    fn end(&self) -> Result<(), MessageError> {
        if self.bytes.is_empty() { Ok(()) } else { Err(self.wrong("length")) }
    }

    /// A text of the peer, made fit to be shown.
    fn text(&mut self) -> String {
        printable(&String::from_utf8_lossy(&self.rest()))
    }

    /// An error's text, with the refusal in front of it where the peer sent one. Text never
    /// begins with a control character, so the two cannot be taken for each other.
    fn error(&mut self) -> (Refusal, String) {
        match self.bytes.first() {
            Some(&code) if code < b' ' => {
                let _ = self.bytes.split_to(1);
                (Refusal::from_u8(code), self.text())
            }
            _ => (Refusal::Failed, self.text()),
        }
    }
}

/// The bytes with which a side gives up. The refusal is for whoever can tell it from a text: where version 3 is
/// agreed on, or the other side is known to be our own program.
pub fn error_bytes(side: Side, refusal: Option<Refusal>, text: &str) -> Bytes {
    let code = match side {
        Side::Origin => ORIGIN_ERROR,
        Side::Replica => REPLICA_ERROR,
    };
    let mut out = BytesMut::new();
    put_long(&mut out, code, |out| {
        if let Some(refusal) = refusal {
            out.put_u8(refusal as u8);
        }
        put_text(out, text);
    });
    out.freeze()
}

/// Appends a text, cut to what may be sent.
fn put_text(out: &mut BytesMut, text: &str) {
    let mut end = text.len().min(limits::TEXT_SENT_LEN_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    out.put_slice(&text.as_bytes()[..end]);
}

/// Appends a message with a length: `fill` appends the payload, whose length is then written.
fn put_long(out: &mut BytesMut, code: u8, fill: impl FnOnce(&mut BytesMut)) {
    out.put_u8(code);
    let at = out.len();
    out.put_u32(0);
    fill(out);
    let len = (out.len() - at - 4) as u32;
    out[at..at + 4].copy_from_slice(&len.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_ascending_and_in_the_range_of_their_side() {
        assert!(CODES.is_sorted_by(|a, b| a.value < b.value));
        for code in CODES {
            assert_eq!(code.sender == Side::Origin, code.value < 0x60, "{}", code.name);
            assert!(code.name.starts_with(if code.value < 0x60 { "ORIGIN_" } else { "REPLICA_" }));
        }
    }

    #[test]
    fn a_text_from_a_peer_cannot_steer_a_terminal() {
        let mut decoder = Decoder::<ReplicaMessage>::new();
        decoder.feed(Bytes::from_static(b"\x66\0\0\0\x0ca\x1b[31mb\xe2\x80\xaec\n"));
        assert_eq!(decoder.next_message(), Ok(Some(ReplicaMessage::Message("a [31mb c".into()))));
    }

    #[test]
    fn an_error_is_read_with_and_without_a_refusal() {
        for (told, refusal) in [(None, Refusal::Failed), (Some(Refusal::NotFound), Refusal::NotFound)] {
            let bytes = error_bytes(Side::Replica, told, "no such version");
            let mut decoder = Decoder::<ReplicaMessage>::new();
            decoder.feed(bytes);
            let expected = ReplicaMessage::Error { refusal, text: "no such version".into() };
            assert_eq!(decoder.next_message(), Ok(Some(expected)));
        }
    }

    #[test]
    fn a_long_error_is_cut_between_characters() {
        let bytes = error_bytes(Side::Origin, Some(Refusal::Failed), &"é".repeat(5000));
        assert!(bytes.len() <= 6 + limits::TEXT_SENT_LEN_MAX);
        assert!(std::str::from_utf8(&bytes[6..]).is_ok());
    }
}
