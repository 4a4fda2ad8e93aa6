//! The hashes of version 3 and of the repository: BLAKE3 of canonical pages, and the root.
//! The hash of versions 1 and 2 is in [`crate::sponge`].

use crate::page::{Geometry, PageSize};

macro_rules! hash_type {
    ($(#[$doc:meta])* $name:ident, $len:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::hash::NotHex;
            fn from_str(text: &str) -> Result<Self, $crate::hash::NotHex> {
                let mut bytes = [0; $len];
                crate::hash::from_hex(text, &mut bytes)?;
                Ok($name(bytes))
            }
        }
    };
}
pub(crate) use hash_type;

hash_type! {
    /// What a page, or a node of the page tree, hashes to.
    PageHash, 32
}

hash_type! {
    /// What a whole database hashes to: page size, page count and the top of the page tree. Two
    /// databases are the same where their roots are.
    Root, 32
}

/// A hash in text is twice as many lower-case hexadecimal digits as it has bytes; this one is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a hash in hexadecimal digits")]
pub struct NotHex;

/// Reads exactly `out.len()` bytes from lower-case hexadecimal digits.
pub(crate) fn from_hex(text: &str, out: &mut [u8]) -> Result<(), NotHex> {
    let digits = text.as_bytes();
    if digits.len() != out.len() * 2 {
        return Err(NotHex);
    }
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Ok(byte - b'0'),
        b'a'..=b'f' => Ok(byte - b'a' + 10),
        _ => Err(NotHex),
    };
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Ok(())
}

impl PageHash {
    /// The hash of a page in its canonical form. The caller has made page 1 canonical and the lock
    /// page zeros.
    pub fn of(canonical_page: &[u8]) -> PageHash {
        PageHash(*blake3::hash(canonical_page).as_bytes())
    }

    /// The hashes of canonical pages in a row: what [`PageHash::of`] says of each, in half of the time.
    pub fn of_each(canonical_pages: &[u8], size: PageSize) -> Vec<PageHash> {
        crate::lanes::hash_each(canonical_pages, size)
    }
}

/// The hash of a tree node: its children's hashes in order, under a context of its own, so that no
/// page's content can stand for a node.
pub fn node_hash<'a>(children: impl IntoIterator<Item = &'a PageHash>) -> PageHash {
    let mut hasher = blake3::Hasher::new_derive_key("sqlrsync 2026 page tree node");
    for child in children {
        hasher.update(&child.0);
    }
    PageHash(*hasher.finalize().as_bytes())
}

impl Root {
    /// The root of a database of this geometry whose page tree has this hash at its top.
    pub fn of(geometry: Geometry, top: PageHash) -> Root {
        let mut hasher = blake3::Hasher::new_derive_key("sqlrsync 2026 page tree root");
        hasher.update(&(geometry.page_size.bytes() as u32).to_be_bytes());
        hasher.update(&geometry.page_count.get().to_be_bytes());
        hasher.update(&top.0);
        Root(*hasher.finalize().as_bytes())
    }
}
