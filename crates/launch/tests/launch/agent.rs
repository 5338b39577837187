//! The agent's part, as the real agent does it: a mount descriptor over the socket, id-mapped, groups mapped.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::thread;

use siforge_agent_api::{Connection, Limits, MountReply, MountRequest, Refusal, peer};
use siforge_launch::{
    LoopDevice, clone_detached, idmap_namespace, map_peer_groups, mount_loop_device, mount_squashfs, peer_groups,
};

use crate::support::{Image, USER};

/// Mounts at a directory for the time of a test.
struct Mounted {
    directory: PathBuf,
}

impl Mounted {
    fn new(image: &Image) -> Mounted {
        let file = image.squashfs();
        let directory = image.scratch.path().join("mounted");
        std::fs::create_dir(&directory).unwrap();
        let size = std::fs::metadata(&file).unwrap().len();
        let mount = mount_squashfs(File::open(&file).unwrap().as_fd(), &file, 0, size).unwrap();
        siforge_launch::attach(mount.as_fd(), &directory).unwrap();
        Mounted { directory }
    }

    /// A mount of the loop device that `self` keeps alive.
    fn again(&self, image: &Image) -> Mounted {
        let number = std::fs::metadata(&self.directory).unwrap().dev();
        let device = LoopDevice::open(rustix::fs::minor(number)).unwrap();
        let file = std::fs::metadata(image.squashfs()).unwrap();
        assert_eq!(device.backing().unwrap(), (file.dev(), file.ino()));
        let directory = image.scratch.path().join("again");
        std::fs::create_dir(&directory).unwrap();
        let mount = mount_loop_device(&device, &device.path).unwrap();
        siforge_launch::attach(mount.as_fd(), &directory).unwrap();
        Mounted { directory }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.directory, rustix::mount::UnmountFlags::DETACH);
    }
}

/// Answers one Mount call; `claim` is the user id under which it is handled (the peer's own, in truth).
fn serve_once(listener: &UnixListener, mounted: &Path, claim: Option<u32>) {
    let (stream, _) = listener.accept().unwrap();
    let mut connection = Connection::new(stream, Limits::SERVER).unwrap();
    let peer = peer(connection.stream()).unwrap();
    let groups = peer_groups(connection.stream()).unwrap();
    let request = connection.read_request("test").unwrap().unwrap();
    let parameters: MountRequest = request.parameters().unwrap();
    assert_eq!(parameters.user_namespace, Some(true));
    let uid = claim.unwrap_or(peer.uid);
    let mapped = map_peer_groups(request.descriptors[0].as_fd(), peer.pid, uid, peer.gid, &groups);
    if let Err(e) = mapped {
        return connection.refuse(&Refusal::NotAllowed { message: e.to_string() }).unwrap();
    }
    let namespace = idmap_namespace(peer.uid, peer.gid).unwrap();
    let mount = clone_detached(File::open(mounted).unwrap(), Some(namespace.as_fd())).unwrap();
    let reply = MountReply { groups_mapped: true, idmapped: true, ..MountReply::default() };
    connection.reply(&reply, &[mount.as_fd()]).unwrap();
}

/// Runs a script as an ordinary user by the agent's mount; exit code and output.
fn launch(image: &Image, claim: Option<u32>, script: &str) -> (Option<i32>, String) {
    launch_from(&Mounted::new(image), image, claim, &[], script)
}

fn launch_from(
    mounted: &Mounted,
    image: &Image,
    claim: Option<u32>,
    options: &[&str],
    script: &str,
) -> (Option<i32>, String) {
    let socket = image.scratch.path().join("agent.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    std::fs::set_permissions(&socket, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| serve_once(&listener, &mounted.directory, claim));
        let mut command = image.launcher_with(USER, &[4, 27, 100], &[]);
        command.args(options).args(["--agent", socket.to_str().unwrap(), "lab/image", "sh", "-c", script]);
        let output = command.output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&text).into_owned())
    })
}

#[test]
fn id_mapped_mount_and_groups() {
    // Bare: the overlay over an id-mapped lower layer works too.
    for (image, id_mapped) in [(Image::complete(), ",idmapped"), (Image::bare(), "")] {
        let script = "id -u; id -G; stat -c %u:%g /bin/busybox /etc/shadow; cat /etc/shadow; \
                      f=/tmp/launch-test-$$; touch $f; chgrp 27 $f && stat -c %g $f; rm -f $f; \
                      grep -c . /proc/self/gid_map; cat /proc/self/setgroups; grep ' / / ' /proc/self/mountinfo | cut -d' ' -f6";
        let script = script.replace("rm -f $f", "busybox rm -f $f").replace("cut", "busybox cut");
        let (code, text) = launch(&image, None, &script);
        let expect = format!(
            "{USER}\n{USER} 4 27 100\n{USER}:{USER}\n{USER}:{USER}\nsecret\n27\n4\ndeny\nro,nosuid,nodev,relatime{id_mapped}\n"
        );
        assert_eq!((code, text), (Some(0), expect));
    }
}

#[test]
fn users_cannot_clear_the_flags_of_the_agents_mount() {
    let check = |image: &Image, mounted: &Mounted| {
        let (code, text) = launch_from(mounted, image, None, &["--unlock"], "true");
        let flags: Vec<&str> = text.lines().collect();
        assert_eq!((code, flags.len()), (Some(0), 4), "{text}");
        assert!(flags[..3].iter().all(|line| line.starts_with("without") && line.contains("Err(")), "{text}");
        assert_eq!(flags[3], "the same: Ok(())");
    };
    let image = Image::complete();
    check(&image, &Mounted::new(&image));
    let image = Image::complete();
    let first = Mounted::new(&image);
    check(&image, &first.again(&image));
}

#[test]
fn only_a_user_namespace_passes_for_one() {
    // Not even asked: on a FUSE mount of the peer's, asking might never end.
    let error = map_peer_groups(File::open("/dev/null").unwrap().as_fd(), std::process::id(), 0, 0, &[]).unwrap_err();
    assert!(error.to_string().contains("no user namespace"), "{error}");
}

#[test]
fn foreign_user_namespaces_are_refused() {
    let image = Image::complete();
    let (code, text) = launch(&image, Some(USER + 1), "true");
    assert_eq!(code, Some(255));
    assert!(text.contains("the user namespace passed is another user's"), "{text}");
}

#[test]
fn damaged_squashfs_is_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("damaged");
    std::fs::write(&path, vec![7; 8192]).unwrap();
    let error = mount_squashfs(File::open(&path).unwrap().as_fd(), &path, 0, 8192).unwrap_err().to_string();
    assert!(error.starts_with(&format!("mount squashfs {}", path.display())), "{error}");
    assert!(error.contains("damaged"), "{error}");
}
