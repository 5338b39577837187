//! The judge of `process` is a real shell: the scripts that an image gets, run by dash and by busybox sh in a small root file
//! system, must give the environment and argv that native evaluation gives. Needs user namespaces (or root), dash and a static
//! busybox on the host.

mod root;

use root::{Shell, environment, root_with, run_in, split_nul};
use siforge_sif::process::{ImageFacts, Mode, Options, Pair, resolve, resolve_by_scripts};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

fn pairs(list: &[(&str, &str)]) -> Vec<Pair> {
    list.iter().map(|(name, value)| (name.into(), value.into())).collect()
}

const FACTS: ImageFacts = ImageFacts { sh: true, bash: false, rebuilt: false };

/// Names and what they must be; None: absent.
type Expected = &'static [(&'static str, Option<&'static str>)];

fn check_environment(config: &str, caller: &[Pair], options: &Options) -> BTreeMap<OsString, OsString> {
    let argv: Vec<OsString> = ["env", "-0"].map(Into::into).to_vec();
    let mut result = BTreeMap::new();
    for shell in [Shell::Dash, Shell::Busybox] {
        let (root, run) = root_with(config, shell);
        let native = resolve(&run, caller, Mode::Exec, &argv, options, &FACTS).unwrap();
        let scripts = resolve_by_scripts(caller, Mode::Exec, &argv, options).unwrap();
        let expected = environment(&run_in(root.path(), &scripts.env, &scripts.argv));
        let found: BTreeMap<_, _> = native.env.iter().cloned().collect();
        assert_eq!(found, expected, "{shell:?}, {config}");
        // And what execve is given is what a program sees.
        assert_eq!(environment(&run_in(root.path(), &native.env, &native.argv)), expected);
        result = found;
    }
    result
}

fn value<'a>(env: &'a BTreeMap<OsString, OsString>, name: &str) -> Option<&'a str> {
    env.get(OsStr::new(name)).map(|value| value.to_str().unwrap())
}

const NASTY: &str = r#"{"config": {"Env": [
    "PATH=/bin:/opt/$x y'z`id`", "BACKTICK=a`id`b", "DQ=a\"b", "SQ=it's 'so'", "DOLLAR=$HOME ${HOME} $(id)", "NL=one\ntwo\n",
    "BS=a\\b\\\\c\\", "EMPTY=", "SPACE=  a  b ", "HASH=#x", "GLOB=*", "DUP=1", "DUP=2", "TILDE=~", "EQ=a=b=c", "NOEQ", "UTF=é ❄",
    "UID=1000", "HOME=/image", "IFS=x", "PS4=`id`", "EXCL=!x", "_x1=y", "BRACE={a,b}", "SEMI=a;b&c|d<e>f"
]}}"#;

#[test]
fn nothing_in_a_value_is_lost_or_evaluated() {
    let env = check_environment(NASTY, &[], &Options { home: Some("/h".into()), ..Options::default() });
    let expected = [
        ("PATH", "/bin:/opt/$x y'z`id`:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin"),
        ("BACKTICK", "a`id`b"),
        ("DQ", "a\"b"),
        ("SQ", "it's 'so'"),
        ("DOLLAR", "$HOME ${HOME} $(id)"),
        ("NL", "one\ntwo\n"),
        ("BS", "a\\b\\\\c\\"),
        ("EMPTY", ""),
        ("DUP", "2"),
        ("NOEQ", ""),
        ("HOME", "/h"),
        ("UID", "1000"),
        ("LD_LIBRARY_PATH", "/.singularity.d/libs"),
        ("PS1", "Apptainer> "),
    ];
    for (name, wanted) in expected {
        assert_eq!(value(&env, name), Some(wanted), "{name}");
    }
}

#[test]
fn the_caller_wins_only_by_injection() {
    let config = r#"{"config": {"Env": ["A=img", "B=img", "C=img", "LD_LIBRARY_PATH=/img", "PATH=/bin"]}}"#;
    let caller = pairs(&[
        ("A", "host"),
        ("HOST", "a b$c`d\"e'f\\g"),
        ("LD_LIBRARY_PATH", "/host"),
        ("PATH", "/host"),
        ("HOME", "/host"),
        ("PS1", "host"),
        ("SINGULARITYENV_B", "one"),
        ("APPTAINERENV_B", "two"),
        ("SINGULARITYENV_C", ""),
        ("SINGULARITYENV_D", "$A-${PATH}-\\$A-$NONE-$-'q'\"r\"`s`"),
        ("SINGULARITYENV_HOME", "/injected"),
        ("SINGULARITY_BIND", "/x"),
        ("APPTAINER_FOO", "1"),
        ("SING_USER_DEFINED_PATH", "zz"),
        ("EMPTY", ""),
    ]);
    let env = check_environment(config, &caller, &Options::default());
    let expected = [
        ("A", Some("img")),
        ("B", Some("two")),
        ("C", Some("")),
        ("D", Some("img-/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin-$A--$-'q'\"r\"`s`")),
        ("HOST", Some("a b$c`d\"e'f\\g")),
        ("LD_LIBRARY_PATH", Some("/img:/.singularity.d/libs")),
        ("HOME", None),
        ("PS1", Some("Apptainer> ")),
        ("SINGULARITY_BIND", Some("")),
        ("APPTAINER_FOO", None),
        ("EMPTY", Some("")),
    ];
    for (name, wanted) in expected {
        assert_eq!(value(&env, name), wanted, "{name}");
    }
}

#[test]
fn what_options_change() {
    let config = r#"{"config": {"Env": ["A=img", "PATH=/bin"]}}"#;
    let caller = pairs(&[
        ("HOST", "1"),
        ("TERM", "xterm"),
        ("LANG", "de"),
        ("http_proxy", "p"),
        ("SINGULARITYENV_PREPEND_PATH", "/pre"),
        ("APPTAINERENV_APPEND_PATH", "/app"),
        ("SINGULARITYENV_A", "env"),
        ("SINGULARITYENV_LD_LIBRARY_PATH", "/inj"),
        ("APPTAINERENV_PS1", "\\u'q\" $X> "),
    ]);
    let table: [(&str, Options, Expected); 5] = [
        (
            "plain",
            Options::default(),
            &[
                ("A", Some("env")),
                ("PATH", Some("/pre:/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/app")),
                ("LD_LIBRARY_PATH", Some("/inj:/.singularity.d/libs")),
                ("LANG", Some("de")),
            ],
        ),
        (
            "cleanenv",
            Options { cleanenv: true, ..Options::default() },
            &[
                ("HOST", None),
                ("TERM", Some("xterm")),
                ("LANG", Some("C")),
                ("http_proxy", Some("p")),
                ("A", Some("env")),
            ],
        ),
        (
            "env",
            Options { env: pairs(&[("A", "1"), ("A", "2"), ("PATH", "/bin")]), ..Options::default() },
            &[("A", Some("2")), ("PATH", Some("/bin"))],
        ),
        (
            "no eval",
            Options { no_eval: true, env: pairs(&[("A", "$PATH")]), ..Options::default() },
            &[("A", Some("$PATH")), ("SINGULARITY_NO_EVAL", Some("1"))],
        ),
        (
            "names",
            Options { name: "x.sif".into(), container: "/a/x.sif".into(), bind: "/b:/c".into(), ..Options::default() },
            &[
                ("APPTAINER_NAME", Some("x.sif")),
                ("SINGULARITY_CONTAINER", Some("/a/x.sif")),
                ("SINGULARITY_BIND", Some("/b:/c")),
            ],
        ),
    ];
    for (case, options, expected) in table {
        let env = check_environment(config, &caller, &options);
        for (name, wanted) in expected {
            assert_eq!(value(&env, name), *wanted, "{case}: {name}");
        }
    }
}

#[test]
fn bytes_that_are_no_utf8_come_through() {
    let raw = OsString::from_vec(b"a\xff'\n\"b".to_vec());
    let caller = vec![("HOST".into(), raw.clone()), ("SINGULARITYENV_X".into(), raw.clone())];
    let env = check_environment(r#"{"config": {"Env": ["PATH=/bin"]}}"#, &caller, &Options::default());
    assert_eq!(env[OsStr::new("HOST")].as_bytes(), raw.as_bytes());
    assert_eq!(env[OsStr::new("X")].as_bytes(), raw.as_bytes());
}

/// argv of `run`, by the scripts and natively, printed by the ENTRYPOINT itself.
fn check_run(entrypoint: &[&str], cmd: &[&str], args: &[&str], no_eval: bool, expected: &[&str]) {
    let show = ["/bin/printf", "%s\\0"];
    let quoted = |list: &[&str]| list.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(",");
    // Without an ENTRYPOINT, what prints must come from CMD or the arguments.
    let config = format!(
        r#"{{"config": {{"Entrypoint": [{}], "Cmd": [{}], "Env": ["PATH=/bin", "VAR=a  b"]}}}}"#,
        quoted(entrypoint).replace("SHOW", &quoted(&show).trim_matches('"').replace("\",\"", "\", \"")),
        quoted(cmd).replace("SHOW", &quoted(&show).trim_matches('"').replace("\",\"", "\", \"")),
    );
    let args: Vec<OsString> =
        args.iter().flat_map(|arg| if *arg == "SHOW" { show.to_vec() } else { vec![*arg] }).map(Into::into).collect();
    let options = Options { no_eval, ..Options::default() };
    for shell in [Shell::Dash, Shell::Busybox] {
        let (root, run) = root_with(&config, shell);
        let native = resolve(&run, &[], Mode::Run, &args, &options, &FACTS).unwrap();
        let scripts = resolve_by_scripts(&[], Mode::Run, &args, &options).unwrap();
        for (way, process) in [("native", &native), ("scripts", &scripts)] {
            let found = split_nul(&run_in(root.path(), &process.env, &process.argv));
            let mut wanted: Vec<OsString> = expected.iter().map(Into::into).collect();
            wanted.push(OsString::new());
            assert_eq!(found, wanted, "{way}, {shell:?}, {config}, {args:?}");
        }
        // The action script that other launchers of SIFs call.
        let action: Vec<OsString> =
            std::iter::once("/.singularity.d/actions/run".into()).chain(args.iter().cloned()).collect();
        let env =
            if no_eval { pairs(&[("SINGULARITY_NO_EVAL", "1"), ("PATH", "/bin")]) } else { pairs(&[("PATH", "/bin")]) };
        let found = split_nul(&run_in(root.path(), &env, &action));
        assert_eq!(found.len(), expected.len() + 1);
    }
}

#[test]
fn run_is_entrypoint_and_arguments_or_cmd() {
    check_run(&["SHOW", "e $x"], &["c `id`", "d'\\"], &[], false, &["e $x", "c `id`", "d'\\"]);
    check_run(&["SHOW", "e"], &["c"], &["a"], false, &["e", "a"]);
    check_run(&["SHOW", "e"], &[], &[], false, &["e"]);
    check_run(&["SHOW", "e"], &[], &["-c", "x y", ""], false, &["e", "-c", "x y", ""]);
    check_run(&[], &["SHOW", "c"], &[], false, &["c"]);
    check_run(&[], &["/bin/false"], &["SHOW", "a"], false, &["a"]);
}

#[test]
fn arguments_are_evaluated_unless_no_eval() {
    let args = [
        "$VAR",
        "${VAR}x",
        "`printf hi`",
        "$(printf \"%s\" 'a  b')",
        "\\$VAR",
        "\\\\",
        "a\\b",
        "q\"q",
        "it's",
        "*",
        "~",
        "a;b",
        "\"$VAR\"",
        "end\\",
    ];
    let evaluated =
        ["a  b", "a  bx", "hi", "a  b", "$VAR", "\\", "a\\b", "q\"q", "it's", "*", "~", "a;b", "\"a  b\"", "end\\"];
    check_run(&["SHOW"], &["c"], &args, false, &evaluated);
    check_run(&["SHOW"], &["c"], &args, true, &args);
    let harmless = ["print(\"hi\")", "a b", "it's", "new\nline", "#", "!"];
    check_run(&["SHOW"], &[], &harmless, false, &harmless);
}

#[test]
fn actions_work_for_other_launchers() {
    for shell in [Shell::Dash, Shell::Busybox] {
        let (root, _) = root_with(r#"{"config": {"Env": ["PATH=/bin:/x", "A=img"]}}"#, shell);
        let env = pairs(&[("PATH", "/usr/bin"), ("HOST", "1")]);
        let exec: Vec<OsString> = ["/.exec", "env", "-0"].map(Into::into).to_vec();
        let found = environment(&run_in(root.path(), &env, &exec));
        assert_eq!(value(&found, "PATH"), Some("/bin:/x"));
        assert_eq!(value(&found, "A"), Some("img"));
        assert_eq!(value(&found, "LD_LIBRARY_PATH"), Some("/.singularity.d/libs"));
        let shell: Vec<OsString> = ["/.shell", "-c", "printf '%s %s' \"$SHELL\" \"$A\""].map(Into::into).to_vec();
        assert_eq!(run_in(root.path(), &env, &shell), b"/bin/sh img");
    }
}

#[test]
fn shell_is_the_same_both_ways() {
    for shell in [Shell::Dash, Shell::Busybox] {
        for chosen in [None, Some("/bin/busybox")] {
            let (root, run) = root_with(r#"{"config": {"Env": ["PATH=/bin", "A=it's"]}}"#, shell);
            let options = Options { shell: chosen.map(Into::into), ..Options::default() };
            let args: Vec<OsString> =
                if chosen.is_some() { vec!["env".into(), "-0".into()] } else { vec!["-c".into(), "env -0".into()] };
            let native = resolve(&run, &[], Mode::Shell, &args, &options, &FACTS).unwrap();
            let scripts = resolve_by_scripts(&[], Mode::Shell, &args, &options).unwrap();
            let by_scripts = environment(&run_in(root.path(), &scripts.env, &scripts.argv));
            let natively = environment(&run_in(root.path(), &native.env, &native.argv));
            assert_eq!(natively, by_scripts);
        }
    }
}

/// A fixed sequence (Knuth's MMIX constants): the same cases every time.
struct Sequence(u64);

impl Sequence {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end
    }

    fn text(&mut self, alphabet: &[&str]) -> String {
        let len = self.below(12);
        (0..len).map(|_| alphabet[self.below(alphabet.len())]).collect()
    }
}

const ALPHABET: [&str; 28] = [
    "'", "\"", " ", "\n", "\t", "a", "b", "=", ";", "&", "|", "<", ">", "(", ")", "{", "}", "*", "?", "[", "]", "#",
    "~", "!", "%", "é", "$", "`",
];

#[test]
fn any_value_comes_through_as_it_is() {
    let mut sequence = Sequence(1);
    let mut alphabet = ALPHABET.to_vec();
    alphabet.extend(["\\", "$A", "${A}", "$(id)", "`id`", "\\n"]);
    let values: Vec<(String, String)> =
        (0..400).map(|number| (format!("V{number}"), sequence.text(&alphabet))).collect();
    let entries: Vec<String> =
        values.iter().map(|(name, value)| serde_json::to_string(&format!("{name}={value}")).unwrap()).collect();
    let config = format!(r#"{{"config": {{"Env": ["PATH=/bin",{}]}}}}"#, entries.join(","));
    // The caller's own and, with no-eval, the injected ones come through as they are, too.
    let mut caller = Vec::new();
    for number in 0..100 {
        caller.push((format!("H{number}").into(), sequence.text(&alphabet).into()));
        caller.push((format!("APPTAINERENV_I{number}").into(), sequence.text(&alphabet).into()));
    }
    let env = check_environment(&config, &caller, &Options { no_eval: true, ..Options::default() });
    for (name, wanted) in &values {
        assert_eq!(value(&env, name), Some(wanted.as_str()), "{name}");
    }
    for (name, wanted) in &caller {
        let name = name.to_str().unwrap().trim_start_matches("APPTAINERENV_");
        assert_eq!(value(&env, name), wanted.to_str(), "{name}");
    }
    // Evaluated, both ways agree.
    check_environment(
        &config,
        &caller.iter().filter(|(_, value)| !value.to_str().unwrap().contains(['`', '('])).cloned().collect::<Vec<_>>(),
        &Options::default(),
    );
}

#[test]
fn any_argument_without_a_dollar_comes_through_as_it_is() {
    let mut sequence = Sequence(2);
    let args: Vec<String> = (0..200).map(|_| sequence.text(&ALPHABET[..26])).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    check_run(&["SHOW"], &["c"], &args, false, &args);
    let mut all = ALPHABET.to_vec();
    all.extend(["\\", "$VAR", "$(id)"]);
    let args: Vec<String> = (0..200).map(|_| sequence.text(&all)).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    check_run(&["SHOW"], &["c"], &args, true, &args);
}
