//! Sources that are not in order: each its own reason, and a way back.

use super::{Site, condition, docker, docker_and, image};
use siforge_tests::registry::{Auth, Options};
use siforge_tests::{Registry, push_index, run};
use std::process::Command;

#[test]
fn unknown_names_stall_until_somebody_acts() {
    let registry = Registry::plain();
    registry.push("lab/cow:1", &image("here"));
    let site = Site::new();
    site.apply("tag", &docker(&registry, "lab/cow:2"));
    site.apply("repository", &docker(&registry, "lab/owl:1"));
    let message = site.wait_condition("tag", "Stalled", "True", "NotFound");
    assert!(message.contains("lab/cow: manifest unknown: no such tag"), "{message}");
    let message = site.wait_condition("repository", "Stalled", "True", "NotFound");
    assert!(message.contains("lab/owl") && message.contains("repository name not known"), "{message}");
    let object = site.object("tag");
    assert_eq!(condition(&object, "Ready").expect("Ready")["status"], "False");
    assert!(condition(&object, "Reconciling").is_none());

    registry.push("lab/cow:2", &image("now"));
    site.kubectl(&["annotate", "sif", "tag", "siforge.dev/reconcile-at=1"]);
    site.wait_ready("tag");
}

#[test]
fn what_is_not_built_yet_is_refused_by_name() {
    let registry = Registry::plain();
    let site = Site::new();
    site.apply("a", "{source: {oras: {reference: x}}}");
    site.apply("b", &docker_and(&registry, "x", "verify: {cosign: {keys: [{secretKeyRef: {name: a, key: b}}]}}"));
    site.apply("c", &docker_and(&registry, "x", "platforms: [linux/arm64]"));
    for (name, field) in [("a", "spec.source.oras"), ("b", "spec.verify"), ("c", "spec.platforms")] {
        let message = site.wait_condition(name, "Stalled", "True", "Unsupported");
        assert!(message.starts_with(field), "{message}");
    }
}

#[test]
fn a_registry_that_is_down_is_tried_again() {
    let mut registry = Registry::plain();
    registry.push("lab/cow:1", &image("up"));
    registry.stop();
    let site = Site::new();
    site.apply("cow", &docker(&registry, "lab/cow:1"));
    let message = site.wait_condition("cow", "Reconciling", "True", "RegistryUnavailable");
    assert!(message.contains("next attempt at"), "{message}");
    let object = site.object("cow");
    assert_eq!(condition(&object, "Ready").expect("Ready")["status"], "Unknown");
    assert!(object["status"]["build"]["nextAttempt"].is_string(), "{:#}", object["status"]);
    registry.restart();
    site.wait_ready("cow");
}

#[test]
fn a_missing_ca_wakes_and_a_wrong_one_stalls() {
    let registry = Registry::start(Options { tls: true, auth: Auth::None });
    registry.push("lab/cow:1", &image("tls"));
    let site = Site::new();
    let reference = format!("{}/lab/cow:1", registry.address());
    site.apply("none", &format!("{{source: {{docker: {{reference: \"{reference}\"}}}}}}"));
    let message = site.wait_condition("none", "Stalled", "True", "CertificateInvalid");
    assert!(message.contains("certificate"), "{message}");

    let spec = format!(
        "{{source: {{docker: {{reference: \"{reference}\", tls: {{caBundle: {{configMapKeyRef: {{name: ca, key: ca.crt}}}}}}}}}}}}"
    );
    site.apply("cow", &spec);
    let message = site.wait_condition("cow", "Reconciling", "True", "ConfigMapNotFound");
    assert!(message.contains("ConfigMap ca "), "{message}");
    let other = Registry::start(Options { tls: true, auth: Auth::None });
    let from = |registry: &Registry| format!("--from-file=ca.crt={}", registry.ca_cert().expect("CA").display());
    site.kubectl(&["create", "configmap", "ca", &from(&other)]);
    site.wait_condition("cow", "Stalled", "True", "CertificateInvalid");
    site.kubectl(&["delete", "configmap", "ca"]);
    site.wait_condition("cow", "Reconciling", "True", "ConfigMapNotFound");
    site.kubectl(&["create", "configmap", "ca", &from(&registry)]);
    site.wait_ready("cow");
}

#[test]
fn a_missing_secret_wakes_and_a_wrong_one_stalls() {
    let registry = Registry::start(Options { tls: false, auth: Auth::Htpasswd });
    registry.push("lab/cow:1", &image("login"));
    let (user, password) = registry.credentials().expect("credentials");
    let site = Site::new();
    let spec = format!(
        "{{source: {{docker: {{reference: \"{}/lab/cow:1\", pullSecrets: [{{name: login}}], tls: {{plainHTTP: true}}}}}}}}",
        registry.address()
    );
    site.apply("cow", &spec);
    let message = site.wait_condition("cow", "Reconciling", "True", "SecretNotFound");
    assert!(message.contains("Secret login "), "{message}");
    let create = |password: &str| {
        let fields = [format!("--from-literal=username={user}"), format!("--from-literal=password={password}")];
        site.kubectl(&[
            "create",
            "secret",
            "generic",
            "login",
            "--type=kubernetes.io/basic-auth",
            &fields[0],
            &fields[1],
        ]);
    };
    create("wrong");
    let message = site.wait_condition("cow", "Stalled", "True", "Unauthorized");
    assert!(!message.contains("wrong"), "{message}");
    site.kubectl(&["delete", "secret", "login"]);
    create(password);
    site.wait_ready("cow");
}

#[test]
fn a_damaged_blob_publishes_nothing() {
    let registry = Registry::plain();
    let manifest = registry.push("lab/cow:1", &image("damaged"));
    let text = std::fs::read(registry.blob_path(&manifest)).expect("the manifest");
    let manifest: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
    let layer = registry.blob_path(manifest["layers"][0]["digest"].as_str().expect("digest"));
    let mut bytes = std::fs::read(&layer).expect("the layer");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&layer, bytes).expect("damage the layer");
    let site = Site::new();
    site.apply("cow", &docker(&registry, "lab/cow:1"));
    let message = site.wait_condition("cow", "Stalled", "True", "DigestMismatch");
    assert!(message.contains("error verifying sha256 checksum"), "{message}");
    assert_eq!(site.published("cow"), None);
    assert_eq!(site.leftovers(), Vec::<String>::new());
}

#[test]
fn images_that_cannot_be_turned_into_a_sif() {
    let registry = Registry::plain();
    registry.push("lab/cow:1", &image(&"moo ".repeat(1 << 20)));
    push_index(&registry, "lab/arm:1", &[image("arm").architecture("arm64")]);
    let site = Site::new();
    site.apply("arm", &docker(&registry, "lab/arm:1"));
    let message = site.wait_condition("arm", "Stalled", "True", "PlatformNotFound");
    assert!(message.contains("linux/amd64") && message.contains("arm64"), "{message}");

    let small = "build: {limits: {uncompressedBytes: 1Mi}}";
    site.apply("big", &docker_and(&registry, "lab/cow:1", small));
    let message = site.wait_condition("big", "Stalled", "True", "BuildFailed");
    assert!(message.contains("1048576"), "{message}");
    assert_eq!(site.published("big"), None);

    // Who allows more gets the image, though another object's build of it failed.
    site.apply("cow", &docker(&registry, "lab/cow:1"));
    site.wait_ready("cow");
}

#[test]
fn a_store_that_is_not_mounted_is_an_error() {
    let site = Site::without_operator();
    let mut command = Command::new(siforge_tests::binary("siforge-operator"));
    command
        .args(["run", "--metrics-addr=127.0.0.1:0", "--store"])
        .arg(site.dir.path())
        .env("KUBECONFIG", site.cluster.kubeconfig());
    let finished = run(&mut command).fails_with(1);
    assert!(finished.stderr.contains("is no siforge store"), "{}", finished.output());
}
