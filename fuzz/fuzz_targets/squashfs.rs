//! Squashfs images: every name, attribute and byte, in bounded time and memory.
#![no_main]

use std::io::{Write, sink};
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use siforge_squashfs::read::{Body, Error, Limits, Reader};

/// Bytes of a file that are read: one may claim to be of many terabytes, and be a hole.
const PART: usize = 1 << 16;

fn walk(reader: &Reader) -> Result<(), Error> {
    let mut pending = vec![reader.root()?];
    let mut seen = 0;
    // A directory within itself must end as well.
    while let Some(inode) = pending.pop()
        && seen < 1000
    {
        seen += 1;
        reader.xattrs(&inode)?;
        match &inode.body {
            Body::Directory(_) => {
                for entry in reader.read_dir(&inode)?.take(1000) {
                    let entry = entry?;
                    // A listing that is out of order hides names from a search.
                    reader.lookup(&inode, &entry.name)?;
                    pending.push(reader.entry_inode(&entry)?);
                }
            }
            Body::File(file) => {
                let mut part = vec![0; PART.min(file.size as usize)];
                let read = reader.read_at(&inode, 0, &mut part)?;
                reader.read_at(&inode, file.size / 2, &mut part)?;
                reader.seek(&inode, 0, true)?;
                let _ = sink().write_all(&part[..read]);
            }
            Body::Symlink { .. } => {
                reader.read_link(&inode)?;
            }
            Body::Device { .. } | Body::Fifo | Body::Socket => {}
        }
    }
    Ok(())
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(mut file) = tempfile::tempfile() else { return };
    if file.write_all(bytes).is_err() {
        return;
    }
    let limits = Limits { cache: 3 << 18, ..Limits::default() };
    if let Ok(reader) = Reader::with_limits(Arc::new(file), 0, bytes.len() as u64, limits) {
        let _ = walk(&reader);
    }
});
