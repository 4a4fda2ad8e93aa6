//! What a request says: the name in its path, the key, and the `X-` headers. Everything is checked
//! here, once, and every text has its maximum.

use std::net::IpAddr;

use axum::http::{HeaderMap, Uri, header};
use percent_encoding::percent_decode_str;
use sqlrsync_protocol::key::Key;
use sqlrsync_protocol::possible_base::PossibleBase;
use sqlrsync_protocol::remote::{RemoteName, VersionSelector};
use sqlrsync_protocol::text::{ReplicaIdText, printable};

use crate::backend::ClientSays;
use crate::catalog::Visibility;
use crate::refused::{Refused, Why};

/// Longest client id, host name and client version that is kept, in bytes; what is longer is cut.
const WORD_BYTES_MAX: usize = 255;

/// Longest path of the pushed database on its machine that is kept, in bytes; what is longer is cut.
const LOCAL_PATH_BYTES_MAX: usize = 4096;

/// How `X-ClientVersion` begins where it is our own client, which reads the HTTP status of a refusal and
/// needs no second form of it. The public one has a bare number there.
const OWN_CLIENT: &[u8] = b"sqlrsync ";

/// Who asks, as the request has it.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The key; `None` where there is none.
    pub key: Option<Key>,
}

/// The replica's name after `prefix` in the request's path; `None` where nothing follows.
///
/// # Errors
/// [`Why::BadRequest`] for what is no name.
pub fn name_after(uri: &Uri, prefix: &str) -> Result<Option<RemoteName>, Refused> {
    let rest = uri.path().strip_prefix(prefix).unwrap_or_default();
    let rest = rest.strip_prefix('/').unwrap_or(rest);
    if rest.is_empty() { Ok(None) } else { parse_name(rest).map(Some) }
}

/// A percent-encoded name.
///
/// # Errors
/// [`Why::BadRequest`] for what is no name.
pub fn parse_name(encoded: &str) -> Result<RemoteName, Refused> {
    let text = percent_decode_str(encoded)
        .decode_utf8()
        .map_err(|_| Refused::new(Why::BadRequest, "the replica's name is not UTF-8"))?;
    text.parse().map_err(|error| Refused::new(Why::BadRequest, format!("{error}")))
}

/// The key of `Authorization`: bare, as the public client sends it, or after `Bearer`. An empty one
/// counts as none.
///
/// # Errors
/// [`Why::BadKey`] for what is no key of this server.
pub fn credentials(headers: &HeaderMap) -> Result<Credentials, Refused> {
    let Some(value) = headers.get(header::AUTHORIZATION) else { return Ok(Credentials { key: None }) };
    let text =
        value.to_str().map_err(|_| Refused::new(Why::BadKey, "the key has characters that no key has"))?;
    // The name of a scheme is written in any case (RFC 9110).
    let text = match text.split_once(' ') {
        Some((scheme, key)) if scheme.eq_ignore_ascii_case("bearer") => key.trim(),
        _ => text.trim(),
    };
    if text.is_empty() {
        return Ok(Credentials { key: None });
    }
    match text.parse() {
        Ok(key) => Ok(Credentials { key: Some(key) }),
        // The error names no part of the key.
        Err(error) => Err(Refused::new(Why::BadKey, format!("{error}"))),
    }
}

/// Reads the `X-` headers.
///
/// # Errors
/// [`Why::BadRequest`] for a version, visibility or replica id that is none.
pub fn client_says(headers: &HeaderMap) -> Result<ClientSays, Refused> {
    let bad = |what: String| Refused::new(Why::BadRequest, what);
    let version = text_of(headers, "x-replicaversion")?;
    let replica_id = match text_of(headers, "x-replicaid")? {
        "" => None,
        id => match id.parse::<ReplicaIdText>() {
            Ok(id) => Some(id.as_str().to_owned()),
            Err(_) => return Err(bad("X-ReplicaID is no replica id".to_owned())),
        },
    };
    let visibility = match text_of(headers, "x-visibility")? {
        "" => None,
        "0" => Some(Visibility::Private),
        "1" => Some(Visibility::Unlisted),
        "2" => Some(Visibility::Public),
        _ => return Err(bad("X-Visibility is 1 (unlisted) or 2 (public)".to_owned())),
    };
    Ok(ClientSays {
        client_id: kept(headers, "x-clientid", WORD_BYTES_MAX),
        host: kept(headers, "x-localhostname", WORD_BYTES_MAX),
        local_path: kept(headers, "x-localabsolutepath", LOCAL_PATH_BYTES_MAX),
        replica_id,
        visibility,
        own_client: is_own_client(headers),
        force: text_of(headers, "x-force")? == "1",
        unanswered: PossibleBase::from_header(text_of(headers, "x-unanswered-pushes")?).pushes,
        possible_base: PossibleBase::from_header(text_of(headers, "x-possible-base")?),
        version: VersionSelector::from_header(version).map_err(|error| bad(error.to_string()))?,
    })
}

/// Whether it is our own client that asks.
pub fn is_own_client(headers: &HeaderMap) -> bool {
    headers.get("x-clientversion").is_some_and(|value| value.as_bytes().starts_with(OWN_CLIENT))
}

/// Whether the push connection is to announce pushes and make none, as our own client says.
pub fn only_announces(headers: &HeaderMap) -> bool {
    headers.get("x-sqlrsync-purpose").is_some_and(|value| value == "announce")
}

/// The client's address behind a proxy: the last of `X-Forwarded-For`, which our proxy has written
/// itself; what is before it the client may have made up.
pub fn forwarded_for(headers: &HeaderMap) -> Option<IpAddr> {
    let last = headers.get_all("x-forwarded-for").iter().next_back()?.to_str().ok()?;
    last.rsplit(',').next()?.trim().parse().ok()
}

fn text_of<'a>(headers: &'a HeaderMap, name: &str) -> Result<&'a str, Refused> {
    let Some(value) = headers.get(name) else { return Ok("") };
    let text = value.to_str().map_err(|_| Refused::new(Why::BadRequest, format!("{name} is not ASCII")))?;
    Ok(text.trim())
}

/// A text that is kept and shown and decides nothing: made printable and cut, never refused. Host
/// names and paths can have any bytes.
fn kept(headers: &HeaderMap, name: &str, bytes_max: usize) -> String {
    let Some(value) = headers.get(name) else { return String::new() };
    let mut text = printable(&String::from_utf8_lossy(value.as_bytes()));
    while text.len() > bytes_max {
        text.pop();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn hostile_names_are_bad_requests() {
        let long = "a".repeat(300);
        for name in [
            "team",
            "team/",
            "/app.db",
            "team//app.db",
            "team/../app.db",
            "team/%2e%2e/app.db",
            "team/%2e%2e%2fapp.db",
            "../etc/passwd",
            "team/a%00b",
            "team/a%0ab",
            "team/%1b[2J",
            "team/%ff",
            "team/a%5cb",
            &format!("team/{long}"),
        ] {
            let refused = parse_name(name).unwrap_err();
            assert_eq!(refused.why, Why::BadRequest, "{name}");
            assert!(!refused.text.contains(['\n', '\u{1b}']), "{name}: {}", refused.text);
        }
        assert_eq!(parse_name("team/a/b%20c.db").unwrap().to_string(), "team/a/b c.db");
    }

    #[test]
    fn an_empty_key_is_none_and_a_wrong_one_is_not_told_again() {
        assert!(credentials(&headers(&[])).unwrap().key.is_none());
        assert!(credentials(&headers(&[("authorization", "")])).unwrap().key.is_none());
        let refused = credentials(&headers(&[("authorization", "sqlr_push_hunter2")])).unwrap_err();
        assert_eq!(refused.why, Why::BadKey);
        assert!(!refused.text.contains("hunter2"));
        let key = Key::new(sqlrsync_protocol::key::Kind::AccountPull, [7; 21]);
        for prefix in ["", "Bearer ", "bearer  "] {
            let value = format!("{prefix}{}", key.secret());
            let found = credentials(&headers(&[("authorization", &value)])).unwrap();
            assert_eq!(found.key, Some(key.clone()));
            assert!(!format!("{found:?}").contains(&key.secret()));
        }
    }

    #[test]
    fn what_the_client_says_is_bounded_and_printable() {
        let long = "x".repeat(9000);
        let says = client_says(&headers(&[
            ("x-localhostname", &long),
            ("x-localabsolutepath", &long),
            ("x-visibility", "2"),
            ("x-replicaversion", "-2"),
        ]))
        .unwrap();
        assert_eq!((says.host.len(), says.local_path.len()), (255, 4096));
        assert_eq!(says.visibility, Some(Visibility::Public));
        assert_eq!(says.version, VersionSelector::Back(2));
        for (name, value) in [("x-visibility", "3"), ("x-replicaversion", "x"), ("x-replicaid", "../a")] {
            assert_eq!(client_says(&headers(&[(name, value)])).unwrap_err().why, Why::BadRequest, "{name}");
        }
    }

    #[test]
    fn only_the_last_forwarded_address_counts() {
        let value = headers(&[("x-forwarded-for", "10.0.0.1, 192.0.2.7")]);
        assert_eq!(forwarded_for(&value), Some("192.0.2.7".parse().unwrap()));
        assert_eq!(forwarded_for(&headers(&[("x-forwarded-for", "unknown")])), None);
        assert_eq!(forwarded_for(&headers(&[])), None);
    }
}
