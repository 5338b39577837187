//! Which registries are trusted: system roots, a bundle of one's own, or (asked for by name) none.
//!
//! rustls with ring as its only provider; the provider is given to the configuration and not installed for the process.

use crate::{Error, Identity};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::sync::Arc;

/// How to reach one registry. The default is HTTPS with the system's roots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// Speak HTTP without TLS to the registry.
    pub plain_http: bool,
    /// Accept any certificate.
    pub insecure_skip_verify: bool,
    /// PEM bundle, in addition to the system's roots.
    pub ca_bundle: Option<Vec<u8>>,
    /// What the client shows when it is asked who it is.
    pub identity: Option<Identity>,
}

impl Tls {
    pub(crate) fn client_config(&self, registry: &str) -> Result<ClientConfig, Error> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::TlsSetup { registry: registry.to_owned(), detail: error.to_string() })?;
        let builder = match self.insecure_skip_verify {
            true => builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(provider))),
            false => builder.with_root_certificates(self.roots(registry)?),
        };
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                // The parser's own text could quote the key.
                let bad = |detail: &str| Error::TlsSetup {
                    registry: registry.to_owned(),
                    detail: format!("the client's {detail} is not in PEM form or does not fit"),
                };
                let certificates =
                    CertificateDer::pem_slice_iter(&identity.certificates).collect::<Result<Vec<_>, _>>();
                let certificates = certificates.map_err(|_| bad("certificate"))?;
                let key = PrivateKeyDer::from_pem_slice(identity.key.expose().as_bytes()).map_err(|_| bad("key"))?;
                builder.with_client_auth_cert(certificates, key).map_err(|_| bad("certificate or key"))?
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }

    fn roots(&self, registry: &str) -> Result<RootCertStore, Error> {
        let mut roots = RootCertStore::empty();
        // A machine without system roots, or with an odd one among them, can still use its own bundle and plain HTTP;
        // what is not trusted shows when it is met.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let Some(bundle) = &self.ca_bundle else {
            return Ok(roots);
        };
        let bad = |detail: String| Error::CaBundle { registry: registry.to_owned(), detail };
        let mut count = 0;
        for certificate in CertificateDer::pem_slice_iter(bundle) {
            let certificate = certificate.map_err(|error| bad(error.to_string()))?;
            roots.add(certificate).map_err(|error| bad(error.to_string()))?;
            count += 1;
        }
        match count {
            0 => Err(bad("it holds no certificate".to_owned())),
            _ => Ok(roots),
        }
    }
}

/// Accepts any certificate, but checks that the other side has its key.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bundles() {
        let check = |bundle: &str, expect: &str| {
            let tls = Tls { ca_bundle: Some(bundle.into()), ..Tls::default() };
            let error = tls.client_config("host").expect_err(bundle).to_string();
            assert!(error.starts_with("reading the CA bundle of host: ") && error.contains(expect), "{error}");
        };
        check("", "holds no certificate");
        check("not PEM", "holds no certificate");
        check("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "");
        check("-----BEGIN CERTIFICATE-----\nAAAA\n", "");
        assert!(Tls::default().client_config("host").is_ok());
        assert!(Tls { insecure_skip_verify: true, ..Tls::default() }.client_config("host").is_ok());
    }
}
