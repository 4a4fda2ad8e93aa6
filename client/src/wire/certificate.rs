//! Why there is no secure connection, in words: what is wrong with the certificate, whose fault that is and what to do.
//!
//! What is in a certificate is from the other side, and is not yet trusted when it is shown here.

use rustls::CertificateError;
use rustls::pki_types::UnixTime;
use sqlrsync_protocol::text::printable;

use crate::error::Error;

/// The most names of a certificate that are shown.
const NAMES_MAX: usize = 3;

/// The longest name that is shown whole, in characters: no DNS name is longer.
const NAME_LEN_MAX: usize = 253;

/// How the library calls a certificate of an authority that a server uses for itself.
const CA_AS_SERVER: &str = "CaUsedAsEndEntity";

const TRUST_IT: &str =
    "trust a certificate of your own with --ca-file FILE; ws:// is for a server without TLS";
const SIGN_ANOTHER: &str = "whoever runs the server: have it sign one for the server's name, and serve that one; clients \
                            trust this one with --ca-file FILE";
const RENEW: &str = "whoever runs the server has to renew it; or the clock of this machine is wrong";
const WAIT: &str =
    "see that the clock of this machine is right; else whoever runs the server has to replace it";
const RENAME: &str =
    "give the name that it is for with --server; or whoever runs the server has to get one for this name";
const REPLACE: &str = "whoever runs the server has to replace it";
const NO_TLS: &str = "give the port that does; ws:// and http:// are for a server without TLS";

/// The error that a failed handshake with `server` is.
pub fn refused(server: String, error: &rustls::Error) -> Error {
    let (why, hint) = match error {
        rustls::Error::InvalidCertificate(error) => certificate(error),
        rustls::Error::InvalidMessage(_) => ("what answers there does not speak TLS".to_owned(), NO_TLS),
        other => (other.to_string(), TRUST_IT),
    };
    Error::Tls { server, why, hint }
}

/// The same where all that is known are somebody else's words.
pub fn refused_for(server: String, why: String) -> Error {
    Error::Tls { server, why, hint: TRUST_IT }
}

fn certificate(error: &CertificateError) -> (String, &'static str) {
    use CertificateError as Bad;
    let (why, hint) = match error {
        // The second where somebody of the same name is trusted: a certificate of one's own that was made anew.
        Bad::UnknownIssuer | Bad::BadSignature => {
            ("its certificate is signed by nobody who is trusted here".to_owned(), TRUST_IT)
        }
        Bad::Expired => ("its certificate has expired".to_owned(), RENEW),
        Bad::ExpiredContext { not_after, .. } => {
            (format!("its certificate has expired: it was valid until {}", day(*not_after)), RENEW)
        }
        Bad::NotValidYet => ("its certificate is not valid yet".to_owned(), WAIT),
        Bad::NotValidYetContext { not_before, .. } => {
            (format!("its certificate is not valid yet: it will be from {} on", day(*not_before)), WAIT)
        }
        Bad::NotValidForName => ("its certificate is for another name".to_owned(), RENAME),
        Bad::NotValidForNameContext { expected, presented } => {
            let name = expected.to_str();
            (format!("its certificate is not for {name} but for {}", names(presented)), RENAME)
        }
        Bad::Other(other) if other.to_string() == CA_AS_SERVER => (
            "its certificate is that of an authority (CA:TRUE), which signs others, and not one of a server"
                .to_owned(),
            SIGN_ANOTHER,
        ),
        Bad::InvalidPurpose | Bad::InvalidPurposeContext { .. } => {
            ("its certificate was not made for a server".to_owned(), REPLACE)
        }
        Bad::Revoked => ("its certificate was withdrawn".to_owned(), REPLACE),
        other => (format!("its certificate is of no use: {}", printable(&other.to_string())), REPLACE),
    };
    (why, hint)
}

fn day(time: UnixTime) -> String {
    let time =
        i64::try_from(time.as_secs()).ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    time.map_or_else(|| "a day that no clock knows".to_owned(), |time| time.strftime("%Y-%m-%d").to_string())
}

/// The names in a certificate, some of them.
fn names(presented: &[String]) -> String {
    let mut shown: Vec<String> = presented
        .iter()
        .take(NAMES_MAX)
        // The library shows them as what they are: DnsName("a.example").
        .map(|name| name.trim_start_matches("DnsName(\"").trim_end_matches("\")"))
        .map(|name| printable(&name.chars().take(NAME_LEN_MAX).collect::<String>()))
        .collect();
    if presented.len() > NAMES_MAX {
        shown.push("others".to_owned());
    }
    if shown.is_empty() { "no name at all".to_owned() } else { shown.join(", ") }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, date_time_ymd};
    use rustls::RootCertStore;
    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier;
    use rustls::pki_types::ServerName;

    use super::*;

    /// What the user is told of a certificate that signs itself, where it is trusted or not.
    fn told(params: CertificateParams, trusted: bool) -> String {
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let other = rcgen::generate_simple_self_signed(["other.example".to_owned()]).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(if trusted { certificate.der().clone() } else { other.cert.der().clone() }).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        let name = ServerName::try_from("a.example").unwrap();
        // In the year 2024.
        let now = UnixTime::since_unix_epoch(Duration::from_secs(1_720_000_000));
        let error = verifier.verify_server_cert(certificate.der(), &[], &name, &[], now).unwrap_err();
        let error = refused("https://a.example".to_owned(), &error);
        format!("{error}; {}", error.hint().unwrap())
    }

    fn params(name: &str) -> CertificateParams {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2030, 1, 1));
        params
    }

    #[test]
    fn what_is_wrong_with_a_certificate_is_said_in_words_and_what_to_do() {
        let [mut authority, mut expired, mut early] = ["a.example"; 3].map(params);
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        expired.not_after = date_time_ymd(2023, 5, 6);
        early.not_before = date_time_ymd(2025, 5, 6);
        for (params, trusted, expected) in [
            (authority, true, ["authority (CA:TRUE)", "have it sign one for the server's name"]),
            (expired, true, ["valid until 2023-05-06", "whoever runs the server has to renew it"]),
            (early, true, ["not valid yet: it will be from 2025-05-06 on", "clock of this machine"]),
            (params("b.example"), true, ["not for a.example but for b.example;", "give the name"]),
            (params("a.example"), false, ["signed by nobody who is trusted here", "--ca-file"]),
        ] {
            let told = told(params, trusted);
            assert!(expected.iter().all(|part| told.contains(part)), "{told}");
        }
    }

    #[test]
    fn names_in_a_certificate_are_few_and_printable() {
        let hostile = vec!["DnsName(\"a\u{1b}[2J\")".to_owned(), "x".repeat(100_000), "c".into(), "d".into()];
        let shown = names(&hostile);
        assert!(shown.len() < 1000 && !shown.contains('\u{1b}') && shown.ends_with(", c, others"), "{shown}");
        assert_eq!(names(&[]), "no name at all");
    }
}
