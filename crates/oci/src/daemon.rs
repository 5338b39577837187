//! `docker-daemon:`: an image of a container engine on this machine.
//!
//! ```text
//!   DOCKER_HOST   unix:///var/run/docker.sock (the default) | tcp://HOST:PORT | http://… | https://…
//!   GET /images/<name>/get  ─▶  what `docker save` writes  ─▶  an unnamed temporary file  ─▶  local::docker
//! ```
//!
//! The Docker Engine's HTTP API (`ImageGet`), which podman's `podman system service` has too. The engine sends the layers
//! in an order of its own and says only at the end which they are, so the archive is written down before it is read.

use crate::local::{self, Error, Image};
use crate::{Tls, answer};
use reqwest::{Response, StatusCode, Url};
use siforge_reference::{Digest, ImageRef};
use std::fs::File;
use std::path::Path;
use std::time::Duration;
use tokio::io::AsyncWriteExt;

/// Where Docker listens unless told otherwise (docker/cli `opts/hosts.go`).
pub const DEFAULT_HOST: &str = "unix:///var/run/docker.sock";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// podman writes the whole archive down before it sends the first byte.
const IDLE_TIMEOUT: Duration = Duration::from_secs(600);
const MAX_ERROR_BODY: usize = 16 << 10;

/// An engine that can be asked.
struct Engine {
    http: reqwest::Client,
    base: Url,
    host: String,
    shown: String,
}

/// The image `name` (`[registry/]repository[:tag][@digest]`, or `sha256:<id>`) of the engine at `host`.
pub async fn image(name: &str, host: &str, options: &local::Options<'_>) -> Result<Image, Error> {
    let shown = answer::one_line(&format!("docker-daemon:{name}"), &[]);
    // With its tag: the engine takes a bare name for all tags that there are. What the grammar allows needs no escaping.
    let selector = match (name.parse::<Digest>(), name.parse::<ImageRef>()) {
        (Ok(id), _) => id.to_string(),
        (_, Ok(reference)) => reference.familiar(),
        (_, Err(error)) => return Err(Error::Format { shown, detail: error.to_string() }),
    };
    let engine = Engine::at(host, shown)?;
    let file = engine.save(&selector, options).await?;
    let (shown, platform, tmpdir) = (engine.shown, options.platform.clone(), options.tmpdir.to_owned());
    let unpacked_bytes = options.unpacked_bytes;
    let opened = tokio::task::spawn_blocking(move || {
        local::saved(shown, file, &local::Options { platform: &platform, tmpdir: &tmpdir, unpacked_bytes })
    });
    opened.await.map_err(|error| Error::Io {
        shown: answer::one_line(&format!("docker-daemon:{name}"), &[]),
        operation: "read",
        name: "its archive".to_owned(),
        source: std::io::Error::other(error),
    })?
}

impl Engine {
    fn at(host: &str, shown: String) -> Result<Self, Error> {
        let unusable =
            |detail: &str| Error::Engine { shown: shown.clone(), host: without_login(host), detail: detail.to_owned() };
        let tls = Tls::default().client_config(&without_login(host)).map_err(|error| unusable(&error.to_string()))?;
        let builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(IDLE_TIMEOUT)
            .no_proxy();
        let (builder, base) = match host.split_once("://") {
            Some(("unix", path)) if path.starts_with('/') => {
                (builder.unix_socket(Path::new(path)), "http://docker/".to_owned())
            }
            Some(("tcp", address)) => (builder, format!("http://{}/", address.trim_end_matches('/'))),
            Some(("http" | "https", _)) => (builder, format!("{}/", host.trim_end_matches('/'))),
            _ => {
                return Err(unusable(
                    "DOCKER_HOST must be unix:///path, tcp://host:port, http://… or https://…; for ssh:// forward the socket with ssh -L",
                ));
            }
        };
        let base = Url::parse(&base).map_err(|_| unusable("DOCKER_HOST holds no valid address"))?;
        let http = builder.build().map_err(|error| unusable(&error.to_string()))?;
        Ok(Self { http, base, host: without_login(host), shown })
    }

    /// The image as `docker save` writes it, in a file without a name.
    async fn save(&self, selector: &str, options: &local::Options<'_>) -> Result<File, Error> {
        let url =
            self.base.join(&format!("images/{selector}/get")).map_err(|_| self.error("no such name".to_owned()))?;
        let sent = self.http.get(url).send().await;
        let mut response = sent.map_err(|error| self.broken(&error))?;
        if response.status() != StatusCode::OK {
            return Err(self.refusal(response).await);
        }
        let io = |operation, source| Error::Io {
            shown: self.shown.clone(),
            operation,
            name: format!("{} (--tmpdir names another place)", options.tmpdir.display()),
            source,
        };
        let file = tempfile::tempfile_in(options.tmpdir).map_err(|source| io("create a temporary file in", source))?;
        let copy = file.try_clone().map_err(|source| io("create a temporary file in", source))?;
        let (mut to, mut total) = (tokio::fs::File::from_std(copy), 0);
        while let Some(chunk) = response.chunk().await.map_err(|error| self.broken(&error))? {
            total += chunk.len() as u64;
            if total > options.unpacked_bytes {
                let (what, max) = ("size", options.unpacked_bytes);
                return Err(Error::Limit { shown: self.shown.clone(), what, actual: total, max });
            }
            to.write_all(&chunk).await.map_err(|source| io("write to", source))?;
        }
        to.flush().await.map_err(|source| io("write to", source))?;
        Ok(file)
    }

    async fn refusal(&self, mut response: Response) -> Error {
        #[derive(serde::Deserialize)]
        struct Told {
            message: String,
        }
        let status = response.status();
        let mut body = Vec::new();
        // What cannot be read of an explanation is left out: the status is what counts.
        while let Ok(Some(chunk)) = response.chunk().await
            && body.len() < MAX_ERROR_BODY
        {
            body.extend_from_slice(&chunk);
        }
        let told = serde_json::from_slice::<Told>(&body).map(|told| answer::one_line(&told.message, &[]));
        self.error(told.unwrap_or_else(|_| format!("status {status}")))
    }

    fn error(&self, detail: String) -> Error {
        Error::Engine { shown: self.shown.clone(), host: self.host.clone(), detail }
    }

    fn broken(&self, error: &reqwest::Error) -> Error {
        let mut cause: &dyn std::error::Error = error;
        while let Some(next) = cause.source() {
            cause = next;
        }
        let hint = match error.is_connect() {
            true => "; DOCKER_HOST names another engine, such as podman's unix:///run/podman/podman.sock",
            false => "",
        };
        self.error(format!("{}{hint}", answer::one_line(&cause.to_string(), &[])))
    }
}

/// An engine's address for people: without the user and password that may stand in it.
fn without_login(host: &str) -> String {
    let (scheme, rest) = host.split_once("://").map_or(("", host), |(scheme, rest)| (scheme, rest));
    let rest = match (scheme, rest.rsplit_once('@')) {
        // A path, which may hold an @.
        ("unix", _) | (_, None) => rest,
        (_, Some((_, address))) => address,
    };
    let separator = if scheme.is_empty() { "" } else { "://" };
    answer::one_line(&format!("{scheme}{separator}{rest}"), &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_login() {
        for (host, shown) in [
            ("tcp://user:pw@host:2375", "tcp://host:2375"),
            ("https://user:p/w@x@host/", "https://host/"),
            ("user:pw@host", "host"),
            ("ssh://user@host", "ssh://host"),
            ("unix:///run/a@b/c.sock", "unix:///run/a@b/c.sock"),
            ("", ""),
        ] {
            assert_eq!(without_login(host), shown);
            if let Err(error) = Engine::at(host, "docker-daemon:x".to_owned()) {
                assert!(!error.to_string().contains("pw"), "{error}");
            }
        }
    }
}
