//! Images in, images out: what `siforge pull` makes of layers, judged by the kernel, unsquashfs and umoci, entry by entry;
//! and that the same source gives the same bytes for whoever pulls it however.

mod bad_input;
mod interrupted;
mod packs;
mod random;
mod stack;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use siforge_sif::Sif;
use siforge_tests::image::sha256;
use siforge_tests::{Compression, Image, Listing, Registry, Siforge, Tar, overlay, run};

/// What siforge adds to every image, at its top.
const ADDED: [&str; 7] = [".singularity.d", ".exec", ".run", ".shell", ".test", "environment", "singularity"];

/// An image of these tars, the codecs taken in turn.
fn image(layers: &[Vec<u8>], codecs: &[Compression]) -> Image {
    let image = Image::new().config("Cmd", json!(["/bin/sh"]));
    let codecs = codecs.iter().cycle();
    layers.iter().zip(codecs).fold(image, |image, (tar, codec)| image.layer(tar.clone(), *codec))
}

const ALL_CODECS: [Compression; 3] = [Compression::Gzip, Compression::Zstd, Compression::Plain];

/// The primary partition: offset and bytes.
fn partition(sif: &Path) -> (u64, u64) {
    let partition = Sif::open(File::open(sif).unwrap()).unwrap().primary_partition().unwrap();
    (partition.offset, partition.size)
}

fn digest(sif: &Path) -> String {
    sha256(&fs::read(sif).unwrap())
}

/// The kernel's squashfs mount of a SIF's partition. Call [`overlay::private_mounts`] first.
fn mount(sif: &Path, dir: &Path) -> PathBuf {
    let (offset, size) = partition(sif);
    let point = dir.join("kernel");
    fs::create_dir(&point).unwrap();
    let options = format!("ro,loop,offset={offset},sizelimit={size}");
    run(Command::new("mount").args(["-t", "squashfs", "-o", &options]).arg(sif).arg(&point)).ok();
    point
}

/// What unsquashfs extracts.
fn unsquash(sif: &Path, dir: &Path) -> PathBuf {
    let (offset, _) = partition(sif);
    let point = dir.join("unsquashed");
    let offset = offset.to_string();
    run(Command::new("unsquashfs").args(["-no-progress", "-quiet", "-offset", &offset, "-dest"]).arg(&point).arg(sif))
        .ok();
    point
}

/// What came from the layers.
fn of_layers(root: &Path) -> Listing {
    Listing::of(root).without(|name| ADDED.contains(&name))
}

#[track_caller]
fn same(what: &str, got: &Listing, want: &Listing) {
    let differences = got.differences(want);
    assert!(differences.is_empty(), "{what} shows the first lines, the second are expected:{differences}");
    assert!(want.0.len() > 3, "{what}: nothing was compared");
}

#[test]
fn kernel_and_unsquashfs_show_what_an_overlay_of_the_layers_shows() {
    overlay::private_mounts();
    let layers = stack::nasty();
    let registry = Registry::plain();
    registry.push("nasty", &image(&layers, &ALL_CODECS));
    let siforge = Siforge::root();
    let sif = siforge.pull(&registry, "nasty", "nasty.sif");
    let want = of_layers(&overlay::mount(siforge.dir(), &layers)).clamped();
    same("the kernel", &of_layers(&mount(&sif, siforge.dir())), &want);
    same("unsquashfs", &of_layers(&unsquash(&sif, siforge.dir())), &want);
    assert!(want.0.len() > 700 && !want.0.contains_key("links/c/"), "{}", want.0.len());

    // gzip and blocks of another size change the bytes, never what they show.
    let other = siforge.out().join("gzip.sif");
    let pull =
        ["pull", "--no-https", "--compression=gzip:6", "--block-size=64", "gzip.sif", &registry.reference("nasty")];
    siforge.run(&pull).ok();
    assert_ne!(digest(&sif), digest(&other));
    fs::create_dir(siforge.dir().join("gzip")).unwrap();
    same("gzip in the kernel", &of_layers(&mount(&other, &siforge.dir().join("gzip"))), &want);
}

#[test]
fn random_layers_are_merged_as_the_kernel_merges_them() {
    overlay::private_mounts();
    let registry = Registry::plain();
    let siforge = Siforge::root();
    for seed in 1..=8 {
        let layers = random::layers(seed, 5, 60);
        let name = format!("random{seed}");
        registry.push(&name, &image(&layers, &[Compression::Gzip]));
        let sif = siforge.pull(&registry, &name, &format!("{name}.sif"));
        let dir = siforge.dir().join(&name);
        fs::create_dir(&dir).unwrap();
        // The mount points that siforge adds have names that these layers do not use.
        let only_ours = |name: &str| name.len() > 1 && !name.contains('/');
        let want = of_layers(&overlay::mount(&dir, &layers)).without(only_ours);
        let got = of_layers(&mount(&sif, &dir)).without(only_ours);
        same(&format!("seed {seed}: the kernel"), &got, &want);
    }
}

/// Links to files of lower layers and folders without an entry of their own: an overlay of separately extracted layers
/// cannot show them, umoci extracts each layer over the ones below.
#[test]
fn links_across_layers_and_implied_folders_are_as_umoci_unpacks_them() {
    overlay::private_mounts();
    let base = Tar::new()
        .dir("./", 0o755)
        .dir("d", 0o750)
        .mtime(1_600_000_000)
        .owner(5, 6)
        .xattr("user.a", b"1")
        .file("d/file", 0o4755, stack::noise(1, 300_000))
        .file("d/other", 0o640, "other")
        .hard_link("d/second", "d/other")
        .symlink("d/symlink", "other")
        .fifo("d/fifo", 0o600)
        .dir("deep", 0o711)
        .dir("deep/er", 0o700)
        .file("deep/er/f", 0o600, "f");
    let middle = Tar::new()
        .dir("./", 0o755)
        .hard_link("d/across", "d/file")
        .hard_link("d/to-symlink", "d/symlink")
        .hard_link("d/to-fifo", "d/fifo")
        .hard_link("./new/name", "./d/second")
        .file("deep/er/implied", 0o644, "x")
        .file("d/replaced", 0o644, "of the middle");
    let top = Tar::new()
        .dir("./", 0o755)
        .hard_link("again", "d/across")
        .hard_link("from-middle", "d/replaced")
        .whiteout("d/file")
        .file("d/replaced", 0o600, "of the top")
        .hard_link("of-top", "d/replaced");
    let layers = [base.finish(), middle.finish(), top.finish()];
    let image = image(&layers, &[Compression::Gzip]);
    let registry = Registry::plain();
    registry.push("links", &image);
    let siforge = Siforge::root();
    let sif = siforge.pull(&registry, "links", "links.sif");

    image.write_layout(&siforge.dir().join("layout"));
    let bundle = siforge.dir().join("bundle");
    let layout = format!("{}:image", siforge.dir().join("layout").display());
    run(Command::new("umoci").args(["unpack", "--image", &layout]).arg(&bundle)).ok();
    // umoci dates a folder that it made or wrote into by the clock; siforge by the image or the lower layer.
    let compared = |root: &Path| {
        let mut listing =
            of_layers(root).without(|name| ["dev", "etc", "home", "proc", "root", "sys", "tmp", "var"].contains(&name));
        listing.0.values_mut().filter(|entry| entry.mode.starts_with('d')).for_each(|entry| entry.mtime = 0);
        listing
    };
    let want = compared(&bundle.join("rootfs"));
    same("the kernel", &compared(&mount(&sif, siforge.dir())), &want);
    same("unsquashfs", &compared(&unsquash(&sif, siforge.dir())), &want);
    assert_eq!(want.0["d/across"].links, ["again", "d/across"]);
    assert_eq!(want.0["deep"].mode, "d0711");
}

#[test]
fn one_source_gives_one_digest_whoever_pulls_it_and_however() {
    let registry = Registry::plain();
    let layers = stack::nasty();
    registry.push("same", &image(&layers, &[Compression::Gzip]));
    let [root, user] = Siforge::both();
    let want = digest(&root.pull(&registry, "same", "first.sif"));
    let source = registry.reference("same");
    let check = |what: &str, siforge: &Siforge, launcher: &[&str], options: &[&str]| {
        let file = siforge.out().join(format!("{what}.sif"));
        let mut command = siforge.launched_by(launcher);
        let ran = run(command.args(["pull", "--no-https"]).args(options).arg(&file).arg(&source)).ok();
        assert_eq!(digest(&file), want, "{what}");
        assert!(ran.stderr.contains(&want), "{what}: the digest is told: {ran}");
    };
    check("from the cache", &root, &[], &[]);
    check("without cache", &root, &[], &["--disable-cache"]);
    check("one processor", &root, &["taskset", "-c", "0"], &["--jobs=1"]);
    check("a user", &user, &[], &[]);
    check("a user with a umask", &user, &["sh", "-c", "umask 077; exec \"$@\"", "sh"], &[]);

    // Other blobs of the same tars: another manifest, hence another SIF that names it, with the same contents.
    let contents = |name: &str| {
        let dir = root.dir().join(name);
        fs::create_dir(&dir).unwrap();
        of_layers(&unsquash(&root.out().join(format!("{name}.sif")), &dir))
    };
    let first = contents("first");
    registry.push("schema2", &image(&layers, &[Compression::Gzip]).docker_schema2());
    registry.push("zstd", &image(&layers, &[Compression::Zstd]));
    registry.push("plain", &image(&layers, &[Compression::Plain]));
    for name in ["schema2", "zstd", "plain"] {
        assert_ne!(digest(&root.pull(&registry, name, &format!("{name}.sif"))), want, "{name}");
        same(name, &contents(name), &first);
    }
}

#[test]
fn blobs_are_fetched_once() {
    let registry = Registry::plain();
    registry.push("once", &image(&[Tar::new().file("a", 0o644, "a").finish()], &[Compression::Gzip]));
    let siforge = Siforge::root();
    siforge.pull(&registry, "once", "1.sif");
    let fetched = registry.requests_once("GET", "/blobs/", 2);
    let again = siforge.run(&["pull", "--no-https", "2.sif", &registry.reference("once")]).ok();
    assert!(again.stderr.contains("already in the cache"), "{again}");
    assert_eq!(fetched, 2, "image config and layer: {}", registry.log());
    // The image config is asked for again, the layer is not.
    assert_eq!(registry.requests_once("GET", "/blobs/", fetched + 1), fetched + 1, "{}", registry.log());
}
