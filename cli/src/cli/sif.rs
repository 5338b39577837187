//! `siforge sif`: siftool's commands and options.

use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(crate) enum SifCommand {
    /// Show the global header
    Header(SifFile),
    /// List the data objects
    List(SifFile),
    /// Show what is known of a data object
    Info(SifObject),
    /// Write a data object to standard output
    Dump(SifObject),
    /// Make a SIF without data objects
    New(SifFile),
    /// Add a data object
    Add(Box<SifAdd>),
    /// Delete a data object
    Del(SifObject),
    /// Set the primary system partition
    Setprim(SifObject),
}

#[derive(Args, Debug)]
pub(crate) struct SifFile {
    /// The SIF file
    #[arg(value_name = "FILE.sif")]
    pub(crate) path: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct SifObject {
    /// The data object's number
    #[arg(value_name = "ID")]
    pub(crate) id: u32,
    /// The SIF file
    #[arg(value_name = "FILE.sif")]
    pub(crate) path: PathBuf,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct SifAdd {
    /// The SIF file
    #[arg(value_name = "FILE.sif")]
    pub(crate) path: PathBuf,
    /// The file with the data
    #[arg(value_name = "DATA")]
    pub(crate) data: PathBuf,
    /// 1 definition file, 2 environment, 3 labels, 4 partition, 5 signature, 6 JSON, 7 generic, 8 cryptographic message, 9 SBOM, 10
    /// OCI root index, 11 OCI blob
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=11))]
    pub(crate) datatype: i32,
    /// Of a partition: 1 system, 2 primary system, 3 data, 4 overlay
    #[arg(long, value_name = "N")]
    pub(crate) parttype: Option<i32>,
    /// Of a partition: 1 squashfs, 2 ext3, 3 archive, 4 raw
    #[arg(long, value_name = "N")]
    pub(crate) partfs: Option<i32>,
    /// Of a partition: 1 386, 2 amd64, 3 arm, 4 arm64, 5 ppc64, 6 ppc64le, 7 mips, 8 mipsle, 9 mips64, 10 mips64le, 11 s390x, 12
    /// riscv64, 13 loong64
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=13))]
    pub(crate) partarch: Option<u8>,
    /// Of a signature: 1 SHA-256, 2 SHA-384, 3 SHA-512, 4 BLAKE2s-256, 5 BLAKE2b-256
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=5))]
    pub(crate) signhash: Option<i32>,
    /// Of a signature: the fingerprint of who signed, 40 hexadecimal digits
    #[arg(long, value_name = "HEX")]
    pub(crate) signentity: Option<String>,
    /// Of an SBOM: cyclonedx-json, cyclonedx-xml, github-json, spdx-json, spdx-rdf, spdx-tag-value, spdx-yaml, syft-json
    #[arg(long, value_name = "FORMAT")]
    pub(crate) sbomformat: Option<String>,
    /// The object's group; 0: none
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) groupid: u32,
    /// The object that it belongs to
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) link: Option<u32>,
    /// The data start at a multiple of it; 4096 for a partition
    #[arg(long, value_name = "BYTES")]
    pub(crate) alignment: Option<u64>,
    /// The object's name
    #[arg(long, value_name = "NAME")]
    pub(crate) filename: Option<String>,
}
