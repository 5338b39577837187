//! A docker-registry (Debian's, distribution 2.8) on 127.0.0.1, with TLS from a CA of its own and with authentication.
//!
//! ```text
//!   dir/data/docker/registry/v2/blobs/sha256/<2 hex>/<hex>/data     the blobs, see Registry::blob_path
//!   dir/certs/ca.crt                                                also what skopeo takes as --dest-cert-dir
//!   dir/server.{crt,key}  dir/token.{crt,key}  dir/htpasswd  dir/config.yml  dir/*.log
//! ```

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tempfile::TempDir;

use crate::image::{self, Image};
use crate::process::Process;
use crate::run::run;
use crate::wait::wait_until;
use crate::{need, ports};

/// Starts in half a second on an idle machine.
const START: Duration = Duration::from_secs(30);

/// The account of the registries with authentication.
pub const USER: &str = "ci";
pub const PASSWORD: &str = "pw-never-shown-Kz7";

/// Whether a text holds the password, plainly or as Basic authentication encodes it. Every command's output and every
/// daemon's log is looked through for it.
pub fn shows_password(text: &str) -> bool {
    text.contains(PASSWORD) || text.contains(&basic())
}

/// What `Authorization: Basic` and docker's `auth` hold for the account.
pub fn basic() -> String {
    STANDARD.encode(format!("{USER}:{PASSWORD}"))
}

/// Who may do what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Auth {
    #[default]
    None,
    /// Basic, for everything.
    Htpasswd,
    /// Bearer tokens: anonymous may pull `public/…`, [`USER`] may do everything.
    Token,
}

/// What the registry is to be like; the default is plain HTTP for everyone.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    pub tls: bool,
    pub auth: Auth,
}

/// A running registry; ends, and its folder goes, with the value.
#[derive(Debug)]
pub struct Registry {
    options: Options,
    /// Not Debian's, but one with the referrers API, which keeps all in memory.
    referrers: bool,
    port: u16,
    server: Option<Process>,
    token_server: Option<Process>,
    dir: TempDir,
}

impl Registry {
    /// Plain HTTP, no authentication.
    pub fn plain() -> Self {
        Self::start(Options::default())
    }

    /// The same of another kind: it has the referrers API, and forgets all when it is stopped.
    pub fn with_referrers() -> Self {
        Self::of_kind(Options::default(), true)
    }

    pub fn start(options: Options) -> Self {
        Self::of_kind(options, false)
    }

    fn of_kind(options: Options, referrers: bool) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("siforge-registry-")
            .tempdir()
            .unwrap_or_else(|e| panic!("make a folder: {e}"));
        make_keys(dir.path());
        let token_port = (options.auth == Auth::Token).then(ports::free_port);
        let mut registry = Self { options, referrers, port: ports::free_port(), server: None, token_server: None, dir };
        registry.token_server = token_port.map(|port| registry.start_token_server(port));
        registry.write_config(token_port);
        registry.restart();
        registry
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// `docker://127.0.0.1:PORT/NAME`.
    pub fn reference(&self, name: &str) -> String {
        format!("docker://{}/{name}", self.address())
    }

    /// The PEM file of the CA, with TLS.
    pub fn ca_cert(&self) -> Option<PathBuf> {
        self.ca_dir().map(|dir| dir.join("ca.crt"))
    }

    /// The folder with only the CA's PEM file, with TLS.
    pub fn ca_dir(&self) -> Option<PathBuf> {
        self.options.tls.then(|| self.dir.path().join("certs"))
    }

    /// User and password, with authentication.
    pub fn credentials(&self) -> Option<(&'static str, &'static str)> {
        (self.options.auth != Auth::None).then_some((USER, PASSWORD))
    }

    /// Pushes an image; gives the digest of its manifest.
    pub fn push(&self, name: &str, image: &Image) -> String {
        image::push(self, name, image)
    }

    /// Where the registry keeps the blob of a digest (`sha256:…`): for tests that damage or truncate it.
    pub fn blob_path(&self, digest: &str) -> PathBuf {
        let hex = digest.strip_prefix("sha256:").unwrap_or_else(|| panic!("not a sha256 digest: {digest}"));
        self.dir.path().join("data/docker/registry/v2/blobs/sha256").join(&hex[..2]).join(hex).join("data")
    }

    /// The registry's access log: one line per request.
    pub fn log(&self) -> String {
        self.server.as_ref().map(Process::log).unwrap_or_default()
    }

    /// How many requests with this method and a path that contains `path` the registry has answered.
    pub fn requests(&self, method: &str, path: &str) -> usize {
        self.log().lines().filter(|line| line.contains(&format!("\"{method} ")) && line.contains(path)).count()
    }

    /// The same, once there are `at_least` so many: the registry writes a request down after it has answered it.
    pub fn requests_once(&self, method: &str, path: &str, at_least: usize) -> usize {
        let what = format!("{at_least} requests {method} …{path}… in the registry's log");
        wait_until(Duration::from_secs(10), &what, || self.requests(method, path) >= at_least);
        self.requests(method, path)
    }

    /// Ends the server; the port stays ours, so connections are refused.
    pub fn stop(&mut self) {
        self.server = None;
    }

    /// Starts the server again with the same data and port.
    pub fn restart(&mut self) {
        self.stop();
        let mut command = match self.referrers {
            false => Command::new(need::program("docker-registry")),
            true => Command::new(crate::cosign::binaries().join("referrers")),
        };
        match self.referrers {
            false => command.arg("serve").arg(self.dir.path().join("config.yml")),
            true => command.arg(self.address()),
        };
        command.current_dir(self.dir.path());
        let process = Process::spawn("registry", self.dir.path(), &command);
        process.wait_ready(START, "listens", || TcpStream::connect(("127.0.0.1", self.port)).is_ok());
        self.server = Some(process);
    }

    /// Leaves it running: pids and the folder.
    pub fn keep(mut self) -> (Vec<u32>, PathBuf) {
        let pids = [self.server.take(), self.token_server.take()].into_iter().flatten().map(Process::keep).collect();
        (pids, self.dir.keep())
    }

    fn start_token_server(&self, port: u16) -> Process {
        let dir = self.dir.path();
        let script = dir.join("token_server.py");
        write(&script, include_str!("../scripts/token_server.py"));
        let mut command = Command::new(need::program("python3"));
        command.arg(&script).arg(dir).arg(port.to_string()).arg(if self.options.tls { "tls" } else { "plain" });
        command.env("REGISTRY_USER", USER).env("REGISTRY_PASSWORD", PASSWORD);
        let process = Process::spawn("token", dir, &command);
        process.wait_ready(START, "listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        process
    }

    /// configuration.md of the distribution project.
    fn write_config(&self, token_port: Option<u16>) {
        let dir = self.dir.path();
        let show = dir.display();
        let mut config = format!(
            "version: 0.1\nlog: {{level: warn, accesslog: {{disabled: false}}}}\nstorage: {{filesystem: {{rootdirectory: {show}/data}}, delete: {{enabled: true}}}}\nhttp:\n  addr: {}\n  secret: siforge\n",
            self.address()
        );
        if self.options.tls {
            config += &format!("  tls: {{certificate: {show}/server.crt, key: {show}/server.key}}\n");
        }
        match (self.options.auth, token_port) {
            (Auth::Htpasswd, _) => {
                let line = run(Command::new(need::program("htpasswd")).args(["-Bbn", USER, PASSWORD])).ok().stdout;
                write(&dir.join("htpasswd"), &line);
                config += &format!("auth: {{htpasswd: {{realm: siforge, path: {show}/htpasswd}}}}\n");
            }
            (Auth::Token, Some(port)) => {
                let scheme = if self.options.tls { "https" } else { "http" };
                config += &format!(
                    "auth: {{token: {{realm: \"{scheme}://127.0.0.1:{port}/token\", service: siforge, issuer: siforge-test, rootcertbundle: {show}/token.crt}}}}\n"
                );
            }
            _ => {}
        }
        write(&dir.join("config.yml"), &config);
    }
}

/// A CA, a server certificate for 127.0.0.1 and localhost, and a key that signs tokens.
fn make_keys(dir: &Path) {
    const SCRIPT: &str = r"set -eu; cd $1; mkdir -p certs data
ec='-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes'
openssl req -x509 $ec -keyout ca.key -out certs/ca.crt -days 30 -subj /CN=siforge-test-ca -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign
openssl req $ec -keyout server.key -out server.csr -subj /CN=127.0.0.1
printf 'subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage=serverAuth\n' > server.ext
openssl x509 -req -in server.csr -CA certs/ca.crt -CAkey ca.key -CAcreateserial -CAserial ca.srl -days 30 -out server.crt -extfile server.ext
openssl req -x509 -newkey rsa:2048 -nodes -keyout token.key -out token.crt -days 30 -subj /CN=siforge-test-token";
    run(Command::new("sh").args(["-c", SCRIPT, "keys"]).arg(dir)).ok();
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap_or_else(|e| panic!("write {}: {e}", path.display()));
}
