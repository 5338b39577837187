//! Makes a bundle's root the image that it is marked with. Thin: every decision was made elsewhere.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use siforge_agent_api::{Client, MountRequest};

use crate::bundle::{self, Wanted};
use crate::config::Settings;
use crate::snapshot;

const MOUNTINFO: &str = "/proc/self/mountinfo";

/// The container can't have its root.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Bundle(#[from] bundle::Error),
    #[error("read {MOUNTINFO}: {0}")]
    Mountinfo(#[source] io::Error),
    #[error(transparent)]
    Snapshot(#[from] snapshot::Error),
    #[error("{image} for a pod of the namespace {namespace}: {source}")]
    Agent { image: String, namespace: String, source: siforge_agent_api::Error },
    #[error("make {image} the container's root: {source}")]
    Mount { image: String, source: siforge_launch::Error },
}

/// Does nothing for an ordinary container.
pub(crate) fn prepare(bundle: &Path, settings: &Settings) -> Result<(), Error> {
    let Some(Wanted { marker, namespace, root, label }) = bundle::wanted(bundle)? else {
        return Ok(());
    };
    let image = format!("{}/{}", marker.namespace, marker.name);
    let mountinfo = std::fs::read(MOUNTINFO).map_err(Error::Mountinfo)?;
    let layers = snapshot::layers(&mountinfo, &root, label)?;
    let request =
        MountRequest { reference: marker.reference(), namespace: Some(namespace.clone()), ..MountRequest::default() };
    let answer = Client::connect(&settings.socket).and_then(|mut client| client.mount(&request, None));
    let (_, mount) = answer.map_err(|source| Error::Agent { image: image.clone(), namespace, source })?;
    siforge_launch::replace_lower(&root, mount.as_fd(), &layers).map_err(|source| Error::Mount { image, source })
}
