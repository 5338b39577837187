//! docker-archive

use super::super::docker_archive;
use super::*;
use crate::Compression;

/// Two layers, the upper one stored under another image's id, as Docker of old writes a layer that two images share.
fn base() -> Pieces {
    let config = config("amd64", &[b"lower", b"upper"]);
    let config_name = format!("{}.json", sha(&config).hex());
    let manifest = serde_json::json!([{
        "Config": config_name, "RepoTags": ["lab/cow:1"], "Layers": ["aa/layer.tar", "bb/layer.tar"],
    }]);
    let pieces: [(String, Vec<u8>); 6] = [
        (config_name, config),
        ("manifest.json".into(), manifest.to_string().into_bytes()),
        ("aa/layer.tar".into(), b"lower".to_vec()),
        ("bb/layer.tar".into(), b"->../cc/layer.tar".to_vec()),
        ("cc/layer.tar".into(), b"upper".to_vec()),
        ("aa/VERSION".into(), b"1.0".to_vec()),
    ];
    pieces.into()
}

fn open(pieces: &Pieces) -> Result<Image, Error> {
    open_file(docker_archive, &tar(pieces), None, AMD64)
}

fn replace(pieces: &mut Pieces, name: &str, from: &str, to: &str) {
    let text = String::from_utf8(pieces[name].clone()).unwrap();
    assert!(text.contains(from), "{text}");
    pieces.insert(name.into(), text.replace(from, to).into_bytes());
}

#[test]
fn every_form_of_docker_save_is_read() {
    let check = |what: &str, pieces: &Pieces, compression: [Compression; 2]| {
        let image = open(pieces).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(image.name.as_ref().map(|name| name.canonical()).as_deref(), Some("lab/cow"), "{what}");
        assert_eq!(image.manifest_digest, sha(&image.config), "{what}");
        assert_eq!(image.layers.iter().map(|layer| layer.compression).collect::<Vec<_>>(), compression, "{what}");
        let diff_ids: Vec<Digest> = image.layers.iter().map(|layer| layer.diff_id).collect();
        assert_eq!(diff_ids, [sha(b"lower"), sha(b"upper")], "{what}");
        contents(&image)
    };
    let plain = [Compression::None; 2];
    assert_eq!(check("folders of layers", &base(), plain), [b"lower", b"upper"]);
    let mut oci = base();
    let blob = |bytes: &[u8]| format!("blobs/sha256/{}", sha(bytes).hex());
    for (name, old) in [(blob(b"lower"), "aa/layer.tar"), (blob(b"upper"), "bb/layer.tar")] {
        replace(&mut oci, "manifest.json", old, &name);
    }
    oci.insert(blob(b"lower"), b"lower".to_vec());
    oci.insert(blob(b"upper"), b"upper".to_vec());
    assert_eq!(check("blobs", &oci, plain), [b"lower", b"upper"]);
    let mut packed = base();
    packed.insert("cc/layer.tar".into(), gzip(b"upper"));
    check("a gzip layer", &packed, [Compression::None, Compression::Gzip]);
    packed.insert("cc/layer.tar".into(), zstd::encode_all(&b"upper"[..], 1).unwrap());
    check("a zstd layer", &packed, [Compression::None, Compression::Zstd]);
    let dotted: Pieces = base().into_iter().map(|(name, bytes)| (format!("./{name}"), bytes)).collect();
    check("names as of tar -C dir .", &dotted, plain);
}

#[test]
fn an_archive_may_be_compressed() {
    let whole = tar(&base());
    for bytes in [gzip(&whole), zstd::encode_all(&whole[..], 1).unwrap()] {
        let image = open_file(docker_archive, &bytes, None, AMD64).unwrap();
        assert_eq!(contents(&image), [b"lower", b"upper"]);
        let cut = &bytes[..bytes.len() - 9];
        fails("cut", open_file(docker_archive, cut, None, AMD64), "damaged or truncated");
    }
    let bomb = gzip(&vec![0; 2 << 20]);
    fails("a bomb", open_file(docker_archive, &bomb, None, AMD64), "unpacked size is");
    fails("xz", open_file(docker_archive, b"\xfd7zXZ\0 and more", None, AMD64), "compressed with xz");
}

#[test]
fn images_are_chosen_by_name_place_and_id() {
    let mut two = base();
    replace(
        &mut two,
        "manifest.json",
        "}]",
        r#"},{"Config":"x.json","RepoTags":["docker.io/library/owl:latest"],"Layers":[]}]"#,
    );
    two.insert("x.json".into(), config("amd64", &[]));
    let bytes = tar(&two);
    let open = |selector: &Selector| open_file(docker_archive, &bytes, Some(selector), AMD64);
    let name = |name: &str| Selector::Name(name.into());
    let id = open(&name("lab/cow:1")).unwrap().manifest_digest;
    for same in [name("docker.io/lab/cow:1"), Selector::Index(0), Selector::Digest(id)] {
        assert_eq!(open(&same).unwrap().manifest_digest, id, "{same}");
    }
    for other in [name("owl"), Selector::Index(1)] {
        assert_ne!(open(&other).unwrap().manifest_digest, id, "{other}");
    }
    fails("of two", open_file(docker_archive, &bytes, None, AMD64), "choose one by its name");
    for missing in [name("lab/cow"), name("@"), Selector::Index(2), Selector::Digest(sha(b""))] {
        fails(&missing.to_string(), open(&missing), "there are: lab/cow:1, docker.io/library/owl:latest");
    }
}

#[test]
fn one_change_makes_an_archive_useless() {
    let check = |what: &str, change: &dyn Fn(&mut Pieces), expect: &str| {
        let mut pieces = base();
        change(&mut pieces);
        fails(what, open(&pieces), expect);
    };
    let config_name = base().into_keys().find(|name| name.ends_with(".json") && name != "manifest.json").unwrap();
    let remove = |name: &str| {
        let name = name.to_owned();
        move |pieces: &mut Pieces| drop(pieces.remove(&name))
    };
    check("no manifest", &remove("manifest.json"), "manifest.json is missing; archives of Docker before 1.10");
    check("no layer", &remove("cc/layer.tar"), "bb/layer.tar is missing");
    check("no config", &remove(&config_name), ".json is missing");
    let put = |name: &str, bytes: &str| {
        let (name, bytes) = (name.to_owned(), bytes.as_bytes().to_vec());
        move |pieces: &mut Pieces| drop(pieces.insert(name.clone(), bytes.clone()))
    };
    check("other config", &put(&config_name, "{}"), "has the digest sha256:44136fa3");
    check("no JSON", &put("manifest.json", "["), "manifest.json is not understood");
    check("no image", &put("manifest.json", "[]"), "there are: none");
    check("a link to itself", &put("cc/layer.tar", "->layer.tar"), "bb/layer.tar is missing");
    let change =
        |from: &'static str, to: &'static str| move |pieces: &mut Pieces| replace(pieces, "manifest.json", from, to);
    check("a layer too few", &change(r#","bb/layer.tar""#, ""), "1 layers, but 2 diff_ids");
    check("outside", &change("aa/layer.tar", "../../../etc/passwd"), "../../../etc/passwd is missing");
    check("controls", &change("aa/layer.tar", "a\\u001b[31m"), "a[31m is missing");
    fails("arm64", open_file(docker_archive, &tar(&base()), None, "linux/arm64"), "there are: linux/amd64");
}

#[test]
fn an_archive_may_be_cut_or_damaged_anywhere() {
    let whole = tar(&base());
    let end = whole.len() - 1024;
    for cut in 0..end - 512 {
        let error = open_file(docker_archive, &whole[..cut], None, AMD64).map(|_| cut).unwrap_err();
        // What a layer's end lacks is met when it is read; all else here.
        assert!(error.to_string().starts_with("docker-archive:/"), "{error}");
    }
    let at = |bytes: &[u8]| open_file(docker_archive, bytes, None, AMD64);
    for place in (0..end).step_by(512).filter(|place| whole[*place..][..512].windows(5).any(|text| text == b"ustar")) {
        let mut damaged = whole.clone();
        damaged[place + 3] ^= 1;
        fails(&format!("byte {place}"), at(&damaged), "checksum");
    }
    fails("no tar", at(&[b'x'; 2000]), "wrong checksum");
    fails("nothing", at(b""), "manifest.json is missing");
}
