//! Servers that are busy, slow or silent, connections that are reset, and tokens that end in the middle.

use super::faults::{fetch_from, layer_of, resolve_from, serving};
use super::wire::{Answer, Server, cutting_proxy};
use super::*;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// Gives the answers of a list in turn, then the last for ever, to all but the ping.
fn in_turn(answers: Vec<Box<dyn Fn() -> Answer + Send + Sync>>) -> Server {
    let turn = AtomicUsize::new(0);
    Server::start(move |request| match request.path.as_str() {
        "/v2/" => Answer::new(200, "{}"),
        _ => answers[turn.fetch_add(1, Ordering::SeqCst).min(answers.len() - 1)](),
    })
}

fn blob_after(blob: &[u8], first: impl Fn() -> Answer + Send + Sync + 'static) -> Server {
    let blob = blob.to_vec();
    in_turn(vec![Box::new(first), Box::new(move || Answer::new(200, blob.clone()))])
}

#[test]
fn a_busy_registry_says_when_to_come_back_or_not() {
    let blob = noise(1000);
    let layer = layer_of(&blob);
    // Once, and the next answer is right.
    fetch_from(&blob_after(&blob, || Answer::new(500, "oops")).address(), None, &layer).expect("500, then fine");
    fetch_from(&blob_after(&blob, || Answer::new(429, "slow")).address(), None, &layer).expect("429, then fine");

    // A date with whole seconds: between one and two seconds from now.
    let start = Instant::now();
    let server = blob_after(&blob, || {
        let at = SystemTime::now() + Duration::from_secs(2);
        Answer::new(503, "busy").header("Retry-After", &http_date(at))
    });
    fetch_from(&server.address(), None, &layer).expect("503 with a date, then fine");
    assert!(start.elapsed() >= Duration::from_secs(1), "{:?}", start.elapsed());

    let server = in_turn(vec![Box::new(|| Answer::new(429, "too many pulls"))]);
    let texts = ["toomanyrequests: too many pulls; try again later, or log in for a higher limit"];
    refused(fetch_from(&server.address(), None, &layer), Kind::RateLimited, &texts);
    assert_eq!(server.seen().len(), 6, "one ping and five tries");
    // Longer than a person waits: told at once.
    let start = Instant::now();
    let server = in_turn(vec![Box::new(|| Answer::new(429, "x").header("Retry-After", "3600"))]);
    let texts = ["toomanyrequests: x; the registry asks to wait 3600 s"];
    refused(fetch_from(&server.address(), None, &layer), Kind::RateLimited, &texts);
    assert!(server.seen().len() == 2 && start.elapsed() < Duration::from_secs(10));
}

fn http_date(at: SystemTime) -> String {
    let seconds = at.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs();
    let date = run(Command::new("date").args(["-u", "-d", &format!("@{seconds}"), "+%a, %d %b %Y %H:%M:%S GMT"]));
    date.ok().stdout.trim().to_owned()
}

#[test]
fn a_network_that_resets_every_64_kib_is_borne() {
    let registry = Registry::plain();
    registry.push("lab/noise:v1", &Image::new().layer(tar("noise", noise(300_000)), Compression::Gzip));
    let proxy = cutting_proxy(&registry.address(), 64 << 10);
    let client = Client::new(&proxy, None, plain_http()).expect("client");
    let resolved = block_on(client.resolve(&reference(&proxy, "lab/noise:v1"), &amd64())).expect("resolve");
    fetch(&client, &resolved, 0).expect("fetch in pieces");
    let path = format!("/blobs/{}", resolved.layers[0].digest);
    assert!(registry.requests_once("GET", &path, 5) >= 5, "{}", registry.log());

    // One that never gets as far as the first bytes is given up.
    let dead = cutting_proxy(&registry.address(), 0);
    refused(resolve_from(&dead), Kind::Unreachable, &["pinging container registry", "connection to 127.0.0.1:"]);
}

#[test]
fn a_silent_registry_is_not_waited_for() {
    let blob = noise(900_000);
    let layer = layer_of(&blob);
    let idle = Duration::from_millis(500);
    let fetch = |server: &Server| {
        let client = Client::new(&server.address(), None, plain_http()).expect("client").with_idle_timeout(idle);
        let download = Download::new(tempfile::tempfile().expect("file"), layer.size);
        block_on(client.fetch(&reference(&server.address(), "lab/x"), &layer, download))
    };
    let half = blob[..500_000].to_vec();
    let stalled = {
        let (half, length) = (half.clone(), blob.len());
        move || Answer::new(200, half.clone()).promising(length).stalling()
    };
    let server = blob_after(&blob, stalled);
    fetch(&server).expect("resumed");
    assert_eq!(server.seen()[2].header("range"), Some("bytes=500000-"));

    let start = Instant::now();
    let length = blob.len();
    let server = in_turn(vec![Box::new(move || Answer::new(200, "").promising(length).stalling())]);
    refused(fetch(&server), Kind::Unreachable, &["reading blob sha256:", "no data from 127.0.0.1:", "for 500ms"]);
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
}

#[test]
fn a_token_that_ends_in_the_middle_of_a_blob_is_renewed() {
    let blob = noise(900_000);
    let layer = layer_of(&blob);
    let tokens = AtomicUsize::new(0);
    let auth = Server::start(move |_| {
        let number = tokens.fetch_add(1, Ordering::SeqCst);
        Answer::new(200, format!("{{\"token\":\"t{number}\",\"expires_in\":300}}"))
    });
    let challenge = format!("Bearer realm=\"http://{}/token\"", auth.address());
    let whole = blob.clone();
    let front = Server::start(move |request| match (request.header("authorization"), request.header("range")) {
        // The first token is good for half of the blob.
        (Some("Bearer t0"), None) => Answer::new(200, &whole[..500_000]).promising(whole.len()),
        (Some("Bearer t1"), Some("bytes=500000-")) => Answer::new(206, &whole[500_000..])
            .header("Content-Range", &format!("bytes 500000-{}/{}", whole.len() - 1, whole.len())),
        _ => Answer::new(401, "").header("WWW-Authenticate", &challenge),
    });
    fetch_from(&front.address(), right(), &layer).expect("fetch with two tokens");
    assert_eq!(auth.seen().len(), 2);
}

#[test]
fn token_servers_that_answer_rubbish() {
    let check = |status, body: &'static str, kind, text: &str| {
        let auth = Server::start(move |_| Answer::new(status, body));
        let challenge = format!("Bearer realm=\"http://{}/token\"", auth.address());
        let front = Server::start(move |_| Answer::new(401, "").header("WWW-Authenticate", &challenge));
        refused(resolve_from(&front.address()), kind, &[text]);
    };
    check(200, "<html>Welcome</html>", Kind::Protocol, "/lab/x from http://127.0.0.1:");
    check(200, "<html>Welcome</html>", Kind::Protocol, "answer not understood: no token in JSON");
    check(200, "{}", Kind::Protocol, "it holds neither token nor access_token");
    check(200, "{\"token\":\"a\\nb\"}", Kind::Protocol, "the token has characters that no header can hold");
    check(404, "", Kind::Protocol, "unexpected status 404");
    check(403, "no", Kind::Forbidden, "access denied: no");
    let front = Server::start(move |_| Answer::new(401, "").header("WWW-Authenticate", "Bearer realm=\"ftp://x/\""));
    refused(resolve_from(&front.address()), Kind::Protocol, &["token realm \"ftp://x/\": not an HTTP URL"]);
    let front = Server::start(move |_| Answer::new(401, "go away"));
    refused(resolve_from(&front.address()), Kind::Unauthorized, &["authentication required: go away"]);
}

#[test]
fn documents_that_are_too_deep() {
    let deep = |depth: usize| format!("{{\"schemaVersion\":2,\"x\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
    let check = |document: String, kind, text: &str| {
        let server = serving(document.into_bytes(), "application/vnd.oci.image.manifest.v1+json");
        refused(resolve_from(&server.address()), kind, &["reading manifest ", text]);
    };
    check(deep(32), Kind::Limit, "depth of the JSON is 33, at most 32 allowed");
    check(deep(1_000_000), Kind::Limit, "depth of the JSON is 33, at most 32 allowed");
    check(deep(31), Kind::Protocol, "neither an index nor an image manifest");
}
