//! One image by every way that an image comes: the same tree, judged by unsquashfs; the sources are written by skopeo, umoci
//! and podman, never by us.

mod daemon;
mod kept;
mod remote;
mod tree;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use siforge_sif::Sif;
use siforge_tests::image::sha256;
use siforge_tests::{Compression, Image, Listing, Registry, Siforge, Tar, images, need, run};

/// What is made of the source's name and digest, and the one that differs between transports.
const NAMED: [&str; 2] = [".singularity.d/Singularity", ".singularity.d/labels.json"];

/// What unsquashfs extracts of a SIF, but for what names the source.
fn tree(sif: &Path) -> Listing {
    let partition = Sif::open(File::open(sif).unwrap()).unwrap().primary_partition().unwrap();
    let dir = tempfile::tempdir_in(sif.parent().unwrap()).unwrap();
    let point = dir.path().join("root");
    let offset = partition.offset.to_string();
    run(Command::new("unsquashfs").args(["-no-progress", "-quiet", "-offset", &offset, "-dest"]).arg(&point).arg(sif))
        .ok();
    Listing::of(&point).without(|name| NAMED.contains(&name))
}

/// busybox with a few links in gzip layers, since Docker's formats know no zstd.
fn small() -> Image {
    let busybox = fs::read(need::program("busybox")).unwrap();
    let base = ["bin", "etc", "tmp"].iter().fold(Tar::new(), |tar, dir| tar.dir(dir, 0o755));
    let links = ["sh", "echo", "id", "ls", "cat"].iter();
    let base = links
        .fold(base.file("bin/busybox", 0o755, busybox), |tar, link| tar.symlink(&format!("bin/{link}"), "busybox"));
    Image::new()
        .layer(base.finish(), Compression::Gzip)
        .layer(Tar::new().file("etc/top", 0o644, "top\n").whiteout("bin/cat").finish(), Compression::Gzip)
        .config("Cmd", json!(["/bin/sh"]))
        .config("Env", json!(["PATH=/bin", "TINY=yes"]))
}

fn digest(sif: &Path) -> String {
    sha256(&fs::read(sif).unwrap())
}

fn skopeo(words: &[&str]) {
    run(Command::new("skopeo").args(["--insecure-policy", "copy", "-q", "--src-tls-verify=false"]).args(words)).ok();
}

/// Pulls `source` as `name`.
fn pull(siforge: &Siforge, name: &str, source: &str) -> PathBuf {
    siforge.run(&["pull", "--no-https", name, source]).ok();
    siforge.out().join(name)
}

#[test]
fn the_same_image_by_every_transport_is_the_same_tree() {
    let registry = Registry::plain();
    images::push_lolcow(&registry, "lab/lolcow:v1");
    let siforge = Siforge::root();
    let dir = siforge.dir().to_owned();
    let path = |name: &str| dir.join(name).display().to_string();
    let docker = registry.reference("lab/lolcow:v1");
    let (layout, archive, saved) = (path("layout"), path("oci.tar"), path("docker.tar"));
    skopeo(&["--preserve-digests", &docker, &format!("oci:{layout}:v1")]);
    skopeo(&["--preserve-digests", &docker, &format!("oci-archive:{archive}:v1")]);
    skopeo(&[&docker, &format!("docker-archive:{saved}:lab/lolcow:v1")]);
    for (tool, file) in [("gzip", &saved), ("zstd", &archive)] {
        run(Command::new(tool).args(["-q", "-k", "-1", file])).ok();
    }

    let want = tree(&pull(&siforge, "registry.sif", &docker));
    assert!(want.0.len() > 1000, "{}", want.0.len());
    let check = |name: &str, source: &str| {
        let sif = pull(&siforge, name, source);
        let differences = tree(&sif).differences(&want);
        assert!(differences.is_empty(), "{source}: {differences}");
        let found = run(Command::new("grep").args(["-c", "-a", "-F", &path("")]).arg(&sif)).stdout;
        assert_eq!(found.trim(), "0", "{source}: a path of this machine is in the image");
        digest(&sif)
    };
    let by_layout = check("layout.sif", &format!("oci:{layout}"));
    assert_eq!(check("name.sif", &format!("oci:{layout}:v1")), by_layout);
    assert_eq!(check("archive.sif", &format!("oci-archive:{archive}:v1")), by_layout);
    assert_eq!(check("zst.sif", &format!("oci-archive:{archive}.zst")), by_layout);
    let by_archive = check("saved.sif", &format!("docker-archive:{saved}"));
    assert_eq!(check("gz.sif", &format!("docker-archive:{saved}.gz:lab/lolcow:v1")), by_archive);
    assert_ne!(by_archive, by_layout, "they say which kind of source they come from");
    let is_cached = |name: &String| name.starts_with("cache/blobs/sha256") && !name.contains(".from/");
    let cached: Vec<String> = siforge.files().into_iter().filter(is_cached).collect();
    assert_eq!(cached.len(), 4, "layers of files are not copied into the cache: {cached:?}");
}

#[test]
fn saved_images_run_without_being_pulled_first() {
    let registry = Registry::plain();
    registry.push("tiny", &small());
    for siforge in Siforge::both() {
        let layout = siforge.dir().join("layout");
        let archive = siforge.dir().join("a.tar");
        skopeo(&[&registry.reference("tiny"), &format!("oci:{}:latest", layout.display())]);
        skopeo(&[&registry.reference("tiny"), &format!("docker-archive:{}", archive.display())]);
        let sources = [format!("oci:{}:latest", layout.display()), format!("docker-archive:{}", archive.display())];
        for source in &sources {
            let told = siforge.run(&["exec", source, "/bin/sh", "-c", "echo $TINY; id -u"]).ok().stdout;
            assert_eq!(told, format!("yes\n{}\n", siforge.uid()), "{source}");
            let again = siforge.run(&["-v", "run", source, "/bin/echo", "ran"]).ok();
            assert_eq!(again.stdout, "ran\n", "{again}");
        }
        let pulled = siforge.run(&["pull", &sources[1]]).ok();
        assert!(siforge.out().join("a.tar_latest.sif").is_file(), "{pulled}");
        let twice = siforge.run(&["pull", &sources[1]]).fails_with(255);
        assert!(twice.stderr.contains("will not overwrite"), "{twice}");
    }
}

#[test]
fn umoci_changes_a_layout_and_the_image_follows() {
    let registry = Registry::plain();
    registry.push("tiny", &images::tiny());
    let siforge = Siforge::root();
    let layout = siforge.dir().join("layout").display().to_string();
    skopeo(&[&registry.reference("tiny"), &format!("oci:{layout}:v1")]);
    let image = format!("{layout}:v1");
    let config = ["config", "--image", &image, "--tag", "v2", "--config.cmd", "/bin/echo", "--config.cmd", "moo"];
    run(Command::new("umoci").args(config)).ok();
    let several = siforge.run(&["pull", &format!("oci:{layout}")]).fails_with(255);
    assert!(several.stderr.contains("choose one by its name, or by :@n or @sha256:…: v1, v2"), "{several}");
    assert_eq!(siforge.run(&["run", &format!("oci:{layout}:v2")]).ok().stdout, "moo\n");
    let missing = siforge.run(&["run", &format!("oci:{layout}:v3")]).fails_with(255);
    assert!(missing.stderr.contains("no such image; there are: v1, v2"), "{missing}");
}

#[test]
fn a_layer_that_is_not_what_the_layout_says_is_refused() {
    let siforge = Siforge::root();
    let layout = siforge.dir().join("layout");
    images::tiny().write_layout(&layout);
    let blobs = fs::read_dir(layout.join("blobs/sha256")).unwrap().map(|entry| entry.unwrap().path());
    let largest = blobs.max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    let mut bytes = fs::read(&largest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    fs::write(&largest, bytes).unwrap();
    let before = siforge.files();
    let refused = siforge.run(&["pull", "x.sif", &format!("oci:{}", layout.display())]).fails_with(255);
    let layer = largest.file_name().unwrap().to_string_lossy().into_owned();
    for expected in [format!("oci:{}: layer sha256:{layer} is damaged", layout.display()), "it has the digest".into()] {
        assert!(refused.stderr.contains(&expected), "{refused}");
    }
    assert_eq!(siforge.files(), before);
}

#[test]
fn a_layer_that_decodes_as_it_should_but_is_another_blob_is_refused() {
    let siforge = Siforge::root();
    let layout = siforge.dir().join("layout");
    small().write_layout(&layout);
    let (path, archive) = (layout.display().to_string(), siforge.dir().join("a.tar").display().to_string());
    siforge.run(&["pull", "good.sif", &format!("oci:{path}")]).ok();
    let blobs = fs::read_dir(layout.join("blobs/sha256")).unwrap().map(|entry| entry.unwrap().path());
    let layer = blobs.max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    let mut bytes = fs::read(&layer).unwrap();
    assert_eq!(bytes[..2], [0x1f, 0x8b]);
    // The time in the header of gzip (RFC 1952, 2.3): no part of what it decodes to.
    bytes[4] ^= 1;
    fs::write(&layer, bytes).unwrap();
    run(Command::new("tar").args(["-cf", &archive, "-C", &path, "."])).ok();
    for source in [format!("oci:{path}"), format!("oci-archive:{archive}")] {
        let refused = siforge.run(&["pull", "--disable-cache", "x.sif", &source]).fails_with(255);
        let name = layer.file_name().unwrap().to_string_lossy();
        for expected in [format!("{source}: layer sha256:{name} is damaged"), "it has the digest".into()] {
            assert!(refused.stderr.contains(&expected), "{refused}");
        }
        assert!(!siforge.out().join("x.sif").exists());
    }
}
