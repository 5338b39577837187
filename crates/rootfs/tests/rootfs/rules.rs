//! The rules of layers, a row each.

use crate::builder::layer;
use crate::image::image;

/// Layers bottom first; the result as `Image::text` writes it, or an error's text.
fn check(name: &str, layers: &[&str], expect: &str) {
    let tars: Vec<Vec<u8>> = layers.iter().map(|words| layer(words)).collect();
    let tars: Vec<&[u8]> = tars.iter().map(Vec::as_slice).collect();
    let got = match image(&tars) {
        Ok(image) => image.text(),
        Err(error) => format!("error: {error}"),
    };
    assert_eq!(got, expect, "{name}: {layers:?}");
}

#[test]
fn whiteouts() {
    check("nothing", &[], "");
    check("whiteout hides a lower file", &["f:a=1 f:b=2", "f:.wh.a"], "b=2");
    check("… and a lower directory with all below", &["f:a/b/c=1 f:d=1", "f:.wh.a"], "d=1");
    check("… not what its own layer has", &["f:a=1", "f:a=2 f:.wh.a"], "a=2");
    check("… wherever in the tar it stands", &["f:a=1", "f:.wh.a f:a=2"], "a=2");
    check("… so a directory of its layer is empty below", &["f:a/x=1", "f:a/y=2 f:.wh.a"], "a/ a/y=2");
    check("… nor what a higher layer has", &["f:a=1", "f:.wh.a", "f:a=3"], "a=3");
    check("… and a higher directory starts anew", &["f:a/x=1", "f:.wh.a", "f:a/y=3"], "a/ a/y=3");
    check("… of a directory only below it", &["f:a/x=1 f:a/y=1", "f:a/.wh.x"], "a/ a/y=1");
    check("… of nothing", &["f:a=1", "f:.wh.b"], "a=1");
    check("… as a directory entry", &["f:a=1", "d:.wh.a/"], "");
    check("… through a symlink of its layer", &["f:a/x=1", "s:b>a f:b/.wh.x"], "a/ b>a");
    check("… whose directory becomes a file, and again one", &["f:a/x=1", "f:a/.wh.x f:a d:a"], "a/ a/x=1");
}

#[test]
fn opaque_markers_and_aufs() {
    check(
        "opaque hides what is lower in the directory",
        &["f:a/x=1 f:a/d/y=1", "f:a/.wh..wh..opq f:a/z=2"],
        "a/ a/z=2",
    );
    check("… wherever in the tar it stands", &["f:a/x=1", "f:a/z=2 f:a/.wh..wh..opq"], "a/ a/z=2");
    check("… the directory's own metadata stays", &["d:a:700 f:a/x=1", "f:a/.wh..wh..opq"], "a/:700");
    check("… for all layers below", &["f:a/x=1", "f:a/y=2", "f:a/.wh..wh..opq", "f:a/z=4"], "a/ a/z=4");
    check("… the root's too", &["f:a=1", "f:.wh..wh..opq f:b=2"], "b=2");
    check(
        "AUFS metadata is no file",
        &["f:.wh..wh.aufs=x d:.wh..wh.plnk f:.wh..wh.plnk/1.2=y f:a/.wh..wh.orph/.wh..wh..opq f:b=1"],
        "b=1",
    );
    check("a name that only begins like one", &["f:.whx=1 f:a.wh.b=2"], ".whx=1 a.wh.b=2");
    for bad in [".wh.", ".wh..", ".wh...", "a/.wh..."] {
        check("whiteout without a name", &[&format!("f:{bad}")], &format!("error: whiteout {bad} names no file"));
    }
}

#[test]
fn layers_over_layers() {
    check("directories unite", &["f:a/x=1", "f:a/y=2"], "a/ a/x=1 a/y=2");
    check("upper file wins", &["f:a=1", "f:a=2"], "a=2");
    check("file over directory", &["f:a/x=1", "f:a=2"], "a=2");
    check("directory over file", &["f:a=1", "d:a f:a/x=2"], "a/ a/x=2");
    check("… hides what is below the file", &["f:a/x=1", "f:a=2", "d:a"], "a/");
    check("implied directory over file", &["f:a=1", "f:a/x=2"], "a/ a/x=2");
    check("symlink over directory", &["f:a/x=1", "s:a>b"], "a>b");
    check("upper directory's metadata", &["d:a:700", "d:a:711"], "a/:711");
    check("implied parents take the lower directory's", &["d:a:700", "f:a/x=1"], "a/:700 a/x=1");
    check("… of the next layer that has an entry", &["d:a:700", "f:a/y=1", "f:a/x=1"], "a/:700 a/x=1 a/y=1");
    check("… not of one behind a whiteout", &["d:a:700", "f:.wh.a", "f:a/x=1"], "a/ a/x=1");
    check("… not of one behind a file", &["d:a:700", "f:a", "f:a/x=1"], "a/ a/x=1");
    check("devices and fifos", &["c:dev/null p:f", "f:dev/x=1"], "dev/ dev/null! dev/x=1 f|");
}

#[test]
fn the_same_path_twice() {
    check("last file", &["f:a=1 f:a=2"], "a=2");
    check("file over directory", &["f:a/x=1 f:a=2"], "a=2");
    check("directory over file", &["f:a=1 d:a"], "a/");
    check("directory over directory", &["d:a:700 f:a/x=1 d:a:711"], "a/:711 a/x=1");
    check("directory over symlink", &["d:b s:a>b d:a f:a/x=1"], "a/ a/x=1 b/");
    check("symlink over directory", &["f:a/x=1 s:a>b f:a/y=2"], "a>b b/ b/y=2");
    check("removed below, made again", &["f:a/x=1 f:a d:a f:a/y=2"], "a/ a/y=2");
    check("within its layer only", &["f:a/x=1", "f:a=2 d:a f:a/y=3"], "a/ a/x=1 a/y=3");
    check("hard link over its own target", &["f:a=1 h:a>a"], "a=1");
    check("hard link over its target's directory", &["f:a/x=1 h:a>a/x"], "a=1");
}

#[test]
fn symlinked_parents() {
    check("in the layer", &["d:usr/lib s:lib>usr/lib f:lib/x=1"], "lib>usr/lib usr/ usr/lib/ usr/lib/x=1");
    check("absolute", &["s:lib>/usr/lib f:lib/x=1"], "lib>/usr/lib usr/ usr/lib/ usr/lib/x=1");
    check("dangling", &["s:a>b/c f:a/x=1"], "a>b/c b/ b/c/ b/c/x=1");
    check("relative to its own directory", &["s:d/a>../b f:d/a/x=1"], "b/ b/x=1 d/ d/a>../b");
    check("above the root", &["s:a>../../../etc f:a/x=1"], "a>../../../etc etc/ etc/x=1");
    check("… from within", &["s:d/a>../../../etc f:d/a/x=1"], "d/ d/a>../../../etc etc/ etc/x=1");
    check("to the root", &["s:a>/ f:a/x=1"], "a>/ x=1");
    check("through another", &["s:a>b s:b>c f:a/x=1"], "a>b b>c c/ c/x=1");
    check("loop", &["s:a>b s:b>a f:a/x=1"], "error: a/x: too many levels of symbolic links");
    check("to itself", &["s:a>a f:a/x=1"], "error: a/x: too many levels of symbolic links");
    check("to a file", &["f:b=1 s:a>b f:a/x=1"], "error: a/x: a parent of it, b, is not a directory in its own layer");
    check("file as parent", &["f:a=1 f:a/x=1"], "error: a/x: a parent of it, a, is not a directory in its own layer");
    check(
        "of a lower layer: replaced",
        &["f:usr/lib/y=1 s:lib>usr/lib", "f:lib/x=1"],
        "lib/ lib/x=1 usr/ usr/lib/ usr/lib/y=1",
    );
    check("of an upper layer: hides", &["f:lib/x=1", "s:lib>usr/lib"], "lib>usr/lib");
    check("last component is not followed", &["f:b=1 s:a>b f:a=2"], "a=2 b=1");
}

#[test]
fn names_stay_in_the_tree() {
    check("dots", &["f:./a=1 f:b/./c=2 f:b//d=3"], "a=1 b/ b/c=2 b/d=3");
    check("absolute", &["f:/etc/x=1 d:/"], "etc/ etc/x=1");
    check("above the root", &["f:../../x=1 f:a/../../y=2"], "x=1 y=2");
    check("up and down", &["f:a/b/../c=1"], "a/ a/c=1");
    check("the root", &["d:./ d:. d:a/.. d:/"], "");
    check("the root as a file", &["f:./=1"], "error: the root directory's entry (./) is a file, not a directory");
    check("the root as a symlink", &["s:.>x"], "error: the root directory's entry (.) is a symlink, not a directory");
    check(
        "the root as a hard link",
        &["f:a=1 h:.>a"],
        "error: the root directory's entry (.) is a hard link, not a directory",
    );
    check("trailing slash", &["f:a/=1 d:b/"], "a=1 b/");
    check("ends with dots", &["d:a/b/."], "a/ a/b/");
    check("ends with dots up", &["f:a/c/..=1"], "a=1");
}

#[test]
fn hard_links() {
    check("in the layer", &["f:a=1 h:b>a"], "a=1 b~a");
    check("to a link", &["f:a=1 h:b>a h:c>b"], "a=1 b~a c~a");
    check("absolute and dotted target", &["f:d/a=1 h:b>/d/./a h:c>../d/a"], "b=1 c~b d/ d/a~b");
    check("to a symlink", &["s:a>x h:b>a"], "a>x b~a");
    check("to a device and a fifo", &["c:a h:b>a p:c h:d>c"], "a! b~a c| d~c");
    check("through a symlinked parent", &["f:d/a=1 s:e>d h:b>e/a"], "b=1 d/ d/a~b e>d");
    check("target replaced later", &["f:a=1 h:b>a f:a=2"], "a=2 b=1");
    check("target hidden by an upper layer", &["f:a=1 h:b>a", "f:.wh.a"], "b=1");
    check("link hidden by an upper layer", &["f:a=1 h:b>a", "f:.wh.b"], "a=1");
    check("both hidden", &["f:a=1 h:b>a", "f:.wh.b f:.wh.a"], "");
    check("to a directory", &["d:a h:b>a"], "error: hard link b to directory a");
    check("to the root", &["h:b>/"], "error: hard link b to directory /");
    check("to nothing", &["h:b>x/a"], "error: hard link b: its target x/a is neither in its layer nor in those below");
    check(
        "to what is below a file",
        &["f:a=1 h:b>a/x"],
        "error: hard link b: its target a/x is neither in its layer nor in those below",
    );
    check("link's parents are implied", &["f:a=1 h:d/e/b>a"], "a=1 d/ d/e/ d/e/b~a");
}

#[test]
fn hard_links_to_lower_layers() {
    check("to the layer below", &["f:a=1", "h:b>a"], "a=1 b~a");
    check("… further down", &["f:a=1", "f:x=2", "h:b>a"], "a=1 b~a x=2");
    check("… the nearest", &["f:a=1", "f:a=2", "h:b>a"], "a=2 b~a");
    check("two to one", &["f:a=1", "h:b>a h:c>a"], "a=1 b~a c~a");
    check("link to the link", &["f:a=1", "h:b>a h:c>b"], "a=1 b~a c~a");
    check("target hidden above the link", &["f:a=1", "h:b>a", "f:.wh.a"], "b=1");
    check("target replaced above the link", &["f:a=1", "h:b>a", "f:a=3"], "a=3 b=1");
    check("target hidden by the link's own layer", &["f:a=1", "h:b>a f:.wh.a"], "b=1");
    check("… replaced there, later", &["f:a=1", "h:b>a f:a=2"], "a=2 b=1");
    check("link hidden", &["f:a=1", "h:b>a", "f:.wh.b"], "a=1");
    check("link and target hidden", &["f:a=1", "h:b>a", "f:.wh.b f:.wh.a"], "");
}

#[test]
fn hidden_between_the_link_and_its_target() {
    let unresolved = "error: hard link b: its target a is neither in its layer nor in those below";
    check("whiteout between", &["f:a=1", "f:.wh.a", "h:b>a"], unresolved);
    check(
        "… of the directory",
        &["f:d/a=1", "f:.wh.d", "h:b>d/a"],
        "error: hard link b: its target d/a is neither in its layer nor in those below",
    );
    check("… whiteout and a new one", &["f:a=1", "f:.wh.a f:a=2", "h:b>a"], "a=2 b~a");
    check(
        "opaque between",
        &["f:d/a=1", "f:d/.wh..wh..opq", "h:b>d/a"],
        "error: hard link b: its target d/a is neither in its layer nor in those below",
    );
    check(
        "file as parent between",
        &["f:d/a=1", "f:d=1", "h:b>d/a"],
        "error: hard link b: its target d/a is neither in its layer nor in those below",
    );
    check(
        "symlinked parent in a lower layer",
        &["f:e/a=1 s:d>e", "h:b>d/a"],
        "error: hard link b: its target d/a is neither in its layer nor in those below",
    );
    check("through a symlink of the link's layer", &["f:d/a=1", "s:e>d h:b>e/a"], "b=1 d/ d/a~b e>d");
}

#[test]
fn hard_links_to_other_than_files() {
    let unresolved = "error: hard link b: its target a is neither in its layer nor in those below";
    check("to a lower directory", &["d:a", "h:b>a"], "error: hard link b to directory a");
    check("nowhere", &["f:c=1", "h:b>a"], unresolved);
    check("nowhere, though the link is hidden", &["f:c=1", "h:b>a", "f:.wh.b"], unresolved);
    check("chain", &["f:a=1", "h:b>a", "h:c>b"], "a=1 b~a c~a");
    check("chain, all but the top hidden", &["f:a=1", "h:b>a", "h:c>b", "f:.wh.a f:.wh.b"], "c=1");
    check("to its own path below", &["f:a=1", "h:a>a"], "a=1");
    check("to a lower symlink", &["s:a>x", "h:b>a"], "a>x b~a");
    check("to a lower device", &["c:a", "h:b>a", "f:.wh.a"], "b!");
    check("to a lower link's inode", &["f:a=1 h:x>a", "h:b>x", "f:.wh.x"], "a=1 b~a");
}

/// The result is umoci's unpacking of these layers.
#[test]
fn as_umoci_unpacks() {
    check(
        "links across three layers",
        &[
            "f:a=1 d:d f:d/x=x f:d/y=y s:lnk>d f:gone=g d:o f:o/1=1 h:a2>a",
            "h:b>a h:c>d/x h:sl>lnk f:.wh.gone d:o f:o/.wh..wh..opq f:o/2=2 f:d/.wh.x",
            "f:a=3 h:e>b f:.wh.a2",
        ],
        "a=3 b=1 c=x d/ d/y=y e~b lnk>d o/ o/2=2 sl~lnk",
    );
}
