//! The plugin's own environment variables. SPANK knows none for options: srun's side reads them here, from the
//! environment of the client; the node's side reads the same names from the environment of the task.

use std::ffi::OsString;

/// Image of steps without --sif.
pub(crate) const IMAGE: &str = "SIFORGE_SLURM_SIF";
/// Binds of steps without --sif-bind.
pub(crate) const BIND: &str = "SIFORGE_SLURM_SIF_BIND";

/// A variable of the client that has loaded the plugin.
pub(crate) fn client(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}
