use super::*;
use std::os::unix::fs::PermissionsExt;
use std::time::Instant;
use tempfile::TempDir;

/// A folder with a credential helper of this script.
fn helper(name: &str, script: &str) -> TempDir {
    let dir = tempfile::tempdir().expect("folder");
    let path = dir.path().join(format!("docker-credential-{name}"));
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("write");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("chmod");
    dir
}

fn text(text: &str) -> Place {
    Place::Text { name: "DOCKER_AUTH_CONFIG", text: Secret::new(text) }
}

fn image() -> ImageRef {
    "r.example/a".parse().expect("reference")
}

async fn ask(script: &str) -> Result<Chosen, KeyringError> {
    let dir = helper("test", script);
    let keyring = Keyring {
        places: vec![text(r#"{"credHelpers":{"r.example":"test"}}"#)],
        path: dir.path().into(),
        helper_deadline: Duration::from_secs(2),
        ..Keyring::default()
    };
    keyring.find(&image()).await
}

#[tokio::test]
async fn what_helpers_answer() {
    let check = async |script: &str, expect: Option<Credentials>| {
        assert_eq!(ask(script).await.expect(script).credentials, expect, "{script}");
    };
    let right = r#"read host; [ "$1 $host" = "get r.example" ] || exit 3; echo '{"ServerURL":"r","Username":"u","Secret":"p"}'"#;
    check(right, Some(Credentials::new("u", "p"))).await;
    let token = r#"echo '{"Username":"<token>","Secret":"t"}'"#;
    check(token, Some(Credentials::Identity { token: Secret::new("t") })).await;
    check("echo credentials not found in native keychain; exit 1", None).await;
    check(r#"echo '{"Username":"","Secret":""}'"#, None).await;
    // What it leaves running holds its output open.
    let start = Instant::now();
    check(r#"sleep 60 & echo '{"Username":"u","Secret":"p"}'"#, Some(Credentials::new("u", "p"))).await;
    assert!(start.elapsed() < Duration::from_secs(20));
}

#[tokio::test]
async fn a_helper_that_is_given_up_takes_along_what_it_started() {
    let dir = tempfile::tempdir().expect("folder");
    let pid = dir.path().join("pid");
    let error = ask(&format!("sleep 60 & echo $! > {}; wait", pid.display())).await.expect_err("late").to_string();
    assert!(error.contains("no answer for r.example within 2s"), "{error}");
    let pid = std::fs::read_to_string(pid).expect("pid").trim().to_owned();
    let runs = || {
        // A process that has ended and is not yet reaped is a zombie.
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.contains("(sleep)") && !stat.contains(") Z ")
    };
    let deadline = Instant::now() + Duration::from_secs(20);
    while runs() {
        assert!(Instant::now() < deadline, "it runs on");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn helpers_that_are_broken() {
    let check = async |script: &str, says: &str| {
        let start = Instant::now();
        let error = ask(script).await.expect_err(script).to_string();
        assert!(error.starts_with("docker-credential-test ") && error.contains("r.example"), "{error}");
        assert!(error.contains(says) && !error.contains("hunter2"), "{error}");
        assert!(start.elapsed() < Duration::from_secs(20), "{script}");
    };
    check("exec sleep 60", "no answer for r.example within 2s").await;
    check("sleep 60 & echo hunter2", "something other than JSON").await;
    check("echo hunter2", "something other than JSON").await;
    check(r#"echo '{"Username":"u","Secret":{"hunter2":1}}'"#, "something other than JSON").await;
    check("exec yes hunter2", "more than 65536 bytes").await;
    check("echo the keyring is locked; exit 1", "failed for r.example: the keyring is locked").await;
    check("echo no display >&2; exit 2", "failed for r.example: no display").await;
    check(r#"echo '{"Secret":"hunter2"}'; exit 1"#, "it did not say why").await;
}

#[tokio::test]
async fn a_missing_helper_matters_only_to_its_registry() {
    let find = async |config: &str| Keyring { places: vec![text(config)], ..Keyring::default() }.find(&image()).await;
    let error = find(r#"{"credHelpers":{"r.example":"gone"}}"#).await.expect_err("named").to_string();
    assert!(
        error.contains("docker-credential-gone, which DOCKER_AUTH_CONFIG names for r.example, is not in PATH"),
        "{error}"
    );
    let chosen = find(r#"{"credsStore":"gone"}"#).await.expect("not named");
    assert_eq!(chosen.credentials, None);
    assert_eq!(chosen.warnings, ["docker-credential-gone, which DOCKER_AUTH_CONFIG names, is not in PATH"]);
}

#[tokio::test]
async fn the_first_hit_wins() {
    let dir = tempfile::tempdir().expect("folder");
    let file = |name: &str, registry: &str| {
        let path = dir.path().join(name);
        let auths = format!(r#"{{"auths":{{"{registry}":{{"username":"{name}","password":"p"}}}}}}"#);
        std::fs::write(&path, auths).expect("write");
        Place::File { path, required: false }
    };
    let places = [file("other", "o.example"), file("first", "r.example"), file("second", "r.example/a")];
    let missing = |required| Place::File { path: dir.path().join("other/nosuch"), required };
    let given = Credentials::new("given", "p");
    let check = async |given: Option<Credentials>, places: &[Place], expect: Option<&str>| {
        let keyring = Keyring { given, places: places.to_vec(), ..Keyring::default() };
        let found = keyring.find(&image()).await.expect("find").credentials;
        assert_eq!(found.as_ref().and_then(Credentials::username), expect, "{places:?}");
    };
    check(Some(given.clone()), &places, Some("given")).await;
    check(None, &places, Some("first")).await;
    check(None, &places[..1], None).await;
    check(None, &[missing(false), places[2].clone()], Some("second")).await;
    let keyring = Keyring { given: Some(given), places: vec![missing(true)], ..Keyring::default() };
    assert_eq!(
        keyring.find_stored(&image()).await.expect_err("required").to_string(),
        format!("read the credentials in {}: entity not found", dir.path().join("other/nosuch").display())
    );
    std::fs::write(dir.path().join("bad"), "hunter2").expect("write");
    let bad = Place::File { path: dir.path().join("bad"), required: false };
    let error = Keyring { places: vec![bad], ..Keyring::default() }.find(&image()).await.expect_err("bad").to_string();
    assert!(error.ends_with("/bad: not a Docker config (line 1, column 1)"), "{error}");
}
