//! Whom to trust: the system's certificates, or those of `--ca-file` and nobody else.
//!
//! They are read once and then believed for [`BELIEVED`]: a subscription pulls every few seconds, and the
//! system has hundreds of them. What a TLS session can be resumed with is kept with them.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use crate::error::Error;
use crate::wire::certificate;

/// After so long the certificates are read again: they may have been renewed.
const BELIEVED: Duration = Duration::from_secs(15 * 60);

/// What was read, from where, and when.
struct Kept {
    ca_file: Option<PathBuf>,
    read: Instant,
    config: Arc<ClientConfig>,
}

static KEPT: Mutex<Option<Kept>> = Mutex::new(None);

/// The certificates that count.
///
/// # Errors
/// Where the file cannot be read or has no certificate, or the system has none.
pub fn certificates(ca_file: Option<&Path>) -> Result<Vec<CertificateDer<'static>>, Error> {
    let Some(path) = ca_file else {
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::debug!(%error, "a certificate of the system cannot be read");
        }
        return Ok(found.certs);
    };
    let bad = |why: String| Error::BadFile { path: path.to_owned(), why };
    let certificates = CertificateDer::pem_file_iter(path)
        .map_err(|error| bad(error.to_string()))?
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| bad(error.to_string()))?;
    if certificates.is_empty() {
        return Err(bad("it has no certificate in PEM form".to_owned()));
    }
    Ok(certificates)
}

/// What rustls needs to speak to a server.
///
/// # Errors
/// As [`certificates`]; that none of them can be used.
pub fn config(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, Error> {
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(kept) = &*kept
        && kept.ca_file.as_deref() == ca_file
        && kept.read.elapsed() < BELIEVED
    {
        return Ok(kept.config.clone());
    }
    let config = read_config(ca_file)?;
    *kept = Some(Kept { ca_file: ca_file.map(Path::to_owned), read: Instant::now(), config: config.clone() });
    Ok(config)
}

fn read_config(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, Error> {
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(certificates(ca_file)?);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = builder.map_err(|error| certificate::refused("the server".to_owned(), &error))?;
    if added == 0 {
        let why = "no certificate is trusted here".to_owned();
        return Err(certificate::refused_for("any server".to_owned(), why));
    }
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}
