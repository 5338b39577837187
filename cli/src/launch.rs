//! `exec`, `run`, `shell` and `test`: open the image, look at it, plan, enter.

use crate::cli::{Container, Exec, Global, Run, Shell, Test};
use crate::config::Config;
use crate::error::Error;
use crate::root::{self, Identity};
use siforge_launch::{
    Bind, Contain, Home, Host, Namespaces, NoMount, Overlay, PathKind, Request, Subordinate, UserEntry, plan,
};
use siforge_sif::observe::Seen;
use siforge_sif::process::{Mode, Options};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// An --env-file is written by hand.
const ENV_FILE_LIMIT: u64 = 1 << 20;

pub(crate) fn exec(global: &Global, config: &Config, options: &Exec) -> Result<i32, Error> {
    let (image, command) = image_and_words(&options.words)?;
    launch(global, config, &options.container, image, Mode::Exec, command, None)
}

pub(crate) fn run(global: &Global, config: &Config, options: &Run) -> Result<i32, Error> {
    let (image, arguments) = image_and_words(&options.words)?;
    launch(global, config, &options.container, image, Mode::Run, arguments, None)
}

pub(crate) fn test(global: &Global, config: &Config, options: &Test) -> Result<i32, Error> {
    let (image, arguments) = image_and_words(&options.words)?;
    launch(global, config, &options.container, image, Mode::Test, arguments, None)
}

pub(crate) fn shell(global: &Global, config: &Config, options: &Shell) -> Result<i32, Error> {
    let (image, arguments) = image_and_words(&options.words)?;
    let shell = options.shell.clone();
    launch(global, config, &options.container, image, Mode::Shell, arguments, shell)
}

/// clap takes an option that it does not know for the first word.
fn image_and_words(words: &[OsString]) -> Result<(&OsStr, &[OsString]), Error> {
    match words.split_first() {
        Some((image, rest)) if !image.as_bytes().starts_with(b"-") => Ok((image, rest)),
        Some((option, _)) => Err(Error::UnknownOption { value: option.clone() }),
        None => Err(Error::NoImage),
    }
}

/// Returns the command's exit code when it ran under an init of ours; else this process becomes the command.
fn launch(
    global: &Global,
    config: &Config,
    container: &Container,
    image: &OsStr,
    mode: Mode,
    arguments: &[OsString],
    shell: Option<OsString>,
) -> Result<i32, Error> {
    let mut request = request(config, container)?;
    let mut options = process_options(container)?;
    options.app = options.app.or_else(|| app_of(&config.environment));
    let caller = Host::observe()?;
    let identity = match (caller.uid != 0, container.userns, container.fakeroot) {
        (true, _, true) => {
            Identity::Root(Subordinate::find(caller.uid, caller.user.as_ref().map(|user| &*user.name)).ok())
        }
        (true, ..) | (_, true, _) => Identity::Caller,
        (false, false, _) => Identity::Unchanged,
    };
    let host = match identity {
        Identity::Root(_) => as_root(&mut request, caller),
        _ => caller,
    };
    let mut plan = plan::make(&request, &host, &siforge_launch::path_kind)?;
    let privileged = matches!(identity, Identity::Unchanged);
    let opening = root::open(global, config, &container.registry, identity, image)?;
    // While the agent looks for the image. A plan is shown from where the caller is.
    let begun = (!container.dry_run).then(|| siforge_launch::begin(&plan, privileged)).transpose()?;
    let opened = opening.finish(global)?;
    // An image may have become a directory, too: the cache's own copy.
    if plan.writable && !opened.sandbox {
        return Err(siforge_launch::Error::NotWritable.into());
    }
    plan.feign_ids = opened.namespace.as_ref().is_some_and(|(namespace, _)| namespace.is_root_alone());

    options.shell = shell;
    options.container = opened.container;
    options.name = opened.name;
    options.scripts = opened.sandbox;
    options.home = home_inside(&request.home, &host);
    let seen = Seen::look(opened.root.fd())?;
    let process = seen.process(&config.environment, mode, arguments, &options)?;
    plan.argv = process.argv;
    plan.env = process.env;
    let Some(begun) = begun else {
        println!("{}", serde_json::to_string_pretty(&plan).map_err(|source| Error::DryRun { source })?);
        return Ok(0);
    };
    let root = opened.root.into_root();
    Ok(match opened.namespace {
        Some((namespace, groups)) => begun.enter_user(&plan, &namespace, groups, root)?,
        None => begun.enter_privileged(&plan, root)?,
    })
}

/// Who the caller is inside with `--fakeroot`: root, at home in /root.
fn as_root(request: &mut Request, caller: Host) -> Host {
    let root = Path::new("/root");
    if let (Home::Default, Some(user)) = (&request.home, &caller.user) {
        request.home = match siforge_launch::path_kind(&user.home) {
            Some(PathKind::Directory) => Home::At { source: user.home.clone(), target: root.into() },
            _ => Home::None,
        };
    }
    let shell = caller.user.as_ref().map_or_else(|| "/bin/sh".to_owned(), |user| user.shell.clone());
    let user = UserEntry { name: "root".into(), gecos: "root".into(), home: root.into(), shell };
    Host { uid: 0, gid: 0, groups: Vec::new(), user: Some(user), group_names: vec![(0, "root".into())], ..caller }
}

/// What APPTAINER_APP and the like say; the first that is there.
fn app_of(environment: &[(OsString, OsString)]) -> Option<String> {
    let names = ["APPTAINER_APP", "APPTAINER_APPNAME", "SINGULARITY_APP", "SINGULARITY_APPNAME"];
    let value = |name: &&str| environment.iter().find(|(key, _)| key == name).map(|(_, value)| value.to_str());
    names.iter().find_map(value).flatten().filter(|app| !app.is_empty()).map(str::to_owned)
}

/// HOME inside: as asked, else the passwd entry's.
fn home_inside(home: &Home, host: &Host) -> Option<OsString> {
    match home {
        Home::At { target, .. } => Some(target.clone().into()),
        Home::Default | Home::None => host.user.as_ref().map(|user| user.home.clone().into()),
    }
}

/// All but command and environment, which the image decides about.
fn request(config: &Config, container: &Container) -> Result<Request, Error> {
    let mut binds = Vec::new();
    for text in config.bind.iter().chain(&container.bind) {
        binds.extend(Bind::parse_list(text)?);
    }
    let no_mount = |word: &String| NoMount::parse(word).ok_or_else(|| Error::NoMount { value: word.clone() });
    Ok(Request {
        cwd: container.cwd.clone(),
        binds,
        home: match (&container.home, container.no_home) {
            (Some(text), _) => Home::parse(text)?,
            (None, true) => Home::None,
            (None, false) => Home::Default,
        },
        contain: match (container.containall, container.contain) {
            (true, _) => Contain::All,
            (false, true) => Contain::Minimal,
            (false, false) => Contain::No,
        },
        writable_tmpfs: container.writable_tmpfs,
        writable: container.writable,
        overlay: container.overlay.as_deref().map(Overlay::parse),
        namespaces: Namespaces { pid: container.pid, ipc: container.ipc, uts: container.uts, net: container.net },
        no_mount: container.no_mount.iter().map(no_mount).collect::<Result<_, _>>()?,
        hostname: container.hostname.clone(),
        workdir: container.workdir.clone(),
        scratch: container.scratch.clone(),
        ..Request::default()
    })
}

fn process_options(container: &Container) -> Result<Options, Error> {
    let mut env = Vec::new();
    for path in &container.env_file {
        for line in crate::files::read_limited(path, ENV_FILE_LIMIT)?.split(|byte| *byte == b'\n') {
            let line = line.trim_ascii();
            if !line.is_empty() && !line.starts_with(b"#") {
                env.push(pair(OsStr::from_bytes(line))?);
            }
        }
    }
    for text in &container.env {
        env.extend(pairs(text)?);
    }
    Ok(Options {
        cleanenv: container.cleanenv || container.containall,
        env,
        no_eval: container.no_eval,
        app: container.app.clone(),
        ..Options::default()
    })
}

/// `A=1,B=2`, as the reference's string list; a part without `=` belongs to the value before it.
pub(crate) fn pairs(text: &OsStr) -> Result<Vec<(OsString, OsString)>, Error> {
    let mut pairs: Vec<(OsString, OsString)> = Vec::new();
    for part in text.as_bytes().split(|byte| *byte == b',') {
        match (part.contains(&b'='), pairs.last_mut()) {
            (false, Some((_, value))) => {
                value.push(",");
                value.push(OsStr::from_bytes(part));
            }
            _ => pairs.push(pair(OsStr::from_bytes(part))?),
        }
    }
    Ok(pairs)
}

fn pair(text: &OsStr) -> Result<(OsString, OsString), Error> {
    let bytes = text.as_bytes();
    match bytes.iter().position(|byte| *byte == b'=') {
        Some(at) if at > 0 => {
            Ok((OsStr::from_bytes(&bytes[..at]).to_owned(), OsStr::from_bytes(&bytes[at + 1..]).to_owned()))
        }
        _ => Err(Error::Env { value: text.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environment_options() {
        let check = |text: &str, expect: Option<&[(&str, &str)]>| {
            let expect: Option<Vec<(OsString, OsString)>> =
                expect.map(|pairs| pairs.iter().map(|(k, v)| (k.into(), v.into())).collect());
            assert_eq!(pairs(OsStr::new(text)).ok(), expect, "{text}");
        };
        check("A=1", Some(&[("A", "1")]));
        check("A=1,B=2", Some(&[("A", "1"), ("B", "2")]));
        check("A=1,2,3,B=", Some(&[("A", "1,2,3"), ("B", "")]));
        check("A=b=c", Some(&[("A", "b=c")]));
        check("A", None);
        check("=x", None);
    }
}
