//! `tar2squashfs IMAGE THREADS zstd|gzip LEVEL BLOCK_KIB LAYER.tar…` (topmost layer first): the writer on real layers, to
//! measure it and to look at what it writes.

use std::error::Error;
use std::fs::File;
use std::time::Instant;

use siforge_rootfs::{Limits, Merge, Outcome, Visibility};
use siforge_squashfs::write::{Codec, Finished, Options, Writer};

fn convert(image: &str, options: &Options, layers: &[String]) -> Result<Finished, Box<dyn Error>> {
    let mut known = Visibility::default();
    loop {
        let mut writer = Writer::new(File::create(image)?, 0, options.clone())?;
        let mut merge = Merge::new(Limits::default(), known);
        for layer in layers {
            merge.apply_tar(&mut File::open(layer)?, &mut writer)?;
        }
        match merge.finish(0)? {
            Outcome::Done { tree, .. } => return Ok(writer.finish(&tree)?),
            Outcome::Restart(map) => known = map,
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [image, threads, codec, level, block_kib, layers @ ..] = &args[..] else {
        return Err("usage: tar2squashfs IMAGE THREADS zstd|gzip LEVEL BLOCK_KIB LAYER.tar…".into());
    };
    let level = level.parse()?;
    let codec = match codec.as_str() {
        "zstd" => Codec::Zstd { level },
        "gzip" => Codec::Gzip { level },
        other => return Err(format!("no codec {other}").into()),
    };
    let block_size = block_kib.parse::<u32>()? << 10;
    let options = Options { codec, block_size, threads: threads.parse()?, ..Options::default() };
    let start = Instant::now();
    let finished = convert(image, &options, layers)?;
    println!("{finished:?} in {:?}", start.elapsed());
    Ok(())
}
