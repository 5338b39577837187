//! registries.conf: mirrors, other places, blocked ones and short names, as `siforge pull` follows them.

use super::credentials::{Person, auths};
use super::*;
use siforge_tests::Finished;

/// Pulls with a registries.conf of the user's; nothing on the command line says how a registry is reached.
fn pull(person: &Person, conf: &str, image: &str, with: impl FnOnce(&mut Command)) -> Finished {
    person.file(".config/containers/registries.conf", conf);
    let mut command = person.command();
    command.args(["pull", "--force", "--disable-cache"]);
    with(&mut command);
    run(command.arg("x.sif").arg(image))
}

/// A registry at `name`, which no resolver knows, is at `origin`; its mirrors come before.
fn conf(name: &str, origin: &Registry, mirrors: &[(&Registry, &str, &str)]) -> String {
    let mut text = format!("[[registry]]\nprefix = \"{name}\"\nlocation = \"{}\"\ninsecure = true\n", origin.address());
    for (mirror, path, more) in mirrors {
        let location = format!("{}{path}", mirror.address());
        text += &format!("[[registry.mirror]]\nlocation = \"{location}\"\ninsecure = true\n{more}\n");
    }
    text
}

fn manifests(registry: &Registry, name: &str) -> usize {
    registry.requests("GET", &format!("/v2/{name}/manifests/"))
}

#[test]
fn a_mirror_serves_the_same_bytes() {
    let (mut origin, mirror) = (Registry::plain(), Registry::plain());
    let digest = origin.push("lab/hello:v1", &hello());
    mirror.push("copies/lab/hello:v1", &hello());
    let person = Person::new();
    let bytes = || std::fs::read(person.siforge.out().join("x.sif")).expect("SIF");
    let image = "docker://images.invalid/lab/hello:v1";

    pull(&person, &conf("images.invalid", &origin, &[]), image, |_| ()).ok();
    let direct = bytes();
    let with_mirror = conf("images.invalid", &origin, &[(&mirror, "/copies", "")]);
    let before = manifests(&origin, "lab/hello");
    pull(&person, &with_mirror, image, |_| ()).ok();
    assert!(bytes() == direct, "the mirror's name is in the bytes");
    assert!(manifests(&mirror, "copies/lab/hello") > 0 && manifests(&origin, "lab/hello") == before);

    let by_digest = conf("images.invalid", &origin, &[(&mirror, "/copies", "pull-from-mirror = \"digest-only\"")]);
    let before = manifests(&mirror, "copies/lab/hello");
    pull(&person, &by_digest, image, |_| ()).ok();
    assert_eq!(manifests(&mirror, "copies/lab/hello"), before);
    origin.stop();
    pull(&person, &by_digest, &format!("docker://images.invalid/lab/hello@{digest}"), |_| ()).ok();
    pull(&person, &with_mirror, image, |_| ()).ok();
    assert!(bytes() == direct);

    let ran = pull(&person, &by_digest, image, |_| ()).fails_with(255);
    assert!(ran.stderr.contains("connection refused"), "{ran}");
    let nowhere = "docker://images.invalid/lab/nosuch:v1";
    let ran = pull(&person, &with_mirror, nowhere, |_| ()).fails_with(255);
    for text in ["connection refused", "before it failed: reading manifest v1 in 127.0.0.1:", "/copies/lab/nosuch"] {
        assert!(ran.stderr.contains(text), "{text}: {ran}");
    }
}

#[test]
fn a_mirror_that_fails_is_passed_over() {
    let (origin, mut mirror) = (Registry::plain(), Registry::plain());
    origin.push("lab/hello:v1", &hello());
    mirror.push("lab/hello:v1", &hello());
    let person = Person::new();
    let text = conf("images.invalid", &origin, &[(&mirror, "", "")]);
    let image = "docker://images.invalid/lab/hello:v1";
    // It has the manifest, but not the layer.
    let client = Client::new(&mirror.address(), None, plain_http()).expect("client");
    let resolved = block_on(client.resolve(&reference(&mirror.address(), "lab/hello:v1"), &amd64())).expect("resolve");
    std::fs::remove_file(mirror.blob_path(&resolved.layers[0].digest.to_string())).expect("lose the layer");
    mirror.restart();
    pull(&person, &text, image, |_| ()).ok();
    let layer = format!("/blobs/{}", resolved.layers[0].digest);
    assert!(mirror.requests_once("GET", &layer, 1) > 0 && origin.requests_once("GET", &layer, 1) > 0);
    // What there is for it is broken.
    let passed_over = |why: &str| {
        let ran = pull(&person, &text, image, |_| ()).ok();
        let warning = format!("warning: the mirror {}/lab/hello is passed over: ", mirror.address());
        assert!(ran.stderr.contains(&warning) && ran.stderr.contains(why), "{why}: {ran}");
    };
    let helpers = json!({ "credHelpers": { mirror.address(): "gone" } }).to_string();
    let config = person.file(".docker/config.json", &helpers);
    passed_over("docker-credential-gone, which ");
    std::fs::remove_file(config).expect("remove");
    person.file(&format!(".config/containers/certs.d/{}/client.key", mirror.address()), "key");
    passed_over("it needs client.cert beside it");
    mirror.stop();
    pull(&person, &text, image, |_| ()).ok();
}

/// Where an image is, for a client without a command line.
fn endpoint(registry: &Registry, tls: Tls) -> siforge_oci::Endpoint {
    let (registry, repository) = (registry.address(), "lab/hello".to_owned());
    siforge_oci::Endpoint { registry, repository, tls, ..Default::default() }
}

#[test]
fn a_mirror_that_cannot_be_asked_is_passed_over() {
    let (origin, mirror) = (Registry::plain(), Registry::start(Options { tls: true, auth: Auth::None }));
    origin.push("lab/hello:v1", &hello());
    let image: ImageRef = "images.invalid/lab/hello:v1".parse().expect("reference");
    // Whether it speaks TLS is asked at once, and its certificate is nobody's.
    let broken = siforge_oci::Endpoint { try_http: true, ..endpoint(&mirror, Tls::default()) };
    let connect = |endpoints| block_on(Client::connect(&image, endpoints));
    let client = connect(vec![broken.clone(), endpoint(&origin, plain_http())]).expect("connect");
    assert!(matches!(client.passed_over(), [Error::Certificate { .. }]), "{:?}", client.passed_over());
    block_on(client.resolve(&image, &amd64())).expect("resolve");
    refused(connect(vec![endpoint(&origin, plain_http()), broken]), Kind::Certificate, &["x509"]);
}

#[test]
fn what_a_registry_is_trusted_with_is_not_for_whom_it_points_at() {
    let registry = Registry::start(Options { tls: true, auth: Auth::Token });
    registry.push("lab/hello:v1", &hello());
    let image: ImageRef =
        registry.reference("lab/hello:v1").trim_start_matches("docker://").parse().expect("reference");
    let check = |tls: Tls, elsewhere: Tls, works: bool| {
        let endpoint = siforge_oci::Endpoint { elsewhere, credentials: right(), ..endpoint(&registry, tls) };
        let client = block_on(Client::connect(&image, vec![endpoint])).expect("connect");
        match block_on(client.resolve(&image, &amd64())) {
            Ok(_) => assert!(works),
            // Its token server is at another port.
            Err(error) => {
                assert!(!works, "{error}");
                refused::<()>(Err(error), Kind::Certificate, &["getting a token for ", "x509"]);
            }
        }
    };
    let any = Tls { insecure_skip_verify: true, ..Tls::default() };
    check(tls(&registry), tls(&registry), true);
    check(any.clone(), tls(&registry), true);
    check(any.clone(), any.clone(), true);
    check(any, Tls::default(), false);
    check(tls(&registry), Tls::default(), false);
}

#[test]
fn a_mirror_is_not_sent_what_was_typed_for_the_registry() {
    let origin = Registry::start(Options { tls: false, auth: Auth::Htpasswd });
    let mirror = Registry::start(Options { tls: false, auth: Auth::Htpasswd });
    origin.push("lab/hello:v1", &hello());
    mirror.push("lab/hello:v1", &hello());
    let text = conf("images.invalid", &origin, &[(&mirror, "", "")]);
    let text = text.replace("prefix = \"images.invalid\"", &format!("prefix = \"{}\"", origin.address()));
    let image = &origin.reference("lab/hello:v1");
    let person = Person::new();
    let given = |command: &mut Command| {
        command.env("APPTAINER_DOCKER_USERNAME", USER).env("APPTAINER_DOCKER_PASSWORD", PASSWORD);
    };
    pull(&person, &text, image, given).ok();
    assert_eq!(manifests(&mirror, "lab/hello"), 0, "{}", mirror.log());
    assert!(manifests(&origin, "lab/hello") > 0);
    // What a file has for the mirror is for the mirror.
    let before = manifests(&origin, "lab/hello");
    person.file(".docker/config.json", &auths(&mirror.address(), PASSWORD));
    pull(&person, &text, image, |_| ()).ok();
    assert!(manifests(&mirror, "lab/hello") > 0 && manifests(&origin, "lab/hello") == before);
}

#[test]
fn another_host_in_a_registrys_place_is_not_sent_what_was_typed() {
    let other = Registry::start(Options { tls: false, auth: Auth::Htpasswd });
    other.push("lab/hello:v1", &hello());
    let text = conf("images.invalid", &other, &[]);
    let image = "docker://images.invalid/lab/hello:v1";
    let person = Person::new();
    let given = |command: &mut Command| {
        command.env("APPTAINER_DOCKER_USERNAME", USER).env("APPTAINER_DOCKER_PASSWORD", PASSWORD);
    };
    let ran = pull(&person, &text, image, given).fails_with(255);
    assert!(ran.stderr.contains(&format!("no credentials for {} were given", other.address())), "{ran}");
    assert_eq!(manifests(&other, "lab/hello"), 0, "{}", other.log());
    person.file(".docker/config.json", &auths(&other.address(), PASSWORD));
    pull(&person, &text, image, given).ok();
}

#[test]
fn names_that_are_blocked_or_short() {
    let origin = Registry::plain();
    origin.push("lab/hello:v1", &hello());
    let person = Person::new();
    let blocked = "[[registry]]\nlocation = \"evil.invalid\"\nblocked = true\n";
    let ran = pull(&person, blocked, "docker://evil.invalid/x:v1", |_| ()).fails_with(255);
    assert!(ran.stderr.contains("pulling evil.invalid/x:v1: evil.invalid is blocked by "), "{ran}");
    let ran = pull(&person, "[[registry]\n", "docker://127.0.0.1:1/x", |_| ()).fails_with(255);
    assert!(ran.stderr.contains("registries.conf: line 1: "), "{ran}");

    let plain = format!("[[registry]]\nlocation = \"{}\"\ninsecure = true\n", origin.address());
    pull(&person, &plain, &origin.reference("lab/hello:v1"), |_| ()).ok();
    // Short names are not for docker://, which is the whole name.
    let short = format!("{plain}[aliases]\nhello = \"{}/lab/hello\"\n", origin.address());
    let hub = format!("{short}[[registry]]\nlocation = \"docker.io\"\nblocked = true\n");
    let ran = pull(&person, &hub, "docker://hello:v1", |_| ()).fails_with(255);
    assert!(ran.stderr.contains("docker.io is blocked by "), "{ran}");

    // The file that the variable names is read instead of the user's.
    let other = person.file("other.conf", &plain);
    pull(&person, "", &origin.reference("lab/hello:v1"), |command| {
        command.env("CONTAINERS_REGISTRIES_CONF", &other);
    })
    .ok();
}
