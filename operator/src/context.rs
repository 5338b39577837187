//! What all reconciles share.

use crate::events::Events;
use crate::interest::Interest;
use crate::metrics::Metrics;
use crate::queue::Queue;
use crate::status::Limiter;
use kube::{Api, Client, ResourceExt};
use siforge_build::Settings;
use siforge_crds::SingularityImage;
use siforge_oci::Proxies;
use siforge_store::Store;
use std::sync::{Arc, Mutex};

pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) store: Store,
    pub(crate) queue: Queue,
    pub(crate) interest: Interest,
    pub(crate) events: Events,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) limiter: Limiter,
    /// Threads and memory of one build, and the most files; the other limits are each object's.
    pub(crate) settings: Settings,
    /// Of the environment.
    pub(crate) proxies: Proxies,
    /// Held while a ref and the visibility of its artifact are written: refs share artifacts, and the file's mode follows
    /// from all of them.
    pub(crate) publishing: Arc<Mutex<()>>,
    /// Of the leader's lease: fences the store's refs.
    pub(crate) generation: u64,
}

impl Context {
    pub(crate) fn api(&self, object: &SingularityImage) -> Api<SingularityImage> {
        Api::namespaced(self.client.clone(), &object.namespace().unwrap_or_default())
    }
}
