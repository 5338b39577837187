//! registries.conf: where images are to be looked for. Pure.
//!
//! ```text
//!   unqualified-search-registries = ["docker.io"]       not used: a name without a registry is Docker Hub's
//!   [aliases]                                           not used either: docker://NAME is the whole name
//!   [[registry]]
//!   prefix = "docker.io/library"                        the longest that fits an image; "*.example.com" fits subdomains
//!   location = "registry.site:5000/hub"                 takes the prefix's place; absent: the prefix
//!   insecure = true                                     any certificate, and HTTP where no TLS is spoken
//!   blocked = true                                      no image of it may be pulled
//!   mirror-by-digest-only = true
//!   [[registry.mirror]]                                 tried first, in order
//!   location = "mirror.site/hub"
//!   insecure = false
//!   pull-from-mirror = "all"                            or "digest-only", "tag-only"
//! ```
//! containers-registries.conf(5), version 2, and of version 1 what still means something (`[registries.insecure]`,
//! `[registries.block]`). Files of registries.conf.d are read after the main one; a later `[[registry]]` of the same prefix
//! replaces an earlier one.

use crate::answer::one_line;
use serde::Deserialize;
use siforge_reference::ImageRef;

/// All files together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registries {
    registries: Vec<Registry>,
}

/// A place of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// `HOST[:PORT]`
    pub registry: String,
    pub repository: String,
    pub insecure: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistriesError {
    #[error("{file}: {detail}")]
    Syntax { file: String, detail: String },
    #[error("{file}: {value:?} is not HOST[:PORT][/PATH]")]
    Location { file: String, value: String },
    #[error("{file}: prefix {value:?} with a wildcard is not *.DOMAIN, or its location is missing in a mirror")]
    Wildcard { file: String, value: String },
    #[error("{file}: pull-from-mirror {value:?} is not all, digest-only or tag-only")]
    PullFromMirror { file: String, value: String },
    #[error("pulling {image}: {prefix} is blocked by {file}")]
    Blocked { image: String, prefix: String, file: String },
    #[error("pulling {image}: its place {value:?} by {file} is no name of an image")]
    Place { image: String, value: String, file: String },
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Registry {
    prefix: String,
    /// Empty: the prefix.
    location: String,
    insecure: bool,
    blocked: bool,
    mirrors: Vec<Mirror>,
    /// Where it stands, for errors.
    file: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Mirror {
    location: String,
    insecure: bool,
    pull: Pull,
}

/// For which references a mirror is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pull {
    All,
    DigestOnly,
    TagOnly,
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    registry: Vec<RawRegistry>,
    #[serde(default)]
    registries: Old,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct RawRegistry {
    #[serde(default)]
    prefix: String,
    #[serde(default)]
    location: String,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    blocked: bool,
    #[serde(default)]
    mirror_by_digest_only: bool,
    #[serde(default)]
    mirror: Vec<RawMirror>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct RawMirror {
    location: String,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    pull_from_mirror: String,
}

/// Version 1.
#[derive(Default, Deserialize)]
struct Old {
    #[serde(default)]
    insecure: OldList,
    #[serde(default)]
    block: OldList,
}

#[derive(Default, Deserialize)]
struct OldList {
    #[serde(default)]
    registries: Vec<String>,
}

impl Registries {
    /// Adds a file's text; `file` is its name for errors.
    pub fn add(&mut self, file: &str, text: &str) -> Result<(), RegistriesError> {
        let syntax = |error: toml::de::Error| {
            let before = error.span().map_or("", |span| text.get(..span.start).unwrap_or_default());
            let line = before.matches('\n').count() + 1;
            let detail = format!("line {line}: {}", one_line(error.message(), &[]));
            RegistriesError::Syntax { file: file.to_owned(), detail }
        };
        let parsed: File = toml::from_str(text).map_err(syntax)?;
        let old = |list: OldList, insecure, blocked| {
            list.registries.into_iter().map(move |location| RawRegistry {
                prefix: String::new(),
                location,
                insecure,
                blocked,
                mirror_by_digest_only: false,
                mirror: Vec::new(),
            })
        };
        let old = old(parsed.registries.insecure, true, false).chain(old(parsed.registries.block, false, true));
        for raw in parsed.registry.into_iter().chain(old) {
            let registry = raw.checked(file)?;
            self.registries.retain(|other| other.prefix != registry.prefix);
            self.registries.push(registry);
        }
        Ok(())
    }

    /// The rule for `name` (`HOST[/PATH]`), which stands in errors as `shown`.
    fn rule(&self, name: &str, shown: &dyn ToString) -> Result<Option<&Registry>, RegistriesError> {
        let longest = self.registries.iter().filter(|registry| fits(&registry.prefix, name));
        match longest.max_by_key(|registry| registry.prefix.len()) {
            Some(Registry { blocked: true, prefix, file, .. }) => {
                let (prefix, file) = (prefix.clone(), file.clone());
                Err(RegistriesError::Blocked { image: shown.to_string(), prefix, file })
            }
            rule => Ok(rule),
        }
    }

    /// Whether the registry of `name` (`HOST[/PATH]`) may be reached insecurely. What is said of another host, which the
    /// images of this one are to be fetched from, says nothing of this one.
    pub fn is_insecure(&self, name: &str) -> Result<bool, RegistriesError> {
        let host = |name: &str| name.split('/').next().unwrap_or_default().to_owned();
        let rule = self.rule(name, &name)?;
        Ok(rule.is_some_and(|rule| rule.insecure && host(&moved(&rule.prefix, &rule.location, name)) == host(name)))
    }

    /// Where the image is to be looked for, in order; the last is the registry itself.
    pub fn locations(&self, image: &ImageRef) -> Result<Vec<Location>, RegistriesError> {
        let name = format!("{}/{}", image.registry, image.repository);
        let Some(registry) = self.rule(&name, image)? else {
            let (registry, repository) = (image.registry.clone(), image.repository.clone());
            return Ok(vec![Location { registry, repository, insecure: false }]);
        };
        let wanted = |pull| match pull {
            Pull::All => true,
            Pull::DigestOnly => image.digest.is_some(),
            Pull::TagOnly => image.digest.is_none(),
        };
        let mirrors = registry.mirrors.iter().filter(|mirror| wanted(mirror.pull));
        let places = mirrors.map(|mirror| (mirror.location.as_str(), mirror.insecure));
        places
            .chain([(registry.location.as_str(), registry.insecure)])
            .map(|(at, insecure)| {
                let moved = moved(&registry.prefix, at, &name);
                let parsed = split(&moved).filter(|(host, path)| is_image(host, path));
                let (registry, repository) = parsed.ok_or_else(|| RegistriesError::Place {
                    image: image.to_string(),
                    value: one_line(&moved, &[]),
                    file: registry.file.clone(),
                })?;
                Ok(Location { registry: registry.to_owned(), repository: repository.to_owned(), insecure })
            })
            .collect()
    }
}

impl RawRegistry {
    fn checked(self, file: &str) -> Result<Registry, RegistriesError> {
        let location = tidy(file, &self.location)?;
        let prefix = match self.prefix.strip_prefix("*.") {
            Some(domain) => format!("*.{}", tidy(file, domain)?),
            None => tidy(file, &self.prefix)?,
        };
        let prefix = if prefix.is_empty() { location.clone() } else { prefix };
        let bad = |value: &str| RegistriesError::Location { file: file.to_owned(), value: value.to_owned() };
        match prefix.strip_prefix("*.") {
            _ if prefix.is_empty() => return Err(bad("")),
            Some(domain) if domain.contains(['/', ':']) => {
                return Err(RegistriesError::Wildcard { file: file.to_owned(), value: prefix });
            }
            None if location.is_empty() && !self.location.is_empty() => return Err(bad(&self.location)),
            _ => {}
        }
        let mirrors = self.mirror.into_iter().map(|mirror| {
            let location = tidy(file, &mirror.location)?;
            let pull = match mirror.pull_from_mirror.as_str() {
                "" if self.mirror_by_digest_only => Pull::DigestOnly,
                "" | "all" => Pull::All,
                "digest-only" => Pull::DigestOnly,
                "tag-only" => Pull::TagOnly,
                value => {
                    return Err(RegistriesError::PullFromMirror { file: file.to_owned(), value: value.to_owned() });
                }
            };
            match location.is_empty() {
                true => Err(bad(&mirror.location)),
                false => Ok(Mirror { location, insecure: mirror.insecure, pull }),
            }
        });
        let mirrors = mirrors.collect::<Result<_, _>>()?;
        let (insecure, blocked) = (self.insecure, self.blocked);
        Ok(Registry { prefix, location, insecure, blocked, mirrors, file: file.to_owned() })
    }
}

/// A location without its last slashes; a URL is refused.
fn tidy(file: &str, location: &str) -> Result<String, RegistriesError> {
    let tidy = location.trim_end_matches('/');
    let odd = tidy.contains("://") || tidy.contains('@') || tidy.bytes().any(|b| b.is_ascii_whitespace());
    match odd || tidy.starts_with('/') {
        true => Err(RegistriesError::Location { file: file.to_owned(), value: one_line(location, &[]) }),
        false => Ok(tidy.to_owned()),
    }
}

/// Whether `name` (`HOST/PATH`) is the prefix or beneath it.
fn fits(prefix: &str, name: &str) -> bool {
    match prefix.strip_prefix('*') {
        Some(domain) => {
            let host = name.split('/').next().unwrap_or_default();
            let host = host.rsplit_once(':').map_or(host, |(host, _)| host);
            host.strip_suffix(domain).is_some_and(|label| !label.is_empty())
        }
        None => name.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
    }
}

/// `name` with the location instead of what the prefix fits.
fn moved(prefix: &str, location: &str, name: &str) -> String {
    if location.is_empty() {
        return name.to_owned();
    }
    let rest = match prefix.starts_with('*') {
        true => name.split_once('/').map_or("", |(_, path)| path),
        false => name.get(prefix.len()..).unwrap_or_default().trim_start_matches('/'),
    };
    match rest {
        "" => location.to_owned(),
        rest => format!("{location}/{rest}"),
    }
}

fn split(name: &str) -> Option<(&str, &str)> {
    name.split_once('/').filter(|(host, path)| !host.is_empty() && !path.is_empty())
}

/// Whether the two make a URL of this image and nothing else.
fn is_image(host: &str, path: &str) -> bool {
    let parsed = format!("localhost/{path}").parse::<ImageRef>();
    // A ":" or "@" would begin a tag or digest.
    parsed.is_ok_and(|parsed| parsed.repository == path)
        && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':' | b'[' | b']'))
}

#[cfg(test)]
mod tests;
