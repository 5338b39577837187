//! Mounts a squashfs image over FUSE as root, for a look at it and for measurements: `mount IMAGE [OFFSET] DIRECTORY`.
//! Ends when it is unmounted.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::process::ExitCode;
use std::sync::Arc;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags};
use siforge_fuse::{Owners, limits, serve};
use siforge_launch::clone_fuse_device;
use siforge_squashfs::read::Reader;

fn main() -> ExitCode {
    match run(&std::env::args().skip(1).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mount: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[String]) -> Result<(), Box<dyn std::error::Error>> {
    let (image, offset, directory) = match words {
        [image, directory] => (image, 0, directory),
        [image, offset, directory] => (image, offset.parse()?, directory),
        _ => return Err("give IMAGE [OFFSET] DIRECTORY".into()),
    };
    let file = File::open(image)?;
    let size = file.metadata()?.len() - offset;
    let reader = Reader::with_limits(Arc::new(file), offset, size, limits())?;
    let device = rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    let context = rustix::mount::fsopen("fuse", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let fd = device.as_raw_fd().to_string();
    for (key, value) in
        [("source", image.as_str()), ("fd", &fd), ("rootmode", "40000"), ("user_id", "0"), ("group_id", "0")]
    {
        rustix::mount::fsconfig_set_string(&context, key, value)?;
    }
    for flag in ["ro", "allow_other", "default_permissions"] {
        rustix::mount::fsconfig_set_flag(&context, flag)?;
    }
    rustix::mount::fsconfig_create(&context)?;
    let mount = rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_RDONLY)?;
    rustix::mount::move_mount(&mount, c"", CWD, directory, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    // Either would keep the file system mounted.
    drop((mount, context));
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    serve(device, reader, Owners::Image, workers, clone_fuse_device)?;
    Ok(())
}
