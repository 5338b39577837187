//! The unpacker as an ordinary user: the example `unsquash`, which `cargo test` builds beside the tests.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use crate::sample::{DEVICES, everything};
use crate::seen::{assert_same, at, on_disk};

const NOBODY: u32 = 65_534;

/// target/debug/deps/read-… → target/debug/examples/unsquash
fn example() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.ancestors().nth(2).unwrap().join("examples/unsquash")
}

#[test]
fn an_ordinary_user_gets_the_tree_without_privileges() {
    let sample = everything();
    let dir = sample.dir.path();
    // For someone else root's files are another's: unreadable ones must still arrive.
    fs::set_permissions(sample.tree().join("noise"), Permissions::from_mode(0o2000)).unwrap();
    let mut expected = on_disk(&sample.tree());
    at(&mut expected, "noise").mode = 0o400;
    for path in ["text", "text-2", "wide/text"] {
        at(&mut expected, path).mode = 0o755;
    }
    let image = sample.image(&DEVICES);
    fs::set_permissions(dir, Permissions::from_mode(0o755)).unwrap();
    let home = dir.join("home");
    fs::create_dir(&home).unwrap();
    chown(&home, Some(NOBODY), Some(NOBODY)).unwrap();
    // Nobody may not reach into the build directory.
    let program = dir.join("unsquash");
    fs::copy(example(), &program).expect("the example unsquash, built by cargo test");

    let output = Command::new(&program).args([&image, &home.join("out")]).uid(NOBODY).gid(NOBODY).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let warnings = String::from_utf8(output.stdout).unwrap();
    // Devices, attributes, modes and set-id bits.
    assert_eq!(warnings.lines().count(), 4, "{warnings}");
    let mut found = on_disk(&home.join("out"));
    at(&mut found, "").mtime = at(&mut expected, "").mtime;
    assert_same(&found, &expected);
    assert_eq!(fs::metadata(home.join("out/text")).unwrap().uid(), NOBODY);

    let removed = Command::new("rm").args(["-r", "out"]).current_dir(&home).uid(NOBODY).gid(NOBODY).output().unwrap();
    assert!(removed.status.success(), "{removed:?}");
}
