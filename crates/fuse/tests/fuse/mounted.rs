//! A mount that is attached nowhere: it goes with its descriptor.

use std::fs::{self, File};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string,
};
use siforge_fuse::{Error, Owners, limits, serve};
use siforge_squashfs::read::Reader;

/// Far more than anything here takes, on the busiest machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) struct Mounted {
    mount: Option<OwnedFd>,
    end: Receiver<Result<(), Error>>,
}

fn mount(device: &OwnedFd) -> OwnedFd {
    let context = rustix::mount::fsopen("fuse", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
    let fd = device.as_raw_fd().to_string();
    for (key, value) in [("fd", fd.as_str()), ("rootmode", "40000"), ("user_id", "0"), ("group_id", "0")] {
        fsconfig_set_string(&context, key, value).unwrap();
    }
    for flag in ["ro", "allow_other", "default_permissions"] {
        fsconfig_set_flag(&context, flag).unwrap();
    }
    fsconfig_create(&context).unwrap();
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_RDONLY).unwrap()
}

impl Mounted {
    pub(crate) fn new(image: &Path, owners: Owners) -> Self {
        let file = File::open(image).unwrap();
        let size = file.metadata().unwrap().len();
        let reader = Reader::with_limits(Arc::new(file), 0, size, limits()).unwrap();
        let device = rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let mount = mount(&device);
        let (sender, end) = channel();
        std::thread::spawn(move || {
            // No clones: their ioctl is unsafe code.
            let result = serve(device, reader, owners, 3, |_| Err(rustix::io::Errno::NOSYS.into()));
            sender.send(result)
        });
        Self { mount: Some(mount), end }
    }

    pub(crate) fn root(&self) -> PathBuf {
        let number = self.mount.as_ref().unwrap().as_raw_fd();
        // With a dot, so that it is the directory and not the link to it.
        Path::new("/proc/self/fd").join(number.to_string()).join(".")
    }

    /// Unmounts; the server ends without an error.
    pub(crate) fn end(mut self) {
        self.mount = None;
        self.end.recv_timeout(DEADLINE).expect("the server ends with its mount").unwrap();
    }
}

#[test]
fn the_server_ends_with_its_mount() {
    let sample = crate::sample::small();
    let mounted = Mounted::new(&sample.image(&[]), Owners::Image);
    let open = File::open(mounted.root().join("marked")).unwrap();
    assert_eq!(fs::read_to_string(mounted.root().join("marked")).unwrap(), "marked");
    drop(open);
    mounted.end();
}
