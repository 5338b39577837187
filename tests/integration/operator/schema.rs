//! The CRD in a real API server.

use super::{Site, cluster, condition};

#[test]
fn the_api_server_finds_nothing_wrong_with_the_crd() {
    let crd = cluster().get("default", "crd", "singularityimages.siforge.dev").expect("the CRD");
    for kind in ["NonStructuralSchema", "KubernetesAPIApprovalPolicyConformant"] {
        assert!(condition(&crd, kind).is_none(), "{crd:#}");
    }
    assert_eq!(condition(&crd, "NamesAccepted").expect("NamesAccepted")["status"], "True");
}

#[test]
fn kubectl_explains_every_field() {
    let explain = |path: &str| cluster().kubectl(&["explain", path]).ok().stdout;
    assert!(explain("sif.spec.source.docker.pullSecrets").contains("kubernetes.io/dockerconfigjson"));
    assert!(explain("sif.spec.interval").contains("resolved again"));
    assert!(explain("sif.status.artifacts").contains("Image digest"));
}

#[test]
fn an_untouched_object_is_not_current() {
    let site = Site::without_operator();
    site.apply("cow", "{source: {docker: {reference: lolcow}}}");
    let object = site.object("cow");
    assert_eq!(object["status"]["observedGeneration"], -1);
    assert_eq!(object["spec"]["interval"], "1h");
    assert_eq!(object["spec"]["platforms"], serde_json::json!(["linux/amd64"]));
}

/// `kubectl apply` of each spec fails, and says so.
fn refused(cases: &[(&str, &str)]) {
    let site = Site::without_operator();
    for (spec, says) in cases {
        refused_as(&site, "cow", spec, says);
    }
}

fn refused_as(site: &Site, name: &str, spec: &str, says: &str) {
    let applied = site.cluster.apply(&site.manifest(name, spec));
    assert!(!applied.success() && applied.stderr.contains(says), "{spec}: {}", applied.output());
}

#[test]
fn the_schema_refuses_wrong_sources() {
    refused(&[
        ("{source: {}}", "exactly one of docker"),
        ("{source: {docker: {reference: a}, oras: {reference: b}}}", "exactly one of docker"),
        ("{source: {docker: {reference: \"a b\"}}}", "spec.source.docker.reference"),
        ("{source: {docker: {reference: a, tls: {plainHTTP: true, insecureSkipVerify: true}}}}", "plainHTTP excludes"),
        ("{source: {docker: {reference: a, tls: {caBundle: {}}}}}", "exactly one of configMapKeyRef"),
        ("{source: {archive: {format: OCIArchive, path: a/../b}}}", "must not leave the import folder"),
        ("{source: {definition: {}}}", "exactly one of inline"),
    ]);
}

#[test]
fn the_schema_refuses_wrong_fields_beside_the_source() {
    let with = |field: &str| format!("{{source: {{docker: {{reference: lolcow}}}}, {field}}}");
    let cases = [
        ("interval: soon", "spec.interval"),
        ("platforms: []", "spec.platforms"),
        ("access: {namespaces: {from: Selector}}", "selector goes with from: Selector"),
        ("build: {compression: Gzip, level: 13}", "level of Gzip"),
        ("build: {compression: zstd}", "spec.build.compression"),
        ("build: {blockSize: big}", "spec.build.blockSize"),
        ("revisionHistoryLimit: 21", "spec.revisionHistoryLimit"),
    ]
    .map(|(field, says)| (with(field), says));
    refused(&cases.each_ref().map(|(spec, says)| (spec.as_str(), *says)));
}

#[test]
fn the_schema_refuses_names_that_no_store_path_holds() {
    refused_as(
        &Site::without_operator(),
        &"x".repeat(200),
        "{source: {docker: {reference: lolcow}}}",
        "at most 128 characters",
    );
}
