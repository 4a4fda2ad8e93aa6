//! What a service manager is told (`sd_notify(3)`), where one asked for it: systemd with `Type=notify`
//! names a socket in NOTIFY_SOCKET, and without it nothing here does anything.
//!
//! A status is shown to people and read line by line, so it passes through `printable`: what a server
//! says cannot become a message of its own.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::time::Duration;

use sqlrsync_protocol::text::printable;

/// Where the manager listens: a path, or after an `@` a name that is no file.
pub const SOCKET_VARIABLE: &str = "NOTIFY_SOCKET";

/// A manager that takes nothing is not waited for longer.
const SEND_MAX: Duration = Duration::from_secs(1);

/// The work has begun: whatever was waiting for this service may start.
pub fn ready() {
    tell("READY=1");
}

/// What is going on, for `systemctl status`.
pub fn status(text: &str) {
    tell(&format!("STATUS={}", printable(text)));
}

/// We were told to stop, and do.
pub fn stopping() {
    tell("STOPPING=1");
}

fn tell(message: &str) {
    let Some(name) = std::env::var_os(SOCKET_VARIABLE).filter(|name| !name.is_empty()) else { return };
    // A manager that does not listen is not worth failing for.
    if let Err(error) = send(&name, message) {
        tracing::debug!(%error, "the service manager cannot be told");
    }
}

fn send(name: &OsStr, message: &str) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(SEND_MAX))?;
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => abstract_address(name)?,
        None => SocketAddr::from_pathname(Path::new(name))?,
    };
    socket.send_to_addr(message.as_bytes(), &address).map(drop)
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn abstract_address(name: &[u8]) -> io::Result<SocketAddr> {
    #[cfg(target_os = "android")]
    use std::os::android::net::SocketAddrExt;
    #[cfg(target_os = "linux")]
    use std::os::linux::net::SocketAddrExt;
    SocketAddr::from_abstract_name(name)
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn abstract_address(_: &[u8]) -> io::Result<SocketAddr> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_reaches_a_socket_with_a_path_and_one_with_a_name_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let name = format!("@sqlrsync-unit-test-{}", std::process::id());
        let of_path = UnixDatagram::bind(&path).unwrap();
        let of_name = UnixDatagram::bind_addr(&abstract_address(&name.as_bytes()[1..]).unwrap()).unwrap();
        for (name, socket) in [(path.as_os_str(), of_path), (OsStr::new(&name), of_name)] {
            send(name, "READY=1").unwrap();
            socket.set_nonblocking(true).unwrap();
            let mut buffer = [0; 100];
            let length = socket.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], b"READY=1");
        }
        assert!(send(folder.path().join("nobody").as_os_str(), "READY=1").is_err());
    }
}
