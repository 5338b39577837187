//! The store: artifacts on shared storage, correct on NFS and Lustre with neither flock nor trusted clocks nor fresh listings.

// pub mod layout: every path under the store root is made here and nowhere else
// pub struct Store; Store::init(root) / Store::open(root) -> Result<Store, Error>     (checks <store>/siforge-store)
// publish:  store.begin(recipe_or_hint) -> Pending { file: File, path }  ; store.publish(Pending, &Digest, len) -> Result<PathBuf>
// recipes:  store.recipe(&key) -> Option<Digest>; store.record_recipe(&key, &Digest, …)
// refs:     store.write_ref(ns, name, |current: Option<&Ref>| Ref{…}) ; store.read_ref(ns, name) -> Option<Ref>; store.remove_ref; store.history
//           Ref { revision, digest, size, platform, generation (writer's lease generation), access: Access, provenance {reference, source_digest, recipe, builder_version, built_at}, .. }
//           Access { namespaces: Same | All | List(Vec<String>), uids: Vec<u32>, gids: Vec<u32>, everyone: bool }; Access::allows(&Caller) -> bool (pure, fail-closed)
// blobs:    store::Blobs (also used by the per-user cache): path(&Digest), open(&Digest) -> Option<File>, begin(&Digest) -> PendingBlob, commit
// claims:   Claim::acquire(recipe…), raise, steal
// leases:   Lease::open(store, node) ; add(digest) before open ; remove; counter raised by heartbeat
