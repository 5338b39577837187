//! When a second pass is needed, and what each pass is told.

use siforge_rootfs::{Error, Limits, Outcome, Visibility};

use crate::builder::layer;
use crate::image::{image, pass};

fn check(name: &str, layers: &[&str], restarts: bool) {
    let tars: Vec<Vec<u8>> = layers.iter().map(|words| layer(words)).collect();
    let image = image(&tars.iter().map(Vec::as_slice).collect::<Vec<_>>()).expect("valid");
    assert_eq!(image.restarted, restarts, "{name}: {}", image.text());
}

#[test]
fn a_second_pass_is_rare() {
    check("plain layers", &["f:a=1 f:b=2", "f:a=3 f:.wh.b", "f:c=4"], false);
    check("hidden wholly", &["f:a=1 h:b>a", "f:.wh.a f:.wh.b"], false);
    check("target below, visible", &["f:a=1", "h:b>a"], false);
    check("target below, hidden, but known to be wanted", &["f:a=1", "h:b>a", "f:.wh.a"], false);
    check("wanted by a hidden link only", &["f:a=1", "h:b>a", "f:.wh.a f:.wh.b"], false);
    check("the same path twice, hidden", &["f:a=1 f:a=2", "f:.wh.a"], false);
    check("directory over directory", &["d:a f:a/x=1 d:a"], false);
}

#[test]
fn a_second_pass_is_needed() {
    check("the same path twice", &["f:a=1 f:a=2"], true);
    check("file over its directory", &["f:a/x=1 f:a=2"], true);
    check("hidden, and a later link of its layer shows it", &["f:a=1 h:b>a", "f:.wh.a"], true);
    check("wanted through its layer's symlink", &["s:e>d f:e/a=1", "h:b>d/a", "f:.wh.d"], true);
}

#[test]
fn the_map_tells_what_is_visible() {
    let tars = [layer("f:a=1 f:b=2 h:c>a"), layer("f:.wh.a f:d=3 f:d=4")];
    let layers: Vec<&[u8]> = tars.iter().map(Vec::as_slice).collect();
    let limits = Limits::default();
    let emitted = |layers: &[Vec<(bool, Vec<u8>)>]| -> Vec<Vec<bool>> {
        layers.iter().map(|layer| layer.iter().map(|file| file.0).collect()).collect()
    };
    let (first, contents) = pass(&[], &layers, &limits, Visibility::default()).expect("valid");
    assert_eq!(emitted(&contents.layers), [[true, true], [false, true]]);
    let Outcome::Restart(map) = first else {
        panic!("no restart");
    };
    let (second, contents) = pass(&[], &layers, &limits, map.clone()).expect("valid");
    assert!(matches!(second, Outcome::Done { .. }));
    assert_eq!(emitted(&contents.layers), [[false, true], [true, true]]);

    let other = [layer("f:a=1 f:b=2 h:c>a"), layer("f:d=3 f:x=4")];
    let other: Vec<&[u8]> = other.iter().map(Vec::as_slice).collect();
    let error = pass(&[], &other, &limits, map).map(|_| ()).expect_err("other layers");
    assert!(matches!(error, Error::Changed), "{error}");
}
