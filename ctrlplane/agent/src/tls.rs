//! Mutual TLS 1.3 for both ends, from PEM files.
//!
//! Either end shows a certificate of an authority that the other one names; the names in an agent's certificate say which
//! backends it may speak for. No other version of TLS, no certificate left out, nothing taken from the system's trust.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file that cannot be read as what it should be.
    #[error("{} cannot be read as {what} in PEM form: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What it should be.
        what: &'static str,
        /// What is wrong with it.
        error: rustls::pki_types::pem::Error,
    },
    /// A file without what it should have.
    #[error("{} holds no certificate", .0.display())]
    Empty(PathBuf),
    /// A file without a list.
    #[error("{} holds no list of revoked certificates (BEGIN X509 CRL)", .0.display())]
    NoList(PathBuf),
    /// Certificates and key that do not fit.
    #[error("the certificate and key cannot be used: {0}")]
    Unusable(#[from] rustls::Error),
    /// An authority that is none.
    #[error("the authority's certificate, or a list of revoked ones, cannot be used: {0}")]
    Authority(#[from] rustls::server::VerifierBuilderError),
}

/// The three files of one end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// Certificates of the authorities of the other end.
    pub authority: PathBuf,
    /// This end's certificate and those between it and its authority.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl Files {
    /// What an agent connects with.
    pub fn client(&self) -> Result<ClientConfig, TlsError> {
        let (chain, key) = self.identity()?;
        let config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])?
            .with_root_certificates(self.authorities()?)
            .with_client_auth_cert(chain, key)?;
        Ok(config)
    }

    /// What a control plane listens with: certificates on the lists in `revoked` are refused, and so are those of an
    /// authority that has no list there. A list is believed after its next one was due, too: those on it stay there.
    pub fn server(&self, revoked: Option<&Path>) -> Result<Server, TlsError> {
        let (chain, key) = self.identity()?;
        let roots = Arc::new(self.authorities()?);
        let builder = WebPkiClientVerifier::builder_with_provider(roots, provider());
        let lists = revoked.map(revocation_lists).transpose()?.unwrap_or_default();
        let verifier = builder.with_crls(lists).build()?;
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(verifier.clone())
            .with_single_cert(chain, key)?;
        // A resumed session would show no certificate, so none could be found on a list.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Server { config: Arc::new(config), verifier })
    }

    fn authorities(&self) -> Result<RootCertStore, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&self.authority)? {
            roots.add(certificate)?;
        }
        Ok(roots)
    }

    fn identity(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
        let chain = certificates(&self.certificate)?;
        let file = |error| TlsError::File { path: self.key.clone(), what: "a private key", error };
        Ok((chain, PrivateKeyDer::from_pem_file(&self.key).map_err(file)?))
    }
}

/// What a control plane listens with.
#[derive(Clone, Debug)]
pub struct Server {
    /// For handshakes.
    pub config: Arc<ServerConfig>,
    verifier: Arc<dyn ClientCertVerifier>,
}

impl Server {
    /// Whether an agent that showed these certificates would be let in now.
    pub fn accepts(&self, shown: &[CertificateDer<'_>]) -> Result<(), rustls::Error> {
        let (own, between) = shown.split_first().ok_or(rustls::Error::NoCertificatesPresented)?;
        self.verifier.verify_client_cert(own, between, UnixTime::now()).map(|_| ())
    }
}

fn revocation_lists(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let file = |error| TlsError::File { path: path.to_owned(), what: "lists of revoked certificates", error };
    let all: Result<Vec<_>, _> = CertificateRevocationListDer::pem_file_iter(path).map_err(file)?.collect();
    let all = all.map_err(file)?;
    if all.is_empty() { Err(TlsError::NoList(path.to_owned())) } else { Ok(all) }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let file = |error| TlsError::File { path: path.to_owned(), what: "certificates", error };
    let all: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).map_err(file)?.collect();
    let all = all.map_err(file)?;
    if all.is_empty() { Err(TlsError::Empty(path.to_owned())) } else { Ok(all) }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
