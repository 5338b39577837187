//! The CRD in a real API server.

use super::{Site, cluster, condition};

#[test]
fn the_api_server_finds_nothing_wrong_with_the_crd() {
    let crd = cluster()
        .get("default", "crd", "singularityimages.siforge.dev")
        .expect("the CRD");
    for kind in [
        "NonStructuralSchema",
        "KubernetesAPIApprovalPolicyConformant",
    ] {
        assert!(condition(&crd, kind).is_none(), "{crd:#}");
    }
    assert_eq!(
        condition(&crd, "NamesAccepted").expect("NamesAccepted")["status"],
        "True"
    );
}

#[test]
fn kubectl_explains_every_field() {
    let explain = |path: &str| cluster().kubectl(&["explain", path]).ok().stdout;
    assert!(
        explain("sif.spec.source.docker.pullSecrets").contains("kubernetes.io/dockerconfigjson")
    );
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
    assert_eq!(
        object["spec"]["platforms"],
        serde_json::json!(["linux/amd64"])
    );
}

#[test]
fn what_the_schema_refuses() {
    let site = Site::without_operator();
    let long = "x".repeat(200);
    let docker = "source: {docker: {reference: lolcow}}";
    let cases = [
        ("a", "{source: {}}".to_owned(), "exactly one of docker"),
        (
            "b",
            "{source: {docker: {reference: a}, oras: {reference: b}}}".to_owned(),
            "exactly one of docker",
        ),
        (
            "c",
            "{source: {docker: {reference: \"a b\"}}}".to_owned(),
            "spec.source.docker.reference",
        ),
        (
            "d",
            "{source: {docker: {reference: a, tls: {plainHTTP: true, insecureSkipVerify: true}}}}"
                .to_owned(),
            "plainHTTP excludes",
        ),
        (
            "e",
            "{source: {docker: {reference: a, tls: {caBundle: {}}}}}".to_owned(),
            "exactly one of configMapKeyRef",
        ),
        (
            "f",
            "{source: {archive: {format: OCIArchive, path: a/../b}}}".to_owned(),
            "must not leave the import folder",
        ),
        (
            "g",
            "{source: {definition: {}}}".to_owned(),
            "exactly one of inline",
        ),
        (
            "h",
            format!("{{{docker}, interval: soon}}"),
            "spec.interval",
        ),
        (
            "i",
            format!("{{{docker}, platforms: []}}"),
            "spec.platforms",
        ),
        (
            "j",
            format!("{{{docker}, access: {{namespaces: {{from: Selector}}}}}}"),
            "selector goes with from: Selector",
        ),
        (
            "k",
            format!("{{{docker}, build: {{compression: Gzip, level: 13}}}}"),
            "level of Gzip",
        ),
        (
            "l",
            format!("{{{docker}, build: {{compression: zstd}}}}"),
            "spec.build.compression",
        ),
        (
            "m",
            format!("{{{docker}, build: {{blockSize: big}}}}"),
            "spec.build.blockSize",
        ),
        (
            "n",
            format!("{{{docker}, revisionHistoryLimit: 21}}"),
            "spec.revisionHistoryLimit",
        ),
        (
            long.as_str(),
            format!("{{{docker}}}"),
            "at most 128 characters",
        ),
    ];
    for (name, spec, says) in cases {
        let applied = site.cluster.apply(&site.manifest(name, &spec));
        assert!(
            !applied.success() && applied.stderr.contains(says),
            "{spec}: {}",
            applied.output()
        );
    }
}
