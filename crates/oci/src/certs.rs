//! certs.d: certificates that are trusted for one registry, and the client's own.
//!
//! ```text
//!   /etc/containers/certs.d/HOST[:PORT]/*.crt      authorities
//!                                       x.cert     this client's certificate, with
//!                                       x.key      its key
//! ```
//! containers-certs.d(5); the first of the folders that has one for the registry counts.

use crate::{Secret, Tls};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Files of a registry's folder and bytes of each: a CA bundle has some 200 kB.
const MAX_FILES: usize = 256;
const MAX_FILE: u64 = 16 << 20;

#[derive(Debug, thiserror::Error)]
pub enum CertsError {
    #[error("read the certificates in {path}: {source}", path = path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("read the certificates in {path}: too large or too many", path = path.display())]
    TooMuch { path: PathBuf },
    #[error("read the certificates in {path}: it needs {missing} beside it", path = path.display())]
    Half { path: PathBuf, missing: String },
    #[error("read the certificates in {path}: not PEM", path = path.display())]
    NotPem { path: PathBuf },
}

/// A client's certificate and key, in PEM form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub certificates: Vec<u8>,
    pub key: Secret,
}

/// Adds to `tls` what `folders` (each a certs.d) have for `registry` (`HOST[:PORT]`). A folder that this user may not read
/// is as if it were not there: it was made for another's. Gives a warning for each.
pub fn add_certs(tls: &mut Tls, folders: &[PathBuf], registry: &str) -> Result<Vec<String>, CertsError> {
    let mut warnings = Vec::new();
    for folder in folders.iter().map(|folder| folder.join(registry)).filter(|folder| folder.is_dir()) {
        match files(&folder) {
            Ok(files) => {
                add_files(tls, &files)?;
                break;
            }
            Err(CertsError::Read { path, source }) if source.kind() == io::ErrorKind::PermissionDenied => {
                warnings.push(format!("the certificates in {} are passed over: {source}", path.display()));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(warnings)
}

/// Sorted.
fn files(folder: &Path) -> Result<Vec<PathBuf>, CertsError> {
    let wrong = |source| CertsError::Read { path: folder.to_owned(), source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(wrong)?.take(MAX_FILES + 1) {
        files.push(entry.map_err(wrong)?.path());
    }
    if files.len() > MAX_FILES {
        return Err(CertsError::TooMuch { path: folder.to_owned() });
    }
    files.sort();
    Ok(files)
}

fn add_files(tls: &mut Tls, files: &[PathBuf]) -> Result<(), CertsError> {
    for path in files {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("crt") => {
                let bundle = tls.ca_bundle.get_or_insert_default();
                bundle.extend(read(path)?);
                bundle.push(b'\n');
            }
            Some("cert") => {
                let key = beside(files, path, "key")?;
                let text = String::from_utf8(read(&key)?).map_err(|_| CertsError::NotPem { path: key })?;
                tls.identity = Some(Identity { certificates: read(path)?, key: Secret::new(text) });
            }
            Some("key") => drop(beside(files, path, "cert")?),
            _ => {}
        }
    }
    Ok(())
}

fn beside(files: &[PathBuf], path: &Path, extension: &str) -> Result<PathBuf, CertsError> {
    let other = path.with_extension(extension);
    let missing = other.file_name().unwrap_or_default().to_string_lossy().into_owned();
    match files.contains(&other) {
        true => Ok(other),
        false => Err(CertsError::Half { path: path.to_owned(), missing }),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, CertsError> {
    let wrong = |source| CertsError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    std::fs::File::open(path).map_err(wrong)?.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(wrong)?;
    match bytes.len() as u64 > MAX_FILE {
        true => Err(CertsError::TooMuch { path: path.to_owned() }),
        false => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders() {
        let dir = tempfile::tempdir().expect("folder");
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().expect("parent")).expect("mkdir");
            std::fs::write(path, text).expect("write");
        };
        let folders = [dir.path().join("home"), dir.path().join("etc"), dir.path().join("nosuch")];
        let certs = |registry: &str| {
            let mut tls = Tls { ca_bundle: Some(b"given\n".to_vec()), ..Tls::default() };
            add_certs(&mut tls, &folders, registry).map(|_| tls).map_err(|error| error.to_string())
        };
        write("home/a:5000/b.crt", "B");
        write("home/a:5000/a.crt", "A");
        write("home/a:5000/README", "x");
        write("etc/a:5000/c.crt", "C");
        write("etc/b/client.cert", "certificate");
        write("etc/b/client.key", "key");
        write("etc/c/client.cert", "certificate");
        write("etc/d/client.key", "key");
        let plain = Tls { ca_bundle: Some(b"given\n".to_vec()), ..Tls::default() };
        assert_eq!(certs("a:5000"), Ok(Tls { ca_bundle: Some(b"given\nA\nB\n".to_vec()), ..plain.clone() }));
        assert_eq!(certs("a"), Ok(plain.clone()));
        let identity = Identity { certificates: b"certificate".to_vec(), key: Secret::new("key") };
        assert_eq!(certs("b"), Ok(Tls { identity: Some(identity), ..plain }));
        assert!(certs("c").expect_err("no key").ends_with("etc/c/client.cert: it needs client.key beside it"));
        assert!(certs("d").expect_err("no certificate").ends_with("etc/d/client.key: it needs client.cert beside it"));
    }
}
