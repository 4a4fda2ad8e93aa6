//! Keys: what they look like, and what is stored in their place.
//!
//! ```text
//! sqlr_push_0vhx2c9…    kind prefix, then 40 digits: 21 random bytes and a checksum of 4
//! ```
//!
//! - 168 random bits, handed in by the caller: nothing here is random.
//! - Digits are lower-case base 32 without `i l o u` (Crockford's), most significant bit first. With
//!   the underscore a double click selects the whole key, and a secret scanner finds it by its prefix.
//! - The checksum is over the kind as well, so a key that was cut, mistyped or given another prefix is
//!   known for none before anything is looked up. It proves nothing else: a key is valid only if the
//!   server has its hash.
//! - One secret has one text: nothing is folded or trimmed.
//! - The secret is printed by [`Key::secret`] alone; `Debug` shows the kind only.

use std::fmt;
use std::str::FromStr;

/// Random bytes in a key.
pub const SECRET_LEN: usize = 21;
/// The longest key of any server that is accepted, in bytes.
pub const ANY_KEY_LEN_MAX: usize = 512;

const CHECK_LEN: usize = 4;
const BODY_LEN: usize = SECRET_LEN + CHECK_LEN;
/// Five bytes make eight digits, and the body is a whole number of five bytes.
const DIGITS_LEN: usize = BODY_LEN / 5 * 8;
const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// What a key allows.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// Everything in a namespace: push, pull, make replicas and keys.
    AccountAdmin,
    /// Pull any replica of a namespace.
    AccountPull,
    /// Push to one replica, and pull it.
    ReplicaPush,
    /// Pull one replica.
    ReplicaPull,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 4] = [Kind::AccountAdmin, Kind::AccountPull, Kind::ReplicaPush, Kind::ReplicaPull];

    /// What a key of this kind begins with.
    pub const fn prefix(self) -> &'static str {
        match self {
            Kind::AccountAdmin => "sqlr_admin_",
            Kind::AccountPull => "sqlr_read_",
            Kind::ReplicaPush => "sqlr_push_",
            Kind::ReplicaPull => "sqlr_pull_",
        }
    }

    /// Whether it allows pushing.
    pub const fn may_push(self) -> bool {
        matches!(self, Kind::AccountAdmin | Kind::ReplicaPush)
    }

    /// Whether it is for one replica and not for a namespace.
    pub const fn is_of_replica(self) -> bool {
        matches!(self, Kind::ReplicaPush | Kind::ReplicaPull)
    }
}

/// A key of this project's server, with its checksum proved.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    kind: Kind,
    secret: [u8; SECRET_LEN],
}

/// Why a text is no key. It never has the text in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not one of the prefixes.
    #[error(
        "this is no key of this server: keys begin with sqlr_admin_, sqlr_read_, sqlr_push_ or sqlr_pull_"
    )]
    Prefix,
    /// Too short or too long after the prefix.
    #[error(
        "the key is {0} characters long after its prefix; it should be {DIGITS_LEN}: was all of it copied?"
    )]
    Length(usize),
    /// A character that keys do not have.
    #[error("the key has a character that keys do not have")]
    Digit,
    /// The checksum is wrong.
    #[error("the key is mistyped: its checksum is wrong")]
    Checksum,
}

impl Key {
    /// A key of these random bytes. The caller takes them from the system's source of randomness.
    pub const fn new(kind: Kind, random: [u8; SECRET_LEN]) -> Key {
        Key { kind, secret: random }
    }

    /// What it allows.
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// The key's text. It goes to the user once and into no log.
    pub fn secret(&self) -> String {
        let mut body = [0; BODY_LEN];
        body[..SECRET_LEN].copy_from_slice(&self.secret);
        body[SECRET_LEN..].copy_from_slice(&self.check());
        let mut text = String::from(self.kind.prefix());
        for five in body.chunks_exact(5) {
            let bits = five.iter().fold(0u64, |bits, &byte| bits << 8 | u64::from(byte));
            text.extend((0..8).rev().map(|i| char::from(DIGITS[(bits >> (5 * i)) as usize % 32])));
        }
        text
    }

    /// What a server stores in its place.
    pub fn hash(&self) -> KeyHash {
        let mut hasher = blake3::Hasher::new_derive_key("sqlrsync 2026 key as stored");
        hasher.update(self.kind.prefix().as_bytes());
        hasher.update(&self.secret);
        KeyHash(hasher.finalize())
    }

    fn check(&self) -> [u8; CHECK_LEN] {
        let mut hasher = blake3::Hasher::new_derive_key("sqlrsync 2026 key checksum");
        hasher.update(self.kind.prefix().as_bytes());
        hasher.update(&self.secret);
        let mut check = [0; CHECK_LEN];
        hasher.finalize_xof().fill(&mut check);
        check
    }
}

impl FromStr for Key {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Key, KeyError> {
        let (kind, digits) = Kind::ALL
            .into_iter()
            .find_map(|kind| text.strip_prefix(kind.prefix()).map(|digits| (kind, digits)))
            .ok_or(KeyError::Prefix)?;
        if digits.len() != DIGITS_LEN {
            return Err(KeyError::Length(digits.chars().count()));
        }
        let mut body = [0; BODY_LEN];
        for (five, digits) in body.chunks_exact_mut(5).zip(digits.as_bytes().chunks_exact(8)) {
            let mut bits = 0u64;
            for digit in digits {
                let value = DIGITS.iter().position(|d| d == digit).ok_or(KeyError::Digit)?;
                bits = bits << 5 | value as u64;
            }
            five.copy_from_slice(&bits.to_be_bytes()[3..]);
        }
        let mut secret = [0; SECRET_LEN];
        secret.copy_from_slice(&body[..SECRET_LEN]);
        let key = Key { kind, secret };
        if body[SECRET_LEN..] == key.check() { Ok(key) } else { Err(KeyError::Checksum) }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({}…)", self.kind.prefix())
    }
}

/// What a server stores of a key: 32 bytes from which the key cannot be found. Comparing takes the
/// same time whatever differs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeyHash(blake3::Hash);

impl KeyHash {
    /// From where it was stored.
    pub const fn from_bytes(bytes: [u8; 32]) -> KeyHash {
        KeyHash(blake3::Hash::from_bytes(bytes))
    }

    /// For storing.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }
}

/// A key of whatever server, as a client gets it, stores it and sends it: 1 to 512 of
/// `A-Z a-z 0-9 . _ - + / =`, and so safe in a header, a file and a quoted word of a shell.
#[derive(Clone, PartialEq, Eq)]
pub struct AnyKey(String);

/// A text has a length or characters that no key has. It does not have the text in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is no key: keys are 1 to {ANY_KEY_LEN_MAX} letters, digits and . _ - + / =")]
pub struct NotAKey;

impl AnyKey {
    /// The key's text. It goes into a header or a file and into no log.
    pub fn secret(&self) -> &str {
        &self.0
    }
}

impl FromStr for AnyKey {
    type Err = NotAKey;

    fn from_str(text: &str) -> Result<AnyKey, NotAKey> {
        let allowed =
            |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'+' | b'/' | b'=');
        let fits = !text.is_empty() && text.len() <= ANY_KEY_LEN_MAX;
        if fits && text.bytes().all(allowed) { Ok(AnyKey(text.to_owned())) } else { Err(NotAKey) }
    }
}

impl From<&Key> for AnyKey {
    fn from(key: &Key) -> AnyKey {
        AnyKey(key.secret())
    }
}

impl fmt::Debug for AnyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AnyKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(kind: Kind) -> Key {
        Key::new(kind, std::array::from_fn(|i| (i * 37 + 11) as u8))
    }

    #[test]
    fn a_key_comes_back_from_its_text() {
        for kind in Kind::ALL {
            let text = key(kind).secret();
            assert_eq!(text.parse(), Ok(key(kind)));
            assert!(text.starts_with(kind.prefix()));
            assert!(
                text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'),
                "{text}"
            );
            assert_eq!(text.len(), kind.prefix().len() + 40);
            assert_eq!(AnyKey::from(&key(kind)).secret().parse::<AnyKey>(), Ok(AnyKey::from(&key(kind))));
        }
        // Keys that users hold must stay what they are.
        let fixed = Key::new(Kind::ReplicaPush, [0; SECRET_LEN]).secret();
        assert_eq!(fixed, "sqlr_push_0000000000000000000000000000000002h4wc20");
    }

    #[test]
    fn every_wrong_character_is_noticed() {
        let text = key(Kind::ReplicaPush).secret();
        for at in 0..text.len() {
            for wrong in "0z_AilouI -é".chars() {
                let mut other = text.clone();
                other.replace_range(at..=at, wrong.encode_utf8(&mut [0; 4]));
                assert!(other == text || other.parse::<Key>().is_err(), "{other}");
            }
            assert!(text[..at].parse::<Key>().is_err());
        }
        assert_eq!(format!("{text} ").parse::<Key>(), Err(KeyError::Length(41)));
        assert_eq!(text.replace("push", "pull").parse::<Key>(), Err(KeyError::Checksum), "another kind");
        assert_eq!(text.to_uppercase().parse::<Key>(), Err(KeyError::Prefix));
        assert_eq!("".parse::<Key>(), Err(KeyError::Prefix));
    }

    #[test]
    fn a_debug_print_and_an_error_show_no_secret() {
        let key = key(Kind::AccountAdmin);
        let digits = key.secret().split_off(Kind::AccountAdmin.prefix().len());
        for shown in [format!("{key:?}"), format!("{:?}", AnyKey::from(&key)), format!("{:?}", key.hash())] {
            assert!(!shown.contains(&digits[..6]), "{shown}");
        }
    }

    #[test]
    fn hashes_differ_by_secret_and_by_kind() {
        let mut hashes: Vec<_> = Kind::ALL.map(|kind| *key(kind).hash().as_bytes()).to_vec();
        hashes.push(*Key::new(Kind::AccountAdmin, [0; SECRET_LEN]).hash().as_bytes());
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), 5);
        assert_eq!(KeyHash::from_bytes(hashes[0]), KeyHash::from_bytes(hashes[0]));
    }

    #[test]
    fn keys_of_other_servers_are_opaque_but_safe() {
        for text in ["a", "eyJhbGciOi.J9.x-y_z+/=", &"k".repeat(512)] {
            assert_eq!(text.parse::<AnyKey>().map(|key| key.secret().to_owned()), Ok(text.to_owned()));
        }
        for text in ["", " a", "a b", "a'b", "a\"b", "$a", "a\n", "a\\b", "~a", "ä", "a:b", &"k".repeat(513)]
        {
            assert_eq!(text.parse::<AnyKey>(), Err(NotAKey), "{text:?}");
        }
    }
}
