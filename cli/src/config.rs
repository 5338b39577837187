//! What the environment says. The only module of this program that reads it.

use siforge_oci::{Credentials, Secret};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// Ready to use: defaults filled in.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// The caller's whole environment, in its order.
    pub(crate) environment: Vec<(OsString, OsString)>,
    /// Blobs and unpacked images of this user.
    pub(crate) cache: PathBuf,
    /// The node agent's socket.
    pub(crate) agent_socket: PathBuf,
    /// The site's store, for root on a node without an agent.
    pub(crate) store: Option<PathBuf>,
    /// Namespace of a bare image name.
    pub(crate) namespace: String,
    /// APPTAINER_DOCKER_USERNAME and its relatives.
    pub(crate) docker_username: Option<String>,
    docker_password: Option<Secret>,
    /// APPTAINER_BIND, APPTAINER_BINDPATH and the SINGULARITY_ ones.
    pub(crate) bind: Vec<OsString>,
}

/// Where the per-user cache is unless a variable names another place.
const CACHE_NAME: &str = "siforge";

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
        let cache = path("SIFORGE_CACHEDIR")
            .or_else(|| path("APPTAINER_CACHEDIR").map(|dir| dir.join(CACHE_NAME)))
            .or_else(|| path("SINGULARITY_CACHEDIR").map(|dir| dir.join(CACHE_NAME)))
            .or_else(|| path("XDG_CACHE_HOME").map(|dir| dir.join(CACHE_NAME)))
            .or_else(|| path("HOME").or_else(home_of_user).map(|home| home.join(".cache").join(CACHE_NAME)))
            .unwrap_or_else(|| Path::new("/var/tmp").join(CACHE_NAME));
        Self {
            cache,
            agent_socket: path("SIFORGE_AGENT_SOCKET").unwrap_or_else(|| siforge_agent_api::DEFAULT_SOCKET.into()),
            store: path("SIFORGE_STORE"),
            namespace: text("SIFORGE_NAMESPACE").unwrap_or_else(|| "default".into()),
            docker_username: text("APPTAINER_DOCKER_USERNAME").or_else(|| text("SINGULARITY_DOCKER_USERNAME")),
            docker_password: text("APPTAINER_DOCKER_PASSWORD")
                .or_else(|| text("SINGULARITY_DOCKER_PASSWORD"))
                .map(Secret::new),
            bind: ["APPTAINER_BIND", "APPTAINER_BINDPATH", "SINGULARITY_BIND", "SINGULARITY_BINDPATH"]
                .iter()
                .filter_map(|name| get(name))
                .collect(),
            environment,
        }
    }

    /// The one pair of credentials, when both halves are there.
    pub(crate) fn credentials(&self, username: Option<&str>) -> Option<Credentials> {
        let username = username.or(self.docker_username.as_deref())?;
        Some(Credentials { username: username.to_owned(), password: self.docker_password.clone()? })
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
        assert!(config(&both[..1]).credentials(None).is_none());
        assert!(config(&both[1..]).credentials(None).is_none());
        assert_eq!(config(&both[1..]).credentials(Some("x")).map(|c| c.username), Some("x".into()));
        let config = config(&both);
        assert!(config.credentials(None).is_some());
        assert!(!format!("{:?}", config.credentials(None)).contains("hunter2"));
    }
}
