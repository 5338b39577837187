//! Launches a command in a directory or a squashfs file, to try and to time the crate without the rest of siforge:
//!
//! ```text
//! launch [-n] [OPTION…] ROOT COMMAND [ARGUMENT…]      ROOT: a directory, or (root only) a squashfs file
//! ```

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::ExitCode;

use siforge_launch::{
    Bind, Contain, Groups, Home, Host, NoMount, Request, RootFs, UserNamespace, plan,
};

type Failure = Box<dyn std::error::Error>;

struct Options {
    request: Request,
    dry_run: bool,
    root: PathBuf,
}

fn main() -> ExitCode {
    match run() {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(255)),
        Err(e) => {
            eprintln!("FATAL:   {e}");
            ExitCode::from(255)
        }
    }
}

fn parse() -> Result<Options, Failure> {
    let mut arguments = std::env::args_os().skip(1);
    let mut request = Request {
        env: std::env::vars_os().collect(),
        ..Request::default()
    };
    let mut dry_run = false;
    let root = loop {
        let word = arguments.next().ok_or("no root file system given")?;
        let mut value = || arguments.next().ok_or("an option lacks its value");
        match word.to_str() {
            Some("--dry-run") => dry_run = true,
            Some("--bind") => request.binds.extend(Bind::parse_list(&value()?)?),
            Some("--home") => request.home = Home::parse(&value()?)?,
            Some("--no-home") => request.home = Home::None,
            Some("--contain") => request.contain = Contain::Minimal,
            Some("--containall") => request.contain = Contain::All,
            Some("--writable-tmpfs") => request.writable_tmpfs = true,
            Some("--cwd") => request.cwd = Some(value()?.into()),
            Some("--pid") => request.namespaces.pid = true,
            Some("--net") => request.namespaces.net = true,
            Some("--hostname") => request.hostname = Some(value()?.to_string_lossy().into_owned()),
            Some("--workdir") => request.workdir = Some(value()?.into()),
            Some("--no-mount") => {
                let words = value()?.to_string_lossy().into_owned();
                for word in words.split(',') {
                    request
                        .no_mount
                        .push(NoMount::parse(word).ok_or("unknown word of --no-mount")?);
                }
            }
            _ => break PathBuf::from(word),
        }
    };
    request.argv = arguments.collect::<Vec<OsString>>();
    Ok(Options {
        request,
        dry_run,
        root,
    })
}

fn run() -> Result<i32, Failure> {
    let Options {
        request,
        dry_run,
        root,
    } = parse()?;
    let host = Host::observe()?;
    let plan = plan::make(&request, &host, &siforge_launch::path_kind)?;
    if dry_run {
        println!("{}", serde_json::to_string_pretty(&plan)?);
        return Ok(0);
    }
    let metadata = std::fs::metadata(&root)?;
    let source = if metadata.is_dir() {
        RootFs::Directory(root)
    } else {
        RootFs::Squashfs {
            file: File::open(&root)?,
            path: root,
            offset: 0,
            size: metadata.size(),
        }
    };
    if host.uid == 0 {
        Ok(siforge_launch::enter_privileged(&plan, source)?)
    } else {
        let namespace = UserNamespace::create()?;
        Ok(siforge_launch::enter_user(
            &plan,
            &namespace,
            Groups::Own,
            source,
        )?)
    }
}
