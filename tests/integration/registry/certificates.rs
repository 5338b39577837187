//! Certificates that nobody should accept, and the places of those that are trusted.

use super::*;
use siforge_tests::{Process, Siforge, User, free_port};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::Duration;

/// Keys and certificates of 127.0.0.1: `expired` and `other` (for other.invalid) by the authority `ca`, `self` by itself.
fn keys() -> tempfile::TempDir {
    const SCRIPT: &str = r"set -eu; cd $1
ec='-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes'
printf 'subjectAltName=IP:127.0.0.1\n' > ip.ext; printf 'subjectAltName=DNS:other.invalid\n' > other.ext
openssl req -x509 $ec -keyout ca.key -out ca.crt -days 3 -subj /CN=ca -addext basicConstraints=critical,CA:TRUE
openssl req $ec -keyout key.pem -out csr -subj /CN=127.0.0.1
by_ca='-req -in csr -CA ca.crt -CAkey ca.key -CAcreateserial'
openssl x509 $by_ca -days -1 -extfile ip.ext -out expired.crt
openssl x509 $by_ca -days 3 -extfile other.ext -out other.crt
openssl x509 $by_ca -days 3 -extfile ip.ext -out good.crt
openssl x509 -req -in csr -signkey key.pem -days 3 -extfile ip.ext -out self.crt
printf 'subjectAltName=IP:127.0.0.1\nbasicConstraints=critical,CA:TRUE\n' > ca.ext
openssl x509 -req -in csr -signkey key.pem -days 3 -extfile ca.ext -out selfca.crt
openssl x509 -req -in csr -signkey key.pem -days -1 -extfile ca.ext -out oldca.crt
sed s/127.0.0.1/127.0.0.2/ ca.ext > ca2.ext
openssl x509 -req -in csr -signkey key.pem -days 3 -extfile ca2.ext -out otherca.crt";
    let dir = tempfile::tempdir().expect("folder");
    run(Command::new("sh").args(["-c", SCRIPT, "keys"]).arg(dir.path())).ok();
    dir
}

/// A TLS server that answers everything with a page; with `more` options.
fn tls_server(dir: &Path, certificate: &str, more: &[&str]) -> (Process, String) {
    let port = free_port();
    let mut command = Command::new(need::program("openssl"));
    command.args([
        "s_server",
        "-www",
        "-accept",
        &format!("127.0.0.1:{port}"),
        "-key",
        "key.pem",
        "-cert",
        certificate,
    ]);
    let process = Process::spawn(certificate, dir, command.args(more).current_dir(dir));
    process.wait_ready(Duration::from_secs(30), "listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
    (process, format!("127.0.0.1:{port}"))
}

fn asked(address: &str, tls: Tls) -> Result<Resolved, Error> {
    let client = Client::new(address, None, tls)?;
    block_on(client.resolve(&reference(address, "x"), &amd64()))
}

#[test]
fn certificates_that_are_not_accepted() {
    let dir = keys();
    let ca = |name: &str| {
        let ca_bundle = Some(std::fs::read(dir.path().join(name)).expect("certificate"));
        Tls { ca_bundle, ..Tls::default() }
    };
    let check = |certificate: &str, tls: Tls, text: &str| {
        let (_server, address) = tls_server(dir.path(), certificate, &[]);
        refused(asked(&address, tls), Kind::Certificate, &["certificate not accepted: x509: ", text]);
    };
    check("expired.crt", ca("ca.crt"), "certificate has expired; the registry must renew it");
    check("self.crt", ca("ca.crt"), "certificate signed by unknown authority; give the registry's CA");
    check("self.crt", Tls::default(), "certificate signed by unknown authority; give the registry's CA");
    check("other.crt", ca("ca.crt"), "certificate not valid for name \"127.0.0.1\"");
    // One that nobody signed is trusted where it is given, and no further.
    check("selfca.crt", ca("ca.crt"), "");
    check("selfca.crt", ca("self.crt"), "");
    check("oldca.crt", ca("oldca.crt"), "certificate has expired");
    check("otherca.crt", ca("otherca.crt"), "not valid for name");
    for certificate in ["self.crt", "selfca.crt"] {
        let (_server, address) = tls_server(dir.path(), certificate, &[]);
        refused(asked(&address, ca(certificate)), Kind::Protocol, &["answer not understood"]);
    }
    // A certificate that is right, from a server that is no registry.
    let (_server, address) = tls_server(dir.path(), "good.crt", &[]);
    refused(asked(&address, ca("ca.crt")), Kind::Protocol, &["reading manifest latest in ", "answer not understood"]);
}

#[test]
fn a_client_certificate_is_shown_where_it_is_asked_for() {
    let dir = keys();
    let (_server, address) =
        tls_server(dir.path(), "good.crt", &["-Verify", "1", "-verify_return_error", "-CAfile", "ca.crt"]);
    let certs = dir.path().join("certs.d").join(&address);
    std::fs::create_dir_all(&certs).expect("folder");
    let copy = |from: &str, to: &str| {
        std::fs::copy(dir.path().join(from), certs.join(to)).expect("copy");
    };
    let with_certs = || {
        let mut tls = Tls::default();
        siforge_oci::add_certs(&mut tls, &[dir.path().join("certs.d")], &address).expect("certs.d");
        asked(&address, tls)
    };
    copy("ca.crt", "ca.crt");
    let error = with_certs().expect_err("no certificate of the client's");
    assert_ne!(error.kind(), Kind::Protocol, "{error}");
    copy("good.crt", "client.cert");
    copy("key.pem", "client.key");
    refused(with_certs(), Kind::Protocol, &["answer not understood"]);
}

#[test]
fn authorities_are_found_where_other_tools_keep_them() {
    // Its token server, at another port, has a certificate of the same authority.
    let registry = Registry::start(Options { tls: true, auth: Auth::Token });
    registry.push("public/hello:v1", &hello());
    let (address, ca) = (registry.address(), registry.ca_cert().expect("CA"));
    let check = |what: &str, variables: &[(&str, PathBuf)], works: bool| {
        let siforge = Siforge::root();
        let home = siforge.dir().join("home");
        std::fs::create_dir(&home).expect("home");
        if what == "certs.d" {
            let certs = home.join(".config/containers/certs.d").join(&address);
            std::fs::create_dir_all(&certs).expect("folder");
            std::fs::copy(&ca, certs.join("site.crt")).expect("copy");
        }
        let mut command = siforge.command();
        command.env("HOME", home).envs(variables.iter().map(|(name, value)| (name, value)));
        let ran = run(command.args(["pull", "x.sif", &registry.reference("public/hello:v1")]));
        assert_eq!(ran.success(), works, "{what}: {ran}");
        assert!(works || ran.stderr.contains("certificate not accepted: x509: "), "{what}: {ran}");
    };
    check("nothing", &[], false);
    check("SSL_CERT_FILE", &[("SSL_CERT_FILE", ca.clone())], true);
    check("SSL_CERT_DIR", &[("SSL_CERT_DIR", hashed(&ca))], true);
    check("certs.d", &[], true);
}

#[test]
fn a_folder_that_an_ordinary_user_may_not_read_is_passed_over() {
    let registry = Registry::plain();
    registry.push("hello:v1", &hello());
    let siforge = Siforge::user(User::ordinary());
    let home = siforge.dir().join("home");
    let certs = home.join(".config/containers/certs.d").join(registry.address());
    std::fs::create_dir_all(&certs).expect("folder");
    run(Command::new("chmod").arg("700").arg(&certs)).ok();
    let mut command = siforge.command();
    command.env("HOME", &home).args(["pull", "--no-https", "x.sif", &registry.reference("hello:v1")]);
    let ran = run(&mut command).ok();
    let warning = format!("warning: the certificates in {} are passed over: ", certs.display());
    assert!(ran.stderr.contains(&warning), "{ran}");
}

/// A folder as OpenSSL has them: `<hash>.0`.
fn hashed(ca: &Path) -> PathBuf {
    let folder = ca.parent().expect("folder").with_file_name("hashed");
    std::fs::create_dir(&folder).expect("folder");
    let hash = run(Command::new("openssl").args(["x509", "-noout", "-hash", "-in"]).arg(ca)).ok().stdout;
    std::fs::copy(ca, folder.join(format!("{}.0", hash.trim()))).expect("copy");
    folder
}
