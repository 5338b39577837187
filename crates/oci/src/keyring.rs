//! Which credentials open an image's registry: the first hit of a list of places.
//!
//! ```text
//!   given (a prompt, two variables) ─▶ each file in turn: its helper for the registry ─▶ its entries ─▶ its store
//!                                        docker-credential-NAME get ◀── "HOST\n" on stdin
//!                                        {"ServerURL":"HOST","Username":"u","Secret":"p"} ──▶  or exit 1 and a reason
//! ```
//! Where the places are is the caller's to know: nothing here reads the environment. The helpers' protocol is
//! docker/docker-credential-helpers'; a user name `<token>` marks an identity token.

use crate::answer::one_line;
use crate::auth_file::{AuthFile, Candidate, InvalidAuthFile};
use crate::{Credentials, Secret};
use serde::Deserialize;
use siforge_reference::ImageRef;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

/// Bytes of a file; those of people with hundreds of registries have some tens of KiB.
const MAX_FILE: u64 = 1 << 20;
/// Bytes of a helper's answer. Tokens of cloud providers reach some KiB.
const MAX_ANSWER: u64 = 64 << 10;
/// A helper may ask its user for a passphrase, or a cloud for a token.
const HELPER_DEADLINE: Duration = Duration::from_secs(60);
/// What a helper said before it ended is there by then; what it left running may hold its output open for ever.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Where credentials may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A file's text in a variable of this name.
    Text { name: &'static str, text: Secret },
    File {
        path: PathBuf,
        /// Someone named it, so it must be there.
        required: bool,
    },
}

/// All places, first hit wins.
#[derive(Clone, Debug)]
pub struct Keyring {
    /// For whatever registry the image is in.
    pub given: Option<Credentials>,
    pub places: Vec<Place>,
    /// Folders of programs, as PATH has them.
    pub path: OsString,
    pub helper_deadline: Duration,
}

impl Default for Keyring {
    fn default() -> Self {
        Self { given: None, places: Vec::new(), path: OsString::new(), helper_deadline: HELPER_DEADLINE }
    }
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chosen {
    pub credentials: Option<Credentials>,
    /// What is not as it should be, but need not matter.
    pub warnings: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    #[error("read the credentials in {path}: {source}", path = path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("read the credentials in {path}: it has more than {MAX_FILE} bytes", path = path.display())]
    TooLarge { path: PathBuf },
    #[error("read the credentials in {place}: {source}")]
    Invalid { place: String, source: InvalidAuthFile },
    #[error(
        "docker-credential-{program}, which {place} names for {server}, is not in PATH: install it or remove the entry"
    )]
    NoHelper { program: String, place: String, server: String },
    #[error("docker-credential-{program}: {source}")]
    Start { program: String, source: io::Error },
    #[error("docker-credential-{program} gave no answer for {server} within {deadline:?}")]
    Late { program: String, server: String, deadline: Duration },
    #[error("docker-credential-{program} answered for {server} with more than {MAX_ANSWER} bytes")]
    TooMuch { program: String, server: String },
    #[error(
        "docker-credential-{program} answered for {server} with something other than JSON with Username and Secret"
    )]
    Rubbish { program: String, server: String },
    #[error("docker-credential-{program} failed for {server}: {detail}")]
    Failed { program: String, server: String, detail: String },
}

impl Keyring {
    /// The credentials for an image.
    pub async fn find(&self, image: &ImageRef) -> Result<Chosen, KeyringError> {
        match &self.given {
            Some(given) => Ok(Chosen { credentials: Some(given.clone()), warnings: Vec::new() }),
            None => self.find_stored(image).await,
        }
    }

    /// The same without those that were given: for a registry that the user did not name.
    pub async fn find_stored(&self, image: &ImageRef) -> Result<Chosen, KeyringError> {
        let mut warnings = Vec::new();
        for place in &self.places {
            let Some((name, file)) = place.read()? else {
                continue;
            };
            let invalid = |source| KeyringError::Invalid { place: name.clone(), source };
            for candidate in file.candidates(image).map_err(invalid)? {
                let credentials = match candidate {
                    Candidate::Here(credentials) => Some(credentials),
                    Candidate::Helper { program, server, named } => match self.program(&program) {
                        Some(path) => self.ask(&path, &program, &server).await?,
                        None if named => return Err(KeyringError::NoHelper { program, place: name, server }),
                        // A config.json that came from a laptop: no reason to refuse public images.
                        None => {
                            warnings.push(format!("docker-credential-{program}, which {name} names, is not in PATH"));
                            None
                        }
                    },
                };
                if credentials.is_some() {
                    return Ok(Chosen { credentials, warnings });
                }
            }
        }
        Ok(Chosen { credentials: None, warnings })
    }

    fn program(&self, name: &str) -> Option<PathBuf> {
        let file = format!("docker-credential-{name}");
        let absolute = std::env::split_paths(&self.path).filter(|folder| folder.is_absolute());
        absolute.map(|folder| folder.join(&file)).find(|path| path.is_file())
    }

    async fn ask(&self, path: &Path, program: &str, server: &str) -> Result<Option<Credentials>, KeyringError> {
        let start = |source| KeyringError::Start { program: program.to_owned(), source };
        let answer = match tokio::time::timeout(self.helper_deadline, answer(path, server)).await {
            Ok(answer) => answer.map_err(start)?,
            Err(_) => {
                let deadline = self.helper_deadline;
                return Err(KeyringError::Late { program: program.to_owned(), server: server.to_owned(), deadline });
            }
        };
        let (program, server) = (program.to_owned(), server.to_owned());
        match understood(&answer) {
            Answered::Credentials(credentials) => Ok(Some(credentials)),
            Answered::None => Ok(None),
            Answered::TooMuch => Err(KeyringError::TooMuch { program, server }),
            Answered::Rubbish => Err(KeyringError::Rubbish { program, server }),
            Answered::Failed(detail) => Err(KeyringError::Failed { program, server, detail }),
        }
    }
}

impl Place {
    /// The file and its name for people, if it is there.
    pub fn read(&self) -> Result<Option<(String, AuthFile)>, KeyringError> {
        let (name, text) = match self {
            Self::Text { name, text } => ((*name).to_owned(), text.expose().as_bytes().to_vec()),
            Self::File { path, required } => match read_file(path)? {
                Some(text) => (path.display().to_string(), text),
                None if *required => {
                    return Err(KeyringError::Read { path: path.clone(), source: io::ErrorKind::NotFound.into() });
                }
                None => return Ok(None),
            },
        };
        match AuthFile::parse(&text) {
            Ok(file) => Ok(Some((name, file))),
            Err(source) => Err(KeyringError::Invalid { place: name, source }),
        }
    }
}

/// A file of credentials, bounded; None when there is none.
pub fn read_file(path: &Path) -> Result<Option<Vec<u8>>, KeyringError> {
    use std::io::Read;
    let wrong = |source| KeyringError::Read { path: path.to_owned(), source };
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(wrong(error)),
    };
    let mut text = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut text).map_err(wrong)?;
    match text.len() as u64 > MAX_FILE {
        true => Err(KeyringError::TooLarge { path: path.to_owned() }),
        false => Ok(Some(text)),
    }
}

/// What a helper left behind.
struct Output {
    success: bool,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

/// A helper that is given up takes along what it has started.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        // Only as long as it is not reaped is its number its own.
        let group = self.0.id().and_then(|id| rustix::process::Pid::from_raw(i32::try_from(id).ok()?));
        if let Some(group) = group {
            // It may have ended by now.
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    }
}

async fn answer(path: &Path, server: &str) -> io::Result<Output> {
    let mut command = Command::new(path.as_os_str() as &OsStr);
    command.arg("get").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut group = Group(command.process_group(0).kill_on_drop(true).spawn()?);
    let child = &mut group.0;
    let (stdin, from_stdout, from_stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let ask = async {
        if let Some(mut stdin) = stdin {
            // One that does not read has its reasons; its answer counts.
            let _ = stdin.write_all(format!("{server}\n").as_bytes()).await;
        }
    };
    let ended = {
        let talk = async { tokio::join!(ask, bounded(from_stdout, &mut stdout), bounded(from_stderr, &mut stderr)) };
        let mut talk = pin!(talk);
        tokio::select! {
            ((), stdout, stderr) = &mut talk => { stdout.and(stderr)?; None }
            ended = child.wait() => {
                if let Ok(((), stdout, stderr)) = tokio::time::timeout(LAST_WORDS, talk).await {
                    stdout.and(stderr)?;
                }
                Some(ended?)
            }
        }
    };
    let success = match ended {
        Some(status) => status.success(),
        // One that has said too much may be blocked at saying more: it is not waited for.
        None => stdout.len() as u64 > MAX_ANSWER || child.wait().await?.success(),
    };
    Ok(Output { success, stdout, stderr })
}

async fn bounded(pipe: Option<impl AsyncRead + Unpin>, bytes: &mut Vec<u8>) -> io::Result<()> {
    let Some(pipe) = pipe else {
        return Ok(());
    };
    let mut pipe = pipe.take(MAX_ANSWER + 1);
    // Whoever stops waiting keeps what came so far.
    while pipe.read_buf(bytes).await? > 0 {}
    Ok(())
}

enum Answered {
    Credentials(Credentials),
    /// It has none.
    None,
    TooMuch,
    Rubbish,
    Failed(String),
}

/// The protocol, from `client/client.go` of docker-credential-helpers.
fn understood(output: &Output) -> Answered {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Got {
        username: String,
        secret: Secret,
    }
    if output.stdout.len() as u64 > MAX_ANSWER {
        return Answered::TooMuch;
    }
    if !output.success {
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let said = [out.trim(), err.trim()];
        return match said.iter().any(|text| text.contains("credentials not found")) {
            true => Answered::None,
            // The protocol has reasons on stdout. What looks like an answer may hold the secret.
            false => match said.into_iter().find(|text| !text.is_empty() && !text.contains('{')) {
                Some(reason) => Answered::Failed(one_line(reason, &[])),
                None => Answered::Failed("it did not say why".to_owned()),
            },
        };
    }
    match serde_json::from_slice::<Got>(&output.stdout) {
        Ok(Got { username, secret }) if username == "<token>" => {
            Answered::Credentials(Credentials::Identity { token: secret })
        }
        // Some helpers answer so for registries that they do not know.
        Ok(Got { username, secret }) if username.is_empty() && secret.expose().is_empty() => Answered::None,
        Ok(Got { username, secret }) => Answered::Credentials(Credentials::Password { username, password: secret }),
        Err(_) => Answered::Rubbish,
    }
}

#[cfg(test)]
mod tests;
