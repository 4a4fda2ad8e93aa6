//! TLS, with a certificate of our own.

use std::path::PathBuf;

use sqlrsync_tests::client::Client;
use sqlrsync_tests::sample;
use sqlrsync_tests::server::Server;
use tempfile::TempDir;

use crate::REMOTE;

struct Certificate {
    folder: TempDir,
}

impl Certificate {
    fn new() -> Certificate {
        let folder = tempfile::tempdir().unwrap();
        let made =
            rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        std::fs::write(folder.path().join("cert.pem"), made.cert.pem()).unwrap();
        std::fs::write(folder.path().join("key.pem"), made.signing_key.serialize_pem()).unwrap();
        Certificate { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn server(&self) -> Server {
        let (cert, key) = (self.path("cert.pem"), self.path("key.pem"));
        Server::with_flags(&["--tls-cert", cert.to_str().unwrap(), "--tls-key", key.to_str().unwrap()])
    }
}

#[test]
fn push_pull_and_log_go_over_tls() {
    let certificate = Certificate::new();
    let server = certificate.server();
    assert!(server.url().starts_with("https://"), "{}", server.url());
    let ca = certificate.path("cert.pem");
    let ca = ["--ca-file", ca.to_str().unwrap()];
    let client = Client::admin(&server);
    sample::create(&client.path("app.db"));
    client.run(&[&["app.db", REMOTE], &ca[..]].concat()).ok();
    client.run(&[&[REMOTE, "pulled.db"], &ca[..]].concat()).ok();
    client.run(&[&["log", REMOTE], &ca[..]].concat()).ok();
    sample::assert_same(&client.path("app.db"), &client.path("pulled.db"));
}

#[test]
fn a_certificate_that_nobody_trusts_is_refused_before_a_key_is_sent() {
    let certificate = Certificate::new();
    let server = certificate.server();
    let client = Client::admin(&server);
    sample::create(&client.path("app.db"));
    let outcome = client.run(&["app.db", REMOTE]);
    assert!([1, 5].contains(&outcome.code), "{} {}", outcome.code, outcome.stderr);
    assert!(outcome.stderr.to_lowercase().contains("certificate"), "{}", outcome.stderr);
    assert!(!server.log().contains("server::session"), "nothing got as far as a request: {}", server.log());
}

#[test]
fn plain_http_to_a_tls_server_and_the_other_way_round_fail_plainly() {
    let certificate = Certificate::new();
    let secure = certificate.server();
    let plain = Server::start();
    let client = Client::admin(&plain);
    sample::create(&client.path("app.db"));
    let url = secure.url().replace("https", "http");
    client.run(&["app.db", REMOTE, "-s", &url]).code_is_not(0);
    let url = plain.url().replace("http", "https");
    client.run(&["app.db", REMOTE, "-s", &url]).code_is_not(0);
}
