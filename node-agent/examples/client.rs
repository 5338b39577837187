//! The smallest launcher: asks the agent for an image and looks into it, without attaching the mount anywhere.
//!
//! ```text
//! client SOCKET REFERENCE FILE [idmap] [userns] [hold] [lease=NAME] [namespace=NAME]
//! ```
//!
//! Prints one JSON line: what the agent said, and owner and content of FILE in the image. With `userns` it first moves into a new user
//! namespace, whose gid_map the agent writes. With `hold` it keeps the mount, and for each line on stdin reads FILE anew.

use std::io::{BufRead, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use siforge_agent_api::{Client, MountRequest};
use siforge_launch::UserNamespace;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [socket, reference, file, options @ ..] = words.as_slice() else {
        return Err("usage: client SOCKET REFERENCE FILE [idmap] [userns] [hold] [lease=NAME] [namespace=NAME]".into());
    };
    let has = |option: &str| options.iter().any(|word| word == option);
    let lease = options.iter().find_map(|word| word.strip_prefix("lease="));
    // The namespace first: the agent takes its groups from the credentials of connect(2), which it does not change.
    let namespace = if has("userns") { Some(UserNamespace::create()?.handle()?) } else { None };
    let request = MountRequest {
        reference: reference.clone(),
        idmap: has("idmap"),
        lease: lease.map(str::to_owned),
        user_namespace: None,
        namespace: options.iter().find_map(|word| word.strip_prefix("namespace=")).map(str::to_owned),
    };
    let answer = Client::connect(Path::new(socket))
        .and_then(|mut client| client.mount(&request, namespace.as_ref().map(AsFd::as_fd)));
    let (reply, mount) = match answer {
        Ok(answer) => answer,
        Err(error) => return print(&serde_json::json!({ "error": error.to_string() })),
    };
    let (content, owner) = read(&mount, file)?;
    print(&serde_json::json!({
        "digest": reply.digest,
        "idmapped": reply.idmapped,
        "groupsMapped": reply.groups_mapped,
        "owner": owner,
        "content": content,
        "gidMap": std::fs::read_to_string("/proc/self/gid_map")?,
    }))?;
    if has("hold") {
        for line in std::io::stdin().lock().lines() {
            line?;
            print(&serde_json::json!({ "content": read(&mount, file)?.0 }))?;
        }
    }
    Ok(())
}

fn print(value: &serde_json::Value) -> Outcome<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{value}")?;
    Ok(stdout.flush()?)
}

/// Content and `uid:gid` of a file of the image, opened below the mount's descriptor.
fn read(mount: &OwnedFd, file: &str) -> Outcome<(String, String)> {
    use std::os::unix::fs::MetadataExt;
    let opened = openat(mount, file, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    let mut opened = std::fs::File::from(opened);
    let metadata = opened.metadata()?;
    let content = std::io::read_to_string(&mut opened)?;
    Ok((content, format!("{}:{}", metadata.uid(), metadata.gid())))
}
