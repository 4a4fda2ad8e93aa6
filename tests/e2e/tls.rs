//! TLS, with a certificate of our own.

use sqlrsync_tests::client::Client;
use sqlrsync_tests::sample;
use sqlrsync_tests::server::Server;
use sqlrsync_tests::tls::Certificate;

use crate::REMOTE;

fn server(certificate: &Certificate) -> Server {
    Server::with_flags(&certificate.server_flags().each_ref().map(String::as_str))
}

#[test]
fn push_pull_and_log_go_over_tls() {
    let certificate = Certificate::new();
    let server = server(&certificate);
    assert!(server.url().starts_with("https://"), "{}", server.url());
    let ca = certificate.cert();
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
    let server = server(&certificate);
    let client = Client::admin(&server);
    sample::create(&client.path("app.db"));
    for arguments in [&["app.db", REMOTE][..], &[REMOTE, "pulled.db"], &["log", REMOTE], &["status", REMOTE]]
    {
        let outcome = client.run(arguments);
        // To try again later would be of no use.
        assert_eq!(outcome.code, 1, "{arguments:?}: {}", outcome.stderr);
        assert!(outcome.stderr.to_lowercase().contains("certificate"), "{}", outcome.stderr);
        assert!(outcome.stderr.contains("--ca-file"), "{}", outcome.stderr);
    }
    assert!(!server.log().contains("server::session"), "nothing got as far as a request: {}", server.log());
}

#[test]
fn plain_http_to_a_tls_server_and_the_other_way_round_fail_plainly() {
    let certificate = Certificate::new();
    let secure = server(&certificate);
    let plain = Server::start();
    let client = Client::admin(&plain);
    sample::create(&client.path("app.db"));
    let url = secure.url().replace("https", "http");
    client.run(&["app.db", REMOTE, "-s", &url]).code_is_not(0);
    let url = plain.url().replace("http", "https");
    client.run(&["app.db", REMOTE, "-s", &url]).code_is_not(0);
}
