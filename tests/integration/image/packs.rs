//! Layer packs: the next image of the same layers costs its new layers, and the same bytes come out.

use std::fs;
use std::path::PathBuf;

use siforge_tests::{Compression, Registry, Siforge, Tar};

use super::{digest, image, stack};

fn top(text: &str) -> Vec<u8> {
    Tar::new().file("srv/app.py", 0o644, text.repeat(1000)).finish()
}

/// Regular files of the user's packs.
fn packs(siforge: &Siforge) -> Vec<PathBuf> {
    let names = siforge.files().into_iter();
    let packs = names.filter(|name| name.starts_with("cache/packs/sha256/") && !name.contains(".of/"));
    packs.map(|name| siforge.dir().join(name)).collect()
}

/// A pull that knows nothing of what was pulled before.
fn alone(siforge: &Siforge, registry: &Registry, name: &str) -> String {
    let file = format!("{name}-alone.sif");
    siforge.run(&["pull", "--no-https", "--disable-cache", &file, &registry.reference(name)]).ok();
    digest(&siforge.out().join(file))
}

#[test]
fn a_changed_top_layer_fetches_and_converts_that_layer_alone() {
    let registry = Registry::plain();
    let base = stack::nasty();
    let of = |text| image(&[&base[..], &[top(text)]].concat(), &[Compression::Gzip]);
    registry.push("one", &of("one"));
    registry.push("two", &of("two"));
    let siforge = Siforge::root();
    siforge.pull(&registry, "one", "one.sif");
    let before = registry.requests_once("GET", "/blobs/", base.len() + 2);
    // Without the blobs nothing but packs can have served.
    fs::remove_dir_all(siforge.dir().join("cache/blobs")).unwrap();
    let two = digest(&siforge.pull(&registry, "two", "two.sif"));
    let fetched = registry.requests_once("GET", "/blobs/", before + 2) - before;
    assert_eq!(fetched, 2, "config and topmost layer\n{}", registry.log());
    assert_eq!(two, alone(&siforge, &registry, "two"));
}

/// Nobody believes a config: each blob is decoded once before it may use the pack of what it claims to be.
#[test]
fn blobs_of_one_layer_share_its_pack_once_each_was_decoded() {
    let registry = Registry::plain();
    let tars = [top("shared")];
    registry.push("gzip", &image(&tars, &[Compression::Gzip]));
    registry.push("zstd", &image(&tars, &[Compression::Zstd]));
    let siforge = Siforge::root();
    let mut before = 0;
    let mut requests = |name: &str, file: &str, expect: usize| {
        siforge.pull(&registry, name, file);
        let after = registry.requests_once("GET", "/blobs/", before + expect);
        assert_eq!(after - before, expect, "{file}\n{}", registry.log());
        before = after;
        let _ = fs::remove_dir_all(siforge.dir().join("cache/blobs"));
    };
    // A config and a layer; then the config alone.
    requests("gzip", "gzip.sif", 2);
    requests("zstd", "zstd.sif", 2);
    requests("zstd", "zstd-again.sif", 1);
    requests("gzip", "gzip-again.sif", 1);
    assert_eq!(packs(&siforge).len(), 1);
}

#[test]
fn a_damaged_pack_is_dropped_and_made_anew_in_the_same_pull() {
    let registry = Registry::plain();
    registry.push(
        "large",
        &image(&[Tar::new().file("noise", 0o644, stack::noise(5, 400_000)).finish()], &[Compression::Gzip]),
    );
    let siforge = Siforge::root();
    let want = digest(&siforge.pull(&registry, "large", "first.sif"));
    let [pack] = &packs(&siforge)[..] else { panic!("one pack") };
    let good = fs::read(pack).unwrap();
    for at in [100_000, good.len() - 200, good.len() - 1] {
        let mut bad = good.clone();
        bad[at] ^= 1;
        fs::write(pack, bad).unwrap();
        let file = format!("{at}.sif");
        assert_eq!(digest(&siforge.pull(&registry, "large", &file)), want, "byte {at}");
        assert_eq!(fs::read(pack).unwrap().len(), good.len(), "byte {at}: it is there again");
        assert_eq!(digest(&siforge.pull(&registry, "large", &format!("{at}-again.sif"))), want, "byte {at}");
    }
}

#[test]
fn the_cache_is_listed_and_cleaned() {
    let registry = Registry::plain();
    registry.push("small", &image(&[top("small")], &[Compression::Gzip]));
    let siforge = Siforge::root();
    siforge.pull(&registry, "small", "small.sif");
    let list = |options: &[&str]| siforge.run(&[&["cache", "list"], options].concat()).ok().stdout;
    assert!(list(&[]).contains("1 oci blob file(s)") && list(&[]).contains("1 layer pack(s)"), "{}", list(&[]));
    let json: serde_json::Value = serde_json::from_str(&list(&["--json", "-t", "pack"])).unwrap();
    let name = json[0]["name"].as_str().unwrap().to_owned();
    assert!(json.as_array().is_some_and(|all| all.len() == 1) && name.ends_with(".2"), "{json}");
    assert!(list(&["-a"]).contains(&name[..22]));

    siforge.run(&["cache", "gc", "--size=0"]).ok();
    assert_eq!(packs(&siforge).len(), 1, "it was used just now");
    let refused = siforge.run(&["cache", "clean"]).fails_with(255);
    assert!(refused.stderr.contains("was not confirmed"), "{refused}");
    let dry = siforge.run(&["cache", "clean", "--dry-run", "-T", "pack", "-N", &name[..8]]).ok();
    assert!(dry.stdout.contains("would remove pack"), "{dry}");
    assert_eq!(packs(&siforge).len(), 1);
    siforge.run(&["cache", "clean", "--force", "-T", "pack"]).ok();
    assert_eq!(packs(&siforge), Vec::<PathBuf>::new());
    siforge.run(&["cache", "clean", "--force", "-D", "4294967296"]).ok();
    assert!(list(&[]).contains("1 oci blob file(s)"), "{}", list(&[]));

    // As a cache on NFS would leave it, beside what the store may have there.
    let trash = siforge.dir().join("cache/trash");
    fs::create_dir_all(trash.join("cache")).unwrap();
    fs::write(trash.join("cache/gone-1"), [0; 2048]).unwrap();
    fs::write(trash.join("an artifact"), "damaged").unwrap();
    assert!(list(&[]).contains("1 file(s) using 2.00 KiB left the cache"), "{}", list(&[]));
    let freed = siforge.run(&["cache", "gc"]).ok().stdout;
    assert!(freed.contains("2.00 KiB of it are freed in 10 minutes"), "{freed}");
    siforge.run(&["cache", "clean", "--force"]).ok();
    assert!(trash.join("an artifact").exists() && !trash.join("cache/gone-1").exists());
    assert!(list(&[]).contains("Total space used: 0.00 B"), "{}", list(&[]));
}
