//! What the harness takes from the environment.

use std::env;
use std::path::PathBuf;

/// Folder that outlives a run: Kubernetes' binaries, image layouts. `$XDG_CACHE_HOME/siforge-test` or `~/.cache/siforge-test`.
pub fn cache_dir() -> PathBuf {
    user_cache().join("siforge-test")
}

/// Where the Debian tree with Apptainer is: `SIFORGE_PEERS`, else `~/.cache/siforge-peers`.
pub fn peers_dir() -> PathBuf {
    env::var_os("SIFORGE_PEERS").map_or_else(|| user_cache().join("siforge-peers"), PathBuf::from)
}

/// `SIFORGE_BIN_DIR`: binaries that are built already; nothing is built then.
pub fn bin_dir() -> Option<PathBuf> {
    env::var_os("SIFORGE_BIN_DIR").filter(|dir| !dir.is_empty()).map(PathBuf::from)
}

/// `KUBEBUILDER_ASSETS`: a folder with kube-apiserver, etcd and kubectl, as users of envtest have it.
pub fn kube_assets() -> Option<PathBuf> {
    env::var_os("KUBEBUILDER_ASSETS").filter(|dir| !dir.is_empty()).map(PathBuf::from)
}

/// The Cargo that runs us, else the one of `PATH`.
pub fn cargo() -> PathBuf {
    env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from)
}

/// `IMAGE` of `make demo`: an image to take instead of the one that the demo makes.
pub fn demo_image() -> Option<String> {
    env::var("IMAGE").ok().filter(|image| !image.is_empty())
}

/// `KEEP=1` of `make demo`: leave everything running.
pub fn demo_keep() -> bool {
    env::var("KEEP").is_ok_and(|keep| keep == "1")
}

/// `ROUNDS` of `make bench`: how often each pair is measured.
pub fn bench_rounds() -> usize {
    env::var("ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).filter(|rounds| *rounds > 0).unwrap_or(2)
}

/// `JSON` of `make bench`: where to write the figures.
pub fn bench_json() -> Option<PathBuf> {
    env::var_os("JSON").filter(|path| !path.is_empty()).map(PathBuf::from)
}

fn user_cache() -> PathBuf {
    let home = || PathBuf::from(env::var_os("HOME").unwrap_or_else(|| "/root".into())).join(".cache");
    env::var_os("XDG_CACHE_HOME").filter(|dir| !dir.is_empty()).map_or_else(home, PathBuf::from)
}
