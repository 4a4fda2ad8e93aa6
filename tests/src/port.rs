//! Ports that are nobody else's for as long as a test needs them.
//!
//! A port that was free a moment ago may be anybody's in the next: of a test that runs at the same time, or of
//! the client's own end of a connection. So one is held, by a socket that is bound to it and does not listen.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::TcpSocket;

/// A port of the loopback interface that the system gives to nobody. A program that is told its number can
/// listen there, as often as it likes, if it asks to share the address (`SO_REUSEADDR`), as servers do. Where none
/// does, connections are refused.
#[derive(Debug)]
pub struct Port {
    address: SocketAddr,
    _held: TcpSocket,
}

impl Port {
    /// Takes one.
    pub fn hold() -> Port {
        let socket = TcpSocket::new_v4().expect("a socket can be made");
        socket.set_reuseaddr(true).expect("it can be set");
        socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("a loopback port");
        Port { address: socket.local_addr().expect("it has an address"), _held: socket }
    }

    /// The address with the port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_held_port_refuses_connections_but_while_somebody_listens_there() {
        let port = Port::hold();
        let connect = || TcpStream::connect(port.address()).map(drop).map_err(|error| error.kind());
        for _ in 0..2 {
            assert_eq!(connect(), Err(ErrorKind::ConnectionRefused));
            let listener = TcpListener::bind(port.address()).expect("it is held for whoever is told");
            assert_eq!(connect(), Ok(()));
            drop(listener);
        }
    }
}
