//! Keys from a real TLS 1.3 session (rustls): both ends run it over the connection's first subflow and derive the keys
//! that prove its joins from it (RFC 5705, RFC 8446 section 7.5), so nobody who saw the handshake can forge one.
//!
//! The label and the split are our own choice: the drafts could not be read that far. Whom the certificate names is not
//! checked here: what is shown is that both ends hold the same keys, and that joins are proved with them.

use std::io::{Read as _, Write as _};
use std::sync::Arc;

use anyhow::Context as _;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, Connection, DigitallySignedStruct, Error, ServerConfig, ServerConnection,
    SignatureScheme,
};

/// What the exporter is asked for.
const LABEL: &[u8] = b"EXPORTER-MPTCP-keys";
/// Bytes of each end's key.
const KEY: usize = 32;
/// The name in the certificate.
const NAME: &str = "simulator.example";

/// What all sessions of one side share.
#[derive(Clone)]
pub enum Side {
    /// Clients.
    Client(Arc<ClientConfig>),
    /// Servers.
    Server(Arc<ServerConfig>),
}

/// A session.
pub struct Session(Connection);

/// What a session has after some bytes from the other side.
#[derive(Debug, Default)]
pub struct Heard {
    /// What the other side said.
    pub data: Vec<u8>,
    /// What must be sent.
    pub out: Vec<u8>,
}

impl Side {
    /// Clients of servers with any certificate.
    ///
    /// # Errors
    /// The TLS library refuses its own defaults.
    pub fn client() -> anyhow::Result<Self> {
        let provider = Arc::new(ring::default_provider());
        let verifier = Arc::new(AnyName(Arc::clone(&provider)));
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .context("TLS 1.3")?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        Ok(Self::Client(Arc::new(config)))
    }

    /// Servers with a certificate made for the occasion.
    ///
    /// # Errors
    /// No certificate can be made.
    pub fn server() -> anyhow::Result<Self> {
        let made =
            rcgen::generate_simple_self_signed([NAME.to_owned()]).context("cannot make a certificate")?;
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).map_err(anyhow::Error::msg)?;
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .context("TLS 1.3")?
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .context("the certificate")?;
        Ok(Self::Server(Arc::new(config)))
    }

    /// A new session; `None` where the library refuses, which it has no reason to.
    pub fn session(&self) -> Option<Session> {
        let mut session: Connection = match self {
            Self::Client(config) => {
                let name = ServerName::try_from(NAME).ok()?;
                ClientConnection::new(Arc::clone(config), name).ok()?.into()
            }
            Self::Server(config) => ServerConnection::new(Arc::clone(config)).ok()?.into(),
        };
        // What a connection has to say is given at once, and is as long as `--bytes` makes it.
        session.set_buffer_limit(None);
        Some(Session(session))
    }
}

impl Session {
    /// Takes bytes of the other side; what came of them.
    ///
    /// # Errors
    /// The other side does not speak TLS as it should.
    pub fn hear(&mut self, mut wire: &[u8]) -> Result<Heard, Error> {
        let mut heard = Heard::default();
        while !wire.is_empty() {
            // Reading from a slice does not fail.
            if self.0.read_tls(&mut wire).unwrap_or(0) == 0 {
                break;
            }
            self.0.process_new_packets()?;
            // Ends with "would block" where there is no more: what was read counts.
            let _ = self.0.reader().read_to_end(&mut heard.data);
        }
        heard.out = self.pending();
        Ok(heard)
    }

    /// Seals data for the other side.
    pub fn say(&mut self, data: &[u8]) -> Vec<u8> {
        // The buffer has no limit, so it takes all.
        let _ = self.0.writer().write_all(data);
        self.pending()
    }

    /// What is to be sent.
    pub fn pending(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        while self.0.wants_write() {
            // Writing to a vector does not fail.
            if self.0.write_tls(&mut out).unwrap_or(0) == 0 {
                break;
            }
        }
        out
    }

    /// The keys of client and server, once the handshake is complete: the first, or the second, whose context is its number.
    pub fn keys(&self, slot: u8) -> Option<[Vec<u8>; 2]> {
        if self.0.is_handshaking() {
            return None;
        }
        let context = [slot];
        let context = (slot > 0).then_some(&context[..]);
        let both = self.0.export_keying_material([0; 2 * KEY], LABEL, context).ok()?;
        let (client, server) = both.split_at(KEY);
        Some([client.to_vec(), server.to_vec()])
    }
}

/// Takes any certificate, but checks that the server holds its key.
#[derive(Debug)]
struct AnyName(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.3 alone is spoken".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two sessions after their handshake.
    fn pair() -> (Session, Session) {
        let mut client = Side::client().unwrap().session().unwrap();
        let mut server = Side::server().unwrap().session().unwrap();
        let mut to_server = client.pending();
        while !to_server.is_empty() {
            let to_client = server.hear(&to_server).unwrap().out;
            to_server = client.hear(&to_client).unwrap().out;
        }
        (client, server)
    }

    #[test]
    fn both_ends_of_a_session_derive_the_same_keys_and_another_session_others() {
        let (client, server) = pair();
        let keys = client.keys(0).unwrap();
        assert_eq!(server.keys(0), Some(keys.clone()));
        assert_ne!(keys[0], keys[1]);
        let second = client.keys(1).unwrap();
        assert!(server.keys(1) == Some(second.clone()) && second[0] != keys[0] && second[1] != keys[1]);
        assert_ne!(pair().0.keys(0), Some(keys));
    }

    #[test]
    fn there_are_no_keys_before_the_handshake_is_complete() {
        let client = Side::client().unwrap().session().unwrap();
        assert_eq!(client.keys(0), None);
    }

    #[test]
    fn what_one_end_says_the_other_hears_in_any_pieces() {
        let (mut client, mut server) = pair();
        let wire = client.say(&[7; 5000]);
        let heard: Vec<u8> = wire.chunks(100).flat_map(|part| server.hear(part).unwrap().data).collect();
        assert_eq!(heard, [7; 5000]);
        assert!(server.hear(b"this is not TLS").is_err());
    }
}
