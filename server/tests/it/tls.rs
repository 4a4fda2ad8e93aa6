//! TLS from certificate files, and where plain HTTP is refused.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use sqlrsync_protocol::duration::Seconds;
use sqlrsync_server::server::{Config, Error, Server};
use sqlrsync_server::settings::Settings;

use crate::support::{PATIENCE, settings};

/// Writes a certificate for `localhost` and its key; returns the certificate.
fn make(folder: &Path) -> CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(folder.join("cert.pem"), made.cert.pem()).unwrap();
    std::fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    made.cert.der().clone()
}

fn with_tls(folder: &Path) -> Settings {
    let (cert, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    let handshake_timeout = Seconds::new(1).unwrap();
    Settings { tls_cert: Some(cert), tls_key: Some(key), handshake_timeout, ..settings() }
}

fn get(address: std::net::SocketAddr, trusted: &CertificateDer<'static>) -> std::io::Result<String> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut stream = StreamOwned::new(connection, stream);
    stream.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_served_and_a_new_certificate_is_taken_up() {
    let folder = tempfile::tempdir().unwrap();
    let first = make(folder.path());
    let config = Config { data: folder.path().join("data"), settings: with_tls(folder.path()) };
    let server = Server::start(config).await.unwrap();
    assert!(server.url().starts_with("https://"));
    let address = server.address();
    tokio::task::block_in_place(|| {
        assert!(get(address, &first).unwrap().starts_with("HTTP/1.1 200"));
        let second = make(folder.path());
        server.reload_tls();
        assert!(get(address, &second).unwrap().starts_with("HTTP/1.1 200"));
        assert!(get(address, &first).is_err(), "the old certificate is not used any more");
        std::fs::write(folder.path().join("cert.pem"), "no certificate").unwrap();
        server.reload_tls();
        assert!(get(address, &second).is_ok(), "what cannot be read changes nothing");

        // Plain HTTP, and a handshake that does not come, end the connection.
        for sent in [&b"GET / HTTP/1.1\r\n\r\n"[..], b""] {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(sent).unwrap();
            let started = Instant::now();
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer);
            assert!(
                started.elapsed() < Duration::from_secs(9),
                "by this limit, and not by the default of ten seconds"
            );
            assert!(!answer.starts_with(b"HTTP"), "an answer in the clear");
        }
    });
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_is_for_this_machine_only() {
    let folder = tempfile::tempdir().unwrap();
    let start = |settings| Server::start(Config { data: folder.path().join("data"), settings });
    let open = Settings { listen: "0.0.0.0:0".to_owned(), ..settings() };
    assert!(matches!(start(open.clone()).await.err(), Some(Error::PlainHttp(_))));
    assert!(!folder.path().join("data").exists(), "nothing was made");
    start(Settings { behind_proxy: true, ..open.clone() }).await.unwrap().shutdown().await;
    make(folder.path());
    let tls = Settings { listen: open.listen, ..with_tls(folder.path()) };
    start(tls).await.unwrap().shutdown().await;
    let missing = Settings { tls_cert: Some("/nowhere".into()), ..with_tls(folder.path()) };
    assert!(matches!(start(missing).await.err(), Some(Error::Tls(_))));
}
