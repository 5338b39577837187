//! oras:// and http://: SIFs of a registry and of a web server, kept as they are.

use super::{digest, small};
use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use siforge_tests::registry::{Auth, Options};
use siforge_tests::{Process, Registry, Siforge, free_port, need, run};

const SOON: Duration = Duration::from_secs(30);

/// A SIF of the small image as `out/small.sif`.
fn sif(siforge: &Siforge) {
    let layout = siforge.dir().join("layout");
    small().write_layout(&layout);
    siforge.run(&["pull", "small.sif", &format!("oci:{}", layout.display())]).ok();
}

#[test]
fn a_sif_goes_to_a_registry_and_comes_back_byte_by_byte() {
    for (tls, auth) in [(false, Auth::None), (false, Auth::Token), (true, Auth::Htpasswd)] {
        let registry = Registry::start(Options { tls, auth });
        for siforge in Siforge::both() {
            sif(&siforge);
            let name = format!("oras://{}/public/small:v1", registry.address());
            let ask = |known: bool, words: &[&str]| {
                let mut command = siforge.command();
                if let Some((user, password)) = registry.credentials().filter(|_| known) {
                    command.env("APPTAINER_DOCKER_USERNAME", user).env("APPTAINER_DOCKER_PASSWORD", password);
                }
                command.args(&words[..1]);
                match registry.ca_cert() {
                    Some(ca) => command.arg("--tls-ca-file").arg(siforge_readable(&siforge, &ca)),
                    None => command.arg("--no-https"),
                };
                run(command.args(&words[1..]))
            };
            ask(true, &["push", "small.sif", &name]).ok();
            // Again: the blobs are there.
            ask(true, &["push", "small.sif", &name]).ok();
            ask(true, &["pull", "back.sif", &name]).ok();
            let want = digest(&siforge.out().join("small.sif"));
            assert_eq!(digest(&siforge.out().join("back.sif")), want, "{tls} {auth:?}");
            let hex = want.trim_start_matches("sha256:");
            ask(true, &["pull", "-F", "--sha256", hex, &name]).ok();
            assert_eq!(digest(&siforge.out().join("small_v1.sif")), want);
            let ran = ask(true, &["exec", &name, "/bin/sh", "-c", "echo $TINY"]).ok();
            assert_eq!(ran.stdout, "yes\n");
            ask(true, &["build", "-F", "built.sif", &name]).ok();

            let other = ask(true, &["pull", "x.sif", "--sha256", &"0".repeat(64), &name]).fails_with(255);
            assert!(other.stderr.contains("but --sha256 wants"), "{other}");
            let missing = format!("oras://{}/public/none:v1", registry.address());
            assert!(ask(true, &["pull", "x.sif", &missing]).fails_with(255).stderr.contains("manifest unknown"));
            let text = ask(true, &["push", &siforge.dir().join("layout/index.json").display().to_string(), &name]);
            assert!(text.fails_with(255).stderr.contains("SIF"));
            if auth != Auth::None {
                let refused = ask(false, &["push", "small.sif", &name]).fails_with(255);
                assert!(refused.stderr.contains("authentication required"), "{refused}");
            }
            assert!(!siforge.out().join("x.sif").exists());
        }
    }
}

/// A folder of the registry's is root's alone.
fn siforge_readable(siforge: &Siforge, file: &Path) -> std::path::PathBuf {
    let copy = siforge.dir().join("ca.crt");
    fs::copy(file, &copy).unwrap();
    siforge.give(&copy);
    copy
}

#[test]
fn what_is_pushed_is_what_apptainer_pushes() {
    let registry = Registry::plain();
    let siforge = Siforge::root();
    sif(&siforge);
    let name = format!("oras://{}/small:v1", registry.address());
    siforge.run(&["push", "--no-https", "small.sif", &name]).ok();
    let docker = registry.reference("small:v1");
    let raw = run(Command::new("skopeo").args(["inspect", "--raw", "--tls-verify=false", &docker])).ok().stdout;
    let manifest: Value = serde_json::from_str(&raw).unwrap();
    assert_eq!(manifest["config"]["mediaType"], "application/vnd.sylabs.sif.config.v1+json");
    assert_eq!(manifest["layers"][0]["mediaType"], "application/vnd.sylabs.sif.layer.v1.sif");
    assert_eq!(manifest["layers"][0]["annotations"]["org.opencontainers.image.title"], "small.sif");
    assert_eq!(manifest["layers"][0]["digest"], digest(&siforge.out().join("small.sif")));
    // Each of the two says what the other is.
    let as_image = siforge.run(&["pull", "--no-https", "x.sif", &docker]).fails_with(255);
    assert!(as_image.stderr.contains("use oras://"), "{as_image}");
    registry.push("image", &small());
    let as_sif = siforge.run(&["pull", "--no-https", "x.sif", &format!("oras://{}/image", registry.address())]);
    assert!(as_sif.fails_with(255).stderr.contains("it is no SIF; for a container image write docker://"));
}

#[test]
fn a_sif_of_a_web_server() {
    for siforge in Siforge::both() {
        sif(&siforge);
        let served = siforge.dir().join("served");
        fs::create_dir(&served).unwrap();
        fs::copy(siforge.out().join("small.sif"), served.join("tool.sif")).unwrap();
        fs::write(served.join("page.html"), "<html>").unwrap();
        let port = free_port();
        let mut server = Command::new(need::program("python3"));
        server.args(["-m", "http.server", &port.to_string(), "--bind", "127.0.0.1", "-d"]).arg(&served);
        let server = Process::spawn("web", siforge.dir(), &server);
        server.wait_ready(SOON, "listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        let url = |name: &str| format!("http://127.0.0.1:{port}/{name}");

        siforge.run(&["pull", &url("tool.sif?token=secret")]).ok();
        let want = digest(&siforge.out().join("small.sif"));
        assert_eq!(digest(&siforge.out().join("tool.sif")), want);
        let hex = want.trim_start_matches("sha256:");
        siforge.run(&["pull", "-F", "--sha256", hex, "again.sif", &url("tool.sif")]).ok();
        let before = siforge.files().len();
        for _ in 0..2 {
            let ran = siforge.run(&["exec", "--sha256", hex, &url("tool.sif"), "/bin/sh", "-c", "echo $TINY"]).ok();
            assert_eq!(ran.stdout, "yes\n");
        }
        assert!(siforge.files().len() > before, "it is in the cache");
        let requests = server.log().matches("GET /tool.sif").count();
        assert_eq!(requests, 3, "the second launch takes it from there: {}", server.log());

        let refused = |arguments: &[&str], expect: &str| {
            let told = siforge.run(&[&["pull", "x.sif"], arguments].concat()).fails_with(255);
            assert!(told.stderr.contains(expect) && !told.stderr.contains("secret"), "{expect}: {told}");
            assert!(!siforge.out().join("x.sif").exists());
        };
        let with_login = format!("http://user:secret@127.0.0.1:{port}/page.html?token=secret");
        refused(&[&with_login], "truncated SIF: 6 bytes");
        refused(&[&with_login.replace("page", "none")], "404");
        refused(&["--sha256", &"0".repeat(64), &url("tool.sif")], "error verifying sha256 checksum");
        refused(&["--sha256", "12", &url("tool.sif")], "invalid digest");
        refused(&[&url("none.sif")], "404");
        refused(&[&url("page.html")], "truncated SIF: 6 bytes");
        drop(server);
        refused(&[&url("tool.sif?token=secret")], "connection refused");
        let told = siforge.run(&["pull", "x.sif", &url("tool.sif?token=secret")]).fails_with(255);
        assert!(!told.stderr.contains("secret"), "{told}");
    }
}

#[test]
fn names_of_services_that_are_not_read_say_what_to_use() {
    let siforge = Siforge::root();
    for (source, instead) in [
        ("library://lolcow", "use docker://… or oras://…"),
        ("shub://lab/cow", "Singularity Hub has closed; use docker://"),
        ("ftp://host/x.sif", "https://"),
    ] {
        for words in [&["pull", "x.sif", source][..], &["build", "x.sif", source], &["exec", source, "true"]] {
            let told = siforge.run(words).fails_with(255);
            assert!(told.stderr.contains(instead), "{told}");
        }
    }
}
