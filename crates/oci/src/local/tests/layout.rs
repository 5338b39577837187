//! oci: and oci-archive:

use super::super::{layout, layout_archive};
use super::*;
use serde_json::{Value, json};

/// A layout in the making: blobs, and the entries of its index.
#[derive(Clone, Default)]
struct Layout {
    pieces: Pieces,
    entries: Vec<Value>,
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

impl Layout {
    fn blob(&mut self, media_type: &str, bytes: &[u8]) -> Value {
        self.pieces.insert(format!("blobs/sha256/{}", sha(bytes).hex()), bytes.to_vec());
        json!({ "mediaType": media_type, "digest": sha(bytes), "size": bytes.len() })
    }

    /// The descriptor of an image for `architecture`, whose one layer is `layer`.
    fn image(&mut self, architecture: &str, layer: &[u8]) -> Value {
        let config = self.blob("application/vnd.oci.image.config.v1+json", &config(architecture, &[layer]));
        let layer = self.blob("application/vnd.oci.image.layer.v1.tar", layer);
        let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer] });
        let mut descriptor = self.blob(MANIFEST, manifest.to_string().as_bytes());
        descriptor["platform"] = json!({ "os": "linux", "architecture": architecture });
        descriptor
    }

    fn index(&mut self, entries: &[Value]) -> Value {
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": entries });
        self.blob(INDEX, index.to_string().as_bytes())
    }

    fn entry(&mut self, mut descriptor: Value, name: &str) {
        descriptor["annotations"] = json!({ "org.opencontainers.image.ref.name": name });
        self.entries.push(descriptor);
    }

    fn pieces(&self) -> Pieces {
        let mut pieces = self.pieces.clone();
        pieces.insert("oci-layout".into(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec());
        let index = json!({ "schemaVersion": 2, "manifests": self.entries });
        pieces.insert("index.json".into(), index.to_string().into_bytes());
        pieces
    }
}

/// As a folder and as an archive, which must say the same.
fn open(pieces: &Pieces, selector: Option<&Selector>, platform: &str) -> Result<Image, Error> {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in pieces {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    let wanted: Platform = platform.parse().unwrap();
    let options = Options { platform: &wanted, tmpdir: dir.path(), unpacked_bytes: 0 };
    let folder = layout(dir.path(), selector, &options);
    let archive = open_file(layout_archive, &tar(pieces), selector, platform);
    match (&folder, &archive) {
        (Ok(folder), Ok(archive)) => {
            assert_eq!(contents(folder), contents(archive));
            assert_eq!((&folder.name, folder.manifest_digest), (&archive.name, archive.manifest_digest));
        }
        (Err(folder), Err(archive)) => {
            let kind = |error: &Error| format!("{error:?}").split([' ', '{']).next().unwrap_or_default().to_owned();
            assert_eq!(kind(folder), kind(archive), "{folder} / {archive}");
        }
        (folder, archive) => panic!("{folder:?} / {archive:?}"),
    }
    archive
}

fn layer_of(pieces: &Pieces, selector: Option<&Selector>, platform: &str) -> String {
    let image = open(pieces, selector, platform).unwrap_or_else(|error| panic!("{selector:?} {platform}: {error}"));
    String::from_utf8(contents(&image).concat()).unwrap()
}

fn base() -> Layout {
    let mut layout = Layout::default();
    let image = layout.image("amd64", b"cow");
    layout.entry(image, "v1");
    layout
}

#[test]
fn names_digests_places_and_platforms_choose() {
    let mut layout = base();
    let name = |name: &str| Selector::Name(name.into());
    assert_eq!(layer_of(&layout.pieces(), None, AMD64), "cow");
    assert_eq!(open(&layout.pieces(), None, AMD64).unwrap().name, None);

    let (amd64, arm64) = (layout.image("amd64", b"owl"), layout.image("arm64", b"yak"));
    let inner = layout.index(&[amd64.clone(), arm64.clone()]);
    let outer = layout.index(&[inner]);
    layout.entry(outer, "docker.io/lab/owl:2");
    let pieces = layout.pieces();
    assert_eq!(layer_of(&pieces, Some(&name("v1")), AMD64), "cow");
    let owl = name("docker.io/lab/owl:2");
    assert_eq!(layer_of(&pieces, Some(&owl), AMD64), "owl");
    assert_eq!(layer_of(&pieces, Some(&owl), "linux/arm64"), "yak");
    assert_eq!(layer_of(&pieces, Some(&Selector::Index(1)), AMD64), "owl");
    assert_eq!(open(&pieces, Some(&owl), AMD64).unwrap().name.unwrap().canonical(), "lab/owl");
    let digest: Digest = serde_json::from_value(arm64["digest"].clone()).unwrap();
    assert_eq!(layer_of(&pieces, Some(&Selector::Digest(digest)), "linux/arm64"), "yak");
    fails("platform", open(&pieces, Some(&owl), "linux/riscv64"), "there are: linux/amd64, linux/arm64");
    fails("of a manifest", open(&pieces, Some(&name("v1")), "linux/arm64"), "there are: linux/amd64");
    fails("of several", open(&pieces, None, AMD64), "choose one by its name");
    fails("name", open(&pieces, Some(&name("v2")), AMD64), "there are: docker.io/lab/owl:2, v1");
    fails("place", open(&pieces, Some(&Selector::Index(9)), AMD64), "no such image");
    fails("digest", open(&pieces, Some(&Selector::Digest(sha(b""))), AMD64), "is missing");

    // Platforms side by side in index.json itself, and BuildKit's attestation beside them.
    let mut flat = Layout { entries: vec![amd64, arm64.clone()], ..layout };
    let mut attestation = arm64;
    attestation["platform"] = json!({ "os": "unknown", "architecture": "unknown" });
    flat.entries.push(attestation);
    assert_eq!(layer_of(&flat.pieces(), None, "linux/arm64"), "yak");
}

#[test]
fn one_change_makes_a_layout_useless() {
    let check = |what: &str, change: &dyn Fn(&mut Pieces), expect: &str| {
        let mut pieces = base().pieces();
        change(&mut pieces);
        fails(what, open(&pieces, None, AMD64), expect);
    };
    let layer = format!("blobs/sha256/{}", sha(b"cow").hex());
    let config = format!("blobs/sha256/{}", sha(&config("amd64", &[b"cow"])).hex());
    let put = |name: &str, bytes: &[u8]| {
        let (name, bytes) = (name.to_owned(), bytes.to_vec());
        move |pieces: &mut Pieces| drop(pieces.insert(name.clone(), bytes.clone()))
    };
    check("no marker", &|pieces| drop(pieces.remove("oci-layout")), "no OCI image layout");
    check("no index", &|pieces| drop(pieces.remove("index.json")), "no OCI image layout");
    check("version 2", &put("oci-layout", br#"{"imageLayoutVersion":"2.0.0"}"#), "version \"2.0.0\"");
    check("no JSON", &put("index.json", b"{"), "index.json is not understood");
    check("an empty index", &put("index.json", br#"{"manifests":[]}"#), "there are: none");
    check("no layer", &|pieces| drop(pieces.remove(&layer)), "is missing");
    check("a longer layer", &put(&layer, b"cows"), "has 4 bytes, want 3");
    check("no config", &|pieces| drop(pieces.remove(&config)), "is missing");
    let other = super::config("amd64", &[b"owl"]);
    check("another config", &put(&config, &other), "has the digest");
    let evil = br#"{"manifests":[{"digest":"sha256:../../../../etc/passwd","size":1}]}"#;
    check("a path for a digest", &put("index.json", evil), "index.json is not understood");

    let mut deep = base();
    let mut descriptor = deep.image("amd64", b"cow");
    for _ in 0..4 {
        descriptor = deep.index(&[descriptor]);
    }
    deep.entries = vec![descriptor];
    fails("deep", open(&deep.pieces(), None, AMD64), "depth of image indexes is 4");
}

#[test]
fn pieces_that_are_no_files() {
    let dir = tempfile::tempdir().unwrap();
    let wanted: Platform = AMD64.parse().unwrap();
    let options = Options { platform: &wanted, tmpdir: dir.path(), unpacked_bytes: 0 };
    fails("no such file", layout_archive(&dir.path().join("x"), None, &options), "open");
    fails("a folder", layout_archive(dir.path(), None, &options), "for a folder write oci:DIR");
    fails("a device", layout_archive(Path::new("/dev/zero"), None, &options), "not a regular file");
    fails("an empty folder", layout(dir.path(), None, &options), "no OCI image layout: ");
    std::fs::create_dir(dir.path().join("oci-layout")).unwrap();
    fails("a folder in it", layout(dir.path(), None, &options), "is a directory");
}
