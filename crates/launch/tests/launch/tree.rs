//! What is mounted inside, and that nothing stays behind.

use std::fs;
use std::os::unix::fs::symlink;

use crate::support::{Image, MountLine, NOBODY, USER, mount_at, mount_lines};

fn has(line: &MountLine, options: &[&str]) {
    for option in options {
        assert!(line.options.iter().any(|o| o == option), "{option} is not set: {line:?}");
    }
}

fn mounts(image: &Image, uid: u32, options: &[&str], root: &str) -> Vec<MountLine> {
    let words = [options, &[root, "cat", "/proc/self/mountinfo"]].concat();
    mount_lines(&image.run(uid, &words))
}

#[test]
fn image_and_binds_are_nosuid_and_nodev() {
    let image = Image::complete();
    let squashfs = image.squashfs();
    for (uid, root, kind) in [
        (0, squashfs.to_str().unwrap(), "squashfs"),
        (0, image.root(), ""),
        (USER, image.root(), ""),
        (NOBODY, image.root(), ""),
    ] {
        let lines = mounts(&image, uid, &["--no-home", "--bind", "/usr:/tmp/../sys:ro"], root);
        let top = mount_at(&lines, "/");
        has(top, &["ro", "nosuid", "nodev"]);
        assert!(kind.is_empty() || top.kind == kind, "no overlay where none is needed: {top:?}");
        assert_eq!(lines.iter().filter(|l| l.target == "/").count(), 1, "the host's root is gone: {lines:#?}");
        has(mount_at(&lines, "/sys"), &["ro", "nosuid", "nodev"]);
        for target in ["/proc", "/tmp", "/var/tmp", "/etc/hosts", "/etc/resolv.conf"] {
            has(mount_at(&lines, target), &["rw", "nosuid", "nodev"]);
        }
        let dev = mount_at(&lines, "/dev");
        has(dev, &["nosuid"]);
        assert!(!dev.options.iter().any(|o| o == "nodev"), "{dev:?}");
    }
}

#[test]
fn missing_mount_points_come_by_a_read_only_overlay() {
    let image = Image::bare();
    fs::create_dir(image.directory.join("var")).unwrap();
    // A dangling link, as Ubuntu's images have, and a directory on the way that is a link.
    symlink("../run/systemd/resolve/stub-resolv.conf", image.directory.join("etc/resolv.conf")).unwrap();
    fs::create_dir(image.directory.join("real")).unwrap();
    symlink("real", image.directory.join("alias")).unwrap();
    let data = image.scratch.path().join("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("file"), "data\n").unwrap();
    let squashfs = image.squashfs();
    let bind = format!("{}:/alias/deep/data", data.display());
    for (uid, root) in [(0, squashfs.to_str().unwrap()), (0, image.root()), (USER, image.root())] {
        let words = ["--bind", &bind, root, "sh", "-c"];
        let script = "cat /real/deep/data/file; cat /proc/self/mountinfo";
        let text = image.run(uid, &[&words[..], &[script]].concat());
        let (first, rest) = text.split_once('\n').unwrap();
        assert_eq!(first, "data");
        let lines = mount_lines(rest);
        let top = mount_at(&lines, "/");
        assert_eq!(top.kind, "overlay");
        has(top, &["ro", "nosuid", "nodev"]);
        has(mount_at(&lines, "/real/deep/data"), &["nosuid", "nodev"]);
        mount_at(&lines, "/etc/resolv.conf");
        let script = "stat -c %a /etc/shadow /etc /var; touch /x 2>/dev/null || echo read-only";
        let text = image.run(uid, &[&words[..], &[script]].concat());
        assert_eq!(text, "600\n755\n755\nread-only\n", "uid {uid}");
    }
}

#[test]
fn hostile_links_stay_inside() {
    let image = Image::complete();
    let outside = image.scratch.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let climb = format!("/../../../../../../../..{}", outside.display());
    fs::remove_dir(image.directory.join("var/tmp")).unwrap();
    symlink(&climb, image.directory.join("var/tmp")).unwrap();
    fs::remove_file(image.directory.join("etc/hosts")).unwrap();
    symlink("/proc/1/root/etc/hosts", image.directory.join("etc/hosts")).unwrap();
    for uid in [0, USER] {
        let lines = mounts(&image, uid, &[], image.root());
        assert_eq!(mount_at(&lines, "/").kind, "overlay");
        mount_at(&lines, "/var/tmp");
        mount_at(&lines, "/etc/hosts");
    }
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}

#[test]
fn writable_tmpfs_takes_writes_and_forgets_them() {
    let image = Image::complete();
    let squashfs = image.squashfs();
    let script = "echo new > /etc/new && cat /etc/new && echo changed > /etc/shadow && cat /etc/shadow";
    let text = image.run(0, &["--writable-tmpfs", squashfs.to_str().unwrap(), "sh", "-c", script]);
    assert_eq!(text, "new\nchanged\n");
    let text = image.run(0, &[squashfs.to_str().unwrap(), "sh", "-c", "ls /etc/new 2>/dev/null; cat /etc/shadow"]);
    assert_eq!(text, "secret\n");
}

#[test]
fn contained_sees_little_of_the_host() {
    let image = Image::complete();
    let marker = tempfile::Builder::new().prefix("launch-marker").tempfile_in("/tmp").unwrap();
    let marker = marker.path().to_str().unwrap();
    for uid in [0, USER] {
        let script = format!(
            "ls {marker} 2>/dev/null; echo x > /dev/null; cd /dev; ls -d kmsg mem sda 2>/dev/null; echo y > /tmp/y; cat /tmp/y; ls pts/ptmx; pwd"
        );
        let text = image.run(uid, &["--contain", image.root(), "sh", "-c", &script]);
        assert_eq!(text, "y\npts/ptmx\n/dev\n");
    }
    let workdir = image.scratch.path().join("work/dir");
    let text = image.run(
        0,
        &["--contain", "--workdir", workdir.to_str().unwrap(), image.root(), "sh", "-c", "echo kept > /tmp/kept"],
    );
    assert_eq!(text, "");
    assert_eq!(fs::read_to_string(workdir.join("tmp/kept")).unwrap(), "kept\n");
}

#[test]
fn accounts_are_added_to_the_images_own() {
    let image = Image::complete();
    let text = image.run(
        NOBODY,
        &[image.root(), "sh", "-c", "id -un; cat /etc/passwd | grep -c root; touch /etc/passwd 2>/dev/null || echo no"],
    );
    assert_eq!(text, "nobody\n1\nno\n");
    // Nothing to add for root: the image's own file shows.
    let lines = mounts(&image, 0, &[], image.root());
    assert!(!lines.iter().any(|l| l.target == "/etc/passwd"), "{lines:#?}");
}

#[test]
fn the_working_directory_comes_along() {
    let image = Image::complete();
    let project = image.scratch.path().join("project");
    fs::create_dir(&project).unwrap();
    for (options, expect) in [
        (vec![], project.to_str().unwrap()),
        (vec!["--cwd", "/etc"], "/etc"),
        (vec!["--contain", "--no-home"], if project.starts_with("/root") { "/root" } else { "/" }),
    ] {
        let mut command = image.launcher(USER);
        command.args(&options).args([image.root(), "pwd"]).current_dir(&project);
        let output = command.output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim_end(), expect, "{options:?} {output:?}");
    }
}

#[test]
fn nothing_stays_mounted_or_attached() {
    let image = Image::bare();
    let squashfs = image.squashfs();
    image.run(0, &[squashfs.to_str().unwrap(), "true"]);
    image.run(USER, &[image.root(), "true"]);
    let scratch = image.scratch.path().to_str().unwrap();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(scratch), "{mounts}");
    // The last user of an autoclear device detaches it; the kernel does that just after the process is gone.
    let attached = || {
        fs::read_dir("/sys/block").unwrap().filter_map(Result::ok).any(|device| {
            fs::read_to_string(device.path().join("loop/backing_file")).is_ok_and(|file| file.starts_with(scratch))
        })
    };
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while attached() {
        assert!(std::time::Instant::now() < deadline, "a loop device is still attached");
        std::thread::yield_now();
    }
}
