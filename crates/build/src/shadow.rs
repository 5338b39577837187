//! What stands for a SIF in a pod, read from the SIF itself: config, `/etc/passwd`, `/etc/group`.
//!
//! An image of an OCI image brings the config it had. One that a definition made has scripts instead: it runs as `run` runs it.

use crate::Error;
use crate::convert::file_error;
use siforge_reference::Digest;
use siforge_sif::Sif;
use siforge_sif::format::DataType;
use siforge_sif::image_config::OCI_CONFIG_NAME;
use siforge_squashfs::read::{Body, Inode, Reader};
use siforge_store::shadows::{PART_LIMIT, Parts};
use siforge_store::{Shadow, Store};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

/// What has the image's environment scripts read and then starts its run script.
const RUN: &str = "/.singularity.d/actions/run";

/// Writes the shadow of an artifact of the store that has none.
pub(crate) fn ensure(store: &Store, digest: &Digest) -> Result<(), Error> {
    match store.shadow(digest) {
        Ok(Some(_)) => return Ok(()),
        Ok(None) | Err(siforge_store::Error::Damaged { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    // Gone: whoever writes a ref to it finds out.
    let Some(file) = store.open_artifact(digest)? else {
        return Ok(());
    };
    let shadow = of_sif(digest, file, &store.layout().artifact(digest))?;
    Ok(store.write_shadow(&shadow)?)
}

/// The shadow of a SIF at `path` (for messages).
fn of_sif(digest: &Digest, file: File, path: &Path) -> Result<Shadow, Error> {
    let shown = || path.display().to_string();
    let foreign = |source| Error::ForeignSif { image: shown(), source };
    let sif = Sif::open(file.try_clone().map_err(|source| file_error("duplicate the descriptor of", path, source))?)
        .map_err(foreign)?;
    let partition = sif.primary_partition().map_err(foreign)?;
    let config = match sif.find(DataType::GenericJson, OCI_CONFIG_NAME) {
        // One byte beyond the limit says as much as all of them.
        Some(object) if object.size > PART_LIMIT as u64 => vec![b' '; PART_LIMIT + 1],
        Some(object) => sif.object(object, PART_LIMIT as u64).map_err(foreign)?,
        None => format!("{{\"Entrypoint\":[\"{RUN}\"]}}").into_bytes(),
    };
    let failed = |source: siforge_squashfs::read::Error| Error::Foreign { image: shown(), detail: source.to_string() };
    let reader = Reader::open(Arc::new(file), partition.offset, partition.size).map_err(failed)?;
    let passwd = small_file(&reader, &["etc", "passwd"]).map_err(failed)?;
    let group = small_file(&reader, &["etc", "group"]).map_err(failed)?;
    let arch = partition.arch.go_name();
    Ok(Shadow::new(*digest, arch, &Parts { config, passwd, group }))
}

/// A file's contents, one byte more than the limit at most; None if there is no such regular file. Links are not followed.
fn small_file(reader: &Reader, path: &[&str]) -> Result<Option<Vec<u8>>, siforge_squashfs::read::Error> {
    let mut inode: Inode = reader.root()?;
    for name in path {
        if !matches!(inode.body, Body::Directory(_)) {
            return Ok(None);
        }
        let Some(entry) = reader.lookup(&inode, name.as_bytes())? else {
            return Ok(None);
        };
        inode = reader.entry_inode(&entry)?;
    }
    let Body::File(file) = &inode.body else {
        return Ok(None);
    };
    let mut bytes = vec![0; usize::try_from(file.size).unwrap_or(usize::MAX).min(PART_LIMIT + 1)];
    let read = reader.read_at(&inode, 0, &mut bytes)?;
    bytes.truncate(read);
    Ok(Some(bytes))
}
