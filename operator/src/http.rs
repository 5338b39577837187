//! `/healthz`, `/readyz` and `/metrics`, over HTTP/1.1 with one request per connection: enough for a kubelet and Prometheus.

use crate::metrics::Metrics;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// The head of a scraper's request is some hundred bytes.
const MAX_HEAD: usize = 8 << 10;
/// For reading the request and writing the answer.
const PATIENCE: Duration = Duration::from_secs(10);
const MAX_CONNECTIONS: usize = 64;

/// What the answers tell.
pub(crate) struct State {
    pub(crate) metrics: Arc<Metrics>,
    /// Set once the store is open and the API server has answered; a follower is ready too.
    pub(crate) ready: AtomicBool,
}

pub(crate) async fn serve(listener: TcpListener, state: Arc<State>) {
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(permit) = connections.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let state = state.clone();
                tokio::spawn(async move {
                    // A client that goes away early is its own affair.
                    let _ = tokio::time::timeout(PATIENCE, answer(stream, &state)).await;
                    drop(permit);
                });
            }
            // Out of descriptors, most likely: give others time to close theirs.
            Err(error) => {
                tracing::warn!(%error, "accepting a connection failed");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn answer(mut stream: TcpStream, state: &State) -> std::io::Result<()> {
    let mut head = Vec::new();
    let mut buffer = [0; 1024];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let count = stream.read(&mut buffer).await?;
        if count == 0 || head.len() > MAX_HEAD {
            return Ok(());
        }
        head.extend_from_slice(&buffer[..count]);
    }
    let (status, kind, body) = respond(&String::from_utf8_lossy(&head), state);
    let answer = format!(
        "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.write_all(&body).await?;
    stream.shutdown().await
}

const PLAIN: &str = "text/plain; charset=utf-8";

fn respond(head: &str, state: &State) -> (&'static str, &'static str, Vec<u8>) {
    let mut words = head.lines().next().unwrap_or_default().split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = target.split('?').next().unwrap_or_default();
    if method != "GET" {
        return ("405 Method Not Allowed", PLAIN, b"only GET\n".to_vec());
    }
    match path {
        "/healthz" => ("200 OK", PLAIN, b"ok\n".to_vec()),
        "/readyz" if state.ready.load(Ordering::Relaxed) => ("200 OK", PLAIN, b"ok\n".to_vec()),
        "/readyz" => ("503 Service Unavailable", PLAIN, b"not ready\n".to_vec()),
        "/metrics" => match state.metrics.text() {
            Ok(text) => ("200 OK", "text/plain; version=0.0.4", text),
            Err(error) => ("500 Internal Server Error", PLAIN, format!("{error}\n").into_bytes()),
        },
        _ => ("404 Not Found", PLAIN, b"there are /healthz, /readyz and /metrics\n".to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        let state = State { metrics: Arc::new(Metrics::new().unwrap()), ready: AtomicBool::new(false) };
        let check = |head: &str, expect: &str| {
            let (status, ..) = respond(head, &state);
            assert!(status.starts_with(expect), "{head:?}: {status}");
        };
        check("GET /healthz HTTP/1.1\r\n\r\n", "200");
        check("GET /readyz HTTP/1.1\r\n\r\n", "503");
        check("GET /metrics?x=1 HTTP/1.1\r\n\r\n", "200");
        check("GET /other HTTP/1.1\r\n\r\n", "404");
        check("POST /healthz HTTP/1.1\r\n\r\n", "405");
        check("\u{fffd}", "405");
        state.ready.store(true, Ordering::Relaxed);
        check("GET /readyz HTTP/1.1\r\n\r\n", "200");
    }
}
