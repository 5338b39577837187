//! A local SIF and a directory as sources: the tree stays what it was, judged by unsquashfs; foreign ones are made by
//! mksquashfs.

use super::{digest, small, tree};
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use siforge_sif::{Arch, Draft};
use siforge_tests::{Compression, Image, Listing, Registry, Siforge, Tar, User, run};

/// All that a tree can hold and a tar must carry.
fn hard() -> Image {
    let long = format!("dir/{}", "n".repeat(200));
    let tar = Tar::new()
        .dir("dir", 0o1777)
        .owner(1234, 2_000_000)
        .file(&long, 0o4755, "long")
        .hard_link("dir/again", &long)
        .symlink("dir/link", &"t".repeat(150))
        .xattr("user.note", b"a\0b")
        .xattr("security.capability", b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0")
        .file("dir/xattr", 0o600, vec![7; 300_000])
        .char_device("dir/null", 0o666, 1, 3)
        .block_device("dir/disk", 0o660, 259, 300)
        .fifo("dir/fifo", 0o644)
        .mtime(4_000_000_000)
        .file("dir/late", 0o644, vec![0; 1 << 20])
        .file("dir/sp ace\n", 0o644, "");
    small().layer(tar.finish(), Compression::Gzip)
}

/// A SIF of another program: a partition by mksquashfs, and nothing else.
fn foreign(dir: &Path, root: &Path, options: &[&str]) -> PathBuf {
    let (partition, sif) = (dir.join("partition"), dir.join("foreign.sif"));
    let _ = fs::remove_file(&partition);
    run(Command::new("mksquashfs")
        .arg(root)
        .arg(&partition)
        .args(["-noappend", "-no-progress", "-quiet"])
        .args(options))
    .ok();
    let out = File::options().create(true).truncate(true).read(true).write(true).open(&sif).unwrap();
    let draft = Draft::new(Arch::Amd64, [7; 16], 1_600_000_000, Vec::new()).unwrap();
    let bytes = fs::read(&partition).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&out, &bytes, draft.partition_offset()).unwrap();
    draft.finish(&out, bytes.len() as u64).unwrap();
    sif
}

/// What siforge writes over the tree, at the new image's time.
const WRITTEN: [&str; 6] = [".exec", ".run", ".shell", ".test", "environment", "singularity"];

/// What does not depend on the image having been built once more.
fn lasting(sif: &Path) -> Listing {
    tree(sif).without(|name| name.starts_with(".singularity.d") || WRITTEN.contains(&name) || name.is_empty())
}

#[track_caller]
fn same(what: &str, got: &Listing, want: &Listing) {
    let differences = got.differences(want);
    assert!(differences.is_empty(), "{what}: {differences}");
    assert!(want.0.len() > 15, "{what}");
}

/// Without siforge: what unsquashfs makes of a SIF's partition.
fn sandbox(sif: &Path, at: &Path) -> PathBuf {
    let partition = siforge_sif::Sif::open(File::open(sif).unwrap()).unwrap().primary_partition().unwrap();
    let offset = partition.offset.to_string();
    run(Command::new("unsquashfs").args(["-no-progress", "-quiet", "-offset", &offset, "-dest"]).arg(at).arg(sif)).ok();
    at.to_owned()
}

#[test]
fn a_sif_and_a_directory_are_built_anew_and_stay_what_they_were() {
    let registry = Registry::plain();
    registry.push("hard", &hard());
    let siforge = Siforge::root();
    let first = siforge.pull(&registry, "hard", "first.sif");
    let want = lasting(&first);
    let out = |name: &str| siforge.out().join(name);

    siforge.run(&["build", "again.sif", "first.sif"]).ok();
    same("our own SIF", &lasting(&out("again.sif")), &want);
    siforge.run(&["build", "copy.sif", &first.display().to_string()]).ok();
    assert_eq!(digest(&out("copy.sif")), digest(&out("again.sif")), "its path is not in the image");

    let root = sandbox(&first, &siforge.dir().join("sandbox"));
    // What no tar of ours could bring there.
    run(Command::new("setfattr").args(["-n", "user.a=b", "-v", "c=d"]).arg(root.join("dir/late"))).ok();
    let mut want = want;
    let late = want.0.get_mut("dir/late").unwrap();
    late.xattrs.insert("user.a=b".into(), "c=d".into());
    siforge.run(&["build", "sandbox.sif", &root.display().to_string()]).ok();
    same("a directory", &lasting(&out("sandbox.sif")), &want);
    for options in [&["-comp", "gzip", "-b", "131072"][..], &["-comp", "xz", "-no-fragments"], &["-comp", "zstd"]] {
        let sif = foreign(siforge.dir(), &root, options);
        siforge.run(&["build", "-F", "theirs.sif", &sif.display().to_string()]).ok();
        same(&format!("mksquashfs {options:?}"), &lasting(&out("theirs.sif")), &want);
        let ran = siforge.run(&["exec", "theirs.sif", "/bin/sh", "-c", "cat /etc/top; echo $TINY"]).ok();
        assert_eq!(ran.stdout, "top\nyes\n", "files and environment stayed");
    }
    let history = siforge.run(&["exec", "theirs.sif", "/bin/ls", "/.singularity.d/bootstrap_history"]).ok();
    assert_eq!(history.stdout, "Singularity0\n");
    let inspected = siforge.run(&["inspect", "--all", "theirs.sif"]).ok().stdout;
    for text in ["bootstrap: localimage", "export TINY", "deffile.bootstrap\": \"localimage\""] {
        assert!(inspected.contains(text), "{text}: {inspected}");
    }
}

#[test]
fn what_an_image_says_of_itself_stays() {
    let siforge = Siforge::root();
    let root = siforge.dir().join("root");
    fs::create_dir_all(root.join(".singularity.d/env")).unwrap();
    fs::create_dir_all(root.join("bin")).unwrap();
    fs::copy(siforge_tests::need::program("busybox"), root.join("bin/sh")).unwrap();
    let write = |path: &str, text: &str| {
        fs::write(root.join(path), text).unwrap();
        fs::set_permissions(root.join(path), fs::Permissions::from_mode(0o755)).unwrap();
    };
    write(".singularity.d/runscript", "#!/bin/sh\necho theirs \"$COW\" \"$@\"\n");
    write(".singularity.d/env/90-environment.sh", "export COW=moo\n");
    write(".singularity.d/labels.json", r#"{"maintainer":"lab"}"#);
    write(".singularity.d/Singularity", "bootstrap: debootstrap\n");
    let sif = foreign(siforge.dir(), &root, &["-comp", "gzip"]);
    for source in [&sif, &root] {
        siforge.run(&["build", "-F", "x.sif", &source.display().to_string()]).ok();
        assert_eq!(siforge.run(&["run", "x.sif", "a b"]).ok().stdout, "theirs moo a b\n");
        let labels = siforge.run(&["inspect", "x.sif"]).ok().stdout;
        assert!(labels.contains("maintainer: lab") && labels.contains("bootstrap: localimage"), "{labels}");
        let script = siforge.run(&["inspect", "-r", "x.sif"]).ok().stdout;
        assert!(script.contains("echo theirs"), "{script}");
    }
}

#[test]
fn an_ordinary_user_s_directory_belongs_to_root_in_the_image() {
    let siforge = Siforge::user(User::ordinary());
    let root = siforge.dir().join("root");
    fs::create_dir_all(root.join("bin")).unwrap();
    fs::copy(siforge_tests::need::program("busybox"), root.join("bin/sh")).unwrap();
    fs::write(root.join("secret"), "x").unwrap();
    run(Command::new("chown").args(["-R", &siforge.uid().to_string()]).arg(&root)).ok();
    siforge.run(&["build", "x.sif", &root.display().to_string()]).ok();
    let owners: Vec<_> = tree(&siforge.out().join("x.sif")).0.into_values().map(|entry| entry.owner).collect();
    assert!(owners.iter().all(|owner| *owner == (0, 0)), "{owners:?}");

    fs::set_permissions(root.join("secret"), fs::Permissions::from_mode(0o000)).unwrap();
    let refused = siforge.run(&["build", "y.sif", &root.display().to_string()]).fails_with(255);
    assert!(refused.stderr.contains("/secret: Permission denied"), "{refused}");
    assert!(!siforge.out().join("y.sif").exists());
}

#[test]
fn trees_that_are_no_images_are_refused() {
    let siforge = Siforge::root();
    let root = siforge.dir().join("root");
    fs::create_dir_all(root.join("a")).unwrap();
    fs::write(root.join("a/file"), vec![1; 5000]).unwrap();
    let sif = foreign(siforge.dir(), &root, &["-comp", "gzip"]);
    let refused = |source: &Path, arguments: &[&str], expect: &str| {
        let before = siforge.files();
        let path = source.display().to_string();
        let told = siforge.run(&[&["build", "x.sif", path.as_str()], arguments].concat()).fails_with(255);
        assert!(told.stderr.contains(expect), "{expect}: {told}");
        assert_eq!(siforge.files(), before);
    };
    refused(&sif, &["--arch", "arm64"], "it is for linux/amd64");
    refused(&siforge.dir().join("none.sif"), &[], "No such file");
    let whole = fs::read(&sif).unwrap();
    let cut = siforge.dir().join("cut.sif");
    fs::write(&cut, &whole[..whole.len() / 2]).unwrap();
    refused(&cut, &[], "cut.sif: truncated SIF");
    let mut damaged = whole;
    let end = damaged.len() - 5000;
    damaged[end..].fill(0x55);
    fs::write(&cut, damaged).unwrap();
    refused(&cut, &[], "cut.sif: ");
    let bomb = siforge.dir().join("bomb");
    fs::create_dir(&bomb).unwrap();
    File::create(bomb.join("zeros")).unwrap().set_len(1 << 30).unwrap();
    refused(&foreign(siforge.dir(), &bomb, &[]), &[], "it has more than 268435456 bytes");
    fs::write(root.join("a/.wh.x"), "").unwrap();
    refused(&root, &[], "/a/.wh.x: a name that begins with .wh.");
    assert!(root.join("a/file").metadata().unwrap().size() == 5000);
}
