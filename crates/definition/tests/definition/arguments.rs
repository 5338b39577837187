//! `{{ NAME }}`. Behaviour without a comment is the reference's.

use crate::parse;

#[test]
fn what_stands_for_them() {
    let check = |line: &str, expected: &str| {
        let text = format!("Bootstrap: docker\n%arguments\nd=default\nn=<{{{{ d }}}}>\n # x=no\n%post\n{line}\n");
        let definition = parse(&text, &["a=1", "b=x=y", "e="]).unwrap_or_else(|error| panic!("{line:?}: {error}"));
        let post = definition.stages[0].post.as_ref().map(|script| script.text.as_str());
        assert_eq!(post, Some(format!("{expected}\n").as_str()), "{line:?}");
        assert!(definition.text.ends_with(&format!("%post\n{expected}\n")), "{line:?}");
    };
    check("x {{ a }}{{b}} {{   d}}", "x 1x=y default");
    check("[{{ e }}]", "[]");
    check("{{{ a }}}", "{1}");
    check("{{ a-b }} {{ }} {{ a }", "{{ a-b }} {{ }} {{ a }");
    check("{{ n }}", "<default>");
    check("# {{ nobody }}", "# {{ nobody }}");
    check("x # {{ a }}", "x # {{ a }}");
    check("#!/bin/{{ a }}", "#!/bin/1");
    check("#{{ a }}", "#1");
    check("ü{{ a }}ü", "ü1ü");
}

#[test]
fn each_stage_has_its_own_defaults() {
    let text = "Bootstrap: docker\nFrom: {{ v }}\n%arguments\nv=1\nBootstrap: docker\nFrom: {{ v }}\n%arguments\nv=2\n";
    let from = |arguments: &[&str]| {
        let stages = parse(text, arguments).expect("parses").stages;
        stages.iter().map(|stage| stage.header.fields[1].value.clone()).collect::<Vec<_>>()
    };
    assert_eq!(from(&[]), ["1", "2"]);
    assert_eq!(from(&["v=3"]), ["3", "3"]);
}

#[test]
fn a_value_with_lines_keeps_the_numbers_of_those_that_follow() {
    let definition = parse("Bootstrap: docker\n%post\n{{ a }}\nlast\n", &["a=one\ntwo"]).expect("parses");
    let post = definition.stages[0].post.clone().expect("a script");
    assert_eq!((post.text.as_str(), &post.lines[..]), ("one\ntwo\nlast\n", &[3, 3, 4][..]));
}

#[test]
fn unused_ones_are_told() {
    let definition = parse("Bootstrap: docker\n%post\n{{ a }} # {{ b }}\n", &["a=", "b=", "c="]).expect("parses");
    assert_eq!(definition.unused_arguments, ["b", "c"]);
}

#[test]
fn lines_without_a_value_are_skipped() {
    let definition = parse("Bootstrap: docker\n%arguments\nno\n=x\n a = b c \n%post\n{{ a }}\n", &[]).expect("parses");
    assert_eq!(
        definition.warnings,
        [3, 4].map(|line| format!("x.def:{line}: no NAME=VALUE: this line of %arguments is skipped"))
    );
    assert_eq!(definition.stages[0].post.as_ref().map(|post| post.text.as_str()), Some("b c\n"));
}

#[test]
fn a_file_of_them() {
    use siforge_definition::Arguments;
    let (arguments, warnings) = Arguments::read(Some("# x\n\na=1\nb = 2\nrubbish\n"), ["a=3"]).expect("arguments");
    let pairs: Vec<_> = arguments.values.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(pairs, [("a", "3"), ("b", "2")]);
    assert_eq!(warnings, ["line 5 of the build arguments is no NAME=VALUE: skipped"]);
    assert_eq!(Arguments::read(None, ["x"]), Err("\"x\" is no NAME=VALUE".to_owned()));
}
