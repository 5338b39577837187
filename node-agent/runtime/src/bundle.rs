//! What of a bundle counts here: its root directory, the marker in it, and the pod's namespace.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use serde::Deserialize;
use siforge_agent_api::{MARKER, MARKER_LIMIT, Marker};

/// Most bytes of a config.json: a pod with a thousand mounts and variables has a tenth of it.
const CONFIG_LIMIT: u64 = 16 << 20;
/// Who writes the pod's namespace into the container's annotations: containerd, and CRI-O. Both write it themselves, over what a
/// pod's own annotations say.
const NAMESPACE_ANNOTATIONS: [&str; 2] = ["io.kubernetes.cri.sandbox-namespace", "io.kubernetes.cri-o.Namespace"];

/// The bundle can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{operation} {path}: {source}", path = path.display())]
    Io { operation: &'static str, path: PathBuf, source: io::Error },
    #[error("{path} has more than {limit} bytes", path = path.display())]
    TooLarge { path: PathBuf, limit: u64 },
    #[error("{path} is not understood: {reason}", path = path.display())]
    Content { path: PathBuf, reason: String },
    #[error("no annotation says for which pod the container is: {}", NAMESPACE_ANNOTATIONS.join(", "))]
    NoNamespace,
    #[error("annotations name two namespaces of the pod, {one:?} and {other:?}: it set one itself")]
    TwoNamespaces { one: String, other: String },
    #[error("the image {image} cannot be the root of a pod with hostUsers: false")]
    UserNamespace { image: String },
}

/// A container that is to have an image of the store as its root.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) marker: Marker,
    /// The pod's.
    pub(crate) namespace: String,
    /// Canonical.
    pub(crate) root: PathBuf,
    /// SELinux label of its files.
    pub(crate) label: Option<String>,
}

#[derive(Deserialize)]
struct Config {
    root: Root,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    #[serde(default)]
    linux: Linux,
}

#[derive(Deserialize)]
struct Root {
    path: PathBuf,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Linux {
    #[serde(default)]
    mount_label: String,
    #[serde(default)]
    uid_mappings: Vec<serde::de::IgnoredAny>,
}

/// What the bundle asks for; None: an ordinary container, or something that runc will refuse better.
pub(crate) fn wanted(bundle: &Path) -> Result<Option<Wanted>, Error> {
    let path = bundle.join("config.json");
    let Some(json) = read_file(File::open(&path), &path, CONFIG_LIMIT)? else {
        return Ok(None);
    };
    let content = |path: &Path, reason: String| Error::Content { path: path.to_owned(), reason };
    let Ok(config) = serde_json::from_slice::<Config>(&json) else {
        return Ok(None);
    };
    let root = bundle.join(&config.root.path);
    let Some(marker) = marker(&root)? else {
        return Ok(None);
    };
    let marker = Marker::parse(&marker).map_err(|reason| content(&root.join(MARKER), reason))?;
    if !config.linux.uid_mappings.is_empty() {
        return Err(Error::UserNamespace { image: marker.reference() });
    }
    let namespace = namespace(&config.annotations)?;
    let root = root.canonicalize().map_err(|source| Error::Io { operation: "find", path: root.clone(), source })?;
    let label = Some(config.linux.mount_label).filter(|label| !label.is_empty());
    Ok(Some(Wanted { marker, namespace, root, label }))
}

/// What the engine says. A pod may set the annotation of the other engine, and its engine may pass it on: then they differ.
fn namespace(annotations: &BTreeMap<String, String>) -> Result<String, Error> {
    let mut said = NAMESPACE_ANNOTATIONS.iter().filter_map(|name| annotations.get(*name));
    let namespace = said.next().ok_or(Error::NoNamespace)?;
    match said.find(|other| *other != namespace) {
        None => Ok(namespace.clone()),
        Some(other) => Err(Error::TwoNamespaces { one: namespace.clone(), other: other.clone() }),
    }
}

/// The marker's bytes. An image's links lead nowhere, and what is not a plain file is no marker: a device is not even opened, as
/// that alone may do something to the host.
fn marker(root: &Path) -> Result<Option<Vec<u8>>, Error> {
    let path = root.join(MARKER);
    let Ok(directory) = File::open(root) else {
        return Ok(None);
    };
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let opened = rustix::fs::openat2(&directory, MARKER, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), how);
    match opened {
        Ok(place) => {
            let stat = rustix::fs::fstat(&place);
            let stat =
                stat.map_err(|errno| Error::Io { operation: "stat", path: path.clone(), source: errno.into() })?;
            if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::RegularFile {
                return Ok(None);
            }
            let same = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&place));
            read_file(File::open(same), &path, MARKER_LIMIT)
        }
        Err(
            rustix::io::Errno::NOENT | rustix::io::Errno::LOOP | rustix::io::Errno::NXIO | rustix::io::Errno::NOSYS,
        ) => Ok(None),
        Err(errno) => Err(Error::Io { operation: "open", path, source: errno.into() }),
    }
}

fn read_file(opened: io::Result<File>, path: &Path, limit: u64) -> Result<Option<Vec<u8>>, Error> {
    let failed = |operation| move |source| Error::Io { operation, path: path.to_owned(), source };
    let file = match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(failed("open"))?,
    };
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(failed("read"))?;
    match bytes.len() as u64 > limit {
        true => Err(Error::TooLarge { path: path.to_owned(), limit }),
        false => Ok(Some(bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARK: &str = r#"{"format":1,"namespace":"lab","name":"cow","digest":"sha256:00"}"#;
    const POD: &str = r#""annotations":{"io.kubernetes.cri.sandbox-namespace":"lab"}"#;

    fn check(config: &str, mark: Option<&str>, expected: Result<bool, &str>) {
        let bundle = tempfile::tempdir().unwrap();
        let root = bundle.path().join("rootfs");
        std::fs::create_dir(&root).unwrap();
        std::fs::write(bundle.path().join("config.json"), config).unwrap();
        if let Some(mark) = mark {
            std::fs::write(root.join(MARKER), mark).unwrap();
        }
        match (wanted(bundle.path()), expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found.is_some(), expected, "{config} {mark:?}"),
            (Err(error), Err(reason)) => assert!(error.to_string().contains(reason), "{config} {mark:?}: {error}"),
            (found, expected) => panic!("{config} {mark:?}: {found:?}, not {expected:?}"),
        }
    }

    /// What is no plain file is not opened: to open a device may be all that its maker wants, and a fifo would wait.
    #[test]
    fn markers_are_plain_files() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join(MARKER);
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(marker(root.path()).unwrap().is_none());
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
        assert!(marker(root.path()).unwrap().is_none());
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(marker(root.path()).unwrap().is_none());
    }

    #[test]
    fn bundles() {
        let config = |more: &str| format!(r#"{{"root":{{"path":"rootfs"}},{more}}}"#);
        let pod = config(POD);
        check(&pod, Some(MARK), Ok(true));
        check(&pod, None, Ok(false));
        check(&config(r#""annotations":{"io.kubernetes.cri-o.Namespace":"lab"}"#), Some(MARK), Ok(true));
        check(&config(r#""annotations":{}"#), Some(MARK), Err("no annotation says for which pod"));
        check(&config(r#""annotations":{}"#), None, Ok(false));
        let both = |other: &str| {
            let one = r#""io.kubernetes.cri.sandbox-namespace":"lab""#;
            config(&format!(r#""annotations":{{{one},"io.kubernetes.cri-o.Namespace":"{other}"}}"#))
        };
        check(&both("lab"), Some(MARK), Ok(true));
        check(&both("other"), Some(MARK), Err("two namespaces of the pod, \"lab\" and \"other\""));
        check(&config(&format!(r#"{POD},"linux":{{"uidMappings":[{{"size":1}}]}}"#)), Some(MARK), Err("hostUsers"));
        check(&config(&format!(r#"{POD},"linux":{{"uidMappings":[]}}"#)), Some(MARK), Ok(true));
        check(&pod, Some("{"), Err(".siforge-image is not understood"));
        check(&pod, Some(&"x".repeat(5000)), Err("more than 4096 bytes"));
        // For runc to refuse.
        check("{", Some(MARK), Ok(false));
        check("{}", Some(MARK), Ok(false));
    }

    #[test]
    fn a_marker_is_a_plain_file_of_the_image() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("mark"), MARK).unwrap();
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join(MARKER);
        std::os::unix::fs::symlink(outside.path().join("mark"), &path).unwrap();
        assert_eq!(marker(root.path()).unwrap(), None);
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert_eq!(marker(root.path()).unwrap(), None);
        assert_eq!(marker(&root.path().join("missing")).unwrap(), None);
    }
}
