//! Reads the version of the Slurm that the plugin is built for: slurmd loads only plugins of its own major.minor release.

use std::path::PathBuf;

const HEADER: &str = "slurm/slurm_version.h";

fn main() {
    println!("cargo:rerun-if-env-changed=SLURM_INCLUDE_DIR");
    let dir = std::env::var_os("SLURM_INCLUDE_DIR").map_or("/usr/include".into(), PathBuf::from);
    let header = dir.join(HEADER);
    println!("cargo:rerun-if-changed={}", header.display());
    let text = std::fs::read_to_string(&header).unwrap_or_else(|error| {
        panic!(
            "read {}: {error}: install libslurm-dev (slurm-devel), or set SLURM_INCLUDE_DIR to the folder that has {HEADER}",
            header.display()
        )
    });
    let version = version(&text).unwrap_or_else(|| panic!("{} has no SLURM_VERSION_NUMBER", header.display()));
    println!("cargo:rustc-env=SIFORGE_SLURM_VERSION={version}");
    // Slurm's functions are found in the program that loads the plugin, when they are called: rustc's default would have
    // all of them looked up at dlopen(3).
    println!("cargo:rustc-link-arg=-Wl,-z,lazy");
    println!("cargo:rustc-link-arg=-Wl,--unresolved-symbols=ignore-all");
}

/// `#define SLURM_VERSION_NUMBER 0x160508`, in decimal.
fn version(text: &str) -> Option<u32> {
    let number = text.lines().find_map(|line| line.strip_prefix("#define SLURM_VERSION_NUMBER"))?;
    u32::from_str_radix(number.trim().strip_prefix("0x")?, 16).ok()
}
