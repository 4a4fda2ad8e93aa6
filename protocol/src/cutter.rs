//! Cuts the page stream into binary WebSocket messages.
//!
//! The public client has two weaknesses that a server must know (PROTOCOL.md, section 2): it fails on
//! a binary message of more than 4,101 bytes, and it takes each that begins with 0x42, the type byte of
//! ORIGIN_END, for the end of the transfer. So towards a client that is not known to be ours
//! ([`Cutter::to_client`]):
//!
//! - No piece is longer than [`PUBLIC_PIECE_MAX`], and none begins with 0x42, except ORIGIN_END, which
//!   is a piece of its own.
//! - Pieces end where messages end, as many messages to a piece as fit. Only a message that is too long
//!   for a piece is cut inside: as late as possible before a byte that is not 0x42.
//! - **Some pages cannot be sent.** Where 4,101 bytes 0x42 or more stand in a row and the piece that
//!   they are in has to end among them, the next one would begin with 0x42. The protocol has no other
//!   way to say a page, so nothing of that run is given out, [`CutError::Uncuttable`] names the page,
//!   and the server ends the transfer with an ORIGIN_ERROR of that text. Pages of up to 4,096 bytes are
//!   never cut and so never concerned, nor is version 3.
//!
//! Towards a server, and once version 3 is agreed on, any cut will do. The one rule left is that no
//! piece of one byte is made out of a longer run, since right after the first piece it could be taken
//! for CONFIG or KEYREQUEST ([`crate::control`]).

use bytes::Bytes;

use crate::page::PageSize;

/// The longest piece towards a client that may be the public one, in bytes.
pub const PUBLIC_PIECE_MAX: usize = 4101;
/// The longest piece that a client sends before version 3 is agreed on, in bytes, as the public one does.
pub const CLIENT_PIECE_MAX: usize = 4096;
/// The longest piece in version 3, in bytes.
pub const PIECE_MAX: usize = crate::control::BINARY_MESSAGE_MAX;

const ORIGIN_BEGIN: u8 = 0x41;
const ORIGIN_END: u8 = 0x42;
const ORIGIN_PAGE: u8 = 0x44;

/// Why a run cannot be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CutError {
    /// The public client would take a piece of it for the end of the transfer.
    #[error(
        "page {page} has more bytes 0x42 in a row than this client can take; pull with the client of this \
         project"
    )]
    Uncuttable {
        /// Number of the page; 0 where the message is no page.
        page: u32,
    },
    /// The run does not end where a message ends, or has a page before ORIGIN_BEGIN: this side's bug.
    #[error("bytes to be cut are not whole messages")]
    NotWhole,
}

/// Cuts runs of whole messages into pieces. One for each connection and direction.
#[derive(Debug)]
pub struct Cutter {
    rule: Rule,
}

#[derive(Debug)]
enum Rule {
    /// Any cut.
    Plain { piece_len_max: usize },
    /// As the public client needs it; the page size is that of the last ORIGIN_BEGIN.
    Public { page_size: Option<PageSize> },
}

impl Cutter {
    /// For a server, towards a client that may be the public one until it agrees on version 3.
    pub const fn to_client() -> Cutter {
        Cutter { rule: Rule::Public { page_size: None } }
    }

    /// For a client, towards a server.
    pub const fn to_server() -> Cutter {
        Cutter { rule: Rule::Plain { piece_len_max: CLIENT_PIECE_MAX } }
    }

    /// The protocol version is settled.
    pub fn agreed(&mut self, version: u8) {
        if version >= 3 {
            self.rule = Rule::Plain { piece_len_max: PIECE_MAX };
        }
    }

    /// Cuts a run of whole messages. The pieces in order are the run; none is empty.
    pub fn cut(&mut self, run: Bytes) -> Result<Vec<Bytes>, CutError> {
        match &mut self.rule {
            Rule::Plain { piece_len_max } => Ok(cut_plain(run, *piece_len_max)),
            Rule::Public { page_size } => cut_public(run, page_size),
        }
    }
}

fn cut_plain(mut run: Bytes, piece_len_max: usize) -> Vec<Bytes> {
    let mut pieces = Vec::with_capacity(run.len().div_ceil(piece_len_max));
    while run.len() > piece_len_max {
        let one_is_left = run.len() == piece_len_max + 1;
        pieces.push(run.split_to(piece_len_max - usize::from(one_is_left)));
    }
    if !run.is_empty() {
        pieces.push(run);
    }
    pieces
}

fn cut_public(mut run: Bytes, page_size: &mut Option<PageSize>) -> Result<Vec<Bytes>, CutError> {
    let mut pieces = Vec::with_capacity(run.len().div_ceil(PUBLIC_PIECE_MAX));
    // Length of the whole messages at the front of `run` that the next piece has so far.
    let mut held = 0;
    while held < run.len() {
        let len = message_len(&run[held..], page_size)?;
        let is_end = run[held] == ORIGIN_END;
        if held > 0 && (is_end || held + len > PUBLIC_PIECE_MAX) {
            pieces.push(run.split_to(held));
            held = 0;
        }
        if is_end || len > PUBLIC_PIECE_MAX {
            cut_message(run.split_to(len), &mut pieces)?;
        } else {
            held += len;
        }
    }
    if held > 0 {
        pieces.push(run);
    }
    Ok(pieces)
}

/// Length of the message at the front, from its type byte and length fields.
fn message_len(rest: &[u8], page_size: &mut Option<PageSize>) -> Result<usize, CutError> {
    let len = match rest[0] {
        ORIGIN_BEGIN => {
            *page_size = rest.get(2).and_then(|&log2| PageSize::from_log2(log2));
            7
        }
        ORIGIN_PAGE => 5 + page_size.ok_or(CutError::NotWhole)?.bytes(),
        // ORIGIN_ERROR, ORIGIN_MSG, REPLICA_ERROR, REPLICA_MSG: a length and a text.
        0x43 | 0x46 | 0x62 | 0x66 => match *rest {
            [_, a, b, c, d, ..] => 5usize.saturating_add(u32::from_be_bytes([a, b, c, d]) as usize),
            _ => return Err(CutError::NotWhole),
        },
        // ORIGIN_END, ORIGIN_READY, REPLICA_END, REPLICA_READY.
        ORIGIN_END | 0x48 | 0x63 | 0x65 => 1,
        // REPLICA_BEGIN.
        0x61 => 2,
        // ORIGIN_TXN.
        0x45 => 5,
        // ORIGIN_DETAIL, REPLICA_CONFIG.
        0x47 | 0x67 => 9,
        // REPLICA_HASH.
        0x64 => 21,
        // What versions 1 and 2 do not have; it keeps the rules as one message up to the end.
        _ => rest.len(),
    };
    if len > rest.len() { Err(CutError::NotWhole) } else { Ok(len) }
}

/// Cuts one message that is too long for a piece, or gives it out whole.
fn cut_message(mut message: Bytes, pieces: &mut Vec<Bytes>) -> Result<(), CutError> {
    let page = match *message {
        [ORIGIN_PAGE, a, b, c, d, ..] => u32::from_be_bytes([a, b, c, d]),
        _ => 0,
    };
    while message.len() > PUBLIC_PIECE_MAX {
        // As late as possible: whatever can be cut at all can be cut so, since a later start reaches
        // every later cut that an earlier one does.
        let cut = (1..=PUBLIC_PIECE_MAX).rev().find(|&at| message[at] != ORIGIN_END);
        pieces.push(message.split_to(cut.ok_or(CutError::Uncuttable { page })?));
    }
    pieces.push(message);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn begin(log2: u8) -> Vec<u8> {
        vec![0x41, 2, log2, 0, 0, 0, 9]
    }

    fn page(number: u32, content: &[u8]) -> Vec<u8> {
        [&[0x44], &number.to_be_bytes()[..], content].concat()
    }

    fn public(run: Vec<u8>) -> Result<Vec<Bytes>, CutError> {
        Cutter::to_client().cut(run.into())
    }

    /// The public client's rules, and that nothing was lost.
    fn assert_rules(run: &[u8], pieces: &[Bytes]) {
        assert_eq!(pieces.concat(), run);
        for piece in pieces {
            assert!((1..=PUBLIC_PIECE_MAX).contains(&piece.len()), "{} bytes", piece.len());
            assert!(piece[0] != 0x42 || piece.len() == 1, "a piece of {} begins with 0x42", piece.len());
        }
    }

    #[test]
    fn short_messages_share_a_piece_and_the_end_stands_alone() {
        let run = [begin(9), page(1, &[7; 512]), page(2, &[0x42; 512]), vec![0x45, 0, 0, 0, 2], vec![0x42]];
        let pieces = public(run.concat()).unwrap();
        assert_eq!(pieces.iter().map(Bytes::len).collect::<Vec<_>>(), [7 + 517 + 517 + 5, 1]);
        assert_rules(&run.concat(), &pieces);
    }

    #[test]
    fn a_piece_ends_where_a_message_ends() {
        let run =
            [begin(12), page(1, &[0x42; 4096]), page(2, &[0x42; 4096]), vec![0x42], vec![0x42]].concat();
        let pieces = public(run.clone()).unwrap();
        assert_eq!(pieces.iter().map(Bytes::len).collect::<Vec<_>>(), [7, 4101, 4101, 1, 1]);
        assert_rules(&run, &pieces);
    }

    #[test]
    fn a_piece_is_filled_to_the_last_byte() {
        let run = [[&[0x64][..], &[9; 20]].concat().repeat(195), vec![0x45, 0, 0, 0, 2, 0x48, 0x48]].concat();
        assert_eq!(public(run).unwrap().iter().map(Bytes::len).collect::<Vec<_>>(), [PUBLIC_PIECE_MAX, 1]);
    }

    #[test]
    fn a_long_page_is_cut_before_a_byte_that_is_not_the_end_byte() {
        let mut content = vec![0x42; 65_536];
        for at in (0..65_536).step_by(4101) {
            content[at] = 1;
        }
        let run = [begin(16), page(1, &content)].concat();
        assert_rules(&run, &public(run.clone()).unwrap());
        let run = [begin(13), page(1, &[1; 8192])].concat();
        assert_eq!(public(run).unwrap().iter().map(Bytes::len).collect::<Vec<_>>(), [7, 4101, 4096]);
    }

    #[test]
    fn a_page_of_end_bytes_is_refused_by_its_number_and_nothing_of_the_run_goes_out() {
        for log2 in 13..=16 {
            let run = [begin(log2), page(1, &vec![1; 1 << log2]), page(7, &vec![0x42; 1 << log2])].concat();
            assert_eq!(public(run), Err(CutError::Uncuttable { page: 7 }));
        }
        // The longest row that still goes: the piece before ends right before it.
        for (row, goes) in [(4100, true), (4101, false)] {
            let mut content = vec![1; 65_536];
            content[10_000..10_000 + row].fill(0x42);
            assert_eq!(public([begin(16), page(1, &content)].concat()).is_ok(), goes, "{row}");
        }
    }

    #[test]
    fn a_long_error_text_keeps_the_rules() {
        let run = [&[0x62][..], &9000u32.to_be_bytes(), &b"AB".repeat(4500)].concat();
        assert_rules(&run, &public(run.clone()).unwrap());
    }

    #[test]
    fn the_page_size_is_remembered_from_run_to_run() {
        let mut cutter = Cutter::to_client();
        cutter.cut(begin(13).into()).unwrap();
        assert_eq!(cutter.cut(page(1, &[0x42; 8192]).into()), Err(CutError::Uncuttable { page: 1 }));
        cutter.cut(begin(9).into()).unwrap();
        assert_eq!(cutter.cut(page(1, &[0x42; 512]).into()).unwrap().len(), 1);
    }

    #[test]
    fn a_run_that_is_not_whole_messages_is_this_sides_bug() {
        for run in [&page(1, &[0; 512])[..], &[0x41, 2], &[0x43, 0, 0, 0, 9, 1], &[0x43, 0], &[0x64; 20]] {
            assert_eq!(public(run.to_vec()), Err(CutError::NotWhole));
        }
        assert_eq!(public([begin(40), page(1, &[0; 512])].concat()), Err(CutError::NotWhole));
    }

    #[test]
    fn version_3_and_servers_take_any_cut_but_a_last_piece_of_one_byte() {
        let lens = |cutter: &mut Cutter, len: usize| {
            let pieces = cutter.cut(vec![0x42; len].into()).unwrap();
            pieces.iter().map(Bytes::len).collect::<Vec<_>>()
        };
        let mut cutter = Cutter::to_server();
        assert_eq!(lens(&mut cutter, 0), [0; 0]);
        assert_eq!(lens(&mut cutter, 1), [1]);
        assert_eq!(lens(&mut cutter, 4096), [4096]);
        assert_eq!(lens(&mut cutter, 4097), [4095, 2]);
        assert_eq!(lens(&mut cutter, 8193), [4096, 4095, 2]);
        cutter.agreed(2);
        assert_eq!(lens(&mut cutter, 4098), [4096, 2]);
        for mut cutter in [cutter, Cutter::to_client()] {
            cutter.agreed(3);
            assert_eq!(lens(&mut cutter, PIECE_MAX + 1), [PIECE_MAX - 1, 2]);
        }
    }

    /// Bytes that are often 0x42, in rows of any length.
    fn content(len: usize) -> impl Strategy<Value = Vec<u8>> {
        let row = prop_oneof![
            (Just(0x42u8), 1usize..6000),
            (Just(0x42u8), 4090usize..4105),
            (any::<u8>(), 1usize..5000),
            (any::<u8>(), 1usize..3),
        ];
        prop::collection::vec(row, 1..40).prop_map(move |rows| {
            let bytes = rows.iter().flat_map(|&(byte, n)| std::iter::repeat_n(byte, n));
            let mut bytes: Vec<u8> = bytes.take(len).collect();
            bytes.resize(len, 0x41);
            bytes
        })
    }

    fn message(log2: u8) -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            4 => (any::<u32>(), content(1 << log2)).prop_map(|(n, bytes)| page(n, &bytes)),
            1 => content(5000).prop_map(|text| [&[0x43][..], &5000u32.to_be_bytes(), &text].concat()),
            2 => any::<[u8; 20]>().prop_map(|hash| [&[0x64][..], &hash].concat()),
            1 => any::<[u8; 8]>().prop_map(|range| [&[0x47][..], &range].concat()),
            2 => Just(vec![0x42]),
            1 => Just(vec![0x48]),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_stream_keeps_the_rules_or_holds_a_row_that_cannot_be_cut(
            (log2, messages) in (9u8..=16).prop_flat_map(|log2| (Just(log2), prop::collection::vec(message(log2), 1..12)))
        ) {
            let run = [begin(log2), messages.concat()].concat();
            match public(run.clone()) {
                Ok(pieces) => assert_rules(&run, &pieces),
                Err(error) => {
                    prop_assert_ne!(error, CutError::NotWhole);
                    let row = run.split(|&byte| byte != 0x42).map(<[u8]>::len).max();
                    prop_assert!(row >= Some(PUBLIC_PIECE_MAX), "{row:?}");
                }
            }
        }
    }
}
