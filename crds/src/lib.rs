//! The API `siforge.dev/v1alpha1`: types, schema and the words of its conditions. No client, no I/O.
//!
//! ```text
//! spec    what is wanted                     status   what is
//!   source     exactly one member              conditions    Ready, Reconciling, Stalled, SourceResolved, Built, …
//!   build      how the SIF is made             source        what the reference resolved to
//!   access     who may launch it               artifacts     what was published, by platform
//!   interval   when to resolve the tag again   build         progress of the build that runs
//!   suspend    leave everything as it is       history       earlier revisions
//! ```
//!
//! The CRD that a cluster installs is printed by [`yaml`]; the committed copy is `crds/singularityimages.siforge.dev.yaml`,
//! and a test fails when the two differ.

pub mod conditions;
mod schema;
mod spec;
mod status;

pub use spec::*;
pub use status::*;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps,
};
use kube::CustomResourceExt;

/// API group of everything siforge owns.
pub const GROUP: &str = "siforge.dev";
/// On an object: its store ref is removed before the object goes.
pub const FINALIZER: &str = "siforge.dev/ref";
/// Annotation on a SingularityImage: a new value (any text, usually a time) asks for a reconcile now. The value that was
/// handled last stands in `status.lastHandledReconcileAt`.
pub const RECONCILE_AT: &str = "siforge.dev/reconcile-at";
/// Field manager of the status patches (server-side apply).
pub const FIELD_MANAGER: &str = "siforge-operator";
/// Longest object name: `siforge.dev/<namespace>/<name>` must stay a valid OCI repository (≤ 255) and a store path.
pub const MAX_NAME: usize = 128;

/// The CRD as it is installed: what the derive makes, plus the status default and the rule on the object's name, which
/// have no place in Rust types.
#[must_use]
pub fn crd() -> CustomResourceDefinition {
    let mut crd = SingularityImage::crd();
    for version in &mut crd.spec.versions {
        let Some(root) = version.schema.as_mut().and_then(|s| s.open_api_v3_schema.as_mut()) else {
            continue;
        };
        root.x_kubernetes_validations = Some(vec![schema::rule(
            &format!("self.metadata.name.size() <= {MAX_NAME}"),
            &format!(
                "the name may have at most {MAX_NAME} characters: it is a folder of the store and a part of an image name"
            ),
        )]);
        if let Some(status) = property(root, "status") {
            // kstatus takes an object without observedGeneration and conditions for "Current"; -1 says "not seen yet".
            status.default = Some(JSON(serde_json::json!({ "observedGeneration": -1 })));
        }
    }
    crd
}

/// [`crd`] as a YAML document with a head that says where it comes from.
#[must_use]
pub fn yaml() -> String {
    // A CRD is plain maps, lists and strings: there is nothing in it that YAML could not hold.
    let body = serde_saphyr::to_string(&serde_json::json!(crd())).expect("a CRD is serialisable");
    format!("# Printed by `siforge-operator crd`; do not edit.\n{}\n", body.trim_end())
}

fn property<'a>(schema: &'a mut JSONSchemaProps, name: &str) -> Option<&'a mut JSONSchemaProps> {
    schema.properties.as_mut()?.get_mut(name)
}

#[cfg(test)]
mod tests;
