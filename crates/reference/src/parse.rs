//! Any reference: the scheme decides, and without one the file system.

use crate::{ImageRef, ParseError, Selector, StoreRef};
use std::fmt;
use std::path::{Path, PathBuf};

/// Bytes of a whole reference: a path (PATH_MAX) and a scheme.
pub(crate) const MAX_REFERENCE: usize = 4096 + 64;

/// What the meaning of a bare name depends on.
pub struct Context<'a> {
    /// Namespace of a bare name that is no path.
    pub default_namespace: &'a str,
    /// Whether something is at this path (relative ones are the caller's to resolve).
    pub exists: &'a dyn Fn(&Path) -> bool,
}

/// Anything that names an image.
///
/// `Display` prints a form that [`Reference::parse`] reads as the same value, whatever the context
/// (paths that are not UTF-8, which no parsed reference holds, are printed lossily).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// `docker://…`
    Docker(ImageRef),
    /// `oras://…`
    Oras(ImageRef),
    /// `sif://…`, or a bare name that is no path.
    Store(StoreRef),
    /// A path to a .sif file or a directory.
    Path(PathBuf),
    /// `http://…` or `https://…`: a SIF on a web server.
    Http(String),
    /// `oci:path[selector]`: an OCI image layout's folder.
    OciLayout { path: PathBuf, selector: Option<Selector> },
    /// `oci-archive:path[selector]`: the same as a tar.
    OciArchive { path: PathBuf, selector: Option<Selector> },
    /// `docker-archive:path[selector]`: what `docker save` writes.
    DockerArchive { path: PathBuf, selector: Option<Selector> },
    /// `docker-daemon:name:tag`: an image of the local Docker engine.
    DockerDaemon(String),
}

impl Reference {
    /// Reads `text`. A text without a scheme is a path when it looks like one (`/…`, `./…`, `../…`, `….sif`) or when
    /// `context.exists` says that something is there, else a store name.
    pub fn parse(text: &str, context: &Context<'_>) -> Result<Self, ParseError> {
        if text.is_empty() {
            return Err(ParseError::Empty);
        }
        if text.len() > MAX_REFERENCE {
            return Err(ParseError::TooLong { length: text.len() });
        }
        if is_explicit_path(text) {
            return path(text);
        }
        match scheme(text) {
            Some((scheme, rest)) => match with_scheme(text, scheme, rest) {
                // Without the slashes a file may be meant, or a name with a tag.
                Err(ParseError::Transport { .. })
                    if !rest.starts_with("//")
                        && (!WITH_SLASHES.contains(&scheme) || (context.exists)(Path::new(text))) =>
                {
                    without_scheme(text, context)
                }
                result => result,
            },
            None => without_scheme(text, context),
        }
    }
}

impl Reference {
    /// The name that `pull` gives its file. The reference's rule (apptainer `internal/pkg/util/uri`): of the last part
    /// behind the scheme what stands before its first colon, `_` and the tag (`layout_latest.sif`,
    /// `image.tar_busybox.sif`); of a URL the last part as it is.
    pub fn sif_file_name(&self) -> String {
        let printed = self.to_string();
        let last = |text: &str| text.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_owned();
        match self {
            Self::Docker(image) | Self::Oras(image) => image.sif_file_name(),
            Self::Store(store) => format!("{}.sif", store.name),
            Self::Path(path) => match path.file_stem() {
                Some(stem) => format!("{}.sif", stem.to_string_lossy()),
                None => "image.sif".to_owned(),
            },
            Self::Http(url) => match last(url.split(['?', '#']).next().unwrap_or(url)) {
                name if name.is_empty() => "image.sif".to_owned(),
                name => name,
            },
            Self::OciLayout { .. } | Self::OciArchive { .. } | Self::DockerArchive { .. } | Self::DockerDaemon(_) => {
                let behind = last(printed.split_once(':').map_or(printed.as_str(), |(_, rest)| rest));
                let mut parts = behind.split(':');
                let name = parts.next().unwrap_or_default();
                format!("{name}_{}.sif", parts.next().unwrap_or("latest"))
            }
        }
    }
}

/// Schemes that are followed by `//`, so that without it they are typing errors.
const WITH_SLASHES: [&str; 7] = ["docker", "oras", "sif", "library", "shub", "http", "https"];

/// `scheme:rest`, if the text before the first colon could be a scheme (RFC 3986, 3.1).
fn scheme(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once(':')?;
    let letters = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.');
    (scheme.bytes().all(letters) && !scheme.is_empty()).then_some((scheme, rest))
}

fn is_explicit_path(text: &str) -> bool {
    matches!(text, "." | "..") || ["/", "./", "../"].iter().any(|prefix| text.starts_with(prefix))
}

fn path(text: &str) -> Result<Reference, ParseError> {
    match text.contains('\0') {
        true => Err(ParseError::Unprintable { value: text.to_owned() }),
        false => Ok(Reference::Path(PathBuf::from(text))),
    }
}

fn with_scheme(text: &str, scheme: &str, rest: &str) -> Result<Reference, ParseError> {
    let unsupported =
        |instead| Err(ParseError::Transport { transport: scheme.to_owned(), value: text.to_owned(), instead });
    match (scheme, rest.strip_prefix("//")) {
        ("docker", Some(image)) => image.parse().map(Reference::Docker),
        ("oras", Some(image)) => image.parse().map(Reference::Oras),
        ("sif", Some(name)) => name.parse().map(Reference::Store),
        ("docker-daemon", slashes) => match slashes.unwrap_or(rest) {
            "" => Err(ParseError::NoPath { transport: "docker-daemon", value: text.to_owned() }),
            name => Ok(Reference::DockerDaemon(name.to_owned())),
        },
        ("oci", _) => archive("oci", text, rest).map(|(path, selector)| Reference::OciLayout { path, selector }),
        ("oci-archive", _) => {
            archive("oci-archive", text, rest).map(|(path, selector)| Reference::OciArchive { path, selector })
        }
        ("docker-archive", _) => {
            archive("docker-archive", text, rest).map(|(path, selector)| Reference::DockerArchive { path, selector })
        }
        ("docker" | "oras" | "sif", None) => unsupported("write two slashes after the colon"),
        ("library", _) => unsupported(
            "the Sylabs library is not read; use docker://… or oras://…, or download the .sif and give its path or https://…",
        ),
        ("shub", _) => unsupported("Singularity Hub has closed; use docker://… or oras://…"),
        ("http" | "https", Some(_)) => http(text),
        ("http" | "https", None) => unsupported("write two slashes after the colon"),
        _ => unsupported(
            "use docker://, oras://, sif://, https://, oci:, oci-archive:, docker-archive:, docker-daemon: or a path",
        ),
    }
}

/// A URL as it is used: anything printable with a host; the HTTP client has the last word.
fn http(text: &str) -> Result<Reference, ParseError> {
    if text.contains(|c: char| c.is_control() || c.is_whitespace()) {
        return Err(ParseError::Unprintable { value: text.to_owned() });
    }
    match text.split("://").nth(1).and_then(|rest| rest.split('/').next()) {
        Some(host) if !host.is_empty() => Ok(Reference::Http(text.to_owned())),
        _ => Err(ParseError::Url { value: text.to_owned() }),
    }
}

fn archive(transport: &'static str, text: &str, rest: &str) -> Result<(PathBuf, Option<Selector>), ParseError> {
    if text.contains('\0') {
        return Err(ParseError::Unprintable { value: text.to_owned() });
    }
    match Selector::split(rest) {
        Some((path, selector)) if !path.is_empty() => Ok((PathBuf::from(path), selector)),
        _ => Err(ParseError::NoPath { transport, value: text.to_owned() }),
    }
}

fn without_scheme(text: &str, context: &Context<'_>) -> Result<Reference, ParseError> {
    if text.contains(|c: char| c.is_control()) {
        return Err(ParseError::Unprintable { value: text.to_owned() });
    }
    // Explicitly relative from here on, so that it stays a path wherever it is printed and read again.
    let relative = || path(&format!("./{text}"));
    if (context.exists)(Path::new(text)) {
        return relative();
    }
    let with_namespace = match text.split('@').next().is_some_and(|name| name.contains('/')) {
        true => text.to_owned(),
        false => format!("{}/{text}", context.default_namespace),
    };
    match with_namespace.parse() {
        // `missing.sif` is a path that is not there, rather than a store name: the caller's error says so.
        Ok(StoreRef { digest: None, .. }) if text.ends_with(".sif") => relative(),
        Ok(store) => Ok(Reference::Store(store)),
        Err(ParseError::Store { .. }) if text.ends_with(".sif") => relative(),
        Err(ParseError::Store { .. }) => Err(ParseError::Bare { value: text.to_owned() }),
        Err(error) => Err(error),
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Docker(image) => write!(f, "docker://{image}"),
            Self::Oras(image) => write!(f, "oras://{image}"),
            Self::Store(store) => store.fmt(f),
            Self::Path(path) if !is_explicit_path(&path.to_string_lossy()) => {
                write!(f, "./{}", path.display())
            }
            Self::Path(path) => path.display().fmt(f),
            Self::Http(url) => f.write_str(url),
            Self::OciLayout { path, selector } => located(f, "oci", path, selector.as_ref()),
            Self::OciArchive { path, selector } => located(f, "oci-archive", path, selector.as_ref()),
            Self::DockerArchive { path, selector } => located(f, "docker-archive", path, selector.as_ref()),
            Self::DockerDaemon(name) => write!(f, "docker-daemon:{name}"),
        }
    }
}

fn located(f: &mut fmt::Formatter<'_>, transport: &str, path: &Path, selector: Option<&Selector>) -> fmt::Result {
    write!(f, "{transport}:{}", path.display())?;
    match selector {
        Some(selector) => write!(f, "{selector}"),
        None => Ok(()),
    }
}
