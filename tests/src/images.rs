//! The images that tests, demo and benchmarks use; made once, kept in the cache as OCI layouts.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::json;

use crate::image::{Compression, Format, Image};
use crate::registry::Registry;
use crate::run::run_within;
use crate::tar::Tar;
use crate::{binaries, config, need};

/// Downloading and installing a small Debian on a busy machine.
const MAKE: Duration = Duration::from_secs(1200);

/// busybox with its links in two layers (gzip, zstd): shell, passwd, and a whiteout.
pub fn tiny() -> Image {
    tiny_with(Compression::Zstd)
}

/// The same with an upper layer for what knows no zstd.
pub fn tiny_with(upper: Compression) -> Image {
    let path = need::program("busybox");
    let busybox = std::fs::read(&path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()));
    let applets = crate::run::sh("busybox", &["--list"]);
    let mut base = ["bin", "dev", "etc", "proc", "root", "sys", "usr", "usr/bin"]
        .iter()
        .fold(Tar::new(), |tar, dir| tar.dir(dir, 0o755));
    base = base.dir("tmp", 0o1777).file("bin/busybox", 0o755, busybox);
    base = applets
        .lines()
        .filter(|applet| *applet != "busybox")
        .fold(base, |tar, applet| tar.symlink(&format!("bin/{applet}"), "busybox"));
    let top = Tar::new()
        .file("etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")
        .file("etc/group", 0o644, "root:x:0:\nnogroup:x:65534:\n")
        .whiteout("bin/reboot")
        .whiteout("bin/poweroff");
    Image::new()
        .layer(base.finish(), Compression::Gzip)
        .layer(top.finish(), upper)
        .config("Cmd", json!(["/bin/sh"]))
        .config("Env", json!(["PATH=/bin:/usr/bin", "TINY=yes"]))
        .config("Labels", json!({"org.opencontainers.image.title": "tiny"}))
}

/// The OCI layout (image `image`) of a cow that says fortunes: real Debian packages in four layers, with whiteouts, an
/// opaque folder, hard links across layers and a file capability. Needs root the first time.
pub fn lolcow_layout() -> PathBuf {
    // The script's version: a change of what it makes must not meet an old cache.
    let dir = config::cache_dir().join("lolcow-2");
    let script = binaries::source_root().join("tests/scripts/make-lolcow.sh");
    run_within(MAKE, Command::new("bash").arg(script).arg(&dir)).ok();
    dir
}

/// The OCI layout of Python with numpy, scipy, pandas and matplotlib on lolcow's first layer: images `image`, `changed` (with
/// one more layer) and `new` (without the first). Needs root the first time, and minutes.
pub fn python_layout() -> PathBuf {
    let dir = config::cache_dir().join("python-1");
    let script = binaries::source_root().join("tests/scripts/make-python.sh");
    run_within(MAKE, Command::new("bash").arg(script).arg(&dir).arg(lolcow_layout())).ok();
    dir
}

/// The OCI layout of what people who train networks use, 2.7 GB over python. Needs root the first time, minutes, and 12 GB of
/// disk while it is made.
pub fn big_layout() -> PathBuf {
    let dir = config::cache_dir().join("big-1");
    let script = binaries::source_root().join("tests/scripts/make-big.sh");
    run_within(MAKE, Command::new("bash").arg(script).arg(&dir).arg(python_layout())).ok();
    dir
}

/// Pushes big as `big:latest`.
pub fn push_big(registry: &Registry) {
    push_layout(registry, "big:latest", &big_layout());
}

/// Pushes lolcow as `name`; gives the manifest's digest.
pub fn push_lolcow(registry: &Registry, name: &str) -> String {
    push_layout(registry, name, &lolcow_layout())
}

/// Pushes python's three images as `python:latest`, `python:changed` and `python:new`.
pub fn push_python(registry: &Registry) {
    for (image, tag) in [("image", "latest"), ("changed", "changed"), ("new", "new")] {
        crate::image::copy(registry, &format!("python:{tag}"), &python_layout(), image, Format::Oci, false);
    }
}

fn push_layout(registry: &Registry, name: &str, layout: &Path) -> String {
    crate::image::copy(registry, name, layout, "image", Format::Oci, false)
}
