//! The agent's registry, judged by skopeo.

use std::process::Command;

use serde_json::Value;
use siforge_store::shadows::Parts;
use siforge_store::{Access, Shadow};
use siforge_tests::run::{Finished, run};
use siforge_tests::{free_port, need};

use crate::agent::site::Site;

fn skopeo(address: &str, token: &str, words: &[&str]) -> Finished {
    let mut command = Command::new(need::program("skopeo"));
    let [verb, image, rest @ ..] = words else { panic!("VERB IMAGE …") };
    command.args(["--insecure-policy", verb]);
    let side = if *verb == "copy" { "src-" } else { "" };
    if *verb == "inspect" {
        command.arg("--no-tags");
    }
    command.arg(format!("--{side}tls-verify=false")).arg(format!("--{side}registry-token={token}"));
    command.arg(format!("docker://{address}/{image}"));
    run(command.args(rest))
}

#[test]
fn shadows_are_images_of_a_registry() {
    let site = Site::new();
    let everyone = || Access { everyone: true, ..Access::default() };
    let digest = site.publish("tiny", everyone());
    let config = br#"{"Cmd":["cow"],"User":"moo"}"#.to_vec();
    let parts = Parts { config, passwd: Some(b"moo:x:7:7::/:/bin/sh\n".to_vec()), group: None };
    site.store.write_shadow(&Shadow::new(digest, "amd64", &parts)).unwrap();
    // A port of root's, on an address of loopback that nobody else takes.
    let [high, low] = free_port().to_be_bytes();
    let address = format!("127.77.{high}.{low}:577");
    let _agent = site.start(&["--registry", &address]);
    let token = std::fs::read_to_string(site.path("state/registry/token")).unwrap();

    let copied = site.path("copied");
    let into = format!("dir:{}", copied.display());
    skopeo(&address, &token, &["copy", "lab/tiny", &into]).ok();
    let manifest: Value = serde_json::from_slice(&std::fs::read(copied.join("manifest.json")).unwrap()).unwrap();
    assert_eq!(manifest["annotations"]["dev.siforge.image"], format!("lab/tiny@{digest}"));
    let inspected = skopeo(&address, &token, &["inspect", "lab/tiny"]).ok();
    let inspected: Value = serde_json::from_str(&inspected.stdout).unwrap();
    let pinned = inspected["Digest"].as_str().unwrap();
    for reference in ["lab/tiny:1", &format!("lab/tiny@{pinned}"), &format!("lab/tiny:sha256-{}", digest.hex())] {
        let other: Value =
            serde_json::from_str(&skopeo(&address, &token, &["inspect", reference]).ok().stdout).unwrap();
        assert_eq!(other["Digest"], pinned, "{reference}");
    }

    let fails = |image: &str, token: &str, reason: &str| {
        let failed = skopeo(&address, token, &["inspect", image]);
        assert!(!failed.success() && failed.stderr.contains(reason), "{image}: {failed}");
    };
    fails("lab/tiny", "other", "the node's container runtime's alone");
    fails("lab/tiny:2", &token, "lab/tiny has no revision 2");
    fails("lab/tiny:v1", &token, "no tag \\\"v1\\\"");
    fails("lab/tini", &token, "no image lab/tini is published; the nearest name is lab/tiny");
    site.publish("old", everyone());
    fails("lab/old", &token, "built before pods were known");
    let large = Parts { config: vec![b' '; 70000], ..Parts::default() };
    let digest = site.publish("large", everyone());
    site.store.write_shadow(&Shadow::new(digest, "amd64", &large)).unwrap();
    fails("lab/large", &token, "cannot be a pod's root");
    std::fs::remove_file(site.artifact(&digest)).unwrap();
}
