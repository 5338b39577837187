//! What the environment says. The only module of this program that reads it.

use siforge_oci::{Credentials, Keyring, Place, Proxies, Secret};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// Ready to use: defaults filled in.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// The caller's whole environment, in its order.
    pub(crate) environment: Vec<(OsString, OsString)>,
    /// Blobs and unpacked images of this user.
    pub(crate) cache: PathBuf,
    /// Bytes that blobs and packs may take in it.
    pub(crate) cache_bytes: u64,
    /// The node agent's socket.
    pub(crate) agent_socket: PathBuf,
    /// The site's store, for root on a node without an agent.
    pub(crate) store: Option<PathBuf>,
    /// Where what has no place in memory is put for the time of a build.
    pub(crate) tmpdir: PathBuf,
    /// SOURCE_DATE_EPOCH: the time that a definition's image is said to be made at, Unix seconds.
    pub(crate) source_date_epoch: Option<i64>,
    /// DOCKER_HOST: the engine that docker-daemon: asks.
    pub(crate) docker_host: Option<String>,
    /// Namespace of a bare image name.
    pub(crate) namespace: String,
    /// Where credentials, mirrors and certificates of registries are.
    pub(crate) registries: RegistryPaths,
    /// APPTAINER_BIND, APPTAINER_BINDPATH and the SINGULARITY_ ones.
    pub(crate) bind: Vec<OsString>,
    /// APPTAINER_KEYSDIR, else Apptainer's own place: the files pgp-public and pgp-secret are in it.
    keysdir: Option<PathBuf>,
    /// PGP keys that the machine's administrator trusts for everybody.
    pub(crate) global_keyring: PathBuf,
}

#[derive(Clone, Debug)]
pub(crate) struct RegistryPaths {
    /// APPTAINER_DOCKER_USERNAME and its relatives.
    username: Option<String>,
    password: Option<Secret>,
    /// Files of credentials; the first that has some for an image wins.
    pub(crate) places: Vec<Place>,
    /// Where a login is kept: the file that Apptainer reads too.
    pub(crate) logins: Option<PathBuf>,
    /// PATH, for credential helpers.
    path: OsString,
    /// CONTAINERS_REGISTRIES_CONF.
    pub(crate) conf: Option<PathBuf>,
    /// What containers/image looks for its files in: the user's own folder, when there is a home, and the machine's.
    pub(crate) user_containers: Option<PathBuf>,
    pub(crate) system_containers: PathBuf,
    /// HTTPS_PROXY, NO_PROXY and their relatives.
    pub(crate) proxies: Proxies,
}

impl RegistryPaths {
    /// What containers-auth.json(5), docker/cli and Apptainer read, in the order of Apptainer, then podman, then Docker.
    fn new(get: &dyn Fn(&str) -> Option<OsString>, home: Option<&Path>, uid: u32) -> Self {
        let path = |name: &str| get(name).map(PathBuf::from);
        let text = |name: &str| get(name).and_then(|value| value.into_string().ok());
        let in_home = |below: &str| home.map(|home| home.join(below));
        let config = |variable: &str, below: &str| path(variable).or_else(|| in_home(below));
        let logins = config("APPTAINER_CONFIGDIR", ".apptainer").map(|dir| dir.join("docker-config.json"));
        let runtime = path("XDG_RUNTIME_DIR").unwrap_or_else(|| format!("/run/containers/{uid}").into());
        let runtime = match get("XDG_RUNTIME_DIR") {
            Some(_) => runtime.join("containers/auth.json"),
            None => runtime.join("auth.json"),
        };
        let files = [
            // First, so that an old login of Singularity's does not hide one of today.
            logins.clone(),
            config("SINGULARITY_CONFIGDIR", ".singularity").map(|dir| dir.join("docker-config.json")),
            Some(runtime),
            config("XDG_CONFIG_HOME", ".config").map(|dir| dir.join("containers/auth.json")),
            config("DOCKER_CONFIG", ".docker").map(|dir| dir.join("config.json")),
        ];
        let variable = text("DOCKER_AUTH_CONFIG")
            .map(|text| Place::Text { name: "the variable DOCKER_AUTH_CONFIG", text: Secret::new(text) });
        let named = path("REGISTRY_AUTH_FILE").map(|path| Place::File { path, required: true });
        let files = files.into_iter().flatten().map(|path| Place::File { path, required: false });
        Self {
            username: text("APPTAINER_DOCKER_USERNAME").or_else(|| text("SINGULARITY_DOCKER_USERNAME")),
            password: text("APPTAINER_DOCKER_PASSWORD")
                .or_else(|| text("SINGULARITY_DOCKER_PASSWORD"))
                .map(Secret::new),
            places: variable.into_iter().chain(named).chain(files).collect(),
            logins,
            path: get("PATH").unwrap_or_default(),
            conf: path("CONTAINERS_REGISTRIES_CONF"),
            user_containers: in_home(".config/containers"),
            system_containers: "/etc/containers".into(),
            proxies: Proxies::new(&text),
        }
    }

    /// `username` is the one of the command line, `authfile` its file, `prompted` what a person typed.
    pub(crate) fn keyring(
        &self,
        username: Option<&str>,
        authfile: Option<&Path>,
        prompted: Option<Credentials>,
    ) -> Keyring {
        let authfile = authfile.map(|path| Place::File { path: path.to_owned(), required: true });
        Keyring {
            given: prompted.or_else(|| self.given(username)),
            places: authfile.into_iter().chain(self.places.iter().cloned()).collect(),
            path: self.path.clone(),
            ..Keyring::default()
        }
    }

    /// The one pair of credentials, when both halves are there.
    fn given(&self, username: Option<&str>) -> Option<Credentials> {
        let username = username.or(self.username.as_deref())?.to_owned();
        Some(Credentials::Password { username, password: self.password.clone()? })
    }

    /// APPTAINER_DOCKER_USERNAME, for a login.
    pub(crate) fn username(&self) -> Option<&str> {
        self.username.as_deref()
    }

    pub(crate) fn password(&self) -> Option<&Secret> {
        self.password.as_ref()
    }
}

/// Where the per-user cache is unless a variable names another place.
const CACHE_NAME: &str = "siforge";
/// Some hundred images that share layers; what goes is fetched again when it is needed.
const CACHE_BYTES: u64 = 32 << 30;

impl Config {
    pub(crate) fn from_process(home_of_user: impl FnOnce() -> Option<PathBuf>) -> Self {
        Self::from_environment(std::env::vars_os().collect(), home_of_user)
    }

    /// `home_of_user` is the passwd entry's, asked only when HOME is not set.
    fn from_environment(
        environment: Vec<(OsString, OsString)>,
        home_of_user: impl FnOnce() -> Option<PathBuf>,
    ) -> Self {
        let get = |name: &str| {
            environment
                .iter()
                .find(|(key, value)| key == OsStr::new(name) && !value.is_empty())
                .map(|(_, value)| value.clone())
        };
        let path = |name: &str| get(name).map(PathBuf::from);
        let text = |name: &str| get(name).and_then(|value| value.into_string().ok());
        let home = path("HOME").or_else(home_of_user);
        let cache = path("SIFORGE_CACHEDIR")
            .or_else(|| path("APPTAINER_CACHEDIR").map(|dir| dir.join(CACHE_NAME)))
            .or_else(|| path("SINGULARITY_CACHEDIR").map(|dir| dir.join(CACHE_NAME)))
            .or_else(|| path("XDG_CACHE_HOME").map(|dir| dir.join(CACHE_NAME)))
            .or_else(|| home.as_ref().map(|home| home.join(".cache").join(CACHE_NAME)))
            .unwrap_or_else(|| Path::new("/var/tmp").join(CACHE_NAME));
        Self {
            cache,
            cache_bytes: text("SIFORGE_CACHE_SIZE")
                .and_then(|size| crate::cache::parse_size(&size))
                .unwrap_or(CACHE_BYTES),
            agent_socket: path("SIFORGE_AGENT_SOCKET").unwrap_or_else(|| siforge_agent_api::DEFAULT_SOCKET.into()),
            store: path("SIFORGE_STORE"),
            docker_host: text("DOCKER_HOST"),
            source_date_epoch: text("SOURCE_DATE_EPOCH").and_then(|text| text.parse().ok()),
            tmpdir: ["APPTAINER_TMPDIR", "SINGULARITY_TMPDIR", "TMPDIR"]
                .iter()
                .find_map(|name| path(name))
                .unwrap_or_else(|| "/tmp".into()),
            namespace: text("SIFORGE_NAMESPACE").unwrap_or_else(|| "default".into()),
            registries: RegistryPaths::new(&get, home.as_deref(), nix::unistd::Uid::effective().as_raw()),
            bind: ["APPTAINER_BIND", "APPTAINER_BINDPATH", "SINGULARITY_BIND", "SINGULARITY_BINDPATH"]
                .iter()
                .filter_map(|name| get(name))
                .collect(),
            keysdir: path("APPTAINER_KEYSDIR").or_else(|| path("SINGULARITY_KEYSDIR")).or_else(|| {
                let config = path("APPTAINER_CONFIGDIR").or_else(|| Some(home.as_ref()?.join(".apptainer")));
                config.map(|dir| dir.join("keys"))
            }),
            global_keyring: "/etc/apptainer/global-pgp-public".into(),
            environment,
        }
    }

    /// The directory of the local keyring; `given` is the one of the command line.
    pub(crate) fn keysdir(&self, given: Option<&Path>) -> Result<PathBuf, crate::error::Error> {
        given.or(self.keysdir.as_deref()).map(Path::to_owned).ok_or(crate::error::Error::NoKeysDir)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(vars: &[(&str, &str)]) -> Config {
        let vars = vars.iter().map(|(k, v)| (k.into(), v.into())).collect();
        Config::from_environment(vars, || Some("/home/passwd".into()))
    }

    #[test]
    fn the_cache_directory_follows_the_most_specific_variable() {
        let check = |vars: &[(&str, &str)], cache: &str| assert_eq!(config(vars).cache, Path::new(cache), "{vars:?}");
        check(&[], "/home/passwd/.cache/siforge");
        check(&[("HOME", "/h")], "/h/.cache/siforge");
        check(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")], "/x/siforge");
        check(&[("XDG_CACHE_HOME", "/x"), ("SINGULARITY_CACHEDIR", "/s")], "/s/siforge");
        check(&[("SINGULARITY_CACHEDIR", "/s"), ("APPTAINER_CACHEDIR", "/a")], "/a/siforge");
        check(&[("APPTAINER_CACHEDIR", "/a"), ("SIFORGE_CACHEDIR", "/f")], "/f");
        check(&[("HOME", "")], "/home/passwd/.cache/siforge");
    }

    #[test]
    fn credentials_need_both_halves_and_stay_secret() {
        let both = [("SINGULARITY_DOCKER_USERNAME", "u"), ("APPTAINER_DOCKER_PASSWORD", "hunter2")];
        let given = |vars: &[(&str, &str)], username| config(vars).registries.given(username);
        assert!(given(&both[..1], None).is_none());
        assert!(given(&both[1..], None).is_none());
        assert_eq!(given(&both[1..], Some("x")), Some(Credentials::new("x", "hunter2")));
        assert_eq!(given(&both, None), Some(Credentials::new("u", "hunter2")));
        let vars = [&both[..], &[("DOCKER_AUTH_CONFIG", "hunter2")]].concat();
        assert!(!format!("{:?}", config(&vars).registries).contains("hunter2"));
    }

    #[test]
    fn credentials_are_looked_for_where_others_keep_them() {
        let check = |vars: &[(&str, &str)], authfile: Option<&str>, expect: &[&str]| {
            let keyring = config(vars).registries.keyring(None, authfile.map(Path::new), None);
            let show = |place: &Place| match place {
                Place::Text { name, .. } => (*name).to_owned(),
                Place::File { path, required } => format!("{}{}", path.display(), if *required { "!" } else { "" }),
            };
            let own = |name: &String| !name.starts_with("/run/containers/");
            let places: Vec<_> = keyring.places.iter().map(show).filter(own).collect();
            assert_eq!(places, expect, "{vars:?}");
        };
        let home = [
            "/h/.apptainer/docker-config.json",
            "/h/.singularity/docker-config.json",
            "/h/.config/containers/auth.json",
            "/h/.docker/config.json",
        ];
        check(&[("HOME", "/h")], None, &home);
        let all = [
            ("HOME", "/h"),
            ("DOCKER_AUTH_CONFIG", "{}"),
            ("REGISTRY_AUTH_FILE", "/r"),
            ("SINGULARITY_CONFIGDIR", "/s"),
            ("APPTAINER_CONFIGDIR", "/a"),
            ("XDG_RUNTIME_DIR", "/x"),
            ("XDG_CONFIG_HOME", "/c"),
            ("DOCKER_CONFIG", "/d"),
        ];
        let named = [
            "/f!",
            "the variable DOCKER_AUTH_CONFIG",
            "/r!",
            "/a/docker-config.json",
            "/s/docker-config.json",
            "/x/containers/auth.json",
            "/c/containers/auth.json",
            "/d/config.json",
        ];
        check(&all, Some("/f"), &named);
    }
}
