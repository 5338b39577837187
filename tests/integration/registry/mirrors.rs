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
    mirror.stop();
    pull(&person, &text, image, |_| ()).ok();
}

#[test]
fn a_mirror_is_not_sent_what_was_typed_for_the_registry() {
    let origin = Registry::start(Options { tls: false, auth: Auth::Htpasswd });
    let mirror = Registry::start(Options { tls: false, auth: Auth::Htpasswd });
    origin.push("lab/hello:v1", &hello());
    mirror.push("lab/hello:v1", &hello());
    let text = conf("images.invalid", &origin, &[(&mirror, "", "")]);
    let image = "docker://images.invalid/lab/hello:v1";
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
    let bytes = |name: &str| std::fs::read(person.siforge.out().join(name)).expect("SIF");
    let direct = bytes("x.sif");
    person.file(
        ".config/containers/registries.conf.d/00-short.conf",
        &format!("[aliases]\nhello = \"{}/lab/hello\"\n", origin.address()),
    );
    pull(&person, &plain, "docker://hello:v1", |_| ()).ok();
    assert!(bytes("x.sif") == direct, "a short name is a name for the same");

    // The file that the variable names is read instead of the user's.
    let other = person.file("other.conf", &plain);
    pull(&person, "", &origin.reference("lab/hello:v1"), |command| {
        command.env("CONTAINERS_REGISTRIES_CONF", &other);
    })
    .ok();
}
