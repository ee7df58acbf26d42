//! Which backends an agent speaks for: the DNS names in its certificate that are names of backends, in whatever pool.
//!
//! The authority vouches for the names; the configuration says which of them are backends. An agent without a certificate
//! (on loopback only) says its name itself.

use ipc::message::Name;
use rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;

/// The names in a certificate that was verified already.
pub(super) fn names(certificate: &CertificateDer<'_>) -> Vec<Name> {
    let Ok(certificate) = EndEntityCert::try_from(certificate) else { return Vec::new() };
    certificate.valid_dns_names().filter_map(|name| name.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair};

    fn certificate(names: &[&str]) -> CertificateDer<'static> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        CertificateParams::new(names).unwrap().self_signed(&key).unwrap().der().clone()
    }

    #[test]
    fn the_dns_names_of_a_certificate_are_names_of_backends() {
        let text = |names: Vec<Name>| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(text(names(&certificate(&["b1", "Web_3-a.example"]))), ["b1", "Web_3-a.example"]);
        assert_eq!(text(names(&certificate(&["10.0.1.11"]))), [""; 0], "an address is no name");
        assert_eq!(text(names(&certificate(&[]))), [""; 0]);
        assert_eq!(text(names(&CertificateDer::from(vec![1, 2, 3]))), [""; 0]);
    }
}
