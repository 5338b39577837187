//! Loop devices: a byte range of a file as a read-only block device that goes by itself.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::{Error, syscall};

/// Others take the free device between asking and configuring; with many launches at once a few rounds are needed.
const ATTEMPTS: u32 = 64;

/// Sectors of a loop device; a range that ends within one is rounded up.
const SECTOR: u64 = 512;

/// Major number of loop devices (Documentation/admin-guide/devices.txt).
const LOOP_MAJOR: u32 = 7;

/// An attached loop device. Autoclear: it is freed when this and every mount of it are gone.
#[derive(Debug)]
pub struct LoopDevice {
    /// /dev/loopN
    pub path: PathBuf,
    device: File,
}

impl LoopDevice {
    /// Opens a device that has a file. While it is open the file stays.
    pub fn open(number: u32) -> Result<LoopDevice, Error> {
        let path = PathBuf::from(format!("/dev/loop{number}"));
        let device = open_device(&path, number)?;
        Ok(LoopDevice { path, device })
    }

    /// Device and inode number, as stat(2) gives them, of the file behind it: unlike a path they tell a file from the
    /// one that took its name.
    pub fn backing(&self) -> Result<(u64, u64), Error> {
        syscall::loop_backing(self.as_fd()).map_err(Error::path("read the status of", &self.path))
    }

    /// Attaches `size` bytes from `offset` of `file`, read-only. `name` is for messages and losetup. Needs root.
    pub fn attach(file: BorrowedFd<'_>, name: &Path, offset: u64, size: u64) -> Result<LoopDevice, Error> {
        let control_path = Path::new("/dev/loop-control");
        let control =
            OpenOptions::new().read(true).write(true).open(control_path).map_err(Error::path("open", control_path))?;
        let size = size.next_multiple_of(SECTOR);
        for _ in 0..ATTEMPTS {
            let number = syscall::loop_get_free(control.as_fd())
                .map_err(Error::path("find a free loop device by", control_path))?;
            let path = PathBuf::from(format!("/dev/loop{number}"));
            let device = open_device(&path, number)?;
            match syscall::loop_configure(device.as_fd(), file, offset, size, name.as_os_str().as_bytes()) {
                Ok(()) => return Ok(LoopDevice { path, device }),
                Err(e) if matches!(e.raw_os_error(), Some(libc::EBUSY | libc::ENXIO)) => {}
                Err(e) => return Err(Error::path("attach to a loop device", name)(e)),
            }
        }
        let hint = Some("other processes take them as fast as they come: try again");
        Err(Error::NoLoopDevice { path: name.to_path_buf(), attempts: ATTEMPTS, hint })
    }
}

impl AsFd for LoopDevice {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

/// Opens the node, and makes it where /dev is no devtmpfs (a container's).
fn open_device(path: &Path, number: u32) -> Result<File, Error> {
    match File::open(path) {
        Ok(device) => return Ok(device),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => {}
        Err(e) => return Err(Error::path("open", path)(e)),
    }
    let mode = rustix::fs::Mode::from_raw_mode(0o660);
    let device = rustix::fs::makedev(LOOP_MAJOR, number);
    match rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::BlockDevice, mode, device) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(e) => return Err(Error::path("make device node", path)(e)),
    }
    File::open(path).map_err(Error::path("open", path))
}
