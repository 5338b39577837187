//! The shell scripts that an image holds: our own text, with the meaning of the reference's. Pure.
//!
//! They are POSIX sh, run by whatever /bin/sh the image has, and by the shell interpreter that is built into Apptainer.
//! Variables of ours start with `_siforge_`, so that no variable of the image is disturbed.

use std::fmt::Write;

/// Sources env/*.sh in order.
const LOAD: &str = r#"#!/bin/sh
for _siforge_script in /.singularity.d/env/*.sh; do
    if [ -f "$_siforge_script" ]; then
        . "$_siforge_script"
    fi
done
unset _siforge_script
"#;

/// Nothing to do; the file is there because its place in the order is known to tools.
pub(super) const BASE: &str =
    "#!/bin/sh\n# The environment starts here; files are sourced in the order of their names.\n";

pub(super) const ENVIRONMENT: &str = "#!/bin/sh\n# Environment of a definition file's %environment section.\n";

/// SCIF apps (sci-f.github.io): `--app NAME` puts the app's directories first.
pub(super) const APPS: &str = r#"#!/bin/sh
if [ -n "${SINGULARITY_APPNAME:-}" ]; then
    if [ ! -d "/scif/apps/$SINGULARITY_APPNAME" ]; then
        echo "the image has no app $SINGULARITY_APPNAME" >&2
        exit 1
    fi
    SCIF_APPS=/scif/apps
    SCIF_APPROOT="/scif/apps/$SINGULARITY_APPNAME"
    export SINGULARITY_APPNAME SCIF_APPS SCIF_APPROOT
    PATH="$SCIF_APPROOT:$PATH"
    if [ -d "$SCIF_APPROOT/bin" ]; then
        PATH="$SCIF_APPROOT/bin:$PATH"
    fi
    export PATH
    if [ -d "$SCIF_APPROOT/lib" ]; then
        LD_LIBRARY_PATH="$SCIF_APPROOT/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
        export LD_LIBRARY_PATH
    fi
    if [ -f "$SCIF_APPROOT/scif/env/01-base.sh" ]; then
        . "$SCIF_APPROOT/scif/env/01-base.sh"
    fi
    if [ -f "$SCIF_APPROOT/scif/env/90-environment.sh" ]; then
        . "$SCIF_APPROOT/scif/env/90-environment.sh"
    fi
fi
"#;

/// Host libraries (GPU drivers) are bound to /.singularity.d/libs.
pub(super) const LIBRARIES_AND_PROMPT: &str = r#"#!/bin/sh
LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}/.singularity.d/libs"
PS1="${PS1:-Apptainer> }"
export LD_LIBRARY_PATH PS1
"#;

/// What a caller says about PATH (SINGULARITYENV_PREPEND_PATH, …_APPEND_PATH, …_PATH) reaches the scripts under these names.
pub(super) const RUNTIME: &str = r#"#!/bin/sh
PATH="${SING_USER_DEFINED_PREPEND_PATH:+$SING_USER_DEFINED_PREPEND_PATH:}$PATH"
PATH="$PATH${SING_USER_DEFINED_APPEND_PATH:+:$SING_USER_DEFINED_APPEND_PATH}"
PATH="${SING_USER_DEFINED_PATH:-$PATH}"
unset SING_USER_DEFINED_PREPEND_PATH SING_USER_DEFINED_APPEND_PATH SING_USER_DEFINED_PATH
export PATH
"#;

pub(super) const START: &str = "#!/bin/sh\n# Nothing to start: images from registries have no %startscript.\n";

pub(super) fn exec() -> String {
    format!("{LOAD}exec \"$@\"\n")
}

pub(super) fn run() -> String {
    let rest = r#"if [ -n "${SINGULARITY_APPNAME:-}" ]; then
    if [ -x "/scif/apps/$SINGULARITY_APPNAME/scif/runscript" ]; then
        exec "/scif/apps/$SINGULARITY_APPNAME/scif/runscript" "$@"
    fi
    echo "the app $SINGULARITY_APPNAME has no runscript" >&2
    exit 1
fi
if [ -x /.singularity.d/runscript ]; then
    exec /.singularity.d/runscript "$@"
fi
exec /bin/sh "$@"
"#;
    format!("{LOAD}{rest}")
}

pub(super) fn shell() -> String {
    let rest = r#"if [ -n "${SINGULARITY_SHELL:-}" ] && [ -x "$SINGULARITY_SHELL" ]; then
    exec "$SINGULARITY_SHELL" "$@"
fi
if [ -x /bin/bash ]; then
    SHELL=/bin/bash
    export SHELL
    exec /bin/bash --norc "$@"
fi
SHELL=/bin/sh
export SHELL
exec /bin/sh "$@"
"#;
    format!("{LOAD}{rest}")
}

/// The reference's starter stops its pid 1 until this signal.
pub(super) fn start() -> String {
    let rest = r#"kill -CONT 1
if [ -x /.singularity.d/startscript ]; then
    exec /.singularity.d/startscript "$@"
fi
"#;
    format!("{LOAD}{rest}")
}

pub(super) fn test() -> String {
    let rest = r#"if [ -n "${SINGULARITY_APPNAME:-}" ]; then
    if [ -x "/scif/apps/$SINGULARITY_APPNAME/scif/test" ]; then
        exec "/scif/apps/$SINGULARITY_APPNAME/scif/test" "$@"
    fi
    echo "the app $SINGULARITY_APPNAME has no tests" >&2
    exit 1
fi
if [ -x /.singularity.d/test ]; then
    exec /.singularity.d/test "$@"
fi
echo "the image has no test" >&2
"#;
    format!("{LOAD}{rest}")
}

/// Names that a shell may hold read-only or check the value of: assigned only where a subshell could.
const TOUCHY: [&str; 10] =
    ["UID", "EUID", "PPID", "BASHOPTS", "SHELLOPTS", "BASH_VERSINFO", "OPTIND", "LINENO", "RANDOM", "SECONDS"];

/// The image's ENV. PATH is set outright, every other variable only where the caller has not set it; what is set to the empty
/// string counts as set. Values stand in single quotes: nothing in them is evaluated or lost. Names that are no shell identifiers
/// cannot be set by a shell and are left out (the native launcher sets them).
pub(super) fn environment(variables: &[(&str, &str)]) -> String {
    let mut text = String::from("#!/bin/sh\n");
    for (name, value) in variables {
        let value = quote(value);
        // Writing to a String cannot fail.
        let _ = match *name {
            "PATH" => writeln!(text, "PATH={value}; export PATH"),
            name if !is_identifier(name) => Ok(()),
            name if TOUCHY.contains(&name) => {
                writeln!(text, "if ({name}={value}) 2>/dev/null; then {name}={value}; export {name}; fi")
            }
            name => writeln!(text, "[ -n \"${{{name}+set}}\" ] || {name}={value}; export {name}"),
        };
    }
    text
}

/// ENTRYPOINT and CMD are literal; the caller's arguments pass through the shell in double quotes unless NO_EVAL is set: `$NAME`
/// and command substitution work, white space stays. A double quote in an argument stays one (the reference loses it), except
/// beside a command substitution, which has quotes of its own.
pub(super) fn runscript(entrypoint: &[String], cmd: &[String]) -> String {
    let evaluate = r#"#!/bin/sh
if [ $# -gt 0 ] && [ -z "${SINGULARITY_NO_EVAL:-}${APPTAINER_NO_EVAL:-}" ]; then
    _siforge_words=
    for _siforge_rest in "$@"; do
        _siforge_word=
        case "$_siforge_rest" in
            *'$('* | *'`'*) _siforge_word="$_siforge_rest"; _siforge_rest= ;;
        esac
        while [ -n "$_siforge_rest" ]; do
            _siforge_part="${_siforge_rest%%[\\\"]*}"
            _siforge_word="$_siforge_word$_siforge_part"
            _siforge_rest="${_siforge_rest#"$_siforge_part"}"
            case "$_siforge_rest" in
                \"*) _siforge_word="$_siforge_word\\\""; _siforge_rest="${_siforge_rest#?}" ;;
                \\?*) _siforge_part="${_siforge_rest#??}"
                    _siforge_word="$_siforge_word${_siforge_rest%"$_siforge_part"}"
                    _siforge_rest="$_siforge_part" ;;
                \\) _siforge_word="$_siforge_word\\\\"; _siforge_rest= ;;
            esac
        done
        _siforge_words="$_siforge_words \"$_siforge_word\""
    done
    eval "set -- $_siforge_words"
fi
"#;
    let words = |list: &[String]| list.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" ");
    let mut text = evaluate.to_owned();
    if !cmd.is_empty() {
        text += &format!("[ $# -gt 0 ] || set -- {}\n", words(cmd));
    }
    if !entrypoint.is_empty() {
        text += &format!("set -- {} \"$@\"\n", words(entrypoint));
    }
    text += r#"if [ $# -eq 0 ]; then
    echo "the image has neither ENTRYPOINT nor CMD: name a command to run" >&2
    exit 1
fi
exec "$@"
"#;
    text
}

/// Single quotes; a single quote itself stands in double ones. (`'\''` is shorter, but the interpreter in Apptainer 1.4 keeps that
/// backslash in assignments.)
pub(crate) fn quote(value: &str) -> String {
    format!("'{}'", value.replace('\'', "'\"'\"'"))
}

/// What a shell can assign: a letter or underscore, then letters, digits, underscores.
pub(crate) fn is_identifier(name: &str) -> bool {
    let mut characters = name.chars();
    characters.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && characters.all(|character| character.is_ascii_alphanumeric() || character == '_')
}
