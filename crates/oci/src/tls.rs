//! Which registries are trusted: system roots, a bundle of one's own, or (asked for by name) none.
//!
//! rustls with ring as its only provider; the provider is given to the configuration and not installed for the process.

use crate::{Error, Identity, Proxies};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
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
    pub proxies: Proxies,
}

impl Tls {
    pub(crate) fn client_config(&self, registry: &str) -> Result<ClientConfig, Error> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::TlsSetup { registry: registry.to_owned(), detail: error.to_string() })?;
        let builder = match self.insecure_skip_verify {
            true => builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(provider))),
            false => match self.verifier(registry, provider)? {
                Some(verifier) => builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)),
                None => builder.with_root_certificates(system_roots()),
            },
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

    /// For a bundle of one's own.
    fn verifier(&self, registry: &str, provider: Arc<CryptoProvider>) -> Result<Option<OwnBundle>, Error> {
        let Some(bundle) = &self.ca_bundle else {
            return Ok(None);
        };
        let bad = |detail: String| Error::CaBundle { registry: registry.to_owned(), detail };
        let certificates = CertificateDer::pem_slice_iter(bundle).collect::<Result<Vec<_>, _>>();
        let certificates = certificates.map_err(|error| bad(error.to_string()))?;
        if certificates.is_empty() {
            return Err(bad("it holds no certificate".to_owned()));
        }
        let mut roots = system_roots();
        for certificate in &certificates {
            roots.add(certificate.clone()).map_err(|error| bad(error.to_string()))?;
        }
        let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
        let chain = chain.map_err(|error| bad(error.to_string()))?;
        Ok(Some(OwnBundle { chain, certificates }))
    }
}

/// A machine without system roots, or with an odd one among them, can still use its own bundle and plain HTTP; what is not
/// trusted shows when it is met.
fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

/// Accepts what the bundle's authorities signed, and a certificate that is in the bundle itself: `openssl req -x509` makes
/// servers' certificates that are authorities too, which webpki accepts from nobody and everybody else does.
#[derive(Debug)]
struct OwnBundle {
    chain: Arc<WebPkiServerVerifier>,
    certificates: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for OwnBundle {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // The dates were looked at before.
            Err(error) if is_authority(&error) && self.certificates.iter().any(|own| own == end_entity) => {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            result => result,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// webpki's `CaUsedAsEndEntity`, which rustls has no name for.
fn is_authority(error: &rustls::Error) -> bool {
    match error {
        rustls::Error::InvalidCertificate(rustls::CertificateError::Other(error)) => {
            error.0.to_string() == "CaUsedAsEndEntity"
        }
        _ => false,
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
