//! Layers that are elsewhere, and layers that cannot be read.

use super::faults::{resolve_from, serving};
use super::wire::{Answer, Server};
use super::*;

const FOREIGN: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";

/// A registry with a one-layer image whose layer it does not have; `urls` are in its descriptor.
fn without_layer(blob: &[u8], media_type: &str, urls: &[String]) -> Server {
    let config = json!({"os": "linux", "architecture": "amd64", "rootfs": {"diff_ids": [absent()]}}).to_string();
    let layer = json!({"mediaType": media_type, "digest": sha256(blob), "size": blob.len(), "urls": urls});
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "layers": [layer],
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": sha256(config.as_bytes()), "size": config.len(),
        },
    });
    let layer = format!("/blobs/{}", sha256(blob));
    Server::start(move |request| match (request.header("authorization"), request.path.as_str()) {
        (None, _) => Answer::new(401, "").header("WWW-Authenticate", "Basic realm=\"x\""),
        (_, path) if path.ends_with(&layer) => Answer::new(404, ""),
        (_, path) if path.contains("/blobs/") => Answer::new(200, config.clone()),
        _ => Answer::new(200, manifest.to_string()),
    })
}

fn fetch_layer(server: &Server) -> Result<Vec<u8>, Error> {
    let client = Client::new(&server.address(), right(), plain_http()).expect("client");
    let resolved = block_on(client.resolve(&reference(&server.address(), "lab/x"), &amd64())).expect("resolve");
    fetch(&client, &resolved, 0)
}

#[test]
fn foreign_layers_come_from_their_urls() {
    let blob = noise(1000);
    let given = blob.clone();
    let storage = Server::start(move |_| Answer::new(200, given.clone()));
    let lying = Server::start(|_| Answer::new(200, noise(1001)[1..].to_vec()));
    let secretive = Server::start(|_| Answer::new(403, "the cloud's own key is s3cr3t"));
    let url = |server: &Server| format!("http://{}/layer?signature=s3cr3t", server.address());

    let ours = without_layer(&blob, FOREIGN, &[url(&secretive), url(&storage)]);
    assert_eq!(fetch_layer(&ours).expect("fetch"), blob);
    assert!(storage.seen().iter().all(|request| request.header("authorization").is_none()));
    assert!(ours.seen().iter().any(|request| request.path.ends_with(&sha256(&blob))), "the registry is asked first");

    let check = |urls: &[String], kind, texts: &[&str]| {
        let error = refused(fetch_layer(&without_layer(&blob, FOREIGN, urls)), kind, texts);
        assert!(!error.to_string().contains("s3cr3t"), "{error}");
    };
    check(&[url(&lying)], Kind::Integrity, &["reading foreign layer sha256:", "error verifying sha256 checksum"]);
    check(&[url(&secretive)], Kind::Forbidden, &["reading foreign layer sha256:", "/layer: access denied: status 403"]);
    let file = ["file:///etc/passwd".to_owned()];
    check(&file, Kind::Unsupported, &["from file:///etc/passwd: unsupported: only http and https URLs"]);
    check(&[], Kind::NotFound, &["blob unknown to registry"]);
    // Only layers that say they are foreign are looked for elsewhere.
    let plain = "application/vnd.oci.image.layer.v1.tar+gzip";
    refused(fetch_layer(&without_layer(&blob, plain, &[url(&storage)])), Kind::NotFound, &["blob unknown to registry"]);
}

#[test]
fn layers_that_cannot_be_read_are_refused_at_once() {
    let check = |media_type: &str, text: &str| {
        let config = json!({"mediaType": "application/vnd.oci.image.config.v1+json", "digest": absent(), "size": 1});
        let layers = json!([{"mediaType": media_type, "digest": absent(), "size": 1}]);
        let document = json!({"schemaVersion": 2, "config": config, "layers": layers}).to_string();
        let server = serving(document.into_bytes(), "application/vnd.oci.image.manifest.v1+json");
        refused(resolve_from(&server.address()), Kind::Unsupported, &["reading manifest ", text]);
    };
    check("application/vnd.oci.image.layer.v1.tar+gzip+encrypted", "push the image without encryption");
    check(
        "application/vnd.oci.image.layer.v1.tar+xz",
        "layer of media type \"application/vnd.oci.image.layer.v1.tar+xz\"",
    );
}
