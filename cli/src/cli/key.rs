//! `siforge key`.

use super::sign::{KeyringOptions, PassphraseOptions};
use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Make a key pair
    #[command(name = "newpair")]
    NewPair(KeyNewPair),
    /// Show the keys of a keyring
    List(KeyList),
    /// Add the keys of a file to the keyrings
    Import(KeyImport),
    /// Write a key to a file
    Export(KeyExport),
    /// Remove a key
    Remove(KeyRemove),
    /// Look for keys on a key server
    Search(KeySearch),
    /// Take a public key from a key server
    Pull(KeyPull),
    /// Give a public key to a key server
    Push(KeyPush),
}

/// Which of the keyrings: this user's, or the one that counts for everybody on this machine.
#[derive(Args, Debug)]
pub(crate) struct Ring {
    #[command(flatten)]
    pub(crate) local: KeyringOptions,
    /// The public keyring of everybody on this machine
    #[arg(short, long, conflicts_with = "keysdir")]
    pub(crate) global: bool,
}

/// Which key server.
#[derive(Args, Debug)]
pub(crate) struct KeyServerOptions {
    /// The key server (https://, http://, hkps:// or hkp://)
    #[arg(short, long, value_name = "URL", default_value = "https://keys.openpgp.org")]
    pub(crate) url: String,
    /// PEM file of certificate authorities to trust besides the system's
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_ca_file: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct KeyNewPair {
    /// The user's name; asked for if neither it nor --email is given
    #[arg(short = 'N', long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// The user's address
    #[arg(short = 'E', long, value_name = "ADDRESS")]
    pub(crate) email: Option<String>,
    /// What the key is for
    #[arg(short = 'C', long, value_name = "TEXT")]
    pub(crate) comment: Option<String>,
    /// Length of the RSA key
    #[arg(short, long, value_name = "BITS", default_value_t = 4096)]
    pub(crate) bit_length: u32,
    /// Refused: everybody on this machine can read a command's arguments
    #[arg(short = 'P', long, value_name = "PASSPHRASE", hide = true)]
    pub(crate) password: Option<String>,
    /// Give the public key to the key server
    #[arg(short = 'U', long)]
    pub(crate) push: bool,
    #[command(flatten)]
    pub(crate) server: KeyServerOptions,
    #[command(flatten)]
    pub(crate) passphrase: PassphraseOptions,
    #[command(flatten)]
    pub(crate) local: KeyringOptions,
}

#[derive(Args, Debug)]
pub(crate) struct KeyList {
    /// Show the keys that sign
    #[arg(short, long, conflicts_with = "global")]
    pub(crate) secret: bool,
    /// Print JSON
    #[arg(short, long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) ring: Ring,
}

#[derive(Args, Debug)]
pub(crate) struct KeyImport {
    /// Give secret keys another passphrase: the old one is asked for, then the new one
    #[arg(long)]
    pub(crate) new_password: bool,
    #[command(flatten)]
    pub(crate) ring: Ring,
    /// Keys, as packets or armored
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct KeyExport {
    /// Write text (armor) instead of packets
    #[arg(short, long)]
    pub(crate) armor: bool,
    /// Write the secret key; it stays locked by its passphrase
    #[arg(short, long, conflicts_with = "global")]
    pub(crate) secret: bool,
    /// The key, by the end of its fingerprint; needed if there are several
    #[arg(short, long, value_name = "FINGERPRINT")]
    pub(crate) fingerprint: Option<String>,
    /// Write over a file that is there
    #[arg(short = 'F', long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) ring: Ring,
    /// The file to write; - is standard output
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct KeyRemove {
    /// The public key (the default)
    #[arg(short, long, conflicts_with_all = ["secret", "both"])]
    pub(crate) public: bool,
    /// The secret key
    #[arg(short, long, visible_alias = "private", conflicts_with_all = ["both", "global"])]
    pub(crate) secret: bool,
    /// The public and the secret key
    #[arg(short, long, conflicts_with = "global")]
    pub(crate) both: bool,
    #[command(flatten)]
    pub(crate) ring: Ring,
    /// The key's fingerprint, all of it
    #[arg(value_name = "FINGERPRINT")]
    pub(crate) fingerprint: String,
}

#[derive(Args, Debug)]
pub(crate) struct KeySearch {
    /// Show algorithm, length and times too
    #[arg(short, long)]
    pub(crate) long_list: bool,
    #[command(flatten)]
    pub(crate) server: KeyServerOptions,
    /// A name, an address, a fingerprint, or a part of one
    #[arg(value_name = "TEXT")]
    pub(crate) text: String,
}

#[derive(Args, Debug)]
pub(crate) struct KeyPull {
    #[command(flatten)]
    pub(crate) server: KeyServerOptions,
    #[command(flatten)]
    pub(crate) ring: Ring,
    /// The key's fingerprint
    #[arg(value_name = "FINGERPRINT")]
    pub(crate) fingerprint: String,
}

#[derive(Args, Debug)]
pub(crate) struct KeyPush {
    #[command(flatten)]
    pub(crate) server: KeyServerOptions,
    #[command(flatten)]
    pub(crate) ring: Ring,
    /// The key, by the end of its fingerprint
    #[arg(value_name = "FINGERPRINT")]
    pub(crate) fingerprint: String,
}
