//! Bytes with a checksum in front, and reading numbers out of bytes that may be anything.
//!
//! The checksum is the first [`CHECK_LEN`] bytes of BLAKE3 over the rest, as a block has it. Whoever
//! refers to sealed bytes repeats the checksum, so that a chain leads from a manifest to each of them.

use crate::error::Damage;

/// Length of a checksum in bytes.
pub(crate) const CHECK_LEN: usize = 16;

/// A checksum.
pub(crate) type Check = [u8; CHECK_LEN];

/// The checksum of `content`.
pub(crate) fn check_of(content: &[u8]) -> Check {
    let mut check = [0; CHECK_LEN];
    check.copy_from_slice(&blake3::hash(content).as_bytes()[..CHECK_LEN]);
    check
}

/// Puts the checksum of the rest into the first bytes, which the caller has left free for it.
pub(crate) fn seal(mut bytes: Vec<u8>) -> (Vec<u8>, Check) {
    let check = check_of(&bytes[CHECK_LEN..]);
    bytes[..CHECK_LEN].copy_from_slice(&check);
    (bytes, check)
}

/// The content behind a checksum, when that is right.
pub(crate) fn unseal(bytes: &[u8]) -> Result<(Check, &[u8]), Damage> {
    let (check, content) = bytes.split_first_chunk::<CHECK_LEN>().ok_or(Damage::Truncated)?;
    if *check != check_of(content) {
        return Err(Damage::Checksum);
    }
    Ok((*check, content))
}

/// Takes fields off the front of bytes. Never reads past the end, never allocates.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Fields(bytes)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Damage> {
        let (array, rest) = self.0.split_first_chunk::<N>().ok_or(Damage::Truncated)?;
        self.0 = rest;
        Ok(*array)
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Result<&'a [u8], Damage> {
        let (bytes, rest) = self.0.split_at_checked(len).ok_or(Damage::Truncated)?;
        self.0 = rest;
        Ok(bytes)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Damage> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Damage> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Damage> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Damage> {
        self.array().map(u64::from_be_bytes)
    }

    /// All fields were taken: what is left over is damage.
    pub(crate) fn end(self) -> Result<(), Damage> {
        if self.0.is_empty() { Ok(()) } else { Err(Damage::Structure) }
    }
}
