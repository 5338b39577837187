//! Proxies of the environment.

use super::credentials::Person;
use super::wire::{Answer, Server};
use super::*;
use siforge_tests::Finished;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Mutex;

/// An HTTP proxy that leads everywhere to one server, and remembers the first lines of what it was asked.
struct Proxy {
    address: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    fn to(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = listener.local_addr().expect("address").to_string();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (target, log) = (target.to_owned(), Arc::clone(&asked));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (target, log) = (target.clone(), Arc::clone(&log));
                std::thread::spawn(move || lead(&client, &target, &log).ok());
            }
        });
        Self { address, asked }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("lock").clone()
    }
}

/// RFC 9110, 9.3.6 (CONNECT), and RFC 9112, 3.2.2 (a whole URL). One request a connection.
fn lead(client: &TcpStream, target: &str, log: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(client);
    let (mut first, mut headers) = (String::new(), String::new());
    reader.read_line(&mut first)?;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if line.trim().is_empty() {
            break;
        }
        if !line.to_ascii_lowercase().starts_with("connection:") {
            headers += &line;
        }
    }
    log.lock().expect("lock").push(first.trim().to_owned());
    let server = TcpStream::connect(target)?;
    match first.strip_prefix("CONNECT ") {
        Some(_) => (&mut &*client).write_all(b"HTTP/1.1 200 OK\r\n\r\n")?,
        None => {
            let path = first.splitn(4, '/').nth(3).unwrap_or_default().trim();
            let request = format!("GET /{path}\r\n{headers}Connection: close\r\n\r\n");
            (&mut &server).write_all(request.as_bytes())?;
        }
    }
    let (mut up_from, mut up_to) = (client.try_clone()?, server.try_clone()?);
    let up = std::thread::spawn(move || std::io::copy(&mut up_from, &mut up_to));
    std::io::copy(&mut &server, &mut &*client)?;
    client.shutdown(Shutdown::Both).ok();
    up.join().ok();
    Ok(())
}

#[test]
fn proxies_are_used_and_passed_by_as_the_environment_says() {
    let plain = Registry::plain();
    plain.push("lab/hello:v1", &hello());
    let tls = Registry::start(Options { tls: true, auth: Auth::None });
    tls.push("lab/hello:v1", &hello());
    let ca = tls.ca_cert().expect("CA").display().to_string();
    let pull = |words: &[&str], variables: &[(&str, &str)], image: &str| try_pull(words, variables, image).ok();
    for name in ["http_proxy", "HTTP_PROXY", "ALL_PROXY"] {
        let proxy = Proxy::to(&plain.address());
        let address = format!("http://{}", proxy.address);
        pull(&["--no-https"], &[(name, &address)], "docker://registry.invalid/lab/hello:v1");
        let asked = proxy.asked();
        assert!(
            asked.iter().any(|line| line.starts_with("GET http://registry.invalid/v2/lab/hello/blobs/")),
            "{asked:?}"
        );
    }
    // Linux takes it for this machine, and nobody's rules for a loopback address.
    let secure = tls.address().replace("127.0.0.1", "0.0.0.0");
    let image = format!("docker://{secure}/lab/hello:v1");
    let proxy = Proxy::to(&tls.address());
    let address = format!("http://{}", proxy.address);
    let any = ["--tls-insecure-skip-verify"];
    pull(&any, &[("HTTPS_PROXY", &address)], &image);
    let asked = proxy.asked();
    assert!(!asked.is_empty() && asked.iter().all(|line| line.starts_with(&format!("CONNECT {secure} "))), "{asked:?}");

    let passed_by = |words: &[&str], variables: &[(&str, &str)], image: &str| {
        let before = proxy.asked().len();
        pull(words, variables, image);
        assert_eq!(proxy.asked().len(), before, "{variables:?} {image}");
    };
    passed_by(&any, &[("HTTPS_PROXY", &address), ("NO_PROXY", &format!("other.example,{secure}"))], &image);
    passed_by(&any, &[("HTTPS_PROXY", &address), ("no_proxy", "*")], &image);
    passed_by(&any, &[("HTTP_PROXY", &address)], &image);
    // This machine is not behind any proxy.
    for here in [tls.address(), tls.address().replace("127.0.0.1", "localhost")] {
        let image = format!("docker://{here}/lab/hello:v1");
        passed_by(&["--tls-ca-file", &ca], &[("HTTPS_PROXY", &address)], &image);
    }
}

fn try_pull(words: &[&str], variables: &[(&str, &str)], image: &str) -> Finished {
    let person = Person::new();
    let mut command = person.command();
    command.args(["pull", "--disable-cache"]).args(words).args(["x.sif", image]);
    run(command.envs(variables.iter().copied()))
}

/// Each output is looked through for the password by the harness.
#[test]
fn a_proxy_that_refuses_does_not_make_its_password_known() {
    let refusing =
        Server::start(|request| Answer::new(407, format!("not with {:?}", request.header("proxy-authorization"))));
    for address in [refusing.address(), "127.0.0.1:1".to_owned()] {
        let proxy = format!("http://{USER}:{PASSWORD}@{address}");
        for words in [&[][..], &["--no-https"]] {
            let variables = [("HTTPS_PROXY", proxy.as_str()), ("HTTP_PROXY", proxy.as_str())];
            let ran = try_pull(words, &variables, "docker://registry.invalid/lab/hello:v1").fails_with(255);
            assert!(ran.stderr.contains("registry.invalid") && !ran.stderr.contains("panicked"), "{ran}");
        }
    }
    assert!(refusing.seen().iter().any(|request| request.header("proxy-authorization").is_some()));
}
