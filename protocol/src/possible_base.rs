//! What our own client says of a file of which it does not dare to say the base: the header `X-Possible-Base`
//! of a push. It is a list with commas in between: the ids of pushes that had no answer, newest first, and last
//! what was agreed on before them, its root and the number of the version where it is one (`ROOT@7`). The first
//! of these that the server has is one more possible base.
//!
//! Lists of the same form are in `X-Unanswered-Pushes`, of ids alone.

use std::fmt;

use crate::exchange::{Base, PushId};
use crate::page::VersionNumber;

/// The most pushes that are named.
pub const PUSHES_MAX: usize = 64;

/// Hexadecimal digits of a push id.
const ID_DIGITS: usize = 32;

/// What a file, or the one that was in its place before, was last known to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PossibleBase {
    /// Pushes whose answer was lost, newest first.
    pub pushes: Vec<PushId>,
    /// What was agreed on before them.
    pub agreed: Option<Base>,
}

impl PossibleBase {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        self.pushes.is_empty() && self.agreed.is_none()
    }

    /// From a header. It never fails: what is neither an id nor a root is left out, and so are ids that are too
    /// many and roots after the first.
    pub fn from_header(list: &str) -> PossibleBase {
        let mut found = PossibleBase::default();
        for word in list.split(',').map(str::trim) {
            if let Some(id) = push_id(word) {
                if found.pushes.len() < PUSHES_MAX {
                    found.pushes.push(id);
                }
            } else if found.agreed.is_none() {
                found.agreed = agreed(word);
            }
        }
        found
    }
}

impl fmt::Display for PossibleBase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, id) in self.pushes.iter().take(PUSHES_MAX).enumerate() {
            let comma = if place > 0 { "," } else { "" };
            write!(f, "{comma}{:032x}", u128::from_be_bytes(id.0))?;
        }
        let Some(Base { version, root }) = self.agreed else { return Ok(()) };
        let comma = if self.pushes.is_empty() { "" } else { "," };
        write!(f, "{comma}{root}")?;
        version.map_or(Ok(()), |version| write!(f, "@{version}"))
    }
}

fn push_id(word: &str) -> Option<PushId> {
    let is_id = word.len() == ID_DIGITS && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let id = u128::from_str_radix(word, 16).ok().filter(|_| is_id)?;
    Some(PushId(id.to_be_bytes()))
}

fn agreed(word: &str) -> Option<Base> {
    let Some((root, number)) = word.split_once('@') else {
        return Some(Base { version: None, root: word.parse().ok()? });
    };
    // A number that is none is not left out alone: the root would be looked for among what has no number.
    let version = number.parse().ok().and_then(VersionNumber::new)?;
    Some(Base { version: Some(version), root: root.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::Root;

    const ROOT: Root = Root([0xab; 32]);

    fn said(pushes: &[u8], version: Option<u64>) -> PossibleBase {
        PossibleBase {
            pushes: pushes.iter().map(|byte| PushId([*byte; 16])).collect(),
            agreed: Some(Base { version: version.and_then(VersionNumber::new), root: ROOT }),
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let ids = PossibleBase { agreed: None, ..said(&[1, 0], None) };
        for one in [said(&[], None), said(&[], Some(7)), said(&[0x1a, 0], Some(u64::MAX)), ids] {
            assert_eq!(PossibleBase::from_header(&one.to_string()), one, "{one}");
        }
        assert_eq!(said(&[0x1a], Some(7)).to_string(), format!("{},{}@7", "1a".repeat(16), "ab".repeat(32)));
        assert!(PossibleBase::from_header("").is_empty());
        assert_eq!(PossibleBase::default().to_string(), "");
    }

    #[test]
    fn what_is_no_id_and_no_root_is_left_out_and_so_is_what_is_too_many() {
        let (id, root) = ("0".repeat(32), "ab".repeat(32));
        for bad in [
            ",, ,",
            "+0000000000000000000000000000000",
            "x",
            "ab",
            &format!("{root}@0"),
            &format!("{root}@"),
            &format!("{root}@x"),
            &format!("{root}@7@8"),
            &format!("{root}@99999999999999999999"),
            &format!("{}@7", &root[1..]),
            &"ä".repeat(16),
        ] {
            assert!(PossibleBase::from_header(bad).is_empty(), "{bad}");
            let among = format!("{id},{bad},{root}@7");
            assert_eq!(PossibleBase::from_header(&among), said(&[0], Some(7)), "{among}");
        }
        let many = vec![id; 10_000].join(",");
        assert_eq!(PossibleBase::from_header(&many).pushes.len(), PUSHES_MAX);
        let two = format!("{root},{}", "cd".repeat(32));
        assert_eq!(PossibleBase::from_header(&two), said(&[], None));
    }
}
