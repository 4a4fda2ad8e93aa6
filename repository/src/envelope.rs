//! A small text object: one line that says what it is and what the rest hashes to, then one line of
//! JSON. It can be read without this program, and no byte of it can change unnoticed.
//!
//! ```text
//! sqlrsync manifest 1 <64 hexadecimal digits: BLAKE3 of the rest>
//! {"number":7,...}
//! ```

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Damage;

/// Wraps a value. `kind` is one word; the format version is 1.
pub(crate) fn encode<T: Serialize>(kind: &str, value: &T) -> Result<Bytes, serde_json::Error> {
    let mut body = serde_json::to_vec(value)?;
    body.push(b'\n');
    let mut bytes = format!("sqlrsync {kind} 1 {}\n", blake3::hash(&body).to_hex()).into_bytes();
    bytes.extend(body);
    Ok(bytes.into())
}

/// Reads what [`encode`] wrote. The caller has bounded the length.
pub(crate) fn decode<T: DeserializeOwned>(kind: &str, bytes: &[u8]) -> Result<T, Damage> {
    let line_end = bytes.iter().take(256).position(|byte| *byte == b'\n').ok_or(Damage::Format)?;
    let (line, body) = (&bytes[..line_end], &bytes[line_end + 1..]);
    let expected = format!("sqlrsync {kind} 1 {}", blake3::hash(body).to_hex());
    if line != expected.as_bytes() {
        let begins = line.starts_with(format!("sqlrsync {kind} 1 ").as_bytes());
        return Err(if begins { Damage::Checksum } else { Damage::Format });
    }
    serde_json::from_slice(body).map_err(|_| Damage::Structure)
}
