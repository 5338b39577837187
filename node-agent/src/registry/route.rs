//! Which of the registry's places a path names. Pure.
//!
//! ```text
//!   /v2/
//!   /v2/NAMESPACE/NAME/manifests/latest                what the name points at
//!                               /7                     revision 7
//!                               /sha256-HEX            the artifact with this image digest
//!                               /sha256:HEX            the manifest with this digest: what a pinned image asks for
//!   /v2/NAMESPACE/NAME/blobs/sha256:HEX
//! ```

use siforge_reference::Digest;
use siforge_store::names;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route<'a> {
    Base,
    Manifest { namespace: &'a str, name: &'a str, wanted: Wanted },
    Blob { namespace: &'a str, name: &'a str, digest: Digest },
}

/// Which of a name's manifests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    Latest,
    Revision(u64),
    /// The artifact's.
    Image(Digest),
    /// The manifest's own.
    Manifest(Digest),
}

impl<'a> Route<'a> {
    /// The place, or why there is none.
    pub fn of(path: &'a str) -> Result<Self, String> {
        let rest = path.strip_prefix("/v2").ok_or("this is a registry: its paths begin with /v2/")?;
        if rest.is_empty() || rest == "/" {
            return Ok(Route::Base);
        }
        let parts: Vec<&str> = rest.split('/').skip(1).collect();
        let [namespace, name, kind, reference] = parts[..] else {
            return Err("an image is named NAMESPACE/NAME here, as its SingularityImage is".to_owned());
        };
        let named = names::check_namespace(namespace).and_then(|()| names::check_name(name));
        named.map_err(|error| error.to_string())?;
        match kind {
            "manifests" => Ok(Route::Manifest { namespace, name, wanted: wanted(reference)? }),
            "blobs" => {
                let digest = reference.parse().map_err(|_| format!("{reference:?} is no sha256 digest"))?;
                Ok(Route::Blob { namespace, name, digest })
            }
            _ => Err("only manifests and blobs are served here".to_owned()),
        }
    }
}

fn wanted(reference: &str) -> Result<Wanted, String> {
    if reference == "latest" {
        return Ok(Wanted::Latest);
    }
    if let Ok(digest) = reference.parse() {
        return Ok(Wanted::Manifest(digest));
    }
    if let Some(digest) = reference.strip_prefix("sha256-").and_then(|hex| Digest::from_hex(hex).ok()) {
        return Ok(Wanted::Image(digest));
    }
    match reference.parse() {
        Ok(revision) if reference.bytes().all(|byte| byte.is_ascii_digit()) => Ok(Wanted::Revision(revision)),
        _ => {
            Err(format!("no tag {reference:?}: tags are latest, a revision's number, or sha256-HEX of an image digest"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, expected: Result<Route<'_>, &str>) {
        match (Route::of(path), expected) {
            (Err(error), Err(reason)) => assert!(error.contains(reason), "{path}: {error}"),
            (found, expected) => assert_eq!(found, expected.map_err(str::to_owned), "{path}"),
        }
    }

    #[test]
    fn paths_name_places() {
        let (namespace, name) = ("lab", "cow");
        let hex = "7".repeat(64);
        let digest = Digest::from_hex(&hex).unwrap();
        let manifest = |wanted| Ok(Route::Manifest { namespace, name, wanted });
        check("/v2", Ok(Route::Base));
        check("/v2/", Ok(Route::Base));
        check("/v2/lab/cow/manifests/latest", manifest(Wanted::Latest));
        check("/v2/lab/cow/manifests/12", manifest(Wanted::Revision(12)));
        check(&format!("/v2/lab/cow/manifests/sha256-{hex}"), manifest(Wanted::Image(digest)));
        check(&format!("/v2/lab/cow/manifests/sha256:{hex}"), manifest(Wanted::Manifest(digest)));
        check(&format!("/v2/lab/cow/blobs/sha256:{hex}"), Ok(Route::Blob { namespace, name, digest }));
    }

    #[test]
    fn other_paths_say_why() {
        for (path, reason) in [
            ("/", "begin with /v2/"),
            ("/v2/cow/manifests/latest", "NAMESPACE/NAME"),
            ("/v2/a/b/c/manifests/latest", "NAMESPACE/NAME"),
            ("/v2/../cow/manifests/latest", "invalid namespace"),
            ("/v2/lab/.cow/manifests/latest", "invalid image name"),
            ("/v2/lab/cow/tags/list", "only manifests and blobs"),
            ("/v2/lab/cow/manifests/v1", "no tag \"v1\""),
            ("/v2/lab/cow/manifests/+1", "no tag"),
            ("/v2/lab/cow/manifests/99999999999999999999999", "no tag"),
            ("/v2/lab/cow/manifests/", "no tag"),
            ("/v2/lab/cow/blobs/latest", "is no sha256 digest"),
        ] {
            check(path, Err(reason));
        }
    }
}
