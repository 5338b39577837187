//! `make bench`. `siforge-bench pull`, `launch`, `fuse`, `image`, `definition` and `big` do one part; `siforge-bench measure RUNS AT_ONCE COMMAND…` is how it runs what it measures.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::ExitCode;

use siforge_tests::bench::report::Report;
use siforge_tests::bench::{Bench, definition, entries, fuse, image, launch, measure, pull, reads};
use siforge_tests::{Cluster, Registry, binary, config, images, site};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.split_first() {
        Some((word, rest)) if word == "measure" => measured(rest),
        None => benchmark(&["pull", "definition", "image", "launch", "big"]),
        Some((word, [])) if ["pull", "launch", "fuse", "image", "definition", "big"].contains(&word.as_str()) => {
            benchmark(&[word])
        }
        _ => {
            eprintln!("usage: siforge-bench [pull|launch|fuse|image|definition|big]");
            ExitCode::from(2)
        }
    }
}

fn measured(words: &[String]) -> ExitCode {
    let [runs, at_once, command @ ..] = words else {
        return ExitCode::from(2);
    };
    let (Ok(runs), Ok(at_once)) = (runs.parse(), at_once.parse()) else {
        return ExitCode::from(2);
    };
    match measure::measure(runs, at_once, command) {
        Ok(measured) => {
            println!("{}", measured.to_json());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn benchmark(parts: &[&str]) -> ExitCode {
    let dir =
        tempfile::Builder::new().prefix("siforge-bench-").tempdir().unwrap_or_else(|e| panic!("make a folder: {e}"));
    allow(dir.path());
    let bench = Bench::new(dir.path().to_path_buf(), binary("siforge-bench"), config::bench_rounds());
    let registry = Registry::plain();
    registry.push("tiny:latest", &images::tiny());
    let mut report = Report::default();
    if parts.contains(&"pull") {
        pulls(&bench, &mut report, &registry);
    }
    if parts.contains(&"fuse") {
        images::push_python(&registry);
        fuse::fuse(&bench, &mut report, &registry);
    }
    if parts.contains(&"definition") {
        images::push_python(&registry);
        definition::definition(&bench, &mut report, &registry);
    }
    if parts.contains(&"big") {
        let layout = images::big_layout();
        images::push_big(&registry);
        let big = pull::Image { name: "big", layout: Some(&layout), cpu: 1.0 / 12.0, memory: 256.0 };
        pull::pull(&bench, &mut report, &registry, &big);
    }
    if parts.contains(&"image") {
        image::image(&bench, &mut report, &images::lolcow_layout());
    }
    if parts.contains(&"launch") {
        launches(&bench, &mut report, &registry, dir.path());
    }
    println!("{}", report.to_markdown());
    if let Some(path) = config::bench_json() {
        std::fs::write(&path, report.to_json().to_string()).unwrap_or_else(|e| panic!("write {}: {e}", path.display()));
    }
    if report.is_met() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn pulls(bench: &Bench, report: &mut Report, registry: &Registry) {
    let (lolcow, python) = (images::lolcow_layout(), images::python_layout());
    images::push_lolcow(registry, "lolcow:latest");
    images::push_python(registry);
    for image in [
        pull::Image { name: "tiny", layout: None, cpu: 1.0 / 15.0, memory: 200.0 },
        pull::Image { name: "lolcow", layout: Some(&lolcow), cpu: 1.0 / 15.0, memory: 200.0 },
        pull::Image { name: "python", layout: Some(&python), cpu: 1.0 / 15.0, memory: 200.0 },
    ] {
        pull::pull(bench, report, registry, &image);
    }
    pull::again(bench, report, registry);
    entries::entries(bench, report, registry);
    reads::reads(bench, report, registry);
    fuse::fuse(bench, report, registry);
}

/// The agent launches what an operator has published, so the whole site comes up.
fn launches(bench: &Bench, report: &mut Report, registry: &Registry, dir: &Path) {
    let cluster = Cluster::start();
    site::install_crd(&cluster);
    let (store, socket, sif) = (dir.join("store"), site::socket_in(dir), dir.join("tiny.sif"));
    std::fs::create_dir(&store).unwrap_or_else(|e| panic!("create {}: {e}", store.display()));
    let _operator = site::start_operator(dir, &store, &cluster.kubeconfig());
    site::publish(&cluster, "default", "tiny", &format!("{}/tiny:latest", registry.address()));
    let _agent = site::start_agent(dir, &store, &socket);
    let mut build = std::process::Command::new(binary("siforge"));
    build.args(["-q", "build", "--no-https"]).arg(&sif).arg(registry.reference("tiny:latest"));
    siforge_tests::run(build.env("SIFORGE_CACHEDIR", dir.join("cache"))).ok();
    allow(&sif);
    launch::launch(bench, report, &launch::Images { sif: &sif, name: "tiny", socket: &socket, registry });
}

fn allow(path: &Path) {
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(path, mode).unwrap_or_else(|e| panic!("chmod {}: {e}", path.display()));
}
