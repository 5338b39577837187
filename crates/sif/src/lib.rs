//! SIF, the Singularity Image Format: header, descriptors, data objects; and what an OCI config becomes in an image.

use std::fs::File;

// Reader (hardened; truncated or damaged files are refused with the reason):
//   pub struct Sif; Sif::open(file: File) -> Result<Sif, Error>
//   .header() -> &Header {arch, uuid, ctime, mtime, …}; .descriptors() -> &[Descriptor]
//   .primary_partition() -> Result<Partition { offset: u64, size: u64, filesystem: Filesystem }, Error>
//   .object(&Descriptor, limit: u64) -> Result<Vec<u8>, Error>; .file() -> &File
//
// Writer, canonical (SIF.md): objects before the partition are known first, the partition is streamed in place, the header goes last:
//   pub struct Draft; Draft::new(arch: Arch, uuid: [u8;16], time: i64, objects: Vec<Object{datatype, name, bytes, extra}>) -> Draft
//   .partition_offset() -> u64                      // multiple of 4096
//   .finish(&self, file: &File, partition_len: u64) -> Result<u64 /* file length */, Error>   // writes header, descriptors and objects
//
// pub mod image_config: OCI config JSON → what the image holds
//   pub struct ImageConfig (parsed subset: Env, Entrypoint, Cmd, WorkingDir, Labels, User, created, architecture, …)
//   pub fn plan(config: &ImageConfig, source: &Source { canonical: "docker reference for `from:`" }, labels: &BTreeMap) -> Contents {
//        files: Vec<ImageFile { path, mode, kind: Regular(bytes) | Symlink(target) | Directory }>,      // .singularity.d tree, /.exec …
//        definition: Vec<u8>, inspect_json: Vec<u8>, oci_config_json: Vec<u8>, created: i64,
//        missing_dirs / missing_files: the mount points to add where the image has none }
