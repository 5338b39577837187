//! `siforge registry login|logout|list`, and the prompt at a terminal.

use super::credentials::{Person, pull};
use super::*;
use nix::pty::openpty;
use siforge_tests::{Finished, images};
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;

const PRIVATE: &str = "private/hello:v1";

/// `siforge` with this text on its standard input.
fn with_input(person: &Person, text: &str, words: &[&str]) -> Finished {
    let input = person.file("input", text);
    let command = person.siforge.launched_by(&[
        "sh",
        "-c",
        "input=$1; shift; exec \"$@\" < \"$input\"",
        "sh",
        &input.display().to_string(),
    ]);
    run(person.at_home(command).args(words))
}

#[test]
fn a_login_is_kept_once_the_registry_has_taken_it() {
    for auth in [Auth::Htpasswd, Auth::Token] {
        let registry = Registry::start(Options { tls: true, auth });
        registry.push(PRIVATE, &hello());
        let (address, ca) = (registry.address(), registry.ca_cert().expect("CA").display().to_string());
        let person = Person::new();
        let kept = person.home.join(".apptainer/docker-config.json");
        let name = format!("docker://{address}");
        let login = ["registry", "login", "--tls-ca-file", &ca, "--username", USER, "--password-stdin", &name];

        let ran = with_input(&person, "wrong\n", &login).fails_with(255);
        assert!(ran.stderr.contains(&format!("{address} did not accept the password of user \"ci\"")), "{ran}");
        assert!(!kept.exists());
        pull(&person, &registry, PRIVATE, |_| ()).fails_with(255);

        person.file(".apptainer/docker-config.json", r#"{"auths":{"quay.io":{"auth":"dTpw"}},"other":[1]}"#);
        with_input(&person, &format!("{PASSWORD}\n"), &login).ok();
        assert_eq!(kept.metadata().expect("stat").permissions().mode() & 0o777, 0o600);
        pull(&person, &registry, PRIVATE, |_| ()).ok();

        let list = |words: &[&str]| run(person.command().args(["registry", "list"]).args(words)).ok().stdout;
        let shown = list(&[]);
        assert!(shown.lines().any(|line| line.starts_with(&address) && line.contains(USER)), "{shown}");
        let shown: serde_json::Value = serde_json::from_str(&list(&["--json"])).expect("JSON");
        assert_eq!(shown[0]["registry"], json!(address));

        let logout = |registry: &str| run(person.command().args(["registry", "logout", registry]));
        logout(&address).ok();
        let text = std::fs::read_to_string(&kept).expect("read");
        let left: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(left, json!({ "auths": { "quay.io": { "auth": "dTpw" } }, "other": [1] }));
        pull(&person, &registry, PRIVATE, |_| ()).fails_with(255);
        let ran = logout(&address).fails_with(255);
        assert!(ran.stderr.contains(&format!("has no credentials for {address}")), "{ran}");
    }
}

#[test]
fn a_list_says_nothing_to_the_terminal() {
    let person = Person::new();
    let auths = json!({ "auths": { "\u{1b}[2Jquay.io\n": { "username": "\u{1b}]0;u\u{7}", "password": "p" } } });
    person.file(".docker/config.json", &auths.to_string());
    let shown = run(person.command().args(["registry", "list"])).ok().stdout;
    assert!(shown.contains("[2Jquay.io") && shown.contains("]0;u"), "{shown:?}");
    assert!(!shown.chars().any(|c| c.is_control() && c != '\n') && shown.lines().count() == 2, "{shown:?}");
}

#[test]
fn logins_that_cannot_be() {
    let person = Person::new();
    let registry = Registry::plain();
    let check = |input: &str, words: &[&str], text: &str| {
        let ran = with_input(&person, input, &[&["registry", "login"], words].concat()).fails_with(255);
        assert!(ran.stderr.contains(text) && !ran.stderr.contains("panicked"), "{text:?}: {ran}");
        assert!(!person.home.join(".apptainer").exists(), "{ran}");
    };
    check("p", &["--password-stdin", "quay.io"], "--password-stdin goes with --username");
    check("\n", &["-u", "u", "--password-stdin", "quay.io"], "standard input is empty");
    check("p", &["-u", "u", "--password-stdin", "quay"], "registry \"quay\" is not [docker://]HOST");
    check("p", &["-u", "u", "--password-stdin", "127.0.0.1:1"], "connection refused");
    let stored = person.file("kept.json", r#"{"credsStore":"pass"}"#).display().to_string();
    check("p", &["-u", "u", "--password-stdin", "--authfile", &stored, "quay.io"], "kept by docker-credential-pass");

    // A registry for everyone cannot tell.
    let open = ["registry", "login", "--no-https", "-u", "u", "--password-stdin", &registry.address()];
    let ran = with_input(&person, "p", &open).ok();
    assert!(ran.stderr.contains("takes anybody"), "{ran}");
}

/// Runs `siforge` on a terminal of its own, with an empty pipe as standard input; types each answer when its question is
/// there. Gives the exit code, and what was to be seen on the terminal.
fn typed(person: &Person, words: &[&str], answers: &[(&str, &str)]) -> (i32, String) {
    let pty = openpty(None, None).expect("a terminal");
    // The terminal is that of standard input's; the program then gets another.
    let script = "exec \"$@\" < /dev/null";
    let command = person.siforge.launched_by(&["setsid", "--ctty", "--wait", "sh", "-c", script, "sh"]);
    let mut command = person.at_home(command);
    let screen = || File::from(pty.slave.try_clone().expect("clone"));
    command.args(words).stdin(screen()).stdout(screen()).stderr(screen());
    let mut child = command.spawn().expect("start");
    drop(command);
    drop(pty.slave);
    let mut terminal = File::from(pty.master);
    let mut seen = Vec::new();
    let mut answers = answers.iter();
    let mut next = answers.next();
    let mut buffer = [0; 4096];
    // The terminal ends with an error once nobody has it open any more.
    while let Ok(read @ 1..) = terminal.read(&mut buffer) {
        seen.extend_from_slice(&buffer[..read]);
        let text = String::from_utf8_lossy(&seen);
        if let Some((question, answer)) = next.filter(|(question, _)| text.contains(question)) {
            terminal.write_all(format!("{answer}\r").as_bytes()).expect("type");
            assert!(text.contains(question));
            next = answers.next();
        }
    }
    let code = child.wait().expect("wait").code().unwrap_or(-1);
    (code, String::from_utf8_lossy(&seen).into_owned())
}

#[test]
fn a_password_is_asked_for_on_the_terminal_and_not_shown() {
    let registry = Registry::start(Options { tls: false, auth: Auth::Htpasswd });
    registry.push(PRIVATE, &hello());
    let (address, image) = (registry.address(), registry.reference(PRIVATE));
    let pull = ["pull", "--force", "--no-https", "--docker-login", "x.sif", &image];
    let login = ["registry", "login", "--no-https", &address];
    registry.push("private/tiny:v1", &images::tiny());
    let tiny = registry.reference("private/tiny:v1");
    // What is pulled before it runs is pulled by a process of its own.
    let exec = ["exec", "--no-https", "--docker-login", &tiny, "true"];
    for words in [&pull[..], &login[..], &exec[..]] {
        let person = Person::new();
        let (code, seen) = typed(&person, words, &[("User name for", USER), ("Password of", PASSWORD)]);
        assert_eq!(code, 0, "{seen}");
        assert!(seen.contains("User name for") && seen.contains(USER), "{seen}");
        assert!(!siforge_tests::registry::shows_password(&seen), "{seen}");
        let (code, seen) = typed(&person, words, &[("User name for", USER), ("Password of", "wrong")]);
        assert!(code == 255 && seen.contains("user \"ci\""), "{seen}");
        let (code, seen) = typed(&person, words, &[("User name for", "\u{3}")]);
        assert!(code == 255 && seen.contains("interrupted by Ctrl-C"), "{seen}");
    }
    // No terminal at all.
    let person = Person::new();
    let command = person.siforge.launched_by(&["setsid", "--wait"]);
    let ran = run(person.at_home(command).args(pull)).fails_with(255);
    assert!(ran.stderr.contains("ask for a password: ") && ran.stderr.contains("APPTAINER_DOCKER_PASSWORD"), "{ran}");
}
