//! A definition file with next to nothing to do over a large base: what a build costs besides its scripts.

use std::fs;
use std::path::Path;

use super::measure::Measured;
use super::report::{Bar, Report};
use super::{Bench, Who};
use crate::Registry;
use crate::binaries::binary;
use crate::user::User;

/// Measures builds over the registry's `python`, with nothing in a cache and with the base in it, against Apptainer's.
pub fn definition(bench: &Bench, report: &mut Report, registry: &Registry) {
    let (there, here) = bench.peer_dir("definition");
    let base = registry.reference("python:latest");
    let text = format!(
        "Bootstrap: docker\nFrom: {}\n%post\n    echo made > /made\n",
        base.strip_prefix("docker://").unwrap_or(&base)
    );
    let siforge = binary("siforge").display().to_string();
    let prepare = |dir: &Path| {
        let _ = fs::remove_dir_all(dir);
        fs::create_dir_all(dir).unwrap_or_else(|e| panic!("create {}: {e}", dir.display()));
        fs::write(dir.join("x.def"), &text).unwrap_or_else(|e| panic!("write a definition: {e}"));
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        fs::set_permissions(dir, mode).unwrap_or_else(|e| panic!("chmod {}: {e}", dir.display()));
    };
    let theirs = || {
        prepare(&here);
        let env = [("APPTAINER_CACHEDIR", there.as_str()), ("APPTAINER_TMPDIR", there.as_str())];
        let (out, definition) = (format!("{there}/o.sif"), format!("{there}/x.def"));
        bench.measure(Who::PeerUser, 1, 1, &env, &["apptainer", "-q", "build", "--no-https", &out, &definition])
    };
    // A user's files may not lie where root's do.
    let ours = |who: Who, dir: &Path, cold: bool| {
        if cold || !dir.exists() {
            prepare(dir);
        }
        let dir = dir.display().to_string();
        let (cache, out, definition) = (format!("{dir}/cache"), format!("{dir}/o.sif"), format!("{dir}/x.def"));
        let env = [("SIFORGE_CACHEDIR", cache.as_str()), ("TMPDIR", dir.as_str())];
        let words = [siforge.as_str(), "-q", "build", "--force", "--no-https", &out, &definition];
        bench.measure(who, 1, 1, &env, &words)
    };
    let (root, user) = (bench.dir.join("definition"), User::ordinary().tempdir());
    let user_dir = user.path().join("build");
    let [theirs, cold, warm, of_user] = <[Measured; 4]>::try_from(bench.best(vec![
        Box::new(theirs),
        Box::new(|| ours(Who::Root, &root, true)),
        Box::new(|| ours(Who::Root, &root, false)),
        Box::new(|| {
            // Once for the cache.
            if !user_dir.exists() {
                ours(Who::User, &user_dir, true);
            }
            ours(Who::User, &user_dir, false)
        }),
    ]))
    .unwrap_or_default();
    report.add("apptainer build of a definition over python", &theirs);
    report.add("siforge build of a definition over python, cold", &cold);
    report.add("siforge build of a definition over python, base in the cache", &warm);
    report.add("the same by an ordinary user", &of_user);
    let against = |what: &str, ours: &Measured, limit| {
        Bar::at_most(
            &format!("definition over python, {what}: CPU against Apptainer"),
            ours.cpu_ms / theirs.cpu_ms,
            limit,
            true,
        )
    };
    report.bar(against("cold", &cold, 1.0 / 10.0));
    report.bar(against("base in the cache", &warm, 1.0 / 50.0));
    report.bar(against("base in the cache, by a user", &of_user, 1.0 / 50.0));
    for dir in [&here, &root] {
        let _ = fs::remove_dir_all(dir);
    }
}
