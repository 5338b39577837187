//! The other side of a wire, for what no real registry does on demand: an HTTP server that says what a test wants, and a
//! proxy that breaks connections.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    /// Names in lower case.
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// An answer; `Content-Length` is added.
pub(crate) struct Answer {
    /// The connection stays open behind it, and nothing comes.
    stalled: bool,
    status: u16,
    length: Option<usize>,
    headers: String,
    body: Vec<u8>,
}

impl Answer {
    pub(crate) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { stalled: false, status, length: None, headers: String::new(), body: body.into() }
    }

    /// Says that the body has `length` bytes, and breaks off after those that it has.
    pub(crate) fn promising(mut self, length: usize) -> Self {
        self.length = Some(length);
        self
    }

    /// Keeps the connection open when the body ends too early.
    pub(crate) fn stalling(mut self) -> Self {
        self.stalled = true;
        self
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers += &format!("{name}: {value}\r\n");
        self
    }
}

/// An HTTP/1.1 server on 127.0.0.1 with one request a connection; its threads end with the test binary.
pub(crate) struct Server {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    pub(crate) fn start(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = listener.local_addr().expect("address");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (answer, log) = (Arc::new(answer), Arc::clone(&seen));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (answer, log) = (Arc::clone(&answer), Arc::clone(&log));
                // A client that goes away in the middle is its own matter.
                std::thread::spawn(move || serve(stream, &*answer, &log).ok());
            }
        });
        Self { address, seen }
    }

    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    /// What was asked for so far.
    pub(crate) fn seen(&self) -> Vec<Request> {
        self.seen.lock().expect("lock").clone()
    }
}

fn serve(stream: TcpStream, answer: &dyn Fn(&Request) -> Answer, log: &Mutex<Vec<Request>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(&stream);
    let mut lines = reader.by_ref().lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    let mut headers = Vec::new();
    while let Some(line) = lines.next().transpose()?.filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':').unwrap_or((&line, ""));
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut words = first.split(' ').map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut request = Request { method, path, headers, body: Vec::new() };
    let length = request.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    reader.take(length).read_to_end(&mut request.body)?;
    let answer = answer(&request);
    log.lock().expect("lock").push(request);
    let head = format!(
        "HTTP/1.1 {} X\r\nContent-Length: {}\r\nConnection: close\r\n{}\r\n",
        answer.status,
        answer.length.unwrap_or(answer.body.len()),
        answer.headers
    );
    (&stream).write_all(head.as_bytes())?;
    (&stream).write_all(&answer.body)?;
    // Until the client gives up.
    if answer.stalled { (&stream).read(&mut [0]).map(drop) } else { Ok(()) }
}

/// A TCP proxy on 127.0.0.1 that cuts each connection after it has brought `limit` bytes from the server.
pub(crate) fn cutting_proxy(target: &str, limit: u64) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address").to_string();
    let target = target.to_owned();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let server = TcpStream::connect(&target).expect("connect to the registry");
            std::thread::spawn(move || cut_after(client, server, limit).ok());
        }
    });
    address
}

fn cut_after(client: TcpStream, server: TcpStream, limit: u64) -> std::io::Result<()> {
    let (mut up_from, mut up_to) = (client.try_clone()?, server.try_clone()?);
    let up = std::thread::spawn(move || std::io::copy(&mut up_from, &mut up_to));
    let copied = std::io::copy(&mut (&server).take(limit), &mut &client);
    server.shutdown(Shutdown::Both).ok();
    client.shutdown(Shutdown::Both).ok();
    up.join().ok();
    copied.map(drop)
}
