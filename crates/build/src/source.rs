//! What is built, and where its layers' bytes come from.
//!
//! ```text
//!   registry   Client + Resolved   blobs are fetched, into the cache
//!   local      local::Image        ranges of files that are there: read in place, never copied
//! ```

use crate::Recipe;
use sha2::{Digest as _, Sha256};
use siforge_oci::{Client, Download, Layer, Platform, Resolved, local};
use siforge_reference::{Digest, ImageRef};
use siforge_sif::image_config::Base;
use std::sync::Arc;

/// An image to build: everything that decides its bytes, and a way to its layers.
#[derive(Debug)]
pub struct Source {
    pub(crate) image: Image,
    pub(crate) supply: Supply,
}

#[derive(Debug)]
pub(crate) enum Supply {
    Registry {
        client: Box<Client>,
        resolved: Box<Resolved>,
        /// Layers over the registry's, bottom first.
        over: Vec<Arc<Download>>,
    },
    /// One for each layer, bottom first.
    Local(Vec<Arc<Download>>),
}

/// What is converted.
#[derive(Clone, Debug)]
pub struct Image {
    pub name: Name,
    /// Of the platform's manifest, or of what stands for one.
    pub manifest_digest: Digest,
    pub platform: Platform,
    /// Bottom layer first.
    pub layers: Vec<Layer>,
    /// The image config's bytes.
    pub config: Vec<u8>,
    /// What it keeps of the image that it was before, if it is made of a tree.
    pub base: Base,
}

/// How an image is called, in its bytes and in messages. What decides bytes holds no path, host of a mirror or tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// For messages: as the user gave it.
    pub shown: String,
    /// The definition's `bootstrap:`.
    pub bootstrap: &'static str,
    /// The canonical repository, of which `from:` is made; for a source that does not know its own name the bootstrap.
    pub repository: String,
}

impl Name {
    pub fn registry(reference: &ImageRef) -> Self {
        Self { shown: reference.to_string(), bootstrap: "docker", repository: reference.canonical() }
    }

    /// `reference`: the image's name by the source's own word.
    pub fn local(bootstrap: &'static str, shown: &str, reference: Option<&ImageRef>) -> Self {
        let repository = reference.map_or_else(|| bootstrap.to_owned(), ImageRef::canonical);
        Self { shown: shown.to_owned(), bootstrap, repository }
    }

    /// What the recipe's key holds of it. An image of a registry and a copy of it elsewhere differ in the definition that
    /// they carry, so they have different keys; a repository has no `=`.
    pub fn key(&self) -> String {
        match self.bootstrap {
            "docker" => self.repository.clone(),
            bootstrap => format!("{bootstrap}={}", self.repository),
        }
    }
}

impl Image {
    pub fn of(resolved: &Resolved) -> Self {
        Self {
            name: Name::registry(&resolved.reference),
            manifest_digest: resolved.manifest_digest,
            platform: resolved.platform.clone(),
            layers: resolved.layers.clone(),
            config: resolved.config.clone(),
            base: Base::default(),
        }
    }
}

impl Source {
    /// What `client` resolved.
    pub fn registry(client: Client, resolved: Resolved) -> Self {
        let image = Image::of(&resolved);
        let supply = Supply::Registry { client: Box::new(client), resolved: Box::new(resolved), over: Vec::new() };
        Self { image, supply }
    }

    /// An OCI layout or an archive of one: the same image digest for both, as they hold the same.
    pub fn layout(image: local::Image) -> Self {
        Self::local("oci", image)
    }

    /// What `docker save` gave, by whatever way.
    pub fn docker_archive(image: local::Image) -> Self {
        Self::local("docker-archive", image)
    }

    fn local(bootstrap: &'static str, image: local::Image) -> Self {
        let local::Image { shown, name, manifest_digest, platform, layers, config, blobs } = image;
        let name = Name::local(bootstrap, &shown, name.as_ref());
        let base = Base::default();
        Self { image: Image { name, manifest_digest, platform, layers, config, base }, supply: Supply::Local(blobs) }
    }

    /// What stands below a definition's own layer where it has no base.
    pub fn nothing(platform: Platform) -> Self {
        let config = serde_json::json!({
            "architecture": platform.architecture,
            "os": platform.os,
            "rootfs": { "type": "layers", "diff_ids": [] },
        });
        let config = config.to_string().into_bytes();
        let image = Image {
            name: Name::local("scratch", "scratch", None),
            manifest_digest: Digest::from_bytes(Sha256::digest(&config).into()),
            platform,
            layers: Vec::new(),
            config,
            base: Base::default(),
        };
        Self { image, supply: Supply::Local(Vec::new()) }
    }

    /// The same image with one more layer on top, and with `base` for what `.singularity.d` holds then: what a definition
    /// makes of its base. `shown` is for messages.
    pub(crate) fn with_layer(mut self, shown: &str, layer: Layer, download: Arc<Download>, base: Base) -> Self {
        let digest = Sha256::new()
            .chain_update(self.image.manifest_digest.bytes())
            .chain_update(layer.diff_id.bytes())
            .chain_update(base.time.unwrap_or_default().to_le_bytes())
            .finalize();
        self.image.manifest_digest = Digest::from_bytes(digest.into());
        self.image.name = Name::local("definition", shown, None);
        self.image.layers.push(layer);
        self.image.base = base;
        match &mut self.supply {
            Supply::Registry { over: layers, .. } | Supply::Local(layers) => layers.push(download),
        }
        self
    }

    /// Under which the result is remembered.
    pub fn key(&self, recipe: &Recipe) -> Digest {
        recipe.key(&self.image.manifest_digest, &self.image.name.key())
    }

    pub fn image(&self) -> &Image {
        &self.image
    }
}
