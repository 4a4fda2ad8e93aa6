//! Names: replica and segment ids, and the paths of objects. Every name found in a listing is parsed
//! strictly: what this module did not write is foreign and never guessed at.
//!
//! ```text
//! replicas/{replica}/about
//! replicas/{replica}/manifests/{20 digits}
//! replicas/{replica}/expired/{20 digits}
//! replicas/{replica}/segments/{segment}
//! replicas/{replica}/hashes20/{segment}
//! replicas/{replica}/staged/{32 hex digits of the scope}/{segment}
//! replicas/{replica}/candidates/{32 hex digits of the push id}
//! replicas/{replica}/candidate-roots/{64 hex digits of the root}
//! replicas/{replica}/conflicts/{20 digits}/{20 digits of the step}
//! replicas/{replica}/conflict-rows/{32 hex digits}
//! replicas/{replica}/clients/{32 hex digits}
//! replicas/{replica}/parents/{20 digits}
//! ```

use std::fmt;
use std::str::FromStr;

use object_store::path::Path;
use sqlrsync_protocol::hash::Root;
use sqlrsync_protocol::page::{ConflictNumber, VersionNumber};

/// The folder that all replicas stand in.
pub(crate) const REPLICAS: &str = "replicas";

/// Digits of a base-32 alphabet without upper case: 5 bits each.
const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// A replica: 128 random bits, written as 26 characters of `a` to `z` and `2` to `7`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReplicaId([u8; 16]);

/// Not the name of a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a replica id is 26 characters of a-z and 2-7")]
pub struct NotReplicaId;

impl ReplicaId {
    /// Length in characters.
    pub const TEXT_LEN: usize = 26;

    /// A new one. Fails only where the system has no randomness.
    pub fn random() -> Result<ReplicaId, getrandom::Error> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes)?;
        Ok(ReplicaId(bytes))
    }

    /// From its bits.
    pub const fn from_bytes(bytes: [u8; 16]) -> ReplicaId {
        ReplicaId(bytes)
    }

    /// Its bits.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // 26 digits are 130 bits: the last digit ends in two zero bits.
        let bits = u128::from_be_bytes(self.0);
        (0..25u32).map(|digit| bits >> (123 - 5 * digit)).chain([bits << 2]).try_for_each(|value| {
            let digit = BASE32[(value & 31) as usize];
            write!(f, "{}", char::from(digit))
        })
    }
}

impl fmt::Debug for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ReplicaId {
    type Err = NotReplicaId;

    fn from_str(text: &str) -> Result<Self, NotReplicaId> {
        if text.len() != Self::TEXT_LEN {
            return Err(NotReplicaId);
        }
        let mut bits = 0u128;
        let mut last = 0;
        for (at, byte) in text.bytes().enumerate() {
            let value = match byte {
                b'a'..=b'z' => byte - b'a',
                b'2'..=b'7' => byte - b'2' + 26,
                _ => return Err(NotReplicaId),
            };
            last = value;
            bits = if at < 25 { bits << 5 | u128::from(value) } else { bits << 3 | u128::from(value >> 2) };
        }
        if last & 3 != 0 {
            return Err(NotReplicaId);
        }
        Ok(ReplicaId(bits.to_be_bytes()))
    }
}

/// A segment: 128 random bits, written as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SegmentId(pub(crate) [u8; 16]);

impl SegmentId {
    /// Length in bytes.
    pub(crate) const LEN: usize = 16;

    /// No segment: where the entry of the page at 2^30 says it is stored.
    pub(crate) const NONE: SegmentId = SegmentId([0; 16]);

    pub(crate) fn random() -> Result<SegmentId, getrandom::Error> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes)?;
        Ok(SegmentId(bytes))
    }
}

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Parses exactly 16 bytes of lower-case hexadecimal digits.
pub(crate) fn hex16(text: &str) -> Option<[u8; 16]> {
    let digits = text.as_bytes();
    if digits.len() != 32 || !digits.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    Some(u128::from_str_radix(text, 16).ok()?.to_be_bytes())
}

impl FromStr for SegmentId {
    type Err = NotSegmentId;

    fn from_str(text: &str) -> Result<Self, NotSegmentId> {
        match hex16(text) {
            Some(bytes) if bytes != Self::NONE.0 => Ok(SegmentId(bytes)),
            _ => Err(NotSegmentId),
        }
    }
}

/// Not the name of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a segment id is 32 hexadecimal digits")]
pub struct NotSegmentId;

/// Whose cut pushes may be continued by whom: a hash of the scope that the pusher's key stands for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) struct Scope(pub(crate) [u8; 16]);

impl Scope {
    /// Any text becomes a name of a fixed length and alphabet.
    pub(crate) fn of(scope: &str) -> Scope {
        let hash = blake3::derive_key("sqlrsync 2026 repository stage scope", scope.as_bytes());
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash[..16]);
        Scope(bytes)
    }
}

/// An object of a replica.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) enum Name {
    /// What the replica is called, and where.
    About,
    /// A version.
    Manifest(VersionNumber),
    /// A mark: the version's pages may be gone.
    Expired(VersionNumber),
    /// Pages and nodes.
    Segment(SegmentId),
    /// The 20-byte hashes of a segment's pages.
    Hashes20(SegmentId),
    /// A record: a cut push left this segment.
    Staged(Scope, SegmentId),
    /// A content that was pushed and is no version, by the push's id.
    Candidate([u8; 16]),
    /// Which candidate has this root.
    CandidateRoot(Root),
    /// A step of a conflict, counted from 1.
    Conflict(ConflictNumber, u64),
    /// The rows that a step of a conflict names.
    ConflictRows(SegmentId),
    /// What a client was last seen to have.
    Client([u8; 16]),
    /// An index of a version that can be made again.
    Parents(VersionNumber),
}

impl Name {
    /// The object's path in the store.
    pub(crate) fn path(self, replica: ReplicaId) -> Path {
        let folder = format!("{REPLICAS}/{replica}");
        Path::from(match self {
            Name::About => format!("{folder}/about"),
            Name::Manifest(number) => format!("{folder}/manifests/{:020}", number.get()),
            Name::Expired(number) => format!("{folder}/expired/{:020}", number.get()),
            Name::Segment(id) => format!("{folder}/segments/{id}"),
            Name::Hashes20(id) => format!("{folder}/hashes20/{id}"),
            Name::Staged(scope, id) => {
                format!("{folder}/staged/{:032x}/{id}", u128::from_be_bytes(scope.0))
            }
            Name::Candidate(id) => format!("{folder}/candidates/{}", crate::manifest::hex(&id)),
            Name::CandidateRoot(root) => format!("{folder}/candidate-roots/{root}"),
            Name::Conflict(number, step) => format!("{folder}/conflicts/{:020}/{step:020}", number.get()),
            Name::ConflictRows(id) => format!("{folder}/conflict-rows/{id}"),
            Name::Client(hash) => format!("{folder}/clients/{}", crate::manifest::hex(&hash)),
            Name::Parents(number) => format!("{folder}/parents/{:020}", number.get()),
        })
    }

    /// The reverse of [`Name::path`]; `None` for any other path.
    pub(crate) fn parse(path: &Path) -> Option<(ReplicaId, Name)> {
        let text: &str = path.as_ref();
        let mut parts = text.split('/');
        if parts.next()? != REPLICAS {
            return None;
        }
        let replica = parts.next()?.parse().ok()?;
        let name = match (parts.next()?, parts.next(), parts.next()) {
            ("about", None, None) => Name::About,
            ("manifests", Some(number), None) => Name::Manifest(parse_number(number)?),
            ("expired", Some(number), None) => Name::Expired(parse_number(number)?),
            ("segments", Some(id), None) => Name::Segment(id.parse().ok()?),
            ("hashes20", Some(id), None) => Name::Hashes20(id.parse().ok()?),
            ("staged", Some(scope), Some(id)) => Name::Staged(Scope(hex16(scope)?), id.parse().ok()?),
            ("candidates", Some(id), None) => Name::Candidate(hex16(id)?),
            ("candidate-roots", Some(root), None) => Name::CandidateRoot(root.parse().ok()?),
            ("conflicts", Some(number), Some(step)) => Name::Conflict(
                ConflictNumber::new(parse_digits(number)?)?,
                parse_digits(step).filter(|n| *n > 0)?,
            ),
            ("conflict-rows", Some(id), None) => Name::ConflictRows(id.parse().ok()?),
            ("clients", Some(hash), None) => Name::Client(hex16(hash)?),
            ("parents", Some(number), None) => Name::Parents(parse_number(number)?),
            _ => return None,
        };
        parts.next().is_none().then_some((replica, name))
    }
}

fn parse_number(text: &str) -> Option<VersionNumber> {
    VersionNumber::new(parse_digits(text)?)
}

fn parse_digits(text: &str) -> Option<u64> {
    if text.len() != 20 || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replica_ids_come_back_from_text_and_nothing_else_is_one() {
        for bytes in [[0; 16], [0xff; 16], *b"0123456789abcdef"] {
            let id = ReplicaId::from_bytes(bytes);
            let text = id.to_string();
            assert_eq!(text.len(), ReplicaId::TEXT_LEN);
            assert_eq!(text.parse(), Ok(id));
            assert_eq!(text[1..].parse::<ReplicaId>(), Err(NotReplicaId));
        }
        assert_eq!("AAAAAAAAAAAAAAAAAAAAAAAAAA".parse::<ReplicaId>(), Err(NotReplicaId));
        // The last digit has two bits that belong to no byte: one text for one id.
        assert_eq!("aaaaaaaaaaaaaaaaaaaaaaaaab".parse::<ReplicaId>(), Err(NotReplicaId));
        assert_eq!("../../../../../../../etc/a".parse::<ReplicaId>(), Err(NotReplicaId));
    }

    #[test]
    fn names_come_back_from_paths_and_foreign_ones_do_not() {
        let replica = ReplicaId::from_bytes([7; 16]);
        let number = VersionNumber::new(12).unwrap();
        let segment = SegmentId([3; 16]);
        for name in [
            Name::About,
            Name::Manifest(number),
            Name::Expired(number),
            Name::Segment(segment),
            Name::Hashes20(segment),
            Name::Staged(Scope::of("key"), segment),
            Name::Candidate([4; 16]),
            Name::CandidateRoot(Root([5; 32])),
            Name::Conflict(ConflictNumber::FIRST, 7),
            Name::ConflictRows(segment),
            Name::Client([6; 16]),
            Name::Parents(number),
        ] {
            assert_eq!(Name::parse(&name.path(replica)), Some((replica, name)));
        }
        for foreign in [
            "about",
            "replicas/x/about",
            "replicas/a4dqobyha4dqobyha4dqobyhae/manifests/1",
            "replicas/a4dqobyha4dqobyha4dqobyha4/manifests/00000000000000000000",
            "replicas/a4dqobyha4dqobyha4dqobyha4/manifests/99999999999999999999",
            "replicas/a4dqobyha4dqobyha4dqobyha4/segments/00000000000000000000000000000000",
            "replicas/a4dqobyha4dqobyha4dqobyha4/conflicts/00000000000000000001",
            "replicas/a4dqobyha4dqobyha4dqobyha4/conflicts/00000000000000000001/00000000000000000000",
        ] {
            assert_eq!(Name::parse(&Path::from(foreign)), None, "{foreign}");
        }
    }
}
