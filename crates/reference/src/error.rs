//! Why a text is no reference, and what to write instead.

/// Each text holds what was given; the words up to the colon are those of `distribution/reference`, which
/// people search for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    #[error("invalid reference: it is empty; write docker://repository:tag, namespace/name or a path")]
    Empty,
    #[error(
        "invalid reference: it is {length} bytes long, at most {max} are allowed",
        max = crate::parse::MAX_REFERENCE
    )]
    TooLong { length: usize },
    #[error("invalid reference {value:?}: it holds a control character or white space")]
    Unprintable { value: String },

    #[error("invalid digest {value:?}: expected sha256: and 64 lower-case hex digits")]
    Digest { value: String },
    #[error("unsupported digest algorithm in {value:?}: only sha256 is supported")]
    DigestAlgorithm { value: String },

    #[error("invalid reference format: {value:?}; expected [registry/]repository[:tag][@sha256:…]")]
    Image { value: String },
    #[error("invalid reference format: repository name must be lowercase: {repository:?} in {value:?}")]
    Uppercase { value: String, repository: String },
    #[error(
        "invalid repository name ({value}), cannot specify 64-byte hexadecimal strings; \
         for an image by its digest write repository@sha256:{value}"
    )]
    Identifier { value: String },
    #[error(
        "repository name must not be more than {max} characters: {repository:?} has {length}",
        max = crate::image::MAX_REPOSITORY,
        length = repository.len()
    )]
    RepositoryTooLong { repository: String },

    #[error(
        "invalid store reference {value:?}: expected sif://namespace/name[@sha256:…], \
         names of lower-case letters, digits, '-' and (in name) '.'"
    )]
    Store { value: String },
    #[error(
        "{value:?} is neither an existing path nor a store name; \
         for an image in a registry write docker://{value}"
    )]
    Bare { value: String },

    #[error("unsupported transport type: {transport} (in {value:?}); {instead}")]
    Transport { transport: String, value: String, instead: &'static str },
    #[error("invalid URL {value:?}: expected https://host/path/image.sif")]
    Url { value: String },
    #[error("{transport}: needs a path: {transport}:path[:name | :@n | @sha256:…], got {value:?}")]
    NoPath { transport: &'static str, value: String },
}
