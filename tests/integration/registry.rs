//! The registry client against Debian's docker-registry: what it serves, what it refuses, and what is broken on its disk.

mod busy;
mod certificates;
mod credentials;
mod faults;
mod foreign;
mod login;
mod mirrors;
mod proxy;
mod signed;
pub(crate) mod wire;

use serde_json::json;
use siforge_oci::{Client, Credentials, Download, Error, Kind, Platform, Resolved, Tls};
use siforge_reference::{Digest, ImageRef};
use siforge_tests::image::{gzip, sha256};
use siforge_tests::registry::{Auth, Options, PASSWORD, USER, basic};
use siforge_tests::{Compression, Image, Registry, Tar, need, push_index, run};
use std::future::Future;
use std::io::Read;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, LazyLock};
use tokio::runtime::Runtime;

fn block_on<T>(future: impl Future<Output = T>) -> T {
    static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("tokio"));
    RUNTIME.block_on(future)
}

fn amd64() -> Platform {
    Platform::new("linux", "amd64", None)
}

fn plain_http() -> Tls {
    Tls { plain_http: true, ..Tls::default() }
}

/// How a client is to reach a harness registry.
fn tls(registry: &Registry) -> Tls {
    let ca_bundle = registry.ca_cert().map(|path| std::fs::read(path).expect("CA"));
    Tls { plain_http: ca_bundle.is_none(), ca_bundle, ..Tls::default() }
}

fn reference(address: &str, name: &str) -> ImageRef {
    format!("{address}/{name}").parse().expect(name)
}

fn resolve(registry: &Registry, name: &str, credentials: Option<Credentials>, tls: Tls) -> Result<Resolved, Error> {
    let client = Client::new(&registry.address(), credentials, tls)?;
    block_on(client.resolve(&reference(&registry.address(), name), &amd64()))
}

/// Fetches one layer while a plain thread reads it; gives what the thread read.
fn fetch(client: &Client, resolved: &Resolved, layer: usize) -> Result<Vec<u8>, Error> {
    let layer = &resolved.layers[layer];
    let download = Download::new(tempfile::tempfile().expect("file"), layer.size);
    let mut reader = download.reader();
    let thread = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).map(|_| bytes)
    });
    let result = block_on(client.fetch(&resolved.reference, layer, Arc::clone(&download)));
    let read = thread.join().expect("reader");
    match result {
        Ok(()) => {
            assert_eq!((download.written(), download.is_complete()), (layer.size, true));
            Ok(read.expect("a reader reads what was fetched"))
        }
        Err(error) => {
            let seen = read.expect_err("a reader sees the failure");
            let seen = seen.downcast::<Error>().expect("an oci::Error");
            assert_eq!(seen.to_string(), error.to_string());
            Err(error)
        }
    }
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, Error>, kind: Kind, texts: &[&str]) -> Error {
    let error = result.expect_err("refused");
    assert_eq!(error.kind(), kind, "{error}");
    for text in texts {
        assert!(error.to_string().contains(text), "{error}\nlacks {text:?}");
    }
    assert!(!format!("{error} {error:?}").contains(PASSWORD), "{error:?}");
    error
}

/// Bytes that do not compress.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(&mut next).flatten().take(length).collect()
}

fn tar(name: &str, contents: impl AsRef<[u8]>) -> Vec<u8> {
    Tar::new().file(name, 0o644, contents).finish()
}

fn hello() -> Image {
    Image::new().layer(tar("hello", "hello"), Compression::Gzip).config("Cmd", json!(["/hello"]))
}

/// Pushes blob by blob as they are; skopeo otherwise compresses plain layers on their way to a registry.
fn push_exactly(registry: &Registry, name: &str, image: &Image) -> String {
    let dir = tempfile::tempdir().expect("folder");
    let digest = image.write_layout(dir.path());
    let mut skopeo = Command::new(need::program("skopeo"));
    skopeo.args(["--insecure-policy", "copy", "-q", "--preserve-digests", "--dest-tls-verify=false"]);
    skopeo.arg(format!("oci:{}:image", dir.path().display()));
    run(skopeo.arg(registry.reference(name))).ok();
    digest
}

#[test]
fn an_image_of_every_compression_is_resolved_and_fetched() {
    let registry = Registry::plain();
    let tars = [tar("a", "one"), tar("b", noise(700_000)), tar("c", "three")];
    let how = [Compression::Plain, Compression::Gzip, Compression::Zstd];
    let mut image = Image::new();
    for (tar, how) in tars.iter().zip(how) {
        image = image.layer(tar.clone(), how);
    }
    let digest = push_exactly(&registry, "lab/all:v1", &image);

    let client = Client::new(&registry.address(), None, plain_http()).expect("client");
    let tagged = reference(&registry.address(), "lab/all:v1");
    let resolved = block_on(client.resolve(&tagged, &amd64())).expect("resolve");
    assert_eq!(resolved.reference, tagged);
    assert_eq!(resolved.manifest_digest.to_string(), digest);
    assert_eq!(resolved.platform, amd64());
    assert_eq!(sha256(&resolved.config), resolved.config_digest.to_string());

    use siforge_oci::Compression as Got;
    let compressions: Vec<_> = resolved.layers.iter().map(|layer| layer.compression).collect();
    assert_eq!(compressions, [Got::None, Got::Gzip, Got::Zstd]);
    for (at, tar) in tars.iter().enumerate() {
        assert_eq!(resolved.layers[at].diff_id.to_string(), sha256(tar));
        let blob = fetch(&client, &resolved, at).expect("fetch");
        assert_eq!(sha256(&blob), resolved.layers[at].digest.to_string());
        match resolved.layers[at].compression {
            Got::None => assert_eq!(&blob, tar),
            Got::Gzip => assert_eq!(blob, gzip(tar)),
            Got::Zstd => assert_eq!(zstd::decode_all(&blob[..]).expect("zstd"), *tar),
        }
    }

    let by_digest = tagged.with_digest(digest.parse().expect("digest"));
    let again = block_on(client.resolve(&by_digest, &amd64())).expect("by digest");
    assert_eq!(again.layers, resolved.layers);
    let other: ImageRef = "docker.io/library/x".parse().expect("reference");
    refused(block_on(client.resolve(&other, &amd64())), Kind::Setup, &["not for docker.io"]);
}

#[test]
fn docker_schema_2_is_read_as_oci_is() {
    let registry = Registry::plain();
    registry.push("lab/docker", &hello().docker_schema2());
    let resolved = resolve(&registry, "lab/docker", None, plain_http()).expect("resolve");
    assert_eq!(resolved.layers.len(), 1);
    assert_eq!(resolved.layers[0].compression, siforge_oci::Compression::Gzip);
    assert_eq!(resolved.layers[0].diff_id.to_string(), sha256(&tar("hello", "hello")));
}

#[test]
fn an_index_gives_the_platforms_image() {
    let registry = Registry::plain();
    let image = |architecture: &str| {
        Image::new().layer(tar("arch", architecture), Compression::Gzip).architecture(architecture)
    };
    let index = push_index(&registry, "lab/multi:v1", &[image("amd64"), image("arm64")]);
    let client = Client::new(&registry.address(), None, plain_http()).expect("client");
    let tagged = reference(&registry.address(), "lab/multi:v1");
    for architecture in ["amd64", "arm64"] {
        let wanted = Platform::new("linux", architecture, None);
        let resolved = block_on(client.resolve(&tagged, &wanted)).expect("resolve");
        assert_eq!(resolved.platform, wanted);
        assert_ne!(resolved.manifest_digest.to_string(), index);
        assert_eq!(resolved.layers[0].diff_id.to_string(), sha256(&tar("arch", architecture)));
        let by_digest = tagged.with_digest(index.parse().expect("digest"));
        let again = block_on(client.resolve(&by_digest, &wanted)).expect("by the index's digest");
        assert_eq!(again.manifest_digest, resolved.manifest_digest);
    }
    let s390x = Platform::new("linux", "s390x", None);
    let texts = ["reading manifest v1 in ", "no image for platform linux/s390x; there are: linux/amd64, linux/arm64"];
    refused(block_on(client.resolve(&tagged, &s390x)), Kind::UnknownPlatform, &texts);

    // A single image of another platform is no better than an index without ours.
    registry.push("lab/single", &image("arm64"));
    let texts = ["no image for platform linux/amd64; there are: linux/arm64"];
    refused(resolve(&registry, "lab/single", None, plain_http()), Kind::UnknownPlatform, &texts);
}

#[test]
fn what_is_not_there_is_named() {
    let mut registry = Registry::plain();
    registry.push("lab/hello:v1", &hello());
    let at = registry.address();
    let check = |name: &str, texts: &[&str]| {
        refused(resolve(&registry, name, None, plain_http()), Kind::NotFound, texts);
    };
    let tag = format!("reading manifest nosuch in {at}/lab/hello: manifest unknown: no such tag; there are: v1");
    check("lab/hello:nosuch", &[&tag]);
    let repository = format!("reading manifest latest in {at}/lab/nosuch: manifest unknown: repository name not known");
    check("lab/nosuch", &[&repository]);
    let absent = format!("lab/hello@{}", sha256(b"absent"));
    check(&absent, &["reading manifest sha256:", "manifest unknown"]);

    registry.stop();
    let ping =
        format!("pinging container registry {at}: Get \"http://{at}/v2/\": dial tcp {at}: connect: connection refused");
    refused(resolve(&registry, "lab/hello:v1", None, plain_http()), Kind::Unreachable, &[&ping]);
    let nowhere = Client::new("registry.invalid", None, Tls::default()).expect("client");
    let image = "registry.invalid/x".parse().expect("reference");
    let texts = ["pinging container registry registry.invalid", "dial tcp registry.invalid:443: "];
    refused(block_on(nowhere.resolve(&image, &amd64())), Kind::Unreachable, &texts);
}

#[test]
fn certificates() {
    let registry = Registry::start(Options { tls: true, auth: Auth::None });
    let other = Registry::start(Options { tls: true, auth: Auth::None });
    registry.push("hello:v1", &hello());
    let with = |tls: Tls| resolve(&registry, "hello:v1", None, tls);

    let resolved = with(tls(&registry)).expect("its own CA");
    let client = Client::new(&registry.address(), None, tls(&registry)).expect("client");
    fetch(&client, &resolved, 0).expect("fetch");
    with(Tls { insecure_skip_verify: true, ..Tls::default() }).expect("any certificate");

    let texts = ["pinging container registry", "certificate not accepted: x509: ", "CA certificate"];
    refused(with(Tls::default()), Kind::Certificate, &texts);
    refused(with(tls(&other)), Kind::Certificate, &texts);
    refused(with(plain_http()), Kind::Protocol, &["Client sent an HTTP request to an HTTPS server"]);
    let plain = Registry::plain();
    let texts = ["server gave HTTP response to HTTPS client; allow plain HTTP"];
    refused(resolve(&plain, "hello:v1", None, Tls::default()), Kind::Certificate, &texts);
}

fn right() -> Option<Credentials> {
    Some(Credentials::new(USER, PASSWORD))
}

fn wrong() -> Option<Credentials> {
    Some(Credentials::new(USER, format!("not-{PASSWORD}")))
}

#[test]
fn basic_authentication() {
    for tls_is_on in [false, true] {
        let registry = Registry::start(Options { tls: tls_is_on, auth: Auth::Htpasswd });
        registry.push("lab/hello:v1", &hello());
        let with = |credentials| resolve(&registry, "lab/hello:v1", credentials, tls(&registry));
        let resolved = with(right()).expect("resolve");
        let client = Client::new(&registry.address(), right(), tls(&registry)).expect("client");
        fetch(&client, &resolved, 0).expect("fetch");
        let texts = ["reading manifest v1 in ", "/lab/hello: authentication required: "];
        refused(with(None), Kind::Unauthorized, &[&texts[..], &["no credentials for "]].concat());
        refused(with(wrong()), Kind::Unauthorized, &[&texts[..], &["user \"ci\""]].concat());
    }
}

#[test]
fn token_authentication() {
    for tls_is_on in [false, true] {
        let registry = Registry::start(Options { tls: tls_is_on, auth: Auth::Token });
        registry.push("public/hello:v1", &hello());
        registry.push("private/hello:v1", &hello());
        let with = |name, credentials| resolve(&registry, name, credentials, tls(&registry));
        let client = Client::new(&registry.address(), right(), tls(&registry)).expect("client");
        for (name, credentials) in
            [("public/hello:v1", None), ("public/hello:v1", right()), ("private/hello:v1", right())]
        {
            let resolved = with(name, credentials).unwrap_or_else(|error| panic!("{name}: {error}"));
            fetch(&client, &resolved, 0).expect("fetch");
        }
        // One client serves several repositories, each with a token of its own; nothing secret is printed.
        let printed = format!("{client:?}");
        assert!(printed.contains("\"private/hello\"") && printed.contains("***"), "{printed}");
        assert!(!printed.contains(PASSWORD) && !printed.contains("eyJ"), "{printed}");

        let texts = ["reading manifest v1 in ", "/private/hello: authentication required: ", "no credentials"];
        refused(with("private/hello:v1", None), Kind::Unauthorized, &texts);
        let texts = ["getting a token for ", "/private/hello from http", "did not accept the password of user \"ci\""];
        refused(with("private/hello:v1", wrong()), Kind::Unauthorized, &texts);
    }
}

/// Writes other bytes where the registry keeps a blob.
fn damage(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).expect("read the blob");
    change(&mut bytes);
    std::fs::write(path, bytes).expect("write the blob");
}

#[test]
fn damage_on_the_registrys_disk_is_found() {
    let mut registry = Registry::plain();
    let image = Image::new().layer(tar("noise", noise(600_000)), Compression::Gzip);
    registry.push("lab/hello:v1", &image);
    let client = Client::new(&registry.address(), None, plain_http()).expect("client");
    let tagged = reference(&registry.address(), "lab/hello:v1");
    let resolved = block_on(client.resolve(&tagged, &amd64())).expect("resolve");
    let layer = &resolved.layers[0];
    let blob = registry.blob_path(&layer.digest.to_string());
    let whole = std::fs::read(&blob).expect("read the blob");
    let reading = format!("reading blob {} of {}/lab/hello: ", layer.digest, registry.address());

    damage(&blob, |bytes| bytes[300_000] ^= 1);
    let checksum =
        format!("{reading}error verifying sha256 checksum after reading {} bytes; got \"sha256:", layer.size);
    let want = format!("want \"{}\"", layer.digest);
    refused(fetch(&client, &resolved, 0), Kind::Integrity, &[&checksum, &want]);

    damage(&blob, |bytes| bytes.truncate(400_000));
    // The registry remembers sizes; after a restart it looks again.
    registry.restart();
    let size = format!("{reading}error verifying size; got 400000, want {}", layer.size);
    refused(fetch(&client, &resolved, 0), Kind::Integrity, &[&size]);

    std::fs::write(&blob, whole).expect("mend the blob");
    registry.restart();
    fetch(&client, &resolved, 0).expect("mended");

    damage(&registry.blob_path(&resolved.config_digest.to_string()), |bytes| bytes[5] ^= 1);
    let texts = ["reading config sha256:", "error verifying sha256 checksum"];
    refused(resolve(&registry, "lab/hello:v1", None, plain_http()), Kind::Integrity, &texts);
    std::fs::remove_file(&blob).expect("lose the blob");
    registry.restart();
    let unknown = format!("{reading}blob unknown to registry");
    refused(fetch(&client, &resolved, 0), Kind::NotFound, &[&unknown]);
}

/// The valid digest that no test's bytes have.
fn absent() -> Digest {
    Digest::from_bytes([7; 32])
}
