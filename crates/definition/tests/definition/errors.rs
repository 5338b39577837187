//! What is wrong is shown where it stands.

use crate::{given, parse};
use siforge_definition::{Definition, MAX_BYTES, MAX_LINE, MAX_SECTIONS, MAX_STAGES};

fn check(text: &str, expected: &str) {
    let shown = parse(text, &["version=1"]).expect_err(text).to_string();
    assert_eq!(shown, expected, "{text:?}");
}

#[test]
fn headers() {
    check(
        "Bootstrap: docker\n  Form: x\n",
        "x.def:2:3: no such keyword \"form\"; did you mean \"from\"?\n  2 |   Form: x\n    |   ^^^^",
    );
    check("\nfoobarbaz: x\n", "x.def:2:1: no such keyword \"foobarbaz\"\n  2 | foobarbaz: x\n    | ^^^^^^^^^");
    check("OtherURL: x\n", "x.def:1:1: no such keyword \"otherurl\"\n  1 | OtherURL: x\n    | ^^^^^^^^");
    check(
        "Bootstrap docker\n",
        "x.def:1:1: expected a header line, KEYWORD: VALUE, or a section, %NAME\n  1 | Bootstrap docker\n    | ^^^^^^^^^^^^^^^^",
    );
}

#[test]
fn sections() {
    check(
        "Bootstrap: docker\n%pots\nx\n",
        "x.def:2:1: no such section \"pots\"; did you mean \"post\"?; a line of a script cannot begin with %\n  2 | %pots\n    | ^^^^^",
    );
    check(
        "%post\n  %-10s\n",
        "x.def:2:3: no such section \"-10s\"; a line of a script cannot begin with %\n  2 |   %-10s\n    |   ^^^^^",
    );
    check(
        "%appinstall\n",
        "x.def:1:1: expected the app's name: %appinstall NAME\n  1 | %appinstall\n    | ^^^^^^^^^^^",
    );
    check(
        "%apprun ../x\n",
        "x.def:1:9: an app's name is made of letters, digits, and . _ + -, not \"../x\"\n  1 | %apprun ../x\n    |         ^^^^",
    );
    check(
        "%post -c # bash\n",
        "x.def:1:1: -c needs the shell to run: %post -c SHELL [ARGUMENTS]\n  1 | %post -c # bash\n    | ^^^^^^^^^^^^^^^",
    );
    check(
        "%post\nx\nBootstrap: docker\n",
        "x.def:1:1: a stage begins with Bootstrap: and its header; these lines stand before the first\n  1 | %post\n    | ^^^^^",
    );
    check("", "x.def: the file is empty: it needs at least a Bootstrap: line");
    check("\n# only\n", "x.def: the file is empty: it needs at least a Bootstrap: line");
}

#[test]
fn files() {
    check("%files\n\"a b\n", "x.def:2:1: a quote that is not closed\n  2 | \"a b\n    | ^^^^");
    check(
        "%files\na b c\n",
        "x.def:2:1: expected SOURCE or SOURCE DESTINATION, found 3 words: quote a path that has spaces\n  2 | a b c\n    | ^^^^^",
    );
    check(
        "%files form x\n",
        "x.def:1:1: expected %files, or %files from STAGE\n  1 | %files form x\n    | ^^^^^^^^^^^^^",
    );
    check(
        "Bootstrap: scratch\nStage: build\nBootstrap: scratch\n%files from biuld\n",
        "x.def:4:13: no earlier stage is called \"biuld\"; did you mean \"build\"?\n  4 | %files from biuld\n    |             ^^^^^",
    );
}

#[test]
fn arguments() {
    check(
        "Bootstrap: docker\nFrom: x:{{ versoin }}\n",
        "x.def:2:9: versoin has no value: give --build-arg versoin=VALUE, or a default in %arguments; did you mean \"version\"?\n  2 | From: x:{{ versoin }}\n    |         ^^^^^^^^^^^^^",
    );
    let arguments = given(&["a=\0"]);
    let error = Definition::parse("x.def", b"%post\n{{ a }}\n", &arguments).expect_err("a NUL");
    assert_eq!(error.to_string(), "x.def:2:1: the value of a holds a NUL byte\n  2 | {{ a }}\n    | ^^^^^^^");
}

#[test]
fn rubbish() {
    let check = |bytes: &[u8], expected: &str| {
        let error = Definition::parse("x.def", bytes, &given(&[])).expect_err("rubbish");
        assert_eq!(error.to_string(), expected);
    };
    check(
        b"ab\0c\n",
        "x.def:1:3: a NUL byte: this is no definition file (give a SIF the ending .sif, or an archive its oci-archive: or docker-archive:)\n  1 | ab c\n    |   ^",
    );
    check(b"#\nb\xe4x\n", "x.def:2:2: these bytes are no UTF-8: save the file as UTF-8\n  2 | b\u{fffd}x\n    |  ^");
    let long = [b"%post\n".as_slice(), &vec![b'x'; 10 << 20]].concat();
    let error = Definition::parse("x.def", &long, &given(&[])).expect_err("a long line").to_string();
    let start = format!("x.def:2:1: the line has {} bytes, and a line at most {MAX_LINE}\n  2 | xxx", 10 << 20);
    assert!(error.starts_with(&start) && error.len() < 400, "{error}");
    check(
        &vec![b'\n'; MAX_BYTES as usize + 1],
        &format!(
            "x.def: it has {} bytes, and a definition file at most {MAX_BYTES}: is this the file that you mean?",
            MAX_BYTES + 1
        ),
    );
}

#[test]
fn limits() {
    let stages = "Bootstrap: scratch\n".repeat(MAX_STAGES + 1);
    check(&stages, &format!("x.def: more than {MAX_STAGES} stages"));
    let sections = "%post\n".repeat(MAX_SECTIONS + 1);
    let line = MAX_SECTIONS + 1;
    check(&sections, &format!("x.def:{line}:1: more than {MAX_SECTIONS} sections\n  {line} | %post\n       | ^^^^^"));
    let arguments = "%arguments\n".to_owned() + &(0..=10_000).map(|n| format!("a{n}=\n")).collect::<String>();
    check(&arguments, "x.def:10002:1: more than 10000 arguments\n  10002 | a10000=\n        | ^^^^^^^");
}

#[test]
fn a_long_line_is_shown_around_the_place() {
    let text = format!("%files\n{} \"x\n", "a".repeat(500));
    let shown = parse(&text, &[]).expect_err("a quote").to_string();
    let lines: Vec<&str> = shown.lines().collect();
    assert!(lines[1].starts_with("  2 | …aaa") && lines[1].ends_with("a \"x"), "{shown}");
    let column = |line: &str, c: char| line.chars().position(|other| other == c);
    assert_eq!(column(lines[1], '"'), column(lines[2], '^'), "{shown}");
}
