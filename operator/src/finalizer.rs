//! What happens before an object goes: its ref is removed from the store. The artifact is left to gc, as others may name it.

use crate::apply;
use crate::context::Context;
use crate::failure::Failure;
use crate::queue::Owner;
use kube::runtime::reflector::ObjectRef;
use siforge_crds::SingularityImage;
use std::collections::HashSet;

/// Idempotent: called again until it succeeds.
pub(crate) async fn cleanup(context: &Context, object: &SingularityImage, owner: &Owner) -> Result<(), Failure> {
    context.queue.forget(&owner.uid);
    context.interest.set(&ObjectRef::from(object), HashSet::new());
    apply::remove(context, owner).await?;
    tracing::info!("removed the ref");
    Ok(())
}
