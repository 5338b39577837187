//! What cannot be pulled: each has a message of its own that names operation and value, and leaves nothing behind.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::time::Duration;

use siforge_tests::image::sha256;
use siforge_tests::registry::{Auth, Options};
use siforge_tests::run::run_within;
use siforge_tests::tar::Kind;
use siforge_tests::{Compression, Image, Listing, Registry, Siforge, Tar, overlay, push_index, run};

use super::{digest, image, mount, stack};

/// A registry that refuses is asked five times, with pauses.
const DEADLINE: Duration = Duration::from_secs(60);
const PASSWORD: &str = "hunter2-is-no-secret";

/// One way to fail: the words behind `siforge`, and what the message says.
struct Case {
    what: &'static str,
    words: Vec<String>,
    expect: Vec<String>,
}

fn case(what: &'static str, words: &[&str], expect: &[&str]) -> Case {
    let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    Case { what, words: owned(words), expect: owned(expect) }
}

/// Fails as told, prints one error and nothing else, leaves no file but verified blobs; gives the message.
fn check(siforge: &Siforge, case: &Case) -> String {
    let what = case.what;
    let visible = || -> Vec<String> {
        let verified = |name: &String| name.starts_with("cache/blobs/sha256/") && !name.contains("/.");
        siforge.files().into_iter().filter(|name| !verified(name)).collect()
    };
    let before = visible();
    let mut command = siforge.command();
    command.args(&case.words).env("APPTAINER_DOCKER_PASSWORD", PASSWORD);
    let ran = run_within(DEADLINE, &mut command).fails_with(255);
    let errors: Vec<&str> = ran.stderr.lines().filter(|line| line.starts_with("siforge: error: ")).collect();
    let [message] = errors[..] else {
        panic!("{what}: not one error: {ran}");
    };
    for part in &case.expect {
        assert!(message.contains(part.as_str()), "{what}: {part:?} is not in: {ran}");
    }
    assert_eq!(ran.stdout, "", "{what}");
    assert!(!ran.output().contains(PASSWORD) && !ran.output().contains("panicked"), "{what}: {ran}");
    assert_eq!(visible(), before, "{what}: files");
    message.to_owned()
}

/// Every case has a message that no other has.
fn check_all(siforge: &Siforge, cases: &[Case]) {
    let mut seen = BTreeMap::new();
    for case in cases {
        let message = check(siforge, case);
        if let Some(other) = seen.insert(message.clone(), case.what) {
            panic!("{} and {other} both say {message}", case.what);
        }
    }
}

fn small() -> Vec<u8> {
    Tar::new().file("a", 0o644, "a").finish()
}

/// What is wrong, the words, what the message says. Nothing of it is reached: port 1 has no server.
const TYPED: [(&str, &[&str], &[&str]); 15] = [
    ("upper case", &["pull", "x.sif", "docker://Lab/Cow"], &["must be lowercase", "Lab/Cow"]),
    ("no name", &["pull", "x.sif", "docker://"], &["invalid reference"]),
    ("a short digest", &["pull", "x.sif", "docker://a@sha256:12"], &["invalid digest", "sha256:12"]),
    ("white space", &["pull", "x.sif", "docker://a b"], &["invalid reference format", "\"a b\""]),
    ("another digest", &["pull", "x.sif", "docker://a@md5:12"], &["only sha256", "md5:12"]),
    ("another transport", &["pull", "x.sif", "library://a"], &["library", "unsupported transport"]),
    ("no reference", &["pull", "x.sif", "cow sif"], &["cow sif"]),
    ("a taken name", &["pull", "taken.sif", "docker://127.0.0.1:1/a"], &["taken.sif", "already exists", "--force"]),
    ("build to a taken name", &["build", "./taken.sif", "docker://127.0.0.1:1/b"], &["./taken.sif", "--force"]),
    ("a codec", &["pull", "--compression=lzo", "x.sif", "docker://127.0.0.1:1/a"], &["lzo", "zstd"]),
    ("a level", &["pull", "--compression=zstd:99", "x.sif", "docker://127.0.0.1:1/a"], &["zstd:99"]),
    ("a block size", &["pull", "--block-size=100", "x.sif", "docker://127.0.0.1:1/a"], &["100 KiB", "256"]),
    ("a platform", &["pull", "--platform=amd64", "x.sif", "docker://127.0.0.1:1/a"], &["\"amd64\"", "linux/arm64"]),
    (
        "no CA file",
        &["pull", "--tls-ca-file=none.pem", "x.sif", "docker://127.0.0.1:1/a"],
        &["none.pem", "No such file"],
    ),
    (
        "an empty CA file",
        &["pull", "--tls-ca-file=empty.pem", "x.sif", "docker://127.0.0.1:1/a"],
        &["CA bundle", "PEM"],
    ),
];

#[test]
fn what_is_typed_wrong_is_refused_with_a_hint() {
    let siforge = Siforge::root();
    fs::write(siforge.out().join("taken.sif"), "mine").unwrap();
    fs::write(siforge.out().join("empty.pem"), "").unwrap();
    check_all(&siforge, &TYPED.map(|(what, words, expect)| case(what, words, expect)));
    assert_eq!(fs::read(siforge.out().join("taken.sif")).unwrap(), b"mine");
}

#[test]
fn what_a_registry_lacks_is_said() {
    let siforge = Siforge::root();
    let plain = Registry::plain();
    let amd64 = image(&[small()], &[Compression::Gzip]);
    plain.push("lab/ok:v1", &amd64);
    let arm64 = amd64.clone().architecture("arm64");
    push_index(&plain, "lab/multi", &[amd64, arm64]);
    let at = |registry: &Registry, name: &str| registry.reference(name);
    let zeros = format!("{}@sha256:{}", at(&plain, "lab/ok"), "0".repeat(64));
    check_all(
        &siforge,
        &[
            case(
                "unknown repository",
                &["pull", "--no-https", "x.sif", &at(&plain, "lab/nowhere")],
                &["manifest unknown: repository name not known", "lab/nowhere"],
            ),
            case(
                "unknown tag",
                &["pull", "--no-https", "x.sif", &at(&plain, "lab/ok:v2")],
                &["reading manifest v2 in", "lab/ok: ", "no such tag", "there are: v1"],
            ),
            case(
                "unknown digest",
                &["pull", "--no-https", "x.sif", &zeros],
                &["manifest unknown", "lab/ok", "sha256:000000"],
            ),
            case(
                "unknown platform of one image",
                &["pull", "--no-https", "--arch=riscv64", "x.sif", &at(&plain, "lab/ok:v1")],
                &["no image for platform linux/riscv64", "linux/amd64"],
            ),
            case(
                "unknown platform of an index",
                &["pull", "--no-https", "--arch=riscv64", "x.sif", &at(&plain, "lab/multi")],
                &["no image for platform linux/riscv64", "linux/amd64, linux/arm64"],
            ),
            case(
                "no such folder",
                &["pull", "--no-https", "none/x.sif", &at(&plain, "lab/ok:v1")],
                &["none", "No such file or directory"],
            ),
        ],
    );
}

#[test]
fn why_a_registry_refuses_is_said() {
    let siforge = Siforge::root();
    let image = image(&[small()], &[Compression::Gzip]);
    let plain = Registry::plain();
    let locked = Registry::start(Options { tls: true, auth: Auth::Htpasswd });
    locked.push("lab/ok", &image);
    let ca = format!("--tls-ca-file={}", locked.ca_cert().unwrap().display());
    let mut down = Registry::plain();
    down.stop();
    let at = |registry: &Registry, name: &str| registry.reference(name);
    check_all(
        &siforge,
        &[
            case(
                "wrong credentials",
                &["pull", &ca, "--docker-username=ci", "x.sif", &at(&locked, "lab/ok")],
                &["authentication required", "ci", "lab/ok"],
            ),
            case(
                "no credentials",
                &["pull", &ca, "x.sif", &at(&locked, "lab/ok")],
                &["authentication required", "lab/ok", "no credentials for"],
            ),
            case(
                "a certificate of an unknown CA",
                &["pull", "x.sif", &at(&locked, "lab/ok")],
                &["certificate not accepted", &locked.address()],
            ),
            case(
                "no TLS there",
                &["pull", "x.sif", &at(&plain, "lab/ok:v1")],
                &["HTTP response to HTTPS client", &plain.address()],
            ),
            case(
                "a registry that is down",
                &["pull", "--no-https", "x.sif", &at(&down, "lab/ok")],
                &["onnection refused", &down.address()],
            ),
        ],
    );
}

#[test]
fn damaged_blobs_are_refused_with_their_digest() {
    let siforge = Siforge::root();
    let registry = Registry::plain();
    let push = |name: &str, layer: Vec<u8>, compression| {
        registry.push(name, &image(&[layer], &[compression]));
    };
    let noise = |seed| Tar::new().file("noise", 0o644, stack::noise(seed, 100_000)).finish();
    let path = |tar: &[u8]| registry.blob_path(&sha256(tar));
    let (cut, wrong) = (noise(1), noise(2));
    push("cut", cut.clone(), Compression::Plain);
    push("wrong", wrong.clone(), Compression::Plain);
    fs::write(path(&cut), &cut[..50_000]).unwrap();
    let mut bytes = wrong.clone();
    bytes[20_000] ^= 1;
    fs::write(path(&wrong), bytes).unwrap();
    push("no-tar", b"this is no tar".repeat(1000), Compression::Gzip);
    push("half", noise(3)[..60_000].to_vec(), Compression::Zstd);
    push("dangling", Tar::new().hard_link("a", "nowhere/b").finish(), Compression::Gzip);
    push("bomb", vec![0; 258 << 20], Compression::Gzip);
    let pull = |what, name: &str, expect: &[&str]| {
        case(what, &["pull", "--no-https", "x.sif", &registry.reference(name)], expect)
    };
    check_all(
        &siforge,
        &[
            pull("a truncated blob", "cut", &["error verifying size", &sha256(&cut), "50000"]),
            pull("a wrong blob", "wrong", &["error verifying sha256 checksum", &sha256(&wrong)]),
            pull("no tar", "no-tar", &["applying layer sha256:"]),
            pull("half a tar", "half", &["applying layer sha256:"]),
            pull("a link to nothing", "dangling", &["applying the layers", "nowhere/b"]),
            pull("a bomb", "bomb", &["250 times", "decompression bomb"]),
        ],
    );
}

/// Names that lead out of the tree end inside it, for the kernel's mount and for the copy of a user.
#[test]
fn no_name_leads_out_of_the_tree() {
    overlay::private_mounts();
    let outside = tempfile::tempdir().unwrap();
    siforge_tests::image::open_to_all(outside.path());
    let target = outside.path().display().to_string();
    let up = "../".repeat(20);
    let hostile = Tar::new()
        .dir("./", 0o755)
        .file(&format!("{up}{}/dots", &target[1..]), 0o644, "x")
        .file(&format!("{target}/absolute"), 0o644, "x")
        .symlink("absolute-link", &target)
        .file("absolute-link/through-absolute", 0o644, "x")
        .symlink("relative-link", &format!("{up}{}", &target[1..]))
        .file("relative-link/through-relative", 0o644, "x")
        .symlink("to-root", "/")
        .entry(Kind::HardLink, b"linked", 0o644, format!("{up}{}/dots", &target[1..]).as_bytes(), b"", (0, 0))
        .file("dir/../../../sideways", 0o644, "x");
    let top = Tar::new()
        .dir("./", 0o755)
        .file("to-root/etc/below-a-link", 0o644, "x")
        .whiteout(&format!("{up}absolute-link"));
    let registry = Registry::plain();
    registry.push("hostile", &image(&[hostile.finish(), top.finish()], &[Compression::Gzip]));
    for siforge in Siforge::both() {
        let sif = siforge.pull(&registry, "hostile", "hostile.sif");
        // There is nothing to run, but root mounts and the user unpacks.
        let ran = siforge.run(&["exec", "hostile.sif", "/bin/true"]).fails_with(255);
        assert!(!ran.output().contains("panicked"), "{ran}");
        let seen = Listing::of(&mount(&sif, siforge.dir()));
        let names = |suffix: &str| seen.0.keys().filter(|name| name.ends_with(suffix)).count();
        for name in
            ["/dots", "/absolute", "/through-absolute", "/through-relative", "sideways", "linked", "etc/below-a-link"]
        {
            assert_eq!(names(name), 1, "{}: {name}: {:?}", siforge.who(), seen.0.keys());
        }
        assert_eq!(names("/absolute-link"), 0, "whited out");
    }
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0, "written outside");
}

#[test]
fn a_full_disk_is_an_error_that_names_the_file() {
    overlay::private_mounts();
    let registry = Registry::plain();
    registry.push(
        "large",
        &Image::new().layer(Tar::new().file("noise", 0o644, stack::noise(5, 6 << 20)).finish(), Compression::Zstd),
    );
    for full in ["out", "cache"] {
        let siforge = Siforge::root();
        let dir = siforge.dir().join(full);
        run(Command::new("mount").args(["-t", "tmpfs", "-o", "size=2m,mode=0755", "tmpfs"]).arg(&dir)).ok();
        let case = case(
            "a full disk",
            &["pull", "--no-https", "out.sif", &registry.reference("large")],
            &["No space left on device"],
        );
        let message = check(&siforge, &case);
        let named = if full == "out" { "out.sif" } else { "sha256:" };
        assert!(message.contains(named), "{full}: {message}");
        run(Command::new("umount").arg(&dir)).ok();
        siforge.pull(&registry, "large", "out.sif");
        assert!(!digest(&siforge.out().join("out.sif")).is_empty());
    }
}
