//! The invariants of ARCHITECTURE.md, checked over `cargo metadata` and the source tree.
//!
//! Every line of ARCHITECTURE.md that starts with `Invariant:` stands below with the check that holds it;
//! one without the other fails [`every_invariant_is_written_down_and_checked`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;
use siforge_tests::binaries::source_root;
use siforge_tests::source::Source;
use siforge_tests::{binary, config, run};

/// Where a rule is broken; nothing when it holds.
type Violations = Vec<String>;

/// Each sentence of ARCHITECTURE.md with the check of its name below, and a test that runs it.
macro_rules! invariants {
    ($($check:ident: $sentence:literal,)*) => {
        const SENTENCES: &[&str] = &[$($sentence),*];

        mod invariant {
            $(#[test]
            fn $check() {
                let broken = super::$check();
                assert!(broken.is_empty(), "{}\n  {}", $sentence, broken.join("\n  "));
            })*
        }
    };
}

invariants! {
    kubernetes_clients: "only operator knows a Kubernetes client.",
    heavy_agents: "the node agent links neither oci nor the squashfs writer nor build.",
    foreign_dependencies: "operator and node-agent never see each other; they meet in crds and store.",
    kubernetes_in_crates: "crates/ know nothing of Kubernetes.",
    asynchronous_formats: "rootfs, squashfs and sif are synchronous and open no socket.",
    unsafe_code: "unsafe code stands only in crates/launch and at the C edge of node-agent/spank.",
    wordy_launch: "launch knows nothing of SIF, OCI or Slurm.",
    environment_and_exits: "only config.rs reads the environment, and only main.rs exits.",
    orphans: "every .rs file is reachable from a crate root.",
    stale_generated_files: "generated files equal what the generator prints.",
    oversized: "no file is over 600 lines of code and no function over 80.",
}

/// What each package may use of the others, dev-dependencies aside. operator and node-agent never see each other.
const ALLOWED: [(&str, &[&str]); 19] = [
    ("siforge-crds", &[]),
    ("siforge-reference", &[]),
    ("siforge-definition", &[]),
    ("siforge-oci", &["siforge-reference", "siforge-rootfs"]),
    ("siforge-rootfs", &[]),
    ("siforge-squashfs", &["siforge-rootfs"]),
    ("siforge-sif", &[]),
    ("siforge-sign", &["siforge-reference", "siforge-sif"]),
    ("siforge-store", &["siforge-reference"]),
    ("siforge-fuse", &["siforge-squashfs"]),
    ("siforge-launch", &[]),
    ("siforge-agent-api", &[]),
    (
        "siforge-build",
        &[
            "siforge-reference",
            "siforge-definition",
            "siforge-oci",
            "siforge-rootfs",
            "siforge-squashfs",
            "siforge-sif",
            "siforge-store",
            "siforge-launch",
        ],
    ),
    ("siforge-operator", &["siforge-crds", "siforge-reference", "siforge-oci", "siforge-build", "siforge-store"]),
    (
        "siforge-node-agent",
        &["siforge-crds", "siforge-reference", "siforge-store", "siforge-sif", "siforge-launch", "siforge-agent-api"],
    ),
    ("siforge-spank", &["siforge-reference", "siforge-sif", "siforge-launch", "siforge-agent-api"]),
    ("siforge-runtime", &["siforge-launch", "siforge-agent-api"]),
    (
        "siforge-cli",
        &[
            "siforge-reference",
            "siforge-definition",
            "siforge-oci",
            "siforge-build",
            "siforge-squashfs",
            "siforge-fuse",
            "siforge-store",
            "siforge-sif",
            "siforge-sign",
            "siforge-launch",
            "siforge-agent-api",
        ],
    ),
    ("siforge-tests", &[]),
];

/// Folders whose code may end its process without main: a forked child must not run the destructors and exit handlers
/// of the process it was copied from.
const FORKING: [&str; 2] = ["crates/launch/src", "node-agent/spank/src"];

#[test]
fn every_invariant_is_written_down_and_checked() {
    let path = source_root().join("ARCHITECTURE.md");
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let written: BTreeSet<&str> = text.lines().filter_map(|line| line.strip_prefix("Invariant: ")).collect();
    let checked: BTreeSet<&str> = SENTENCES.iter().copied().collect();
    let lines = |set: Vec<&&str>| set.into_iter().map(|line| format!("Invariant: {line}\n")).collect::<String>();
    let (missing, unchecked) =
        (lines(checked.difference(&written).collect()), lines(written.difference(&checked).collect()));
    assert!(
        missing.is_empty() && unchecked.is_empty(),
        "ARCHITECTURE.md lacks:\n{missing}\nno check for:\n{unchecked}"
    );
}

fn foreign_dependencies() -> Violations {
    let mut broken = Vec::new();
    let packages = packages();
    for (name, dependencies) in packages {
        let Some((_, allowed)) = ALLOWED.iter().find(|(package, _)| package == name) else {
            broken.push(format!("{name} is not in the table"));
            continue;
        };
        let own = dependencies.iter().filter(|dependency| packages.contains_key(*dependency));
        broken.extend(own.filter(|own| !allowed.contains(&own.as_str())).map(|own| format!("{name} depends on {own}")));
    }
    broken
}

/// Crates of a Kubernetes client: those that talk to an API server.
const CLIENTS: [&str; 2] = ["kube-client", "kube-runtime"];

fn kubernetes_clients() -> Violations {
    let mut broken = Vec::new();
    for name in packages().keys().filter(|name| *name != "siforge-operator") {
        // crds uses kube for its derive macro alone; the client behind it is then not linked.
        let client = closure(name).into_iter().filter(|package| CLIENTS.contains(&package.name.as_str()));
        broken.extend(client.map(|package| format!("{name} links {}", package.name)));
    }
    broken
}

fn kubernetes_in_crates() -> Violations {
    let crates =
        packages().keys().filter(|name| root().join("crates").join(name.trim_start_matches("siforge-")).is_dir());
    let knows = |name: &String| {
        let words = closure(name)
            .into_iter()
            .filter(|package| package.name.starts_with("kube") || package.name == "k8s-openapi");
        words.map(|package| format!("{name} links {}", package.name)).collect::<Vec<_>>()
    };
    crates.flat_map(knows).collect()
}

fn heavy_agents() -> Violations {
    let heavy = |package: &Linked| match package.name.as_str() {
        "siforge-oci" | "siforge-build" => true,
        "siforge-squashfs" => package.features.contains("write"),
        _ => false,
    };
    let agents = ["siforge-node-agent", "siforge-spank", "siforge-runtime"];
    agents
        .iter()
        .flat_map(|name| {
            closure(name).into_iter().filter(heavy).map(move |package| format!("{name} links {}", package.name))
        })
        .collect()
}

fn asynchronous_formats() -> Violations {
    let mut broken = Vec::new();
    for name in ["siforge-rootfs", "siforge-squashfs", "siforge-sif"] {
        let asynchronous = closure(name)
            .into_iter()
            .filter(|package| ["tokio", "futures", "async-std", "reqwest"].contains(&package.name.as_str()));
        broken.extend(asynchronous.map(|package| format!("{name} links {}", package.name)));
    }
    let formats = sources().iter().filter(|source| {
        ["crates/rootfs/src", "crates/squashfs/src", "crates/sif/src"].iter().any(|dir| is_below(source, dir))
    });
    broken.extend(formats.flat_map(|source| found(source, &["std::net", "TcpStream", "UnixStream", "async"])));
    broken
}

fn wordy_launch() -> Violations {
    let launch = sources().iter().filter(|source| is_below(source, "crates/launch/src"));
    launch.flat_map(|source| found(source, &["sif", "Sif", "oci", "Oci", "slurm", "Slurm", "spank"])).collect()
}

fn unsafe_code() -> Violations {
    let others = sources().iter().filter(|source| !FORKING.iter().any(|dir| is_below(source, dir)));
    others
        .flat_map(|source| {
            source.code.lines().zip(1..).filter(|(line, _)| is_unsafe(line)).map(|(_, line)| at(source, line, "unsafe"))
        })
        .collect()
}

/// `unsafe {`, `unsafe fn`, `unsafe impl`, `#[unsafe(no_mangle)]`; not the lint's name.
fn is_unsafe(line: &str) -> bool {
    line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe")
}

fn environment_readers() -> Violations {
    let others = product_sources().filter(|source| source.path.file_name().is_some_and(|name| name != "config.rs"));
    others.flat_map(|source| found(source, &["env::var", "env::var_os", "env::vars", "env::vars_os"])).collect()
}

fn environment_and_exits() -> Violations {
    environment_readers().into_iter().chain(exits()).collect()
}

fn exits() -> Violations {
    let others = product_sources().filter(|source| source.path.file_name().is_some_and(|name| name != "main.rs"));
    let others = others.filter(|source| !FORKING.iter().any(|dir| is_below(source, dir)));
    others.flat_map(|source| found(source, &["process::exit", "process::abort", "libc::_exit", "libc::exit"])).collect()
}

fn orphans() -> Violations {
    let mut reached = BTreeSet::new();
    let mut queue: Vec<PathBuf> = metadata()["packages"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|package| package["targets"].as_array().into_iter().flatten())
        .filter_map(|target| target["src_path"].as_str().map(PathBuf::from))
        .collect();
    while let Some(path) = queue.pop() {
        if reached.insert(path.clone()) {
            queue.extend(Source { code: code_of(&path), path }.modules());
        }
    }
    let all = sources().iter().filter(|source| !is_below(source, "fuzz"));
    all.filter(|source| !reached.contains(&source.path))
        .map(|source| format!("{} is in no crate", shown(&source.path)))
        .collect()
}

fn code_of(path: &Path) -> String {
    Source::read(path).code
}

fn oversized() -> Violations {
    let mut broken = Vec::new();
    for source in sources() {
        let lines = source.code_lines();
        if lines > 600 {
            broken.push(format!("{}: {lines} lines of code", shown(&source.path)));
        }
        let long = source.functions().into_iter().filter(|function| function.lines > 80);
        broken.extend(
            long.map(|function| at(source, function.line, &format!("{} has {} lines", function.name, function.lines))),
        );
    }
    broken
}

fn stale_generated_files() -> Violations {
    let path = source_root().join("crds/singularityimages.siforge.dev.yaml");
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    let printed = run(Command::new(binary("siforge-operator")).arg("crd")).ok().stdout;
    if committed == printed {
        Vec::new()
    } else {
        vec![format!("{} differs from `siforge-operator crd`: run make crd", shown(&path))]
    }
}

/// Code that ships: neither tests nor build scripts (Cargo talks to those by the environment).
fn product_sources() -> impl Iterator<Item = &'static Source> {
    sources().iter().filter(|source| {
        let path = shown(&source.path);
        let test = path.starts_with("tests/")
            || path.contains("/tests/")
            || path.contains("/benches/")
            || path.contains("/fuzz/")
            || path.contains("/examples/");
        let test_module =
            source.path.file_stem().is_some_and(|stem| stem == "tests" || stem.to_string_lossy().ends_with("_tests"));
        !test && !test_module && !path.ends_with("build.rs")
    })
}

/// All Rust files that git knows or would add.
fn sources() -> &'static [Source] {
    static SOURCES: OnceLock<Vec<Source>> = OnceLock::new();
    SOURCES.get_or_init(|| {
        let root = root();
        let list =
            run(Command::new("git").args(["ls-files", "-co", "--exclude-standard", "*.rs"]).current_dir(&root)).ok();
        let paths = list.stdout.lines().map(|line| root.join(line)).filter(|path| path.is_file());
        paths.map(|path| Source::read(&path)).collect()
    })
}

fn found(source: &Source, patterns: &[&str]) -> Violations {
    patterns
        .iter()
        .flat_map(|pattern| source.lines_with(pattern).into_iter().map(|line| at(source, line, pattern)))
        .collect()
}

fn at(source: &Source, line: usize, what: &str) -> String {
    format!("{}:{line}: {what}", shown(&source.path))
}

fn is_below(source: &Source, dir: &str) -> bool {
    source.path.starts_with(root().join(dir))
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

fn root() -> PathBuf {
    source_root().canonicalize().unwrap_or_else(|e| panic!("{}: {e}", source_root().display()))
}

/// Packages of the workspace with their direct dependencies, dev-dependencies left out.
fn packages() -> &'static BTreeMap<String, Vec<String>> {
    static PACKAGES: OnceLock<BTreeMap<String, Vec<String>>> = OnceLock::new();
    PACKAGES.get_or_init(|| {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let direct = |package: &Value| {
            list(&package["dependencies"]).iter().filter(|d| d["kind"] != "dev").map(|d| text(&d["name"])).collect()
        };
        list(&metadata()["packages"]).iter().map(|package| (text(&package["name"]), direct(package))).collect()
    })
}

fn metadata() -> &'static Value {
    static METADATA: OnceLock<Value> = OnceLock::new();
    METADATA.get_or_init(|| {
        let mut cargo = Command::new(config::cargo());
        let printed =
            run(cargo.args(["metadata", "--format-version", "1", "--no-deps", "--offline"]).current_dir(root())).ok();
        serde_json::from_str(&printed.stdout).unwrap_or_else(|e| panic!("cargo metadata: {e}"))
    })
}

/// A package that another links, with the features it is built with then.
#[derive(Debug)]
struct Linked {
    name: String,
    features: BTreeSet<String>,
}

/// All that `cargo build -p name` links: features are those of this build, not of the whole workspace.
fn closure(name: &str) -> Vec<Linked> {
    let mut cargo = Command::new(config::cargo());
    cargo.args(["tree", "-e", "normal", "--prefix", "none", "-f", "{p}|{f}", "-p", name]).current_dir(root());
    let printed = run(&mut cargo).ok().stdout;
    let lines = printed.lines().filter_map(|line| line.split_once('|'));
    lines
        .map(|(package, features)| Linked {
            name: package.split(' ').next().unwrap_or_default().to_owned(),
            features: features.split(',').map(|feature| feature.trim_end_matches(" (*)").to_owned()).collect(),
        })
        .collect()
}
