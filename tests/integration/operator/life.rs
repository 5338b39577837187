//! The life of an object whose source is in order.

use super::{SOON, Site, condition, docker, docker_and, image};
use serde_json::Value;
use siforge_tests::registry::{Auth, Options};
use siforge_tests::wait::wait_for;
use siforge_tests::{Compression, Image, Registry, Tar, wait_until};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

#[test]
fn from_apply_to_published() {
    let registry = Registry::plain();
    let manifest = registry.push("lab/cow:1", &image("moo"));
    let site = Site::new();
    site.apply("cow", &docker(&registry, "lab/cow:1"));
    let object = site.wait_ready("cow");
    let path = the_status_tells_what_was_published(&site, &object, &manifest);
    kubectl_shows_it(&site);
    access_for_all_is_another_revision_of_the_same_file(&site, &registry, &path);
    site.kubectl(&["delete", "sif", "cow", "--timeout=60s"]);
    assert_eq!(site.published("cow"), None);
}

/// Gives the artifact's path.
fn the_status_tells_what_was_published(site: &Site, object: &Value, manifest: &str) -> PathBuf {
    let status = &object["status"];
    let kinds: Vec<_> = status["conditions"]
        .as_array()
        .expect("conditions")
        .iter()
        .map(|c| c["type"].as_str().unwrap_or_default())
        .collect();
    assert_eq!(kinds, ["Ready", "SourceResolved", "Built", "Published"]);
    assert_eq!(status["observedGeneration"], object["metadata"]["generation"]);
    assert_eq!(status["source"]["digest"], manifest);
    assert!(status["build"].is_null(), "{status:#}");
    let published = site.published("cow").expect("a ref");
    assert_eq!(status["artifacts"][0]["digest"], published.digest.to_string());
    assert_eq!(published.source.digest.to_string(), manifest);
    assert!(published.generation >= 1);
    let path = site.store_path().join(status["artifacts"][0]["path"].as_str().expect("path"));
    assert_eq!(mode(&path), 0o640, "private: access says Same");
    path
}

fn mode(path: &Path) -> u32 {
    let metadata = std::fs::metadata(path).expect("the artifact");
    metadata.permissions().mode() & 0o7777
}

fn kubectl_shows_it(site: &Site) {
    let table = site.kubectl(&["get", "sif"]);
    let mut lines = table.lines();
    let head: Vec<_> = lines.next().unwrap_or_default().split_whitespace().collect();
    assert_eq!(head, ["NAME", "READY", "STATUS", "DIGEST", "SIZE", "AGE"]);
    let line = lines.next().unwrap_or_default();
    assert!(
        line.starts_with("cow") && line.contains("True") && line.contains("published sha256:") && line.contains("KiB"),
        "{table}"
    );
    wait_until(SOON, "an event Published in kubectl describe", || {
        site.kubectl(&["describe", "sif", "cow"]).contains("Normal  Published")
    });
}

fn access_for_all_is_another_revision_of_the_same_file(site: &Site, registry: &Registry, path: &Path) {
    site.apply("cow", &docker_and(registry, "lab/cow:1", "access: {namespaces: {from: All}}"));
    site.wait_condition("cow", "Ready", "True", "Succeeded");
    assert_eq!(site.published("cow").map(|it| (it.revision, it.access.everyone)), Some((2, true)));
    assert_eq!(mode(path), 0o644, "readable by all");
    assert_eq!(site.metric(r#"siforge_builds_total{result="success"}"#), 1.0);
}

#[test]
fn ten_objects_share_one_build() {
    let registry = Registry::plain();
    registry.push("lab/cow:1", &image("ten"));
    let site = Site::new();
    let names: Vec<_> = (0..10).map(|n| format!("cow-{n}")).collect();
    let manifests: Vec<_> = names.iter().map(|name| site.manifest(name, &docker(&registry, "lab/cow:1"))).collect();
    site.cluster.apply(&manifests.join("---\n")).ok();
    let digests: Vec<_> =
        names.iter().map(|name| site.wait_ready(name)["status"]["artifacts"][0]["digest"].clone()).collect();
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
    let fetched = registry.requests_once("GET", "/blobs/", 10 + 1);
    assert_eq!(fetched, 10 + 1, "ten times the config, once the layer\n{}", registry.log());
}

#[test]
fn a_moved_tag_is_rebuilt_and_the_object_stays_ready() {
    let registry = Registry::plain();
    registry.push("lab/cow:1", &image("old"));
    let site = Site::new();
    site.apply("cow", &docker_and(&registry, "lab/cow:1", "interval: 1s"));
    let before = site.wait_ready("cow")["status"]["digest"].clone();
    registry.push("lab/cow:1", &image("new"));
    wait_for(SOON, "the new tag's digest", || {
        let object = site.object("cow");
        assert_eq!(condition(&object, "Ready").expect("Ready")["status"], "True", "{object:#}");
        assert!(condition(&object, "Reconciling").is_none(), "{object:#}");
        if object["status"]["digest"] == before { Err("still the old one".to_owned()) } else { Ok(()) }
    });
    let history = site.object("cow")["status"]["history"].clone();
    assert_eq!(history.as_array().map(Vec::len), Some(2), "{history:#}");
}

#[test]
fn suspend_and_asking_by_annotation() {
    let registry = Registry::plain();
    registry.push("lab/cow:1", &image("first"));
    let site = Site::new();
    site.apply("cow", &docker_and(&registry, "lab/cow:1", "suspend: true, interval: 0s"));
    site.wait_condition("cow", "Ready", "Unknown", "Suspended");
    assert_eq!(registry.requests("GET", "/manifests/"), 0, "{}", registry.log());
    site.apply("cow", &docker_and(&registry, "lab/cow:1", "suspend: false, interval: 0s"));
    let before = site.wait_ready("cow")["status"]["digest"].clone();

    registry.push("lab/cow:1", &image("second"));
    site.kubectl(&["annotate", "sif", "cow", "siforge.dev/reconcile-at=now"]);
    wait_for(SOON, "the annotation handled", || {
        let status = &site.object("cow")["status"];
        if status["lastHandledReconcileAt"] == "now" && status["digest"] != before {
            Ok(())
        } else {
            Err(format!("{status:#}"))
        }
    });
}

#[test]
fn kill_9_in_the_middle_of_a_build() {
    let registry = Registry::plain();
    // Incompressible, so that the build takes long enough to be met in the middle.
    let mut state = 1_u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()
    })
    .take(12 << 20)
    .flatten()
    .collect();
    let layer = Tar::new().file("noise", 0o644, &noise).finish();
    registry.push("lab/big:1", &Image::new().layer(layer, Compression::Plain));
    let mut site = Site::new();
    site.apply("big", &docker(&registry, "lab/big:1"));
    wait_until(SOON, "a build in the middle", || !site.leftovers().is_empty());
    site.operator().kill9();
    assert_eq!(site.published("big"), None);
    assert!(!site.leftovers().is_empty(), "killed in the middle");

    site.start();
    site.wait_ready("big");
    assert_eq!(site.leftovers(), Vec::<String>::new());
    assert!(site.published("big").expect("a ref").generation >= 2, "the second leader's generation");
}

#[test]
fn a_restart_builds_nothing_and_sigterm_hands_over() {
    let registry = Registry::plain();
    registry.push("lab/cow:1", &image("restart"));
    let mut site = Site::new();
    site.apply("cow", &docker(&registry, "lab/cow:1"));
    let before = site.wait_ready("cow");
    assert_eq!(site.operator().terminate(), 0, "{}", site.log());
    site.start();
    wait_until(SOON, "resolved again", || site.metric(r#"siforge_resolves_total{result="success"}"#) >= 1.0);
    wait_until(SOON, "reconciled", || {
        site.metric(r#"controller_runtime_reconcile_total{controller="singularityimage",result="success"}"#) >= 2.0
    });
    assert_eq!(site.metric(r#"siforge_builds_total{result="success"}"#), 0.0);
    assert_eq!(site.object("cow")["status"], before["status"]);
    assert_eq!(site.get("/healthz").as_deref(), Ok("ok\n"));
    assert_eq!(site.get("/readyz").as_deref(), Ok("ok\n"));
}

#[test]
fn credentials_are_for_their_registry_alone() {
    let registry = Registry::start(Options { tls: true, auth: Auth::Token });
    registry.push("private/cow:1", &image("secret"));
    let site = Site::new();
    let (user, password) = registry.credentials().expect("credentials");
    let ca = registry.ca_cert().expect("CA");
    site.kubectl(&["create", "configmap", "ca", &format!("--from-file=ca.crt={}", ca.display())]);
    let secret = |name: &str, server: &str| {
        let args = [
            "create",
            "secret",
            "docker-registry",
            name,
            &format!("--docker-server={server}"),
            &format!("--docker-username={user}"),
            &format!("--docker-password={password}"),
        ];
        site.kubectl(&args);
    };
    secret("other", "registry.example");
    secret("ours", &registry.address());
    let spec = |secret: &str| {
        format!(
            "{{source: {{docker: {{reference: \"{}/private/cow:1\", pullSecrets: [{{name: {secret}}}], tls: {{caBundle: {{configMapKeyRef: {{name: ca, key: ca.crt}}}}}}}}}}}}",
            registry.address()
        )
    };
    site.apply("theirs", &spec("other"));
    site.apply("ours", &spec("ours"));
    site.wait_ready("ours");
    site.wait_condition("theirs", "Stalled", "True", "Unauthorized");
    assert!(!site.log().contains(password), "{}", site.log());
}

/// RBAC is asked for the rights that we ship, as it would be for the pod of deploy/operator.yaml would.
#[test]
fn the_rights_of_the_shipped_manifest_suffice() {
    let registry = Registry::plain();
    registry.push("lab/cow:1", &image("rights"));
    let mut site = Site::without_operator();
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/operator.yaml");
    let manifest = std::fs::read_to_string(manifest).expect(manifest);
    site.cluster.apply(&manifest).ok();
    let kubeconfig = site.cluster.kubeconfig_for(
        "system:serviceaccount:siforge-system:siforge-operator",
        &["system:serviceaccounts", "system:authenticated"],
    );
    let mut command = site.command_in("siforge-system");
    command.env("KUBECONFIG", kubeconfig);
    site.start_with(&command);
    site.kubectl(&["label", "namespace", &site.namespace, "team=lab"]);
    site.apply(
        "cow",
        &docker_and(
            &registry,
            "lab/cow:1",
            "access: {namespaces: {from: Selector, selector: {matchLabels: {team: lab}}}}",
        ),
    );
    site.wait_ready("cow");
    wait_until(SOON, "an event", || site.kubectl(&["describe", "sif", "cow"]).contains("Normal  Published"));
    site.kubectl(&["delete", "sif", "cow", "--timeout=60s"]);
    assert!(!site.log().contains("orbidden"), "{}", site.log());
}
