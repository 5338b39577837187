//! The grammar, case by case. The image cases are those of `distribution/reference`'s own tests
//! (`normalize_test.go`, `reference_test.go`) where they apply.

use proptest::prelude::*;
use siforge_reference::{Context, Digest, ImageRef, Reference, StoreRef};
use std::path::Path;

const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn hex(text: &str) -> String {
    text.replace("HEX", HEX)
}

/// `HEX` stands for the digest of nothing.
#[track_caller]
fn image(text: &str, expect: &str) {
    let text = hex(text);
    let parsed: ImageRef = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
    assert_eq!(parsed.to_string(), hex(expect), "{text}");
    assert_eq!(parsed.to_string().parse(), Ok(parsed.clone()), "{text} is printed as {parsed}");
    assert_eq!(parsed.familiar().parse(), Ok(parsed.clone()), "{text} is shortened to {}", parsed.familiar());
}

#[track_caller]
fn no_image(text: &str, expect: &str) {
    let text = hex(text);
    match text.parse::<ImageRef>() {
        Ok(parsed) => panic!("{text:?} was read as {parsed}"),
        Err(error) => assert!(error.to_string().contains(&hex(expect)), "{text:?}: {error}"),
    }
}

#[test]
fn image_names_are_completed() {
    image("lolcow", "docker.io/library/lolcow:latest");
    image("lolcow:1.0", "docker.io/library/lolcow:1.0");
    image("godlovedc/lolcow", "docker.io/godlovedc/lolcow:latest");
    image("a/b/c", "docker.io/a/b/c:latest");
    image("docker.io/lolcow", "docker.io/library/lolcow:latest");
    image("docker.io/library/lolcow", "docker.io/library/lolcow:latest");
    image("docker.io/library/a/b", "docker.io/library/a/b:latest");
    image("index.docker.io/lolcow", "docker.io/library/lolcow:latest");
    image("localhost/x", "localhost/x:latest");
    image("localhost:5000/x", "localhost:5000/x:latest");
    image("localhost", "docker.io/library/localhost:latest");
    image("127.0.0.1:5000/tiny:latest", "127.0.0.1:5000/tiny:latest");
    image("[2001:db8::1]:5000/tiny", "[2001:db8::1]:5000/tiny:latest");
    image("[::1]/tiny", "[::1]/tiny:latest");
    image("quay.io/a/b:c", "quay.io/a/b:c");
    image("x--y.com/a", "x--y.com/a:latest");
    image("UPPER/lower", "UPPER/lower:latest");
    image("Registry.Example/a:T", "Registry.Example/a:T");
    image("test:5000/repo", "test:5000/repo:latest");
    image("foo:8080", "docker.io/library/foo:8080");
    image("a__b/c-----d/e.f_g", "docker.io/a__b/c-----d/e.f_g:latest");
}

#[test]
fn tag_and_digest() {
    image("x@sha256:HEX", "docker.io/library/x@sha256:HEX");
    image("x:t@sha256:HEX", "docker.io/library/x:t@sha256:HEX");
    image("host:5000/a/x:t@sha256:HEX", "host:5000/a/x:t@sha256:HEX");
    image(&format!("x:{}", "t".repeat(128)), &format!("docker.io/library/x:{}", "t".repeat(128)));
    image("x:_t.-", "docker.io/library/x:_t.-");
    no_image("x@sha256:abc", "invalid digest \"sha256:abc\"");
    no_image("x@", "invalid digest");
    no_image(&format!("x@sha256:{}", HEX.to_uppercase()), "64 lower-case hex digits");
    no_image("x@sha512:HEX", "only sha256 is supported");
    no_image("x@sha256:HEX:t", "invalid digest");
    no_image(&format!("x:{}", "t".repeat(129)), "invalid reference format");
    no_image("x:", "invalid reference format");
    no_image("x:-t", "invalid reference format");
    no_image("x:t:u", "invalid reference format");
    no_image("x:t/u", "invalid reference format");
}

#[test]
fn invalid_image_names() {
    const LOWERCASE: &str = "invalid reference format: repository name must be lowercase";
    no_image("", "empty");
    no_image("LolCow", LOWERCASE);
    no_image("library/LolCow:latest", LOWERCASE);
    no_image("docker.io/GodloveDC/lolcow", LOWERCASE);
    no_image("UPPER/Mixed", LOWERCASE);
    no_image("HEX", "cannot specify 64-byte hexadecimal strings");
    for text in [
        "/x",
        "x/",
        "a//b",
        "-x",
        "x-",
        "x_",
        ".x",
        "a..b",
        "a___b",
        "a.-b",
        "a/-b",
        "https://host/x",
        "a b",
        "x\n",
        "a\0",
        "-host.com/x",
        "host-.com/x",
        "ho_st.com/x",
        "host:/x",
        "host:port/x",
        "[::1/x",
        "[zz]/x",
        "[::1]x/y",
        "é",
        "x?y",
        "x#y",
        "../x",
        "host.com/../x",
        "host:5000/",
        "@sha256:HEX",
        ":t",
        "a@b/x",
        "user@host:80/x",
    ] {
        no_image(text, "invalid");
    }
    image(&"a".repeat(247), &format!("docker.io/library/{}:latest", "a".repeat(247)));
    no_image(&"a".repeat(248), "must not be more than 255 characters");
    no_image(&format!("host.com/{}", "a/".repeat(128) + "a"), "must not be more than 255 characters");
    no_image(&"a".repeat(1 << 20), "at most");
}

#[test]
fn names_for_people() {
    let check = |text: &str, canonical: &str, file: &str| {
        let image: ImageRef = hex(text).parse().expect(text);
        assert_eq!((image.canonical(), image.sif_file_name()), (canonical.to_owned(), hex(file)), "{text}");
    };
    check("lolcow", "lolcow", "lolcow_latest.sif");
    check("docker.io/godlovedc/lolcow:1", "godlovedc/lolcow", "lolcow_1.sif");
    check("docker.io/library/a/b", "library/a/b", "b_latest.sif");
    check("127.0.0.1:5000/tiny:latest", "127.0.0.1:5000/tiny", "tiny_latest.sif");
    check("127.0.0.1:5000/tiny@sha256:HEX", "127.0.0.1:5000/tiny", "tiny@sha256_HEX.sif");
    check("quay.io/library/x:t@sha256:HEX", "quay.io/library/x", "x_t@sha256_HEX.sif");

    let image: ImageRef = "x:t".parse().expect("valid");
    assert_eq!(image.selector(), "t");
    let digest: Digest = hex("sha256:HEX").parse().expect("valid");
    assert_eq!(image.with_digest(digest).familiar(), hex("x@sha256:HEX"));
    assert_eq!(image.with_digest(digest).selector(), hex("sha256:HEX"));
}

/// In a folder that holds `here`, `lab/here`, `tool.sif`, `oci:here` and `tiny:here`.
fn context() -> Context<'static> {
    const THERE: [&str; 6] = ["here", "lab/here", "tool.sif", "docker:here", "tiny:here", "UPPER"];
    Context { default_namespace: "lab", exists: &|path| THERE.iter().any(|there| Path::new(there) == path) }
}

#[track_caller]
fn reference(text: &str, expect: &str) {
    let text = hex(text);
    let parsed = Reference::parse(&text, &context()).unwrap_or_else(|error| panic!("{text}: {error}"));
    assert_eq!(format!("{parsed:?}").split(['(', ' ']).next(), expect.split(' ').next(), "{text}");
    assert_eq!(parsed.to_string(), hex(expect.split_once(' ').expect("kind and text").1), "{text}");
    // Printed in one folder and read in another it must mean the same.
    let elsewhere = Context { default_namespace: "other", exists: &|_| false };
    assert_eq!(Reference::parse(&parsed.to_string(), &elsewhere), Ok(parsed.clone()), "{text}");
}

#[track_caller]
fn no_reference(text: &str, expect: &str) {
    match Reference::parse(text, &context()) {
        Ok(parsed) => panic!("{text:?} was read as {parsed:?}"),
        Err(error) => assert!(error.to_string().contains(expect), "{text:?}: {error}"),
    }
}

#[test]
fn schemes() {
    reference("docker://lolcow", "Docker docker://docker.io/library/lolcow:latest");
    reference("docker://host:5000/x@sha256:HEX", "Docker docker://host:5000/x@sha256:HEX");
    reference("oras://ghcr.io/lab/x:1", "Oras oras://ghcr.io/lab/x:1");
    reference("sif://lab/lolcow", "Store sif://lab/lolcow");
    reference("sif://lab/lolcow@sha256:HEX", "Store sif://lab/lolcow@sha256:HEX");
    reference("oci:dir", "OciLayout oci:dir");
    reference("oci:/dir:name:1", "OciLayout oci:/dir:name:1");
    reference("oci:dir@sha256:HEX", "OciLayout oci:dir@sha256:HEX");
    reference("oci:dir@sha256:12", "OciLayout oci:dir@sha256:12");
    reference("oci-archive:a.tar", "OciArchive oci-archive:a.tar");
    reference("docker-archive:a.tar:@07", "DockerArchive docker-archive:a.tar:@7");
    reference("https://host/x.sif?a=b", "Http https://host/x.sif?a=b");
    reference("http://host", "Http http://host");
    reference("docker-archive:a.tar:x:1", "DockerArchive docker-archive:a.tar:x:1");
    reference("docker-daemon:x:1", "DockerDaemon docker-daemon:x:1");
    reference("docker-daemon://x:1", "DockerDaemon docker-daemon:x:1");

    no_reference("docker://LolCow", "invalid reference format: repository name must be lowercase");
    no_reference("docker://", "empty");
    no_reference("docker:lolcow", "two slashes");
    no_reference("sif://lolcow", "expected sif://namespace/name");
    no_reference("sif://Lab/lolcow", "invalid store reference");
    no_reference("sif://lab/../x", "invalid store reference");
    no_reference("sif://lab/a/b", "invalid store reference");
    no_reference("library://lolcow", "unsupported transport type: library");
    no_reference("shub://x/y", "unsupported transport type: shub");
    no_reference("https:host/x.sif", "two slashes");
    no_reference("https://", "expected https://host/path");
    no_reference("https://host/a b.sif", "white space");
    no_reference("ftp://host/x.sif", "unsupported transport type: ftp");
    no_reference("oci:", "needs a path");
    no_reference("oci:dir:", "needs a path");
    no_reference("docker-archive::x", "needs a path");
    no_reference("docker-archive:a.tar:@x", "needs a path");
    no_reference(&hex("oci:@sha256:HEX"), "needs a path");
    no_reference("docker-daemon:", "needs a path");
    no_reference("oci:a\0b", "control character");
}

#[test]
fn names_of_pulled_files() {
    let check = |text: &str, expect: &str| {
        let parsed = Reference::parse(&hex(text), &context()).expect("valid");
        assert_eq!(parsed.sif_file_name(), hex(expect), "{text}");
    };
    check("docker://lab/lolcow:3", "lolcow_3.sif");
    check("oras://ghcr.io/lab/x", "x_latest.sif");
    check("oci:/a/dir", "dir_latest.sif");
    check("oci:/a/dir:v1", "dir_v1.sif");
    check("oci:dir@sha256:HEX", "dir@sha256_HEX.sif");
    check("oci-archive:a.tar", "a.tar_latest.sif");
    check("docker-archive:b/a.tar:busybox:1", "a.tar_busybox.sif");
    check("docker-archive:a.tar:docker.io/library/busybox:1", "busybox_1.sif");
    check("docker-daemon:lab/x:1", "x_1.sif");
    check("https://host/a/x.sif?token=1", "x.sif");
    check("https://host/", "host");
    check("tool.sif", "tool.sif");
    check("sif://lab/cow", "cow.sif");
}

#[test]
fn names_without_a_scheme() {
    reference("lolcow", "Store sif://lab/lolcow");
    reference("lolcow@sha256:HEX", "Store sif://lab/lolcow@sha256:HEX");
    reference("other/lolcow", "Store sif://other/lolcow");
    reference("here", "Path ./here");
    reference("lab/here", "Path ./lab/here");
    reference("UPPER", "Path ./UPPER");
    reference("./lolcow", "Path ./lolcow");
    reference("../lolcow", "Path ../lolcow");
    reference("/a/b", "Path /a/b");
    reference(".", "Path .");
    reference("tool.sif", "Path ./tool.sif");
    reference("missing.sif", "Path ./missing.sif");
    reference("Missing v1.sif", "Path ./Missing v1.sif");
    reference("a/b/missing.sif", "Path ./a/b/missing.sif");
    reference("docker:here", "Path ./docker:here");
    reference("tiny:here", "Path ./tiny:here");

    no_reference("", "empty");
    no_reference("tiny:latest", "write docker://tiny:latest");
    no_reference("localhost:5000/tiny", "write docker://localhost:5000/tiny");
    no_reference("a/b/c", "write docker://a/b/c");
    no_reference("LolCow", "neither an existing path nor a store name");
    no_reference("lolcow@sha256:12", "invalid digest");
    no_reference("lol\ncow", "control character");
    no_reference("/a\0b", "control character");
    no_reference(&"a".repeat(5000), "at most");
}

#[test]
fn store_names_are_kubernetes_names() {
    let check = |text: &str, valid: bool| assert_eq!(text.parse::<StoreRef>().is_ok(), valid, "{text}");
    check("lab/a.b-c", true);
    check(&format!("{}/{}", "n".repeat(63), "m".repeat(253)), true);
    check(&format!("{}/m", "n".repeat(64)), false);
    check(&format!("n/{}", "m".repeat(254)), false);
    for text in ["lab.x/a", "lab/", "/a", "lab/a..b", "lab/.", "lab/..", "lab/-a", "lab/a_b", "lab/a:1", "lab"] {
        check(text, false);
    }
}

#[test]
fn digests() {
    let text = hex("sha256:HEX");
    let digest: Digest = text.parse().expect("valid");
    assert_eq!((digest.to_string(), format!("{digest:?}"), digest.hex()), (text.clone(), text.clone(), HEX.to_owned()));
    assert_eq!(Digest::from_bytes(*digest.bytes()), digest);
    assert_eq!(Digest::from_hex(HEX), Ok(digest));
    let json = serde_json::to_string(&digest).expect("to JSON");
    assert_eq!(json, format!("\"{text}\""));
    assert_eq!(serde_json::from_str::<Digest>(&json).expect("from JSON"), digest);
    // A string with an escape cannot be borrowed from the input.
    assert_eq!(serde_json::from_str::<Digest>(&json.replace("sha", "\\u0073ha")).expect("from JSON"), digest);
    for invalid in ["\"sha256:\"", "\"md5:00\"", "12", "\"\""] {
        assert!(serde_json::from_str::<Digest>(invalid).is_err(), "{invalid}");
    }
}

proptest! {
    // A failure is printed with its minimal input, which then becomes a case above.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_parses_prints_and_parses(text in r"(docker://|oras://|sif://|oci:|docker-daemon:)?[a-zA-Z0-9:/@._-]{0,40}") {
        let here = Context { default_namespace: "lab", exists: &|path| path.as_os_str().len() % 2 == 0 };
        let elsewhere = Context { default_namespace: "other", exists: &|_| false };
        if let Ok(parsed) = Reference::parse(&text, &here) {
            prop_assert_eq!(Reference::parse(&parsed.to_string(), &elsewhere), Ok(parsed));
        }
    }

    #[test]
    fn any_text_is_answered(text in r"\PC{0,80}") {
        let _ = Reference::parse(&text, &context());
        let _ = text.parse::<ImageRef>();
        let _ = text.parse::<Digest>();
    }

    #[test]
    fn valid_images_round_trip(
        registry in r"([a-z0-9]{1,8}\.[a-z]{2,3}(:[0-9]{1,5})?|localhost|docker\.io)",
        path in r"[a-z0-9]{1,8}((\.|_|__|-{1,3})[a-z0-9]{1,4}){0,2}(/[a-z0-9]{1,8}){0,3}",
        tag in proptest::option::of(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}"),
        digest in proptest::option::of(any::<[u8; 32]>()),
    ) {
        let mut text = format!("{registry}/{path}");
        if let Some(tag) = &tag {
            text += &format!(":{tag}");
        }
        if let Some(digest) = digest {
            text += &format!("@{}", Digest::from_bytes(digest));
        }
        let image: ImageRef = text.parse().expect("valid");
        prop_assert_eq!(&image.registry, &registry);
        prop_assert_eq!(image.digest, digest.map(Digest::from_bytes));
        prop_assert_eq!(image.to_string().parse::<ImageRef>(), Ok(image.clone()));
        prop_assert_eq!(image.familiar().parse::<ImageRef>(), Ok(image));
    }
}
