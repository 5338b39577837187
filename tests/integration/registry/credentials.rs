//! Every place of credentials, against a registry with htpasswd and one with Bearer tokens.

use super::*;
use siforge_tests::{Finished, Siforge};
use std::path::PathBuf;

/// A user whose home, and whose folder of programs, is of the test's making.
pub(super) struct Person {
    pub(super) siforge: Siforge,
    pub(super) home: PathBuf,
}

impl Person {
    pub(super) fn new() -> Self {
        let siforge = Siforge::root();
        let home = siforge.dir().join("home");
        std::fs::create_dir(&home).expect("home");
        Self { siforge, home }
    }

    /// A file below the home.
    pub(super) fn file(&self, path: &str, text: &str) -> PathBuf {
        let path = self.home.join(path);
        std::fs::create_dir_all(path.parent().expect("folder")).expect("folder");
        std::fs::write(&path, text).expect("write");
        path
    }

    /// Puts a credential helper into the PATH of [`Person::command`].
    fn helper(&self, name: &str, script: &str) {
        let path = self.file(&format!("bin/docker-credential-{name}"), &format!("#!/bin/sh\n{script}\n"));
        run(Command::new("chmod").arg("+x").arg(path)).ok();
    }

    pub(super) fn command(&self) -> Command {
        self.at_home(self.siforge.command())
    }

    pub(super) fn at_home(&self, mut command: Command) -> Command {
        command.env("HOME", &self.home).env("PATH", format!("{}/bin:/usr/bin:/bin", self.home.display()));
        command
    }
}

/// `siforge pull`, without a cache that could have what the registry would refuse.
pub(super) fn pull(person: &Person, registry: &Registry, name: &str, with: impl FnOnce(&mut Command)) -> Finished {
    let mut command = person.command();
    command.args(["pull", "--force", "--disable-cache"]);
    match registry.ca_cert() {
        Some(ca) => command.arg("--tls-ca-file").arg(ca),
        None => command.arg("--no-https"),
    };
    with(&mut command);
    run(command.arg("x.sif").arg(registry.reference(name)))
}

/// What a config.json holds for a registry or a path of it.
pub(super) fn auths(key: &str, password: &str) -> String {
    json!({ "auths": { key: { "username": USER, "password": password } } }).to_string()
}

const PRIVATE: &str = "private/hello:v1";
const WRONG: &str = "not-the-right-one";

type Arrange = Box<dyn Fn(&Person, &str, &mut Command)>;

fn variables(prefix: &'static str) -> Arrange {
    Box::new(move |_, _, command| {
        command.env(format!("{prefix}_DOCKER_USERNAME"), USER).env(format!("{prefix}_DOCKER_PASSWORD"), PASSWORD);
    })
}

/// A file below the home that is found by itself, or by what `name` does with its path.
fn file(path: &'static str, name: fn(&mut Command, &Path)) -> Arrange {
    Box::new(move |person, address, command| name(command, &person.file(path, &auths(address, PASSWORD))))
}

fn by_itself(_: &mut Command, _: &Path) {}

/// All places, each with the password of the registry at the address that is passed.
fn places() -> Vec<(&'static str, Arrange)> {
    vec![
        ("apptainer's variables", variables("APPTAINER")),
        ("singularity's variables", variables("SINGULARITY")),
        (
            "a user name in the arguments",
            Box::new(|_, _, command| {
                command.args(["--docker-username", USER]).env("APPTAINER_DOCKER_PASSWORD", PASSWORD);
            }),
        ),
        (
            "--authfile",
            file("any.json", |command, path| {
                command.arg("--authfile").arg(path);
            }),
        ),
        (
            "DOCKER_AUTH_CONFIG",
            Box::new(|_, address, command| {
                command.env("DOCKER_AUTH_CONFIG", auths(address, PASSWORD));
            }),
        ),
        (
            "REGISTRY_AUTH_FILE",
            file("any.json", |command, path| {
                command.env("REGISTRY_AUTH_FILE", path);
            }),
        ),
        ("singularity's file", file(".singularity/docker-config.json", by_itself)),
        ("apptainer's file", file(".apptainer/docker-config.json", by_itself)),
        (
            "podman's runtime file",
            file("run/containers/auth.json", |command, path| {
                let runtime = path.ancestors().nth(2).expect("folder");
                command.env("XDG_RUNTIME_DIR", runtime);
            }),
        ),
        ("podman's file", file(".config/containers/auth.json", by_itself)),
        ("docker's file", file(".docker/config.json", by_itself)),
        (
            "DOCKER_CONFIG",
            file("docker/config.json", |command, path| {
                command.env("DOCKER_CONFIG", path.parent().expect("folder"));
            }),
        ),
    ]
}

/// What the entries of a file can be, with the password of the registry at the address that is passed.
fn entries() -> Vec<(&'static str, Arrange)> {
    vec![
        (
            "an auth of base64",
            Box::new(|person, address, _| {
                let text = json!({ "auths": { format!("https://{address}"): { "auth": basic() } } });
                person.file(".docker/config.json", &text.to_string());
            }),
        ),
        (
            "a path's entry",
            Box::new(|person, address, _| {
                let right = json!({ "auth": basic() });
                let wrong = json!({ "username": USER, "password": WRONG });
                let text = json!({ "auths": { address: wrong, format!("{address}/private"): right } });
                person.file(".docker/config.json", &text.to_string());
            }),
        ),
        (
            "credHelpers",
            Box::new(|person, address, _| {
                person.file(".docker/config.json", &json!({ "credHelpers": { address: "test" } }).to_string());
                person.helper("test", &format!("echo '{{\"Username\":\"{USER}\",\"Secret\":\"{PASSWORD}\"}}'"));
            }),
        ),
        (
            "credsStore",
            Box::new(|person, address, _| {
                let text = json!({ "auths": { address: {} }, "credsStore": "test" });
                person.file(".docker/config.json", &text.to_string());
                let answer = format!("echo '{{\"Username\":\"{USER}\",\"Secret\":\"{PASSWORD}\"}}'");
                person.helper("test", &format!("read host; [ \"$host\" = {address} ] && {answer}"));
            }),
        ),
        (
            "the first of two",
            Box::new(|person, address, command| {
                person.file(".docker/config.json", &auths(address, WRONG));
                command.env("DOCKER_AUTH_CONFIG", auths(address, PASSWORD));
            }),
        ),
    ]
}

/// Docker's identity tokens open what has a token server, and nothing else.
fn identities() -> Vec<(&'static str, Arrange)> {
    vec![
        (
            "an identity token",
            Box::new(|person, address, _| {
                let text = json!({ "auths": { address: { "identitytoken": format!("identity-{PASSWORD}") } } });
                person.file(".docker/config.json", &text.to_string());
            }),
        ),
        (
            "an identity token of a helper",
            Box::new(|person, address, _| {
                person.file(".docker/config.json", &json!({ "credHelpers": { address: "test" } }).to_string());
                let answer = json!({ "Username": "<token>", "Secret": format!("identity-{PASSWORD}") });
                person.helper("test", &format!("echo '{answer}'"));
            }),
        ),
    ]
}

#[test]
fn every_place_of_credentials_opens_both_kinds_of_registry() {
    for auth in [Auth::Htpasswd, Auth::Token] {
        let registry = Registry::start(Options { tls: true, auth });
        registry.push(PRIVATE, &hello());
        let address = registry.address();
        for (what, arrange) in places().into_iter().chain(entries()) {
            let person = Person::new();
            let ran = pull(&person, &registry, PRIVATE, |command| arrange(&person, &address, command));
            assert!(ran.success() && !ran.stderr.contains("only pulls of public images"), "{what}, {auth:?}: {ran}");
        }
        for (what, arrange) in identities() {
            let person = Person::new();
            let ran = pull(&person, &registry, PRIVATE, |command| arrange(&person, &address, command));
            assert_eq!(ran.success(), auth == Auth::Token, "{what}, {auth:?}: {ran}");
            assert!(ran.success() || ran.stderr.contains("the stored token is of no use there"), "{what}: {ran}");
        }
    }
}

#[test]
fn without_credentials_it_is_said_once_and_never_as_an_error() {
    let registry = Registry::start(Options { tls: false, auth: Auth::Token });
    registry.push("public/hello:v1", &hello());
    registry.push(PRIVATE, &hello());
    let note =
        format!("info: no credentials for {} found: only pulls of public images will succeed\n", registry.address());
    let person = Person::new();
    let ran = pull(&person, &registry, "public/hello:v1", |_| ()).ok();
    assert_eq!(ran.stderr.matches(&note).count(), 1, "{ran}");
    assert!(!ran.stderr.contains("rror") && ran.stdout.is_empty(), "{ran}");
    let ran = pull(&person, &registry, "public/hello:v1", |command| {
        command.arg("--quiet");
    })
    .ok();
    assert_eq!(ran.output(), "", "{ran}");
    let ran = pull(&person, &registry, PRIVATE, |_| ()).fails_with(255);
    assert!(ran.stderr.contains(&note) && ran.stderr.contains("authentication required"), "{ran}");
}

#[test]
fn broken_places_are_errors_of_their_own() {
    let registry = Registry::start(Options { tls: false, auth: Auth::Htpasswd });
    registry.push(PRIVATE, &hello());
    let check = |arrange: &dyn Fn(&Person, &mut Command), texts: &[&str]| {
        let person = Person::new();
        let ran = pull(&person, &registry, PRIVATE, |command| arrange(&person, command)).fails_with(255);
        for text in texts {
            assert!(ran.stderr.contains(text), "{text:?} is not in {ran}");
        }
        assert!(!ran.stderr.contains("panicked"), "{ran}");
    };
    let config =
        |text: &'static str| move |person: &Person, _: &mut Command| drop(person.file(".docker/config.json", text));
    check(&config("{\"auths\":"), &["/.docker/config.json: not a Docker config (line 1"]);
    check(
        &|_, command| {
            command.args(["--authfile", "none.json"]);
        },
        &["read the credentials in none.json: "],
    );
    check(
        &|_, command| {
            command.env("DOCKER_AUTH_CONFIG", PASSWORD);
        },
        &["the variable DOCKER_AUTH_CONFIG: not a Docker"],
    );
    check(
        &|_, command| {
            command.env("APPTAINER_DOCKER_USERNAME", USER).env("APPTAINER_DOCKER_PASSWORD", WRONG);
        },
        &["authentication required", "user \"ci\""],
    );
    let helper = |script: &'static str| {
        let address = registry.address();
        move |person: &Person, _: &mut Command| {
            person.file(".docker/config.json", &json!({ "credHelpers": { &address: "test" } }).to_string());
            person.helper("test", script);
        }
    };
    check(
        &helper("echo credentials not found in native keychain; exit 1"),
        &["only pulls of public images", "authentication required"],
    );
    check(&helper("echo pw-never-shown-Kz7"), &["docker-credential-test answered for 127.0.0.1:", "other than JSON"]);
    check(&helper("echo locked; exit 1"), &["docker-credential-test failed for 127.0.0.1:", ": locked"]);
    let address = registry.address();
    let gone = move |person: &Person, _: &mut Command| {
        drop(person.file(".docker/config.json", &json!({ "credHelpers": { &address: "gone" } }).to_string()));
    };
    check(&gone, &["docker-credential-gone, which ", "is not in PATH"]);
    let laptop = config("{\"credsStore\":\"desktop\"}");
    check(&laptop, &["warning: docker-credential-desktop, which ", "only pulls of public images"]);
}
