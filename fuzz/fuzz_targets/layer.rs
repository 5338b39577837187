//! Layers of an image, uppermost first: tar streams, whiteouts, links, sparse files.
#![no_main]

use std::convert::Infallible;
use std::io::{Read, sink};

use libfuzzer_sys::fuzz_target;
use siforge_rootfs::{Contents, InodeId, Limits, Merge, Visibility};

struct Dropped;

impl Contents for Dropped {
    type Error = Infallible;

    fn begin_layer(&mut self) -> Result<(), Infallible> {
        Ok(())
    }

    fn file(&mut self, _: Option<InodeId>, _: u64, data: &mut dyn Read) -> Result<(), Infallible> {
        // Its error is the merge's to report.
        let _ = std::io::copy(data, &mut sink());
        Ok(())
    }

    fn end_layer(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

/// Between two layers: whole blocks of it are not likely by chance.
const CUT: &[u8] = b"----next layer--";

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits { apparent_bytes: 1 << 22, tar_bytes: 1 << 22, ..Limits::default() };
    let mut merge = Merge::new(limits, Visibility::default());
    let mut rest = bytes;
    loop {
        let end = rest.windows(CUT.len()).position(|window| window == CUT);
        let mut layer = &rest[..end.unwrap_or(rest.len())];
        if merge.apply_tar(&mut layer, &mut Dropped).is_err() {
            return;
        }
        match end {
            Some(end) => rest = &rest[end + CUT.len()..],
            None => break,
        }
    }
    let _ = merge.finish(0);
});
