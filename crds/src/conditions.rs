//! Condition types and reasons: API, as binding as the fields. Each says its polarity and when it is present.
//!
//! ```text
//! type            good is    present
//! Ready           True       always, once the object was seen
//! Reconciling     absent     only as True: work towards the current generation goes on, or waits for its next attempt
//! Stalled         absent     only as True: nothing more happens until somebody changes something
//! SourceResolved  True       once the source was asked for
//! SourceVerified  True       when spec.verify is set
//! Built           True       once a build was needed
//! Signed          True       when spec.sign is set
//! Published       True       once something was to be published
//! ```
//!
//! Reconciling and Stalled are never there together (kstatus reads them; `kubectl wait`, Argo CD and Flux read Ready).
//! Ready is Unknown after a change of generation until that generation is published; what was published before stays
//! launchable all that time. A rebuild for a tag that moved keeps Ready=True and Reconciling absent.

/// The image of the current generation is published and can be launched. Polarity: positive.
pub const READY: &str = "Ready";
/// Work goes on. Polarity: negative ("abnormal-true"); absent otherwise.
pub const RECONCILING: &str = "Reconciling";
/// The user must act. Polarity: negative ("abnormal-true"); absent otherwise.
pub const STALLED: &str = "Stalled";
/// The source's reference was resolved to a digest. Polarity: positive.
pub const SOURCE_RESOLVED: &str = "SourceResolved";
/// The source's signatures satisfy spec.verify. Polarity: positive.
pub const SOURCE_VERIFIED: &str = "SourceVerified";
/// The SIF of the resolved digest and the current recipe exists. Polarity: positive.
pub const BUILT: &str = "Built";
/// The SIF carries the signature that spec.sign asks for. Polarity: positive.
pub const SIGNED: &str = "Signed";
/// The store's ref points at the artifact, with the current access rules. Polarity: positive.
pub const PUBLISHED: &str = "Published";

/// Why a condition is as it is. A closed set, so that programs can tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// Done; nothing to do.
    Succeeded,
    /// The reference is being resolved.
    Resolving,
    /// Waits for a free builder.
    Queued,
    /// The build runs.
    Building,
    /// spec.suspend is set.
    Suspended,

    /// Stalled: a field's value is wrong.
    InvalidSpec,
    /// Stalled: a field asks for what this version cannot do.
    Unsupported,
    /// Stalled: the reference does not follow the grammar.
    InvalidReference,
    /// Stalled: the registry knows no such repository, tag or digest.
    NotFound,
    /// Stalled: the registry refuses the credentials, or wants some.
    Unauthorized,
    /// Stalled: the image has no manifest for the platform.
    PlatformNotFound,
    /// Stalled: the registry's certificate is not trusted.
    CertificateInvalid,
    /// Stalled: what the registry sent breaks the format, or a limit.
    SourceInvalid,
    /// Stalled: a blob's bytes have another size or digest than its manifest says: the registry's copy is damaged.
    DigestMismatch,
    /// Stalled: a Secret or ConfigMap exists but does not hold what is needed.
    InvalidCredentials,
    /// Stalled: the image cannot be turned into a SIF.
    BuildFailed,

    /// Waiting: a Secret that the spec names does not exist.
    SecretNotFound,
    /// Waiting: a ConfigMap that the spec names does not exist.
    ConfigMapNotFound,

    /// Transient: the registry does not answer, or answers 5xx.
    RegistryUnavailable,
    /// Transient: the registry asks for fewer requests (429).
    RateLimited,
    /// Transient: the store refused a read or a write.
    StoreFailed,
    /// Transient: a build took longer than spec.build.timeout.
    BuildTimeout,
    /// Transient: another operator process holds a newer lease.
    LeadershipLost,
}

impl Reason {
    /// The word as it stands in a condition.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "Succeeded",
            Self::Resolving => "Resolving",
            Self::Queued => "Queued",
            Self::Building => "Building",
            Self::Suspended => "Suspended",
            Self::InvalidSpec => "InvalidSpec",
            Self::Unsupported => "Unsupported",
            Self::InvalidReference => "InvalidReference",
            Self::NotFound => "NotFound",
            Self::Unauthorized => "Unauthorized",
            Self::PlatformNotFound => "PlatformNotFound",
            Self::CertificateInvalid => "CertificateInvalid",
            Self::SourceInvalid => "SourceInvalid",
            Self::InvalidCredentials => "InvalidCredentials",
            Self::BuildFailed => "BuildFailed",
            Self::SecretNotFound => "SecretNotFound",
            Self::ConfigMapNotFound => "ConfigMapNotFound",
            Self::RegistryUnavailable => "RegistryUnavailable",
            Self::RateLimited => "RateLimited",
            Self::DigestMismatch => "DigestMismatch",
            Self::StoreFailed => "StoreFailed",
            Self::BuildTimeout => "BuildTimeout",
            Self::LeadershipLost => "LeadershipLost",
        }
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
