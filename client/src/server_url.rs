//! The address of a server: parsed once, from a flag, a file or what a server itself said.

use std::fmt;
use std::str::FromStr;

/// Where a server is. `ws` and `http`, `wss` and `https` mean the same; it is shown with `ws` or
/// `wss`, as the public client writes it. Host, port and path are of a strict alphabet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServerUrl {
    tls: bool,
    host: String,
    port: Option<u16>,
    /// Empty, or begins with `/` and ends in no `/`.
    prefix: String,
}

/// The text is no address of a server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not the address of a server; it looks like wss://example.org or ws://127.0.0.1:8080")]
pub struct NotAServerUrl;

/// The longest address, in bytes.
pub const SERVER_URL_BYTES_MAX: usize = 512;

impl ServerUrl {
    /// Whether the connection is encrypted.
    pub fn tls(&self) -> bool {
        self.tls
    }

    /// The host's name or address; an IPv6 address without its brackets.
    pub fn host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }

    /// The port, also where it is not written.
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(if self.tls { 443 } else { 80 })
    }

    /// Whether the host is this machine by name or address.
    pub fn is_loopback(&self) -> bool {
        self.host() == "localhost"
            || self.host().parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    }

    /// The address of `path` (which begins with `/`) for a WebSocket.
    pub fn websocket(&self, path: &str) -> String {
        format!("{self}{path}")
    }

    /// The address of `path` (which begins with `/`) for HTTP.
    pub fn http(&self, path: &str) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}{}{path}", self.authority(), self.prefix)
    }

    fn authority(&self) -> String {
        self.port.map_or_else(|| self.host.clone(), |port| format!("{}:{port}", self.host))
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", if self.tls { "wss" } else { "ws" }, self.authority(), self.prefix)
    }
}

impl FromStr for ServerUrl {
    type Err = NotAServerUrl;

    fn from_str(text: &str) -> Result<ServerUrl, NotAServerUrl> {
        if text.len() > SERVER_URL_BYTES_MAX {
            return Err(NotAServerUrl);
        }
        let (scheme, rest) = text.split_once("://").ok_or(NotAServerUrl)?;
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "ws" | "http" => false,
            "wss" | "https" => true,
            _ => return Err(NotAServerUrl),
        };
        let (authority, prefix) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (host, port) = split_port(authority)?;
        let prefix = prefix.trim_end_matches('/');
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
        if !prefix.bytes().all(plain) || prefix.split('/').skip(1).any(|part| matches!(part, "" | "." | ".."))
        {
            return Err(NotAServerUrl);
        }
        let port = port.filter(|&port| port != if tls { 443 } else { 80 });
        Ok(ServerUrl { tls, host: host.to_ascii_lowercase(), port, prefix: prefix.to_owned() })
    }
}

/// Divides `host:port` and `[address]:port`.
fn split_port(authority: &str) -> Result<(&str, Option<u16>), NotAServerUrl> {
    let end = match authority.strip_prefix('[') {
        Some(rest) => rest.find(']').ok_or(NotAServerUrl)? + 2,
        None => authority.find(':').unwrap_or(authority.len()),
    };
    let (host, port) = authority.split_at(end);
    let good_host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty()
                && !host.starts_with(['-', '.'])
                && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
        }
    };
    let port = match port.strip_prefix(':') {
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some(digits.parse::<u16>().ok().filter(|&port| port > 0).ok_or(NotAServerUrl)?)
        }
        Some(_) => return Err(NotAServerUrl),
        None if port.is_empty() => None,
        None => return Err(NotAServerUrl),
    };
    if good_host { Ok((host, port)) } else { Err(NotAServerUrl) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_and_ws_are_the_same_server() {
        let url: ServerUrl = "http://127.0.0.1:8080/".parse().unwrap();
        assert_eq!(url, "ws://127.0.0.1:8080".parse().unwrap());
        assert_eq!(url.websocket("/sapi/push/"), "ws://127.0.0.1:8080/sapi/push/");
        assert_eq!(url.http("/livez"), "http://127.0.0.1:8080/livez");
        assert!(url.is_loopback());
    }

    #[test]
    fn ports_and_prefixes() {
        let url: ServerUrl = "HTTPS://Example.org:443/sync/".parse().unwrap();
        assert_eq!(url.to_string(), "wss://example.org/sync");
        assert_eq!((url.port(), url.tls()), (443, true));
        let six: ServerUrl = "ws://[::1]:9".parse().unwrap();
        assert_eq!((six.host(), six.port(), six.is_loopback()), ("::1", 9, true));
    }

    #[test]
    fn what_is_no_server_is_refused() {
        for text in [
            "",
            "ws://",
            "example.org",
            "ftp://x",
            "ws://a b",
            "ws://a'b",
            "ws://-x",
            "ws://x:0",
            "ws://x:70000",
            "ws://x:1x",
            "ws://u@x",
            "ws://[::1",
            "ws://[x]",
            "ws://x/../y",
            "ws://x/a?b",
            "ws://x\n",
        ] {
            assert!(text.parse::<ServerUrl>().is_err(), "{text:?}");
        }
    }
}
