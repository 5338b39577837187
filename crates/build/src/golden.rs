//! Whole images, from blobs to SIF, without a registry: their bytes are pinned, and what must not change them does not.

use crate::convert::{Converted, Inputs, convert, digest};
use crate::decode::Budget;
use crate::fetch::{Cache, Fetch};
use crate::packs::LayerPacks;
use crate::progress::Progress;
use crate::recipe::RATIO_FREE_BYTES;
use crate::source::{Image, Name, Source};
use crate::{Codec, ENGINE_FORMAT, Error, Limits, Recipe, Reuse, Settings};
use sha2::{Digest as _, Sha256};
use siforge_oci::{Compression, Download, Layer, Operation, Platform, Resolved};
use siforge_reference::Digest;
use siforge_sif::image_config::Base;
use siforge_store::{Blobs, Store};
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

const CONFIG: &[u8] = br#"{"architecture":"amd64","os":"linux","created":"2024-05-06T07:08:09.987654321Z","config":{
"Env":["PATH=/usr/bin:/bin","GREETING=it's <moo> & \"more\" `x` $y"],"Entrypoint":["/usr/bin/cowsay","-f"],"Cmd":["it's"],
"Labels":{"maintainer":"lab"},"WorkingDir":"/srv","ExposedPorts":{"80/tcp":{}}},"rootfs":{"type":"layers","diff_ids":[]}}"#;

pub(crate) fn sha(bytes: &[u8]) -> Digest {
    Digest::from_bytes(Sha256::digest(bytes).into())
}

/// A tar with ustar headers, owner 7:8, mtime 1000.
#[derive(Default)]
pub(crate) struct Tar(Vec<u8>);

impl Tar {
    /// `meta`: mode and mtime.
    pub(crate) fn member(
        mut self,
        path: &[u8],
        kind: u8,
        meta: (u32, u64),
        link: &str,
        device: (u32, u32),
        data: &[u8],
    ) -> Self {
        let mut header = [0; 512];
        let octal = |header: &mut [u8; 512], at: usize, width: usize, value: u64| {
            let text = format!("{value:0digits$o}\0", digits = width - 1);
            header[at..at + width].copy_from_slice(text.as_bytes());
        };
        header[..path.len()].copy_from_slice(path);
        octal(&mut header, 100, 8, u64::from(meta.0));
        octal(&mut header, 108, 8, 7);
        octal(&mut header, 116, 8, 8);
        octal(&mut header, 124, 12, data.len() as u64);
        octal(&mut header, 136, 12, meta.1);
        header[148..156].fill(b' ');
        header[156] = kind;
        header[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header[257..265].copy_from_slice(b"ustar\x0000");
        octal(&mut header, 329, 8, u64::from(device.0));
        octal(&mut header, 337, 8, u64::from(device.1));
        let sum: u64 = header.iter().map(|&byte| u64::from(byte)).sum();
        octal(&mut header, 148, 7, sum);
        self.0.extend_from_slice(&header);
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(crate) fn file(self, path: &str, data: &[u8]) -> Self {
        self.member(path.as_bytes(), b'0', (0o644, 1000), "", (0, 0), data)
    }

    pub(crate) fn directory(self, path: &str) -> Self {
        self.member(path.as_bytes(), b'5', (0o755, 1000), "", (0, 0), b"")
    }

    pub(crate) fn link(self, path: &str, kind: u8, target: &str) -> Self {
        self.member(path.as_bytes(), kind, (0o777, 1000), target, (0, 0), b"")
    }

    /// PAX records of the next member.
    pub(crate) fn pax(self, records: &[(&str, &str)]) -> Self {
        let record = |(key, value): &(&str, &str)| {
            let rest = format!(" {key}={value}\n");
            // The length counts its own digits: two of them here.
            format!("{}{rest}", rest.len() + 2)
        };
        let data: String = records.iter().map(record).collect();
        self.member(b"pax", b'x', (0o644, 0), "", (0, 0), data.as_bytes())
    }

    pub(crate) fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

/// Bytes that compress, different for each seed.
pub(crate) fn text(seed: u32, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        b"abcdefgh"[(state >> 29) as usize]
    };
    std::iter::repeat_with(next).take(len).collect()
}

/// Bottom first. Each rule that decides bytes is met at least once.
fn layers() -> [Vec<u8>; 3] {
    let big = text(1, 700_000);
    let mut sparse = vec![0; 1 << 20];
    sparse[400_000..400_100].fill(b'x');
    let mut base = Tar::default()
        .directory("./")
        .directory("etc/")
        .file("etc/passwd", b"root:x:0:0::/root:/bin/sh\n")
        .file("etc/gone", b"hidden by a whiteout")
        .directory("usr/")
        .file("usr/big", &big)
        .file("usr/big-again", &big)
        .file("usr/holes", &sparse)
        .file("usr/empty", b"")
        .file("usr/twice", b"the first is hidden by the second")
        .file("usr/twice", b"so this image takes two passes")
        .member(b"usr/suid", b'0', (0o4755, 1000), "", (0, 0), b"suid")
        .member(b"usr/null", b'3', (0o666, 1000), "", (1, 3), b"")
        .member(b"usr/fifo", b'6', (0o600, 1000), "", (0, 0), b"")
        .member(b"usr/\xff\xfe", b'0', (0o600, 1000), "", (0, 0), b"no UTF-8")
        .pax(&[("SCHILY.xattr.user.note", "kept"), ("mtime", "-1.5")])
        .file("usr/attr", b"before 1970")
        .pax(&[("mtime", "9999999999.7")])
        .file("usr/late", b"after 2106")
        .link("usr/hard", b'1', "usr/suid")
        .link("usr/soft", b'2', "../etc/passwd")
        .directory("opt/")
        .file("opt/old", b"hidden by an opaque directory");
    // Small files for several groups, one of them with hidden members.
    for number in 0..300 {
        let contents = text(number % 280 + 10, 1500 + 10 * number as usize);
        base = base.file(&format!("usr/s{number:03}"), &contents);
    }
    let middle = Tar::default()
        .link("usr/across", b'1', "usr/big")
        .file("etc/.wh.gone", b"")
        .directory("opt/")
        .file("opt/.wh..wh..opq", b"")
        .file("opt/new", b"new")
        .link("var/run", b'2', "/run");
    let mut top = Tar::default().file("implied/deep/file", b"parents without entries");
    for number in 100..120 {
        top = top.file(&format!("usr/s{number:03}"), b"replaced");
    }
    [base.end(), middle.end(), top.end()]
}

pub(crate) fn packed(tar: &[u8], compression: Compression) -> Vec<u8> {
    match compression {
        Compression::None => tar.to_vec(),
        Compression::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
            encoder.write_all(tar).unwrap();
            encoder.finish().unwrap()
        }
        Compression::Zstd => zstd::encode_all(tar, 1).unwrap(),
    }
}

pub(crate) fn complete(blob: &[u8]) -> Arc<Download> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(blob).unwrap();
    Download::complete(file, blob.len() as u64)
}

/// What a build of `tars` (bottom first) is given: the valid base of each case.
pub(crate) fn inputs(recipe: &Recipe, tars: &[Vec<u8>], compression: Compression) -> Inputs {
    let reference: siforge_reference::ImageRef = "127.0.0.1:5000/lab/golden:v1".parse().unwrap();
    let manifest_digest = sha(b"the platform's manifest");
    let blobs: Vec<Vec<u8>> = tars.iter().map(|tar| packed(tar, compression)).collect();
    let layers = tars.iter().zip(&blobs).map(|(tar, blob)| Layer {
        digest: sha(blob),
        size: blob.len() as u64,
        compression,
        diff_id: sha(tar),
        urls: vec![],
    });
    let limits = Limits::default();
    Inputs {
        recipe_key: recipe.key(&manifest_digest, &reference.canonical()),
        resolved: Image {
            name: Name::registry(&reference),
            manifest_digest,
            platform: Platform::new("linux", "amd64", None),
            layers: layers.collect(),
            config: CONFIG.to_vec(),
            base: Base::default(),
        },
        recipe: recipe.clone(),
        threads: 2,
        memory: 64 << 20,
        limits,
        downloads: blobs.iter().rev().map(|blob| complete(blob)).collect(),
        packs: LayerPacks::default(),
        budget: Budget::new(limits.uncompressed_bytes, limits.ratio, RATIO_FREE_BYTES),
        progress: Progress::new(),
    }
}

/// Image digest and bytes.
fn run(inputs: &Inputs) -> Result<(Digest, u64), Error> {
    let out = tempfile::NamedTempFile::new().unwrap();
    let Converted { size, .. } = convert(inputs, out.as_file(), out.path())?;
    assert_eq!(out.as_file().metadata().unwrap().len(), size);
    Ok((digest(inputs, size, out.as_file(), out.path())?, size))
}

fn gzip() -> Recipe {
    Recipe {
        codec: Codec::Gzip { level: 9 },
        block_size: 128 << 10,
        labels: [("org.lab.cow".to_owned(), "moo".to_owned())].into(),
    }
}

/// Image digests are the addresses of every site's store: a failure here means that the same source and recipe now give
/// other bytes. If that is meant, [`ENGINE_FORMAT`] must be raised together with these values; else it must not happen.
#[test]
fn the_bytes_of_whole_images_are_pinned() {
    assert_eq!(ENGINE_FORMAT, 2);
    for (recipe, size, expect) in [
        (Recipe::default(), 733_184, "1f53c327710eebd889718afd2143f7a2f28ce2cc4f12abd3cba82e9c6ddad846"),
        (gzip(), 647_168, "211cd8daf2bb7e993b28f2a7673f977d1817e9b131e78048059ef9860e7cdabb"),
    ] {
        let (digest, bytes) = run(&inputs(&recipe, &layers(), Compression::Gzip)).unwrap();
        assert_eq!((digest.hex().as_str(), bytes), (expect, size), "{:?}", recipe.codec);
    }
}

#[test]
fn neither_machine_nor_transport_nor_names_of_the_source_change_a_byte() {
    let recipe = gzip();
    let base = || inputs(&recipe, &layers(), Compression::Gzip);
    let first = run(&base()).unwrap();
    let same = |what: &str, inputs: &Inputs| {
        assert_eq!(run(inputs).unwrap(), first, "{what}");
    };
    for (threads, memory) in [(1, 4 << 20), (7, 192 << 20)] {
        let changed = Inputs { threads, memory, ..base() };
        same("threads and memory", &changed);
    }
    for compression in [Compression::None, Compression::Zstd] {
        same("compression", &inputs(&recipe, &layers(), compression));
    }
    let mut tagged = base();
    let other: siforge_reference::ImageRef = "127.0.0.1:5000/lab/golden:other".parse().unwrap();
    tagged.resolved.name = Name::registry(&other);
    same("tag", &tagged);
    tagged.resolved.name = Name::registry(&other.with_digest(tagged.resolved.manifest_digest));
    same("named by digest", &tagged);
    let mut limited = base();
    limited.limits.files = 1000;
    limited.limits.uncompressed_bytes = 1 << 30;
    same("limits", &limited);
}

#[test]
fn odd_layers_are_layers() {
    let tar = || Tar::default().file("a", b"a");
    let empty = || Tar::default().end();
    for (what, tars) in [
        ("an empty tar", vec![empty()]),
        ("an empty tar above another", vec![tar().end(), empty()]),
        ("a blob of no bytes", vec![tar().end(), vec![]]),
        ("no end of archive", vec![tar().0]),
        ("the same layer twice", vec![tar().end(), tar().end()]),
        ("500 layers", vec![tar().end(); 500]),
    ] {
        let converted = run(&inputs(&Recipe::default(), &tars, Compression::None));
        assert!(converted.is_ok(), "{what}: {converted:?}");
    }
}

/// An image is blamed only for what its blobs, verified, hold; a blob of the cache that changed on the disk is told apart.
#[test]
fn a_damaged_blob_is_no_damaged_image() {
    let tars = vec![Tar::default().file("a", &text(3, 300_000)).end()];
    type Damage = fn(&mut Vec<u8>);
    let damages: [(&str, Damage); 3] = [
        ("a byte", |blob| blob[100] ^= 0x55),
        ("half of it", |blob| blob.truncate(blob.len() / 2)),
        ("all zeros", |blob| blob.fill(0)),
    ];
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        for (what, damage) in damages {
            let mut inputs = inputs(&Recipe::default(), &tars, compression);
            let mut blob = packed(&tars[0], compression);
            let size = blob.len() as u64;
            damage(&mut blob);
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&blob).unwrap();
            inputs.downloads = vec![Download::complete(file, size)];
            let error = run(&inputs).unwrap_err();
            let layer = inputs.resolved.layers[0].digest;
            assert_eq!(error.damaged_layer(), Some(&layer), "{what} of {compression:?}: {error}");
        }
        let mut honest = inputs(&Recipe::default(), &tars, compression);
        honest.resolved.layers[0].diff_id = sha(b"other");
        let error = run(&honest).unwrap_err();
        assert!(matches!(error, Error::DiffId { .. }), "{error}");
        let broken = inputs(&Recipe::default(), &[text(4, 3000)], compression);
        let error = run(&broken).unwrap_err();
        assert!(matches!(error, Error::Layer { .. }), "{error}");
    }
}

pub(crate) fn wait<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
}

/// As if a registry had resolved it.
pub(crate) fn registry(image: Image) -> Source {
    let client = siforge_oci::Client::new("127.0.0.1:5000", None, siforge_oci::Tls::default()).unwrap();
    Source::registry(
        client,
        Resolved {
            reference: "127.0.0.1:5000/lab/golden:v1".parse().unwrap(),
            manifest_digest: image.manifest_digest,
            manifests: Vec::new(),
            platform: image.platform,
            layers: image.layers,
            config_digest: sha(CONFIG),
            config: image.config,
        },
    )
}

/// A process may open some thousand files, and an image may have 512 layers.
#[test]
fn a_blob_to_come_takes_one_descriptor() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::at(dir.path()).unwrap();
    let cache = Cache { blobs: &blobs, reuse: Reuse::Own };
    let tars: Vec<Vec<u8>> = (0..40).map(|number| text(number, 40)).collect();
    let mut image = inputs(&Recipe::default(), &tars, Compression::None).resolved;
    image.layers.push(image.layers[3].clone());
    let cached = image.layers[7].digest;
    blobs.begin(&cached).unwrap().commit().unwrap();
    let fetch = wait(Fetch::prepare(&registry(image), cache, 4, &[])).unwrap();
    let open = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .filter(|path| path.starts_with(dir.path()))
        .count();
    assert_eq!(open, 40);
    // What is in the cache is told from a layer that the image has twice.
    assert_eq!(fetch.cached(), [cached]);
    let waiting = fetch.blobs().filter(|(_, _, download)| download.is_some());
    assert_eq!(waiting.count(), 40);
}

#[test]
fn a_damaged_record_of_a_recipe_is_no_obstacle() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::init(dir.path(), None).unwrap();
    let Inputs { resolved, recipe, recipe_key, progress, .. } = inputs(&Recipe::default(), &[], Compression::None);
    let record = store.layout().recipe(&recipe_key);
    std::fs::create_dir_all(record.parent().unwrap()).unwrap();
    std::fs::write(&record, "{").unwrap();
    let settings = Settings::for_processors(1);
    let source = registry(resolved);
    let build = crate::build(&store, &source, &recipe, &settings, progress);
    let error = wait(build).unwrap_err();
    // As far as it can come without a layer.
    assert!(matches!(error, Error::NoLayers { .. }), "{error}");
}

fn interrupted() -> siforge_oci::Error {
    siforge_oci::Error::Interrupted { operation: Operation::Tags { name: "host/x".to_owned() }, written: 0 }
}

/// The conversion waits for a blob; then there will be none.
#[test]
fn a_conversion_that_waits_for_a_blob_ends_with_it() {
    let tars = layers();
    for waits_for in 0..3 {
        let mut inputs = inputs(&Recipe::default(), &tars, Compression::Gzip);
        let never = Download::new(tempfile::tempfile().unwrap(), 1000);
        inputs.downloads[waits_for] = never.clone();
        let conversion = std::thread::spawn(move || run(&inputs));
        // It ends alike in either order; so it is most likely the one that waits.
        std::thread::sleep(Duration::from_millis(20));
        never.fail(interrupted());
        let error = conversion.join().unwrap().unwrap_err();
        assert!(matches!(error, Error::Oci(_)), "{error}");
    }
}
