//! A certificate of our own, for servers that speak TLS on loopback.

use std::path::PathBuf;
use std::sync::Arc;

use tempfile::TempDir;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// A self-signed certificate for `localhost` and 127.0.0.1, in files that go with it.
#[derive(Debug)]
pub struct Certificate {
    folder: TempDir,
}

impl Default for Certificate {
    fn default() -> Certificate {
        Certificate::new()
    }
}

impl Certificate {
    /// A new one.
    pub fn new() -> Certificate {
        let folder = tempfile::tempdir().unwrap();
        let made =
            rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        std::fs::write(folder.path().join("cert.pem"), made.cert.pem()).unwrap();
        std::fs::write(folder.path().join("key.pem"), made.signing_key.serialize_pem()).unwrap();
        Certificate { folder }
    }

    /// The certificate, which clients trust with `--ca-file`.
    pub fn cert(&self) -> PathBuf {
        self.folder.path().join("cert.pem")
    }

    /// The private key.
    pub fn key(&self) -> PathBuf {
        self.folder.path().join("key.pem")
    }

    /// What a server is started with.
    pub fn server_flags(&self) -> [String; 4] {
        let text = |path: PathBuf| path.to_str().unwrap().to_owned();
        ["--tls-cert".to_owned(), text(self.cert()), "--tls-key".to_owned(), text(self.key())]
    }

    /// What a client in this process needs to trust it, and nobody else.
    pub fn trusted(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.cert()).unwrap()).unwrap();
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        Arc::new(config.unwrap().with_root_certificates(roots).with_no_client_auth())
    }
}
