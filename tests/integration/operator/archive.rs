//! Archives that an administrator puts into the store.

use super::{Site, condition, image};
use std::fs;
use std::process::Command;

use siforge_tests::run;

#[test]
fn an_archive_of_the_store_is_built_once_it_is_there() {
    let site = Site::new();
    let import = site.store_path().join("import").join(&site.namespace);
    site.apply("layout", "{source: {archive: {format: OCILayout, path: images/cow}}}");
    site.apply("archive", "{source: {archive: {format: OCIArchive, path: cow.tar}}}");
    site.apply("docker", "{source: {archive: {format: DockerArchive, path: cow.docker.tar.gz}}}");
    let message = site.wait_condition("layout", "Stalled", "True", "SourceInvalid");
    assert!(message.contains("no OCI image layout"), "{message}");
    let message = site.wait_condition("archive", "Reconciling", "True", "NotFound");
    assert!(message.contains("cow.tar"), "{message}");

    let layout = import.join("images/cow");
    image("moo").write_layout(&layout);
    let from = format!("oci:{}:image", layout.display());
    for (kind, file) in [("oci-archive", "cow.tar"), ("docker-archive", "cow.docker.tar")] {
        let to = format!("{kind}:{}", import.join(file).display());
        run(Command::new("skopeo").args(["--insecure-policy", "copy", "-q", &from, &to])).ok();
    }
    run(Command::new("gzip").arg(import.join("cow.docker.tar"))).ok();
    for name in ["layout", "archive", "docker"] {
        site.kubectl(&["annotate", "sif", name, "siforge.dev/reconcile-at=1"]);
    }
    let digest = |name: &str| site.wait_ready(name)["status"]["digest"].as_str().unwrap_or_default().to_owned();
    assert_eq!(digest("layout"), digest("archive"), "the same manifest");
    assert_ne!(digest("docker"), "");
    let published = site.published("docker").expect("published");
    assert_eq!(published.content.source.reference, "docker-archive:cow.docker.tar.gz");

    // Whoever may make objects reads what lies in the folder of the namespace, and nothing else.
    fs::copy(import.join("cow.tar"), site.store_path().join("import/other.tar")).expect("copy");
    let refused =
        site.cluster.apply(&site.manifest("out", "{source: {archive: {format: OCIArchive, path: ../other.tar}}}"));
    assert!(refused.stderr.contains("must not leave the import folder"), "{refused}");
    assert!(condition(&site.object("layout"), "Ready").is_some());
}
