//! The plugin's arguments in plugstack.conf.
//!
//! ```text
//!   required /usr/lib/…/libsiforge_spank.so socket=/run/siforge/agent.sock namespace=lab bind=/opt/site:/opt/site:ro
//! ```
//! Slurm divides them by blanks. A bind that does not exist on a node is left out there.

use std::ffi::OsStr;
use std::path::PathBuf;

use siforge_launch::Bind;

use crate::error::Error;

/// What the administrator set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Where the agent listens.
    pub(crate) socket: PathBuf,
    /// Namespace of names without one; without it, the agent's own default.
    pub(crate) namespace: Option<String>,
    /// What every container shows, where the node has it.
    pub(crate) binds: Vec<Bind>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { socket: siforge_agent_api::DEFAULT_SOCKET.into(), namespace: None, binds: Vec::new() }
    }
}

impl Settings {
    /// From the words after the plugin's path.
    pub(crate) fn parse<S: AsRef<str>>(words: &[S]) -> Result<Self, Error> {
        let mut settings = Self::default();
        for word in words.iter().map(AsRef::as_ref) {
            match word.split_once('=') {
                Some(("socket", path)) if path.starts_with('/') => settings.socket = path.into(),
                Some(("namespace", name)) if is_namespace(name) => {
                    settings.namespace = Some(name.to_owned());
                }
                Some(("bind", text)) => {
                    let binds = Bind::parse_list(OsStr::new(text))?;
                    settings.binds.extend(binds.into_iter().map(|bind| Bind { optional: true, ..bind }));
                }
                _ => {
                    return Err(Error::Argument { word: word.to_owned() });
                }
            }
        }
        Ok(settings)
    }
}

fn is_namespace(name: &str) -> bool {
    siforge_reference::StoreRef::new(name, "x", None).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments() {
        let check = |words: &[&str], expect: Result<Settings, &str>| {
            let got = Settings::parse(words).map_err(|error| error.to_string());
            assert_eq!(got, expect.map_err(str::to_owned), "{words:?}");
        };
        let base = Settings::default;
        check(&[], Ok(base()));
        check(
            &["socket=/x/y", "namespace=lab"],
            Ok(Settings { socket: "/x/y".into(), namespace: Some("lab".into()), ..base() }),
        );
        check(
            &["bind=/a,/b:/c:ro"],
            Ok(Settings {
                binds: Bind::parse_list(OsStr::new("/a,/b:/c:ro"))
                    .expect("binds")
                    .into_iter()
                    .map(|bind| Bind { optional: true, ..bind })
                    .collect(),
                ..base()
            }),
        );
        let wrong = |word: &str| {
            format!("argument {word:?} in plugstack.conf: know socket=/PATH, namespace=NAME and bind=SRC[:DEST[:ro]]")
        };
        for word in ["socket=x", "namespace=Lab", "namespace=", "color=red", "x"] {
            check(&[word], Err(&wrong(word)));
        }
    }
}
