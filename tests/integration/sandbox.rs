//! `build --sandbox`, and SIFs of sandboxes: by root with all that an image has, by a user with what he may, compared with the
//! reference's; what is refused; and that nothing half-made stays.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::json;
use siforge_tests::apptainer::Apptainer;
use siforge_tests::listing::Listing;
use siforge_tests::{Compression, Image, Siforge, Tar, images, run, wait_until};

/// Everything that a sandbox might lose.
fn special() -> Image {
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let busybox = fs::read(siforge_tests::need::program("busybox")).unwrap();
    let tar = Tar::new()
        .dir("bin", 0o755)
        .file("bin/busybox", 0o755, busybox)
        .symlink("bin/sh", "busybox")
        .owner(7, 8)
        .file("owned", 0o640, "of 7:8")
        .hard_link("owned-too", "owned")
        .symlink("link", "owned")
        .owner(0, 0)
        .file("set-uid", 0o4755, "x")
        .file("shut", 0o000, "secret")
        .dir("shut-dir", 0o000)
        .file("shut-dir/inside", 0o644, "inside")
        .char_device("null", 0o666, 1, 3)
        .fifo("fifo", 0o600)
        .xattr("security.capability", &capability)
        .file("ping", 0o755, "#!/bin/sh\n")
        .finish();
    Image::new().layer(tar, Compression::Gzip).config("Env", json!(["PATH=/bin", "SPECIAL=yes"]))
}

fn special_sif(siforge: &Siforge) {
    let layout = siforge.out().join("layout");
    special().write_layout(&layout);
    siforge.run(&["build", "special.sif", "oci:layout"]).ok();
}

/// What the unpacked tree shows is what the mounted one shows.
#[test]
fn a_sandbox_of_root_has_all_that_the_image_has() {
    let siforge = Siforge::root();
    special_sif(&siforge);
    let made = siforge.run(&["build", "--sandbox", "box", "special.sif"]).ok();
    assert!(!made.stderr.contains("warning"), "{made}");
    let theirs = siforge.out().join("theirs");
    let partition = siforge.run(&["sif", "list", "special.sif"]).ok();
    let offset = partition.stdout.lines().find(|line| line.contains("|FS (")).unwrap();
    let (offset, _) = offset.split_whitespace().nth(3).unwrap()[1..].split_once('-').unwrap();
    let sif = siforge.out().join("special.sif");
    let mut unsquashfs = Command::new(siforge_tests::need::program("unsquashfs"));
    run(unsquashfs.args(["-quiet", "-no-progress", "-offset", offset, "-dest"]).args([&theirs, &sif])).ok();
    let ours = Listing::of(&siforge.out().join("box"));
    assert_eq!(ours, Listing::of(&theirs));
    assert_eq!(ours.0["owned"].owner, (7, 8));
    assert!(!ours.0["ping"].xattrs.is_empty());
    assert_eq!(ours.0["null"].device, (1, 3));
    let said = siforge.run(&["exec", "box", "sh", "-c", "echo $SPECIAL; busybox cat /owned"]).ok();
    assert_eq!(said.stdout, "yes\nof 7:8");
    // And back.
    siforge.run(&["build", "again.sif", "box"]).ok();
    siforge.run(&["build", "--sandbox", "box2", "again.sif"]).ok();
    assert_eq!(ours.0["owned"], Listing::of(&siforge.out().join("box2")).0["owned"]);
}

#[test]
fn a_sandbox_of_a_user_says_what_it_lacks() {
    let siforge = &Siforge::both()[1];
    special_sif(siforge);
    let made = siforge.run(&["build", "--sandbox", "box", "special.sif"]).ok();
    for part in [
        "1 device nodes were left out: /null",
        "were left out: /ping (security.capability)",
        "2 files and directories have modes that shut their owner out: /shut, /shut-dir",
        "set-uid or set-gid bit, as their owner changed: /set-uid",
    ] {
        assert!(made.stderr.contains(part), "{part:?} in {made}");
    }
    let meta = fs::symlink_metadata(siforge.out().join("box/owned")).unwrap();
    assert_eq!((meta.uid(), meta.mode() & 0o7777), (siforge.uid(), 0o640));
    assert_eq!(fs::symlink_metadata(siforge.out().join("box/shut-dir")).unwrap().mode() & 0o7777, 0);
    // A second one replaces it, shut directories and all.
    let refused = siforge.run(&["build", "--sandbox", "box", "special.sif"]).fails_with(255);
    assert!(refused.stderr.contains("box"), "{refused}");
    let made = siforge.run(&["build", "--force", "--fix-perms", "--sandbox", "box", "special.sif"]).ok();
    assert!(made.stderr.contains("2 files and directories got permissions"), "{made}");
    assert_eq!(fs::symlink_metadata(siforge.out().join("box/shut-dir")).unwrap().mode() & 0o7777, 0o700);
    no_rest(siforge);
    siforge.run(&["exec", "box", "sh", "-c", "busybox test -r /shut-dir/inside"]).ok();
}

#[test]
fn owners_that_a_user_kept_come_back() {
    let [root, user] = &Siforge::both();
    special_sif(user);
    user.run(&["build", "--sandbox", "--keep-owners", "--fix-perms", "box", "special.sif"]).ok();
    user.run(&["build", "back.sif", "box"]).ok();
    let back = user.out().join("back.sif");
    root.run(&["build", "--sandbox", "box", back.to_str().unwrap()]).ok();
    let seen = Listing::of(&root.out().join("box"));
    for (name, owner, mode) in [("owned", (7, 8), "-640"), ("shut", (0, 0), "-000"), ("set-uid", (0, 0), "-4755")] {
        let entry = &seen.0[name];
        assert_eq!(entry.owner, owner, "{name}");
        assert_eq!(
            entry.mode.trim_start_matches('-').trim_start_matches('0'),
            mode.trim_matches('-').trim_start_matches('0'),
            "{name}"
        );
        assert!(entry.xattrs.is_empty(), "{name}: {:?}", entry.xattrs);
    }
}

#[test]
fn the_reference_unpacks_the_same() {
    let siforge = Siforge::root();
    let apptainer = Apptainer::new();
    let source = format!("oci:{}:image", images::lolcow_layout().display());
    siforge.run(&["build", "cow.sif", &source]).ok();
    fs::copy(siforge.out().join("cow.sif"), apptainer.here().join("cow.sif")).unwrap();
    siforge.run(&["build", "--sandbox", "cow", "cow.sif"]).ok();
    apptainer
        .root(&["apptainer", "-q", "build", "--sandbox", &apptainer.there("cow"), &apptainer.there("cow.sif")])
        .ok();
    // Theirs writes .singularity.d anew, and makes resolv.conf 0644; the rest is the image's.
    let image = |path: &std::path::Path| {
        Listing::of(path).without(|name| matches!(name, "" | ".singularity.d" | "etc/resolv.conf"))
    };
    let (ours, theirs) = (image(&siforge.out().join("cow")), image(&apptainer.here().join("cow")));
    let differ = |name: &&String| {
        let time_aside = |entry: Option<&siforge_tests::listing::Entry>| {
            entry.map(|entry| siforge_tests::listing::Entry { mtime: 0, ..entry.clone() })
        };
        time_aside(ours.0.get(*name)) != time_aside(theirs.0.get(*name))
    };
    let names: std::collections::BTreeSet<_> = ours.0.keys().chain(theirs.0.keys()).collect();
    let different: Vec<_> = names.into_iter().filter(differ).collect();
    assert!(different.is_empty(), "{different:?}");
    let said = siforge.run(&["exec", "cow", "sh", "-c", "fortune | cowsay"]).ok();
    assert!(said.stdout.contains("(oo)"), "{said}");
}

#[test]
fn sandboxes_of_other_sources() {
    for siforge in &Siforge::both() {
        special_sif(siforge);
        siforge.run(&["build", "--sandbox", "--fix-perms", "of-layout", "oci:layout"]).ok();
        siforge.run(&["build", "--sandbox", "of-box", "of-layout"]).ok();
        for name in ["of-layout", "of-box"] {
            assert_eq!(fs::read(siforge.out().join(name).join("shut-dir/inside")).unwrap(), b"inside", "{name}");
        }
        no_rest(siforge);
    }
    let root = Siforge::root();
    special_sif(&root);
    fs::write(root.out().join("x.def"), "Bootstrap: localimage\nFrom: special.sif\n%post\n  echo made > /made\n")
        .unwrap();
    root.run(&["build", "--sandbox", "of-def", "x.def"]).ok();
    assert_eq!(fs::read(root.out().join("of-def/made")).unwrap(), b"made\n");
    no_rest(&root);
}

#[test]
fn what_is_refused() {
    let siforge = Siforge::root();
    special_sif(&siforge);
    let check = |words: &[&str], parts: &[&str]| {
        let ran = siforge.run(words).fails_with(255);
        for part in parts {
            assert!(ran.stderr.contains(part), "{part:?} in {ran}");
        }
        no_rest(&siforge);
    };
    check(&["build", "--encrypt", "x.sif", "special.sif"], &["--encrypt", "apptainer"]);
    check(&["build", "--pem-path", "k", "x.sif", "special.sif"], &["--pem-path"]);
    check(&["build", "--update", "--sandbox", "x", "special.sif"], &["--update", "localimage"]);
    check(&["build", "--library", "https://x", "x.sif", "special.sif"], &["--library"]);
    check(&["build", "--json", "x.sif", "special.sif"], &["--json"]);
    check(&["build", "--fix-perms", "x.sif", "special.sif"], &["--fix-perms", "--sandbox"]);
    check(&["build", "--mksquashfs-args=-all-root", "x.sif", "special.sif"], &["-all-root", "-comp"]);
    check(&["build", "--sandbox", "x", "none.sif"], &["none.sif"]);
    check(&["build", "--sandbox", "/", "special.sif"], &["/"]);
    siforge.run(&["build", "--mksquashfs-args=-comp xz -b 64K", "xz.sif", "special.sif"]).ok();
}

/// Both programs' encrypted images: only Apptainer makes them.
#[test]
fn encrypted_images_are_refused() {
    let (siforge, apptainer) = (Siforge::root(), Apptainer::new());
    special_sif(&siforge);
    // The partition's filesystem, 6: gocryptfs. The reference's own needs a kernel with dm-crypt or gocryptfs in the tree.
    let path = siforge.out().join("special.sif");
    let mut bytes = fs::read(&path).unwrap();
    let at = (32176 - 28080..32176).step_by(585).find(|at| bytes[*at..at + 4] == 0x4004_i32.to_le_bytes()).unwrap();
    bytes[at + 201] = 6;
    fs::write(siforge.out().join("shut.sif"), &bytes).unwrap();
    fs::write(apptainer.here().join("shut.sif"), &bytes).unwrap();
    for words in
        [&["exec", "shut.sif", "true"][..], &["build", "y.sif", "shut.sif"], &["build", "--sandbox", "y", "shut.sif"]]
    {
        let ran = siforge.run(words).fails_with(255);
        assert!(ran.stderr.contains("encrypted"), "{ran}");
    }
    let theirs = apptainer.root(&["apptainer", "exec", &apptainer.there("shut.sif"), "true"]);
    assert!(!theirs.success(), "{theirs}");
}

#[test]
fn an_interrupted_build_leaves_nothing() {
    let siforge = Siforge::root();
    let source = format!("oci:{}:image", images::lolcow_layout().display());
    siforge.run(&["build", "cow.sif", &source]).ok();
    for signal in ["-INT", "-TERM"] {
        let mut command = siforge.command();
        command.args(["build", "--sandbox", "box", "cow.sif"]).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let begun = || siforge.files().iter().any(|name| name.contains(".box.siforge-"));
        wait_until(Duration::from_secs(30), "the first unpacked file", begun);
        run(Command::new("kill").args([signal, &child.id().to_string()])).ok();
        // 255, unless it was done before the signal came.
        if child.wait().unwrap().code() == Some(0) {
            fs::remove_dir_all(siforge.out().join("box")).unwrap();
        }
        assert!(!siforge.out().join("box").exists());
        no_rest(&siforge);
    }
}

/// No temporary name beside the results.
#[track_caller]
fn no_rest(siforge: &Siforge) {
    for entry in fs::read_dir(siforge.out()).unwrap() {
        let name = entry.unwrap().file_name();
        assert!(!name.to_string_lossy().starts_with('.'), "{name:?}");
    }
}
