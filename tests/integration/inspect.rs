//! `inspect`, `run-help`, `test` and `--app` against the reference: the same images, the same text.

use std::cell::RefCell;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use siforge_tests::apptainer::Apptainer;
use siforge_tests::{Finished, Registry, Siforge, images};

const DEFINITION: &str = r#"Bootstrap: localimage
From: tiny.sif

%environment
    export FROM_DEFINITION="a < b & c"
%runscript
    echo run "$@"

    echo end
%startscript
    echo start
%test
    echo tested "$@"
    test "$1" != fail
%help
    How to use it: <read> this.

    Twice.
%labels
    Author Somebody & Co <x@example.org>
    Version 1.0
%appinstall foo
    echo installed > here
%appenv foo
    export T_APP=foo
%apprun foo
    echo "app $T_APP $@"
%applabels foo
    VERSION 2.0
%apphelp foo
    help of foo
%apptest foo
    echo test of foo
%apprun bar
    echo bar
"#;

struct Both {
    siforge: Siforge,
    apptainer: Apptainer,
    /// All of them are told at the end.
    differences: RefCell<Vec<String>>,
}

impl Both {
    /// tiny, and the definition over it, by both programs; and their sandboxes. The reference as a user: as root its %post asks for
    /// every capability, which the root of a container has not.
    fn new() -> Self {
        let both = Self { siforge: Siforge::root(), apptainer: Apptainer::new(), differences: RefCell::default() };
        let out = both.siforge.out();
        fs::set_permissions(both.apptainer.here(), fs::Permissions::from_mode(0o777)).unwrap();
        images::tiny().write_layout(&out.join("layout"));
        fs::write(out.join("full.def"), DEFINITION).unwrap();
        fs::write(
            both.apptainer.here().join("full.def"),
            DEFINITION.replace("tiny.sif", &both.apptainer.there("tiny.sif")),
        )
        .unwrap();
        both.siforge.run(&["build", "tiny.sif", "oci:layout"]).ok();
        fs::copy(out.join("tiny.sif"), both.apptainer.here().join("tiny.sif")).unwrap();
        both.siforge.run(&["build", "ours.sif", "full.def"]).ok();
        fs::copy(out.join("ours.sif"), both.apptainer.here().join("ours.sif")).unwrap();
        both.siforge.run(&["build", "--sandbox", "box", "ours.sif"]).ok();
        both.theirs(&["build", "theirs.sif", "full.def"]).ok();
        fs::copy(both.apptainer.here().join("theirs.sif"), out.join("theirs.sif")).unwrap();
        both.theirs(&["build", "--sandbox", "box", "ours.sif"]).ok();
        // The reference changes labels and definition of a sandbox; both shall look at the same.
        for name in ["labels.json", "Singularity", "env/94-appsbase.sh"] {
            let file = |root: &std::path::Path| root.join("box/.singularity.d").join(name);
            fs::copy(file(&out), file(both.apptainer.here())).unwrap();
        }
        both
    }

    fn theirs(&self, words: &[&str]) -> Finished {
        let name = |word: &&str| word.contains('.') || *word == "box";
        let words: Vec<_> =
            words.iter().map(|word| if name(word) { self.apptainer.there(word) } else { (*word).to_owned() }).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.apptainer.user(&[&["apptainer", "-q"], &words[..]].concat())
    }

    #[track_caller]
    fn same(&self, words: &[&str]) -> Finished {
        let (ours, theirs) = (self.siforge.run(words), self.theirs(words));
        if (ours.code(), &ours.stdout) != (theirs.code(), &theirs.stdout) {
            self.differences.borrow_mut().push(format!("{words:?}\nours: {ours}\ntheirs: {theirs}"));
        }
        ours
    }

    fn done(&self) {
        let differences = self.differences.take();
        assert!(differences.is_empty(), "{} differences:\n{}", differences.len(), differences.join("\n"));
    }
}

#[test]
fn what_is_shown_is_what_the_reference_shows() {
    let both = Both::new();
    for image in ["tiny.sif", "ours.sif", "theirs.sif", "box"] {
        for options in [
            &[][..],
            &["--labels"],
            &["--deffile"],
            &["--runscript"],
            &["--startscript"],
            &["--test"],
            &["--environment"],
            &["--helpfile"],
            &["--list-apps"],
            &["-d", "-r", "-t", "-e", "-H", "-l"],
            &["--all"],
        ] {
            both.same(&[&["inspect"], options, &[image]].concat());
            if (image, options) != ("box", &["--list-apps"]) {
                both.same(&[&["inspect", "--json"], options, &[image]].concat());
            }
            // In a sandbox the reference looks for the definition in the app's folder, and does not say what apps have.
            let of_image = options.iter().any(|option| ["--deffile", "-d", "--list-apps"].contains(option));
            if image != "tiny.sif" && options != ["--all"] && !(image == "box" && of_image) {
                both.same(&[&["inspect", "--app", "foo"], options, &[image]].concat());
                both.same(&[&["inspect", "--json", "--app", "bar"], options, &[image]].concat());
            }
        }
        both.same(&["run-help", image]);
    }
    let help = both.same(&["run-help", "--app", "foo", "ours.sif"]);
    assert_eq!(help.stdout.trim(), "help of foo");
    both.done();
    let wrong = both.siforge.run(&["inspect", "--app", "none", "ours.sif"]).fails_with(255);
    assert!(wrong.stderr.contains("\"none\"") && wrong.stderr.contains("bar, foo"), "{wrong}");
}

#[test]
fn tests_and_apps_run_as_the_reference_runs_them() {
    let both = Both::new();
    for image in ["ours.sif", "theirs.sif", "box"] {
        both.same(&["test", image, "x"]);
        both.same(&["test", image, "fail"]);
        both.same(&["run", "--app", "foo", image, "x"]);
        both.same(&["test", "--app", "foo", image]);
        both.same(&["test", "--app", "bar", image]);
        both.same(&["exec", "--app", "foo", image, "sh", "-c", "echo $SCIF_APPROOT $T_APP $SINGULARITY_APPNAME"]);
        both.same(&["run", image, "x"]);
    }
    both.same(&["test", "tiny.sif"]);
    both.done();
    let wrong = both.siforge.run(&["run", "--app", "none", "ours.sif"]);
    assert_ne!(wrong.code(), 0, "{wrong}");
}

/// Of an image in a registry only manifest and config are fetched; what is shown is what a pull would show.
#[test]
fn an_image_in_a_registry_is_not_fetched() {
    let registry = Registry::plain();
    registry.push("tiny", &images::tiny());
    let siforge = Siforge::root();
    let source = registry.reference("tiny");
    let remote =
        |options: &[&str]| siforge.run(&[&["inspect", "--no-https"], options, &[&*source]].concat()).ok().stdout;
    let shown = [remote(&["--all"]), remote(&[])];
    let log = registry.log();
    let blobs = log.lines().filter(|line| line.contains("/blobs/sha256:")).count();
    // The config, once for each command; no layer.
    assert!(registry.requests("GET", "/v2/tiny/blobs/") <= 2, "{blobs}: {log}");
    siforge.pull(&registry, "tiny", "tiny.sif");
    let local = |options: &[&str]| siforge.run(&[&["inspect"], options, &["tiny.sif"]].concat()).ok().stdout;
    assert_eq!(shown, [local(&["--all"]), local(&[])]);
}

/// Without the object, from the partition.
#[test]
fn a_sif_without_metadata_is_read_file_by_file() {
    let siforge = Siforge::root();
    images::tiny().write_layout(&siforge.out().join("layout"));
    siforge.run(&["build", "tiny.sif", "oci:layout"]).ok();
    let with = siforge.run(&["inspect", "--all", "tiny.sif"]).ok();
    siforge.run(&["sif", "del", "2", "tiny.sif"]).ok();
    let without = siforge.run(&["inspect", "--all", "tiny.sif"]).ok();
    assert_eq!(with.stdout, without.stdout);
}
