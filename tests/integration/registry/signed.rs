//! `--verify-key` against signatures by the real cosign, and against those that the suite makes to the same formats; what
//! the real cosign says of each is the judge.

use super::credentials::{Person, pull as pull_with_credentials};
use super::*;
use serde_json::Value;
use siforge_tests::cosign::{self, KeyPair, Layer, Layout, Signer, payload, statement};
use siforge_tests::{Finished, Siforge};

const SIGN: &str = "https://sigstore.dev/cosign/sign/v1";
const IN_TOTO: &str = "application/vnd.in-toto+json";

fn pull(siforge: &Siforge, registry: &Registry, name: &str, keys: &[&KeyPair]) -> Finished {
    let mut command = siforge.command();
    command.args(["pull", "--force", "--no-https"]);
    for key in keys {
        command.arg("--verify-key").arg(&key.public);
    }
    run(command.arg("x.sif").arg(registry.reference(name)))
}

/// A failure that names all of `texts`, after which there is neither a SIF nor a layer.
#[track_caller]
fn nothing(siforge: &Siforge, ran: Finished, texts: &[&str]) {
    let ran = ran.fails_with(255);
    for text in texts {
        assert!(ran.stderr.contains(text), "{text}: {ran}");
    }
    let files: Vec<_> = siforge.files().into_iter().filter(|name| !name.contains("/turns/")).collect();
    assert_eq!(files, Vec::<String>::new(), "{ran}");
}

/// The digest of the one layer of [`hello`].
fn layer() -> String {
    sha256(&gzip(&tar("hello", "hello")))
}

#[test]
fn what_cosign_signs_is_verified_in_both_layouts_with_every_key() {
    let signer = Signer::new();
    let algorithms = ["EC:P-256", "EC:P-384", "RSA:2048", "ED25519"];
    let pairs: Vec<_> =
        algorithms.iter().map(|algorithm| signer.pair(&algorithm.replace(':', ""), algorithm)).collect();
    let stranger = signer.pair("stranger", "EC:P-256");
    for registry in [Registry::plain(), Registry::with_referrers()] {
        for layout in [Layout::Simple, Layout::Bundle] {
            for (pair, algorithm) in pairs.iter().zip(algorithms) {
                let name = format!("lab/{}-{layout:?}:v1", algorithm.replace(':', "")).to_lowercase();
                let digest = registry.push(&name, &hello());
                let (none, siforge) = (Siforge::root(), Siforge::root());
                let ran = pull(&none, &registry, &name, &[pair]);
                nothing(&none, ran, &[&digest, &name, "found: none at all"]);
                signer.sign(&registry, &name, pair, layout, &[]);
                let ran = pull(&siforge, &registry, &name, &[&stranger, pair]).ok();
                let says = format!("{digest} is signed by the key {}", pair.public.display());
                assert!(ran.stderr.contains(&says), "{says}: {ran}");
                let ran = pull(&none, &registry, &name, &[&stranger]);
                nothing(&none, ran, &["made by another key", &digest, "stranger.pub"]);
                // cosign 3.1 cannot verify its own signatures by Ed25519, and must be told how it hashes for P-384.
                let hash: &[&str] = match algorithm {
                    "ED25519" => continue,
                    "EC:P-384" => &["--signature-digest-algorithm=sha384"],
                    _ => &[],
                };
                signer.verify(&registry, &name, pair, layout, hash).ok();
            }
        }
    }
}

#[test]
fn of_an_index_or_of_the_platforms_manifest() {
    let (signer, registry) = (Signer::new(), Registry::plain());
    let pair = signer.pair("k", "EC:P-256");
    let other = Image::new().layer(tar("hello", "arm"), Compression::Gzip).architecture("arm64");
    for layout in [Layout::Simple, Layout::Bundle] {
        let name = |what: &str| format!("lab/{what}-{layout:?}").to_lowercase();
        let both = [hello(), other.clone()];
        let check = |what: &str, signed: &str, asked: &str, counts: bool| {
            let name = name(what);
            let index = push_index(&registry, &format!("{name}:v1"), &both);
            let manifest = |at: usize| {
                let index: Value = serde_json::from_slice(&cosign::manifest(&registry, &name, &index)).expect("index");
                index["manifests"][at]["digest"].as_str().expect("digest").to_owned()
            };
            let selector = |which: &str| match which {
                "tag" => ":v1".to_owned(),
                "index" => format!("@{index}"),
                "ours" => format!("@{}", manifest(0)),
                "theirs" => format!("@{}", manifest(1)),
                other => panic!("{other}"),
            };
            let more: &[&str] = if what.starts_with("recursive") { &["--recursive"] } else { &[] };
            signer.sign(&registry, &format!("{name}{}", selector(signed)), &pair, layout, more);
            let siforge = Siforge::root();
            let ran = pull(&siforge, &registry, &format!("{name}{}", selector(asked)), &[&pair]);
            match counts {
                true => drop(ran.ok()),
                false => nothing(&siforge, ran, &["found: none at all", &manifest(0)]),
            }
        };
        check("a", "tag", "tag", true);
        check("b", "index", "tag", true);
        check("c", "ours", "tag", true);
        check("d", "theirs", "tag", false);
        // By its digest the manifest is all there is.
        check("e", "index", "ours", false);
        check("f", "ours", "ours", true);
        check("recursive", "tag", "ours", true);
    }
}

/// A manifest in a repository of its own, and who may sign.
struct Case<'a> {
    signer: &'a Signer,
    registry: &'a Registry,
    repository: String,
    digest: String,
    good: &'a KeyPair,
    bad: &'a KeyPair,
}

impl Case<'_> {
    fn payload(&self) -> Value {
        payload(&format!("{}/{}", self.registry.address(), self.repository), &self.digest)
    }

    fn simple(&self, layers: &[Layer]) {
        cosign::attach_tag(self.registry, &self.repository, &self.digest, layers);
    }

    fn bundles(&self, layers: &[Layer]) -> Vec<String> {
        cosign::attach_referrers(self.registry, &self.repository, &self.digest, layers)
    }

    fn signed(&self, payload: &Value) -> Layer {
        self.signer.simple(self.good, payload.to_string().as_bytes())
    }

    fn stated(&self, by: &KeyPair, statement: &Value) -> Layer {
        self.signer.dsse(by, IN_TOTO, statement.to_string().as_bytes())
    }

    fn own_statement(&self) -> Value {
        statement(&self.digest, SIGN)
    }
}

enum Expect {
    /// By cosign too.
    Counts,
    Refused(&'static str),
    /// We and cosign differ; docs/signing.md says why.
    CountsHereOnly,
    RefusedHereOnly(&'static str),
}

/// Cases of one layout, each in a repository of its own.
struct Table {
    signer: Signer,
    registry: Registry,
    good: KeyPair,
    bad: KeyPair,
    layout: Layout,
}

impl Table {
    fn of(layout: Layout) -> Self {
        let signer = Signer::new();
        let (good, bad) = (signer.pair("good", "EC:P-256"), signer.pair("bad", "RSA:2048"));
        Self { signer, registry: Registry::plain(), good, bad, layout }
    }

    /// Makes what `attach` says, and compares verdicts.
    fn check(&self, name: &str, attach: &dyn Fn(&Case<'_>), expect: &Expect) {
        let Self { signer, registry, good, bad, layout } = self;
        let repository = format!("lab/{}", name.replace(' ', "-"));
        let tag = format!("{repository}:v1");
        let digest = registry.push(&tag, &hello());
        let case = Case { signer, registry, repository: repository.clone(), digest, good, bad };
        attach(&case);
        let siforge = Siforge::root();
        let ran = pull(&siforge, registry, &tag, &[good]);
        match expect {
            Expect::Counts | Expect::CountsHereOnly => drop(ran.ok()),
            Expect::Refused(text) | Expect::RefusedHereOnly(text) => {
                nothing(&siforge, ran, &[text, &case.digest, &repository]);
                // Before any layer is fetched.
                assert_eq!(registry.requests("GET", &format!("/v2/{repository}/blobs/{}", layer())), 0, "{name}");
            }
        }
        let judge = signer.verify(registry, &tag, good, *layout, &[]);
        let counts = matches!(expect, Expect::Counts | Expect::RefusedHereOnly(_));
        assert_eq!(judge.success(), counts, "{name}: cosign's verdict: {judge}");
    }
}

const OTHER: &str = "sha256:00000000000000000000000000000000000000000000000000000000000000ff";

#[test]
fn simple_signing_that_counts_and_that_does_not() {
    let table = Table::of(Layout::Simple);
    let check = |name: &str, attach: &dyn Fn(&Case<'_>), expect: Expect| table.check(name, attach, &expect);
    check("signed", &|case| case.simple(&[case.signed(&case.payload())]), Expect::Counts);
    check("unsigned", &|_| (), Expect::Refused("found: none at all"));
    check("no layers", &|case| case.simple(&[]), Expect::Refused("found: none at all"));
    check(
        "wrong key",
        &|case| case.simple(&[case.signer.simple(case.bad, case.payload().to_string().as_bytes())]),
        Expect::Refused("made by another key"),
    );
    check(
        "one of two",
        &|case| {
            case.simple(&[
                case.signer.simple(case.bad, case.payload().to_string().as_bytes()),
                case.signed(&case.payload()),
            ]);
        },
        Expect::Counts,
    );
    check(
        "other digest",
        &|case| case.simple(&[case.signed(&payload("x", OTHER))]),
        Expect::Refused("a valid signature, but of sha256:00000000"),
    );
    // As cosign: a copy of an image with its signatures stays signed.
    check(
        "other name",
        &|case| case.simple(&[case.signed(&payload("elsewhere.invalid/x", &case.digest))]),
        Expect::Counts,
    );
    check(
        "tampered",
        &|case| {
            let mut layer = case.signed(&payload("x", OTHER));
            layer.bytes = payload("x", &case.digest).to_string().into_bytes();
            case.simple(&[layer]);
        },
        Expect::Refused("made by another key"),
    );
    check(
        "truncated",
        &|case| {
            let mut layer = case.signed(&case.payload());
            layer.bytes.truncate(40);
            case.simple(&[layer]);
        },
        Expect::Refused("made by another key"),
    );
}

#[test]
fn simple_signing_that_is_broken() {
    let table = Table::of(Layout::Simple);
    let check = |name: &str, attach: &dyn Fn(&Case<'_>), expect: Expect| table.check(name, attach, &expect);
    check(
        "no annotation",
        &|case| case.simple(&[Layer { annotations: json!({}), ..case.signed(&case.payload()) }]),
        Expect::Refused("no annotation"),
    );
    check(
        "other type",
        &|case| {
            let mut payload = case.payload();
            payload["critical"]["type"] = json!("atomic container signature");
            case.simple(&[case.signed(&payload)]);
        },
        Expect::RefusedHereOnly("not a signature of an image"),
    );
    check(
        "too deep",
        &|case| {
            let deep = format!("{}{}", "[".repeat(40), "]".repeat(40));
            case.simple(&[case.signer.simple(case.good, deep.as_bytes())]);
        },
        Expect::Refused("the depth of the JSON is 33, at most 32"),
    );
    check(
        "huge",
        &|case| {
            let mut payload = case.payload();
            payload["optional"] = json!({ "by": "x".repeat(2 << 20) });
            case.simple(&[case.signed(&payload)]);
        },
        Expect::RefusedHereOnly("at most 1048576 allowed"),
    );
    check(
        "cut off in the registry",
        &|case| {
            let layer = case.signed(&case.payload());
            case.simple(std::slice::from_ref(&layer));
            std::fs::write(case.registry.blob_path(&sha256(&layer.bytes)), &layer.bytes[..9]).expect("cut off");
        },
        Expect::Refused("error verifying sha256 checksum"),
    );
}

#[test]
fn bundles_that_count_and_that_do_not() {
    let table = Table::of(Layout::Bundle);
    let check = |name: &str, attach: &dyn Fn(&Case<'_>), expect: Expect| table.check(name, attach, &expect);
    let bundles = |case: &Case<'_>, layers: &[Layer]| drop(case.bundles(layers));
    check("bundle", &|case| bundles(case, &[case.stated(case.good, &case.own_statement())]), Expect::Counts);
    check(
        "bundle by another",
        &|case| bundles(case, &[case.stated(case.bad, &case.own_statement())]),
        Expect::Refused("made by another key"),
    );
    check(
        "second bundle",
        &|case| {
            bundles(
                case,
                &[case.stated(case.bad, &case.own_statement()), case.stated(case.good, &case.own_statement())],
            );
        },
        Expect::Counts,
    );
    check(
        "bundle of another digest",
        &|case| bundles(case, &[case.stated(case.good, &statement(OTHER, SIGN))]),
        Expect::Refused("a valid signature, but of sha256:00000000"),
    );
    check(
        "attestation",
        &|case| bundles(case, &[case.stated(case.good, &statement(&case.digest, "https://spdx.dev/Document"))]),
        Expect::RefusedHereOnly("an attestation (https://spdx.dev/Document)"),
    );
    check(
        "payload type",
        &|case| {
            bundles(case, &[case.signer.dsse(case.good, "text/plain", case.own_statement().to_string().as_bytes())]);
        },
        Expect::Refused("a payload of type \"text/plain\""),
    );
}

#[test]
fn messages_and_broken_bundles() {
    let table = Table::of(Layout::Bundle);
    let check = |name: &str, attach: &dyn Fn(&Case<'_>), expect: Expect| table.check(name, attach, &expect);
    let bundles = |case: &Case<'_>, layers: &[Layer]| drop(case.bundles(layers));
    check(
        "message",
        &|case| {
            let manifest = cosign::manifest(case.registry, &case.repository, &case.digest);
            bundles(case, &[case.signer.message(case.good, &manifest)]);
        },
        Expect::CountsHereOnly,
    );
    check(
        "message of another",
        &|case| bundles(case, &[case.signer.message(case.good, b"{}")]),
        Expect::Refused("it says that it is of sha256:"),
    );
    check(
        "rubbish",
        &|case| bundles(case, &[Layer { bytes: b"\0\0".to_vec(), ..case.stated(case.good, &case.own_statement()) }]),
        Expect::Refused("bundle not understood"),
    );
    check(
        "bundle too deep",
        &|case| {
            let bytes = format!("{}{}", "{\"a\":".repeat(100), "}".repeat(100)).into_bytes();
            bundles(case, &[Layer { bytes, ..case.stated(case.good, &case.own_statement()) }]);
        },
        Expect::Refused("the depth of the JSON"),
    );
    check(
        "huge and good",
        &|case| {
            let good = case.stated(case.good, &case.own_statement());
            bundles(case, &[Layer { bytes: vec![b' '; 2 << 20], ..good.clone() }, good]);
        },
        Expect::Counts,
    );
    check(
        "dangling",
        &|case| {
            let artifacts = case.bundles(&[case.stated(case.good, &case.own_statement())]);
            std::fs::remove_file(case.registry.blob_path(&artifacts[0])).expect("remove the artifact");
        },
        Expect::Refused("manifest unknown"),
    );
}

#[test]
fn too_many_are_refused() {
    let (signer, registry) = (Signer::new(), Registry::plain());
    let pair = signer.pair("k", "EC:P-256");
    let digest = registry.push("lab/many:v1", &hello());
    let layer = signer.simple(&pair, payload("x", &digest).to_string().as_bytes());
    // The same blob, named 300 times.
    cosign::attach_tag(&registry, "lab/many", &digest, &vec![layer; 300]);
    let siforge = Siforge::root();
    nothing(
        &siforge,
        pull(&siforge, &registry, "lab/many:v1", &[&pair]),
        &["number of things attached to it is 300, at most 256"],
    );
}

#[test]
fn a_cached_image_is_verified_too_and_other_sources_are_refused() {
    let (signer, registry, siforge) = (Signer::new(), Registry::plain(), Siforge::root());
    let (pair, stranger) = (signer.pair("k", "EC:P-256"), signer.pair("stranger", "EC:P-256"));
    let busybox = std::fs::read(need::program("busybox")).expect("busybox");
    let image = Image::new().layer(Tar::new().file("busybox", 0o755, busybox).finish(), Compression::Gzip);
    registry.push("lab/run:v1", &image);
    let name = registry.reference("lab/run:v1");
    let exec = |key: &KeyPair, image: &str| {
        let mut command = siforge.command();
        command.args(["exec", "--no-https", "--verify-key"]).arg(&key.public);
        run(command.args([image, "/busybox", "echo", "ran"]))
    };
    // Unsigned, and in the cache.
    siforge.run(&["exec", "--no-https", &name, "/busybox", "true"]).ok();
    let refused = |ran: Finished, text: &str| {
        let ran = ran.fails_with(255);
        assert!(ran.stderr.contains(text) && ran.stdout.is_empty(), "{text}: {ran}");
    };
    refused(exec(&pair, &name), "found: none at all");
    signer.sign(&registry, "lab/run:v1", &pair, Layout::Simple, &[]);
    assert_eq!(exec(&pair, &name).ok().stdout, "ran\n");
    refused(exec(&stranger, &name), "made by another key");

    siforge.pull(&registry, "lab/run:v1", "run.sif");
    let cannot = "--verify-key is for images of registries";
    refused(exec(&pair, "run.sif"), cannot);
    refused(exec(&pair, "."), cannot);
    refused(exec(&pair, "lab/run"), cannot);
    refused(exec(&pair, "https://u:pw@host.invalid/x.sif"), "https://");
    let mut build = siforge.command();
    build.args(["build", "--no-https", "--verify-key"]).arg(&pair.public);
    refused(run(build.args(["y.sif", "run.sif"])), cannot);
    let mut build = siforge.command();
    build.args(["build", "--no-https", "--verify-key"]).arg(&stranger.public).args(["y.sif", &name]);
    refused(run(&mut build), "made by another key");
    let mut push = siforge.command();
    let oras = format!("oras://{}/lab/sif:v1", registry.address());
    push.args(["push", "--no-https", "--verify-key"]).arg(&pair.public).args(["run.sif", &oras]);
    refused(run(&mut push), "--verify-key is for what is pulled");
    // A SIF in a registry is signed as any artifact.
    siforge.run(&["push", "--no-https", "run.sif", &oras]).ok();
    refused(exec(&pair, &oras), "found: none at all");
    signer.sign(&registry, "lab/sif:v1", &pair, Layout::Bundle, &[]);
    assert_eq!(exec(&pair, &oras).ok().stdout, "ran\n");

    let key = |text: &str, expect: &str| {
        let path = siforge.dir().join("key.pem");
        std::fs::write(&path, text).expect("write");
        let mut broken = pair.clone();
        broken.public = path;
        refused(exec(&broken, &name), expect);
    };
    key("", "no public key in PEM");
    key(&"x".repeat(65 << 10), "more than 65536 bytes");
    key(
        "-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\nAA==\n-----END ENCRYPTED SIGSTORE PRIVATE KEY-----\n",
        "it is a private key",
    );
}

#[test]
fn credentials_and_mirrors_are_the_images() {
    let signer = Signer::new();
    let pair = signer.pair("k", "EC:P-256");
    let open = Registry::plain();
    let digest = open.push("lab/x:v1", &hello());
    for layout in [Layout::Simple, Layout::Bundle] {
        signer.sign(&open, &format!("lab/x@{digest}"), &pair, layout, &[]);
    }
    for (auth, end) in [(Auth::Htpasswd, ".sig"), (Auth::Htpasswd, ""), (Auth::Token, ".sig"), (Auth::Token, "")] {
        let registry = Registry::start(Options { tls: true, auth });
        registry.push("private/x:v1", &hello());
        // A copy of the signatures, too: the real cosign does not talk to a token server on 127.0.0.1.
        let tag = format!("sha256-{}{end}", &digest[7..]);
        let mut skopeo = Command::new(need::program("skopeo"));
        skopeo.args(["--insecure-policy", "copy", "-q", "--all", "--format", "oci"]);
        skopeo.arg("--src-tls-verify=false").arg("--dest-creds").arg(format!("{USER}:{PASSWORD}"));
        skopeo.arg("--dest-cert-dir").arg(registry.ca_dir().expect("TLS"));
        run(skopeo.arg(open.reference(&format!("lab/x:{tag}"))).arg(registry.reference(&format!("private/x:{tag}"))))
            .ok();
        let person = Person::new();
        let ask = |known: bool| {
            pull_with_credentials(&person, &registry, "private/x:v1", |command| {
                command.arg("--verify-key").arg(&pair.public);
                if known {
                    command.env("APPTAINER_DOCKER_USERNAME", USER).env("APPTAINER_DOCKER_PASSWORD", PASSWORD);
                }
            })
        };
        ask(true).ok();
        assert!(ask(false).fails_with(255).stderr.contains("authentication required"), "{auth:?}");
    }
    // The mirror has the image, the registry its signature.
    let (mut origin, mirror) = (Registry::plain(), Registry::plain());
    origin.push("lab/hello:v1", &hello());
    mirror.push("lab/hello:v1", &hello());
    let person = Person::new();
    let conf = format!(
        "[[registry]]\nprefix = \"images.invalid\"\nlocation = \"{}\"\ninsecure = true\n[[registry.mirror]]\nlocation = \"{}\"\ninsecure = true\n",
        origin.address(),
        mirror.address()
    );
    person.file(".config/containers/registries.conf", &conf);
    let ask = || {
        let mut command = person.command();
        command.args(["pull", "--force", "--disable-cache", "--verify-key"]).arg(&pair.public);
        run(command.args(["x.sif", "docker://images.invalid/lab/hello:v1"]))
    };
    assert!(ask().fails_with(255).stderr.contains("found: none at all"));
    signer.sign(&origin, "lab/hello:v1", &pair, Layout::Bundle, &[]);
    ask().ok();
    assert_eq!(origin.requests("GET", &layer()), 0, "the layer comes from the mirror");
    signer.sign(&mirror, "lab/hello:v1", &pair, Layout::Simple, &[]);
    origin.stop();
    ask().ok();
}
