use super::*;
use serde_json::{Value, json};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";

fn digest(byte: u8) -> Digest {
    Digest::from_bytes([byte; 32])
}

fn descriptor(media_type: &str, byte: u8) -> Value {
    json!({"mediaType": media_type, "digest": digest(byte).to_string(), "size": u64::from(byte)})
}

fn image_json() -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": IMAGE,
        "config": descriptor("application/vnd.oci.image.config.v1+json", 1),
        "layers": [
            descriptor("application/vnd.oci.image.layer.v1.tar+gzip", 2),
            descriptor("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", 3),
        ],
    })
}

fn parse_json(value: &Value, content_type: Option<&str>) -> Result<Manifest, Unusable> {
    parse(value.to_string().as_bytes(), content_type)
}

/// The valid manifest with one member set (`null` takes it away).
#[track_caller]
fn refused(pointer: &str, value: Value, content_type: Option<&str>, expect: &str) {
    let mut json = image_json();
    match (json.pointer_mut(pointer), value) {
        (Some(place), value) => *place = value,
        (None, value) => json[pointer.trim_start_matches('/')] = value,
    }
    let error = parse_json(&json, content_type).expect_err(expect);
    assert!(format!("{error:?}").contains(expect), "{pointer}: {error:?}");
}

#[test]
fn an_image() {
    let expect = Manifest::Image(Image {
        config: Descriptor {
            media_type: "application/vnd.oci.image.config.v1+json".to_owned(),
            digest: digest(1),
            size: 1,
            urls: vec![],
        },
        layers: [2, 3]
            .map(|byte| Blob { digest: digest(byte), size: byte.into(), compression: Compression::Gzip, urls: vec![] })
            .into(),
    });
    for content_type in [None, Some(IMAGE), Some("application/octet-stream")] {
        assert_eq!(parse_json(&image_json(), content_type).as_ref(), Ok(&expect), "{content_type:?}");
    }
}

#[test]
fn refused_manifests() {
    refused("/config/digest", json!("sha512:00"), None, "unsupported digest algorithm");
    refused("/config/digest", json!("sha256:00"), None, "invalid digest");
    refused("/config/size", json!(-1), None, "Malformed");
    refused("/config/mediaType", json!("application/vnd.cncf.helm.config.v1+json"), None, "not a container image");
    refused("/config/mediaType", json!("application/vnd.sylabs.sif.config.v1+json"), None, "oras://");
    refused("/layers/0/mediaType", json!("application/vnd.oci.image.layer.v1.tar+gzip+encrypted"), None, "encrypted");
    refused("/layers/0/mediaType", json!("application/x-odd"), None, r#"application/x-odd"#);
    refused("/layers", json!(null), None, "neither an index nor an image manifest");
    refused("/layers", json!(vec![descriptor("x", 1); 513]), None, "TooManyLayers(513)");
    refused("/schemaVersion", json!(1), None, "schema 1");
    refused("/schemaVersion", json!(3), None, "schemaVersion is not 2");
    refused("/schemaVersion", json!(null), None, "schemaVersion is not 2");
    let prettyjws = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    refused("/mediaType", json!(IMAGE), Some(prettyjws), "schema 1");
    refused("/manifests", json!([]), None, "CVE-2021-41190");
    refused("/mediaType", json!(IMAGE), Some(INDEX), "neither an index");
    assert!(matches!(parse(b"<html>", Some("text/html")), Err(Unusable::Malformed(_))));
    let schema_one = json!({"schemaVersion": 1, "name": "x", "fsLayers": [], "config": 7});
    assert!(matches!(parse_json(&schema_one, None), Err(Unusable::Unsupported(_))));
}

fn index(platforms: &[Option<&str>]) -> Vec<Entry> {
    let entry = |(at, platform): (usize, &Option<&str>)| Entry {
        descriptor: Descriptor { media_type: IMAGE.to_owned(), digest: digest(at as u8), size: 1, urls: vec![] },
        platform: platform.map(|text| text.parse().expect(text)),
    };
    platforms.iter().enumerate().map(entry).collect()
}

#[test]
fn an_index_is_parsed() {
    let mut entry = descriptor(IMAGE, 0);
    entry["size"] = json!(1);
    entry["platform"] = json!({"os": "linux", "architecture": "arm64", "variant": "v8", "os.version": "1"});
    let json = json!({"schemaVersion": 2, "manifests": [entry]});
    let expect = Manifest::Index(index(&[Some("linux/arm64/v8")]));
    assert_eq!(parse_json(&json, Some(&format!("{INDEX}; charset=utf-8"))), Ok(expect));
}

#[test]
fn choices() {
    let check = |platforms: &[Option<&str>], wanted: &str, expect: Result<usize, &[&str]>| {
        let entries = index(platforms);
        let wanted: Platform = wanted.parse().expect(wanted);
        let chosen = choose(&entries, &wanted).map(|entry| usize::from(entry.descriptor.digest.bytes()[0]));
        let expect = expect.map_err(|names| names.iter().map(|name| (*name).to_owned()).collect());
        assert_eq!(chosen, expect, "{wanted} of {platforms:?}");
    };
    let usual = [Some("linux/amd64"), Some("unknown/unknown"), Some("linux/arm/v7"), Some("linux/arm64/v8")];
    check(&usual, "linux/amd64", Ok(0));
    check(&usual, "linux/arm64", Ok(3));
    check(&usual, "linux/arm", Ok(2));
    check(&usual, "linux/s390x", Err(&["linux/amd64", "linux/arm/v7", "linux/arm64/v8"]));
    check(&[Some("linux/amd64/v3"), Some("linux/amd64")], "linux/amd64", Ok(1));
    check(&[Some("linux/amd64"), Some("linux/amd64")], "linux/amd64", Ok(0));
    check(&[None, Some("linux/amd64")], "linux/amd64", Ok(1));
    check(&[Some("linux/arm64"), None], "linux/amd64", Ok(1));
    check(&[], "linux/amd64", Err(&[]));
}

#[test]
fn configs() {
    let json = json!({
        "os": "linux", "architecture": "amd64", "config": {"Env": ["A=b"]},
        "rootfs": {"type": "layers", "diff_ids": [digest(1).to_string()]},
    });
    let expect = Config { platform: Platform::new("linux", "amd64", None), diff_ids: vec![digest(1)] };
    assert_eq!(config(json.to_string().as_bytes()), Ok(expect));
    for malformed in ["", "{}", "[]", r#"{"rootfs":{"diff_ids":["sha256:1"]}}"#] {
        assert!(config(malformed.as_bytes()).is_err(), "{malformed}");
    }
}
