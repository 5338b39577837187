//! Why a command failed, as it is printed.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Reference(#[from] siforge_reference::ParseError),
    #[error(transparent)]
    Oci(#[from] siforge_oci::Error),
    #[error(transparent)]
    Keyring(#[from] siforge_oci::KeyringError),
    #[error(transparent)]
    Registries(#[from] siforge_oci::RegistriesError),
    #[error(transparent)]
    Certs(#[from] siforge_oci::CertsError),
    #[error(
        "ask for a password: {source}; without a terminal, give it by --password-stdin or APPTAINER_DOCKER_PASSWORD"
    )]
    Prompt { source: io::Error },
    #[error("ask for a password: {why}")]
    NoPassword { why: &'static str },
    #[error("registry {value:?} is not [docker://]HOST[:PORT][/PATH]")]
    RegistryName { value: String },
    #[error("write the credentials to {path}: {source}", path = path.display())]
    WriteLogins { path: PathBuf, source: io::Error },
    #[error("write the credentials to {path}: {source}", path = path.display())]
    EditLogins { path: PathBuf, source: siforge_oci::InvalidAuthFile },
    #[error("{path} has no credentials for {name}", path = path.display())]
    NotLoggedIn { path: PathBuf, name: String },
    #[error("no home directory to keep credentials in: name a file by --authfile")]
    NoLoginFile,
    #[error("size {value:?} is not a number of bytes such as 512M, 10G or 1T")]
    CacheSize { value: String },
    #[error("nothing was removed: it was not confirmed (use --force to be asked nothing)")]
    NotConfirmed,
    #[error(transparent)]
    Build(#[from] siforge_build::Error),
    #[error(transparent)]
    Store(#[from] siforge_store::Error),
    #[error(transparent)]
    Launch(#[from] siforge_launch::Error),
    #[error("{0}")]
    Agent(#[from] siforge_agent_api::Error),
    #[error("{path}: {source}", path = path.display())]
    Sif { path: PathBuf, source: siforge_sif::Error },
    #[error("{path}: {source}", path = path.display())]
    Metadata { path: PathBuf, source: siforge_sif::inspect::Error },
    #[error("{value}: not a source of pull and build")]
    Source { value: String },
    #[error("{value}: push writes to oras://HOST/NAME[:TAG]")]
    Destination { value: String },
    #[error("create a temporary file in {}: {source}; --tmpdir names another place", path.display())]
    Temporary { path: PathBuf, source: io::Error },
    #[error("the SIF has the digest {got}, but --sha256 wants {want}")]
    OtherDigest { got: siforge_reference::Digest, want: siforge_reference::Digest },
    #[error("{value}: --sha256 is for SIFs of oras:// and https://; an image is pinned by NAME@sha256:…")]
    NoSif { value: String },
    #[error("{path}: {source}", path = path.display())]
    VerifyKey { path: PathBuf, source: siforge_sign::cosign::InvalidKey },
    #[error(
        "{value}: --verify-key is for images of registries (docker://, oras://): cosign's signatures are kept there"
    )]
    NotSignable { value: String },
    #[error("push: --verify-key is for what is pulled")]
    VerifyPush,
    #[error("{path}: {source}", path = path.display())]
    Signature { path: PathBuf, source: siforge_sign::image::Error },
    #[error("read the keyring {path}: {source}", path = path.display())]
    Keys { path: PathBuf, source: siforge_sign::image::pgp::InvalidKeyring },
    #[error("no home directory to find the keyring in: name its directory by --keysdir")]
    NoKeysDir,
    #[error("open {path} to sign it: {source}", path = path.display())]
    Open { path: PathBuf, source: io::Error },
    #[error("the keyring {path} has no key that signs: make one by siforge key newpair", path = path.display())]
    NoSecretKey { path: PathBuf },
    #[error("the keyring {path} has {count} keys that sign, none has the number {index}", path = path.display())]
    KeyIndex { path: PathBuf, index: usize, count: usize },
    #[error("the keyring {path} has several keys that sign, choose one by --keyidx: {keys}", path = path.display())]
    ManySecretKeys { path: PathBuf, keys: String },
    #[error("ask for a passphrase: {source}; without a terminal, give it by --passphrase-fd or --passphrase-file")]
    AskPassphrase { source: io::Error },
    #[error("ask for the key's user: {source}; without a terminal, give --name or --email")]
    AskLine { source: io::Error },
    #[error("{path}: not signed as Fingerprints wants it: {why}", path = path.display())]
    NotSignedBy { path: PathBuf, why: String },
    #[error("{path}: {source}", path = path.display())]
    SecretPem { path: PathBuf, source: siforge_sign::image::pem::InvalidSecretKey },
    #[error("{path}: {source}", path = path.display())]
    Certificate { path: PathBuf, source: Box<siforge_sign::image::certificate::Error> },
    #[error(transparent)]
    Key { source: siforge_sign::image::pgp::manage::Error },
    #[error("write {path}: {source}", path = path.display())]
    WriteKey { path: PathBuf, source: io::Error },
    #[error("{path} has no PGP key", path = path.display())]
    NoKeys { path: PathBuf },
    #[error("{path}: {count} of its keys cannot be read: it is not written again without them", path = path.display())]
    UnreadableKeys { path: PathBuf, count: usize },
    #[error("the keyring {path} has no key {wish}: siforge key list shows those there are", path = path.display(), wish = wish.to_uppercase())]
    NoSuchKey { path: PathBuf, wish: String },
    #[error("the keyring {path} has several keys, choose one by the end of its fingerprint: {keys}", path = path.display())]
    ManyKeys { path: PathBuf, keys: String },
    #[error("{value:?} is no fingerprint: write its hex digits, at least the last 8")]
    Fingerprint { value: String },
    #[error("{value} is the end of a fingerprint: a key server is asked for all of its 40 digits or more")]
    ShortFingerprint { value: String },
    #[error("the key server {server} has no key for {text:?}")]
    NothingFound { server: String, text: String },
    #[error("the key server {server}: {source}")]
    ServerKeys { server: String, source: siforge_sign::image::pgp::InvalidKeyring },
    #[error("the passphrase in {path} is not UTF-8", path = path.display())]
    PassphraseText { path: PathBuf },
    #[error(transparent)]
    NotSigned(Box<crate::signed::NotSigned>),
    #[error(transparent)]
    Definition(#[from] siforge_definition::Error),
    #[error(
        "--build-arg, --build-arg-file, --warn-unused-build-args, --section, --notest, --bind and --env are for definition files"
    )]
    OnlyDefinition,
    #[error("--build-arg: {problem}")]
    BuildArgument { problem: String },
    #[error("{file} does not mention the build arguments {names}: --warn-unused-build-args goes on")]
    UnusedBuildArguments { file: String, names: String },
    #[error(
        "{file}:{line}: Fingerprints: only a SIF file (Bootstrap: localimage) has signatures that are checked: pull the base, name the file, or leave the line out"
    )]
    Fingerprints { file: String, line: u32 },
    #[error("{image} was changed while the definition was built: build it again")]
    BaseChanged { image: String },
    #[error("{path}: it does not say which image it was made of: siforge cache clean removes it", path = path.display())]
    NoProvenance { path: PathBuf },
    #[error("pull takes [OUTPUT] SOURCE")]
    PullArguments,
    #[error("platform {value:?} is not OS/ARCH[/VARIANT]; for example linux/arm64")]
    Platform { value: String },
    #[error("compression {value:?} is not zstd[:1-22], gzip[:1-12], lz4[:0-12], xz[:0-9] or none")]
    Compression { value: String },
    #[error("block size {value} KiB is not one of 64, 128, 256, 512, 1024")]
    BlockSize { value: u32 },
    #[error("read {path}: {source}", path = path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("read {path}: it has more than {limit} bytes", path = path.display())]
    FileTooLarge { path: PathBuf, limit: u64 },
    #[error("create the cache directory {path}: {source}; APPTAINER_CACHEDIR names another place", path = path.display())]
    Cache { path: PathBuf, source: io::Error },
    #[error(
        "the cache directory {path} may be changed by others (owner {uid}, mode {mode:04o}): name one of your own by SIFORGE_CACHEDIR (under sudo: sudo -H)", path = path.display()
    )]
    ForeignCache { path: PathBuf, uid: u32, mode: u32 },
    #[error("start the runtime: {source}")]
    Runtime { source: io::Error },
    #[error("interrupted by {signal}: nothing was written")]
    Interrupted { signal: &'static str },
    #[error("{path}: {source}", path = path.display())]
    EditSif { path: PathBuf, source: siforge_sif::edit::Error },
    #[error("create {path}: {source}", path = path.display())]
    CreateSif { path: PathBuf, source: io::Error },
    #[error("{path}: it has no data object {id}", path = path.display())]
    SifObject { path: PathBuf, id: u32 },
    #[error("sif add: {why}")]
    SifAdd { why: String },
    #[error("{option}: {instead}")]
    Refused { option: &'static str, instead: &'static str },
    #[error("--mksquashfs-args {value:?}: {why}")]
    MksquashfsArguments { value: String, why: &'static str },
    #[error("{path}: it is encrypted; siforge does not read encrypted images, apptainer does", path = path.display())]
    Encrypted { path: PathBuf },
    #[error("{path}: its root file system is {name}; only squashfs is read", path = path.display())]
    FileSystem { path: PathBuf, name: &'static str },
    #[error("{path}: a sandbox needs a name of its own", path = path.display())]
    SandboxName { path: PathBuf },
    #[error("--fix-perms is for --sandbox: a SIF keeps all modes as they are")]
    FixPermissions,
    #[error("unpack to {path}: {source}", path = path.display())]
    Unpack { path: PathBuf, source: io::Error },
    #[error("{path}: {source}", path = path.display())]
    Squashfs { path: PathBuf, source: siforge_squashfs::read::Error },
    #[error("{0}")]
    Bind(#[from] siforge_launch::BindError),
    #[error("--no-mount {value:?}: not one of proc, sys, dev, devpts, home, tmp, cwd, bind-paths, or a path")]
    NoMount { value: String },
    #[error(transparent)]
    Tree(#[from] siforge_sif::observe::TreeError),
    #[error("{image:?} has no app {app:?}; its apps: {there}", image = image.to_string_lossy())]
    NoApp { image: OsString, app: String, there: String },
    #[error("{value}: inspect reads a store itself: SIFORGE_STORE names it")]
    InspectStore { value: String },
    #[error(transparent)]
    Observe(#[from] siforge_sif::observe::Error),
    #[error(transparent)]
    Plan(#[from] siforge_launch::plan::PlanError),
    #[error("print the plan: {source}")]
    DryRun { source: serde_json::Error },
    #[error("{reference}: the store {} has no such image", store.display())]
    NoSuchImage { reference: String, store: PathBuf },
    #[error("{image:?} was not pulled", image = image.to_string_lossy())]
    NotPulled { image: OsString },
    #[error("--env {value:?}: not NAME=VALUE")]
    Env { value: OsString },
    #[error("unknown option {value:?}; --help lists those there are, an image whose name begins so is ./{}", value.to_string_lossy())]
    UnknownOption { value: OsString },
    #[error("no image was named")]
    NoImage,
    #[error("reference {value:?} is not UTF-8")]
    NotUtf8 { value: OsString },
}

#[cfg(test)]
mod tests {
    use super::*;
    use siforge_build::chain;

    #[test]
    fn causes_are_told_once() {
        let source = || io::Error::other("no space");
        let inner = siforge_sif::writer::Error::Write { what: "the header", source: source() };
        let sif = Error::Build(siforge_build::Error::Sif(inner));
        assert_eq!(chain(&sif), "writing the SIF: write the header of the SIF: no space");
        let read = Error::Read { path: "/x".into(), source: source() };
        assert_eq!(chain(&read), "read /x: no space");
    }
}
