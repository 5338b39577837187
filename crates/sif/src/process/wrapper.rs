//! The environment by the image's own scripts: a text for the image's /bin/sh, which sources `env/*.sh` as a launch of the
//! reference does, and then acts. Pure.
//!
//! The scripts must not see the caller's variables: `X="${X:-value}"` in an image means the caller's *injected* X only. So they come
//! under the names `SIFORGE_HOST_X` and are given their own names after the scripts, where nothing has set them.

use super::caller::Caller;
use super::native::{Piece, launch_variables, pieces};
use super::{DEFAULT_PATH, Mode, Options, Process};
use crate::image_config::scripts::{is_identifier, quote};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write;
use std::os::unix::ffi::OsStringExt;

const HOST_PREFIX: &str = "SIFORGE_HOST_";
const TEXT_PREFIX: &str = "SIFORGE_TEXT_";
/// Names that some shells hold read-only: assigning one would end the script.
const READ_ONLY: [&str; 6] = ["UID", "EUID", "PPID", "BASHOPTS", "SHELLOPTS", "BASH_VERSINFO"];

pub(super) fn process(caller: &Caller, mode: Mode, args: &[OsString], options: &Options) -> Process {
    let mut env: BTreeMap<OsString, OsString> = BTreeMap::new();
    let mut host_names = Vec::new();
    for (name, value) in &caller.host {
        match name.to_str().filter(|name| is_identifier(name) && !READ_ONLY.contains(name)) {
            Some(text) => {
                env.insert(format!("{HOST_PREFIX}{text}").into(), value.clone());
                host_names.push(text);
            }
            // A shell can neither set nor hide it; most pass it on.
            None => {
                env.insert(name.clone(), value.clone());
            }
        }
    }
    env.insert("PATH".into(), DEFAULT_PATH.into());
    env.extend(launch_variables(mode, options, caller.no_eval));
    if mode == Mode::Shell {
        env.extend(caller.shell.clone().map(|shell| ("SIFORGE_SHELL".into(), shell)));
    }
    let (texts, carriers) = injections(caller);
    let carrier_names: Vec<String> = (0..carriers.len()).map(|number| format!("{TEXT_PREFIX}{number}")).collect();
    env.extend(carrier_names.iter().map(OsString::from).zip(carriers));

    let mut script = String::new();
    // Writing to a String cannot fail.
    let _ = write!(script, "{}", functions(&texts));
    script += LOAD;
    for name in &carrier_names {
        let _ = writeln!(script, "unset {name}");
    }
    for name in host_names {
        let _ = writeln!(
            script,
            "[ -n \"${{{name}+set}}\" ] || {name}=\"${HOST_PREFIX}{name}\"; export {name}; unset {HOST_PREFIX}{name}"
        );
    }
    script += match mode {
        Mode::Exec => EXEC,
        Mode::Run => RUN,
        Mode::Shell => SHELL,
        Mode::Test => TEST,
    };
    let mut argv: Vec<OsString> = vec!["/bin/sh".into(), "-c".into(), script.into(), mode.name().into()];
    argv.extend(args.iter().cloned());
    Process { env: env.into_iter().collect(), argv }
}

/// Assignments of what the caller injects; texts that are no UTF-8 reach the script by the environment, the n-th as [`TEXT_PREFIX`]n.
fn injections(caller: &Caller) -> (Vec<(String, String)>, Vec<OsString>) {
    let paths = [
        ("SING_USER_DEFINED_PREPEND_PATH", &caller.prepend_path),
        ("SING_USER_DEFINED_APPEND_PATH", &caller.append_path),
        ("SING_USER_DEFINED_PATH", &caller.path),
    ];
    let variables = caller.injected.iter().filter_map(|(name, value)| Some((name.to_str()?, value)));
    let paths = paths.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
    let (mut texts, mut carriers) = (Vec::new(), Vec::new());
    for (name, value) in variables.chain(paths).filter(|(name, _)| is_identifier(name) && !READ_ONLY.contains(name)) {
        let parts = if caller.no_eval { vec![Piece::Text(value.as_encoded_bytes().to_vec())] } else { pieces(value) };
        let mut text = String::new();
        for part in parts {
            match part {
                Piece::Variable(name) => text += &format!("\"${{{name}-}}\""),
                Piece::Text(bytes) => match String::from_utf8(bytes) {
                    Ok(literal) => text += &quote(&literal),
                    Err(bytes) => {
                        text += &format!("\"${TEXT_PREFIX}{}\"", carriers.len());
                        carriers.push(OsString::from_vec(bytes.into_bytes()));
                    }
                },
            }
        }
        texts.push((name.to_owned(), text));
    }
    (texts, carriers)
}

fn functions(injections: &[(String, String)]) -> String {
    let mut text = String::from("_siforge_inject() {\n_siforge_injected=1\n");
    for (name, value) in injections {
        let _ = writeln!(text, "{name}={value}; export {name}");
    }
    text += "}\n_siforge_complete_path() {\n";
    for directory in DEFAULT_PATH.split(':') {
        let _ =
            writeln!(text, "case \":$PATH:\" in *:{directory}:*) ;; *) PATH=\"${{PATH:+$PATH:}}{directory}\" ;; esac");
    }
    text += "}\n";
    text
}

/// The places of completing PATH and of injecting are the reference's. What an image without the last files lacks is made up for.
/// Shells give values of their own to some variables, which would pass for the caller's.
const LOAD: &str = r#"unset IFS PS1 PS2 PS4
_siforge_injected=
for _siforge_script in /.singularity.d/env/*.sh; do
    [ -f "$_siforge_script" ] || continue
    . "$_siforge_script"
    case "$_siforge_script" in
        */10-docker2singularity.sh) _siforge_complete_path ;;
        */90-environment.sh) _siforge_inject ;;
    esac
done
[ -n "$_siforge_injected" ] || _siforge_inject
PATH="${SING_USER_DEFINED_PREPEND_PATH:+$SING_USER_DEFINED_PREPEND_PATH:}$PATH"
PATH="$PATH${SING_USER_DEFINED_APPEND_PATH:+:$SING_USER_DEFINED_APPEND_PATH}"
PATH="${SING_USER_DEFINED_PATH:-$PATH}"
export PATH
unset SING_USER_DEFINED_PREPEND_PATH SING_USER_DEFINED_APPEND_PATH SING_USER_DEFINED_PATH
case ":${LD_LIBRARY_PATH:-}:" in
    */.singularity.d/libs:*) ;;
    *) LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}/.singularity.d/libs" ;;
esac
PS1="${PS1:-Apptainer> }"
_siforge_rest="$PS1"
PROMPT_COMMAND=
while case "$_siforge_rest" in *\'*) ;; *) false ;; esac; do
    PROMPT_COMMAND="$PROMPT_COMMAND${_siforge_rest%%\'*}'\\''"
    _siforge_rest="${_siforge_rest#*\'}"
done
PROMPT_COMMAND="PS1='$PROMPT_COMMAND$_siforge_rest'; unset PROMPT_COMMAND"
export LD_LIBRARY_PATH PS1 PROMPT_COMMAND
unset _siforge_script _siforge_injected _siforge_rest
"#;

/// What cannot be executed is the launch's failure, 255, and not the shell's 126 and 127, which a command may mean itself.
/// Neither `command -v` nor `exec` would do: they find the shell's own builtins and busybox's applets.
const EXEC: &str = r#"_siforge_wrong=
case "$1" in
    */*)
        if [ ! -e "$1" ]; then _siforge_wrong="execute $1: No such file or directory"
        elif [ -d "$1" ] || [ ! -x "$1" ]; then _siforge_wrong="execute $1: Permission denied"; fi ;;
    *)
        # In a process of its own: the image may have set IFS.
        (
            set -f; IFS=:
            for _siforge_dir in $PATH; do
                if [ -f "${_siforge_dir:-.}/$1" ] && [ -x "${_siforge_dir:-.}/$1" ]; then exit 0; fi
            done
            exit 1
        ) || _siforge_wrong="\"$1\": executable file not found in \$PATH" ;;
esac
if [ -n "$_siforge_wrong" ]; then echo "siforge: error: $_siforge_wrong" >&2; exit 255; fi
unset _siforge_wrong
exec "$@"
"#;

const RUN: &str = r#"if [ -n "${SINGULARITY_APPNAME:-}" ]; then
    if [ -x "/scif/apps/$SINGULARITY_APPNAME/scif/runscript" ]; then exec "/scif/apps/$SINGULARITY_APPNAME/scif/runscript" "$@"; fi
    echo "siforge: error: no runscript for contained app: $SINGULARITY_APPNAME" >&2
    exit 1
fi
if [ -x /.singularity.d/runscript ]; then exec /.singularity.d/runscript "$@"; fi
if [ -x /singularity ]; then exec /singularity "$@"; fi
exec /bin/sh "$@"
"#;

/// As the reference: an image without tests has passed them.
const TEST: &str = r#"if [ -n "${SINGULARITY_APPNAME:-}" ]; then
    if [ -x "/scif/apps/$SINGULARITY_APPNAME/scif/test" ]; then exec "/scif/apps/$SINGULARITY_APPNAME/scif/test" "$@"; fi
    echo "siforge: error: no tests for contained app: $SINGULARITY_APPNAME" >&2
    exit 1
fi
if [ -x /.singularity.d/test ]; then exec /.singularity.d/test "$@"; fi
echo "siforge: no test script found in the image" >&2
exit 0
"#;

const SHELL: &str = r#"if [ -n "${SIFORGE_SHELL:-}" ]; then set -- "$SIFORGE_SHELL" "$@"; unset SIFORGE_SHELL; exec "$@"; fi
if [ -x /bin/bash ]; then SHELL=/bin/bash; export SHELL; exec /bin/bash --norc "$@"; fi
SHELL=/bin/sh; export SHELL; exec /bin/sh "$@"
"#;
