//! The bytes of a SIF header and of its descriptors (sylabs/sif `pkg/sif/sif.go`, `descriptor.go`). Pure.
//!
//! ```text
//! header, 128 bytes                     descriptor, 585 bytes packed
//!   0 launch[32]  shebang, NUL            0 datatype i32          33 size_with_padding i64
//!  32 magic[10]   SIF_MAGIC NUL           4 used u8               41 ctime i64
//!  42 version[3]  "01" NUL                5 id u32                49 mtime i64
//!  45 arch[3]     "02" NUL = amd64        9 group u32             57 uid i64
//!  48 uuid[16]                           13 link u32              65 gid i64
//!  64 ctime  72 mtime    i64 Unix s      17 offset i64            73 name[128] NUL-padded
//!  80 dfree  88 dtotal   i64             25 size i64             201 extra[384]
//!  96 descroff 104 descrlen i64
//! 112 dataoff  120 datalen  i64          partition's extra: filesystem i32, kind i32 (2 = primary system), arch[3]
//! ```
//!
//! `size_with_padding` is the object's size plus the padding *before* it; `datalen` is the sum of them.
//! Group ids carry the mask 0xf0000000: group 1 is 0xf0000001, 0xf0000000 is no group.

/// Bytes of the header.
pub const HEADER_LEN: usize = 128;
/// Bytes of one descriptor.
pub const DESCRIPTOR_LEN: usize = 585;
/// The mask that marks a group id.
pub const GROUP_MASK: u32 = 0xf000_0000;
/// First line of the file: a SIF is executable by way of `run-singularity`.
pub const LAUNCH: &[u8; 32] = b"#!/usr/bin/env run-singularity\n\0";
pub const MAGIC: &[u8; 10] = b"SIF_MAGIC\0";
pub const VERSION: &[u8; 3] = b"01\0";
/// The value of a partition's kind that names the image's root file system.
pub const PRIMARY_SYSTEM: i32 = 2;
/// Another system partition, which could become the primary one.
pub const SYSTEM: i32 = 1;

macro_rules! architectures {
    ($($name:ident $code:literal $go:literal;)*) => {
        /// A CPU architecture as the header codes it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Arch { Unknown, $(#[doc = $go] $name,)* }

        impl Arch {
            /// From Go's name (`amd64`, `arm64`, …), as image configs spell it.
            pub fn from_go(name: &str) -> Option<Self> {
                match name { $($go => Some(Self::$name),)* _ => None }
            }
            /// Go's name; `unknown` for a code that nobody has given.
            pub fn go_name(self) -> &'static str {
                match self { Self::Unknown => "unknown", $(Self::$name => $go,)* }
            }
            pub fn from_code(code: [u8; 3]) -> Self {
                match &code { $($code => Self::$name,)* _ => Self::Unknown }
            }
            pub fn code(self) -> [u8; 3] {
                match self { Self::Unknown => *b"00\0", $(Self::$name => *$code,)* }
            }
        }
    };
}

architectures! {
    I386 b"01\0" "386";
    Amd64 b"02\0" "amd64";
    Arm b"03\0" "arm";
    Arm64 b"04\0" "arm64";
    Ppc64 b"05\0" "ppc64";
    Ppc64le b"06\0" "ppc64le";
    Mips b"07\0" "mips";
    Mipsle b"08\0" "mipsle";
    Mips64 b"09\0" "mips64";
    Mips64le b"10\0" "mips64le";
    S390x b"11\0" "s390x";
    Riscv64 b"12\0" "riscv64";
    Loong64 b"13\0" "loong64";
}

/// What a data object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DataType {
    DefinitionFile,
    EnvironmentVariables,
    Labels,
    Partition,
    Signature,
    GenericJson,
    Generic,
    CryptographicMessage,
    Sbom,
    OciRootIndex,
    OciBlob,
    /// A code of a later version.
    Other(i32),
}

impl DataType {
    pub fn from_code(code: i32) -> Self {
        match code {
            0x4001 => Self::DefinitionFile,
            0x4002 => Self::EnvironmentVariables,
            0x4003 => Self::Labels,
            0x4004 => Self::Partition,
            0x4005 => Self::Signature,
            0x4006 => Self::GenericJson,
            0x4007 => Self::Generic,
            0x4008 => Self::CryptographicMessage,
            0x4009 => Self::Sbom,
            0x400a => Self::OciRootIndex,
            0x400b => Self::OciBlob,
            other => Self::Other(other),
        }
    }

    pub fn code(self) -> i32 {
        match self {
            Self::DefinitionFile => 0x4001,
            Self::EnvironmentVariables => 0x4002,
            Self::Labels => 0x4003,
            Self::Partition => 0x4004,
            Self::Signature => 0x4005,
            Self::GenericJson => 0x4006,
            Self::Generic => 0x4007,
            Self::CryptographicMessage => 0x4008,
            Self::Sbom => 0x4009,
            Self::OciRootIndex => 0x400a,
            Self::OciBlob => 0x400b,
            Self::Other(code) => code,
        }
    }

    /// The word that `siftool list` uses.
    pub fn label(self) -> &'static str {
        match self {
            Self::DefinitionFile => "Def.FILE",
            Self::EnvironmentVariables => "Env.Vars",
            Self::Labels => "JSON.Labels",
            Self::Partition => "FS",
            Self::Signature => "Signature",
            Self::GenericJson => "JSON.Generic",
            Self::Generic => "Generic/Raw",
            Self::CryptographicMessage => "Cryptographic Message",
            Self::Sbom => "SBOM",
            Self::OciRootIndex => "OCI.RootIndex",
            Self::OciBlob => "OCI.Blob",
            Self::Other(_) => "Unknown",
        }
    }
}

/// What a partition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Filesystem {
    Squashfs,
    Ext3,
    ImmutableObject,
    Raw,
    EncryptedSquashfs,
    GocryptfsSquashfs,
    Other(i32),
}

impl Filesystem {
    pub fn from_code(code: i32) -> Self {
        match code {
            1 => Self::Squashfs,
            2 => Self::Ext3,
            3 => Self::ImmutableObject,
            4 => Self::Raw,
            5 => Self::EncryptedSquashfs,
            6 => Self::GocryptfsSquashfs,
            other => Self::Other(other),
        }
    }

    pub fn code(self) -> i32 {
        match self {
            Self::Squashfs => 1,
            Self::Ext3 => 2,
            Self::ImmutableObject => 3,
            Self::Raw => 4,
            Self::EncryptedSquashfs => 5,
            Self::GocryptfsSquashfs => 6,
            Self::Other(code) => code,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Squashfs => "squashfs",
            Self::Ext3 => "ext3",
            Self::ImmutableObject => "archive",
            Self::Raw => "raw",
            Self::EncryptedSquashfs => "encrypted squashfs",
            Self::GocryptfsSquashfs => "gocryptfs squashfs",
            Self::Other(_) => "unknown",
        }
    }
}

/// A header's fields; times in Unix seconds, offsets and lengths in bytes of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The file's first line, NUL-padded; a file that nobody executes may have none.
    pub launch: [u8; 32],
    pub arch: Arch,
    pub uuid: [u8; 16],
    pub ctime: i64,
    pub mtime: i64,
    pub descriptors_free: i64,
    pub descriptors_total: i64,
    pub descriptors_offset: i64,
    pub descriptors_len: i64,
    pub data_offset: i64,
    pub data_len: i64,
}

impl Header {
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[..32].copy_from_slice(&self.launch);
        bytes[32..42].copy_from_slice(MAGIC);
        bytes[42..45].copy_from_slice(VERSION);
        bytes[45..48].copy_from_slice(&self.arch.code());
        bytes[48..64].copy_from_slice(&self.uuid);
        let numbers = [
            self.ctime,
            self.mtime,
            self.descriptors_free,
            self.descriptors_total,
            self.descriptors_offset,
            self.descriptors_len,
            self.data_offset,
            self.data_len,
        ];
        for (slot, number) in bytes[64..].chunks_exact_mut(8).zip(numbers) {
            slot.copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    /// Reads the fields; the caller has checked magic and version.
    pub(crate) fn decode(bytes: &[u8; HEADER_LEN]) -> Self {
        let at = |offset| i64_at(bytes, offset);
        Self {
            launch: array_at(bytes, 0),
            arch: Arch::from_code(array_at(bytes, 45)),
            uuid: array_at(bytes, 48),
            ctime: at(64),
            mtime: at(72),
            descriptors_free: at(80),
            descriptors_total: at(88),
            descriptors_offset: at(96),
            descriptors_len: at(104),
            data_offset: at(112),
            data_len: at(120),
        }
    }
}

/// One used descriptor. In a [`crate::Sif`], `offset + size` lies within the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    pub datatype: DataType,
    pub id: u32,
    /// Raw, with the mask; [`Descriptor::group_number`] without.
    pub group: u32,
    /// 0, an object's id, or a masked group id.
    pub link: u32,
    pub offset: u64,
    pub size: u64,
    pub size_with_padding: u64,
    pub ctime: i64,
    pub mtime: i64,
    pub uid: i64,
    pub gid: i64,
    /// Up to 127 bytes; bytes that are no UTF-8 are shown as U+FFFD.
    pub name: String,
    pub extra: Box<[u8; 384]>,
}

impl Descriptor {
    /// The group's number; None for "no group".
    pub fn group_number(&self) -> Option<u32> {
        Some(self.group & !GROUP_MASK).filter(|number| *number != 0)
    }

    /// What a partition's extra field says: file system, kind, architecture.
    pub fn partition(&self) -> Option<(Filesystem, i32, Arch)> {
        (self.datatype == DataType::Partition).then(|| {
            let extra = &self.extra[..];
            (Filesystem::from_code(i32_at(extra, 0)), i32_at(extra, 4), Arch::from_code(array_at(extra, 8)))
        })
    }

    pub fn is_primary_partition(&self) -> bool {
        self.partition().is_some_and(|(_, kind, _)| kind == PRIMARY_SYSTEM)
    }

    pub fn encode(&self) -> [u8; DESCRIPTOR_LEN] {
        let mut bytes = [0; DESCRIPTOR_LEN];
        bytes[0..4].copy_from_slice(&self.datatype.code().to_le_bytes());
        bytes[4] = 1;
        bytes[5..9].copy_from_slice(&self.id.to_le_bytes());
        bytes[9..13].copy_from_slice(&self.group.to_le_bytes());
        bytes[13..17].copy_from_slice(&self.link.to_le_bytes());
        bytes[17..25].copy_from_slice(&self.offset.to_le_bytes());
        bytes[25..33].copy_from_slice(&self.size.to_le_bytes());
        bytes[33..41].copy_from_slice(&self.size_with_padding.to_le_bytes());
        bytes[41..49].copy_from_slice(&self.ctime.to_le_bytes());
        bytes[49..57].copy_from_slice(&self.mtime.to_le_bytes());
        bytes[57..65].copy_from_slice(&self.uid.to_le_bytes());
        bytes[65..73].copy_from_slice(&self.gid.to_le_bytes());
        let name = self.name.as_bytes();
        let len = name.len().min(NAME_MAX);
        bytes[73..73 + len].copy_from_slice(&name[..len]);
        bytes[201..].copy_from_slice(&self.extra[..]);
        bytes
    }

    /// None for an unused slot; negative numbers come back as they stand in [`RawDescriptor`].
    pub(crate) fn decode(bytes: &[u8; DESCRIPTOR_LEN]) -> Option<RawDescriptor> {
        if bytes[4] == 0 {
            return None;
        }
        let name: [u8; NAME_MAX + 1] = array_at(bytes, 73);
        let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
        Some(RawDescriptor {
            offset: i64_at(bytes, 17),
            size: i64_at(bytes, 25),
            size_with_padding: i64_at(bytes, 33),
            rest: Self {
                datatype: DataType::from_code(i32_at(bytes, 0)),
                id: u32::from_le_bytes(array_at(bytes, 5)),
                group: u32::from_le_bytes(array_at(bytes, 9)),
                link: u32::from_le_bytes(array_at(bytes, 13)),
                offset: 0,
                size: 0,
                size_with_padding: 0,
                ctime: i64_at(bytes, 41),
                mtime: i64_at(bytes, 49),
                uid: i64_at(bytes, 57),
                gid: i64_at(bytes, 65),
                name: String::from_utf8_lossy(&name[..end]).into_owned(),
                extra: Box::new(array_at(bytes, 201)),
            },
        })
    }
}

/// Longest name: the field's 128 bytes less the final NUL.
pub const NAME_MAX: usize = 127;

/// A descriptor whose place in the file nobody has checked yet.
pub(crate) struct RawDescriptor {
    pub(crate) offset: i64,
    pub(crate) size: i64,
    pub(crate) size_with_padding: i64,
    pub(crate) rest: Descriptor,
}

/// The extra field of a primary system partition.
pub fn primary_partition_extra(filesystem: Filesystem, arch: Arch) -> Vec<u8> {
    let mut extra = Vec::with_capacity(11);
    extra.extend_from_slice(&filesystem.code().to_le_bytes());
    extra.extend_from_slice(&PRIMARY_SYSTEM.to_le_bytes());
    extra.extend_from_slice(&arch.code());
    extra
}

fn array_at<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[offset..offset + N]);
    array
}

fn i32_at(bytes: &[u8], offset: usize) -> i32 {
    i32::from_le_bytes(array_at(bytes, offset))
}

fn i64_at(bytes: &[u8], offset: usize) -> i64 {
    i64::from_le_bytes(array_at(bytes, offset))
}
