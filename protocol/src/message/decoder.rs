//! Whole messages out of bytes that were cut anywhere.
//!
//! It keeps what the caller fed last and at most one message's beginning: a message that lies whole
//! in what was fed is not copied. How long a message is follows from its first five bytes and the
//! page size, and a length above the maximum is an error before anything is kept for it.

use std::marker::PhantomData;

use bytes::{Buf, Bytes, BytesMut};

use super::{Code, Fields, Layout, MessageError, Side, VERSION_MAX, code};
use crate::page::PageSize;

/// The messages of one direction.
pub trait Incoming: Sized {
    /// Who sends them.
    const SENDER: Side;

    /// A message from its code and what follows it (without the length, where it has one).
    fn decode(code: u8, fields: Bytes, page_size: Option<PageSize>) -> Result<Self, MessageError>;
}

/// Takes the bytes of one direction and gives its messages.
#[derive(Debug)]
pub struct Decoder<M> {
    /// The beginning of a message; empty where the next one begins in `fed`.
    partial: BytesMut,
    fed: Bytes,
    versions: (u8, u8),
    page_size: Option<PageSize>,
    messages: PhantomData<fn() -> M>,
}

impl<M: Incoming> Default for Decoder<M> {
    fn default() -> Self {
        Decoder::new()
    }
}

impl<M: Incoming> Decoder<M> {
    /// A decoder that takes messages of every version.
    pub fn new() -> Self {
        Decoder {
            partial: BytesMut::new(),
            fed: Bytes::new(),
            versions: (1, VERSION_MAX),
            page_size: None,
            messages: PhantomData,
        }
    }

    /// From here on only messages that this version has.
    pub fn agreed(&mut self, version: u8) {
        self.versions = (version, version);
    }

    /// How long a page is from here on.
    pub fn set_page_size(&mut self, page_size: PageSize) {
        self.page_size = Some(page_size);
    }

    /// Takes bytes. The caller asks for all messages in them before it feeds more: what it does not
    /// ask for is kept.
    pub fn feed(&mut self, bytes: Bytes) {
        if self.fed.is_empty() {
            self.fed = bytes;
        } else {
            let mut both = BytesMut::with_capacity(self.fed.len() + bytes.len());
            both.extend_from_slice(&self.fed);
            both.extend_from_slice(&bytes);
            self.fed = both.freeze();
        }
    }

    /// Whether it stands between two messages, with nothing left.
    pub fn is_empty(&self) -> bool {
        self.partial.is_empty() && self.fed.is_empty()
    }

    /// The next message; `None` where it is not all there yet.
    pub fn next_message(&mut self) -> Result<Option<M>, MessageError> {
        let Some(message) = self.next_bytes()? else { return Ok(None) };
        let value = message[0];
        let skip = match self.known(value)?.layout {
            Layout::Long(_) => 5,
            Layout::Fixed(_) | Layout::Page => 1,
        };
        M::decode(value, message.slice(skip..), self.page_size).map(Some)
    }

    /// The bytes of the next message, whole.
    fn next_bytes(&mut self) -> Result<Option<Bytes>, MessageError> {
        if self.partial.is_empty() {
            match self.len_of(&self.fed)? {
                Some(len) if self.fed.len() >= len => return Ok(Some(self.fed.split_to(len))),
                _ => {}
            }
        }
        loop {
            // First as far as the length needs, then as far as the message does.
            let wanted = match self.len_of(&self.partial)? {
                Some(len) if self.partial.len() == len => return Ok(Some(self.partial.split().freeze())),
                Some(len) => {
                    // Not past the maximum of its kind, which `len_of` has seen to.
                    self.partial.reserve(len - self.partial.len());
                    len
                }
                None => self.partial.len() + 1,
            };
            let take = self.fed.len().min(wanted - self.partial.len());
            if take == 0 {
                return Ok(None);
            }
            self.partial.extend_from_slice(&self.fed[..take]);
            self.fed.advance(take);
        }
    }

    /// How long the message is that begins so; `None` where that does not show yet.
    fn len_of(&self, start: &[u8]) -> Result<Option<usize>, MessageError> {
        let Some(&value) = start.first() else { return Ok(None) };
        let code = self.known(value)?;
        match code.layout {
            Layout::Fixed(len) => Ok(Some(1 + len)),
            Layout::Page => match self.page_size {
                Some(page_size) => Ok(Some(1 + 4 + page_size.bytes())),
                None => Err(MessageError::PageBeforeBegin),
            },
            Layout::Long(max) => {
                let Some(len) = start[1..].first_chunk::<4>() else { return Ok(None) };
                let len = u32::from_be_bytes(*len);
                if len as usize > max {
                    return Err(MessageError::TooLong { name: code.name, len, max });
                }
                Ok(Some(5 + len as usize))
            }
        }
    }

    fn known(&self, value: u8) -> Result<&'static Code, MessageError> {
        let code = code(value).filter(|code| code.sender == M::SENDER);
        let code = code.ok_or(MessageError::UnknownCode(value))?;
        if code.versions.0 > self.versions.1 || code.versions.1 < self.versions.0 {
            return Err(MessageError::OtherVersion(code.name));
        }
        Ok(code)
    }
}

impl Fields {
    pub(super) fn new(code: u8, bytes: Bytes) -> Result<Fields, MessageError> {
        match super::code(code) {
            Some(code) => Ok(Fields { name: code.name, bytes }),
            None => Err(MessageError::UnknownCode(code)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{OriginMessage, limits};
    use super::*;

    #[test]
    fn a_length_of_four_gigabytes_is_refused_at_its_fifth_byte() {
        let mut decoder = Decoder::<OriginMessage>::new();
        decoder.feed(Bytes::from_static(&[0x4c, 0xff, 0xff, 0xff]));
        assert!(decoder.next_message().unwrap().is_none());
        decoder.feed(Bytes::from_static(&[0xff]));
        let max = limits::BATCH_LEN_MAX;
        let too_long = MessageError::TooLong { name: "ORIGIN_BATCH", len: u32::MAX, max };
        assert_eq!(decoder.next_message().unwrap_err(), too_long);
    }

    #[test]
    fn a_code_of_another_direction_or_version_is_refused_at_once() {
        let mut decoder = Decoder::<OriginMessage>::new();
        decoder.feed(Bytes::from_static(&[0x64]));
        assert_eq!(decoder.next_message().unwrap_err(), MessageError::UnknownCode(0x64));
        let mut decoder = Decoder::<OriginMessage>::new();
        decoder.agreed(2);
        decoder.feed(Bytes::from_static(&[0x4c]));
        assert_eq!(decoder.next_message().unwrap_err(), MessageError::OtherVersion("ORIGIN_BATCH"));
    }

    #[test]
    fn a_page_before_the_page_size_is_refused() {
        let mut decoder = Decoder::<OriginMessage>::new();
        decoder.feed(Bytes::from_static(&[0x44, 0, 0, 0, 1]));
        assert_eq!(decoder.next_message().unwrap_err(), MessageError::PageBeforeBegin);
    }
}
