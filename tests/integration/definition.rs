//! Definition files, built by us and by the reference: the same image, or both refuse.
//!
//! ```text
//!  tests/definitions/NAME.def ─┬─ siforge build ──▶ NAME-ours.sif   ┐  file trees (unsquashfs), labels, help, test, definition,
//!                              └─ apptainer build ▶ NAME-theirs.sif ┘  environment, what run does with 20 shapes of arguments
//! ```
//! What docs/differences.md lists is left out of the comparison by name, here.

mod life;
pub(crate) mod users;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use siforge_tests::apptainer::Apptainer;
use siforge_tests::{Compression, Finished, Listing, Registry, Siforge, Tar, images, need, run};

/// A folder that both programs see, with all that the definitions take from the host.
pub(crate) struct Bench {
    apptainer: Apptainer,
    pub(crate) siforge: Siforge,
    registry: Registry,
}

/// Of the definitions that both build: those whose builds fail, by design.
const REFUSED: [&str; 7] =
    ["arguments-undefined", "bad-agent", "bad-keyword", "bad-section", "files-missing", "post-exit", "post-fails"];

/// Owned by the runtime: each program has its own text.
const RUNTIME: [&str; 9] = [
    "actions",
    "env/01-base.sh",
    "env/10-docker2singularity.sh",
    "env/90-environment.sh",
    "env/94-appsbase.sh",
    "env/95-apps.sh",
    "env/99-base.sh",
    "env/99-runtimevars.sh",
    "labels.json",
];

/// Where a definition has no such section, each program has its own text that does the same.
const DEFAULTS: [(&str, &str); 2] = [("runscript", "%runscript"), ("startscript", "%startscript")];

/// Ours keep the comment above the first header line, and no carriage returns.
const OWN_TEXT: [&str; 2] = ["header-comments", "header-crlf"];

impl Bench {
    pub(crate) fn new() -> Self {
        let registry = Registry::plain();
        let tiny = images::tiny();
        registry.push("tiny:latest", &tiny);
        registry.push("lab/tiny:v1", &tiny);
        registry.push("tiny:gzip", &images::tiny_with(Compression::Gzip));
        let bench = Self { apptainer: Apptainer::new(), siforge: Siforge::root(), registry };
        bench.fill();
        bench
    }

    pub(crate) fn here(&self) -> &Path {
        self.apptainer.here()
    }

    fn fill(&self) {
        let here = self.here();
        // Apptainer's user writes there.
        fs::set_permissions(here, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        let at = |name: &str| here.join(name);
        let write = |name: &str, text: &str| fs::write(at(name), text).unwrap();
        for dir in ["files", "files/dir", "files/links"] {
            fs::create_dir(at(dir)).unwrap();
        }
        for (name, text) in [
            ("a.txt", "a\n"),
            ("b.txt", "b\n"),
            ("with space", "space\n"),
            ("dir/x", "x\n"),
            ("dir/y", "y\n"),
            ("dir/z", "z\n"),
            ("run.sh", "#!/bin/sh\necho run\n"),
        ] {
            write(&format!("files/{name}"), text);
        }
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(at("files/run.sh"), executable).unwrap();
        std::os::unix::fs::symlink("a.txt", at("files/link")).unwrap();
        std::os::unix::fs::symlink("../dir", at("files/links/dir")).unwrap();
        std::os::unix::fs::symlink("../a.txt", at("files/links/file")).unwrap();
        fs::copy(need::program("busybox"), at("busybox")).unwrap();
        // Docker's archives know no zstd.
        let docker = self.registry.reference("tiny:gzip");
        for (format, name) in
            [("oci", "layout:tiny"), ("oci-archive", "tiny.oci.tar"), ("docker-archive", "tiny.docker.tar")]
        {
            let to = format!("{format}:{}", at(name).display());
            run(Command::new("skopeo").args([
                "--insecure-policy",
                "copy",
                "-q",
                "--src-tls-verify=false",
                &docker,
                &to,
            ]))
            .ok();
        }
        let base = "Bootstrap: docker\nFrom: {{ REGISTRY }}/tiny\n%post\n    echo base > /etc/from-base\n%environment\n    export T_BASE=base\n%labels\n    BASE_LABEL base\n%help\n    help of the base\n%runscript\n    echo base runs \"$@\"\n%test\n    true\n";
        write("base.def", base);
        self.theirs("base.sif", "base.def", &[]).ok();
        self.apptainer_in(&["apptainer", "-q", "build", "--sandbox", "sandbox", "base.sif"]).ok();
    }

    /// A command in the folder, where Apptainer lives. As its user: as root it needs capabilities that a machine in a
    /// container may not have.
    fn apptainer_in(&self, words: &[&str]) -> Finished {
        let there = self.apptainer.there("");
        let mut all = vec!["sh", "-c", "cd \"$0\" && exec \"$@\"", &there];
        all.extend(words);
        self.apptainer.user(&all)
    }

    /// `siforge` in the folder.
    pub(crate) fn ours_in(&self, words: &[&str]) -> Finished {
        run(self.siforge.command().current_dir(self.here()).args(words))
    }

    fn theirs(&self, sif: &str, definition: &str, options: &[&str]) -> Finished {
        let registry = format!("REGISTRY={}", self.registry.address());
        let words = ["apptainer", "-q", "build", "--no-https", "--warn-unused-build-args", "--build-arg", &registry];
        let words: Vec<&str> = words.iter().chain(options).copied().chain([sif, definition]).collect();
        self.apptainer_in(&words)
    }

    pub(crate) fn ours(&self, sif: &str, definition: &str, options: &[&str]) -> Finished {
        let registry = format!("REGISTRY={}", self.registry.address());
        let words = ["-q", "build", "--no-https", "--warn-unused-build-args", "--build-arg", &registry];
        let words: Vec<&str> = words.iter().chain(options).copied().chain([sif, definition]).collect();
        self.ours_in(&words)
    }

    /// What unsquashfs takes out of a SIF.
    fn tree(&self, sif: &str) -> (tempfile::TempDir, PathBuf) {
        unsquashed(&self.here().join(sif), self.here())
    }

    fn labels(&self, sif: &str) -> BTreeMap<String, String> {
        let said = self.ours_in(&["inspect", "--json", sif]).ok();
        let document: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
        let labels = document["data"]["attributes"]["labels"].clone();
        let mut labels: BTreeMap<String, String> = serde_json::from_value(labels).unwrap();
        // Clock, program, and what the reference adds of its own.
        labels.retain(|name, _| {
            !["org.label-schema.build-date", "org.label-schema.usage.apptainer.version"].contains(&name.as_str())
                && !name.starts_with("org.opencontainers.image.base.")
                && !["created", "architecture", "variant"]
                    .iter()
                    .any(|key| name == &format!("org.opencontainers.image.{key}"))
        });
        labels
    }
}

/// What unsquashfs takes out of a SIF, in a new folder of `dir`.
fn unsquashed(sif: &Path, dir: &Path) -> (tempfile::TempDir, PathBuf) {
    let file = fs::File::open(sif).unwrap();
    let partition = siforge_sif::Sif::open(file).unwrap().primary_partition().unwrap();
    let dir = tempfile::tempdir_in(dir).unwrap();
    let root = dir.path().join("root");
    let offset = partition.offset.to_string();
    run(Command::new("unsquashfs").args(["-no-progress", "-quiet", "-offset", &offset, "-dest"]).arg(&root).arg(sif))
        .ok();
    (dir, root)
}

/// What may be typed behind `run`.
const SHAPES: [&[&str]; 20] = [
    &[],
    &["one"],
    &["one", "two"],
    &["two words"],
    &[""],
    &["", "after empty"],
    &["-x"],
    &["--", "x"],
    &["--help"],
    &["*"],
    &["$HOME"],
    &["$(echo hi)"],
    &["`echo hi`"],
    &["a;b"],
    &["a&b", "c|d"],
    &["it's"],
    &["say \"hi\""],
    &["back\\slash"],
    &["new\nline"],
    &["ümlaut", "tab\there"],
];

fn definitions() -> Vec<String> {
    let dir = siforge_tests::binaries::source_root().join("tests/definitions");
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter_map(|name| name.strip_suffix(".def").map(str::to_owned)).collect();
    names.sort();
    names
}

#[test]
fn every_definition_gives_what_the_reference_gives() {
    let bench = Bench::new();
    let names = definitions();
    assert!(names.len() >= 40, "{}", names.len());
    let failures: Vec<String> = names.iter().filter_map(|name| compare(&bench, name).err()).collect();
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), names.len(), failures.join("\n\n"));
}

/// What differs.
fn compare(bench: &Bench, name: &str) -> Result<(), String> {
    let definition = format!("{name}.def");
    let text =
        fs::read_to_string(siforge_tests::binaries::source_root().join("tests/definitions").join(&definition)).unwrap();
    fs::write(bench.here().join(&definition), &text).unwrap();
    let (ours, theirs) = (format!("{name}-ours.sif"), format!("{name}-theirs.sif"));
    let given = ["--build-arg", "GIVEN=given"];
    let built = [bench.ours(&ours, &definition, &given), bench.theirs(&theirs, &definition, &given)];
    let refused = REFUSED.contains(&name) || name == "test-fails";
    let [a, b] = built.each_ref().map(Finished::success);
    if refused {
        return if a || b { Err(format!("{name}: built\n{}\n{}", built[0], built[1])) } else { Ok(()) };
    }
    if !a || !b {
        return Err(format!("{name}: not built\n{}\n{}", built[0], built[1]));
    }
    let own_text = OWN_TEXT.contains(&name);
    let mut wrong = trees(bench, &text, own_text, &ours, &theirs);
    if bench.labels(&ours) != bench.labels(&theirs) {
        wrong += &format!("\nlabels: {:?}\nlabels| {:?}", bench.labels(&ours), bench.labels(&theirs));
    }
    for option in ["--deffile", "--helpfile", "--test"].into_iter().skip(usize::from(own_text)) {
        let [a, b] = [&ours, &theirs].map(|sif| bench.ours_in(&["inspect", option, sif]).stdout);
        if a != b {
            wrong += &format!("\n{option}: {a:?}\n{option}| {b:?}");
        }
    }
    wrong += &behaviour(bench, &ours, &theirs);
    if wrong.is_empty() { Ok(()) } else { Err(format!("{name}:{wrong}")) }
}

fn trees(bench: &Bench, text: &str, own_text: bool, ours: &str, theirs: &str) -> String {
    let hidden = |name: &str| {
        let Some(name) = name.strip_prefix(".singularity.d/") else {
            return name.starts_with("scif/apps/") && name.ends_with("/scif/env/01-base.sh");
        };
        let default = DEFAULTS.iter().any(|(path, section)| name == *path && !text.contains(section));
        RUNTIME.contains(&name) || default || (own_text && name == "Singularity")
    };
    let look = |sif: &str| {
        let (dir, root) = bench.tree(sif);
        let mut listing = Listing::of(&root).without(hidden);
        for entry in listing.0.values_mut() {
            // Of the build's own time; and the reference's user owns nothing.
            entry.mtime = 0;
            entry.owner = (0, 0);
        }
        drop(dir);
        listing
    };
    look(ours).differences(&look(theirs))
}

/// What commands in both images say, by us; and of ours, by the reference.
fn behaviour(bench: &Bench, ours: &str, theirs: &str) -> String {
    let mut wrong = String::new();
    let environment = "env | grep ^T_ | sort";
    let mut all: Vec<Vec<&str>> = vec![vec!["exec", "IMAGE", "sh", "-c", environment]];
    all.extend(SHAPES.iter().map(|shape| ["run", "IMAGE"].iter().chain(*shape).copied().collect()));
    for (number, words) in all.iter().enumerate() {
        let with = |sif| words.iter().map(|word| if *word == "IMAGE" { sif } else { *word }).collect::<Vec<&str>>();
        let mut said = vec![bench.ours_in(&with(ours)), bench.ours_in(&with(theirs))];
        if number < 3 {
            let words: Vec<&str> = ["apptainer", "-q"].into_iter().chain(with(ours)).collect();
            said.push(bench.apptainer_in(&words));
        }
        let first = (said[0].code(), said[0].stdout.clone());
        if said.iter().any(|other| (other.code(), other.stdout.clone()) != first) {
            wrong += &format!("\n{words:?}: {}", said.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"));
        }
    }
    wrong
}

#[test]
fn apps_and_tests_run_as_the_reference_runs_them() {
    let bench = Bench::new();
    let text = fs::read_to_string(siforge_tests::binaries::source_root().join("tests/definitions/apps.def")).unwrap();
    fs::write(bench.here().join("apps.def"), text).unwrap();
    bench.ours("apps-ours.sif", "apps.def", &[]).ok();
    bench.theirs("apps-theirs.sif", "apps.def", &[]).ok();
    for sif in ["apps-ours.sif", "apps-theirs.sif"] {
        let said = bench.apptainer_in(&["apptainer", "-q", "run", "--app", "foo", sif, "x"]).ok();
        assert_eq!(said.stdout, "run foo foo x\n", "{sif}");
        let said = bench.apptainer_in(&["apptainer", "-q", "inspect", "--list-apps", sif]).ok();
        assert_eq!(said.stdout, "bar\nfoo\n", "{sif}");
        let said = bench.apptainer_in(&["apptainer", "-q", "run-help", "--app", "foo", sif]).ok();
        assert_eq!(said.stdout.trim(), "help of foo", "{sif}");
    }
}

/// A layer over the registry's own: it is the base's packs and one more, so the base is not compressed again.
#[test]
fn a_base_is_neither_unpacked_nor_compressed_again() {
    let bench = Bench::new();
    let big: Vec<u8> = (0..64 << 20).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let image = images::tiny().layer(Tar::new().file("big", 0o644, big).finish(), Compression::Zstd);
    bench.registry.push("big:latest", &image);
    let text = "Bootstrap: docker\nFrom: {{ REGISTRY }}/big\n%post\n    echo small > /small\n";
    fs::write(bench.here().join("big.def"), text).unwrap();
    bench.ours("first.sif", "big.def", &[]).ok();
    let packs = |siforge: &Siforge| {
        let said = run(siforge.command().args(["cache", "list", "--type", "pack", "--json"])).ok();
        said.stdout.clone()
    };
    let before = packs(&bench.siforge);
    bench.ours("second.sif", "big.def", &["--force"]).ok();
    assert!(!before.is_empty());
    let said = bench.ours_in(&["exec", "second.sif", "sh", "-c", "cat /small; ls -l /big | awk '{print $5}'"]).ok();
    assert_eq!(said.stdout, format!("small\n{}\n", 64 << 20));
}
