//! X.509 certificates of signers: a chain to a root that the caller trusts, for code signing, at the time of verification.
//!
//! The checks are the reference's (apptainer `internal/pkg/signature/verify.go`: Go's `Certificate.Verify` with
//! `ExtKeyUsageCodeSigning`): each link's signature, validity, basic constraints, and that a certificate which names extended
//! usages names code signing. Path building is webpki's (RFC 5280, section 6).

use crate::cosign::{InvalidKey, Key};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use std::time::Duration;
use x509_cert::Certificate;
use x509_cert::der::Decode as _;
use x509_cert::ext::pkix::BasicConstraints;

/// Most bytes of a file of certificates.
pub const MAX_FILE: u64 = 1 << 20;
/// Most certificates that are taken from a file.
const MAX_CERTIFICATES: usize = 256;
/// id-kp-codeSigning, 1.3.6.1.5.5.7.3.3.
const CODE_SIGNING: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x03];

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no certificate in PEM (-----BEGIN CERTIFICATE-----)")]
    NoCertificate,
    #[error("more than {MAX_CERTIFICATES} certificates")]
    TooMany,
    #[error("the PEM is damaged")]
    Pem,
    #[error("the certificate cannot be read: {0}")]
    Malformed(webpki::Error),
    #[error("the certificate is not valid now: {0}")]
    Time(webpki::Error),
    #[error("the certificate is not for code signing: {0}")]
    Usage(webpki::Error),
    #[error("the certificate does not lead to a root that was given: {0}")]
    Chain(webpki::Error),
    #[error("none of the roots that were given is a certificate authority that is valid now")]
    Roots,
    #[error("the certificate's key: {0}")]
    Key(#[from] InvalidKey),
}

/// Certificates of a PEM file, at least one.
#[derive(Clone, Debug)]
pub struct Certificates(Vec<CertificateDer<'static>>);

impl Certificates {
    pub fn from_pem(text: &[u8]) -> Result<Self, Error> {
        let mut found = Vec::new();
        for certificate in CertificateDer::pem_slice_iter(text) {
            found.push(certificate.map_err(|_| Error::Pem)?);
            if found.len() > MAX_CERTIFICATES {
                return Err(Error::TooMany);
            }
        }
        if found.is_empty() { Err(Error::NoCertificate) } else { Ok(Self(found)) }
    }
}

/// The key of the first of `signer`'s certificates, if it leads to one of `roots` at `now` (Unix seconds).
pub fn verified_key(
    signer: &Certificates,
    intermediates: Option<&Certificates>,
    roots: &Certificates,
    now: i64,
) -> Result<Key, Error> {
    let roots: Vec<_> = roots.0.iter().filter(|root| is_root(root, &signer.0[0], now)).collect();
    if roots.is_empty() {
        return Err(Error::Roots);
    }
    let leaf = webpki::EndEntityCert::try_from(&signer.0[0]).map_err(Error::Malformed)?;
    let anchors: Result<Vec<TrustAnchor<'_>>, _> =
        roots.iter().map(|root| webpki::anchor_from_trusted_cert(root)).collect();
    let anchors = anchors.map_err(Error::Malformed)?;
    // What follows the signer's own certificate in its file is of its chain.
    let between: Vec<_> = signer.0[1..].iter().chain(intermediates.iter().flat_map(|it| &it.0)).cloned().collect();
    let verified = leaf.verify_for_usage(
        webpki::ALL_VERIFICATION_ALGS,
        &anchors,
        &between,
        UnixTime::since_unix_epoch(Duration::from_secs(now.try_into().unwrap_or(0))),
        webpki::KeyUsage::required_if_present(CODE_SIGNING),
        None,
        None,
    );
    verified.map_err(explained)?;
    Ok(Key::from_spki(&leaf.subject_public_key_info())?)
}

/// webpki takes an anchor's name and key alone: that it is valid now, and an authority (unless it is the signer itself), is looked
/// at here.
fn is_root(root: &CertificateDer<'_>, leaf: &CertificateDer<'_>, now: i64) -> bool {
    let Ok(certificate) = Certificate::from_der(root) else {
        return false;
    };
    let tbs = certificate.tbs_certificate();
    let (from, to) = (tbs.validity().not_before.to_unix_duration(), tbs.validity().not_after.to_unix_duration());
    let now = Duration::from_secs(now.try_into().unwrap_or(0));
    // Certificates of the first version say nothing of it.
    let constraints = tbs.get_extension::<BasicConstraints>();
    let may_issue =
        matches!(constraints, Ok(None)) || matches!(constraints, Ok(Some((_, BasicConstraints { ca: true, .. }))));
    from <= now && now <= to && (may_issue || root == leaf)
}

fn explained(error: webpki::Error) -> Error {
    use webpki::Error as E;
    match error {
        E::CertExpired { .. } | E::CertNotValidYet { .. } | E::InvalidCertValidity => Error::Time(error),
        E::RequiredEkuNotFoundContext(_) | E::EmptyEkuExtension => Error::Usage(error),
        other => Error::Chain(other),
    }
}
