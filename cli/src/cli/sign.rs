//! `siforge sign` and `siforge verify`.

use clap::Args;
use std::path::PathBuf;

/// What is signed or verified; nothing named: every object group.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Selection {
    /// The objects of this group
    #[arg(short, long, visible_alias = "groupid", value_name = "ID", value_parser = clap::value_parser!(u32).range(1..=0x0fff_ffff))]
    pub(crate) group_id: Option<u32>,
    /// The object with this ID
    #[arg(short = 'i', long, visible_alias = "id", value_name = "ID", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) sif_id: Option<u32>,
}

/// Where PGP keys are.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct KeyringOptions {
    /// Directory of the local keyring; default: APPTAINER_KEYSDIR, else ~/.apptainer/keys
    #[arg(short = 'd', long, value_name = "DIR")]
    pub(crate) keysdir: Option<PathBuf>,
}

/// Where a passphrase comes from; without either, it is asked for on the terminal.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct PassphraseOptions {
    /// Read the key's passphrase from this file descriptor
    #[arg(long, value_name = "FD", conflicts_with = "passphrase_file")]
    pub(crate) passphrase_fd: Option<u32>,
    /// Read the key's passphrase from this file
    #[arg(long, value_name = "FILE")]
    pub(crate) passphrase_file: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct Sign {
    #[command(flatten)]
    pub(crate) selection: Selection,
    /// Sign every object group (the default)
    #[arg(short, long, conflicts_with_all = ["group_id", "sif_id"])]
    pub(crate) all: bool,
    /// Sign by this private key (PEM) instead of a PGP key
    #[arg(long, value_name = "FILE", conflicts_with_all = ["keyidx", "keysdir", "passphrase_fd", "passphrase_file"])]
    pub(crate) key: Option<PathBuf>,
    /// Number of the secret key in the keyring, from 0 on; needed if there are several
    #[arg(short, long, value_name = "N")]
    pub(crate) keyidx: Option<usize>,
    #[command(flatten)]
    pub(crate) keyring: KeyringOptions,
    #[command(flatten)]
    pub(crate) passphrase: PassphraseOptions,
    /// The SIF file
    #[arg(value_name = "IMAGE")]
    pub(crate) image: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct Verify {
    #[command(flatten)]
    pub(crate) selection: Selection,
    /// With --legacy-insecure: verify every object
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Verify signatures by the private key of this public key (PEM)
    #[arg(long, value_name = "FILE", conflicts_with = "certificate")]
    pub(crate) key: Option<PathBuf>,
    /// Verify signatures by the private key of this X.509 certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "certificate_roots")]
    pub(crate) certificate: Option<PathBuf>,
    /// Certificates between the certificate and a root (PEM)
    #[arg(long, value_name = "FILE", requires = "certificate")]
    pub(crate) certificate_intermediates: Option<PathBuf>,
    /// Certificates to trust (PEM)
    #[arg(long, value_name = "FILE", requires = "certificate")]
    pub(crate) certificate_roots: Option<PathBuf>,
    /// Refused: certificates are not asked for by OCSP
    #[arg(long, hide = true)]
    pub(crate) ocsp_verify: bool,
    /// Use the keyrings of this machine alone (the default)
    #[arg(short, long, conflicts_with = "url")]
    pub(crate) local: bool,
    /// Ask this key server (https://, http://, hkps:// or hkp://) for keys that are in none of the keyrings
    #[arg(short, long, value_name = "URL", conflicts_with_all = ["key", "certificate"])]
    pub(crate) url: Option<String>,
    /// Verify signatures of the first versions, which are not about the file's metadata
    #[arg(long)]
    pub(crate) legacy_insecure: bool,
    #[command(flatten)]
    pub(crate) keyring: KeyringOptions,
    /// Print JSON
    #[arg(short, long)]
    pub(crate) json: bool,
    /// The SIF file
    #[arg(value_name = "IMAGE")]
    pub(crate) image: PathBuf,
}
