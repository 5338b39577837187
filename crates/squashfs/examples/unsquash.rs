//! `unsquash IMAGE DIRECTORY`: unpacks an image, to measure it and to see it as an ordinary user.

use std::error::Error;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use siforge_squashfs::read::{Reader, unpack};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [image, directory] = &args[..] else {
        return Err("usage: unsquash IMAGE DIRECTORY".into());
    };
    std::fs::create_dir(directory)?;
    let start = Instant::now();
    let file = File::open(image)?;
    let size = file.metadata()?.len();
    let unpacked = unpack(&Reader::open(Arc::new(file), 0, size)?, Path::new(directory))?;
    for warning in unpacked.warnings {
        println!("{warning}");
    }
    eprintln!("unpacked in {:?}", start.elapsed());
    Ok(())
}
