//! The configuration of an OCI image, and what is written into the SIF for it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use siforge_sif::image_config::ImageConfig;
use siforge_sif::inspect;

fuzz_target!(|bytes: &[u8]| {
    let _ = ImageConfig::parse(bytes);
    let _ = inspect::parse_labels(bytes);
});
