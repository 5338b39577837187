//! The environment, evaluated without a shell. Pure; the steps are numbered as in the parent module's drawing.

use super::caller::Caller;
use super::{DEFAULT_PATH, LIBS, Mode, Options, PROMPT, Pair, RunConfig};
use crate::image_config::variables;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

type Environment = BTreeMap<OsString, OsString>;

pub(super) fn environment(
    config: &RunConfig,
    caller: &Caller,
    mode: Mode,
    argv: &[OsString],
    options: &Options,
) -> Vec<Pair> {
    let mut env = Environment::new();
    // The scripts see these, so that an image's ENV HOME gives way to the launch's.
    env.extend(launch_variables(mode, options, caller.no_eval));
    image(&mut env, config, caller);
    inject(&mut env, caller);
    libraries_and_prompt(&mut env);
    caller_path(&mut env, caller);
    for (name, value) in &caller.host {
        env.entry(name.clone()).or_insert_with(|| value.clone());
    }
    let prompt_command = prompt_command(env.get(OsStr::new("PS1")).map_or(OsStr::new(PROMPT), OsString::as_os_str));
    env.insert("PROMPT_COMMAND".into(), prompt_command);
    if mode == Mode::Shell && caller.shell.is_none() {
        env.extend(argv.first().map(|shell| ("SHELL".into(), shell.clone())));
    }
    env.into_iter().collect()
}

/// 1: PATH outright, others unless they are injected (or are HOME).
fn image(env: &mut Environment, config: &RunConfig, caller: &Caller) {
    for (name, value) in variables(&config.env) {
        let name = OsString::from(name);
        if name == "PATH" {
            env.insert(name, value.into());
        } else if !caller.injected.contains_key(&name) {
            env.entry(name).or_insert_with(|| value.into());
        }
    }
    let path = env.entry("PATH".into()).or_default();
    for directory in DEFAULT_PATH.split(':') {
        if !path.as_bytes().split(|byte| *byte == b':').any(|part| part == directory.as_bytes()) {
            append(path, directory.as_ref());
        }
    }
}

/// 2: in the order of their names, as the scripts do, so that one may name another.
fn inject(env: &mut Environment, caller: &Caller) {
    for (name, value) in &caller.injected {
        let value = if caller.no_eval { value.clone() } else { expand(value, env) };
        env.insert(name.clone(), value);
    }
}

/// 3
fn libraries_and_prompt(env: &mut Environment) {
    append(env.entry("LD_LIBRARY_PATH".into()).or_default(), LIBS.as_ref());
    let prompt = env.entry("PS1".into()).or_default();
    if prompt.is_empty() {
        *prompt = PROMPT.into();
    }
}

/// 4: what is given as the empty string changes nothing.
fn caller_path(env: &mut Environment, caller: &Caller) {
    let evaluate = |value: &Option<OsString>, env: &Environment| {
        let value = value.clone().filter(|value| !value.is_empty())?;
        Some(if caller.no_eval { value } else { expand(&value, env) }).filter(|value| !value.is_empty())
    };
    let (prepend, extend, replace) =
        (evaluate(&caller.prepend_path, env), evaluate(&caller.append_path, env), evaluate(&caller.path, env));
    let path = env.entry("PATH".into()).or_default();
    if let Some(mut prepended) = prepend {
        prepended.push(":");
        prepended.push(&*path);
        *path = prepended;
    }
    if let Some(extension) = extend {
        path.push(":");
        path.push(extension);
    }
    if let Some(replacement) = replace {
        *path = replacement;
    }
}

/// What the launch itself says. The reference's names, under both of its prefixes.
pub(super) fn launch_variables(mode: Mode, options: &Options, no_eval: bool) -> Vec<Pair> {
    let mut variables: Vec<Pair> = vec![
        ("APPTAINER_COMMAND".into(), mode.name().into()),
        ("APPTAINER_APPNAME".into(), options.app.clone().unwrap_or_default().into()),
    ];
    variables.extend(options.app.clone().map(|app| ("SINGULARITY_APPNAME".into(), app.into())));
    for prefix in ["APPTAINER", "SINGULARITY"] {
        let mut add = |name: &str, value: OsString| variables.push((format!("{prefix}_{name}").into(), value));
        add("BIND", options.bind.clone());
        add("CONTAINER", options.container.clone());
        add("ENVIRONMENT", "/.singularity.d/env/91-environment.sh".into());
        add("NAME", options.name.clone());
        if no_eval {
            add("NO_EVAL", "1".into());
        }
    }
    variables.extend(options.home.clone().map(|home| ("HOME".into(), home)));
    variables
}

/// A bash in the image reads its own rc file, which sets PS1 anew: PROMPT_COMMAND sets it back once.
fn prompt_command(prompt: &OsStr) -> OsString {
    let mut command = b"PS1='".to_vec();
    for byte in prompt.as_bytes() {
        match byte {
            b'\'' => command.extend_from_slice(b"'\\''"),
            other => command.push(*other),
        }
    }
    command.extend_from_slice(b"'; unset PROMPT_COMMAND");
    OsString::from_vec(command)
}

/// `old:new`, or `new` if there was nothing.
fn append(list: &mut OsString, item: &OsStr) {
    if !list.is_empty() {
        list.push(":");
    }
    list.push(item);
}

/// A piece of a value that is expanded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Text(Vec<u8>),
    Variable(String),
}

/// Takes a value apart as a shell does in double quotes: `$NAME`, `${NAME}`, and backslash before `$`, a backquote, `"`, backslash.
/// All else stays as it is: command substitution in a variable's value is not carried out.
pub(super) fn pieces(value: &OsStr) -> Vec<Piece> {
    let mut rest = value.as_bytes();
    let mut pieces = Vec::new();
    let mut text = Vec::new();
    while let Some((first, tail)) = rest.split_first() {
        if let (b'\\', Some(escaped @ (b'$' | b'`' | b'"' | b'\\'))) = (first, tail.first()) {
            text.push(*escaped);
            rest = &tail[1..];
            continue;
        }
        if let (b'$', Some((name, after))) = (first, variable(tail)) {
            pieces.push(Piece::Text(std::mem::take(&mut text)));
            pieces.push(Piece::Variable(name));
            rest = after;
            continue;
        }
        text.push(*first);
        rest = tail;
    }
    pieces.push(Piece::Text(text));
    pieces
}

/// The name after a dollar sign, and what follows.
fn variable(tail: &[u8]) -> Option<(String, &[u8])> {
    let (braced, inner) = match tail.strip_prefix(b"{") {
        Some(inner) => (true, inner),
        None => (false, tail),
    };
    let end = inner.iter().position(|byte| !byte.is_ascii_alphanumeric() && *byte != b'_').unwrap_or(inner.len());
    let name =
        std::str::from_utf8(&inner[..end]).ok().filter(|name| crate::image_config::scripts::is_identifier(name))?;
    let after = &inner[end..];
    let after = if braced { after.strip_prefix(b"}")? } else { after };
    Some((name.to_owned(), after))
}

fn expand(value: &OsStr, env: &Environment) -> OsString {
    let mut expanded = OsString::new();
    for piece in pieces(value) {
        match piece {
            Piece::Text(text) => expanded.push(OsString::from_vec(text)),
            Piece::Variable(name) => expanded.push(env.get(OsStr::new(&name)).cloned().unwrap_or_default()),
        }
    }
    expanded
}
