//! What a container writes, and who is root in it: `--writable`, `--overlay`, `--fakeroot`.

use super::site;
use crate::definition::users::on_every_host;
use siforge_tests::{Finished, Siforge};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

/// A sandbox of the tiny image in a new folder.
fn sandbox(siforge: &Siforge, name: &str) -> String {
    let path = siforge.out().join(name).display().to_string();
    siforge.run(&["-q", "build", "--force", "--sandbox", &path, "tiny.sif"]).ok();
    path
}

fn sh(siforge: &Siforge, options: &[&str], image: &str, script: &str) -> Finished {
    siforge.run(&[&["exec"], options, &[image, "sh", "-c", script]].concat())
}

#[test]
fn a_sandbox_is_written() {
    for siforge in &site().users {
        let path = sandbox(siforge, "box");
        sh(siforge, &["--writable"], &path, "echo new > /new; rm /bin/vi; mkdir /opt").ok();
        assert_eq!(sh(siforge, &[], &path, "cat /new; ls -d /bin/vi /opt 2>&-").stdout, "new\n/opt\n");
        assert_eq!(fs::metadata(format!("{path}/new")).unwrap().uid(), siforge.uid());
        // Without the option it is as any image.
        assert_eq!(sh(siforge, &[], &path, "echo > /other").code(), 1);
        let sif = siforge.run(&["exec", "--writable", "tiny.sif", "true"]).fails_with(255);
        assert!(sif.stderr.contains("build --sandbox"), "{sif}");
        let bind = sh(siforge, &["--writable", "--bind", "/usr:/not/there"], &path, "true").fails_with(255);
        assert!(bind.stderr.contains("/not/there"), "{bind}");
        for other in [&["--writable", "--writable-tmpfs"][..], &["--writable", "--overlay", "x"]] {
            sh(siforge, other, &path, "true").fails_with(255);
        }
    }
}

#[test]
fn an_overlay_keeps_what_is_written() {
    for siforge in &site().users {
        let path = siforge.out().join("kept");
        fs::create_dir(&path).unwrap();
        siforge.give(&path);
        let path = path.display().to_string();
        let read_only = format!("{path}:ro");
        let kept = |options: &[&str], script: &str| sh(siforge, options, "tiny.sif", script);
        kept(&["--overlay", &path], "echo one > /one; rm /bin/vi; rm -r /usr; mkdir -p /usr/new").ok();
        let look = "cat /one; ls /bin/vi 2>&-; ls /usr";
        assert_eq!(kept(&["--overlay", &path], look).ok().stdout, "one\nnew\n");
        assert_eq!(kept(&["--overlay", &read_only], look).ok().stdout, "one\nnew\n");
        assert_eq!(kept(&["--overlay", &read_only], "echo > /two").code(), 1);
        // A mount point that the image lacks, over it.
        let bound = kept(&["--overlay", &path, "--bind", "/usr:/not/there"], "ls -d /not/there/bin; cat /one").ok();
        assert_eq!(bound.stdout, "/not/there/bin\none\n");
        assert_eq!(kept(&[], "cat /one 2>&-; ls /bin/vi").ok().stdout, "/bin/vi\n");
        let missing = kept(&["--overlay", "/no/such"], "true").fails_with(255);
        assert!(missing.stderr.contains("/no/such/upper"), "{missing}");
    }
}

#[test]
fn a_user_is_root_inside() {
    on_every_host(|host, siforge| {
        let sif = siforge.out().join("tiny.sif");
        fs::copy(site().users[1].out().join("tiny.sif"), &sif).unwrap();
        siforge.give(&sif);
        let fake = |options: &[&str], script: &str| {
            sh(siforge, &[&["--fakeroot"], options].concat(), "tiny.sif", script).ok().stdout
        };
        assert_eq!(fake(&[], "id -u; echo $HOME; head -n 1 /etc/passwd"), "0\n/root\nroot:x:0:0:root:/root:/bin/sh\n");
        // Home is the caller's, and what root makes there is his.
        let made = format!("made-{}-{}", host.fuse, host.ids);
        fake(&[], &format!("echo x > ~/{made}"));
        let path = siforge.home().join(&made);
        assert_eq!(fs::metadata(&path).unwrap().uid(), siforge.uid());
        fs::remove_file(path).unwrap();
        let owner = if host.ids { "33" } else { "0" };
        let script = "echo > /x && chown 33:33 /x && stat -c %u /x && su nobody -s /bin/sh -c 'id -u'";
        let nobody = if host.ids { "65534" } else { "0" };
        assert_eq!(fake(&["--writable-tmpfs"], script), format!("{owner}\n{nobody}\n"));
        // Of the host he has what he had.
        let secret = siforge.dir().join("secret");
        fs::write(&secret, "root's").unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
        let bind = format!("{}:/secret", secret.display());
        let refused = sh(siforge, &["--fakeroot", "--bind", &bind], "tiny.sif", "cat /secret");
        assert!(!refused.success() && refused.stdout.is_empty(), "{refused}");
    });
}
