//! What the parts of a file become. Behaviour without a comment is the reference's parser's.

use crate::parse;
use siforge_definition::{FilePair, Keyword, Script, Stage};

fn stages(text: &str) -> Vec<Stage> {
    parse(text, &[]).unwrap_or_else(|error| panic!("{text:?}: {error}")).stages
}

fn one(text: &str) -> Stage {
    let mut stages = stages(text);
    assert_eq!(stages.len(), 1, "{text:?}");
    stages.remove(0)
}

#[test]
fn headers() {
    let check = |text: &str, expected: &[(Keyword, &str)]| {
        let stage = one(text);
        let fields: Vec<_> = stage.header.fields.iter().map(|field| (field.keyword, field.value.as_str())).collect();
        assert_eq!(fields, expected, "{text:?}");
    };
    use Keyword::{Bootstrap, From, Include, IncludeCmd, MirrorUrl, OsVersion, OtherUrl, Registry, SetOpt};
    let docker = (Bootstrap, "docker");
    check("Bootstrap: docker\nFrom: debian:12\n", &[docker, (From, "debian:12")]);
    check("bootstrap:docker\r\nFROM : debian:12\r\n", &[docker, (From, "debian:12")]);
    check("# a comment\n\nBootstrap: docker\n  # another\n  From: x\n", &[docker, (From, "x")]);
    check("Bootstrap: docker # why\nFrom: x#y\n", &[docker, (From, "x")]);
    check("From: x\nBootstrap: docker\n", &[(From, "x"), docker]);
    check("\u{feff}Bootstrap: docker", &[docker]);
    check("Bootstrap: yum\nInclude: a \\\n  b \\\n  c\n", &[(Bootstrap, "yum"), (Include, "a b c")]);
    check("Bootstrap: yum\nSetOpt: a\\n\\\n b\n", &[(Bootstrap, "yum"), (SetOpt, "a\nb")]);
    check("Bootstrap: yum\nInclude: a\\\n\nFrom: x\n", &[(Bootstrap, "yum"), (Include, "a"), (From, "x")]);
    check("Bootstrap: yum\nInclude: a\\", &[(Bootstrap, "yum"), (Include, "a")]);
    check("Bootstrap: docker\nRegistry:\n", &[docker, (Registry, "")]);
    check(
        "Bootstrap: zypper\nOtherURL1: http://a\nOtherURL12: http://b:80/\n",
        &[(Bootstrap, "zypper"), (OtherUrl(1), "http://a"), (OtherUrl(12), "http://b:80/")],
    );
    check(
        "Bootstrap: debootstrap\nOSVersion: bookworm\nMirrorURL: http://m/%{OSVERSION}\nIncludeCmd: yes\n",
        &[
            (Bootstrap, "debootstrap"),
            (OsVersion, "bookworm"),
            (MirrorUrl, "http://m/%{OSVERSION}"),
            (IncludeCmd, "yes"),
        ],
    );
    let twice = parse("Bootstrap: docker\nFrom: a\nFrom: b\n", &[]).expect("parses");
    assert_eq!(twice.stages[0].header.get(From), Some("b"));
    assert_eq!(twice.warnings, ["x.def:3: from stands twice, this one counts"]);
}

#[test]
fn scripts() {
    let check = |sections: &str, options: &str, text: &str, lines: &[u32]| {
        let post = one(&format!("Bootstrap: docker\n{sections}")).post.unwrap_or_default();
        let line = sections.lines().zip(2..).find(|(line, _)| line.trim_start().starts_with('%')).map(|(_, n)| n);
        let line = if post == Script::default() { 0 } else { line.unwrap_or_default() };
        let expected = Script { options: options.into(), text: text.into(), lines: lines.to_vec(), line };
        assert_eq!(post, expected, "{sections:?}");
    };
    check("%post\n    make\n\n    # no comment of ours\n", "", "    make\n\n    # no comment of ours\n", &[3, 4, 5]);
    check("%post", "", "", &[]);
    check("%POST -c /bin/bash\nx\n", "-c /bin/bash", "x\n", &[3]);
    check("%post -c /bin/bash -x # why\nx", "-c /bin/bash -x", "x\n", &[3]);
    check("%post\na\n%post -e\nb\n", "-e", "a\nb\n", &[3, 5]);
    check("%post\na\n%runscript\nb\n%post\nc\n", "", "a\nc\n", &[3, 7]);
    check("%post\na\r\nb\r\n", "", "a\nb\n", &[3, 4]);
    // A section's line may be indented: the reference refuses it.
    check("  %post\n  a\n", "", "  a\n", &[3]);
    let stage = one("%pre\n1\n%setup\n2\n%environment\n3\n%runscript\n4\n%startscript\n5\n%test\n6\n%help\n7\n");
    let scripts =
        [stage.pre, stage.setup, stage.environment, stage.runscript, stage.startscript, stage.test, stage.help];
    let texts: Vec<_> = scripts.into_iter().map(|script| script.unwrap_or_default().text).collect();
    assert_eq!(texts, ["1\n", "2\n", "3\n", "4\n", "5\n", "6\n", "7\n"]);
}

#[test]
fn a_scripts_line_is_found_in_the_file() {
    let post = one("Bootstrap: docker\n%post\na\n%test\nt\n%post\nb\n").post.expect("a script");
    let lines: Vec<_> = (0..4).map(|line| post.file_line(line)).collect();
    assert_eq!(lines, [None, Some(3), Some(7), None]);
}

#[test]
fn files() {
    let check = |lines: &str, expected: &[(&str, Option<&str>)]| {
        let stage = one(&format!("%files\n{lines}"));
        let pairs = stage.files[0]
            .pairs
            .iter()
            .map(|FilePair { source, destination, .. }| (source.as_str(), destination.as_deref()));
        assert_eq!(pairs.collect::<Vec<_>>(), expected, "{lines:?}");
    };
    check("a b\n", &[("a", Some("b"))]);
    check("  /etc/x\n\n# no\n\tb\tc\n", &[("/etc/x", None), ("b", Some("c"))]);
    check("\"a b\" \"c d\"\n", &[("a b", Some("c d"))]);
    check("'a b' c # why\n", &[("a b", Some("c"))]);
    check("a\" b\"/c d#e\n", &[("a b/c", Some("d#e"))]);
    check("*.txt /data/\n", &[("*.txt", Some("/data/"))]);
    check("a \"\"\n", &[("a", None)]);
}

#[test]
fn files_of_stages() {
    let text = "Bootstrap: docker\nStage: one\n%files\na\n\nBootstrap: docker\nStage: two\n%files from one\nb\n%files\nc\n%files from one # again\nd e\n";
    let stages = stages(text);
    assert_eq!(stages.iter().map(Stage::name).collect::<Vec<_>>(), [Some("one"), Some("two")]);
    let groups: Vec<_> = stages[1]
        .files
        .iter()
        .map(|files| {
            (
                files.from.as_deref(),
                files.pairs.iter().map(|pair| (pair.source.as_str(), pair.line)).collect::<Vec<_>>(),
            )
        })
        .collect();
    assert_eq!(groups, [(Some("one"), vec![("b", 9), ("d", 13)]), (None, vec![("c", 11)])]);
}

#[test]
fn labels() {
    let stage = one("%labels\nA b c\n  # no\nD\n\n%labels\nA\te\n");
    let expected = [("A", "b c"), ("D", ""), ("A", "e")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(stage.labels, expected);
}

#[test]
fn apps() {
    let stage = one(
        "%appinstall b\n1\n%apprun a extra\n2\n%applabels b\nx y\n%appfiles b\nf\n%appenv b\n3\n%appinstall b\n4\n\
         %apptest a\n5\n%apphelp a\n6\n%appstart a\n7\n",
    );
    let names: Vec<_> = stage.apps.iter().map(|app| app.name.as_str()).collect();
    assert_eq!(names, ["b", "a"]);
    let text = |script: &Option<Script>| script.as_ref().map(|script| script.text.clone()).unwrap_or_default();
    let (b, a) = (&stage.apps[0], &stage.apps[1]);
    assert_eq!((text(&b.install), text(&b.environment)), ("1\n4\n".into(), "3\n".into()));
    assert_eq!(
        (text(&a.run), text(&a.test), text(&a.help), text(&a.start)),
        ("2\n".into(), "5\n".into(), "6\n".into(), "7\n".into())
    );
    assert_eq!(b.labels, [("x".to_owned(), "y".to_owned())]);
    assert_eq!(b.files[0].source, "f");
}

#[test]
fn stages_begin_with_bootstrap_at_the_lines_start() {
    let count = |text: &str| stages(text).len();
    assert_eq!(count("Bootstrap: docker\n%post\nx\nbootstrap: docker\n"), 2);
    assert_eq!(count("Bootstrap: docker\n%post\n bootstrap: docker\n"), 1);
    assert_eq!(count("\n# hello\nBootstrap: docker\n"), 1);
    assert_eq!(count("%post\nx\n"), 1);
}
