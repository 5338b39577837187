//! docker-daemon: against podman's service, which speaks the Docker Engine's API.

use super::{digest, skopeo};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use siforge_tests::{Process, Registry, Siforge, free_port, need, run};

const SOON: Duration = Duration::from_secs(60);

/// podman with images of its own below `dir`.
fn podman(dir: &Path) -> Command {
    let mut command = Command::new(need::program("podman"));
    command.arg("--root").arg(dir.join("storage")).arg("--runroot").arg(dir.join("run"));
    command.args(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"]);
    command
}

/// The service at `address`, once `is_up`.
fn serve(dir: &Path, name: &str, address: &str, is_up: impl FnMut() -> bool) -> Process {
    let mut command = podman(dir);
    command.args(["system", "service", "--time", "0", address]);
    let process = Process::spawn(name, dir, &command);
    process.wait_ready(SOON, "listens", is_up);
    process
}

#[test]
fn images_of_an_engine_are_read_through_its_api() {
    let registry = Registry::plain();
    registry.push("lab/tiny:v1", &super::small());
    let siforge = Siforge::root();
    let dir = siforge.dir().join("podman");
    std::fs::create_dir(&dir).unwrap();
    let archive = siforge.dir().join("a.tar").display().to_string();
    skopeo(&[&registry.reference("lab/tiny:v1"), &format!("docker-archive:{archive}:lab/tiny:v1")]);
    run(podman(&dir).args(["load", "-q", "-i", &archive])).ok();

    let socket = dir.join("podman.sock");
    let unix = format!("unix://{}", socket.display());
    let _unix = serve(&dir, "unix", &unix, || UnixStream::connect(&socket).is_ok());
    let port = free_port();
    let tcp = format!("tcp://127.0.0.1:{port}");
    let _tcp = serve(&dir, "tcp", &tcp, || TcpStream::connect(("127.0.0.1", port)).is_ok());

    let ask = |host: &str, words: &[&str]| run(siforge.command().env("DOCKER_HOST", host).args(words));
    siforge.run(&["pull", "archive.sif", &format!("docker-archive:{archive}")]).ok();
    for host in [&unix, &tcp] {
        ask(host, &["pull", "-F", "docker-daemon:lab/tiny:v1"]).ok();
        // However it was brought.
        assert_eq!(digest(&siforge.out().join("tiny_v1.sif")), digest(&siforge.out().join("archive.sif")), "{host}");
    }
    let ran = ask(&unix, &["exec", "docker-daemon:docker.io/lab/tiny:v1", "/bin/sh", "-c", "echo $TINY"]).ok();
    assert_eq!(ran.stdout, "yes\n");
    let id = run(podman(&dir).args(["images", "-q", "--no-trunc"])).ok().stdout.trim().to_owned();
    assert_eq!(ask(&unix, &["exec", &format!("docker-daemon:{id}"), "/bin/echo", "by id"]).ok().stdout, "by id\n");

    let refused = |host: &str, name: &str, expect: &str| {
        let told = ask(host, &["pull", "x.sif", &format!("docker-daemon:{name}")]).fails_with(255);
        assert!(told.stderr.contains(expect) && !told.stderr.contains("hidden"), "{expect}: {told}");
    };
    refused(&unix, "lab/nope:v1", "image not known");
    refused(&unix, "../../../containers/json?x=", "invalid reference format");
    refused("unix:///nonexistent", "lab/tiny:v1", "No such file or directory (os error 2); DOCKER_HOST names another");
    refused("ssh://host", "lab/tiny:v1", "forward the socket");
    refused(&format!("tcp://127.0.0.1:{}", free_port()), "lab/tiny:v1", "Connection refused");
    // A password in the address is for the engine alone.
    let free = free_port();
    let shown = format!("asking the engine at tcp://127.0.0.1:{free}: ");
    refused(&format!("tcp://user:hidden@127.0.0.1:{free}"), "lab/tiny:v1", &shown);
    refused("ssh://user:hidden@host", "lab/tiny:v1", "asking the engine at ssh://host: ");
    refused("unix:///dev/null", "lab/tiny:v1", "docker-daemon:lab/tiny:v1: asking the engine at unix:///dev/null");
    let missing = siforge.dir().join("missing").display().to_string();
    let told = ask(&unix, &["pull", "--tmpdir", &missing, "x.sif", "docker-daemon:lab/tiny:v1"]).fails_with(255);
    assert!(told.stderr.contains("create a temporary file in"), "{told}");
}
