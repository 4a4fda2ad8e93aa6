//! The hash of versions 1 and 2 of the page stream: a Keccak-like sponge with 20 bytes of output.
//!
//! - State: 1600 bits, 25 little-endian words; lane (x, y) is word `x + 5 y`. Rate 160 bytes.
//! - A round is Keccak's theta, rho, pi, chi and iota (FIPS 202, section 3.2), and then lane (x, y)
//!   moves to (x, (x + 2 y) mod 5). There are six rounds, with the first six round constants.
//! - Padding is SHA-3's: 0x06, zeros, 0x80, or the one byte 0x86.
//!
//! It is not SHA-3, and no library for that computes it. It is fast and is no defence against
//! somebody who makes collisions on purpose: version 3 and the repository use BLAKE3.

crate::hash::hash_type! {
    /// What versions 1 and 2 compare: of a page, or of the hashes of a group of pages.
    Hash20, 20
}

/// Bytes absorbed by each permutation.
const RATE: usize = 160;

/// The first six round constants of Keccak.
const ROUND_CONSTANTS: [u64; 6] = [
    0x0000_0000_0000_0001,
    0x0000_0000_0000_8082,
    0x8000_0000_0000_808a,
    0x8000_0000_8000_8000,
    0x0000_0000_0000_808b,
    0x0000_0000_8000_0001,
];

/// Keccak's rotation of each lane, by its word.
const ROTATION: [u32; 25] =
    [0, 1, 62, 28, 27, 36, 44, 6, 55, 20, 3, 10, 43, 25, 39, 41, 45, 15, 21, 8, 18, 2, 61, 56, 14];

/// The hash of a page, or of anything.
pub fn hash20(bytes: &[u8]) -> Hash20 {
    let mut sponge = Sponge20::new();
    sponge.update(bytes);
    sponge.finish()
}

/// The hash of a group of pages: of their hashes, one after the other. Pages that do not exist are
/// left out by the caller.
pub fn group_hash<'a>(pages: impl IntoIterator<Item = &'a Hash20>) -> Hash20 {
    let mut sponge = Sponge20::new();
    for page in pages {
        sponge.update(&page.0);
    }
    sponge.finish()
}

/// The sponge, for what comes in pieces.
#[derive(Clone)]
pub struct Sponge20 {
    state: [u64; 25],
    /// Input that does not yet fill a block.
    rest: [u8; RATE],
    rest_len: usize,
}

impl Default for Sponge20 {
    fn default() -> Self {
        Sponge20::new()
    }
}

impl std::fmt::Debug for Sponge20 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sponge20").field("rest_len", &self.rest_len).finish_non_exhaustive()
    }
}

impl Sponge20 {
    /// A sponge that has taken nothing.
    pub const fn new() -> Self {
        Sponge20 { state: [0; 25], rest: [0; RATE], rest_len: 0 }
    }

    /// Takes more input.
    pub fn update(&mut self, mut bytes: &[u8]) {
        if self.rest_len > 0 {
            let take = bytes.len().min(RATE - self.rest_len);
            let (now, later) = bytes.split_at(take);
            self.rest[self.rest_len..self.rest_len + take].copy_from_slice(now);
            self.rest_len += take;
            bytes = later;
            if self.rest_len < RATE {
                return;
            }
            absorb(&mut self.state, &self.rest);
            self.rest_len = 0;
        }
        let (blocks, rest) = bytes.as_chunks::<RATE>();
        for block in blocks {
            absorb(&mut self.state, block);
        }
        self.rest[..rest.len()].copy_from_slice(rest);
        self.rest_len = rest.len();
    }

    /// The hash of all input.
    pub fn finish(mut self) -> Hash20 {
        self.rest[self.rest_len..].fill(0);
        self.rest[self.rest_len] = 0x06;
        // The same byte where there is room for one only: 0x06 and 0x80 make 0x86.
        self.rest[RATE - 1] |= 0x80;
        absorb(&mut self.state, &self.rest);
        let mut hash = [0; Hash20::LEN];
        for (bytes, word) in hash.chunks_mut(8).zip(self.state) {
            bytes.copy_from_slice(&word.to_le_bytes()[..bytes.len()]);
        }
        Hash20(hash)
    }
}

fn absorb(state: &mut [u64; 25], block: &[u8; RATE]) {
    let (words, _) = block.as_chunks::<8>();
    for (lane, word) in state.iter_mut().zip(words) {
        *lane ^= u64::from_le_bytes(*word);
    }
    for constant in ROUND_CONSTANTS {
        *state = round(state, constant);
    }
}

/// One round. All indices are constants once the loops are unrolled, so that lanes stay in registers.
#[inline(always)]
fn round(a: &[u64; 25], constant: u64) -> [u64; 25] {
    let mut column = [0; 5];
    for x in 0..5 {
        column[x] = a[x] ^ a[x + 5] ^ a[x + 10] ^ a[x + 15] ^ a[x + 20];
    }
    let mut theta = [0; 5];
    for x in 0..5 {
        theta[x] = column[(x + 4) % 5] ^ column[(x + 1) % 5].rotate_left(1);
    }
    // Rho and pi: lane (x, y) goes to (y, 2 x + 3 y).
    let mut b = [0; 25];
    for y in 0..5 {
        for x in 0..5 {
            let lane = x + 5 * y;
            b[y + 5 * ((2 * x + 3 * y) % 5)] = (a[lane] ^ theta[x]).rotate_left(ROTATION[lane]);
        }
    }
    // Chi, and the move that Keccak does not have.
    let mut out = [0; 25];
    for y in 0..5 {
        for x in 0..5 {
            let chi = b[x + 5 * y] ^ (!b[(x + 1) % 5 + 5 * y] & b[(x + 2) % 5 + 5 * y]);
            out[x + 5 * ((x + 2 * y) % 5)] = chi;
        }
    }
    out[0] ^= constant;
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_in_pieces_hashes_as_the_whole() {
        let bytes: Vec<u8> = (0..1000u32).map(|i| (i * 7) as u8).collect();
        for piece in [1, 20, 159, 160, 161, 999] {
            let mut sponge = Sponge20::new();
            bytes.chunks(piece).for_each(|piece| sponge.update(piece));
            assert_eq!(sponge.finish(), hash20(&bytes), "pieces of {piece}");
        }
    }

    #[test]
    fn a_group_is_the_hash_of_its_hashes() {
        let pages = [hash20(b"one"), hash20(b"two")];
        assert_eq!(group_hash(&pages), hash20(&[pages[0].0, pages[1].0].concat()));
    }
}
