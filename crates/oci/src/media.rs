//! Media types of manifests, configs and layers.
//!
//! OCI image spec 1.1 `media-types.md`; Docker's `manifest-v2-2.md`; containers/image for Docker's zstd layers.

/// How a layer's tar is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
    Zstd,
}

/// What is asked for: every kind of manifest and index that is understood, and the old ones so that the registry
/// answers with them and the error can say what they are.
pub(crate) const ACCEPT_MANIFEST: &str = "application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json, \
     application/vnd.docker.distribution.manifest.v1+prettyjws;q=0.1";

/// The kinds of document that a manifest URL answers with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Document {
    Index,
    Manifest,
    /// Docker's image manifest version 2, schema 1: no digests of uncompressed layers, long deprecated.
    SchemaOne,
}

/// The document that a media type names (parameters are ignored).
pub(crate) fn document(media_type: &str) -> Option<Document> {
    match essence(media_type) {
        "application/vnd.oci.image.index.v1+json" | "application/vnd.docker.distribution.manifest.list.v2+json" => {
            Some(Document::Index)
        }
        "application/vnd.oci.image.manifest.v1+json" | "application/vnd.docker.distribution.manifest.v2+json" => {
            Some(Document::Manifest)
        }
        "application/vnd.docker.distribution.manifest.v1+json"
        | "application/vnd.docker.distribution.manifest.v1+prettyjws" => Some(Document::SchemaOne),
        _ => None,
    }
}

fn essence(media_type: &str) -> &str {
    media_type.split(';').next().unwrap_or_default().trim()
}

pub(crate) fn is_image_config(media_type: &str) -> bool {
    matches!(media_type, "application/vnd.oci.image.config.v1+json" | "application/vnd.docker.container.image.v1+json")
}

/// Whether the layer is one that registries need not hold (image spec, "Non-Distributable Layers"): its descriptor may
/// say where else it is.
pub(crate) fn is_foreign(media_type: &str) -> bool {
    media_type.starts_with("application/vnd.oci.image.layer.nondistributable.v1.tar")
        || media_type.starts_with("application/vnd.docker.image.rootfs.foreign.diff.tar")
}

/// How a layer is compressed, or why it cannot be read.
pub(crate) fn compression(media_type: &str) -> Result<Compression, String> {
    match media_type {
        "application/vnd.oci.image.layer.v1.tar"
        | "application/vnd.oci.image.layer.nondistributable.v1.tar"
        | "application/vnd.docker.image.rootfs.diff.tar"
        | "application/vnd.docker.image.rootfs.foreign.diff.tar" => Ok(Compression::None),
        "application/vnd.oci.image.layer.v1.tar+gzip"
        | "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
        | "application/vnd.docker.image.rootfs.diff.tar.gzip"
        | "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip" => Ok(Compression::Gzip),
        "application/vnd.oci.image.layer.v1.tar+zstd"
        | "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"
        | "application/vnd.docker.image.rootfs.diff.tar.zstd"
        | "application/vnd.docker.image.rootfs.foreign.diff.tar.zstd" => Ok(Compression::Zstd),
        encrypted if encrypted.ends_with("+encrypted") => {
            Err(format!("encrypted layer (media type {encrypted:?}); push the image without encryption"))
        }
        unknown => Err(format!("layer of media type {unknown:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers() {
        let check = |media_type: &str, expect: Option<Compression>| {
            assert_eq!(compression(media_type).ok(), expect, "{media_type}");
        };
        for prefix in ["application/vnd.oci.image.layer.v1", "application/vnd.oci.image.layer.nondistributable.v1"] {
            check(&format!("{prefix}.tar"), Some(Compression::None));
            check(&format!("{prefix}.tar+gzip"), Some(Compression::Gzip));
            check(&format!("{prefix}.tar+zstd"), Some(Compression::Zstd));
            check(&format!("{prefix}.tar+gzip+encrypted"), None);
            check(&format!("{prefix}.tar+xz"), None);
        }
        for prefix in ["application/vnd.docker.image.rootfs.diff", "application/vnd.docker.image.rootfs.foreign.diff"] {
            check(&format!("{prefix}.tar"), Some(Compression::None));
            check(&format!("{prefix}.tar.gzip"), Some(Compression::Gzip));
            check(&format!("{prefix}.tar.zstd"), Some(Compression::Zstd));
        }
        check("", None);
        check("application/vnd.sylabs.sif.layer.v1.sif", None);
    }

    #[test]
    fn documents() {
        for accepted in ACCEPT_MANIFEST.split(", ") {
            assert!(document(accepted).is_some(), "{accepted}");
        }
        assert_eq!(document("application/vnd.oci.image.index.v1+json; charset=utf-8"), Some(Document::Index));
        assert_eq!(document("text/html"), None);
    }
}
