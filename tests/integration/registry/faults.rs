//! Networks that break, registries that are busy, and servers that lie.

use super::wire::{Answer, Request, Server, cutting_proxy};
use super::*;
use siforge_oci::{Layer, Reaction};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

pub(super) fn layer_of(blob: &[u8]) -> Layer {
    Layer {
        digest: sha256(blob).parse().expect("digest"),
        size: blob.len() as u64,
        compression: siforge_oci::Compression::Gzip,
        diff_id: absent(),
        urls: vec![],
    }
}

/// Fetches a made-up layer of `lab/x` from a server.
pub(super) fn fetch_from(address: &str, credentials: Option<Credentials>, layer: &Layer) -> Result<(), Error> {
    let client = Client::new(address, credentials, plain_http()).expect("client");
    let download = Download::new(tempfile::tempfile().expect("file"), layer.size);
    block_on(client.fetch(&reference(address, "lab/x"), layer, download))
}

pub(super) fn resolve_from(address: &str) -> Result<Resolved, Error> {
    let client = Client::new(address, None, plain_http()).expect("client");
    block_on(client.resolve(&reference(address, "lab/x"), &amd64()))
}

#[test]
fn a_broken_blob_is_resumed_where_it_broke() {
    let registry = Registry::plain();
    let image = Image::new().layer(tar("noise", noise(1_000_000)), Compression::Gzip);
    registry.push("lab/noise:v1", &image);
    let proxy = cutting_proxy(&registry.address(), 400_000);
    let client = Client::new(&proxy, None, plain_http()).expect("client");
    let tagged = reference(&proxy, "lab/noise:v1");
    let resolved = block_on(client.resolve(&tagged, &amd64())).expect("resolve");
    fetch(&client, &resolved, 0).expect("fetch in pieces");

    let path = format!("/blobs/{}", resolved.layers[0].digest);
    assert_eq!(registry.requests_once("GET", &path, 3), 3, "{}", registry.log());
    let log = registry.log();
    let statuses = |status: &str| {
        let lines = log.lines().filter(|line| line.contains("GET ") && line.contains(&path));
        lines.filter(|line| line.contains(&format!("\" {status} "))).count()
    };
    assert_eq!((statuses("200"), statuses("206")), (1, 2), "{log}");
}

#[test]
fn a_server_without_ranges_is_read_again_from_the_start() {
    let blob = noise(900_000);
    let layer = layer_of(&blob);
    let turn = AtomicUsize::new(0);
    let server = Server::start(move |request| match request.path.as_str() {
        "/v2/" => Answer::new(200, "{}"),
        _ => match turn.fetch_add(1, Ordering::SeqCst) {
            0 => Answer::new(200, &blob[..500_000]).promising(blob.len()),
            _ => Answer::new(200, blob.clone()),
        },
    });
    fetch_from(&server.address(), None, &layer).expect("fetch");
    let ranges = server.seen();
    let ranges: Vec<_> = ranges.iter().map(|request| request.header("range")).collect();
    assert_eq!(ranges, [None, None, Some("bytes=500000-")]);
}

#[test]
fn credentials_stay_with_the_registry() {
    let blob = noise(1000);
    let layer = layer_of(&blob);
    let storage = Server::start(move |_| Answer::new(200, blob.clone()));
    let location = format!("http://{}/signed?X-Amz-Signature=s3cr3t", storage.address());
    let front = Server::start(move |request| match (request.path.as_str(), request.header("authorization")) {
        (_, None) => Answer::new(401, "").header("WWW-Authenticate", "Basic realm=\"x\""),
        ("/v2/", _) => Answer::new(200, "{}"),
        _ => Answer::new(307, "").header("Location", &location),
    });
    fetch_from(&front.address(), right(), &layer).expect("fetch");
    let authorized = |requests: Vec<Request>| -> Vec<bool> {
        requests.iter().map(|request| request.header("authorization").is_some()).collect()
    };
    assert_eq!(authorized(front.seen()), [false, true]);
    assert_eq!(authorized(storage.seen()), [false], "no Authorization across hosts");
    assert_eq!(storage.seen()[0].path, "/signed?X-Amz-Signature=s3cr3t");

    // A path of the same registry keeps it.
    let inner = Server::start(|request| match (request.path.as_str(), request.header("authorization")) {
        ("/there", Some(_)) => Answer::new(200, noise(1000)),
        (_, None) => Answer::new(401, "").header("WWW-Authenticate", "Basic realm=\"x\""),
        _ => Answer::new(307, "").header("Location", "/there"),
    });
    fetch_from(&inner.address(), right(), &layer).expect("fetch");
}

#[test]
fn redirects_have_an_end() {
    let server = Server::start(|request| match request.path.as_str() {
        "/v2/" => Answer::new(200, "{}"),
        path => Answer::new(302, "").header("Location", &format!("{path}x?token=s3cr3t")),
    });
    let error = refused(resolve_from(&server.address()), Kind::Protocol, &["more than 10 redirects"]);
    assert!(!error.to_string().contains("s3cr3t"), "{error}");
    assert_eq!(server.seen().len(), 12);
    let server = Server::start(|request| match request.path.as_str() {
        "/v2/" => Answer::new(200, "{}"),
        _ => Answer::new(302, "").header("Location", "file:///etc/shadow"),
    });
    refused(resolve_from(&server.address()), Kind::Protocol, &["not an HTTP URL"]);
}

/// Answers each path with the statuses of a list in turn, then with the blob.
fn moody(statuses: &'static [u16], blob: Vec<u8>) -> Server {
    let turn = AtomicUsize::new(0);
    Server::start(move |request| match request.path.as_str() {
        "/v2/" => Answer::new(200, "{}"),
        _ => match statuses.get(turn.fetch_add(1, Ordering::SeqCst)) {
            Some(status) => Answer::new(*status, "busy").header("Retry-After", "1"),
            None => Answer::new(200, blob.clone()),
        },
    })
}

#[test]
fn busy_registries_are_asked_again() {
    let blob = noise(1000);
    let layer = layer_of(&blob);
    let start = Instant::now();
    let server = moody(&[429, 503], blob.clone());
    fetch_from(&server.address(), None, &layer).expect("the third answer");
    assert!(start.elapsed() >= Duration::from_secs(2), "Retry-After is honoured twice");
    assert_eq!(server.seen().len(), 4);

    for (status, kind) in
        [(403, Kind::Forbidden), (404, Kind::NotFound), (401, Kind::Unauthorized), (400, Kind::Protocol)]
    {
        let statuses: &'static [u16] = vec![status; 9].leak();
        let server = moody(statuses, blob.clone());
        refused(fetch_from(&server.address(), None, &layer), kind, &["reading blob sha256:", "busy"]);
        assert_eq!(server.seen().len(), 2, "{status} is final");
    }
    let server = moody(&[500; 9], blob);
    let error = refused(fetch_from(&server.address(), None, &layer), Kind::Server, &["server error 500: busy"]);
    assert_eq!(error.reaction(), Reaction::Retry { after: Some(Duration::from_secs(1)) });
    assert_eq!(server.seen().len(), 6, "one ping and five tries");
}

#[test]
fn a_token_that_is_no_longer_taken_is_renewed() {
    let blob = noise(1000);
    let layer = layer_of(&blob);
    let tokens = AtomicUsize::new(0);
    let auth = Server::start(move |_| {
        let number = tokens.fetch_add(1, Ordering::SeqCst);
        Answer::new(200, format!("{{\"token\":\"t{number}\",\"expires_in\":300}}"))
    });
    let challenge = format!("Bearer realm=\"http://{}/token\",service=\"s\"", auth.address());
    // t0 is revoked, t1 is taken.
    let front = Server::start(move |request| match request.header("authorization") {
        Some("Bearer t1") => Answer::new(200, blob.clone()),
        _ => Answer::new(401, "").header("WWW-Authenticate", &challenge),
    });
    fetch_from(&front.address(), right(), &layer).expect("fetch with the second token");
    let asked = auth.seen();
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[0].path, "/token?service=s&scope=repository%3Alab%2Fx%3Apull");
    assert_eq!(asked[0].header("authorization"), Some(format!("Basic {}", basic()).as_str()));
}

#[test]
fn secrets_that_a_server_echoes_are_not_shown() {
    let server = Server::start(|request| match request.path.as_str() {
        "/v2/" => Answer::new(401, "").header("WWW-Authenticate", "Basic realm=\"x\""),
        _ => Answer::new(403, format!("denied: {:?} password {PASSWORD}", request.header("authorization"))),
    });
    let client = Client::new(&server.address(), right(), plain_http()).expect("client");
    let result = block_on(client.resolve(&reference(&server.address(), "lab/x"), &amd64()));
    let error = refused(result, Kind::Forbidden, &["access denied: denied: ", "***"]);
    assert!(!error.to_string().contains(&basic()), "{error}");
}

/// A registry with one document for every manifest URL.
pub(super) fn serving(document: Vec<u8>, content_type: &'static str) -> Server {
    Server::start(move |request| match request.path.as_str() {
        "/v2/" => Answer::new(200, "{}"),
        _ => Answer::new(200, document.clone()).header("Content-Type", content_type),
    })
}

#[test]
fn documents_are_bounded_and_checked() {
    let check = |document: Vec<u8>, content_type, kind, text: &str| {
        let server = serving(document, content_type);
        refused(resolve_from(&server.address()), kind, &["reading manifest ", text]);
    };
    check(vec![b' '; (4 << 20) + 1], MANIFEST, Kind::Limit, "manifest size is 4194305, at most 4194304 allowed");
    check(b"<html>".to_vec(), "text/html", Kind::Protocol, "answer not understood");
    let schema_one = json!({"schemaVersion": 1, "fsLayers": []});
    let prettyjws = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    check(schema_one.to_string().into(), prettyjws, Kind::Unsupported, "schema 1");
    let layers = vec![json!({"mediaType": "x", "digest": absent(), "size": 1}); 513];
    let config = json!({"mediaType": "application/vnd.oci.image.config.v1+json", "digest": absent(), "size": 9 << 20});
    let many = json!({"schemaVersion": 2, "config": config, "layers": layers});
    check(many.to_string().into(), MANIFEST, Kind::Limit, "number of layers is 513, at most 512 allowed");
    let server = serving(json!({"schemaVersion": 2, "config": config, "layers": []}).to_string().into(), MANIFEST);
    let texts = ["reading config ", "config size is 9437184, at most 8388608 allowed"];
    refused(resolve_from(&server.address()), Kind::Limit, &texts);

    // An index may not be followed to bytes that it does not name.
    let platform = json!({"os": "linux", "architecture": "amd64"});
    let entry = json!({"mediaType": MANIFEST, "digest": absent(), "size": 3, "platform": platform});
    let index = json!({"schemaVersion": 2, "manifests": [entry]});
    check(index.to_string().into(), INDEX, Kind::Integrity, "error verifying sha256 checksum");
}

#[test]
fn indexes_nest_three_deep_and_no_deeper() {
    let check = |depth: usize| {
        let platform = json!({"os": "linux", "architecture": "amd64"});
        let config = json!({"os": "linux", "architecture": "amd64", "rootfs": {"diff_ids": []}}).to_string();
        let descriptor = |media_type: &str, text: &str| json!({"mediaType": media_type, "digest": sha256(text.as_bytes()), "size": text.len(), "platform": platform});
        let image = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "layers": [],
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        });
        let mut documents = vec![config, image.to_string()];
        for level in 0..depth {
            let below = descriptor(if level == 0 { MANIFEST } else { INDEX }, &documents[documents.len() - 1]);
            documents.push(json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [below]}).to_string());
        }
        let server = Server::start(move |request| {
            let by_digest = |text: &&String| request.path.ends_with(&sha256(text.as_bytes()));
            match documents.iter().find(by_digest).or(documents.last()) {
                Some(document) if request.path != "/v2/" => Answer::new(200, document.clone()),
                _ => Answer::new(200, "{}"),
            }
        });
        resolve_from(&server.address())
    };
    for depth in 0..=3 {
        check(depth).unwrap_or_else(|error| panic!("{depth}: {error}"));
    }
    refused(check(4), Kind::Limit, &["depth of image indexes is 4, at most 3 allowed"]);
}

#[test]
fn a_dropped_fetch_ends_its_readers() {
    // Half of the blob comes, then nothing.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address").to_string();
    let held = std::thread::spawn(move || {
        let mut held = Vec::new();
        let answers = [
            "HTTP/1.1 200 X\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}",
            "HTTP/1.1 200 X\r\nContent-Length: 10\r\n\r\nhalf",
        ];
        for (answer, stream) in answers.into_iter().zip(listener.incoming().flatten()) {
            use std::io::Write;
            let asked = (&stream).read(&mut [0; 4096]).expect("request");
            assert!(asked > 0, "the client closed instead of asking");
            (&stream).write_all(answer.as_bytes()).expect("answer");
            held.push(stream);
        }
        held
    });
    let layer = layer_of(b"0123456789");
    let client = Client::new(&address, None, plain_http()).expect("client");
    let download = Download::new(tempfile::tempfile().expect("file"), layer.size);
    let mut reader = download.reader();
    let thread = std::thread::spawn(move || reader.read_to_end(&mut Vec::new()));
    block_on(async {
        let image = reference(&address, "lab/x");
        let fetch = client.fetch(&image, &layer, Arc::clone(&download));
        let dropped = tokio::time::timeout(Duration::from_millis(500), fetch).await;
        assert!(dropped.is_err(), "{dropped:?}");
    });
    let error = thread.join().expect("reader").expect_err("ended");
    let error = error.downcast::<Error>().expect("an oci::Error");
    assert_eq!(error.kind(), Kind::Interrupted, "{error}");
    drop(held.join());
}
