//! The hash of versions 1 and 2 of the page stream: a Keccak-like sponge with 20 bytes of output.

crate::hash::hash_type! {
    /// What versions 1 and 2 compare: of a page, or of the hashes of a group of pages.
    Hash20, 20
}
