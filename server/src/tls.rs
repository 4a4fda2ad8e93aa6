//! TLS from a certificate and a key file, read again when the server is told to (SIGHUP).
//!
//! What cannot be used is refused. What can be used, but will be refused by clients, is said in the log: another
//! program may know better, and a server that does not come up helps nobody to renew a certificate.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read, or is no PEM file of what it should hold.
    #[error("cannot read {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rustls::pki_types::pem::Error,
    },
    /// There is no certificate in the file.
    #[error("{} holds no certificate", .0.display())]
    NoCertificate(PathBuf),
    /// They are of two pairs, or in a wrong order.
    #[error(
        "the key in {} does not belong to the first certificate in {}: give the two that were made together, \
         and in the certificate file the server's own before those that signed it",
        .0.key.display(),
        .0.certificate.display()
    )]
    NotItsKey(Files),
    /// They are read, but are of no use.
    #[error("the certificate in {} and the key in {} cannot be used: {source}", files.certificate.display(), files.key.display())]
    Unusable {
        /// The files.
        files: Files,
        /// What the library says.
        source: rustls::Error,
    },
}

/// Why clients will refuse a certificate that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// Its time is over.
    #[error("it has expired: renew it, and send this process a SIGHUP")]
    Expired,
    /// Its time is to come.
    #[error("it is not valid yet: see that the clock of this machine is right, or have it made anew")]
    NotYet,
    /// It is one that signs others.
    #[error(
        "it is that of an authority (CA:TRUE), which signs others, and not one of a server: have it sign one for \
         this server's name, give that with its key to the server, and this one to clients with --ca-file"
    )]
    Authority,
    /// It is for something else.
    #[error("it was not made for a server: have one made that is")]
    Purpose,
}

/// How the library calls an authority's certificate that a server uses for itself.
const CA_AS_SERVER: &str = "CaUsedAsEndEntity";

/// The two files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// Certificate chain, PEM.
    pub certificate: PathBuf,
    /// Private key, PEM.
    pub key: PathBuf,
}

/// What new connections are accepted with.
#[derive(Clone)]
pub struct Tls {
    files: Files,
    config: Arc<RwLock<Arc<ServerConfig>>>,
}

/// Why clients will refuse this certificate, whatever name they know the server by and whomever they trust.
pub fn flaw(certificate: &CertificateDer<'_>) -> Option<Flaw> {
    let certificate = ParsedCertificate::try_from(certificate).ok()?;
    let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms;
    // What is wrong with the certificate itself is found before it is looked who has signed it. Nobody is trusted.
    let nobody = RootCertStore::empty();
    let error = verify_server_cert_signed_by_trust_anchor(
        &certificate,
        &nobody,
        &[],
        UnixTime::now(),
        algorithms.all,
    );
    let Err(rustls::Error::InvalidCertificate(error)) = error else { return None };
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => Some(Flaw::Expired),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Some(Flaw::NotYet),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            Some(Flaw::Purpose)
        }
        CertificateError::Other(other) if other.to_string() == CA_AS_SERVER => Some(Flaw::Authority),
        _ => None,
    }
}

impl Tls {
    /// Reads both files.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn load(files: Files) -> Result<Tls, Error> {
        let config = Arc::new(RwLock::new(read(&files)?));
        Ok(Tls { files, config })
    }

    /// Reads both files again. Where that fails, new connections get the old certificate.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn reload(&self) -> Result<(), Error> {
        let config = read(&self.files)?;
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    /// For the next connection.
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.config.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

fn read(files: &Files) -> Result<Arc<ServerConfig>, Error> {
    let at = |path: &PathBuf| {
        let path = path.clone();
        move |source| Error::File { path, source }
    };
    let chain = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(|certificates| certificates.collect::<Result<Vec<_>, _>>())
        .map_err(at(&files.certificate))?;
    if chain.is_empty() {
        return Err(Error::NoCertificate(files.certificate.clone()));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(at(&files.key))?;
    let flaw = flaw(&chain[0]);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let unusable = |source| match source {
        rustls::Error::InconsistentKeys(_) => Error::NotItsKey(files.clone()),
        source => Error::Unusable { files: files.clone(), source },
    };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(unusable)?;
    if let Some(flaw) = flaw {
        let file = files.certificate.display();
        tracing::warn!("clients will refuse the certificate in {file}: {flaw}");
    }
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair, date_time_ymd};

    use super::*;

    fn params(change: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        change(&mut params);
        params
    }

    #[test]
    fn what_clients_will_refuse_is_seen_in_the_certificate_itself() {
        let authority = IsCa::Ca(BasicConstraints::Unconstrained);
        let for_clients = vec![ExtendedKeyUsagePurpose::ClientAuth];
        for (params, expected) in [
            (params(|_| {}), None),
            (params(|params| params.is_ca = authority), Some(Flaw::Authority)),
            (params(|params| params.not_after = date_time_ymd(2001, 1, 1)), Some(Flaw::Expired)),
            (params(|params| params.not_before = date_time_ymd(4000, 1, 1)), Some(Flaw::NotYet)),
            (params(|params| params.extended_key_usages = for_clients), Some(Flaw::Purpose)),
        ] {
            let made = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
            assert_eq!(flaw(made.der()), expected);
        }
    }

    #[test]
    fn a_key_of_another_certificate_is_refused_in_words() {
        let folder = tempfile::tempdir().unwrap();
        let [certificate, key] = ["cert.pem", "key.pem"].map(|name| folder.path().join(name));
        let made = params(|_| {}).self_signed(&KeyPair::generate().unwrap()).unwrap();
        std::fs::write(&certificate, made.pem()).unwrap();
        std::fs::write(&key, KeyPair::generate().unwrap().serialize_pem()).unwrap();
        let error = Tls::load(Files { certificate, key }).err().unwrap().to_string();
        for part in ["key.pem does not belong to the first certificate in", "cert.pem", "made together"] {
            assert!(error.contains(part), "{error}");
        }
    }
}
