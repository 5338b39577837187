//! What `exec` keeps of a source, when it is believed, and when nothing is kept at all.

use super::{digest, small};
use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use siforge_tests::registry::{Auth, Options};
use siforge_tests::{
    Compression, Finished, Image, Process, Registry, Siforge, Tar, User, free_port, fuse, need, overlay, run,
};

const SOON: Duration = Duration::from_secs(30);
const TELL: [&str; 3] = ["/bin/sh", "-c", "echo $TINY"];

/// A registry with the small image as `docker://…/image` and its SIF as `oras://…/sif`; both names.
fn registry(siforge: &Siforge) -> (Registry, [String; 2]) {
    let registry = Registry::plain();
    registry.push("image", &small());
    let sif = format!("oras://{}/sif:v1", registry.address());
    let layout = siforge.dir().join("layout");
    small().write_layout(&layout);
    siforge.run(&["pull", "--disable-cache", "small.sif", &format!("oci:{}", layout.display())]).ok();
    siforge.run(&["push", "--no-https", "small.sif", &sif]).ok();
    let image = registry.reference("image");
    (registry, [image, sif])
}

fn exec(siforge: &Siforge, options: &[&str], source: &str) -> Finished {
    siforge.run(&[&["exec", "--no-https"], options, &[source], &TELL].concat())
}

/// Files of the cache whose path contains `part`.
fn cached(siforge: &Siforge, part: &str) -> Vec<PathBuf> {
    let names = siforge.files().into_iter().filter(|name| name.starts_with("cache/") && name.contains(part));
    names.map(|name| siforge.dir().join(name)).collect()
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    // In place: the inode, the length and even the mtime stay.
    let times = fs::metadata(path).unwrap().modified().unwrap();
    let mut file = fs::File::options().write(true).open(path).unwrap();
    std::io::Write::write_all(&mut file, &bytes).unwrap();
    file.set_modified(times).unwrap();
}

#[test]
fn a_cached_sif_is_run_only_when_it_is_what_was_fetched() {
    for siforge in Siforge::both() {
        let (registry, sources) = registry(&siforge);
        for source in &sources {
            let started = cached(&siforge, ".sif");
            assert_eq!(exec(&siforge, &[], source).ok().stdout, "yes\n");
            let kept: Vec<PathBuf> =
                cached(&siforge, ".sif").into_iter().filter(|sif| !started.contains(sif)).collect();
            let [kept] = kept.as_slice() else { panic!("{source}: {kept:?}") };
            let want = format!("sha256:{}", kept.file_stem().unwrap().to_string_lossy());
            assert_eq!(digest(kept), want);
            let fetched = registry.requests("GET", "/blobs/");
            assert_eq!(exec(&siforge, &[], source).ok().stdout, "yes\n");
            assert_eq!(
                registry.requests("GET", "/blobs/"),
                fetched + usize::from(source.starts_with("docker")),
                "a hit"
            );
            flip(kept);
            assert_eq!(exec(&siforge, &[], source).ok().stdout, "yes\n");
            assert_eq!(digest(kept), want, "{source}: it was damaged");
        }
        // What the registry's manifest says counts, not what the cache has.
        let other = exec(&siforge, &["--sha256", &"0".repeat(64)], &sources[1]).fails_with(255);
        assert!(other.stderr.contains("but --sha256 wants"), "{other}");
        let image = exec(&siforge, &["--sha256", &"0".repeat(64)], &sources[0]).fails_with(255);
        assert!(image.stderr.contains("--sha256 is for SIFs of oras:// and https://"), "{image}");
        // Nor is it looked at for a file, so whoever relies on it is told.
        let file = siforge.out().join("small.sif").display().to_string();
        let file = exec(&siforge, &["--sha256", &"0".repeat(64)], &file).fails_with(255);
        assert!(file.stderr.contains("--sha256 is for SIFs of oras:// and https://"), "{file}");
        // Not among the blobs, which go while containers of other nodes run from them.
        let sif = digest(&siforge.out().join("small.sif"));
        assert!(!cached(&siforge, "blobs/").iter().any(|path| digest(path) == sif));
        assert!(cached(&siforge, "locks/").is_empty());
    }
}

#[test]
fn without_cache_nothing_is_kept_and_nothing_is_left() {
    for siforge in Siforge::both() {
        let (registry, sources) = registry(&siforge);
        let tmpdir = siforge.dir().join("scratch");
        fs::create_dir(&tmpdir).unwrap();
        siforge.give(&tmpdir);
        let before = siforge.files();
        for source in &sources {
            let options = ["--disable-cache", "--tmpdir", &tmpdir.display().to_string()];
            for _ in 0..2 {
                assert_eq!(exec(&siforge, &options, source).ok().stdout, "yes\n", "{source}");
            }
            let missing = source.replace("image", "none").replace("sif", "none");
            exec(&siforge, &options, &missing).fails_with(255);
            // Where an ordinary user has no FUSE, the root itself must lie somewhere: once for each image.
            let (roots, files): (Vec<_>, Vec<_>) =
                siforge.files().into_iter().partition(|name| name.starts_with("cache/unpacked/"));
            assert_eq!(files, before, "{source}");
            assert!(roots.is_empty() || siforge.uid() != 0, "{source}");
            assert_eq!(fs::read_dir(&tmpdir).unwrap().count(), 0, "{source}");
        }
        drop(registry);
        let roots = fs::read_dir(siforge.cache().join("unpacked")).map_or(0, Iterator::count);
        assert!(roots <= sources.len(), "{roots}");
    }
}

#[test]
fn what_has_no_name_is_served_over_fuse() {
    let device = tempfile::tempdir().unwrap();
    overlay::private_mounts();
    fuse::device(device.path(), 0o666);
    let siforge = Siforge::user(User::ordinary());
    let layout = siforge.dir().join("layout");
    small().write_layout(&layout);
    let before = siforge.files();
    let source = format!("oci:{}", layout.display());
    let ran = siforge.run(&[&["-v", "exec", "--disable-cache", &source], &TELL[..]].concat()).ok();
    assert!(ran.stdout == "yes\n" && ran.stderr.contains("served over FUSE"), "{ran}");
    assert_eq!(siforge.files(), before);
}

/// 8 MiB that do not compress.
fn noise(seed: u64) -> Vec<u8> {
    let mut state = seed;
    let word = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..1 << 20).flat_map(word).collect()
}

/// An image that takes a moment to make, and the digests of its layers.
fn large(registry: &Registry) -> (String, Vec<String>) {
    let layer = |seed| Tar::new().file(&format!("data{seed}"), 0o644, noise(seed)).finish();
    let image = (1..4).fold(small(), |image: Image, seed| image.layer(layer(seed), Compression::Gzip));
    registry.push("large", &image);
    let docker = registry.reference("large");
    let raw = run(Command::new("skopeo").args(["inspect", "--raw", "--tls-verify=false", &docker])).ok().stdout;
    let manifest: serde_json::Value = serde_json::from_str(&raw).unwrap();
    let layers = manifest["layers"].as_array().unwrap().iter();
    (docker, layers.map(|layer| layer["digest"].as_str().unwrap().to_owned()).collect())
}

#[test]
fn processes_that_want_one_image_at_once_do_the_work_once() {
    for kind in ["exec", "pull", "oras"] {
        for siforge in Siforge::both() {
            let (registry, [_, sif]) = registry(&siforge);
            let (source, layers) = match kind {
                "oras" => (sif, vec![digest(&siforge.out().join("small.sif"))]),
                _ => large(&registry),
            };
            let asked = |layer: &String| registry.requests("GET", &format!("/blobs/{layer}"));
            let before: Vec<usize> = layers.iter().map(asked).collect();
            let running: Vec<_> = (0..3)
                .map(|number| {
                    let mut command = siforge.command();
                    match kind {
                        "pull" => command.args(["pull", "--no-https", &format!("{number}.sif"), &source]),
                        _ => command.args(["exec", "--no-https", &source]).args(TELL),
                    };
                    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
                })
                .collect();
            for child in running {
                let ended = child.wait_with_output().unwrap();
                let (out, told) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
                assert!(ended.status.success() && out == if kind == "pull" { "" } else { "yes\n" }, "{kind}: {told}");
            }
            let once: Vec<usize> = before.iter().map(|count| count + 1).collect();
            registry.requests_once("GET", &format!("/blobs/{}", layers[0]), once[0]);
            assert_eq!(layers.iter().map(asked).collect::<Vec<_>>(), once, "{kind} as {}", siforge.who());
            for number in ["1.sif", "2.sif"].iter().filter(|_| kind == "pull") {
                assert_eq!(digest(&siforge.out().join(number)), digest(&siforge.out().join("0.sif")));
            }
            assert!(cached(&siforge, "locks/").is_empty(), "{kind}");
        }
    }
}

/// Serves a folder over TLS; what is asked for below `/away/` is elsewhere.
const TLS_SERVER: &str = r#"
import http.server, ssl, sys
port, key, certificate, away = sys.argv[1:]
class Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        if self.path.startswith("/away/"):
            self.send_response(302)
            self.send_header("Location", away + self.path[5:])
            self.end_headers()
        else:
            super().do_GET()
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(port)), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"#;

#[test]
fn a_sif_of_a_web_server_with_tls() {
    // For its authority and its certificate.
    let registry = Registry::start(Options { tls: true, auth: Auth::None });
    let authority = registry.ca_cert().unwrap();
    let keys = authority.parent().unwrap().parent().unwrap();
    let siforge = Siforge::root();
    let served = siforge.dir().join("served");
    small().write_layout(&siforge.dir().join("layout"));
    fs::create_dir(&served).unwrap();
    let sif = served.join("tool.sif").display().to_string();
    siforge.run(&["pull", &sif, &format!("oci:{}", siforge.dir().join("layout").display())]).ok();
    let listens = |port: u16| move || TcpStream::connect(("127.0.0.1", port)).is_ok();
    let (plain, secure) = (free_port(), free_port());
    let mut command = Command::new(need::program("python3"));
    command.args(["-m", "http.server", &plain.to_string(), "--bind", "127.0.0.1"]).current_dir(&served);
    let server = Process::spawn("plain", siforge.dir(), &command);
    server.wait_ready(SOON, "listens", listens(plain));
    let mut command = Command::new(need::program("python3"));
    command.args(["-c", TLS_SERVER, &secure.to_string()]).arg(keys.join("server.key")).arg(keys.join("server.crt"));
    let tls =
        Process::spawn("tls", siforge.dir(), command.arg(format!("http://127.0.0.1:{plain}")).current_dir(&served));
    tls.wait_ready(SOON, "listens", listens(secure));

    let authority = authority.display().to_string();
    let url = |path: &str| format!("https://127.0.0.1:{secure}/{path}");
    let want = digest(&served.join("tool.sif"));
    let trusted = ["--tls-ca-file", &authority];
    let ask = |words: &[&str], options: &[&str], path: &str| siforge.run(&[words, options, &[&url(path)]].concat());
    ask(&["pull", "--name", "got.sif"], &trusted, "tool.sif").ok();
    assert_eq!(digest(&siforge.out().join("got.sif")), want);
    let ran = siforge.run(&[&["exec"], &trusted[..], &[&url("tool.sif")], &TELL].concat()).ok();
    assert_eq!(ran.stdout, "yes\n");
    let stranger = ask(&["pull"], &[], "tool.sif").fails_with(255);
    assert!(stranger.stderr.contains("certificate signed by unknown authority"), "{stranger}");
    ask(&["pull"], &["--tls-insecure-skip-verify"], "tool.sif").ok();
    // Off TLS only with the digest, which says what must come.
    let hex = want.trim_start_matches("sha256:");
    let away = ask(&["pull", "--name", "away.sif"], &trusted, "away/tool.sif").fails_with(255);
    assert!(away.stderr.contains("https"), "{away}");
    assert!(!server.log().contains("GET"), "{}", server.log());
    ask(&["pull", "--name", "away.sif", "--sha256", hex], &trusted, "away/tool.sif").ok();
    assert_eq!(digest(&siforge.out().join("away.sif")), want);
}
